"""Rows from one place, with the columns beside them that are neither inputs nor labels.

Nothing beside is read while a model trains; an audit reads it to see whether a column tells the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evenhand.data.cached_tables import Role, cached_table, column_names, table_format
from evenhand.data.rows import arrow_table
from evenhand.tasks.base import BesideColumns


@dataclass(frozen=True)
class Beside:
    """The columns of a place that nothing else reads.

    Attributes:
        source: A table, or the rows of a data set of the hub with all columns.
        used: The columns that are read as inputs, labels, names of rows or splits.
        chosen: The source's rows that a part has; None for all.
        encoding: How the table's text is encoded, where that was given.
    """

    source: Path | datasets.Dataset
    used: tuple[str, ...]
    chosen: tuple[int, ...] | None = None
    encoding: str | None = None

    def read(self) -> tuple[datasets.Dataset | None, list[str]]:
        """Rows with the columns of one value a row, None where there is no such column; and the names of the others."""
        schema: Any = None
        if isinstance(self.source, Path):
            names = column_names(self.source, self.encoding, all_lines=True)
            if table_format(self.source) == "parquet":
                schema = pq.read_schema(self.source)
        else:
            names, schema = self.source.column_names, self.source.features.arrow_schema
        names = [name for name in names if name not in self.used and names.count(name) == 1]
        nested = [name for name in names if schema is not None and is_nested(schema.field(name).type)]
        names = [name for name in names if name not in nested]
        if not names:
            return None, nested
        rows = (
            cached_table(self.source, dict.fromkeys(names, "beside"), self.encoding)
            if isinstance(self.source, Path)
            else self.source.select_columns(names)
        )
        return rows if self.chosen is None else rows.select(self.chosen), nested


@dataclass(frozen=True)
class Part:
    """Rows from one place.

    Attributes:
        where: The place as the user knows it, in quotes.
        rows: The columns that were asked for.
        split: The split that the place's own name says, if it does.
        typed: Whether the place tells texts from numbers (CSV doesn't).
        encoding: How its text is encoded; None where it is of no text file.
        is_hub: Whether it is of the hub, where −1 stands for a missing label.
        beside: The columns that weren't asked for; None where there are none.
    """

    where: str
    rows: datasets.Dataset
    split: str | None = None
    typed: bool = True
    encoding: str | None = None
    is_hub: bool = False
    beside: Beside | None = None

    def column(self, name: str) -> Any:
        """A column in Arrow, in chunks."""
        return arrow_table(self.rows.select_columns(name)).column(name)


@dataclass(frozen=True)
class Columns:
    """The columns that the user names.

    Attributes:
        text: One or two columns of texts.
        image: A column of pictures or their files.
        label: The column of labels; None for `label` or, in folders of pictures, the class folders.
        group: Columns of groups.
        split: A column that names each row's split.
        id: A column of the rows' own names.
        outside: Whether pictures may lie outside the folder of the table that names them.
        encoding: How the text of tables is encoded, where that is given.
    """

    text: tuple[str, ...]
    image: str | None
    label: str | None
    group: tuple[str, ...]
    split: str | None
    id: str | None
    outside: bool = False
    encoding: str | None = None

    def asked(self, label: str | None) -> dict[str, str]:
        """Option → column, of a table whose column of labels is known; None where it has none."""
        named = {"text": self.text[:1], "text (the second)": self.text[1:], "image": [self.image], "label": [label]}
        named |= {("group" if i == 0 else f"group (number {i + 1})"): [name] for i, name in enumerate(self.group)}
        named |= {"split": [self.split], "id": [self.id]}
        return {option: name for option, names in named.items() for name in names if name is not None}

    def used(self, label: str | None) -> tuple[str, ...]:
        """The columns that are inputs, labels, splits or names of rows; a group is none of these."""
        named = (*self.text, self.image, label, self.split, self.id)
        return tuple(name for name in named if name is not None)

    def roles(self, label: str | None) -> dict[str, Role]:
        """Column → what it is for."""
        roles: dict[str, Role] = dict.fromkeys(self.asked(label).values(), "other")
        if label is not None:
            roles[label] = "label"
        roles.update(dict.fromkeys(self.text, "text"))
        return roles


@dataclass(frozen=True)
class Place:
    """What was read.

    Attributes:
        parts: The rows, by file or split.
        label: Their column of labels.
        notes: What a reader of the result must know.
    """

    parts: tuple[Part, ...]
    label: str
    notes: tuple[str, ...] = ()


def columns_beside(parts: Sequence[Part], splits: Mapping[str, NDArray[Any]], split: str) -> BesideColumns:
    """The columns beside the rows of a split.

    Args:
        parts: All parts, in the order in which their rows are counted.
        splits: Split → its rows among those of all parts.
        split: The split.
    """
    found = [(None, []) if part.beside is None else part.beside.read() for part in parts]
    tables = [(len(part.rows), table) for part, (table, _) in zip(parts, found, strict=True)]
    rows = pa.array(splits[split])
    names = dict.fromkeys(name for _, table in tables if table is not None for name in table.column_names)
    nested = dict.fromkeys(name for _, of_part in found for name in of_part if name not in names)
    return BesideColumns(tuple(names), lambda name: _column(name, tables).take(rows), tuple(nested))


def _column(name: str, tables: Sequence[tuple[int, datasets.Dataset | None]]) -> pa.ChunkedArray:
    """One column over all parts; empty where a part lacks it, and as texts where parts hold different kinds."""
    found: list[Any] = [
        arrow_table(table.select_columns(name)).column(name)
        if table is not None and name in table.column_names
        else pa.chunked_array([pa.nulls(size)])
        for size, table in tables
    ]
    kinds = {column.type for column in found if not pa.types.is_null(column.type)}
    kind = kinds.pop() if len(kinds) == 1 else pa.string()
    return pa.chunked_array([chunk for column in found for chunk in column.cast(kind).chunks], kind)


def is_nested(kind: pa.DataType) -> bool:
    """Whether a column holds lists, objects, pictures, bytes or what a library made its own type for."""
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return pa.types.is_nested(kind) or is_bytes or isinstance(kind, pa.BaseExtensionType)
