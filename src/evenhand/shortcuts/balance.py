"""Tables of labels and shortcuts' values together, and the weights and corrections that make them independent.

Legend: N rows, S shortcuts, A combinations of values, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenhand.shortcuts.fitted import FittedShortcut
from evenhand.shortcuts.pointing import class_shares
from evenhand.validation import Range, UserError

CAP = 100.0
"""No weight is more than this many times the mean unless another cap is given."""


@dataclass(frozen=True)
class Joint:
    """How often each class meets each combination of the shortcuts' values in the training rows.

    The absence of a value, such as of a token, is a value here.

    Attributes:
        combinations: The combinations that training rows have, in order: the values of each shortcut, −1 for none.
        count_AC: Training rows of each combination in each class.
        classes: Names of the classes.
        names: Name of each combination.
    """

    combinations: tuple[tuple[int, ...], ...]
    count_AC: NDArray[np.int64]
    classes: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def fit(
        cls, fitted: Sequence[FittedShortcut], values: Sequence[NDArray[np.int64]], label_N: NDArray[np.int64]
    ) -> Joint:
        """Count the training rows.

        Args:
            fitted: The shortcuts.
            values: For each shortcut the rows' values, from `FittedShortcut.apply`.
            label_N: The rows' classes.
        """
        if not fitted or any(len(value_N) != len(label_N) for value_N in values):
            raise UserError("A table of labels and values needs a shortcut, and a value for each label.")
        different_AS, place_N = np.unique(np.stack(values, axis=1), axis=0, return_inverse=True)
        count_AC = np.zeros((len(different_AS), len(fitted[0].classes)), dtype=np.int64)
        np.add.at(count_AC, (place_N.ravel(), label_N), 1)
        combinations = tuple(tuple(row) for row in different_AS.tolist())
        names = tuple(
            " · ".join(one.names[v] if v >= 0 else f"no {one.name}" for one, v in zip(fitted, row, strict=True))
            for row in combinations
        )
        return cls(combinations, count_AC, fitted[0].classes, names)

    def places(self, values: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Which combination each row has, −1 for one that no training row has, shape (N,)."""
        known = {row: place for place, row in enumerate(self.combinations)}
        different_US, place_N = np.unique(np.stack(values, axis=1), axis=0, return_inverse=True)
        return np.array([known.get(tuple(row), -1) for row in different_US.tolist()], dtype=np.int64)[place_N.ravel()]

    def groups(self, values: Sequence[NDArray[np.int64]], label_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each row's group, label × combination, as its place in `group_names`; −1 for an unknown one, shape (N,)."""
        place_N = self.places(values)
        return np.where(place_N < 0, -1, label_N * len(self.combinations) + place_N)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Name of each group, those of the first class first; training rows may lack some."""
        return tuple(f"{label}, {name}" for label in self.classes for name in self.names)

    @property
    def empty(self) -> tuple[str, ...]:
        """Groups that no training row is in: no weight can make up for them."""
        sizes = self.count_AC.T.ravel()
        kept_C = self.count_AC.any(axis=0).repeat(len(self.combinations))
        return tuple(
            name for name, size, kept in zip(self.group_names, sizes, kept_C, strict=True) if kept and not size
        )

    def weights(
        self,
        values: Sequence[NDArray[np.int64]],
        label_N: NDArray[np.int64],
        *,
        groups_alike: bool = False,
        cap: float | None = CAP,
    ) -> NDArray[np.float64]:
        """A weight for each training row, with mean 1, shape (N,).

        Args:
            values: For each shortcut the rows' values.
            label_N: Their classes.
            groups_alike: Whether every group counts alike (1 / P(y,a)); else label and shortcuts become independent
                and both keep their shares (P(y)·P(a) / P(y,a)).
            cap: No weight is more than this many times the mean; None caps none.

        Raises:
            UserError: If a row has a combination and class that no training row has.
        """
        if cap is not None:
            Range(1, low_open=True).check("the weights", "cap", cap)
        place_N = self.places(values)
        met_N = np.where(place_N < 0, 0, self.count_AC[place_N, label_N])
        if not met_N.all():
            raise UserError("Weights are for training rows, but a row is in a group that no training row is in.")
        # in units that don't matter, since the mean becomes 1
        wanted_N = 1.0 if groups_alike else self.count_AC.sum(axis=1)[place_N] * self.count_AC.sum(axis=0)[label_N]
        weight_N = wanted_N / met_N
        return weight_N / weight_N.mean() if cap is None else capped(weight_N, cap)

    def log_ratio(self, values: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """The log P(y|a) − log P(y) of each row, with a pseudo-count a class; 0 of unknown ones, shape (N, C)."""
        ratio_AC = np.log(class_shares(self.count_AC)) - np.log(class_shares(self.count_AC.sum(axis=0)))
        place_N = self.places(values)
        return np.where((place_N >= 0)[:, None], ratio_AC[place_N], 0.0)

    def label_probability(self, values: Sequence[NDArray[np.int64]], label_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """P(y_i|a_i) of each row's own class, with a pseudo-count a class; P(y_i) for unknown combinations."""
        prior_C = class_shares(self.count_AC.sum(axis=0))
        place_N = self.places(values)
        known_N = class_shares(self.count_AC)[place_N, label_N]
        return np.where(place_N >= 0, known_N, prior_C[label_N])


def capped(weight_N: NDArray[np.float64], cap: float) -> NDArray[np.float64]:
    """The weights with mean 1, none above `cap` times the mean; what is cut off goes to the others in proportion."""
    weight_N = weight_N / weight_N.mean()
    full_N = np.zeros(len(weight_N), dtype=bool)
    while (weight_N > cap * (1 + 1e-12)).any():
        full_N |= weight_N >= cap
        weight_N[full_N] = cap
        rest = len(weight_N) - cap * full_N.sum()
        weight_N[~full_N] *= rest / weight_N[~full_N].sum()
    return weight_N
