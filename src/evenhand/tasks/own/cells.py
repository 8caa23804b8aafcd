"""Cells of labels, groups and splits as places in a list of values: one value however it is written.

Legend: N rows.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evenhand.tasks.own.parts import Part
from evenhand.validation import UserError, count, named

compute: Any = pc  # its functions are made at run time

_POINTED = re.compile(r"-?(0|[1-9]\d*)\.\d*([eE][+-]?\d\d?)?", re.ASCII)
_BOOLEANS = ("true", "false")
_SHOWN = 5


@dataclass(frozen=True)
class Cells:
    """A column as places in the list of its values, shape (N,); −1 where a cell is empty.

    Attributes:
        values: The values, each once.
        code_N: The place of each row's value.
        named: Whether the data give the names of all values, in their order.
        numeric: Whether the column holds numbers that may be fractions.
        written: Each value → the ways in which texts write it → their rows.
    """

    values: list[str]
    code_N: NDArray[np.int64]
    named: bool = False
    numeric: bool = False
    written: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def used(self) -> dict[str, int]:
        """The values that a row has, and how many have each."""
        codes, rows = np.unique(self.code_N[self.code_N >= 0], return_counts=True)
        return {self.values[code]: int(n) for code, n in zip(codes, rows, strict=True)}

    def among(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The same cells as places in another list; −1 where it has no such name."""
        places = {same_value(name): i for i, name in reversed(list(enumerate(names)))}
        exact = {name: i for i, name in enumerate(names)}
        found = [exact.get(value, places.get(same_value(value), -1)) for value in self.values]
        return np.array([*found, -1], dtype=np.int64)[self.code_N]

    def row_of(self, value: str) -> int:
        """The first row with a value, counted from 1."""
        return int(np.argmax(self.code_N == self.values.index(value))) + 1


def cells(part: Part, column: str) -> Cells:
    """Read a column of texts, numbers or booleans; space around texts doesn't count.

    Raises:
        UserError: If it holds something else.
    """
    feature: Any = part.rows.features[column]
    array = part.column(column)
    kind = array.type
    array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], kind)
    if isinstance(feature, datasets.ClassLabel):
        return _named(part, column, list(feature.names), compute.fill_null(array, -1).to_numpy().astype(np.int64))
    numeric = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (numeric or is_text or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise UserError(
            f"The column '{column}' of {part.where} holds {kind}, but texts, whole numbers or booleans are needed "
            "there."
        )
    encoded = compute.dictionary_encode(array)
    place_N = compute.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    written = encoded.dictionary.to_pylist()
    texts = [cell_text(value) for value in written]
    if not part.typed and all(text is None or is_number(text) or _is_nan(text) for text in texts):
        texts = [None if text is None or _is_nan(text) else text for text in texts]
    codes: dict[str | None, int] = {None: -1}
    for text in texts:
        codes.setdefault(text, len(codes) - 1)
    code_of = np.array([*(codes[text] for text in texts), -1], dtype=np.int64)
    ways: dict[str, Counter[str]] = {}
    if is_text:
        for way, text, rows in zip(written, texts, np.bincount(place_N + 1, minlength=len(texts) + 1)[1:], strict=True):
            if text is not None:
                ways.setdefault(text, Counter())[way] = int(rows)
    values = [text for text in codes if text is not None]
    return Cells(values, code_of[place_N], numeric=numeric, written=ways)


def _named(part: Part, column: str, names: list[str], code_N: NDArray[np.int64]) -> Cells:
    if (code_N >= len(names)).any():
        row = int(np.argmax(code_N >= len(names)))
        raise UserError(
            f"Row {row + 1} of {part.where} has the class number {code_N[row]} in '{column}', but only "
            f"{len(names)} classes are named there."
        )
    return Cells(names, np.maximum(code_N, -1), named=True)


def cell_text(value: Any) -> str | None:
    """The text that stands for a value: 0, 0.0 and "0.0" are one, "007" is another; None for NaN and blanks."""
    if isinstance(value, bool):
        return _BOOLEANS[not value]
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return None
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
    text = "" if value is None else str(value).strip()
    if text == "-0" or (_POINTED.fullmatch(text) and Decimal(text) == int(Decimal(text))):
        return str(int(Decimal(text)))
    return text or None


def same_value(text: str) -> str:
    """What two spellings have in common that files of different kinds have for one value, such as True and true."""
    return text.lower() if text.lower() in _BOOLEANS else cell_text(text) or text


def is_whole(text: str) -> bool:
    """Whether it is a whole number as one writes it: 007 is a text."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0") and len(digits) < 400


def is_number(text: str) -> bool:
    """Whether it is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_nan(text: str) -> bool:
    return text.lower() == "nan"


def sorted_names(names: Iterable[str]) -> list[str]:
    """Whole numbers by size, texts by their letters."""
    found = list(names)
    return sorted(found, key=int) if all(map(is_whole, found)) else sorted(found)


def joined(found: Sequence[Cells]) -> dict[str, int]:
    """The values of one column over all parts, and how many rows have each."""
    rows: Counter[str] = Counter()
    for of_part in found:
        before = {same_value(name): name for name in rows}
        for value, number in of_part.used.items():
            rows[value if value in rows else before.get(same_value(value), value)] += number
    return dict(rows)


# ---- spellings ------------------------------------------------------------------------------------------------------


def spelling_notes(column: str, found: Sequence[Cells]) -> list[str]:
    """A note of values that are written in several ways, and one of values that differ in their writing alone."""
    ways: dict[str, Counter[str]] = {}
    alike: dict[str, Counter[str]] = {}
    for of_part in found:
        for value, written in of_part.written.items():
            ways.setdefault(value, Counter()).update(written)
    for value, rows in joined(found).items():
        alike.setdefault(_form(value), Counter())[value] = rows
    one = [_shown(written) for written in ways.values() if len(written) > 1]
    apart = [_shown(values) for values in alike.values() if len(values) > 1]
    notes = [f"In '{column}', these count as one: {named(one, _SHOWN)}."] if one else []
    if apart:
        notes.append(
            f"In '{column}', these differ only by case, blanks or how a letter is stored, but count as different: "
            f"{named(apart, _SHOWN)}."
        )
    return notes


def _form(text: str) -> str:
    """What is left of a text without case, blanks, signs that aren't seen and forms of letters."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(sign for sign in plain if not sign.isspace() and unicodedata.category(sign) != "Cf")


def _shown(rows: Counter[str]) -> str:
    """Spellings with their rows; those that look alike as the codes of their letters."""
    looks = {unicodedata.normalize("NFC", text) for text in rows}
    show = repr if len(looks) == len(rows) else ascii
    return ", ".join(f"{show(text)} ({count(number, 'row')})" for text, number in rows.most_common(_SHOWN))
