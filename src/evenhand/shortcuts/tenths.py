"""A number by its tenths: cut points from the training rows, then the same cuts for any row.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

MISSING = "(missing)"
TENTHS = 10
_DIGITS = (4, 6, 9, 12, 17)
_TIMES = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f")


@dataclass(frozen=True)
class Tenths:
    """Where a number is cut.

    Attributes:
        often: Numbers that a tenth of the training rows have: each is a value of its own.
        edges: Upper ends of the parts that the other numbers are cut into, but for the last part.
        names: Of the values: the `often` ones, then the parts, then "(missing)" where training rows lack the number.
    """

    often: tuple[float, ...]
    edges: tuple[float, ...]
    names: tuple[str, ...]

    @classmethod
    def fit(cls, number_N: NDArray[np.float64], dates: bool = False) -> Tenths:
        """Cut the training rows' numbers.

        Args:
            number_N: The numbers, shape (N,); one that isn't finite is missing.
            dates: Whether they are seconds since 1970, named as dates.
        """
        known_N = np.isfinite(number_N)
        numbers, counts = np.unique(number_N[known_N], return_counts=True)
        is_often = counts >= len(number_N) / TENTHS
        often = numbers[is_often]
        rest = number_N[known_N & ~np.isin(number_N, often)]
        edges, ends = np.array([]), []
        if len(rest):
            parts = max(1, round(TENTHS * len(rest) / len(number_N)))
            edges = np.unique(np.quantile(rest, np.arange(1, parts) / parts, method="inverted_cdf"))
            edges = edges[edges < rest.max()]
            part_of = np.searchsorted(edges, rest)
            ends = [(rest[part_of == p].min(), rest[part_of == p].max()) for p in range(len(edges) + 1)]
        writers = [_date_writer(form) for form in _TIMES] if dates else [_number_writer(digits) for digits in _DIGITS]
        names = _distinct([(x, x) for x in often] + ends, writers, dates)
        missing = [] if known_N.all() else [MISSING]
        return cls(tuple(often.tolist()), tuple(edges.tolist()), (*names, *missing))

    def codes(self, number_N: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which value each number is, −1 for one that no training row had, shape (N,)."""
        missing = len(self.names) - 1 if self.names and self.names[-1] == MISSING else -1
        code_N = np.full(len(number_N), missing)
        parts = len(self.names) - (missing >= 0) - len(self.often)
        known_N = np.isfinite(number_N)
        code_N[known_N] = len(self.often) + np.searchsorted(self.edges, number_N[known_N]) if parts else -1
        for place, number in enumerate(self.often):
            code_N[number_N == number] = place
        return code_N


def _number_writer(digits: int) -> Callable[[float], str]:
    return lambda number: f"{number:.{digits}g}"


def _date_writer(form: str) -> Callable[[float], str]:
    return lambda seconds: f"{datetime.fromtimestamp(seconds, UTC):{form}}"


def _distinct(
    ends: Sequence[tuple[float, float]], writers: Sequence[Callable[[float], str]], always: bool
) -> list[str]:
    """A name for each range, as short as leaves them apart.

    Args:
        ends: The lowest and highest number of each.
        writers: How an end is written, the shortest way first.
        always: Whether both ends are written where they read alike.
    """
    names: list[str] = []
    for write in writers:
        written = [(write(low), write(high)) for low, high in ends]
        names = [low if low == high and not always else f"{low} to {high}" for low, high in written]
        if len(set(names)) == len(names):
            break
    return names
