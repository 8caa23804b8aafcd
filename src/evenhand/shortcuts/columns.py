"""A column's entries as values: numbers and dates by their tenths, months and weekdays, all else as it stands.

Legend: N rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.shortcuts.tenths import MISSING, TENTHS, Tenths

View = Literal["entries", "tenths", "month", "weekday"]
VIEWS: tuple[View, ...] = ("entries", "tenths", "month", "weekday")

NESTED = "lists, objects or bytes"
_NO_NUMBER = re.compile(r"[+-]?0\d[^.]*$")  # 007 is a name
_ID_NAME = re.compile(r"(^|[\W_])(id|ids|uuid|guid|index|idx|key|row|nr|no|number)$|^(unnamed: \d+)?$", re.IGNORECASE)
_EMPTY = frozenset(("", "na", "n/a", "nan", "none", "null", "nil", "-", "?"))
_DATES = ("ISO8601", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M")


def entry_texts(column: pa.ChunkedArray) -> NDArray[Any]:
    """Each entry as text, without blanks around it; "(missing)" for none, shape (N,)."""
    held: Any = column.type
    if pa.types.is_dictionary(held):
        column = column.cast(held.value_type)
        held = held.value_type
    series: Any = column.to_pandas()
    missing_N = series.isna().to_numpy()
    if pa.types.is_boolean(held):
        text_N = series.map({True: "true", False: "false"}).to_numpy(dtype=object)
    elif pa.types.is_floating(held):
        text_N = np.array([f"{value:.12g}" for value in series], dtype=object)
    else:
        text_N = np.array([str(value).strip() for value in series], dtype=object)
    if pa.types.is_integer(held) and missing_N.any():  # pandas made floats of them
        text_N = np.array([text.removesuffix(".0") for text in text_N], dtype=object)
    text_N[missing_N | (text_N == "")] = MISSING
    return text_N


def is_nested(column: pa.ChunkedArray) -> bool:
    """Whether entries are lists, objects or bytes, which are no values."""
    held: Any = column.type
    held = held.value_type if pa.types.is_dictionary(held) else held
    return pa.types.is_nested(held) or pa.types.is_binary(held) or pa.types.is_large_binary(held)


@dataclass(frozen=True)
class Parsed:
    """A training column, and what its entries are.

    Attributes:
        form: "words", "numbers", or how the dates are written.
        text_N: Each entry as text, shape (N,).
        number_N: Numbers, or dates as seconds since 1970; NaN for an entry that is none, shape (N,).
    """

    form: str
    text_N: NDArray[Any]
    number_N: NDArray[np.float64]

    @property
    def usual(self) -> View:
        """How the column is seen unless a view is named."""
        few = len(np.unique(self.number_N[np.isfinite(self.number_N)])) <= TENTHS
        return "entries" if self.form == "words" or (self.form == "numbers" and few) else "tenths"

    @property
    def views(self) -> tuple[View, ...]:
        """The views that the column has."""
        if self.form == "words":
            return ("entries",)
        return ("entries", "tenths") if self.form == "numbers" else VIEWS

    def is_id(self, name: str) -> bool:
        """Whether these are whole numbers that are all different, and leave few out or are called like an id."""
        numbers = self.number_N[np.isfinite(self.number_N)]
        if self.form != "numbers" or len(numbers) <= TENTHS or (numbers != np.round(numbers)).any():
            return False
        different = np.unique(numbers)
        is_dense = bool(np.ptp(different) < 2 * len(different))
        return len(different) == len(numbers) and (is_dense or _ID_NAME.search(name) is not None)


def parse_column(column: pa.ChunkedArray) -> Parsed:
    """Find out what a training column holds: numbers (at least half of the entries), dates (all of them), or words."""
    text_N = entry_texts(column)
    given_N = text_N != MISSING
    number_N = _numbers(text_N)
    numeric_N = np.isfinite(number_N)
    named = any(_NO_NUMBER.match(text) for text in text_N[numeric_N])
    held: Any = column.type
    if numeric_N.any() and numeric_N.sum() >= given_N.sum() / 2 and not named:
        empty_N = np.array([text.lower() in _EMPTY for text in text_N])
        return Parsed("numbers", _plain_numbers(np.where(empty_N, MISSING, text_N), number_N), number_N)
    if pa.types.is_time(held) or pa.types.is_duration(held) or not given_N.any():
        return Parsed("words", text_N, np.full(len(text_N), np.nan))
    if all(re.search(r"\d", text) for text in text_N[given_N]):
        for form in _DATES:
            try:
                return Parsed(form, text_N, _seconds(pd.to_datetime(_given(text_N), format=form, utc=True)))
            except (ValueError, OverflowError):
                continue
    return Parsed("words", text_N, np.full(len(text_N), np.nan))


def _given(text_N: NDArray[Any]) -> Any:
    return pd.Series(text_N).where(text_N != MISSING)


def _seconds(when: Any) -> NDArray[np.float64]:
    second_N = when.to_numpy(dtype="datetime64[us]").astype(np.int64) / 1e6
    return np.where(when.isna().to_numpy(), np.nan, second_N)


def _numbers(text_N: NDArray[Any]) -> NDArray[np.float64]:
    parsed: Any = pd.to_numeric(pd.Series(text_N), errors="coerce")
    return parsed.to_numpy(dtype=np.float64)


def _plain_numbers(text_N: NDArray[Any], number_N: NDArray[np.float64]) -> NDArray[Any]:
    """Numbers written in one way, so that 2 and 2.0 are one entry; those beyond what a float tells apart stay."""
    known_N = np.abs(number_N) < 2**53  # False for NaN
    different, place_N = np.unique(number_N[known_N], return_inverse=True)
    written = [str(int(x)) if x == int(x) else f"{x:.12g}" for x in different.tolist()]
    text_N = text_N.copy()
    text_N[known_N] = np.array(written, dtype=object)[place_N]
    return text_N


@dataclass(frozen=True)
class ColumnCoding:
    """How entries become values.

    Attributes:
        view: What is looked at: whole entries, tenths, months or weekdays.
        form: As in `Parsed`.
        entries: The entries, months or weekdays of the training rows; of tenths the words among the numbers.
        tenths: The cuts of numbers and dates; None in other views.
    """

    view: View
    form: str
    entries: tuple[str, ...]
    tenths: Tenths | None = None

    @classmethod
    def fit(cls, column: Parsed, view: View) -> ColumnCoding:
        """The coding of a training column; the view is among those that the column has."""
        text_N, tenths = _viewed(view, column.form, column.text_N, column.number_N), None
        if view == "tenths":
            number_N = column.number_N
            # words among numbers, and missing entries, are values of their own beside the tenths
            tenths = Tenths.fit(number_N[np.isfinite(number_N)], dates=column.form != "numbers")
            text_N = text_N[~np.isfinite(number_N)]
        return cls(view, column.form, tuple(str(text) for text in pd.unique(pd.Series(text_N, dtype=object))), tenths)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each value."""
        return self.entries + (() if self.tenths is None else self.tenths.names)

    def codes(self, column: pa.ChunkedArray) -> NDArray[np.int64]:
        """Which value each row has, −1 for one that no training row had, shape (N,)."""
        text_N = entry_texts(column)
        number_N = np.full(len(text_N), np.nan)
        if self.form == "numbers":
            number_N = _numbers(text_N)
            text_N = np.where([text.lower() in _EMPTY for text in text_N], MISSING, text_N)
            text_N = _plain_numbers(text_N, number_N)
        elif self.form != "words":
            given = _given(text_N)
            number_N = _seconds(pd.to_datetime(given, format=self.form, utc=True, errors="coerce"))
        return self.of(Parsed(self.form, text_N, number_N))

    def of(self, column: Parsed) -> NDArray[np.int64]:
        """As `codes`, of a column parsed before."""
        text_N = _viewed(self.view, self.form, column.text_N, column.number_N)
        code_N = pd.Index(self.entries, dtype=object).get_indexer(pd.Index(text_N, dtype=object)).astype(np.int64)
        if self.tenths is not None:
            numeric_N = np.isfinite(column.number_N)
            tenth_N = self.tenths.codes(column.number_N[numeric_N])
            code_N[numeric_N] = np.where(tenth_N >= 0, len(self.entries) + tenth_N, -1)
        return code_N


def _viewed(view: View, form: str, text_N: NDArray[Any], number_N: NDArray[np.float64]) -> NDArray[Any]:
    """The texts that a view compares: months and weekdays by their names."""
    if view in ("entries", "tenths"):
        return text_N
    when = pd.Series(pd.to_datetime(number_N, unit="s", utc=True))
    names = when.dt.month_name() if view == "month" else when.dt.day_name()
    # an entry that is no date, among dates, is no month
    return np.where(np.isfinite(number_N), names.to_numpy(dtype=object), text_N)
