"""Users' own tables, each copied once into an Arrow file of its own in the cache of `datasets`.

A table's columns that are asked for are copied into a file named by the table's content, and read from its memory map
afterwards: a table of any size takes little memory, and nothing is written beside the user's data. Texts are taken as
they stand: "NA", "null" and "007" are texts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import config
from numpy.typing import NDArray

from evenhand.data.encodings import encoding_of
from evenhand.data.text_rows import (
    Columns,
    Kind,
    Role,
    check_text_file,
    json_objects,
    read_header,
    read_rows,
    row_begins,
    text_arrays,
    told,
)
from evenhand.files import whole_file
from evenhand.validation import UserError, did_you_mean

READABLE = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
"""Endings of tables; the texts among them may be compressed (.gz)."""

_END = b"\xff\xff\xff\xff\0\0\0\0"
_VERSION = 2  # of the cached files; raised when one table would be read otherwise
_LISTED, _LONGEST_NAME = 20, 60  # columns in a sentence, and characters of each
_BATCH = 5_000  # rows of a Parquet file
_PICTURES = 100  # rows of those that hold pictures
_PACKED = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz", ".joblib")
_SHEETS = (".xlsx", ".xls", ".ods")


def table_format(path: Path) -> str:
    """`csv`, `tsv`, `jsonl` or `parquet`, by the file's ending.

    Raises:
        UserError: If there is no such file, it is empty, or of a kind that isn't read.
    """
    if not path.is_file():
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"There is no file '{path}'{did_you_mean(path.name, there)}.")
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    packed = name.endswith(".gz") and READABLE.get(ending, "parquet") == "parquet"
    if packed or name.endswith(_PACKED):
        raise UserError(f"The file '{path}' is an archive, which is not opened: unpack it first.")
    if ending in _PICKLED:
        raise UserError(
            f"The file '{path}' may hold a pickle, which could run any code and is never loaded: save the data as "
            "Parquet, CSV or JSONL."
        )
    if ending in _SHEETS:
        raise UserError(f"The file '{path}' is a spreadsheet: save the sheet as CSV (UTF-8).")
    if ending not in READABLE:
        raise UserError(
            f"The file '{path}' is of no kind that can be read: CSV (.csv), TSV (.tsv), JSONL (.jsonl) or Parquet "
            "(.parquet)."
        )
    with told(path):
        check_text_file(path, READABLE[ending] == "parquet")
    return READABLE[ending]


def is_table(path: Path) -> bool:
    """Whether the file's ending is that of a table."""
    return Path(path.name.lower().removesuffix(".gz")).suffix in READABLE


def text_encoding(path: Path, given: str | None = None) -> str | None:
    """How a table's text is encoded, as given or as found; None for one that isn't text."""
    if table_format(path) == "parquet":
        return None
    with told(path):
        return given or encoding_of(path)


def column_names(path: Path, given: str | None = None, all_lines: bool = False) -> list[str]:
    """The table's columns: of its first line, or of its schema.

    Args:
        path: The table.
        given: How its text is encoded; as is found if None.
        all_lines: Whether all lines of JSONL are looked at: later ones may have columns that the first lacks.
    """
    kind, encoding = table_format(path), text_encoding(path, given)
    with told(path, encoding):
        if encoding is None:
            return pq.read_schema(path).names
        if kind == "jsonl" and all_lines:
            return list(dict.fromkeys(name for _, found in json_objects(path, encoding) for name in found))
        return read_header(path, cast(Kind, kind), encoding)


def check_columns(where: str, wanted: Mapping[str, str], found: list[str]) -> None:
    """Refuse columns that aren't there, with the nearest that are.

    Args:
        where: What holds the columns, as the user knows it.
        wanted: Option → column.
        found: The columns that there are.
    """
    for option, name in wanted.items():
        if name not in found:
            raise UserError(
                f"{where} has no column '{name}', given as --{option}{did_you_mean(name, found)}; its columns are "
                f"{named_columns(found)}."
            )
        if found.count(name) > 1:
            raise UserError(f"{where} has {found.count(name)} columns '{name}', given as --{option}: rename one.")


def named_columns(found: list[str]) -> str:
    """Columns as a sentence lists them, which may be many and long where a file is read wrongly."""
    more = f" and {len(found) - _LISTED:,} more" if len(found) > _LISTED else ""
    return (", ".join(name[:_LONGEST_NAME] for name in found[:_LISTED]) or "none") + more


def cached_table(path: Path, wanted: Mapping[str, Role], given: str | None = None) -> datasets.Dataset:
    """The columns asked for, read from the memory map of a cached Arrow file.

    Args:
        path: The table.
        wanted: Column → what it is for.
        given: How its text is encoded; as is found if None.

    Raises:
        UserError: One sentence for a file that can't be read, with the line where there is one.
    """
    kind, encoding = table_format(path), text_encoding(path, given)
    asked = json.dumps([_VERSION, kind, encoding, file_digest(path), dict(wanted)])
    folder = cache_folder()
    cached = folder / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.arrow"
    if not is_whole(cached):
        with whole_file(cached) as partial, told(path, encoding, folder):
            read = _parquet(path, wanted) if encoding is None else _texts(path, cast(Kind, kind), wanted, encoding)
            _copy(read, partial, path)
    return datasets.Dataset.from_file(str(cached))


def row_lines(path: Path, given: str | None = None) -> NDArray[np.int64] | None:
    """The line on which each row of a table begins, shape (N,), counted from 1; None for one without lines.

    Args:
        path: The table, of N rows.
        given: How its text is encoded; as is found if None.

    Raises:
        UserError: As of `cached_table`.
    """
    kind, encoding = table_format(path), text_encoding(path, given)
    if encoding is None:
        return None
    asked = json.dumps([_VERSION, "lines", kind, encoding, file_digest(path)])
    cached = cache_folder() / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.lines.npy"
    try:
        return np.load(cached)
    except (OSError, ValueError, EOFError):  # not there, or damaged
        pass
    with told(path, encoding):
        line_N = row_begins(path, cast(Kind, kind), encoding)
    with whole_file(cached) as partial, partial.open("wb") as file:
        np.save(file, line_N)
    return line_N


def cache_folder() -> Path:
    """Where copies of tables lie: a folder of evenhand's in the cache of `datasets`."""
    folder = Path(config.HF_DATASETS_CACHE) / "evenhand"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The cache folder '{folder}' can't be written to ({error.strerror}): name another one in the environment "
            "variable HF_DATASETS_CACHE."
        ) from error
    return folder


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    state = path.stat()
    return _digest(str(path.absolute()), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: str, _size: int, _changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(cached: Path) -> bool:
    """Whether an Arrow file of the cache is there, from its head to the mark that ends a stream."""
    try:
        with cached.open("rb") as file:
            pa.ipc.open_stream(file)
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except (OSError, pa.ArrowException):
        return False


def _copy(batches: Iterator[pa.RecordBatch], target: Path, source: Path) -> None:
    """Write the batches into a file."""
    rows = 0
    first = next(batches, None)
    if first is not None:
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as stream:
            stream.write_batch(first)
            rows = len(first)
            for batch in batches:
                stream.write_batch(batch)
                rows += len(batch)
    if not rows:
        raise UserError(f"The file '{source}' has no rows.")


def _texts(path: Path, kind: Kind, wanted: Mapping[str, Role], encoding: str) -> Iterator[pa.RecordBatch]:
    columns = Columns({}, {name: (name,) for name in wanted}, wanted)
    for _, *arrays in text_arrays(read_rows(path, kind, columns, encoding=encoding), path):
        yield pa.RecordBatch.from_arrays(arrays, names=list(wanted))


def _parquet(path: Path, wanted: Mapping[str, Role]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        fields = [_plain_field(path, schema.field(name), role) for name, role in wanted.items()]
        # names of classes stand in the metadata that `datasets` writes
        features = _features(path, pa.schema(fields, metadata=schema.metadata))
        out = features.arrow_schema
        pictures = any(pa.types.is_binary(field.type) or pa.types.is_struct(field.type) for field in out)
        for batch in file.iter_batches(batch_size=_PICTURES if pictures else _BATCH, columns=list(wanted)):
            arrays = [batch.column(field.name).cast(field.type) for field in out]
            for array in arrays:
                array.validate(full=True)  # nothing else looks whether bytes are text
            yield pa.RecordBatch.from_arrays(arrays, schema=out)


def _features(path: Path, schema: pa.Schema) -> datasets.Features:
    for field in schema:
        try:
            datasets.Features.from_arrow_schema(pa.schema([field]))
        except ValueError as error:
            raise UserError(
                f"The column '{field.name}' of '{path}' holds {field.type}, which can't be read."
            ) from error
    try:
        return datasets.Features.from_arrow_schema(schema)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"What '{path}' says of its columns for `datasets` is damaged ({error}).") from error


def _plain_field(path: Path, field: pa.Field, role: Role) -> pa.Field:
    held: Any = field.type
    if pa.types.is_dictionary(held):
        held = held.value_type
    is_view = pa.types.is_string_view(held)
    if role == "text" and not (is_view or pa.types.is_string(held) or pa.types.is_large_string(held)):
        raise UserError(f"The column '{field.name}' of '{path}' holds {held}, no text.")
    if role == "text" or is_view:  # of views nothing is counted or taken
        held = pa.string()
    return pa.field(field.name, pa.float32() if pa.types.is_float16(held) else held)
