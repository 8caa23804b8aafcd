"""Rows of text files: CSV, TSV, words between spaces, or one JSON object a line; each mistake with its line.

Python's csv reads quotes, since it is strict: where a quote isn't closed, pyarrow takes the rest of a file for one cell
and says nothing. Nothing here loads a pickle.
"""

from __future__ import annotations

import csv
import errno
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.encodings import UTF8, is_packed, misread, open_text
from evenhand.validation import UserError, count, did_you_mean

Role = Literal["text", "label", "other", "beside"]
"""What a column is for: `text` must be text, `label` of one kind (all numbers or all texts); `beside` is anything."""

Kind = Literal["csv", "tsv", "words", "jsonl"]
"""How a file is written. TSV has no quotes; CSV may have semicolons or tabs in place of commas; words stand between
spaces, as in CelebA's files."""

Row = tuple[int, list[str | None]]
"""The line on which a row begins, and its cells."""

_PIECE = 2_000  # rows that are Python objects at a time
_LONGEST = 2**30  # characters of a field
_LONGEST_LIST = 200  # characters of a list or an object in a column that nothing else reads
_PICKLE = "a Python pickle, which is never loaded, since it can run any code"
_OTHER_KINDS = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"PAR1": "a Parquet file, where a text file is expected",
    **{bytes([0x80, protocol]): _PICKLE for protocol in range(2, 6)},
}


@dataclass(frozen=True)
class Columns:
    """The columns to read: our name → the names it may have in the table, of which the first one found is taken.

    Attributes:
        required: Every row must have these.
        optional: Left out where the table lacks them; None where a row does.
        roles: What each is for, where JSON tells texts from other values; `other` unless named.
    """

    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Our names, in the order of a row's cells."""
        return [*self.required, *self.optional]

    def found_in(self, names: Iterable[str], origin: str) -> dict[str, str]:
        """Our name → the table's.

        Raises:
            UserError: If a required one is missing; the nearest names are given.
        """
        names = list(names)
        found = {}
        for ours, theirs in {**self.required, **self.optional}.items():
            taken = next((name for name in theirs if name in names), None)
            if taken is not None:
                found[ours] = taken
            elif ours in self.required:
                first, *rest = theirs
                others = f" (or {', '.join(map(repr, rest))})" if rest else ""
                shown = ", ".join(repr(name[:40]) for name in names[:20] if name) or "none"
                raise UserError(
                    f"{origin[:1].upper()}{origin[1:]} has no column '{first}'{others}{did_you_mean(first, names)}; "
                    f"its columns are {shown}."
                )
        return found


def check_text_file(path: Path, parquet: bool = False) -> None:
    """Refuse an empty file, and one that holds something else than text.

    Args:
        path: The file.
        parquet: Whether it isn't to hold text, so that it only mustn't be empty.

    Raises:
        OSError: If it can't be read.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise UserError(f"The file '{path}' is empty (0 bytes).")
    for magic, what in _OTHER_KINDS.items():
        if start.startswith(magic) and not parquet and not (magic == b"\x1f\x8b" and is_packed(path)):
            raise UserError(f"The file '{path}' is {what}.")


@contextmanager
def told(path: Path, encoding: str | None = None, cache: Path | None = None) -> Iterator[None]:
    """What readers of a file raise, in one sentence that names it.

    Args:
        path: The file.
        encoding: How a file of the user's own is written.
        cache: Where a copy of the file is written.
    """
    try:
        yield
    except UnicodeEncodeError as error:  # "\ud83d" alone, in the name of a JSON column
        half = ascii(error.object[error.start])
        raise UserError(f"The file '{path}' holds half a character ({half}), which is not text.") from error
    except UnicodeError as error:
        raise UserError(misread(path, encoding or UTF8, encoding is not None)) from error
    except EOFError as error:  # of gzip
        raise UserError(f"The file '{path}' is truncated: its end is missing.") from error
    except (gzip.BadGzipFile, zlib.error, pa.ArrowInvalid, pa.ArrowException) as error:
        raise UserError(f"The file '{path}' is damaged, truncated or of another kind ({_reason(error)}).") from error
    except OSError as error:
        if error.errno == errno.ENOSPC and cache is not None:
            raise UserError(f"There is no room for a copy of '{path}' in the cache folder '{cache}'.") from error
        raise UserError(f"The file '{path}' could not be read ({error.strerror or _reason(error)}).") from error


def read_header(path: Path, kind: Kind, encoding: str = UTF8) -> list[str]:
    """The names in a file's first line: of its columns, or of its first object's keys."""
    records = json_objects(path, encoding) if kind == "jsonl" else _records(path, kind, encoding)
    return next((list(found) for _, found in records), [])


def read_rows(
    path: Path, kind: Kind, columns: Columns, broken: list[int] | None = None, encoding: str = UTF8
) -> Iterator[Row]:
    """The rows, with the cells of `columns` in their order; None for a cell that a row doesn't have.

    Args:
        path: The file.
        kind: How it is written.
        columns: What to read.
        broken: Takes the lines with too few or too many fields, which are left out then.
        encoding: How its text is encoded.

    Raises:
        UserError: If a required column is missing, or a row is broken and `broken` is None.
    """
    if kind == "jsonl":
        return _json_rows(path, columns, encoding)
    return _split_rows(path, _records(path, kind, encoding), kind, columns, broken)


def row_begins(path: Path, kind: Kind, encoding: str) -> NDArray[np.int64]:
    """The line on which each row begins, shape (N,)."""
    with _long_fields():
        return np.fromiter((line for line, _ in read_rows(path, kind, Columns({}), encoding=encoding)), np.int64)


def text_arrays(rows: Iterator[Row], path: Path) -> Iterator[list[pa.Array]]:
    """A file's rows in Arrow, in pieces, so that not every cell of it is a Python object at once: lines, then texts."""
    while arrays := _next_piece(rows, path):
        yield arrays


def _next_piece(rows: Iterator[Row], path: Path) -> list[pa.Array]:
    with _long_fields():
        piece = list(islice(rows, _PIECE))
    if not piece:
        return []
    lines, cells = zip(*piece, strict=True)
    try:
        return [pa.array(lines, pa.int64()), *(pa.array(column, pa.string()) for column in zip(*cells, strict=True))]
    except UnicodeEncodeError as error:  # "\ud83d" alone, in JSON
        line = next(line for line, of_row in piece if error.object in of_row)
        half = ascii(error.object[error.start])
        raise UserError(
            f"Line {line} of the file '{path}' holds half a character ({half}), which is not text."
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


# ---- CSV, TSV, words ------------------------------------------------------------------------------------------------


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields of any length; the limit is global, so it is set back afterwards."""
    limit = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _records(path: Path, kind: Kind, encoding: str) -> Iterator[tuple[int, list[Any]]]:
    """(line on which it begins, fields) of every row, the header first; blank lines are none."""
    with open_text(path, encoding, "\n" if kind == "words" else "") as file:
        if kind == "csv":
            yield from _quoted(path, file)
            return
        for number, line in enumerate(file, 1) if kind == "words" else _tabbed(file):
            fields = line.split() if kind == "words" else line.rstrip("\r\n").split("\t")
            if fields and fields != [""]:
                yield number, fields


def _tabbed(file: IO[str]) -> Iterator[tuple[int, str]]:
    """(line on which it begins, text) of every row between tabs.

    A carriage return alone ends a row where the first one ends so, or where whole rows stand before and after it; else
    it is a sign of a cell.
    """
    held = file.readline()
    begins, tabs, is_bare = 1, held.count("\t"), held.endswith("\r")
    for number, line in enumerate(file, 2):
        if is_bare or not held.endswith("\r") or min(held.count("\t"), line.count("\t")) >= tabs:
            yield begins, held
            begins, held = number, ""
        held += line
    yield begins, held


def _quoted(path: Path, file: IO[str]) -> Iterator[tuple[int, list[Any]]]:
    first = file.readline()
    delimiter = next((sign for sign in ",;\t" if sign in first), ",")
    reader = csv.reader(chain([first], file), delimiter=delimiter, strict=True)
    begins = 1
    try:
        for fields in reader:
            if fields:
                yield begins, fields
            begins = reader.line_num + 1
    except csv.Error as error:
        reason = str(error).split(" - ")[0]  # what follows is for programmers
        reason += "" if reader.line_num == begins else f" on line {reader.line_num}"
        if "new-line" not in reason:
            reason += "; a quote that is not closed does that too"
        raise UserError(f"Line {begins} of the file '{path}' is not valid CSV ({reason}).") from error


def _split_rows(
    path: Path, records: Iterator[tuple[int, list[Any]]], kind: Kind, columns: Columns, broken: list[int] | None
) -> Iterator[Row]:
    line, header = next(records, (1, []))
    if kind == "words" and len(header) == 1:  # the number of rows; then names, without one for the first column
        header = [columns.names[0], *next(records, (2, []))[1]]
    elif kind == "words":  # no names at all
        records, header = chain([(line, header)], records), columns.names
    found = columns.found_in(header, f"the file '{path}'")
    places = [header.index(found[name]) if name in found else -1 for name in columns.names]
    # some published TSV files leave out empty fields at the end of a line
    needed = [header.index(found[name]) for name in columns.required] if kind == "tsv" else []
    width = len(header)
    fewest = 1 + max(needed) if needed else width
    for line, fields in records:
        if fewest <= len(fields) <= width:
            fields.append(None)  # for columns that the table lacks
            if len(fields) <= width:
                fields += [None] * (width + 1 - len(fields))
            yield line, [fields[place] for place in places]
        elif broken is not None:
            broken.append(line)
        else:
            raise UserError(
                f"Line {line} of the file '{path}' has {count(len(fields), 'field')}, but the first line names "
                f"{width}: it is truncated or damaged."
            )


# ---- JSON -----------------------------------------------------------------------------------------------------------


def json_objects(path: Path, encoding: str = UTF8) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of every line that isn't blank."""
    with open_text(path, encoding, "") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            found: Any = None
            try:
                found = json.loads(line, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                if number > 1 or not line.lstrip().startswith("["):  # else a list over several lines
                    reason = str(error).split(":")[0].lower()
                    raise UserError(f"Line {number} of the file '{path}' is not valid JSON ({reason}).") from error
            if not isinstance(found, dict):
                raise UserError(
                    f"Line {number} of the file '{path}' holds no JSON object: each line must be one, such as {{…}}. "
                    f"Got {line.strip()[:40]!r}."
                )
            yield number, found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


@dataclass
class _JsonColumn:
    """A column of one JSON file; a label's first value tells the kind of all."""

    name: str
    role: Role
    required: bool
    first: tuple[str, int] | None = None  # kind and line

    def text(self, value: Any, line: int, path: Path) -> str | None:
        """The text that stands for a value."""
        place = f"Line {line} of the file '{path}'"
        if self.role == "beside":
            return value if value is None or isinstance(value, str) else json.dumps(value)[:_LONGEST_LIST]
        if isinstance(value, float) and math.isnan(value):
            value = None  # how Python writes a missing number
        if value is None and not self.required:
            return None
        if value is None or isinstance(value, list | dict) or (self.role == "text" and not isinstance(value, str)):
            wanted = "value" if self.role == "other" else self.role
            raise UserError(f"{place} holds {_shown(value)} in '{self.name}', where a {wanted} is expected.")
        if self.role == "label":
            kind = _json_kind(value)
            first, where = self.first = self.first or (kind, line)
            if kind != first:
                raise UserError(
                    f"{place} holds {_shown(value)} in '{self.name}', but line {where} holds a {first}: labels must be "
                    "of one kind."
                )
            if isinstance(value, float) and not value.is_integer():
                what = f"the fraction {value:g}" if math.isfinite(value) else json.dumps(value)
                raise UserError(f"{place} holds {what} in '{self.name}', which is no class.")
        if isinstance(value, float):
            return str(int(value)) if value.is_integer() else repr(value)
        return value if isinstance(value, str) else json.dumps(value)  # true, false, integers


def _json_rows(path: Path, columns: Columns, encoding: str) -> Iterator[Row]:
    keys: Any = None
    made = [_JsonColumn(name, columns.roles.get(name, "other"), name in columns.required) for name in columns.names]
    for line, found in json_objects(path, encoding):
        if found.keys() != keys:
            keys, theirs = found.keys(), columns.found_in(found, f"line {line} of the file '{path}'")
            for ours, column in zip(columns.names, made, strict=True):
                column.name = theirs.get(ours, ours)
        values = [(found.get(column.name), column) for column in made]
        yield (
            line,
            [
                value if isinstance(value, str) and column.role != "label" else column.text(value, line, path)
                for value, column in values
            ],
        )


def _json_kind(value: str | float) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, list | dict):
        return "null" if value is None else "a list or an object"
    return f"the {_json_kind(value)} {json.dumps(value)}"
