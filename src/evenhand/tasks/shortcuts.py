"""A task whose shortcuts have names: who goes along with them and who goes against them is known of every split."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import class_column, column_values
from evenhand.data.rows import arrow_table
from evenhand.shortcuts import STANDINGS, Samples
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.named import TRAIN, NamedShortcuts, Rows
from evenhand.shortcuts.samples import RESERVED
from evenhand.validation import UserError

if TYPE_CHECKING:
    from evenhand.tasks.base import Task

COLUMNS = ("alignment", "group")
"""What a task's splits hold of how rows stand to its shortcut."""


def samples_of(task: Task, split: str) -> Samples:
    """A split as shortcuts read it, with what the user's files hold beside the rows."""
    beside = None if task.beside is None else task.beside(split)
    further = () if beside is None else beside.names  # the user's own columns, whatever the task's are called
    return Samples(
        split=task.splits[split],
        name=split,
        beside=beside,
        called=task.called,
        reserved={**{name: what for name, what in RESERVED.items() if name not in further}, **task.reserved},
    )


def rows_of(task: Task) -> dict[str, Rows]:
    """Every split as shortcuts see it."""
    return {
        name: Rows(samples_of(task, name), column_values(split, "labels"), task.test_classes(name))
        for name, split in task.splits.items()
    }


def with_shortcuts(task: Task, given: Sequence[Rule | str]) -> Task:
    """The task with named shortcuts.

    Its splits get a column `alignment`, how each row stands to all shortcuts together, and groups of
    label × standing. Columns that it has of its own stay: a construction knows its bias better.

    Args:
        task: The task.
        given: The shortcuts, or their spellings.

    Raises:
        UserError: If one is no shortcut of the training rows, or the task has named shortcuts already.
    """
    if task.shortcuts is not None:
        raise UserError(
            f"The task's shortcuts are named already ({', '.join(task.shortcuts.names)}): name all of them in one "
            "place."
        )
    optional = set(task.tests) - {task.primary_test}  # other test sets may come from elsewhere, without a column
    named = NamedShortcuts.fit(given, rows_of(task), task.label_names, optional)
    splits = with_sides(task.splits, named)
    own = _own_columns(task.splits)
    told = f"The {' and '.join(own)} of each row stay{'s' * (len(own) == 1)} what the task has" if own else ""
    return replace(
        task,
        train=splits[TRAIN],
        validation=splits["validation"],
        tests={name: splits[name] for name in task.tests},
        notes=(*task.notes, *named.notes, *([f"{told}, whatever shortcuts are named."] if own else [])),
        shortcuts=named,
    )


def with_sides(splits: Mapping[str, datasets.Dataset], named: NamedShortcuts) -> dict[str, datasets.Dataset]:
    """Splits with columns of how each row stands to all shortcuts together, where no split has these of its own."""
    own = _own_columns(splits)
    standing = {name: named.standing(name) for name in splits}
    met = dict.fromkeys(
        _group_names(split)[group]
        for name, split in splits.items()
        for group in np.unique(_group(split, standing[name])).tolist()
    )
    return {name: _with_sides(split, standing[name], list(met), own) for name, split in splits.items()}


def _own_columns(splits: Mapping[str, datasets.Dataset]) -> list[str]:
    """Those that some split has of its own, which mean the same nowhere else."""
    return [column for column in COLUMNS if any(column in split.column_names for split in splits.values())]


def _group_names(split: datasets.Dataset) -> list[str]:
    return [f"{label} {standing}" for label in split.features["labels"].names for standing in STANDINGS]


def _group(split: datasets.Dataset, standing_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row's group, label × standing, as its place in `_group_names`, shape (N,)."""
    return column_values(split, "labels") * len(STANDINGS) + standing_N


def _with_sides(
    split: datasets.Dataset, standing_N: NDArray[np.int64], met: list[str], own: Collection[str]
) -> datasets.Dataset:
    """The split with those columns that the task lacks; `met` names the groups that rows of some split are in."""
    place_G = np.array([met.index(name) if name in met else -1 for name in _group_names(split)])
    made = {
        "alignment": class_column(standing_N, STANDINGS),
        "group": class_column(place_G[_group(split, standing_N)], met),
    }
    table, features = arrow_table(split), split.features.copy()
    for column, (feature, array) in made.items():
        if column not in own:
            features[column] = feature
            table = table.append_column(column, array)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))
