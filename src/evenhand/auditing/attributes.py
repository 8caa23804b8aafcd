"""Columns and numbers as attributes: values that exclude each other, few enough to be tested.

Legend: N samples, V values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.auditing.association import LEAST_COUNT

MISSING = "(missing)"
TENTHS = 10
_FEW_NUMBERS = 50  # whole numbers with no more different values may be codes, so they are tested as such too
_MANY_WORDS = 3  # on average, from which on a column is called free text
_ID_NAME = re.compile(r"(^|[\W_])(id|ids|uuid|guid|index|idx|key|row|nr|no|number)$|^(unnamed: \d+)?$", re.IGNORECASE)
_NO_NUMBER = re.compile(r"[+-]?0\d")  # 007 is a name
_EMPTY = frozenset(("", "na", "n/a", "nan", "none", "null", "nil", "-", "?"))
_DATES = ("ISO8601", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M")


@dataclass(frozen=True)
class Attribute:
    """Values that exclude each other.

    Attributes:
        name: What it is called.
        names: Name of each value; of a colour its code, as in "#dc143c".
        value_N: Which value each sample has, −1 for none, shape (N,).
        cut: Whether values are parts of a number, cut without regard to classes.
    """

    name: str
    names: list[str]
    value_N: NDArray[np.int64]
    cut: bool = False


Views = list[Attribute]
"""One attribute seen in several ways, of which the first that passes the tests counts."""


def by_tenths(name: str, number_N: NDArray[np.float64]) -> Attribute | None:
    """A number by its tenths; a value that a tenth of the samples have is one of its own. None for a single value."""
    text_N = _tenths(number_N)
    text_N[np.isnan(number_N)] = MISSING
    return _attribute(name, text_N, cut=True)


def column_attributes(name: str, entries: pa.ChunkedArray, labels: tuple[str, ...] = ()) -> list[Views] | str:
    """A column as what is tested of it, or why it isn't.

    Numbers are taken by tenths (a value that a tenth of the rows have stands for itself, as do words among numbers),
    dates by month, by weekday and by tenths, all else by entries. A missing entry is a value too.

    Args:
        name: The column's name.
        entries: Its entries, in the samples' order.
        labels: The classes' names: a column whose entries are these is the label once more.
    """
    held: Any = entries.type
    if pa.types.is_dictionary(held):
        entries = entries.cast(held.value_type)
        held = held.value_type
    if pa.types.is_nested(held) or pa.types.is_binary(held) or pa.types.is_large_binary(held):
        return "lists, objects or bytes"
    series: Any = entries.to_pandas()
    if pa.types.is_temporal(held) and not pa.types.is_time(held) and not pa.types.is_duration(held):
        return _dates(name, pd.to_datetime(series, errors="coerce", utc=True))
    text_N = _as_text(series, held)
    given = np.array([text != MISSING for text in text_N], dtype=bool)
    different = set(text_N)
    if len(different) < 2:
        return "one value"
    if labels and {text.casefold() for text in different} == {label.casefold() for label in labels}:
        return "the classes' names"
    number_N = _numbers(text_N)
    numeric_N = np.isfinite(number_N)
    if not pa.types.is_boolean(held) and numeric_N.sum() >= given.sum() / 2 and numeric_N.any():
        return _number_views(name, text_N, number_N)
    dates = _parsed_dates(text_N, given)
    if dates is not None:
        return _dates(name, dates)
    return _entries(name, text_N)


def _as_text(series: Any, held: Any) -> NDArray[Any]:
    missing = series.isna().to_numpy()
    if pa.types.is_boolean(held):
        text_N = series.map({True: "true", False: "false"}).to_numpy(dtype=object)
    elif pa.types.is_floating(held):
        text_N = np.array([f"{value:.12g}" for value in series], dtype=object)
    else:
        text_N = np.array([str(value).strip() for value in series], dtype=object)
    if pa.types.is_integer(held) and missing.any():  # pandas made floats of them
        text_N = np.array([text.removesuffix(".0") for text in text_N], dtype=object)
    text_N[missing | (text_N == "")] = MISSING
    return text_N


def _numbers(text_N: NDArray[Any]) -> NDArray[np.float64]:
    """Entries as numbers; NaN for words, and for names such as 007."""
    parsed: Any = pd.to_numeric(pd.Series(text_N), errors="coerce")
    number_N: NDArray[np.float64] = parsed.to_numpy(dtype=np.float64)
    if any(_NO_NUMBER.match(text) and "." not in text for text in text_N):
        return np.full(len(text_N), np.nan)
    return number_N


def _number_views(name: str, text_N: NDArray[Any], number_N: NDArray[np.float64]) -> list[Views] | str:
    numeric_N = np.isfinite(number_N)
    numbers = number_N[numeric_N]
    different = np.unique(numbers)
    whole = bool((numbers == np.round(numbers)).all())
    if whole and len(different) == len(numbers) > TENTHS:
        dense = np.ptp(different) < 2 * len(different)
        if dense or _ID_NAME.search(name):
            return "ids"
    empty_N = np.array([text.lower() in _EMPTY for text in text_N])
    words_N = np.where(empty_N, MISSING, text_N)
    as_entries = _entries(name, words_N)
    if len(different) <= TENTHS:
        return as_entries
    text_N = words_N.copy()
    text_N[numeric_N] = _tenths(numbers)
    tenths = _attribute(name, text_N, cut=True)
    views = [] if tenths is None else [tenths]
    if whole and len(different) <= _FEW_NUMBERS and not isinstance(as_entries, str):
        views = [*as_entries[0], *views]
    return [views] if views else "one value"


def _tenths(number_N: NDArray[np.float64]) -> NDArray[Any]:
    """Each number's tenth in words; numbers that a tenth of all have stand for themselves."""
    text_N = np.full(len(number_N), MISSING, dtype=object)
    values, inverse_N, counts = np.unique(number_N, return_inverse=True, return_counts=True)
    often = (counts >= len(number_N) / TENTHS) & np.isfinite(values)
    for place in np.flatnonzero(often):
        text_N[inverse_N == place] = f"{values[place]:.4g}"
    rest_N = ~often[inverse_N] & np.isfinite(number_N)
    if rest_N.any():
        rest = number_N[rest_N]
        parts = max(1, round(TENTHS * len(rest) / len(number_N)))
        edges = np.unique(np.quantile(rest, np.arange(1, parts) / parts, method="inverted_cdf"))
        codes = np.searchsorted(edges, rest)
        ranges = {c: _range(rest[codes == c]) for c in np.unique(codes)}
        text_N[rest_N] = [ranges[c] for c in codes]
    return text_N


def _range(numbers: NDArray[np.float64]) -> str:
    low, high = f"{numbers.min():.4g}", f"{numbers.max():.4g}"
    return low if low == high else f"{low} to {high}"


def _parsed_dates(text_N: NDArray[Any], given: NDArray[np.bool_]) -> Any:
    """The entries as dates if all that are given are; else None."""
    texts = pd.Series(text_N).where(given)
    if not texts.dropna().str.contains(r"\d").all():
        return None
    for form in _DATES:
        try:
            return pd.to_datetime(texts, format=form, utc=True)
        except (ValueError, OverflowError):
            continue
    return None


def _dates(name: str, when: Any) -> list[Views] | str:
    """By month and by weekday, and by tenths: what was collected at another time may look otherwise."""
    missing_N = when.isna().to_numpy()
    if missing_N.all() or when.nunique() + missing_N.any() < 2:
        return "one value"
    views: list[Views] = []
    for what, names in (("month", when.dt.month_name()), ("weekday", when.dt.day_name())):
        text_N = np.where(missing_N, MISSING, names.to_numpy(dtype=object))
        attribute = _attribute(f"{name} ({what})", text_N)
        views += [] if attribute is None else [[attribute]]
    tenth_N: Any = pd.qcut(when.rank(method="first"), TENTHS, labels=False, duplicates="drop")
    text_N = np.full(len(when), MISSING, dtype=object)
    for tenth in np.unique(tenth_N.dropna()):
        rows = (tenth_N == tenth).to_numpy()
        text_N[rows] = f"{when[rows].min():%Y-%m-%d} to {when[rows].max():%Y-%m-%d}"
    whole = _attribute(f"{name} (tenths)", text_N, cut=True)
    views += [] if whole is None else [[whole]]
    return views or "one value"


def _entries(name: str, text_N: NDArray[Any]) -> list[Views] | str:
    attribute = _attribute(name, text_N)
    if attribute is None:
        return "one value"
    if np.bincount(attribute.value_N).max() >= LEAST_COUNT:
        return [[attribute]]
    words = np.mean([len(text.split()) for text in attribute.names])
    return "free text" if words >= _MANY_WORDS else f"no entry on {LEAST_COUNT} rows, as ids"


def _attribute(name: str, text_N: NDArray[Any], cut: bool = False) -> Attribute | None:
    codes, names = pd.factorize(text_N)
    if len(names) < 2:
        return None
    return Attribute(name, [str(text) for text in names], codes.astype(np.int64), cut)
