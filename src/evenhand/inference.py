"""A model in eval mode over a dataset: logits and probabilities, sample by sample.

Legend: N samples, B samples of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import default_data_collator

from evenhand.batches import Collator, TokenRows
from evenhand.losses import true_class_probability
from evenhand.validation import UserError


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside; every module's own mode is restored afterwards."""
    with eval_mode(model), torch.no_grad():
        yield


def batches_on_device(
    dataset: Any,
    batch_size: int,
    device: torch.device,
    collate_fn: Collator | None = None,
    order: NDArray[np.int64] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """The dataset in order (or in the one given), batch by batch, without `index`; labels are under `labels`."""
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=None if order is None else order.tolist(),
        collate_fn=collate_fn or default_data_collator,
    )
    for batch in loader:
        yield {name: value.to(device) for name, value in batch.items() if name != "index"}


def logits_and_labels(
    model: nn.Module,
    dataset: Any,
    batch_size: int = 512,
    collate_fn: Collator | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of shape (N, C) and labels of shape (N,) of a dataset, in its order, in eval mode."""
    device = next(model.parameters()).device
    logits, labels = [], []
    # texts of like length together, longest first, so that little is padded
    order = np.argsort(-dataset.lengths, kind="stable") if isinstance(dataset, TokenRows) else None
    with evaluating(model):
        for batch in batches_on_device(dataset, batch_size, device, collate_fn, order):
            label_B = batch.pop("labels")
            logits.append(logits_of(model(**batch), label_B).float().cpu())
            labels.append(label_B.cpu())
    logits_NC, label_N = torch.cat(logits).numpy(), torch.cat(labels).numpy()
    if order is None:
        return logits_NC, label_N
    place_N = np.argsort(order)
    return logits_NC[place_N], label_N[place_N]


def true_class_probabilities(
    model: nn.Module, dataset: Any, batch_size: int = 512, collate_fn: Collator | None = None
) -> NDArray[np.float32]:
    """p_i of every sample in the dataset's order, shape (N,), in eval mode: EDGE's biased signal."""
    logits_NC, label_N = logits_and_labels(model, dataset, batch_size, collate_fn)
    return true_class_probability(torch.from_numpy(logits_NC), torch.from_numpy(label_N)).numpy()


def logits_of(outputs: Any, labels_B: Tensor) -> Tensor:
    """The logits of a classifier's output, shape (B, C).

    Raises:
        UserError: If the output has no logits or they are not one row a label.
    """
    logits = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", None)
    if logits is None:
        raise UserError("The model's output has no 'logits', so a per-sample loss can't be computed from it.")
    if logits.ndim != 2 or labels_B.ndim != 1 or len(logits) != len(labels_B):
        raise UserError(
            f"The model's logits must have shape (batch, classes) and the labels shape (batch,): evenhand trains "
            f"single-label classifiers. Got {tuple(logits.shape)} and {tuple(labels_B.shape)}."
        )
    return logits
