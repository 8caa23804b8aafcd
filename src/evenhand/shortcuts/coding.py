"""What a shortcut reads of samples, and how that becomes values.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.measures import OF_TEXTS
from evenhand.shortcuts import picture_files
from evenhand.shortcuts.colours import Hues, Shades
from evenhand.shortcuts.columns import NESTED, ColumnCoding, entry_texts, is_nested, parse_column
from evenhand.shortcuts.own import OwnShortcut
from evenhand.shortcuts.samples import Samples
from evenhand.shortcuts.spelling import Shortcut
from evenhand.shortcuts.tenths import Tenths
from evenhand.shortcuts.tokens import first_token
from evenhand.validation import UserError

Rule = Shortcut | OwnShortcut
"""A shortcut with a spelling, or one that comes from Python."""


@dataclass(frozen=True)
class Words:
    """Tokens as values, of which the first that occurs in a row counts."""

    names: tuple[str, ...]

    def codes(self, rows: Sequence[Sequence[str | None]]) -> NDArray[np.int64]:
        """Which token each row has, −1 for none, shape (N,)."""
        return np.array([first_token(texts, self.names) for texts in rows], dtype=np.int64)


Coding = Words | Tenths | ColumnCoding | Shades | Hues
_CODINGS: dict[str, type] = {c.__name__.lower(): c for c in (Words, Tenths, ColumnCoding, Shades, Hues)}


def read(rule: Rule, samples: Samples, classes: Sequence[str]) -> Any:
    """What the rule looks at: texts, numbers, colours, or a column, with an entry for each row.

    Raises:
        UserError: If the samples lack it.
    """
    if isinstance(rule, OwnShortcut):
        return rule.read(samples)
    if rule.kind == "token":
        return list(zip(*(samples.read_texts(place) for place in samples.text_places(rule.field)), strict=True))
    if rule.kind == "length":
        measure = OF_TEXTS["length"]
        texts = [samples.read_texts(place) for place in samples.text_places(rule.field)]
        return np.sum([[measure(text or "") for text in column] for column in texts], axis=0, dtype=np.float64)
    if rule.kind == "column":
        column = samples.read_column(rule.field or "")
        if is_nested(column):
            raise UserError(f"The column '{rule.field}' holds {NESTED}, which are no values of a shortcut.")
        return column
    if rule.kind == "file":
        files = samples.picture_files()
        if rule.values == ("folder",):
            return picture_files.folders(files, classes)
        return picture_files.endings(files) if rule.values == ("ending",) else picture_files.cameras(files)
    return samples.looks.color_N3 if rule.kind == "colour" else samples.looks.measures[rule.kind]


def coding_of(rule: Rule, found: Any) -> Coding:
    """How what was read of the training rows becomes values.

    Raises:
        UserError: If all rows have one value, or each has its own.
    """
    if isinstance(rule, Shortcut) and rule.kind == "token":
        return Words(rule.values)
    if isinstance(rule, Shortcut) and rule.kind == "colour":
        coding: Coding | None = Shades.fit(found)
        if coding is None:
            raise UserError(f"The training pictures have no colour that differs, so '{rule}' is no shortcut of theirs.")
        return Hues.fit(found) if rule.values else coding
    coding = Tenths.fit(found) if isinstance(found, np.ndarray) else _column_coding(rule, found)
    if len(coding.names) < 2:
        value = f" ('{coding.names[0]}')" if coding.names else ""
        raise UserError(f"All training rows have the same value of '{rule}'{value}, so it tells nothing.")
    return coding


def _column_coding(rule: Rule, column: pa.ChunkedArray) -> ColumnCoding:
    parsed = parse_column(column)
    asked: Any = rule.values[0] if isinstance(rule, Shortcut) and rule.kind == "column" and rule.values else None
    view = asked or parsed.usual
    if view not in parsed.views:
        raise UserError(
            f"The column of '{rule}' holds {'numbers' if parsed.form == 'numbers' else 'words'}, which have no "
            f"'{view}'; it may be seen as {' or '.join(parsed.views)}."
        )
    coding = ColumnCoding.fit(parsed, view)
    all_differ = view == "entries" and len(coding.names) == len(column) > 1
    if all_differ or (asked is None and parsed.is_id((isinstance(rule, Shortcut) and rule.field) or str(rule))):
        raise UserError(
            f"Each training row has its own value of '{rule}', as an id has, so it tells nothing of others."
        )
    return coding


def check_not_label(rule: Rule, found: Any, label_N: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Raise `UserError` if a column is the label once more: each entry is the name or the number of the row's class."""
    if isinstance(found, pa.ChunkedArray) and is_label(found, label_N, classes):
        raise UserError(f"'{rule}' is the label: each row's value is the row's class, so it can't be a shortcut.")


def is_label(column: pa.ChunkedArray, label_N: NDArray[np.int64], classes: Sequence[str]) -> bool:
    """Whether each entry of a column is the name or the number of the row's class."""
    text_N = np.array([text.casefold() for text in entry_texts(column)], dtype=object)
    named = np.array([name.casefold() for name in classes], dtype=object)[label_N]
    numbered = label_N.astype(str).astype(object)
    return bool((text_N == named).all()) or bool((text_N == numbered).all())


def coding_as_dict(coding: Coding) -> dict[str, Any]:
    """Plain data."""
    return {"coding": type(coding).__name__.lower(), **asdict(coding)}


def coding_from_dict(told: dict[str, Any]) -> Coding:
    """Of what `coding_as_dict` gave, perhaps read back from JSON."""
    parts = {name: _tuples(value) for name, value in told.items() if name != "coding"}
    if parts.get("tenths") is not None:
        parts["tenths"] = Tenths(**parts["tenths"])
    return _CODINGS[told["coding"]](**parts)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, (list, tuple)) else value
