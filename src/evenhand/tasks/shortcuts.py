"""A task whose shortcuts have names: who goes along with them and who goes against them is known of every split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def samples_of(task: Task, split: str) -> Samples:
    """A split as shortcuts read it, with what the user's files hold beside the rows."""
    return Samples(
        split=task.splits[split],
        name=split,
        beside=None if task.beside is None else task.beside(split),
        called=task.called,
        reserved={**RESERVED, **task.reserved},
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
    named = NamedShortcuts.fit(given, rows_of(task), task.label_names)
    splits = {name: with_sides(split, named.standing(name)) for name, split in task.splits.items()}
    tests = {name: splits[name] for name in task.tests}
    own = [name for name in ("alignment", "group") if name in task.train.column_names]
    kept = [f"The columns {' and '.join(own)} of the task stay its own, whatever shortcuts are named."] if own else []
    return replace(
        task,
        train=splits[TRAIN],
        validation=splits["validation"],
        tests=tests,
        notes=(*task.notes, *named.notes, *kept),
        shortcuts=named,
    )


def with_sides(split: datasets.Dataset, standing_N: NDArray[np.int64]) -> datasets.Dataset:
    """The split with columns of how each row stands to all shortcuts together, where it has none of its own."""
    names: Mapping[str, Sequence[str]] = {
        "alignment": STANDINGS,
        "group": [f"{label} {standing}" for label in split.features["labels"].names for standing in STANDINGS],
    }
    code_N = column_values(split, "labels") * len(STANDINGS) + standing_N
    found = {"alignment": standing_N, "group": code_N}
    table, features = arrow_table(split), split.features.copy()
    for column, value_N in found.items():
        if column in split.column_names:
            continue
        features[column], array = class_column(value_N, names[column])
        table = table.append_column(column, array)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))
