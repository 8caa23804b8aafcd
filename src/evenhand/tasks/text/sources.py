"""The parts of a benchmark: which files may hold one, which hub name stands for it, and how to get it by hand.

Legend: N rows of a part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.hub import load_from_hub
from evenhand.data.rows import arrow_table
from evenhand.data.tables import Columns, Table, read_table
from evenhand.validation import UserError


@dataclass(frozen=True)
class HubPart:
    """A split of a data set on the Hugging Face hub (its parquet files; no script is ever run).

    Attributes:
        name: The data set.
        split: The split.
        subset: Its configuration, where it has several.
    """

    name: str
    split: str
    subset: str | None = None


@dataclass(frozen=True)
class Labelled:
    """A part's rows that have a label.

    Attributes:
        table: The rows.
        label_N: Their classes, shape (N,).
        notes: What was left out, a sentence each.
    """

    table: Table
    label_N: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def take(self, row_N: NDArray[np.int64]) -> Labelled:
        """Some of the rows."""
        return dataclasses.replace(self, table=self.table.take(row_N), label_N=self.label_N[row_N])

    def first(self, count: int | None) -> Labelled:
        """Up to `count` rows from the beginning; None takes all."""
        return self if count is None else self.take(np.arange(len(self))[:count])


def found_files(folder: Path, *parts: Part) -> list[Path]:
    """The files of a folder that hold some of these parts.

    Raises:
        UserError: If several files could be one part.
    """
    return [path for part in parts if (path := part.find(folder)) is not None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a benchmark, as it is published.

    Attributes:
        title: What it is, in messages: "MNLI's training part".
        files: Names under which a folder may hold it, the preferred one first; `*` stands for anything.
        columns: The columns to read, with a required one `label` where there are labels.
        labels: What stands for each class, by number.
        hub: Where it is on the hub.
        advice: How to get it by hand.
        unique_ids: Whether its source says that ids are unique: then a repeated one is refused.
        skip_broken: Whether the published file has broken lines, which are left out.
    """

    title: str
    files: tuple[str, ...]
    columns: Columns
    labels: Mapping[str, int]
    hub: HubPart | None = None
    advice: str
    unique_ids: bool = True
    skip_broken: bool = False

    def find(self, folder: Path | None) -> Path | None:
        """The file in the folder that holds the part, if one does.

        Raises:
            UserError: If there is no such folder, or several files could be meant.
        """
        if folder is None:
            return None
        if not folder.is_dir():
            raise UserError(f"The folder '{folder}' given as --data-dir does not exist.")
        for name in self.files:
            found = sorted(path for path in folder.glob(name) if path.is_file())
            if len(found) > 1:
                raise UserError(
                    f"The folder '{folder}' holds several files that could be {self.title} "
                    f"({', '.join(path.name for path in found)}): leave one."
                )
            if found:
                return found[0]
        return None

    def table(self, folder: Path | None) -> Table:
        """The part's rows: the folder's file, or else the hub's.

        Raises:
            UserError: If neither has it, or what is there is broken.
        """
        path = self.find(folder)
        table = self._from_hub(folder) if path is None else read_table(path, self.columns, self.skip_broken)
        if self.unique_ids and "id" in table:
            twice = table.repeated("id")
            if twice is not None:
                again, first = twice
                value = table.column("id")[again].as_py()
                other = table.cells.column("line")[first].as_py()
                raise UserError(f"{table.place(again)} repeats the id {value!r} of line {other}; ids must be unique.")
        return table

    def read(self, folder: Path | None) -> Labelled:
        """The part's rows that have a label; what was left out is noted.

        Raises:
            UserError: If neither the folder nor the hub has it, or what is there is broken.
        """
        table = self.table(folder)
        label_N = table.classes("label", self.labels, allow_missing=True)
        kept = np.flatnonzero(label_N >= 0)
        if not len(kept):
            raise UserError(f"{table.origin[:1].upper()}{table.origin[1:]} holds no rows with a label.")
        notes = []
        if len(kept) < len(table):
            notes.append(f"{len(table) - len(kept):,} rows of {self.title} have no label and were left out.")
        if table.skipped:
            notes.append(f"{table.skipped:,} broken lines of {self.title} were left out.")
        notes += self.repeats(table)
        return Labelled(table, label_N, tuple(notes)).take(kept)

    def repeats(self, table: Table) -> list[str]:
        """A note of how many rows repeat an id, where that is no mistake."""
        count = len(table) - len(table.codes("id")[1]) if "id" in table else 0
        return [f"{count:,} rows of {self.title} have the id of an earlier row; they were kept."] if count else []

    def _from_hub(self, folder: Path | None) -> Table:
        nowhere = (
            f"No folder for {self.title} was given with --data-dir"
            if folder is None
            else f"The folder '{folder}' has no file for {self.title} ({' or '.join(self.files)})"
        )
        if self.hub is None:
            raise UserError(f"{nowhere}, and it is not on the hub: {self.advice}.")
        hub = self.hub
        loaded = load_from_hub(
            lambda why: f"{nowhere}, and it could not be loaded from the hub as '{hub.name}' ({why}): {self.advice}.",
            hub.name,
            hub.subset,
            split=hub.split,
        )
        origin = f"the split '{hub.split}' of '{hub.name}' on the hub"
        rows = arrow_table(loaded)
        found = self.columns.found_in(rows.column_names, origin)
        try:
            cells = {ours: rows.column(name).cast(pa.string()) for ours, name in found.items()}
        except pa.ArrowException as error:
            raise UserError(f"A column of {origin} holds something else than text or numbers ({error}).") from error
        return Table(pa.table({**cells, "line": pa.array(np.arange(1, len(rows) + 1))}), origin)
