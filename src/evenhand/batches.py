"""Reading rows by the batch, and collation that keeps each sample's index.

Legend: B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from evenhand.validation import UserError

Collator = Callable[[Any], dict[str, Any]]


def arrow_table(dataset: datasets.Dataset) -> pa.Table:
    """All rows as Arrow has them: a view of its memory unless the rows were selected or shuffled."""
    return cast(pa.Table, dataset.with_format("arrow")[:])


class Rows(TorchDataset[Any]):
    """Some columns of a `datasets.Dataset`, read a whole batch at a time.

    Row-by-row reading costs more than training a small model on the row. Columns of numbers and of images with a
    fixed shape are read straight from Arrow's memory (a view: nothing is copied until a batch is), the others through
    `datasets`. A batch is a dict of arrays, so it needs `collate` below or another collator that knows it.

    Args:
        dataset: The rows.
        columns: Columns to read, in this order.
    """

    def __init__(self, dataset: datasets.Dataset, columns: Sequence[str]) -> None:
        table = arrow_table(dataset)
        self.views: dict[str, NDArray[Any]] = {}
        for name in columns:
            view = _numpy_view(table.column(name))
            if view is not None:
                self.views[name] = view
        others = [name for name in columns if name not in self.views]
        self.others = dataset.select_columns(others) if others else None
        self.length = len(dataset)

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Any]:
        batch: dict[str, Any] = {name: view[rows] for name, view in self.views.items()}
        if self.others is not None:
            batch |= dict(self.others[list(rows)])
        return batch

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: values[0] for name, values in self.__getitems__([row]).items()}


class TokenRows(TorchDataset[Any]):
    """Texts of a `datasets.Dataset` as tokens, made once, when first asked for; `labels` and `index` beside them.

    A batch is a dict: the tokens as a list of arrays (`evenhand.preprocess.Tokenizing` pads them), the rest as arrays.
    A row is a dict too, so that lengths can be seen (`gradient_norms` batches texts of like length).

    Args:
        dataset: The rows, with `text` and perhaps `text_pair`.
        tokenize: Makes lists of tokens of a dict of columns (`evenhand.preprocess.Tokenizing.tokens`).
    """

    def __init__(
        self, dataset: datasets.Dataset, tokenize: Callable[[dict[str, Any]], dict[str, list[list[int]]]]
    ) -> None:
        names = dataset.column_names
        self.texts = dataset.select_columns([name for name in ("text", "text_pair") if name in names])
        self.views = Rows(dataset, [name for name in ("labels", "index") if name in names]).views
        self.tokenize = tokenize

    @cached_property
    def tokens(self) -> dict[str, tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """For each input all rows' tokens one after the other, and where each row starts (with the end: n + 1)."""
        parts: dict[str, list[list[int]]] = {}
        for start in range(0, len(self.texts), 1000):
            for name, values in self.tokenize(dict(self.texts[start : start + 1000])).items():
                parts.setdefault(name, []).extend(values)
        return {
            name: (
                np.concatenate([np.asarray(v, dtype=np.int32) for v in values]),
                np.cumsum([0, *map(len, values)], dtype=np.int64),
            )
            for name, values in parts.items()
        }

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, shape (n,)."""
        return np.diff(self.tokens["input_ids"][1])

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Any]:
        batch: dict[str, Any] = {
            name: [flat[start[row] : start[row + 1]] for row in rows] for name, (flat, start) in self.tokens.items()
        }
        return batch | {name: view[rows] for name, view in self.views.items()}

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: values[0] for name, values in self.__getitems__([row]).items()}


AnyRows = Rows | TokenRows


def model_rows(
    split: datasets.Dataset, tokenize: Callable[[dict[str, Any]], dict[str, list[list[int]]]] | None
) -> AnyRows:
    """A split as a model reads it: texts by `tokenize`, images without."""
    if tokenize is not None:
        return TokenRows(split, tokenize)
    return Rows(split, [c for c in ("pixel_values", "image", "labels", "index") if c in split.column_names])


def _numpy_view(column: pa.ChunkedArray) -> NDArray[Any] | None:
    """The column's memory as an array of shape (n,) or (n, *fixed shape); None if it holds anything else."""
    if column.null_count:
        return None
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    shape: tuple[int, ...] = ()
    if isinstance(array.type, datasets.features.features._ArrayXDExtensionType):
        shape = tuple(array.type.shape)
        if None in shape:
            return None
        array = array.storage
        while pa.types.is_list(array.type):
            array = array.flatten()  # respects the offset of a slice
    if array.null_count or not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return None
    return array.to_numpy(zero_copy_only=True).reshape(-1, *shape)


def collator_for(preprocess: Callable[[dict[str, Any]], dict[str, Tensor]]) -> Collator:
    """Turn a batch of `Rows` into a model's inputs with `labels` and `index`.

    Args:
        preprocess: Makes the model's inputs of the other columns (`evenhand.models.ModelSource.preprocessor`).
    """

    def collate(rows: dict[str, Any]) -> dict[str, Tensor]:
        batch = preprocess(rows)
        for name in ("labels", "index"):
            if name in rows:
                batch[name] = torch.from_numpy(np.ascontiguousarray(rows[name]))
        return batch

    return collate


class IndexedDataset(TorchDataset[Any]):
    """Any map-style dataset of dicts, each with its row number as `index`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._indexed(self.dataset[row], row)

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        read = getattr(self.dataset, "__getitems__", None)
        many = [self.dataset[row] for row in rows] if read is None else read(rows)
        return [self._indexed(features, row) for row, features in zip(rows, many, strict=True)]

    @staticmethod
    def _indexed(features: Any, row: int) -> dict[str, Any]:
        if not isinstance(features, Mapping):
            raise UserError(
                f"The samples' bias signal is found by their index, for which each sample must be a dict. "
                f"Got {type(features).__name__}."
            )
        return {**features, "index": row}


class IndexKeeping:
    """A collator that carries `index` around another one that needn't know it.

    Args:
        collator: Any collator of transformers or of the user.
    """

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, features: Any) -> dict[str, Any]:
        """Collate a list of feature dicts, or a batch of `Rows`, and add `index` of shape (B,) if they have it."""
        if isinstance(features, Mapping):  # a batch of Rows: its collator keeps the index itself
            return self.collator(features)
        if not features or not isinstance(features[0], Mapping) or "index" not in features[0]:
            return self.collator(features)
        index_B = torch.tensor([int(f["index"]) for f in features])
        batch = self.collator([{k: v for k, v in f.items() if k != "index"} for f in features])
        if "labels" in batch and len(batch["labels"]) != len(index_B):
            raise UserError(
                f"The data collator turned {len(index_B)} samples into {len(batch['labels'])} labels, "
                "so samples and their indices can't be matched."
            )
        return {**batch, "index": index_B}


class LabelChecking:
    """A collator around another one, after which a label that is no class is an error that names it.

    On the device the loss would only fail there, or ignore −100. Here the labels are on the CPU.

    Args:
        collator: Any collator of transformers or of the user.
        num_labels: C; None if the model doesn't say.
    """

    def __init__(self, collator: Collator, num_labels: int | None) -> None:
        self.collator = collator
        self.num_labels = num_labels

    def __call__(self, features: Any) -> dict[str, Any]:
        """Collate, and look at the labels."""
        batch = self.collator(features)
        label_B = batch.get("labels")
        if self.num_labels is None or not isinstance(label_B, torch.Tensor) or label_B.ndim != 1:
            return batch
        outside = torch.nonzero((label_B < 0) | (label_B >= self.num_labels)).flatten()
        if len(outside):
            raise UserError(
                f"Labels must lie in 0…{self.num_labels - 1} for this model. Got {label_B[outside[0]].item()} in a "
                "training batch."
            )
        return batch
