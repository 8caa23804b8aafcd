"""How `evenhand tasks` shows shortcuts that have a name: their values, who goes against them, a few samples."""

from __future__ import annotations

from collections.abc import Iterator

import datasets
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from evenhand.cli.samples import sample_lines
from evenhand.shortcuts import STANDINGS, FittedShortcut
from evenhand.shortcuts.named import TRAIN, NamedShortcuts
from evenhand.tasks import Task
from evenhand.wording import one_line, percent

_VALUES = 12
_SAMPLES = 3  # of each side


def value_table(one: FittedShortcut) -> Table:
    """The values of a shortcut in the training rows and the class each points to; of many the most frequent ones."""
    table = Table(f"value of {one_line(one.name)}", "training rows", "points to", "of them in that class, %")
    size_V = one.table[:-1].sum(axis=1)
    order = np.argsort(-size_V, kind="stable") if len(size_V) > _VALUES else np.arange(len(size_V))
    for value in order[:_VALUES].tolist():
        place = one.points_to[value]
        share = percent(one.table[value, place] / size_V[value]) if place >= 0 else "–"
        points = one_line(one.classes[place]) if place >= 0 else "no class"
        table.add_row(one_line(one.names[value]), f"{size_V[value]:,}", points, share)
    if len(order) > _VALUES:
        table.add_row(f"{len(order) - _VALUES:,} more", f"{size_V[order[_VALUES:]].sum():,}", "", "")
    if one.table[-1].any():
        table.add_row("none of these", f"{one.table[-1].sum():,}", "no class", "–")
    return table


def side_table(shortcuts: NamedShortcuts) -> Table:
    """How many rows of each split are aligned, conflicting and independent, by shortcut."""
    sizes = {split: shortcuts.sizes(split) for split in shortcuts.rows}
    table = Table("shortcut", "rows", *map(one_line, sizes))
    for name in sizes[TRAIN]:
        for side in STANDINGS:
            shown = one_line(name) if side == STANDINGS[0] else ""
            table.add_row(shown, side, *(f"{of_split[name][side]:,}" for of_split in sizes.values()))
    return table


def side_samples(task: Task) -> Iterator[str]:
    """A few training rows on each side of each shortcut, with the class that their value points to."""
    assert task.shortcuts is not None
    shortcuts, plain = task.shortcuts, task.train.remove_columns(_sides_of(task.train))
    both = zip(shortcuts.fitted, shortcuts.standings(TRAIN), shortcuts.points(TRAIN), strict=True)
    for one, side_N, points_N in both:
        for side, name in enumerate(STANDINGS):
            rows = np.flatnonzero(side_N == side)[:_SAMPLES]
            if len(rows):
                yield f"Training rows that are {name} ({one_line(one.name)}):"
            yield from _lines(plain, rows, one, points_N)


def _lines(
    split: datasets.Dataset, rows: NDArray[np.int64], one: FittedShortcut, points_N: NDArray[np.int64]
) -> Iterator[str]:
    for row, line in zip(rows.tolist(), sample_lines(split.select(rows), len(rows)), strict=True):
        place = points_N[row]
        yield f"  {one_line(line)}" + (f" (points to {one_line(one.classes[place])})" if place >= 0 else "")


def _sides_of(split: datasets.Dataset) -> list[str]:
    """The columns of a split that tell the side to another shortcut, or to all together."""
    return [column for column in ("alignment", "group") if column in split.column_names]
