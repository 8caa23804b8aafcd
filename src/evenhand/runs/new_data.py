"""A run on data that it wasn't made with: its groups are kept, and rows that it was trained on are known again.

Legend: N rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.contents import row_contents
from evenhand.data.origins import Origins
from evenhand.files import whole_file
from evenhand.runs.configuration import Configuration
from evenhand.tasks import OwnData, Task
from evenhand.validation import UserError

_FILE = "train_rows.npy"  # beside a run's record
_SHOWN = 5  # names of rows in a sentence


def keep_train_rows(folder: Path, configuration: Configuration, task: Task) -> None:
    """Leave in a run's folder what its training rows are known by; of the user's own data only."""
    if not isinstance(configuration.task, OwnData | Task):
        return
    found = row_contents(task.train)
    if found is not None:
        with whole_file(folder / _FILE) as partial, partial.open("wb") as file:
            np.save(file, np.unique(found))


def trained_on(split: datasets.Dataset, run: Path) -> NDArray[np.bool_] | None:
    """Whether each row has the content of one that the run was trained on, shape (N,); None if it isn't known."""
    try:
        kept = np.load(run / _FILE)
    except (OSError, ValueError):
        return None
    found = row_contents(split)
    return None if found is None else np.isin(found, kept)


def trained_text(name: str, split: datasets.Dataset, trained_N: NDArray[np.bool_] | None) -> str | None:
    """What is said of a split's rows that the run was trained on; None where there are none."""
    if trained_N is None:
        return "The run's folder doesn't say which rows it was trained on, so some of these may be among them."
    rows = np.flatnonzero(trained_N)
    if not len(rows):
        return None
    column = "id" if "id" in split.column_names else "index" if "index" in split.column_names else None
    names = [str(row if column is None else split[int(row)][column]) for row in rows[:_SHOWN]]
    rest = f" and {len(rows) - len(names):,} more" if len(rows) > len(names) else ""
    return (
        f"The run was trained on {len(rows):,} of the {len(split):,} rows of '{name}' (same content: row "
        f"{', '.join(names)}{rest}), so their accuracy tells what was remembered."
    )


def with_groups_of_run(
    data: OwnData, classes: Sequence[str] | None, record: dict[str, Any] | None
) -> tuple[datasets.Dataset, tuple[str, ...], Origins]:
    """New data as one split, with the groups of a run on other own data unless others are named.

    Args:
        data: The data, with the run's columns of inputs and labels.
        classes: The model's classes.
        record: The run's record.

    Returns:
        The split, a note where the data can't make the groups, and where the rows lie.
    """
    task = (record or {}).get("task", {})
    groups = tuple(task.get("settings", {}).get("group") or ()) if task.get("name") == data.name else ()
    why: tuple[str, ...] = ()
    if groups and not data.group:
        try:
            split, origins = dataclasses.replace(data, group=groups).located_split(classes)
            return split, (), origins
        except UserError as error:
            why = (f"The run's groups aren't measured here: {error}",)
    split, origins = data.located_split(classes)  # raises what is wrong beside the groups
    return split, why, origins
