"""A shortcut as the training rows know it: its values, the class that each points to, and what that makes of any rows.

Legend: N rows, V values, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import ALIGNMENTS
from evenhand.shortcuts.coding import Coding, Rule, coding_as_dict, coding_from_dict, read
from evenhand.shortcuts.own import OwnShortcut
from evenhand.shortcuts.pointing import class_shares
from evenhand.shortcuts.samples import NotToldError, Samples
from evenhand.shortcuts.spelling import Shortcut
from evenhand.validation import UserError, count

STANDINGS = (*ALIGNMENTS, "independent")
"""How a row stands to a shortcut: its value points to its own class, to another one, or to none."""
ALIGNED, CONFLICTING, INDEPENDENT = range(3)

_NAMED = 3


@dataclass(frozen=True)
class Applied:
    """A shortcut on the rows of a split.

    Attributes:
        value_N: Which value each row has, −1 for none that points anywhere (a token that isn't there, a value that no
            training row has), shape (N,).
        points_N: The class that the value points to, −1 for none, shape (N,).
        notes: What a reader must know: rows whose value no training row has.
    """

    value_N: NDArray[np.int64]
    points_N: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def standing(self, label_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """How each row stands, as its place in `STANDINGS`, shape (N,)."""
        if len(label_N) != len(self.points_N):
            raise UserError(f"Got {count(len(label_N), 'label')} for {count(len(self.points_N), 'row')}.")
        return np.where(self.points_N < 0, INDEPENDENT, np.where(self.points_N == label_N, ALIGNED, CONFLICTING))


@dataclass(frozen=True)
class FittedShortcut:
    """A shortcut with what was seen in the training rows.

    Attributes:
        rule: The shortcut.
        classes: Names of the classes.
        coding: How entries become values.
        counts: Training rows of each class, for each value; the last row is that of rows without a value.
        points_to: The class that each value points to, −1 for none.
        usual: What stands in the inputs where the shortcut is neutralised: the training rows' median of a picture's
            measure, or a column's most frequent entry.
    """

    rule: Rule
    classes: tuple[str, ...]
    coding: Coding
    counts: tuple[tuple[int, ...], ...]
    points_to: tuple[int, ...]
    usual: float | str | None = None

    @property
    def name(self) -> str:
        """What tables and sentences call it."""
        return str(self.rule)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each value."""
        return self.coding.names

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """Training rows with each value in each class, those without a value last, shape (V + 1, C)."""
        return np.array(self.counts, dtype=np.int64)

    @cached_property
    def prior(self) -> NDArray[np.float64]:
        """P(y) of the training rows, with one pseudo-count a class."""
        return class_shares(self.table.sum(axis=0))

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """P(y|a) with one pseudo-count a class, shape (V + 1, C); last is P(y) where every training row has a value."""
        share_VC = class_shares(self.table)
        if not self.table[-1].any():
            share_VC[-1] = self.prior
        return share_VC

    @property
    def points_anywhere(self) -> bool:
        """Whether any value points to a class; if none does, all rows are independent."""
        return any(place >= 0 for place in self.points_to)

    @property
    def is_perfect(self) -> bool:
        """Whether no training row goes against it: it can be measured, but no method can learn to do without it."""
        return self.points_anywhere and not self.conflicting

    @property
    def aligned(self) -> int:
        """Training rows that are aligned with it."""
        return sum(self.counts[v][place] for v, place in enumerate(self.points_to) if place >= 0)

    @property
    def conflicting(self) -> int:
        """Training rows that conflict with it."""
        pairs = enumerate(self.points_to)
        return sum(sum(self.counts[v]) - self.counts[v][place] for v, place in pairs if place >= 0)

    def apply(self, samples: Samples) -> Applied:
        """Give the rows of a split their values.

        Raises:
            UserError: If the rows lack what the shortcut looks at, or no row has a value that a training row has.
        """
        if isinstance(self.rule, OwnShortcut) and not self.rule.values:
            raise UserError(f"The shortcut '{self.name}' comes from Python: give its function or arrays once more.")
        value_N = self.coding.codes(read(self.rule, samples, self.classes))
        # where every training row has a value, a row without one has a value that they lack
        unseen = 0 if self.table[-1].any() else int((value_N < 0).sum())
        if unseen and unseen == len(value_N):
            raise NotToldError(
                f"No row of the split '{samples.name}' has a value of '{self.name}' that a training row has "
                f"({', '.join(self.names[:_NAMED])}{', …' if len(self.names) > _NAMED else ''})."
            )
        note = f"{count(unseen, 'row')} of the split '{samples.name}' (of {len(value_N):,}) with a value of "
        notes = (f"{note}'{self.name}' that no training row has count as independent.",) if unseen else ()
        return self.applied(value_N, notes)

    def applied(self, value_N: NDArray[np.int64], notes: tuple[str, ...] = ()) -> Applied:
        """What rows' values, shape (N,), make of them."""
        return Applied(value_N, np.array([*self.points_to, -1])[value_N], notes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        own = isinstance(self.rule, OwnShortcut)
        return {
            "name": self.name,
            "spelling": None if own else self.rule.spelling,
            "classes": list(self.classes),
            "coding": coding_as_dict(self.coding),
            "counts": [list(row) for row in self.counts],
            "points_to": list(self.points_to),
            "usual": self.usual,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any], rule: Rule | None = None) -> FittedShortcut:
        """Of what `as_dict` gave, perhaps read back from JSON.

        Args:
            told: The data.
            rule: The shortcut itself, where it comes from Python; without it, it can't be applied.
        """
        spelling = told["spelling"]
        if rule is None:
            rule = OwnShortcut(told["name"], {}) if spelling is None else Shortcut.parse(spelling)
        return cls(
            rule=rule,
            classes=tuple(told["classes"]),
            coding=coding_from_dict(told["coding"]),
            counts=tuple(tuple(row) for row in told["counts"]),
            points_to=tuple(told["points_to"]),
            usual=told["usual"],
        )
