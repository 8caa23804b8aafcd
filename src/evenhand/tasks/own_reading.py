"""Users' own tables, read row by row into an Arrow file of their own in the cache of `datasets`.

A table's columns that are asked for are copied once into a file named by the table's content, and read from its memory
map afterwards: a table of any size takes little memory, and nothing is written beside the user's data. Texts are taken
as they stand: "NA", "null" and "007" are texts.
"""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal, cast

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import config

from evenhand.tasks.own_formats import table_format
from evenhand.validation import UserError, did_you_mean

Role = Literal["text", "label", "other", "beside"]
"""What a column is for: `text` must be text, `label` of one kind (all numbers or all texts); `beside` is anything."""

Scalar = str | int | float | bool | None

_VERSION = 1  # of the cached files; raised when one table would be read otherwise
_BATCH = 5_000  # rows
_PICTURES = 100  # rows of those that hold pictures
_LONGEST = 2**30  # characters of a field
_LONGEST_LIST = 200  # characters of a list or an object in a column that nothing else reads


def column_names(path: Path) -> list[str]:
    """The table's columns: of its first line, or of its schema."""
    with told(path):
        kind = table_format(path)
        if kind == "parquet":
            return pq.read_schema(path).names
        if kind == "jsonl":
            with closing(_objects(path)) as objects:
                return list(next(objects, (0, {}))[1])
        return _header(path, kind)


def all_column_names(path: Path) -> list[str]:
    """The same, of all lines of a JSONL table: later ones may have columns that the first lacks."""
    if table_format(path) != "jsonl":
        return column_names(path)
    with told(path), closing(_objects(path)) as objects:
        return list(dict.fromkeys(name for _, found in objects for name in found))


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
                f"{', '.join(found) or 'none'}."
            )
        if found.count(name) > 1:
            raise UserError(f"{where} has {found.count(name)} columns '{name}', given as --{option}: rename one.")


def read_table(path: Path, wanted: Mapping[str, Role]) -> datasets.Dataset:
    """The columns asked for, read from the memory map of a cached Arrow file.

    Args:
        path: The table.
        wanted: Column → what it is for.

    Raises:
        UserError: One sentence for a file that can't be read, with the line where there is one.
    """
    kind = table_format(path)
    asked = json.dumps([_VERSION, kind, file_digest(path), dict(wanted)])
    cached = cache_folder() / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.arrow"
    if not cached.exists():
        with told(path):
            _copy(_READERS[kind](path, wanted), cached, path)
    return datasets.Dataset.from_file(str(cached))


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


def _copy(batches: Iterator[pa.RecordBatch], final: Path, source: Path) -> None:
    """Write the batches into a file that appears whole or not at all."""
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    rows = 0
    try:
        first = next(batches, None)
        if first is not None:
            with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as stream:
                stream.write_batch(first)
                rows = len(first)
                for batch in batches:
                    stream.write_batch(batch)
                    rows += len(batch)
        if not rows:
            raise UserError(f"The file '{source}' has no rows.")
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What the readers raise, in one sentence that names the file."""
    try:
        yield
    except EOFError as error:  # of gzip
        raise UserError(f"The file '{path}' is truncated: its end is missing.") from error
    except (gzip.BadGzipFile, zlib.error, pa.ArrowInvalid, pa.ArrowException) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(f"The file '{path}' is damaged, truncated or of another kind ({reason}).") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"There is no room for a copy of '{path}' in the cache folder '{cache_folder()}'."
            ) from error
        reason = error.strerror or str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(f"The file '{path}' could not be read ({reason}).") from error


# ---- texts: CSV, TSV, JSONL -----------------------------------------------------------------------------------------


def _lines(path: Path) -> Generator[str, None, None]:
    """The file's lines with their ends; one that isn't UTF-8 is named."""
    opener = gzip.open if path.suffix.lower() == ".gz" else Path.open
    with cast(IO[bytes], opener(path, "rb")) as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                looks = " (it looks like UTF-16)" if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
                byte = f"byte {error.object[error.start]:#04x}"
                raise UserError(
                    f"Line {number} of '{path}' is no UTF-8 text{looks or f' ({byte})'}: save the file as UTF-8."
                ) from error


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields of any length; the limit is global, so it is set back afterwards."""
    limit = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _records(path: Path, kind: str) -> Generator[tuple[int, list[str]], None, None]:
    """(line on which it ends, fields) of every row, the header first; blank lines are none."""
    lines = _lines(path)
    first = next(lines, "")
    delimiter = "\t" if kind == "tsv" else _delimiter(first)
    options: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if kind == "tsv" else {"strict": True}

    def all_lines() -> Iterator[str]:
        yield first
        yield from lines

    reader = csv.reader(all_lines(), delimiter=delimiter, **options)
    while True:
        try:
            with _long_fields():
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"Line {reader.line_num} of '{path}' is no valid {kind.upper()} ({error}; a quote that isn't closed "
                "does that too)."
            ) from error
        if fields:
            yield reader.line_num, fields


def _delimiter(header: str) -> str:
    """A comma, or what stands in its place where a header has none."""
    return next((d for d in (",", ";", "\t") if d in header), ",")


def _header(path: Path, kind: str) -> list[str]:
    with closing(_records(path, kind)) as records:
        return next(records, (0, []))[1]


def _delimited(path: Path, wanted: Mapping[str, Role], kind: str) -> Iterator[pa.RecordBatch]:
    records = _records(path, kind)
    _, names = next(records)
    places = [names.index(name) for name in wanted]
    schema = pa.schema([(name, pa.string()) for name in wanted])
    columns: list[list[str]] = [[] for _ in wanted]
    for line, fields in records:
        if len(fields) != len(names):
            raise UserError(f"Line {line} of '{path}' has {len(fields)} fields, but the first has {len(names)}.")
        for column, place in zip(columns, places, strict=True):
            column.append(fields[place])
        if len(columns[0]) == _BATCH:
            yield pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns], schema=schema)
            columns = [[] for _ in wanted]
    if columns[0]:
        yield pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns], schema=schema)


def _objects(path: Path) -> Generator[tuple[int, dict[str, Any]], None, None]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            if number == 1 and line.lstrip().startswith("["):
                found = []
            else:
                reason = str(error).split(":")[0].lower()
                raise UserError(f"Line {number} of '{path}' is no valid JSON ({reason}).") from error
        if not isinstance(found, dict):
            raise UserError(f"Line {number} of '{path}' holds no JSON object: each line must be one, such as {{…}}.")
        yield number, found


def _jsonl(path: Path, wanted: Mapping[str, Role]) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([(name, pa.string()) for name in wanted])
    kinds: dict[str, tuple[str, int]] = {}  # of each label column's values, and the line that said so
    columns: dict[str, list[str | None]] = {name: [] for name in wanted}
    count = 0
    for line, found in _objects(path):
        for name, role in wanted.items():
            value = found.get(name)
            kind = _json_kind(value)
            place = f"Line {line} of '{path}'"
            if role == "beside":
                columns[name].append(_anything(value))
                continue
            if kind == "list" or (role == "text" and kind not in ("text", "nothing")):
                what = "a list or an object" if kind == "list" else f"the {kind} {json.dumps(value)}"
                raise UserError(f"{place} holds {what} in '{name}', where a {role if role != 'other' else 'value'} is "
                                "expected.")  # fmt: skip
            if role == "label" and kind != "nothing":
                first, where = kinds.setdefault(name, (kind, line))
                if kind != first:
                    raise UserError(
                        f"{place} holds the {kind} {json.dumps(value)} in '{name}', but line {where} holds a {first}: "
                        "labels must be of one kind."
                    )
            columns[name].append(_json_text(value, place, name, role))
        count += 1
        if count == _BATCH:
            yield pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns.values()], schema=schema)
            columns, count = {name: [] for name in wanted}, 0
    if count:
        yield pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns.values()], schema=schema)


def _json_kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "text" if isinstance(value, str) else "list"


def _anything(value: Any) -> str | None:
    """A value of a column that nothing is asked of; lists and objects as the beginning of what was written."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)[:_LONGEST_LIST]


def _json_text(value: Scalar, place: str, name: str, role: Role) -> str | None:
    if isinstance(value, float):
        if not value.is_integer() and role == "label":
            raise UserError(f"{place} holds the fraction {value:g} in '{name}', which is no class.")
        return str(int(value)) if value.is_integer() else repr(value)
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)  # true, false, integers


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(path: Path, wanted: Mapping[str, Role]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        fields = [_plain_field(path, schema.field(name), role) for name, role in wanted.items()]
        # names of classes stand in the metadata that `datasets` writes
        features = datasets.Features.from_arrow_schema(pa.schema(fields, metadata=schema.metadata))
        out = features.arrow_schema
        pictures = any(pa.types.is_binary(field.type) or pa.types.is_struct(field.type) for field in out)
        for batch in file.iter_batches(batch_size=_PICTURES if pictures else _BATCH, columns=list(wanted)):
            arrays = [batch.column(field.name).cast(field.type) for field in out]
            yield pa.RecordBatch.from_arrays(arrays, schema=out)


def _plain_field(path: Path, field: pa.Field, role: Role) -> pa.Field:
    held: Any = field.type
    if pa.types.is_dictionary(held):
        held = held.value_type
    if role == "text":
        if not (pa.types.is_string(held) or pa.types.is_large_string(held) or pa.types.is_string_view(held)):
            raise UserError(f"The column '{field.name}' of '{path}' holds {held}, no text.")
        held = pa.string()
    return pa.field(field.name, held)


_READERS: dict[str, Callable[[Path, Mapping[str, Role]], Iterator[pa.RecordBatch]]] = {
    "csv": lambda path, wanted: _delimited(path, wanted, "csv"),
    "tsv": lambda path, wanted: _delimited(path, wanted, "tsv"),
    "jsonl": _jsonl,
    "parquet": _parquet,
}
