"""From users' parts to one set of rows with labels, groups and splits, as tasks have them.

Legend: N rows of all parts, one part after the other, K columns of groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.columns import Column, class_column, dataset_of
from evenhand.data.encodings import UTF8, encoding_name
from evenhand.tasks.own.cells import Cells, cells, spelling_notes
from evenhand.tasks.own.columns import (
    SPLITS,
    check_ids,
    class_names,
    empty_texts,
    group_names,
    splits_of,
    unlabelled,
)
from evenhand.tasks.own.copies import content_numbers, copy_notes
from evenhand.tasks.own.parts import Columns, Part, Place
from evenhand.tasks.own.pictures import check_colours, check_pictures
from evenhand.validation import UserError, count, did_you_mean, named

SHARES = {"test": 0.2, "validation": 0.1}
"""What is taken from the training rows where a split isn't given."""

_SHOWN = 10
_CONTENTS = {"text_pair": "pair", "text": "text", "image": "picture"}


@dataclass(frozen=True)
class Labelled:
    """All rows with what is known of them.

    Attributes:
        inputs: `text` and perhaps `text_pair`, or `image`; and `id`.
        names: Name of each class.
        label_N: Class of each row, −1 for rows that are left out.
        groups: Column → (its values, each row's place among them or −1).
        split_N: The split that a file or column says, as its place in `SPLITS`; −1 where none does.
        content_N: The number of each row's content, equal for copies.
        parts: Where the rows come from, one part after the other.
        is_named: Whether the data themselves name the classes.
        notes: What a reader of the result must know.
    """

    inputs: datasets.Dataset
    names: list[str]
    label_N: NDArray[np.int64]
    groups: dict[str, tuple[list[str], NDArray[np.int64]]]
    split_N: NDArray[np.int8]
    content_N: NDArray[np.int64]
    parts: tuple[Part, ...]
    is_named: bool
    notes: tuple[str, ...]

    @property
    def kept(self) -> NDArray[np.int64]:
        """The rows that count."""
        return np.flatnonzero(self.label_N >= 0)

    @property
    def what(self) -> str:
        """What a row's content is."""
        return next(w for c, w in _CONTENTS.items() if c in self.inputs.column_names)

    def place(self, row: int) -> str:
        """Where a row is, as the beginning of a sentence."""
        for part in self.parts:
            if row < len(part.rows):
                return f"Row {row + 1} of {part.where}"
            row -= len(part.rows)
        raise IndexError(row)


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
    read = [cells(part, label) for part in parts]
    known = {*(names or ()), *(value for of_part in read for value in of_part.used)}
    found: list[Cells] = []
    notes = [note for place in places for note in place.notes] + _encoding_notes(parts, columns.encoding)
    for part, labels in zip(parts, read, strict=True):
        missing_N = unlabelled(part, label, labels, drop, known)
        empty_N = empty_texts(part, columns.text, drop) & ~missing_N
        for number, what in ((missing_N.sum(), "label"), (empty_N.sum(), "text")):
            if number:
                notes.append(f"{count(number, 'row')} of {part.where} without a {what} left out.")
        if columns.id is not None:
            check_ids(part, columns.id)
        if not columns.text:
            colour_N = check_pictures(part, _image(part, columns))
            notes += check_colours(part.where, colour_N, _splits(part, columns), ~missing_N)
        found.append(replace(labels, code_N=np.where(missing_N | empty_N, -1, labels.code_N)))
    if not any((cells.code_N >= 0).any() for cells in found):
        raise UserError(f"No row of {parts[0].where} has a label in '{label}'.")
    if names is None:
        names = class_names(parts, label, found)
    else:
        _check_known(parts, label, found, names)
    of_group = {column: [cells(part, column) for part in parts] for column in columns.group}
    inputs = datasets.concatenate_datasets(
        [_inputs(part, columns, file) for part, file in zip(parts, _files(parts), strict=True)]
    )
    label_N = np.concatenate([cells.among(names) for cells in found])
    return Labelled(
        inputs=inputs,
        names=list(names),
        label_N=label_N,
        groups={column: _group(parts, column, read) for column, read in of_group.items()},
        split_N=np.concatenate([_splits(part, columns) for part in parts]),
        content_N=content_numbers(inputs, np.flatnonzero(label_N >= 0)),
        parts=tuple(parts),
        is_named=all(cells.named for cells in found),
        notes=(*notes, *(n for c, read in {label: found, **of_group}.items() for n in spelling_notes(c, read))),
    )


def _encoding_notes(parts: Sequence[Part], given: str | None) -> list[str]:
    """How files are encoded that aren't plain UTF-8, or whose encoding the user named."""
    read = {part.where: part.encoding for part in parts if part.encoding is not None}
    if given is not None:
        return [f"{where} was read as {encoding_name(given)}, as --encoding says." for where in read]
    return [
        f"{where} is not UTF-8 and was read as {encoding_name(encoding)}; --encoding names another."
        for where, encoding in read.items()
        if encoding != UTF8
    ]


def _check_known(parts: Sequence[Part], label: str, found: Sequence[Cells], names: Sequence[str]) -> None:
    for part, labels in zip(parts, found, strict=True):
        unknown_N = (labels.among(names) < 0) & (labels.code_N >= 0)
        if unknown_N.any():
            value = labels.values[labels.code_N[np.argmax(unknown_N)]]
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


def _group(parts: Sequence[Part], column: str, found: Sequence[Cells]) -> tuple[list[str], NDArray[np.int64]]:
    values = group_names(parts, column, found)
    return values, np.concatenate([cells.among(values) for cells in found])


def _splits(part: Part, columns: Columns) -> NDArray[np.int8]:
    if columns.split is not None and part.split is None:
        return splits_of(part, columns.split)
    return np.full(len(part.rows), -1 if part.split is None else SPLITS.index(part.split), dtype=np.int8)


# ---- splits ---------------------------------------------------------------------------------------------------------


def split_rows(data: Labelled, seed: int) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """The rows of train, validation and test, and a note for each split that was taken from the training rows.

    Copies of a row are drawn together, so that no split drawn here has a row of another one; but for a class of which
    there are too few different rows for that.

    Raises:
        UserError: If a class has too few rows to take splits from, or none to train on.
    """
    split_N = data.split_N[data.kept]
    rows = {name: data.kept[split_N == SPLITS.index(name)] for name in ("validation", "test")}
    train = data.kept[(split_N == SPLITS.index("train")) | (split_N < 0)]
    _check_trained(data, train)
    needed = [name for name in ("test", "validation") if not len(rows[name])]
    given = data
    data, notes = _scarce_apart(data, train, len(needed))
    stratum_N = _strata(data, train)
    left = np.flatnonzero(stratum_N >= 0)
    _check_enough(data, train, train, len(needed))
    total = len(left)
    pool, together = train, "" if total == len(train) else ", copies together"
    rng = np.random.default_rng([seed, 0])
    for name in needed:
        drawn = _taken(data, left, stratum_N, SHARES[name] * total / len(left), rng)
        left = np.setdiff1d(left, drawn)
        is_drawn_N = np.isin(data.content_N[train], data.content_N[drawn])
        rows[name], train = train[is_drawn_N], train[~is_drawn_N]
        notes.append(
            f"No {name} split was given: {count(len(rows[name]), 'row')}, {100 * SHARES[name]:.0f} % of those to train "
            f"on, were drawn for it by the data's seed, class by class{together}."
        )
    _check_enough(data, pool, train, len(needed))
    splits = {"train": train, "validation": rows["validation"], "test": rows["test"]}
    return splits, [*notes, *copy_notes(given.content_N, data.label_N, splits, data.what)]


def _scarce_apart(data: Labelled, train: NDArray[np.int64], needed: int) -> tuple[Labelled, list[str]]:
    """Rows of a class that has no more different ones than splits are drawn count as different, which is noted."""
    content_N, notes = data.content_N.copy(), []
    for c in range(len(data.names)):
        rows = train[data.label_N[train] == c]
        different = len(np.unique(data.content_N[rows]))
        if different <= needed < len(rows):
            content_N[rows] = content_N.max() + 1 + np.arange(len(rows))
            notes.append(
                f"The class '{data.names[c]}' has {count(len(rows), 'training row')} with only "
                f"{count(different, f'different {data.what}')}, so copies of a row fall on both sides of the splits "
                "drawn: accuracy there tells what was remembered."
            )
    return replace(data, content_N=content_N), notes


def _check_trained(data: Labelled, train: NDArray[np.int64]) -> None:
    """Every class of the data has rows to train on, unless the data name classes that no row has."""
    if not len(train):
        raise UserError(f"No row of {data.parts[0].where} is to train on: all are for validation or test.")
    count_C = np.bincount(data.label_N[train], minlength=len(data.names))
    unknown = data.kept[count_C[data.label_N[data.kept]] == 0]
    if len(unknown) and not data.is_named:
        name, known = data.names[data.label_N[unknown[0]]], [data.names[c] for c in np.flatnonzero(count_C)]
        raise UserError(
            f"{data.place(int(unknown[0]))} has the label '{name}', which no row to train on has"
            f"{did_you_mean(name, known)}; the labels there are {named(known, _SHOWN)}."
        )


def _strata(data: Labelled, train: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class for which each different row is drawn, shape (N,): its rarest label; −1 for further copies of it."""
    _, first, place = np.unique(data.content_N[train], return_index=True, return_inverse=True)
    rank_C = np.argsort(np.argsort(np.bincount(data.label_N[train], minlength=len(data.names)), kind="stable"))
    rarest = np.full(len(first), len(data.names))
    np.minimum.at(rarest, place, rank_C[data.label_N[train]])
    stratum_N = np.full(len(data.label_N), -1, dtype=np.int64)
    stratum_N[train[first]] = np.argsort(rank_C)[rarest]
    return stratum_N


def _check_enough(data: Labelled, train: NDArray[np.int64], left: NDArray[np.int64], needed: int) -> None:
    """Each class of the training rows has more different rows than splits are drawn, and is left some of them."""
    count_C = np.bincount(data.label_N[train], minlength=len(data.names))
    left_C = np.bincount(data.label_N[left], minlength=len(data.names))
    for c in np.flatnonzero(count_C):
        different = len(np.unique(data.content_N[train[data.label_N[train] == c]]))
        if different <= needed or not left_C[c]:
            copies = "" if count_C[c] == different else f" with only {count(different, f'different {data.what}')}"
            raise UserError(
                f"The class '{data.names[c]}' has {count(count_C[c], 'training row')}{copies}, too few to take splits "
                "from: add some, or give splits of your own with --split, --validation-data and --test-data."
            )


def _taken(
    data: Labelled,
    rows: NDArray[np.int64],
    stratum_N: NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """A share of each class, at least one row; evenly over the groups within it."""
    shuffled = rng.permutation(rows)
    keys = [code_N[shuffled] for _, code_N in reversed(data.groups.values())]
    ordered = shuffled[np.lexsort([*keys, stratum_N[shuffled]])]  # by class, then by group, else at random
    chosen = []
    for label in np.unique(stratum_N[rows]):
        own = ordered[stratum_N[ordered] == label]
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
