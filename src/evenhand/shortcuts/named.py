"""The shortcuts that a task's rows are measured by and trained against: fitted on train, applied to every split.

Legend: N rows of a split, S shortcuts, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.shortcuts.balance import Joint
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.fitted import STANDINGS, Applied, FittedShortcut
from evenhand.shortcuts.own import OwnShortcut
from evenhand.shortcuts.samples import NotToldError, Samples
from evenhand.shortcuts.several import fitted_all, parse_all, standing_to_all
from evenhand.validation import UserError

TRAIN = "train"
ALL = "all shortcuts together"


@dataclass(frozen=True, eq=False)
class Rows:
    """A split as shortcuts see it.

    Attributes:
        samples: What they read.
        label_N: The rows' classes, in the split's own numbers, shape (N,).
        counts_as_C: The split's class that each of the training rows' classes counts as, shape (C,); None where they
            are the same.
    """

    samples: Samples
    label_N: NDArray[np.int64]
    counts_as_C: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class NamedShortcuts:
    """Shortcuts with the rows of every split.

    Attributes:
        fitted: The shortcuts, as the training rows know them.
        rows: Split → its rows; the training rows are `train`.
        applied: Split → for each shortcut what it makes of the rows.
    """

    fitted: tuple[FittedShortcut, ...]
    rows: Mapping[str, Rows]
    applied: Mapping[str, tuple[Applied, ...]]

    @classmethod
    def fit(
        cls,
        given: Sequence[Rule | str],
        rows: Mapping[str, Rows],
        classes: Sequence[str],
        optional: Collection[str] = (),
    ) -> NamedShortcuts:
        """Fit shortcuts on the training rows, and apply them to all.

        Args:
            given: The shortcuts, or their spellings.
            rows: Split → its rows.
            classes: Names of the training rows' classes.
            optional: Splits of which a shortcut needn't tell anything, such as a test set without a column.

        Raises:
            UserError: If one is no shortcut of these rows, two contradict each other, or it tells nothing of a split.
        """
        rules = [_read_once(rule, rows, optional) for rule in parse_all(given)]
        if not rules:
            raise UserError("No shortcut is given.")
        train = rows[TRAIN]
        fitted = fitted_all(rules, train.samples, train.label_N, classes)
        others = cls.of([one for one, _ in fitted], {k: v for k, v in rows.items() if k != TRAIN}, optional)
        # the training rows were read for the fit
        applied = {TRAIN: tuple(one.applied(value_N) for one, value_N in fitted), **others.applied}
        return cls(others.fitted, rows, applied)

    @classmethod
    def of(
        cls, fitted: Sequence[FittedShortcut], rows: Mapping[str, Rows], optional: Collection[str] = ()
    ) -> NamedShortcuts:
        """Shortcuts that were fitted before, perhaps on rows that aren't here, on these rows.

        Raises:
            UserError: If one tells nothing of a split that isn't optional.
        """
        applied = {
            name: tuple(_applied(one, of, may_lack=name in optional) for one in fitted) for name, of in rows.items()
        }
        return cls(tuple(fitted), rows, applied)

    @property
    def names(self) -> tuple[str, ...]:
        """What tables and sentences call each shortcut."""
        return tuple(one.name for one in self.fitted)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The shortcuts themselves."""
        return tuple(one.rule for one in self.fitted)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: values that point nowhere, and rows with values that no training row has."""
        idle = [
            f"No value of the shortcut '{one.name}' points to a class, so all rows are independent of it."
            for one in self.fitted
            if not one.points_anywhere
        ]
        perfect = [
            f"No training row goes against the shortcut '{one.name}': how far a model relies on it can be measured, "
            "but no method can learn to do without it from these data; collect rows that go against it."
            for one in self.fitted
            if one.is_perfect
        ]
        nowhere = [
            f"No row of the split '{split}' has a value of '{one.name}' that points to a class, so all are independent "
            "of it."
            for split, of_split in self.applied.items()
            for one, applied in zip(self.fitted, of_split, strict=True)
            if one.points_anywhere and not applied.notes and not (applied.points_N >= 0).any()
        ]
        told = [note for split in self.applied.values() for one in split for note in one.notes]
        return (*idle, *perfect, *nowhere, *told)

    def points(self, split: str) -> tuple[NDArray[np.int64], ...]:
        """For each shortcut the class that each row's value points to, in the split's numbers, −1 for none, (N,)."""
        rows = self.rows[split]
        found = [one.points_N for one in self.applied[split]]
        if rows.counts_as_C is not None:
            found = [np.where(points_N < 0, -1, rows.counts_as_C[points_N]) for points_N in found]
        return tuple(found)

    def standings(self, split: str) -> tuple[NDArray[np.int64], ...]:
        """For each shortcut how each row of a split stands to it, as its place in `STANDINGS`, shape (N,)."""
        label_N = self.rows[split].label_N
        return tuple(
            Applied(applied.value_N, points_N).standing(label_N)
            for applied, points_N in zip(self.applied[split], self.points(split), strict=True)
        )

    def standing(self, split: str) -> NDArray[np.int64]:
        """How each row stands to all shortcuts together, shape (N,)."""
        return standing_to_all(self.standings(split))

    def sizes(self, split: str) -> dict[str, dict[str, int]]:
        """Shortcut → how many rows of a split stand to it in each way; of several shortcuts, to all together too."""
        sides = dict(zip(self.names, self.standings(split), strict=True))
        sides |= {ALL: self.standing(split)} if len(sides) > 1 else {}
        return {
            name: dict(zip(STANDINGS, np.bincount(side_N, minlength=len(STANDINGS)).tolist(), strict=True))
            for name, side_N in sides.items()
        }

    # ---- what methods ask of the training rows ----------------------------------------------------------------------

    @cached_property
    def joint(self) -> Joint:
        """How often each class meets each combination of values in the training rows."""
        return Joint.fit([self.fitted[place] for place in self._weighed], self.train_values, self.train_labels)

    @cached_property
    def _weighed(self) -> Sequence[int]:
        """The shortcuts that some training row goes against.

        A value of the others tells the class for certain, so that beside them no other shortcut would be left to weigh.
        """
        return [place for place, one in enumerate(self.fitted) if not one.is_perfect] or range(len(self.fitted))

    @property
    def train_values(self) -> tuple[NDArray[np.int64], ...]:
        """For each shortcut that some training row goes against the value of each training row, shape (N,)."""
        return tuple(self.applied[TRAIN][place].value_N for place in self._weighed)

    @property
    def train_labels(self) -> NDArray[np.int64]:
        """The training rows' classes, shape (N,)."""
        return self.rows[TRAIN].label_N

    def balancing_weights(self, *, groups_alike: bool = False) -> NDArray[np.float64]:
        """A weight for each training row, with mean 1, as of `Joint.weights`; shape (N,)."""
        return self.joint.weights(self.train_values, self.train_labels, groups_alike=groups_alike)

    def groups(self) -> NDArray[np.int64]:
        """Each training row's group, label × combination, as its place in `joint.group_names`; shape (N,)."""
        return self.joint.groups(self.train_values, self.train_labels)

    def log_ratio(self) -> NDArray[np.float64]:
        """The log P(y|a) − log P(y) of each training row, shape (N, C)."""
        return self.joint.log_ratio(self.train_values)

    def label_probability(self) -> NDArray[np.float64]:
        """P(y_i|a_i) of each training row's own class, shape (N,)."""
        return self.joint.label_probability(self.train_values, self.train_labels)

    def as_dicts(self) -> list[dict[str, Any]]:
        """What the training rows say of each, as plain data."""
        return [one.as_dict() for one in self.fitted]


def _applied(fitted: FittedShortcut, rows: Rows, *, may_lack: bool) -> Applied:
    """What a shortcut makes of a split's rows; where it tells nothing of them, all are independent."""
    try:
        return fitted.apply(rows.samples)
    except NotToldError as error:
        if not may_lack:
            raise
        none_N = np.full(len(rows.samples), -1)
        return Applied(none_N, none_N, (f"{str(error).removesuffix('.')}, so all its rows count as independent.",))


def _read_once(rule: Rule, rows: Mapping[str, Rows], optional: Collection[str]) -> Rule:
    """A shortcut that comes from Python as arrays: what its function says once stays so."""
    if not isinstance(rule, OwnShortcut):
        return rule
    found: dict[str, list[Any]] = {}
    for name, of in rows.items():
        with suppress(NotToldError) if name in optional else nullcontext():
            found[name] = rule.read(of.samples).to_pylist()
    return OwnShortcut(rule.name, found)
