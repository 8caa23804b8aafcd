"""From users' parts to one set of rows with labels, groups and splits, as tasks have them.

Legend: N rows of all parts, one part after the other, K columns of groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.columns import Column, class_column, dataset_of
from evenhand.tasks.own.columns import (
    SPLITS,
    Cells,
    cells,
    check_ids,
    class_names,
    empty_texts,
    group_names,
    splits_of,
    unlabelled,
)
from evenhand.tasks.own.parts import Columns, Part, Place
from evenhand.tasks.own.pictures import check_colours, check_pictures
from evenhand.validation import UserError, count, did_you_mean

SHARES = {"test": 0.2, "validation": 0.1}
"""What is taken from the training rows where a split isn't given."""


@dataclass(frozen=True)
class Labelled:
    """All rows with what is known of them.

    Attributes:
        inputs: `text` and perhaps `text_pair`, or `image`; and `id`.
        names: Name of each class.
        label_N: Class of each row, −1 for rows that are left out.
        groups: Column → (its values, each row's place among them or −1).
        split_N: The split that a file or column says, as its place in `SPLITS`; −1 where none does.
        notes: What a reader of the result must know.
    """

    inputs: datasets.Dataset
    names: list[str]
    label_N: NDArray[np.int64]
    groups: dict[str, tuple[list[str], NDArray[np.int64]]]
    split_N: NDArray[np.int8]
    notes: tuple[str, ...]

    @property
    def kept(self) -> NDArray[np.int64]:
        """The rows that count."""
        return np.flatnonzero(self.label_N >= 0)


def labelled(places: Sequence[Place], columns: Columns, drop: bool, names: Sequence[str] | None = None) -> Labelled:
    """Read labels, groups, splits and ids of all parts, and check them.

    Args:
        places: What was read; their parts are joined.
        columns: The columns that the user names.
        drop: Whether rows without a label or text are left out.
        names: The classes of a model, which all labels must be among; those of the data if None.

    Raises:
        UserError: One sentence for the first thing that is wrong.
    """
    parts = [part for place in places for part in place.parts]
    label = places[0].label
    found: list[Cells] = []
    notes = [note for place in places for note in place.notes]
    for part in parts:
        labels = cells(part, label)
        missing_N = unlabelled(part, label, labels, drop)
        empty_N = empty_texts(part, columns.text, drop) & ~missing_N
        for number, what in ((missing_N.sum(), "label"), (empty_N.sum(), "text")):
            if number:
                notes.append(f"{count(number, 'row')} of {part.where} without a {what} left out.")
        if columns.id is not None:
            check_ids(part, columns.id)
        if not columns.text:
            colour_N = check_pictures(part, _image(part, columns))
            notes += check_colours(part.where, colour_N, _splits(part, columns), ~missing_N)
        found.append(Cells(labels.values, np.where(missing_N | empty_N, -1, labels.code_N), labels.named))
    if not any((cells.code_N >= 0).any() for cells in found):
        raise UserError(f"No row of {parts[0].where} has a label in '{label}'.")
    if names is None:
        names = class_names(parts, label, found)
    else:
        _check_known(parts, label, found, names)
    return Labelled(
        inputs=datasets.concatenate_datasets(
            [_inputs(part, columns, file) for part, file in zip(parts, _files(parts), strict=True)]
        ),
        names=list(names),
        label_N=np.concatenate([cells.among(names) for cells in found]),
        groups={column: _group(parts, column) for column in columns.group},
        split_N=np.concatenate([_splits(part, columns) for part in parts]),
        notes=tuple(notes),
    )


def _check_known(parts: Sequence[Part], label: str, found: Sequence[Cells], names: Sequence[str]) -> None:
    for part, labels in zip(parts, found, strict=True):
        for code in np.unique(labels.code_N):
            if code >= 0 and labels.values[code] not in names:
                value = labels.values[code]
                raise UserError(
                    f"Row {labels.row_of(value)} of {part.where} has the label '{value}' in '{label}', which is no "
                    f"class of the model{did_you_mean(value, names)}; its classes are {', '.join(names)}."
                )


def _inputs(part: Part, columns: Columns, file: str | None) -> datasets.Dataset:
    if columns.text:
        taken = dict(zip(columns.text, ("text", "text_pair"), strict=False))
    else:
        taken = {_image(part, columns): "image"}
    rows = part.rows.select_columns(list(taken))
    # by way of names that no column has: a pair may be called (text_pair, text)
    for rename in ({old: f"{new} of own" for old, new in taken.items()}, {f"{n} of own": n for n in taken.values()}):
        rows = rows.rename_columns(rename)
    table = pa.table({"id": _ids(part, columns, file)})
    return datasets.concatenate_datasets([rows, datasets.Dataset(table)], axis=1)


def _image(part: Part, columns: Columns) -> str:
    """The column of pictures; of a folder with metadata it is called `image`."""
    return columns.image if columns.image in part.rows.column_names else "image"


def _ids(part: Part, columns: Columns, file: str | None) -> Any:
    """The rows' own names: the user's, those of pictures' files, or each row's number in its file as errors count it.

    Rows of several files are named FILE:ROW.
    """
    is_listed = not columns.text and "id" in part.rows.column_names  # files of a folder, whose names are their ids
    own = columns.id if columns.id is not None else ("id" if is_listed else None)
    if own is not None:
        return part.column(own).cast(pa.string())
    row_N = np.arange(1, len(part.rows) + 1)
    return pa.array(row_N) if file is None else pa.array([f"{file}:{row}" for row in row_N], pa.string())


def _files(parts: Sequence[Part]) -> list[str | None]:
    """What tells the parts apart in their rows' ids; None where there is only one."""
    if len(parts) == 1:
        return [None]
    names = [part.split if part.is_hub else part.where.strip("'") for part in parts]
    return names if len(set(names)) == len(names) else [part.split or "data" for part in parts]


def _group(parts: Sequence[Part], column: str) -> tuple[list[str], NDArray[np.int64]]:
    found = [cells(part, column) for part in parts]
    values = group_names(parts, column, found)
    return values, np.concatenate([cells.among(values) for cells in found])


def _splits(part: Part, columns: Columns) -> NDArray[np.int8]:
    if columns.split is not None and part.split is None:
        return splits_of(part, columns.split)
    return np.full(len(part.rows), -1 if part.split is None else SPLITS.index(part.split), dtype=np.int8)


# ---- splits ---------------------------------------------------------------------------------------------------------


def split_rows(data: Labelled, seed: int) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """The rows of train, validation and test, and a note for each split that was taken from the training rows.

    Raises:
        UserError: If a class has too few rows to take splits from.
    """
    split_N = data.split_N[data.kept]
    rows = {name: data.kept[split_N == SPLITS.index(name)] for name in ("validation", "test")}
    train = data.kept[(split_N == SPLITS.index("train")) | (split_N < 0)]
    needed = [name for name in ("test", "validation") if not len(rows[name])]
    notes = []
    if needed:
        _check_enough(data, train, len(needed))
    total = len(train)
    rng = np.random.default_rng([seed, 0])
    left = train
    for name in needed:
        share = SHARES[name] * total / len(left)
        rows[name] = _taken(data, left, share, rng)
        left = np.setdiff1d(left, rows[name])
        notes.append(
            f"No {name} split was given: {count(len(rows[name]), 'row')}, {100 * SHARES[name]:.0f} % of those to train "
            "on, were drawn for it by the data's seed, class by class."
        )
    return {"train": left, "validation": rows["validation"], "test": rows["test"]}, notes


def _check_enough(data: Labelled, train: NDArray[np.int64], needed: int) -> None:
    count_C = np.bincount(data.label_N[train], minlength=len(data.names))
    few = [c for c in np.flatnonzero(count_C) if count_C[c] <= needed]
    if few:
        raise UserError(
            f"The class '{data.names[few[0]]}' has {count(count_C[few[0]], 'training row')}, too few to take splits "
            "from: add some, or give splits of your own with --split, --validation-data and --test-data."
        )


def _taken(data: Labelled, rows: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """A share of each class, at least one row; evenly over the groups within it."""
    shuffled = rng.permutation(rows)
    keys = [code_N[shuffled] for _, code_N in reversed(data.groups.values())]
    ordered = shuffled[np.lexsort([*keys, data.label_N[shuffled]])]  # by class, then by group, else at random
    chosen = []
    for label in np.unique(data.label_N[rows]):
        own = ordered[data.label_N[ordered] == label]
        size = max(1, round(share * len(own)))
        places = ((np.arange(size) + rng.random()) * len(own) / size).astype(np.int64)
        chosen.append(own[places])
    return np.sort(np.concatenate(chosen))


# ---- the columns of a task ------------------------------------------------------------------------------------------


def task_rows(data: Labelled, splits: dict[str, NDArray[np.int64]]) -> dict[str, datasets.Dataset]:
    """Each split with the columns that tasks have."""
    index_N = np.zeros(len(data.label_N), dtype=np.int64)
    for rows in splits.values():
        index_N[rows] = np.arange(len(rows))
    columns: dict[str, Column] = {
        "labels": class_column(data.label_N, data.names),
        "index": (datasets.Value("int64"), pa.array(index_N)),
        **_group_columns(data),
    }
    whole = datasets.concatenate_datasets([data.inputs, dataset_of(columns)], axis=1)
    return {name: whole.select(rows) for name, rows in splits.items()}


def _group_columns(data: Labelled) -> dict[str, Column]:
    """`group`: class × value of the only column, or those of each of several columns; `attribute` of an only one."""
    if not data.groups:
        return {}
    many = len(data.groups) > 1
    names: list[str] = []
    codes = []
    for column, (values, value_N) in data.groups.items():
        known_N = (value_N >= 0) & (data.label_N >= 0)
        cell_N = np.where(known_N, data.label_N * len(values) + value_N, -1)
        present = [int(cell) for cell in np.unique(cell_N) if cell >= 0]
        table = np.full(len(data.names) * len(values) + 1, -1, dtype=np.int64)
        table[present] = np.arange(len(present)) + len(names)
        codes.append(table[cell_N])  # −1 takes the last entry, which is −1
        for label, value in (divmod(cell, len(values)) for cell in present):
            names.append(f"{data.names[label]}, {f'{column}={values[value]}' if many else values[value]}")
    if many:
        code_NK = np.stack(codes, axis=1)
        known_NK = code_NK >= 0
        starts = np.concatenate([[0], np.cumsum(known_NK.sum(1))]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(starts), pa.array(code_NK[known_NK]))
        return {"group": (datasets.List(datasets.ClassLabel(names=names)), lists)}
    columns = {"group": class_column(codes[0], names)}
    values, value_N = next(iter(data.groups.values()))
    if (value_N[data.kept] >= 0).all():
        columns["attribute"] = class_column(value_N, values)
    return columns
