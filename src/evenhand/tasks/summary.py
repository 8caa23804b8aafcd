"""What a task's splits hold, class by class and group by group, and what in it asks for care."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenhand.data.columns import column_values, membership
from evenhand.tasks.base import Task
from evenhand.validation import named

FEW = 20
"""Training samples of a class under which it is warned of."""

UNEVEN = 10.0
"""From this ratio of the largest class to the smallest on, a warning says so."""

_NAMED = 5


@dataclass(frozen=True)
class DataSummary:
    """Counts of a task's data.

    Attributes:
        sizes: Split → its samples.
        classes: Class → split → its samples.
        groups: Group → split → its samples; empty where no groups are known.
        imbalance: Training samples of the largest class over those of the smallest.
        warnings: One sentence each.
    """

    sizes: dict[str, int]
    classes: dict[str, dict[str, int]]
    groups: dict[str, dict[str, int]]
    imbalance: float
    warnings: tuple[str, ...]


def data_summary(task: Task) -> DataSummary:
    """Count a task's classes and groups, split by split."""
    names = task.label_names
    classes: dict[str, dict[str, int]] = {name: {} for name in names}
    groups: dict[str, dict[str, int]] = {}
    for split, rows in task.splits.items():
        counted = np.bincount(column_values(rows, "labels"), minlength=len(names))
        for name, count in zip(names, counted, strict=True):
            classes[name][split] = int(count)
        for name, member_N in membership(rows, "group").items():
            groups.setdefault(name, {})[split] = int(member_N.sum())
    train = {name: counts["train"] for name, counts in classes.items()}
    smallest, largest = min(train.values()), max(train.values())
    imbalance = largest / smallest if smallest else float("inf")
    return DataSummary(
        sizes={split: len(rows) for split, rows in task.splits.items()},
        classes=classes,
        groups=groups,
        imbalance=imbalance,
        warnings=tuple(_warnings(task, train, groups, imbalance)),
    )


def _warnings(task: Task, train: dict[str, int], groups: dict[str, dict[str, int]], imbalance: float) -> list[str]:
    found = []
    few = [f"'{name}' ({count})" for name, count in train.items() if count < FEW]
    if few:
        found.append(f"Classes with fewer than {FEW} training samples: {_listed(few)}.")
    if UNEVEN <= imbalance < float("inf"):
        largest, smallest = max(train, key=lambda n: train[n]), min(train, key=lambda n: train[n])
        found.append(
            f"The classes are uneven: '{largest}' has {imbalance:.0f} times the training samples of '{smallest}', so "
            "the average says little about the latter."
        )
    test = task.primary_test
    unseen = [f"'{name}'" for name, of in groups.items() if not of.get("train") and of.get(test)]
    if unseen:
        found.append(f"Groups that stand in the test set only: {_listed(unseen)}; no method has learnt from them.")
    return found


def _listed(names: list[str]) -> str:
    return named(names, _NAMED)
