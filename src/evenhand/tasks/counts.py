"""A task's counts beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import datasets

from evenhand.data.columns import membership
from evenhand.tasks.base import Task


@dataclass(frozen=True)
class Count:
    """A number of samples found, and the one expected.

    Attributes:
        split: The split.
        what: `n` for all of its samples, or a group or alignment.
        found: How many there are; None if the task has no such split or group.
        expected: How many were published.
    """

    split: str
    what: str
    found: int | None
    expected: int

    @property
    def ok(self) -> bool:
        """Whether both agree."""
        return self.found == self.expected

    def __str__(self) -> str:
        name = self.split if self.what == "n" else f"{self.split}, {self.what}"
        found = "not found" if self.found is None else f"{self.found:,} found"
        return f"{name}: {found}, {self.expected:,} expected"


def split_counts(split: datasets.Dataset) -> dict[str, int]:
    """Samples of a split: all as `n`, then of each group and alignment by name."""
    counts = {"n": len(split)}
    for column in ("group", "alignment"):
        for name, member_N in membership(split, column).items():
            counts.setdefault(name, int(member_N.sum()))
    return counts


def compared(task: Task, expected: Mapping[str, Mapping[str, int]]) -> list[Count]:
    """Every published count beside the one found, in the order published."""
    found = {name: split_counts(split) for name, split in task.splits.items()}
    return [
        Count(split, what, found.get(split, {}).get(what), number)
        for split, numbers in expected.items()
        for what, number in numbers.items()
    ]


def with_deviations(task: Task, expected: Mapping[str, Mapping[str, int]]) -> Task:
    """The task with a note that says which counts aren't the published ones, if any."""
    differing = [count for count in compared(task, expected) if not count.ok]
    if not differing:
        return task
    shown = "; ".join(str(count) for count in differing)
    return replace(task, notes=(*task.notes, f"Counts differ from the published ones: {shown}."))
