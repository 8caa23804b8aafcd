"""The columns of users' data that are neither inputs nor labels: kept beside the rows, for those who ask about them.

Nothing here is read while a model trains; an audit reads these columns to see whether one of them tells the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evenhand.batches import arrow_table
from evenhand.tasks.base import BesideColumns
from evenhand.tasks.own_columns import Part
from evenhand.tasks.own_formats import table_format
from evenhand.tasks.own_reading import all_column_names, read_table, told

Found = tuple[datasets.Dataset | None, list[str]]
"""Rows with the columns of one value a row, None where there is no such column; and the names of the others."""


@dataclass(frozen=True)
class TableColumns:
    """A table's columns that nothing else reads.

    Attributes:
        path: The table.
        used: The columns that are read as inputs, labels, names of rows or splits.
        chosen: The table's rows that a part has; None for all.
    """

    path: Path
    used: tuple[str, ...]
    chosen: tuple[int, ...] | None = None

    def read(self) -> Found:
        """Their rows, from a cached copy."""
        with told(self.path):
            names = [name for name in dict.fromkeys(all_column_names(self.path)) if name not in self.used]
            schema = pq.read_schema(self.path) if table_format(self.path) == "parquet" else None
        nested = [] if schema is None else _nested(schema, names)
        names = [name for name in names if name not in nested]
        if not names:
            return None, nested
        rows = read_table(self.path, dict.fromkeys(names, "beside"))
        return rows if self.chosen is None else rows.select(self.chosen), nested

    def of(self, rows: tuple[int, ...]) -> TableColumns:
        """The same of some rows of the table."""
        return replace(self, chosen=rows)


@dataclass(frozen=True)
class HubColumns:
    """The same of a data set of the hub, whose rows are read already.

    Attributes:
        rows: The rows with all columns.
        used: As of a table.
    """

    rows: datasets.Dataset
    used: tuple[str, ...]

    def read(self) -> Found:
        """The rows with these columns."""
        names = [name for name in self.rows.column_names if name not in self.used]
        nested = _nested(self.rows.features.arrow_schema, names)
        names = [name for name in names if name not in nested]
        return self.rows.select_columns(names) if names else None, nested

    def of(self, rows: tuple[int, ...]) -> HubColumns:
        """The same of some rows."""
        return replace(self, rows=self.rows.select(rows))


def columns_beside(parts: Sequence[Part], splits: Mapping[str, NDArray[np.int64]], split: str) -> BesideColumns:
    """The columns beside the rows of a split.

    Args:
        parts: All parts, in the order in which their rows are counted.
        splits: Split → its rows among those of all parts.
        split: The split.
    """
    found = [(None, []) if part.beside is None else part.beside.read() for part in parts]
    tables = [table for table, _ in found]
    sizes = [len(part.rows) for part in parts]
    rows = pa.array(splits[split])
    names = dict.fromkeys(name for table in tables if table is not None for name in table.column_names)

    def column(name: str) -> pa.ChunkedArray:
        return _column(name, tables, sizes).take(rows)

    nested = dict.fromkeys(name for _, of_part in found for name in of_part if name not in names)
    return BesideColumns(tuple(names), column, tuple(nested))


def _column(name: str, tables: Sequence[datasets.Dataset | None], sizes: Sequence[int]) -> pa.ChunkedArray:
    """One column over all parts; empty where a part lacks it, and as texts where parts hold different kinds."""
    found = [
        arrow_table(table.select_columns(name)).column(name) if table is not None and name in table.column_names else n
        for table, n in zip(tables, sizes, strict=True)
    ]
    kinds = {column.type for column in found if not isinstance(column, int)}
    kind = kinds.pop() if len(kinds) == 1 else pa.string()
    columns = [pa.nulls(c, kind) if isinstance(c, int) else c.cast(kind) for c in found]
    chunks = [chunk for c in columns for chunk in (c.chunks if isinstance(c, pa.ChunkedArray) else [c])]
    return pa.chunked_array(chunks, kind)


def _nested(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Columns of lists, objects, pictures or bytes."""
    return [name for name in names if _is_nested(schema.field(name).type)]


def _is_nested(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
