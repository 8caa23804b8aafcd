"""A trained model on a task's splits: metrics by group.

Legend: N samples of a split, C classes of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenhand.data.columns import column_values, membership, split_groups
from evenhand.data.rows import AnyRows, Collator
from evenhand.evaluation.by_shortcut import measured_by_shortcut
from evenhand.evaluation.quality import Quality, quality, quality_by_group
from evenhand.metrics import Metrics, groups_not_counted
from evenhand.models.inference import logits_and_labels
from evenhand.shortcuts.sides import ShortcutMeasures
from evenhand.tasks.base import Task


class ClassShare(TypedDict):
    """How many samples a class has, and the accuracy on them (its recall)."""

    n: int
    accuracy: float


class SplitMetrics(Metrics):
    """What is measured of a trained model on one split: accuracies, and what they don't tell.

    `by_class` is there where no groups are known, the shortcuts' measures where shortcuts are named: `all_shortcuts`
    where there are several.
    """

    quality: Quality
    quality_by_group: dict[str, Quality]
    by_class: NotRequired[dict[str, ClassShare]]
    by_shortcut: NotRequired[dict[str, ShortcutMeasures]]
    all_shortcuts: NotRequired[ShortcutMeasures]


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

    metrics: SplitMetrics
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


@dataclass(frozen=True)
class Reader:
    """A model that gives rows the classes of a split.

    Attributes:
        model: The model.
        collate: Makes its inputs of a batch of rows.
        rows: From a split to what `collate` takes.
        counts_as_C: Where the split has other classes than the model: the one that each of the model's classes counts
            as, shape (C,).
        batch_size: Rows a forward pass.
    """

    model: nn.Module
    collate: Collator
    rows: Callable[[datasets.Dataset], AnyRows]
    counts_as_C: NDArray[np.int64] | None = None
    batch_size: int = 512

    def logits(self, rows: AnyRows) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The model's logits, shape (N, C), and the labels, shape (N,)."""
        return logits_and_labels(self.model, rows, self.batch_size, self.collate)

    def classes(self, logits_NC: NDArray[np.float32]) -> NDArray[np.int64]:
        """The predicted classes, shape (N,): of merged classes the one that the most probable class counts as."""
        predicted_N = logits_NC.argmax(axis=1)
        return predicted_N if self.counts_as_C is None else self.counts_as_C[predicted_N]

    def predict(self, split: datasets.Dataset) -> NDArray[np.int64]:
        """The class of each row, shape (N,)."""
        return self.classes(self.logits(self.rows(split))[0])


def split_result(
    reader: Reader,
    name: str,
    task: Task,
    rows: AnyRows,
) -> SplitResult:
    """Predict a split of a task in eval mode and measure it, by the task's named shortcuts too.

    Args:
        reader: The model.
        name: The split's name.
        task: The task.
        rows: The split as the model reads it.
    """
    logits_NC, label_N = reader.logits(rows)
    split, predicted_N = task.splits[name], reader.classes(logits_NC)
    names = split.features["labels"].names
    probability_NC = merged_probabilities(probabilities(logits_NC), reader.counts_as_C, len(names))
    found = measured(split, predicted_N, probability_NC, label_N, task.train)
    if task.shortcuts is not None:
        by_shortcut = measured_by_shortcut(task.shortcuts, name, predicted_N, reader.predict)
        found.metrics["by_shortcut"] = by_shortcut["by_shortcut"]
        if "all_shortcuts" in by_shortcut:
            found.metrics["all_shortcuts"] = by_shortcut["all_shortcuts"]
    return found


def probabilities(logits_NC: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probability of each class, shape (N, C)."""
    return torch.from_numpy(logits_NC).double().softmax(1).numpy()


def merged_probabilities(
    probability_NC: NDArray[np.float64], counts_as_C: NDArray[np.int64] | None, classes: int
) -> NDArray[np.float64]:
    """The probability of each class of a split, shape (N, classes), to which several of the model's may count."""
    if counts_as_C is None:
        return probability_NC
    return probability_NC @ np.eye(classes)[counts_as_C]


def measured(
    split: datasets.Dataset,
    predicted_N: NDArray[np.int64],
    probability_NC: NDArray[np.float64],
    label_N: NDArray[np.int64],
    train: datasets.Dataset | None,
    classes: Sequence[str] | None = None,
) -> SplitResult:
    """Measure predictions of a split.

    Args:
        split: The split with its groups.
        predicted_N: Predicted classes, shape (N,).
        probability_NC: The probability of each class, shape (N, C).
        label_N: True classes, shape (N,).
        train: The training split, for its group shares; None where it isn't known.
        classes: What the numbers of predictions and labels mean; the split's own classes if None.
    """
    known = split_groups(split, train)
    sizes = {name: int(member_N.sum()) for name, member_N in known.groups.items()}
    metrics = SplitMetrics(
        **known.metrics(predicted_N == label_N),
        quality=quality(probability_NC, predicted_N, label_N),
        quality_by_group=quality_by_group(probability_NC, predicted_N, label_N, known.groups),
    )
    if not known.groups:
        names = split.features["labels"].names if classes is None else classes
        metrics["by_class"] = _by_class(predicted_N == label_N, label_N, names)
    sure_N = probability_NC[np.arange(len(predicted_N)), predicted_N].astype(np.float32)
    return SplitResult(metrics, sizes, groups_not_counted(known.groups), predicted_N, sure_N)


def _by_class(correct_N: NDArray[np.bool_], label_N: NDArray[np.int64], names: Sequence[str]) -> dict[str, ClassShare]:
    """Samples and accuracy of each class that has samples."""
    size_C = np.bincount(label_N, minlength=len(names))
    right_C = np.bincount(label_N, weights=correct_N, minlength=len(names))
    return {
        name: ClassShare(n=int(size), accuracy=float(right / size))
        for name, size, right in zip(names, size_C, right_C, strict=True)
        if size
    }
