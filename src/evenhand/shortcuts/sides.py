"""How right a model is on the rows that go along with a shortcut, on those that go against it, and on the others.

Legend: N rows of a split, S shortcuts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from evenhand.metrics import accuracy, newcombe, wilson
from evenhand.shortcuts.fitted import ALIGNED, CONFLICTING, INDEPENDENT, Applied
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.shortcuts.several import standing_to_all

_DIGITS = 6  # below which a share of a million rows says nothing

Interval = list[float] | None
"""The ends of a 95 % interval."""


class Counted(TypedDict):
    """The share of some rows that are predicted in some way, with Wilson's interval."""

    n: int
    accuracy: float | None
    interval: Interval


class Gap(TypedDict):
    """Accuracy on aligned rows minus that on conflicting ones, with Newcombe's interval."""

    value: float | None
    interval: Interval


class Reliance(TypedDict):
    """Rows whose inputs change without the shortcut, and how many of them get another class then."""

    n: int
    changed: int
    share: float | None
    interval: Interval


class ShortcutMeasures(TypedDict):
    """A model measured by one shortcut; `taken` is the share of conflicting rows that get the class it points to."""

    aligned: Counted
    conflicting: Counted
    independent: Counted
    gap: Gap
    taken: Counted
    reliance: Reliance | None
    why_no_reliance: str


class ShortcutMetrics(TypedDict):
    """A model measured by each shortcut, and by all together where there are several."""

    by_shortcut: dict[str, ShortcutMeasures]
    all_shortcuts: NotRequired[ShortcutMeasures]


@dataclass(frozen=True, eq=False)
class Sides:
    """How the rows of a split stand to each shortcut.

    Attributes:
        names: What the shortcuts are called.
        label_N: The rows' classes, shape (N,).
        standing_SN: How each row stands, as its place in `STANDINGS`, shape (S, N).
        points_SN: The class that each row's value points to, −1 for none, shape (S, N).
    """

    names: tuple[str, ...]
    label_N: NDArray[np.int64]
    standing_SN: NDArray[np.int64]
    points_SN: NDArray[np.int64]

    @classmethod
    def of(cls, named: NamedShortcuts, split: str) -> Sides:
        """Those of a split, in its own numbers of classes."""
        return cls.of_points(named.names, named.rows[split].label_N, np.stack(named.points(split)))

    @classmethod
    def of_points(cls, names: tuple[str, ...], label_N: NDArray[np.int64], points_SN: NDArray[np.int64]) -> Sides:
        """Those of rows whose values point to these classes, −1 for none, shape (S, N)."""
        standings = [Applied(points_N, points_N).standing(label_N) for points_N in points_SN]
        return cls(names, label_N, np.stack(standings), points_SN)

    def of_rows(self, row_M: NDArray[Any]) -> Sides:
        """The same of some rows, by their numbers or by a mask."""
        return replace(
            self,
            label_N=self.label_N[row_M],
            standing_SN=self.standing_SN[:, row_M],
            points_SN=self.points_SN[:, row_M],
        )

    def measures(self, predicted_N: NDArray[np.int64]) -> ShortcutMetrics:
        """Measure predictions, shape (N,), by each shortcut and by all together; what is relied on is left out."""
        correct_N = predicted_N == self.label_N
        # a row's own class is never the one that a shortcut points to against it
        taken_SN = (self.standing_SN == CONFLICTING) & (self.points_SN == predicted_N)
        each = zip(self.names, self.standing_SN, taken_SN, strict=True)
        found = ShortcutMetrics(
            by_shortcut={name: _measures(correct_N, standing_N, taken_N) for name, standing_N, taken_N in each}
        )
        if len(self.names) > 1:
            found["all_shortcuts"] = _measures(correct_N, standing_to_all([*self.standing_SN]), taken_SN.any(axis=0))
        return found


def reliance(before_N: NDArray[np.int64], after_N: NDArray[np.int64]) -> Reliance:
    """How many predictions differ: as rows are, and as they would be without the shortcut."""
    changed, n = int((before_N != after_N).sum()), len(before_N)
    counted = _counted(before_N != after_N, np.ones(n, dtype=bool))
    return Reliance(n=n, changed=changed, share=counted["accuracy"], interval=counted["interval"])


def _measures(
    correct_N: NDArray[np.bool_], standing_N: NDArray[np.int64], taken_N: NDArray[np.bool_]
) -> ShortcutMeasures:
    aligned_N, conflicting_N = standing_N == ALIGNED, standing_N == CONFLICTING
    high, low = accuracy(correct_N, aligned_N), accuracy(correct_N, conflicting_N)
    interval = newcombe(high, int(aligned_N.sum()), low, int(conflicting_N.sum()))
    return ShortcutMeasures(
        aligned=_counted(correct_N, aligned_N),
        conflicting=_counted(correct_N, conflicting_N),
        independent=_counted(correct_N, standing_N == INDEPENDENT),
        gap=Gap(value=None if high is None or low is None else _rounded(high - low), interval=_ends(interval)),
        taken=_counted(taken_N, conflicting_N),
        reliance=None,
        why_no_reliance="",
    )


def _counted(such_N: NDArray[np.bool_], member_N: NDArray[np.bool_]) -> Counted:
    share, n = accuracy(such_N, member_N), int(member_N.sum())
    return Counted(n=n, accuracy=None if share is None else _rounded(share), interval=_ends(wilson(share, n)))


def _ends(interval: tuple[float, float] | None) -> Interval:
    return None if interval is None else [_rounded(end) for end in interval]


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
