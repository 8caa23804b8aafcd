"""Users' columns of labels, groups, splits and ids as numbers with names, and the checks of them.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evenhand.tasks.own.parts import Part
from evenhand.validation import UserError, count

MOST_CLASSES = 1_000
MOST_GROUP_VALUES = 100
_FEW_ROWS = 20  # of so few, each may well have a label of its own

compute: Any = pc  # its functions are made at run time


@dataclass(frozen=True)
class Cells:
    """A column as places in the list of its values, shape (N,); −1 where a cell is empty."""

    values: list[str]
    code_N: NDArray[np.int64]
    named: bool = False

    def among(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The same cells as places in another list; −1 where it has no such name."""
        places = {name: i for i, name in enumerate(names)}
        table = np.array([*(places.get(value, -1) for value in self.values), -1], dtype=np.int64)
        return table[self.code_N]

    def row_of(self, value: str) -> int:
        """The first row with a value, counted from 1."""
        return int(np.argmax(self.code_N == self.values.index(value))) + 1


def cells(part: Part, column: str) -> Cells:
    """Read a column of texts, whole numbers or booleans; space around texts doesn't count.

    Raises:
        UserError: If it holds something else.
    """
    feature: Any = part.rows.features[column]
    array = part.column(column)
    array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(feature, datasets.ClassLabel):
        return Cells(list(feature.names), compute.fill_null(array, -1).to_numpy().astype(np.int64), named=True)
    if pa.types.is_floating(array.type):
        array = _whole_numbers(part, column, array)
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        array = compute.utf8_trim_whitespace(array)
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise UserError(
            f"The column '{column}' of {part.where} holds {kind}, but texts, whole numbers or booleans are needed "
            "there."
        )
    else:
        array = array.cast(pa.string())
    encoded = compute.dictionary_encode(array)
    values = [str(value) for value in encoded.dictionary.to_pylist()]
    code_N = compute.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    if "" in values:
        code_N = np.where(code_N == values.index(""), -1, code_N)
    return Cells(values, code_N)


def _whole_numbers(part: Part, column: str, array: Any) -> Any:
    array = compute.if_else(compute.is_nan(array), None, array)  # how pandas writes a missing number
    broken = compute.fill_null(compute.not_equal(compute.round(array), array), False)
    row = compute.index(broken, True).as_py()
    if row >= 0:
        raise UserError(
            f"Row {row + 1} of {part.where} holds the fraction {array[row].as_py():g} in '{column}', which is no class."
        )
    return array.cast(pa.int64())


# ---- labels ---------------------------------------------------------------------------------------------------------


def class_names(parts: Sequence[Part], column: str, found: Sequence[Cells]) -> list[str]:
    """Names of the classes over all parts: in the order that the data give, numbers by size, texts sorted.

    Raises:
        UserError: If labels are of several kinds, or too many or too few to be classes.
    """
    if all(cells.named for cells in found) and len({tuple(cells.values) for cells in found}) == 1:
        return found[0].values
    used: dict[str, int] = {}
    for part, column_cells in zip(parts, found, strict=True):
        if not part.typed:
            _check_one_kind(part, column, column_cells)
        for code, number in zip(*np.unique(column_cells.code_N, return_counts=True), strict=True):
            if code >= 0:
                name = column_cells.values[code]
                used[name] = used.get(name, 0) + int(number)
    where = parts[0].where
    rows = sum(used.values())
    if len(used) > MOST_CLASSES or (rows > _FEW_ROWS and len(used) > rows / 2):
        raise UserError(
            f"The column '{column}' of {where} has {len(used):,} different values in {rows:,} rows, so it holds no "
            "classes: give the column of labels with --label."
        )
    if len(used) == 1:
        raise UserError(
            f"The column '{column}' of {where} has one class only ('{next(iter(used))}'), so there is nothing to learn."
        )
    return sorted_names(used)


def sorted_names(names: Any) -> list[str]:
    """Whole numbers by size, texts by their letters."""
    found = list(names)
    return sorted(found, key=int) if all(map(_is_whole, found)) else sorted(found)


def _is_whole(text: str) -> bool:
    """Whether it is a whole number as one writes it: 007 is a text."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0")


def _check_one_kind(part: Part, column: str, found: Cells) -> None:
    used = [found.values[i] for i in np.unique(found.code_N) if i >= 0]
    numbers = [value for value in used if _is_whole(value)]
    words = [value for value in used if not _is_number(value)]
    if numbers and words:
        raise UserError(
            f"The column '{column}' of {part.where} mixes numbers ('{numbers[0]}', row {found.row_of(numbers[0])}) and "
            f"words ('{words[0]}', row {found.row_of(words[0])}): labels must be of one kind."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def unlabelled(part: Part, column: str, found: Cells, drop: bool) -> NDArray[np.bool_]:
    """Which rows have no label, shape (N,): an empty one, or −1 beside other numbers.

    Raises:
        UserError: If there are some in the user's own table and they aren't to be dropped.
    """
    missing_N = found.code_N < 0
    others = [found.values[i] for i in np.unique(found.code_N) if i >= 0 and found.values[i] != "-1"]
    has_minus = not found.named and "-1" in found.values and all(map(_is_whole, others))
    has_minus = has_minus and (bool(others) or part.is_hub)
    minus_N = found.code_N == found.values.index("-1") if has_minus else np.zeros(len(missing_N), dtype=bool)
    if drop or part.is_hub:
        return missing_N | minus_N
    if missing_N.any():
        raise UserError(
            f"Row {int(np.argmax(missing_N)) + 1} of {part.where} has no label in '{column}' "
            f"({int(missing_N.sum()):,} in all): fill them in, or leave them out with --drop-incomplete."
        )
    if minus_N.any():
        raise UserError(
            f"The column '{column}' of {part.where} holds −1 beside other numbers "
            f"({count(int(minus_N.sum()), 'row')}, the first is row {int(np.argmax(minus_N)) + 1}), which often means "
            "'no label': leave them out with --drop-incomplete, or name the classes by words."
        )
    return minus_N


# ---- texts, ids, splits ---------------------------------------------------------------------------------------------


def empty_texts(part: Part, columns: Sequence[str], drop: bool) -> NDArray[np.bool_]:
    """Which rows have an empty text, shape (N,).

    Raises:
        UserError: If there are some and they aren't to be dropped.
    """
    empty_N = np.zeros(len(part.rows), dtype=bool)
    for column in columns:
        blank = [
            compute.fill_null(compute.equal(compute.utf8_trim_whitespace(chunk), ""), True)
            for chunk in part.column(column).chunks  # one by one, since each is copied
        ]
        empty_N |= np.concatenate([np.zeros(0, bool), *(found.to_numpy(zero_copy_only=False) for found in blank)])
        if empty_N.any() and not drop:
            raise UserError(
                f"Row {int(np.argmax(empty_N)) + 1} of {part.where} has an empty text in '{column}' "
                f"({int(empty_N.sum()):,} in all): fill them in, or leave them out with --drop-incomplete."
            )
    return empty_N


def check_ids(part: Part, column: str) -> None:
    """Every row has an id of its own."""
    array = part.column(column)
    counted = compute.value_counts(array)
    counts = counted.field("counts").to_numpy(zero_copy_only=False)
    if len(counts) and counts.max() > 1:
        value = counted.field("values")[int(np.argmax(counts > 1))]
        wanted: Any = compute.equal(array, value) if value.is_valid else compute.is_null(array)
        rows = np.flatnonzero(wanted.to_numpy())
        name = f"the id '{value.as_py()}'" if value.is_valid else "no id"
        raise UserError(
            f"Rows {rows[0] + 1} and {rows[1] + 1} of {part.where} both have {name} in '{column}' "
            f"({count(int((counts > 1).sum()), 'id')} more than once): ids must be different."
        )


SPLITS = ("train", "validation", "test")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
_NUMBERED = {"0": "train", "1": "validation", "2": "test"}  # as in the metadata of common benchmarks


def split_named(name: str) -> str | None:
    """`train`, `validation` or `test`, under the names that are usual for them."""
    return _SPLITS.get(name.strip().lower())


def splits_of(part: Part, column: str) -> NDArray[np.int8]:
    """Each row's split by a column, as its place in `SPLITS`, shape (N,).

    Raises:
        UserError: If a cell names none.
    """
    found = cells(part, column)
    if (found.code_N < 0).any():
        row = int(np.argmax(found.code_N < 0)) + 1
        raise UserError(f"Row {row} of {part.where} has no split in '{column}': train, validation or test.")
    names = [split_named(value) or _NUMBERED.get(value) for value in found.values]
    for value, name in zip(found.values, names, strict=True):
        if name is None and (found.code_N == found.values.index(value)).any():
            raise UserError(
                f"Row {found.row_of(value)} of {part.where} has the split '{value}' in '{column}', which is none of "
                "train, validation, test (or 0, 1, 2)."
            )
    return np.array([SPLITS.index(name or "train") for name in names], dtype=np.int8)[found.code_N]


# ---- groups ---------------------------------------------------------------------------------------------------------


def group_names(parts: Sequence[Part], column: str, found: Sequence[Cells]) -> list[str]:
    """The values of a group column over all parts, sorted.

    Raises:
        UserError: If there are too many.
    """
    used = {cells.values[i] for cells in found for i in np.unique(cells.code_N) if i >= 0}
    if len(used) > MOST_GROUP_VALUES:
        raise UserError(
            f"The column '{column}' of {parts[0].where} has {len(used):,} different values, which are too many groups "
            f"(at most {MOST_GROUP_VALUES}): give a column of few values with --group."
        )
    if not used:
        raise UserError(f"The column '{column}' of {parts[0].where}, given as --group, is empty.")
    return sorted_names(used)
