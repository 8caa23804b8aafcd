"""Splits of a benchmark: their counts beside the published ones, and a validation split where there is none.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import membership

HELD_OUT = 10  # one row of ten, class by class


def held_out(label_N: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that stay and the tenth of each class (at least one row) that is held out, both in their own order."""
    chosen = [
        rng.permutation(np.flatnonzero(label_N == label))[: max(1, int(count) // HELD_OUT)]
        for label, count in zip(*np.unique(label_N, return_counts=True), strict=True)
    ]
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(label_N)), validation), validation


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


def compared(splits: Mapping[str, datasets.Dataset], expected: Mapping[str, Mapping[str, int]]) -> list[Count]:
    """Every published count beside the one found, in the order published."""
    found = {name: split_counts(split) for name, split in splits.items()}
    return [
        Count(split, what, found.get(split, {}).get(what), number)
        for split, numbers in expected.items()
        for what, number in numbers.items()
    ]


def sizes(n_of: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Published sizes of splits of whose groups none are published."""
    return {split: {"n": n} for split, n in n_of.items()}
