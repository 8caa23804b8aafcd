"""Columns, numbers and colours as attributes: values that exclude each other, few enough to be tested.

Legend: N samples, V values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.auditing.association import LEAST_COUNT
from evenhand.shortcuts import Shortcut
from evenhand.shortcuts.colours import Hues, Shades
from evenhand.shortcuts.columns import NESTED, ColumnCoding, Parsed, View, is_nested, parse_column
from evenhand.shortcuts.spelling import HUE
from evenhand.shortcuts.tenths import TENTHS, Tenths

_FEW_NUMBERS = 50  # whole numbers with no more different values may be codes, so they are tested as such too
_MANY_WORDS = 3  # on average, from which on a column is called free text


@dataclass(frozen=True)
class Attribute:
    """Values that exclude each other.

    Attributes:
        name: What it is called.
        names: Name of each value; of a colour its code, as in "#dc143c".
        value_N: Which value each sample has, −1 for none, shape (N,).
        shortcut: The rule that gives these values; None where it can't be spelled.
        cut: Whether values are parts of a number, cut without regard to classes.
    """

    name: str
    names: list[str]
    value_N: NDArray[np.int64]
    shortcut: Shortcut | None
    cut: bool = False


Views = list[Attribute]
"""One attribute seen in several ways, of which the first that passes the tests counts."""


def by_tenths(rule: Shortcut, number_N: NDArray[np.float64]) -> Attribute | None:
    """A measure by its tenths; a value that a tenth of the samples have is one of its own. None for a single value."""
    tenths = Tenths.fit(number_N)
    if len(tenths.names) < 2:
        return None
    return Attribute(rule.kind, list(tenths.names), tenths.codes(number_N), rule, cut=True)


def colours(color_N3: NDArray[np.float64]) -> list[Attribute]:
    """The mean colour of each picture, in two views; none for pictures without colour.

    The first groups pictures by hue and saturation, which tells shades of a hue apart but may hold the shape too (a
    white object pales its picture); the second by hue alone. Brightness is a measure of its own.
    """
    shades = Shades.fit(color_N3)
    if shades is None or (shades.codes(color_N3) >= 0).sum() < LEAST_COUNT:
        return []
    views = ((shades, Shortcut("colour")), (Hues.fit(color_N3), Shortcut("colour", values=(HUE,))))
    return [Attribute("colour", list(coding.names), coding.codes(color_N3), rule) for coding, rule in views]


def file_attribute(rule: Shortcut, entries: pa.ChunkedArray) -> Attribute | str:
    """A part of pictures' files in its usual view, or why it isn't tested."""
    column = parse_column(entries)
    if column.is_id(rule.spelling):
        return "ids"
    if column.usual == "entries":
        found = _entries(rule.values[0], column, rule)
        return found if isinstance(found, str) else found[0][0]
    return _attribute(rule.values[0], column, column.usual, rule) or "one value"


def column_attributes(name: str, entries: pa.ChunkedArray, labels: tuple[str, ...] = ()) -> list[Views] | str:
    """A column as what is tested of it, or why it isn't.

    Numbers are taken by tenths (a value that a tenth of the rows have stands for itself, as do words among numbers),
    dates by month, by weekday and by tenths, all else by entries. A missing entry is a value too.

    Args:
        name: The column's name.
        entries: Its entries, in the samples' order.
        labels: The classes' names: a column whose entries are these is the label once more.
    """
    if is_nested(entries):
        return NESTED
    column = parse_column(entries)
    different = set(column.text_N)
    if len(different) < 2:
        return "one value"
    if labels and {text.casefold() for text in different} == {label.casefold() for label in labels}:
        return "the classes' names"
    if column.form == "numbers":
        return _number_views(name, column)
    if column.form == "words":
        return _entries(name, column, _rule(name, column, "entries"))
    dates: tuple[View, ...] = ("month", "weekday", "tenths")
    found = (_attribute(f"{name} ({view})", column, view, _rule(name, column, view)) for view in dates)
    return [[attribute] for attribute in found if attribute is not None] or "one value"


def _number_views(name: str, column: Parsed) -> list[Views] | str:
    if column.is_id(name):
        return "ids"
    numbers = column.number_N[np.isfinite(column.number_N)]
    different = np.unique(numbers)
    whole = bool((numbers == np.round(numbers)).all())
    as_entries = _entries(name, column, _rule(name, column, "entries"))
    if len(different) <= TENTHS:
        return as_entries
    tenths = _attribute(name, column, "tenths", _rule(name, column, "tenths"))
    views = [] if tenths is None else [tenths]
    if whole and len(different) <= _FEW_NUMBERS and not isinstance(as_entries, str):
        views = [*as_entries[0], *views]
    return [views] if views else "one value"


def _rule(name: str, column: Parsed, view: View) -> Shortcut | None:
    """A column in one of its views, as short as it can be spelled."""
    return Shortcut("column", name, () if view == column.usual else (view,)) if name else None


def _entries(name: str, column: Parsed, rule: Shortcut | None) -> list[Views] | str:
    attribute = _attribute(name, column, "entries", rule)
    if attribute is None:
        return "one value"
    if np.bincount(attribute.value_N).max() >= LEAST_COUNT:
        return [[attribute]]
    words = np.mean([len(text.split()) for text in attribute.names])
    return "free text" if words >= _MANY_WORDS else f"no entry on {LEAST_COUNT} rows, as ids"


def _attribute(name: str, column: Parsed, view: View, rule: Shortcut | None) -> Attribute | None:
    coding: Any = ColumnCoding.fit(column, view)
    if len(coding.names) < 2:
        return None
    return Attribute(name, list(coding.names), coding.of(column), rule, view == "tenths")
