"""A trained model on a task's splits: metrics by group.

Legend: N samples of a split, C classes of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from evenhand.data.columns import column_values, membership, split_groups
from evenhand.data.rows import AnyRows, Collator
from evenhand.metrics import ClassShare, Metrics, groups_not_counted
from evenhand.models.inference import logits_and_labels


@dataclass(frozen=True)
class SplitResult:
    """A model's result on one split.

    Attributes:
        metrics: Accuracies as fractions of 1.
        group_sizes: Samples of each group.
        not_counted: Groups too small to be the worst one.
        predicted_N: Predicted class of each sample, shape (N,), in the split's own numbers.
        sure_N: How probable the model finds the class that it predicts, shape (N,); None where that isn't known.
    """

    metrics: Metrics
    group_sizes: dict[str, int]
    not_counted: list[str]
    predicted_N: NDArray[np.int64]
    sure_N: NDArray[np.float32] | None = None


def sizes_and_chance(split: datasets.Dataset) -> dict[str, Any]:
    """What a record says of a split: its size, and what needs no learning.

    Returns:
        "n" and "classes"; "aligned" and "conflicting" where samples are known to be; "constant": the accuracy that one
        constant answer reaches, on "average" and on "both" aligned and conflicting samples at once.
    """
    label_N = column_values(split, "labels")
    classes = len(split.features["labels"].names)
    alignment = membership(split, "alignment")
    sides = {side: alignment[side] for side in ("aligned", "conflicting") if side in alignment}
    shares_SC = [np.bincount(label_N[side_N], minlength=classes) / max(side_N.sum(), 1) for side_N in sides.values()]
    constant = {"average": float(np.bincount(label_N, minlength=classes).max() / max(len(label_N), 1))}
    if len(shares_SC) == 2:
        constant["both"] = float(np.min(shares_SC, axis=0).max())
    counts = {side: int(side_N.sum()) for side, side_N in sides.items()}
    return {"n": len(split), "classes": classes, **counts, "constant": constant}


def split_result(
    model: nn.Module,
    split: datasets.Dataset,
    rows: AnyRows,
    collate: Collator,
    train: datasets.Dataset,
    test_class_C: NDArray[np.int64] | None = None,
) -> SplitResult:
    """Predict a split in eval mode and measure it.

    Args:
        model: The model.
        split: The split with its groups.
        rows: The same split as the model reads it.
        collate: Collator of `rows`.
        train: The training split, for its group shares.
        test_class_C: Where the split has other classes than the model: the one that each of the model's classes counts
            as, shape (C,).
    """
    logits_NC, label_N = logits_and_labels(model, rows, collate_fn=collate)
    predicted_N = logits_NC.argmax(axis=1)
    if test_class_C is not None:
        predicted_N = test_class_C[predicted_N]
    sure_N = softmax(logits_NC.astype(np.float64), axis=1).max(axis=1).astype(np.float32)
    return replace(measured(split, predicted_N, label_N, train), sure_N=sure_N)


def measured(
    split: datasets.Dataset,
    predicted_N: NDArray[np.int64],
    label_N: NDArray[np.int64],
    train: datasets.Dataset | None,
    classes: Sequence[str] | None = None,
) -> SplitResult:
    """Measure predictions of a split.

    Args:
        split: The split with its groups.
        predicted_N: Predicted classes, shape (N,).
        label_N: True classes, shape (N,).
        train: The training split, for its group shares; None where it isn't known.
        classes: What the numbers of predictions and labels mean; the split's own classes if None.
    """
    known = split_groups(split, train)
    sizes = {name: int(member_N.sum()) for name, member_N in known.groups.items()}
    metrics = known.metrics(predicted_N == label_N)
    if not known.groups:
        names = split.features["labels"].names if classes is None else classes
        metrics["by_class"] = _by_class(predicted_N == label_N, label_N, names)
    return SplitResult(metrics, sizes, groups_not_counted(known.groups), predicted_N)


def _by_class(correct_N: NDArray[np.bool_], label_N: NDArray[np.int64], names: Sequence[str]) -> dict[str, ClassShare]:
    """Samples and accuracy of each class that has samples."""
    size_C = np.bincount(label_N, minlength=len(names))
    right_C = np.bincount(label_N, weights=correct_N, minlength=len(names))
    return {
        name: ClassShare(n=int(size), accuracy=float(right / size))
        for name, size, right in zip(names, size_C, right_C, strict=True)
        if size
    }
