"""By which shortcuts a trained model is measured on data that may be new: its run's own, or those asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets

from evenhand.data.columns import TEXT_COLUMNS, column_values
from evenhand.runs.record import Record
from evenhand.runs.recorded import usable
from evenhand.shortcuts import STANDINGS, FittedShortcut, Samples
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.named import NamedShortcuts, Rows
from evenhand.tasks import OwnData, Task
from evenhand.tasks.base import BesideColumns
from evenhand.tasks.shortcuts import rows_of, with_shortcuts, with_sides
from evenhand.validation import UserError


def named_task(task: Task | None, asked: Sequence[Rule | str]) -> Task | None:
    """The task with the shortcuts asked for, fitted on its training rows.

    Raises:
        UserError: If there are no training rows to fit them on, or one is no shortcut of theirs.
    """
    if not asked:
        return task
    if task is None:
        raise UserError(
            f"The shortcut '{asked[0]}' is learnt from training rows, but the data to measure have none: name a task, "
            "or the data that the run was trained on."
        )
    return with_shortcuts(replace(task, shortcuts=None), asked)


def named_of_run(
    record: Record | None,
    task: Task | None,
    splits: Mapping[str, datasets.Dataset],
    beside: Callable[[], BesideColumns] | None,
    called: Mapping[str, str],
) -> tuple[NamedShortcuts | None, tuple[str, ...]]:
    """The shortcuts by which splits are measured, and what a reader must know.

    Args:
        record: The run's record, whose shortcuts are as its training rows know them.
        task: The task that the splits are of; its own shortcuts come first.
        splits: The splits to measure.
        beside: Columns beside the rows of new data.
        called: The user's names of the texts of new data.
    """
    if task is not None and task.shortcuts is not None:
        return task.shortcuts, ()
    if record is None or not record.shortcuts_fitted:
        return None, ()
    with usable(record, "shortcuts_fitted"):
        found = [FittedShortcut.from_dict(told) for told in record.shortcuts_fitted if told["spelling"] is not None]
        own = [str(told["name"]) for told in record.shortcuts_fitted if told["spelling"] is None]
    notes = [f"The shortcut '{name}' comes from Python, so it isn't measured here." for name in own]
    one = next(iter(splits.values()))
    classes = task.label_names if task is not None else one.features["labels"].names
    if found and tuple(found[0].classes) != tuple(classes):
        return None, (*notes, "The run's shortcuts aren't measured here: the data have other classes than the run.")
    if not found:
        return None, tuple(notes)
    if task is not None:
        rows = rows_of(task)
    else:
        columns: Any = None if beside is None or all(one.rule.kind != "column" for one in found) else beside()
        rows = {
            name: Rows(Samples(split, name, columns, called), column_values(split, "labels"))
            for name, split in splits.items()
        }
    try:
        named = NamedShortcuts.of(found, rows)
    except UserError as error:
        return None, (*notes, f"The run's shortcuts aren't measured here: {error}")
    return named, (*notes, *(note for of in named.applied.values() for one in of for note in one.notes))


def names_of_texts(data: OwnData) -> dict[str, str]:
    """The user's names of the columns of texts."""
    return dict(zip(TEXT_COLUMNS, data.text, strict=False))


def with_named(
    task: Task | None, splits: Mapping[str, datasets.Dataset], named: NamedShortcuts | None
) -> tuple[Task | None, dict[str, datasets.Dataset]]:
    """The task and its splits, whose rows say how they stand where they didn't."""
    if named is None:
        return task, dict(splits)
    sided = with_sides(splits, named)
    if task is None:
        return None, sided
    tests = {name: sided[name] for name in task.tests}
    return replace(task, train=sided["train"], validation=sided["validation"], tests=tests, shortcuts=named), sided


def columns_of(named: NamedShortcuts, split: str) -> dict[str, Any]:
    """Columns of predictions: each row's value of each shortcut, and how the row stands to it."""
    found: dict[str, Any] = {}
    for fitted, applied, standing_N in zip(named.fitted, named.applied[split], named.standings(split), strict=True):
        found[f"value of {fitted.name}"] = [None if place < 0 else fitted.names[place] for place in applied.value_N]
        found[f"standing to {fitted.name}"] = [STANDINGS[place] for place in standing_N]
    return found
