"""Users' columns of labels, groups, splits and ids as numbers with names, and the checks of them.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.tasks.own.cells import Cells, cells, compute, is_number, is_whole, joined, sorted_names
from evenhand.tasks.own.parts import Part, is_nested
from evenhand.validation import UserError, count

MOST_CLASSES = 1_000
MOST_GROUP_VALUES = 100
_FEW_ROWS = 20  # of so few, each may well have a label of its own

# ---- labels ---------------------------------------------------------------------------------------------------------


def class_names(parts: Sequence[Part], column: str, found: Sequence[Cells]) -> list[str]:
    """Names of the classes over all parts: in the order that the data give, numbers by size, texts sorted.

    Raises:
        UserError: If labels are of several kinds, or too many or too few to be classes.
    """
    if all(cells.named for cells in found) and len({tuple(cells.values) for cells in found}) == 1:
        return found[0].values
    for part, of_part in zip(parts, found, strict=True):
        _check_kind(part, column, of_part)
    used = joined(found)
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


def _check_kind(part: Part, column: str, found: Cells) -> None:
    used = list(found.used)
    numbers = [value for value in used if is_whole(value)]
    words = [value for value in used if not is_number(value)]
    if numbers and words and not part.typed:
        raise UserError(
            f"The column '{column}' of {part.where} mixes numbers ('{numbers[0]}', row {found.row_of(numbers[0])}) and "
            f"words ('{words[0]}', row {found.row_of(words[0])}): labels must be of one kind."
        )
    broken = [value for value in used if found.numeric and not is_whole(value)]
    if not part.typed and not words:
        broken = [value for value in used if is_number(value) and not float(value).is_integer()]
    if broken:
        row = min(map(found.row_of, broken))
        value = found.values[found.code_N[row - 1]]
        what = f"the fraction {float(value):g}" if is_number(value) else value
        raise UserError(f"Row {row} of {part.where} holds {what} in '{column}', which is no class.")


def unlabelled(part: Part, column: str, found: Cells, drop: bool, known: Collection[str]) -> NDArray[np.bool_]:
    """Which rows have no label, shape (N,): an empty one, or −1 beside other numbers.

    Args:
        part: The rows.
        column: Their column of labels.
        found: What it holds.
        drop: Whether such rows are to be left out.
        known: All labels of the data, and the classes of a model.

    Raises:
        UserError: If there are some in the user's own table and they aren't to be dropped.
    """
    missing_N = found.code_N < 0
    others = [value for value in known if value != "-1"]
    has_minus = not found.named and "-1" in found.values and all(map(is_whole, others))
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
    if is_nested(array.type):
        raise UserError(f"The column '{column}' of {part.where} holds {array.type}, which can't name rows.")
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
    used = joined(found)
    if len(used) > MOST_GROUP_VALUES:
        raise UserError(
            f"The column '{column}' of {parts[0].where} has {len(used):,} different values, which are too many groups "
            f"(at most {MOST_GROUP_VALUES}): give a column of few values with --group."
        )
    if not used:
        raise UserError(f"The column '{column}' of {parts[0].where}, given as --group, is empty.")
    return sorted_names(used)
