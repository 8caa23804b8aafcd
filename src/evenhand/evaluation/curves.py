"""How a model does on the validation split while it trains: a few fixed rows, measured after some epochs.

Test data have no part in it, and nothing is chosen by it: the curves are for looking at. Measuring leaves the weights
and the random generators as they are, so a run's numbers are the same with and without it.

Legend: N rows of the validation split, M rows that are measured, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from evenhand.data.columns import column_values, split_groups
from evenhand.data.rows import AnyRows, Collator
from evenhand.evaluation.progress import Measurement, Progress
from evenhand.losses import cross_entropy
from evenhand.metrics import SMALLEST_COUNTED_GROUP, GroupShare, worst_and_small
from evenhand.models.inference import logits_and_labels

MOST_ROWS = 2000  # of the validation split, and a tenth of the training rows: a few percent of the training's time
FEWEST_ROWS = 200
MOST_POINTS = 20  # of a stage, evenly spread over its epochs
MOST_GROUPS = 12  # with more, a curve for each would make records large
SERIES = ("average", "worst_group", "small_groups", "aligned", "conflicting", "loss")


@dataclass(frozen=True)
class ValidationMeasures:
    """What the chosen rows say of a model; fields as of `Measurement`."""

    values: dict[str, float | None]
    by_group: dict[str, float | None]
    worst: GroupShare | None = None
    small: GroupShare | None = None


class ValidationRows:
    """The rows that are measured: all of a small split, else equally many of each group, evenly spread.

    Overall numbers weigh each group by its share of the split, so that they estimate the split's own.

    Args:
        split: The validation split.
        rows: The same as the model reads it.
        collate: Collator of `rows`.
        training_rows: How many rows are trained on; a tenth of them are measured, from 200 to 2000.
        batch_size: Rows at a time.
    """

    def __init__(
        self, split: datasets.Dataset, rows: AnyRows, collate: Collator, training_rows: int, batch_size: int
    ) -> None:
        most = min(MOST_ROWS, max(FEWEST_ROWS, training_rows // 10))
        self.row_M, self.weight_M = chosen_rows(_strata(split), most)
        self.known = split_groups(split).of_rows(self.row_M)
        self.subset = Subset(rows, self.row_M.tolist())
        self.collate = collate
        self.batch_size = batch_size
        self.is_sample = len(self.row_M) < len(split)

    def measure(self, model: nn.Module) -> ValidationMeasures:
        """A number for each of SERIES, the worst and the small groups, and every group where there are few."""
        logits_MC, label_M = logits_and_labels(model, self.subset, self.batch_size, self.collate)
        found = self.known.metrics(logits_MC.argmax(axis=1) == label_M, self.weight_M)
        loss_M = cross_entropy(torch.from_numpy(logits_MC), torch.from_numpy(label_M)).double().numpy()
        loss = float(np.average(loss_M, weights=self.weight_M))
        worst, small = worst_and_small(found)
        values = {
            "average": found["average"],
            "worst_group": found["worst_group"],
            "small_groups": small and small.accuracy,
            "aligned": found["aligned"],
            "conflicting": found["conflicting"],
            "loss": loss if math.isfinite(loss) else None,
        }
        few = found["by_group"] if len(found["by_group"]) <= MOST_GROUPS else {}
        return ValidationMeasures(_rounded(values), _rounded(few), worst, small)


class Curve:
    """Collects the measurements of one stage.

    Args:
        stage: The stage's name.
        rows: What is measured.
        epochs: Epochs of the stage.
        progress: Receives each epoch.
    """

    def __init__(self, stage: str, rows: ValidationRows, epochs: int, progress: Progress | None = None) -> None:
        self.stage = stage
        self.rows = rows
        self.epochs = epochs
        self.progress = progress
        self.points: list[Measurement] = []

    def after_epoch(self, model: nn.Module, epoch: int, train_loss: float) -> None:
        """Measure the model, if it is this epoch's turn: at most 20 of a stage, the last one always."""
        spacing = math.ceil(self.epochs / MOST_POINTS)
        is_turn = (self.epochs - epoch) % spacing == 0
        found = self.rows.measure(model) if is_turn else ValidationMeasures({}, {})
        told = Measurement(
            self.stage, epoch, self.epochs, train_loss, found.values, found.by_group, found.worst, found.small
        )
        if is_turn:
            self.points.append(told)
        if self.progress is not None:
            self.progress.measured(told)

    def as_dict(self) -> dict[str, Any] | None:
        """As it stands in the record: a list for each series that is defined anywhere; None without a point."""
        if not self.points:
            return None
        kept: dict[str, Any] = {
            "split": "validation",
            "rows": len(self.rows.row_M),
            "sampled": self.rows.is_sample,
            "epoch": [point.epoch for point in self.points],
        }
        for name in SERIES:
            series = [point.values[name] for point in self.points]
            if any(value is not None for value in series):
                kept[name] = series
        worst = [point.worst for point in self.points]
        if any(worst):
            kept["worst_group_name"] = [share and share.names[0] for share in worst]
            kept["worst_group_n"] = [share and share.n for share in worst]
        small = self.points[0].small  # the same rows at every point
        if small is not None:
            kept["small_groups_n"] = small.n
            kept["small_groups_names"] = list(small.names)
        groups = self.points[0].by_group
        if groups:
            kept["by_group"] = {name: [point.by_group[name] for point in self.points] for name in groups}
        return kept


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    """To four digits: what lies below means nothing."""
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def chosen_rows(stratum_N: NDArray[Any], most: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """About `most` rows, equally many of each stratum (all of a small one), and how many rows each stands for.

    Args:
        stratum_N: Each row's stratum, shape (N,).
        most: Rows to choose; at least as many of each stratum as make it count as a group.

    Returns:
        The chosen rows in ascending order, shape (M,), and their weights, shape (M,), with sum N.
    """
    if len(stratum_N) <= most:
        return np.arange(len(stratum_N)), np.ones(len(stratum_N))
    names = np.unique(stratum_N)
    quota = max(SMALLEST_COUNTED_GROUP, most // len(names))
    rows: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    for name in names:
        members = np.flatnonzero(stratum_N == name)
        kept = members
        if len(members) > quota:
            kept = members[(np.arange(quota) * len(members)) // quota]
        rows.append(kept)
        weights.append(np.full(len(kept), len(members) / len(kept)))
    row_M, weight_M = np.concatenate(rows), np.concatenate(weights)
    order = np.argsort(row_M)
    return row_M[order], weight_M[order]


def _strata(split: datasets.Dataset) -> NDArray[np.int64]:
    """The rows' groups (those of none together), or their labels and alignment, or their labels alone, shape (N,)."""
    if "group" in split.column_names and not isinstance(split.features["group"], datasets.List):
        group_N = column_values(split, "group")  # null is read as NaN
        return np.where(np.isnan(group_N.astype(np.float64)), -1, group_N).astype(np.int64)
    label_N = column_values(split, "labels").astype(np.int64)
    if "alignment" in split.column_names:
        return label_N * 8 + column_values(split, "alignment").astype(np.int64)
    return label_N
