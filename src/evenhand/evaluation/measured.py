"""A trained model on a task's splits: metrics by group, and the pictures that a report shows.

Legend: N samples of a split, C classes of the model.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from evenhand.data.columns import column_values, membership, split_groups
from evenhand.data.decoding import decoded, undecoded
from evenhand.data.rows import AnyRows, Collator
from evenhand.metrics import ClassShare, Metrics, groups_not_counted
from evenhand.models.inference import logits_and_labels
from evenhand.tasks.base import Task

SHOWN_CONFLICTING = 10  # one a class where there are as many
SHOWN_ALIGNED = 2
THUMBNAIL = 96  # pixels of the longer side of a picture as samples show it


@dataclass(frozen=True)
class SplitResult:
    """A model's result on one split.

    Attributes:
        metrics: Accuracies as fractions of 1.
        group_sizes: Samples of each group.
        not_counted: Groups too small to be the worst one.
        predicted_N: Predicted class of each sample, shape (N,), in the split's own numbers.
    """

    metrics: Metrics
    group_sizes: dict[str, int]
    not_counted: list[str]
    predicted_N: NDArray[np.int64]


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
    return measured(split, predicted_N, label_N, train)


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


def sample_predictions(task: Task, predicted_N: NDArray[np.int64]) -> list[dict[str, Any]]:
    """A few test samples with their prediction: the same ones for every model on equal data.

    Args:
        task: An image task; others give an empty list.
        predicted_N: Predicted class of each sample of the primary test set, shape (N,).
    """
    if task.kind != "image":
        return []
    test = undecoded(task.tests[task.primary_test])
    label_N = np.asarray(test.with_format("numpy")["labels"])
    alignment = membership(test, "alignment")
    chosen: list[int] = []
    for name, count in (("conflicting", SHOWN_CONFLICTING), ("aligned", SHOWN_ALIGNED)):
        candidates = np.flatnonzero(alignment[name]) if name in alignment else np.arange(len(test))
        chosen += _one_a_class(candidates, label_N, count)
    return [_shown(task, test[row], int(predicted_N[row])) for row in dict.fromkeys(chosen)]


def _one_a_class(candidates: NDArray[np.int64], label_N: NDArray[np.int64], count: int) -> list[int]:
    _, first = np.unique(label_N[candidates], return_index=True)
    return [int(row) for row in candidates[first]][:count]


def _shown(task: Task, row: dict[str, Any], predicted: int) -> dict[str, Any]:
    features = task.tests[task.primary_test].features
    picture = picture_of(row)
    if "image" in row:  # of any size
        picture.thumbnail((THUMBNAIL, THUMBNAIL))  # so that a page of them stays small
    named = {name: features[name].int2str(row[name]) for name in ("attribute", "alignment") if name in row}
    return {
        "index": row["index"],
        "png": _png(picture),
        "label": features["labels"].int2str(row["labels"]),
        "attribute": named.get("attribute"),
        "alignment": named.get("alignment"),
        "prediction": features["labels"].int2str(predicted),
    }


def picture_of(row: dict[str, Any]) -> Image.Image:
    """A row's image; the row is one of `undecoded` rows."""
    if "image" in row:
        return decoded(row["image"])
    image_CHW = np.asarray(row["pixel_values"], dtype=np.uint8)
    return Image.fromarray(image_CHW.transpose(1, 2, 0).squeeze())


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
