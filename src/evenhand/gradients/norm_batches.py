"""Batches to score: checked labels and logits, samples of like length together, shares of several processes.

Legend: N samples, B samples of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import default_data_collator

from evenhand.data.rows import Collator, Rows, arrow_table
from evenhand.losses import IGNORED, as_classes
from evenhand.models.inference import Call, logits_of
from evenhand.validation import UserError


@dataclass(frozen=True)
class Batch:
    """Inputs of B samples with their labels and row numbers in the dataset."""

    inputs: dict[str, Any]
    label_B: Tensor
    row_B: NDArray[np.int64]
    call: Call = field(default_factory=Call)

    def __len__(self) -> int:
        return len(self.row_B)

    def __getitem__(self, samples: slice) -> Batch:
        """Some of the samples: every input whose dim 0 is B is cut."""
        inputs = {
            name: value[samples] if isinstance(value, Tensor) and value.ndim and len(value) == len(self) else value
            for name, value in self.inputs.items()
        }
        return replace(self, inputs=inputs, label_B=self.label_B[samples], row_B=self.row_B[samples])

    def logits(self, model: nn.Module) -> Tensor:
        """The model's logits, shape (B, C).

        Raises:
            UserError: If there are none, one isn't finite, or a label is none of the C classes.
        """
        logits_BC = logits_of(self.call(model, self.inputs, self.label_B), self.label_B)
        classes = logits_BC.shape[1]
        outside_B = ((self.label_B < 0) & (self.label_B != IGNORED)) | (self.label_B >= classes)
        if bool(outside_B.any()):
            i = int(outside_B.nonzero()[0])
            raise UserError(
                f"Sample {self.row_B[i]} has the label {int(self.label_B[i])}, "
                f"but the model's classes are 0 to {classes - 1}."
            )
        self.check_finite(logits_BC.detach().sum(1), "logits")
        return logits_BC

    def check_finite(self, value_B: Tensor, what: str) -> None:
        """Raise `UserError` naming the first sample with NaN or infinity."""
        if not bool(torch.isfinite(value_B).all()):
            i = int((~torch.isfinite(value_B)).nonzero()[0])
            raise UserError(f"The model's {what} of sample {self.row_B[i]} are not finite, so it can't be scored.")


def scoring_order(dataset: Any, collate_fn: Collator | None) -> NDArray[np.int64]:
    """The rows, longest texts first where a collator pads them; the longest batch shows early whether memory lasts."""
    order = np.arange(len(dataset))
    length_N = None if isinstance(dataset, Rows) else _lengths(dataset)
    if length_N is None or length_N.min() == length_N.max():
        return order
    if collate_fn is None:
        raise UserError(
            "The samples' input_ids have different lengths, so gradient_norms needs a collate_fn that pads them, "
            "such as transformers.DataCollatorWithPadding(tokenizer)."
        )
    return np.argsort(-length_N, kind="stable")


def batches(
    dataset: Any,
    batch_rows: Sequence[NDArray[np.int64]],
    device: torch.device,
    dtype: torch.dtype,
    collate_fn: Collator | None,
) -> Iterator[Batch]:
    """These rows as batches on the device, without `index`; inputs that are floats take the model's precision."""
    loader: Any = DataLoader(
        dataset,
        batch_sampler=cast(Any, [rows.tolist() for rows in batch_rows]),
        collate_fn=collate_fn or default_data_collator,
    )
    call = Call()
    for rows, loaded in zip(batch_rows, loader, strict=True):
        inputs = {name: _placed(value, device, dtype) for name, value in loaded.items() if name != "index"}
        label_B = inputs.pop("labels", None)
        if label_B is None:
            raise UserError("The dataset's batches have no 'labels', so there is no loss to differentiate.")
        label_B = as_classes(label_B)
        if label_B.shape != (len(rows),) or label_B.is_floating_point():
            raise UserError(
                f"The labels must be one class a sample. Got shape {tuple(label_B.shape)} and {label_B.dtype} "
                f"for {len(rows)} samples."
            )
        yield Batch(inputs, label_B, rows, call)


def _placed(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


def _lengths(dataset: Any) -> NDArray[np.int64] | None:
    """The number of tokens of each row; None where rows have no input_ids."""
    if isinstance(dataset, datasets.Dataset) and "input_ids" in dataset.column_names:
        column = arrow_table(dataset.select_columns(["input_ids"])).column(0)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            return np.asarray(pc.list_value_length(column).to_numpy(), dtype=np.int64)  # pyright: ignore[reportAttributeAccessIssue]
    first = dataset[0]
    if not isinstance(first, Mapping) or "input_ids" not in first:
        return None
    return np.array([len(dataset[i]["input_ids"]) for i in range(len(dataset))], dtype=np.int64)
