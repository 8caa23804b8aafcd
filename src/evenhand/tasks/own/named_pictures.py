"""Pictures that a table of the user's names or holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from evenhand.data.cached_tables import cached_table, check_columns, column_names
from evenhand.data.folders import is_file
from evenhand.data.rows import arrow_table
from evenhand.tasks.own.parts import Columns, Part
from evenhand.validation import UserError


def named_pictures(table: Path, column: str, columns: Columns) -> list[Path]:
    """The pictures that a table names and that are there; none where it holds pictures itself."""
    return [
        path for path in listed_files(table, _names(table, column, columns.encoding), columns.outside) if is_file(path)
    ]


def table_pictures_digest(table: Path, column: str, columns: Columns) -> str:
    """SHA-256 of the names and sizes of the pictures that a table names; of a table that holds them itself, none."""
    names = _names(table, column, columns.encoding)
    files = listed_files(table, names, columns.outside)
    sizes = (path.stat().st_size if is_file(path) else None for path in files)
    return texts_digest(f"{name}\t{size}\n" for name, size in zip(names, sizes, strict=True))


def listed_files(table: Path, names: Sequence[str | None], outside: bool) -> list[Path]:
    """The files that a table names, relative to its folder.

    Raises:
        UserError: If one lies outside that folder, links followed, which must be allowed.
    """
    base = table.parent
    files = [base / (name or "") for name in names]
    if outside:
        return files
    root, real = base.resolve(), cache(Path.resolve)  # many pictures lie in one folder
    for row, path in enumerate(files):
        try:
            lies = real(path) if path.is_symlink() else real(path.parent)
        except (OSError, ValueError, RuntimeError):  # no file can be called so, or links lead in a circle
            continue
        if names[row] and not lies.is_relative_to(root):
            raise UserError(
                f"Row {row + 1} of '{table.name}' names the picture '{names[row]}', which lies outside the folder "
                f"'{base}': move it there, or allow such pictures with --allow-outside."
            )
    return files


def _names(table: Path, column: str, encoding: str | None) -> list[str | None]:
    check_columns(f"The file '{table}'", {"image": column}, column_names(table, encoding))
    stored: Any = arrow_table(cached_table(table, {column: "other"}, encoding)).column(column)
    return stored.to_pylist() if _is_text(stored.type) else []


def texts_digest(lines: Iterable[str]) -> str:
    """SHA-256 of texts, one after the other."""
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def as_pictures(part: Part, column: str, table: Path | None, outside: bool) -> datasets.Dataset:
    """The rows with a column of file names, or of pictures as bytes, as pictures.

    Args:
        part: The rows.
        column: The column.
        table: The table that they are of, to which names are relative; None for the hub.
        outside: Whether the table may name files outside its folder.

    Raises:
        UserError: If the column holds something else.
    """
    rows = part.rows
    feature: Any = rows.features[column]
    stored: Any = part.column(column)
    kind = stored.type
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if table is not None and (_is_text(kind) or (is_struct and kind.get_field_index("path") >= 0)):
        rows = _with_files(rows, column, table, outside, stored)
    elif not (isinstance(feature, datasets.Image) or pa.types.is_binary(kind) or is_struct):
        raise UserError(f"The column '{column}' of {part.where} holds {kind}, but file names or pictures are needed.")
    return rows.cast_column(column, datasets.Image())


def _with_files(rows: datasets.Dataset, column: str, table: Path, outside: bool, stored: Any) -> datasets.Dataset:
    """The rows with names of files, where there is a name and no picture, as paths."""
    stored = pa.concat_arrays(stored.chunks) if stored.num_chunks else pa.array([], stored.type)
    is_text = _is_text(stored.type)
    held = pa.nulls(len(stored), pa.binary()) if is_text else stored.field("bytes")
    names: list[str | None] = (stored if is_text else stored.field("path")).to_pylist()
    to_find = [is_text or (empty and bool(name)) for empty, name in zip(held.is_null().to_pylist(), names, strict=True)]
    if not any(to_find):
        return rows  # as they lie on the disk
    wanted = [name if find else None for name, find in zip(names, to_find, strict=True)]
    files = listed_files(table, wanted, outside)
    paths = [str(file) if find else name for file, name, find in zip(files, names, to_find, strict=True)]
    pictures = datasets.Dataset(pa.table({column: pa.StructArray.from_arrays([held, paths], ["bytes", "path"])}))
    others = rows.remove_columns(column)
    return datasets.concatenate_datasets([pictures, others], axis=1) if others.column_names else pictures
