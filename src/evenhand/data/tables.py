"""Tables of texts: tab-separated, comma-separated or one JSON object a line, each mistake with its line.

Columns come into Arrow as texts, in pieces, so that a large file is never a Python object for every cell. Nothing here
loads a pickle.

Legend: N rows of a table.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.validation import UserError, did_you_mean

NO_LABEL = ("", "-", "-1")
"""What stands for a missing label in the benchmarks' files: annotators didn't agree, or it is kept secret."""

_PIECE = 50_000  # rows that are Python objects at a time
_OTHER_KINDS = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"PAR1": "a Parquet file, where a text file is expected",
    b"\x80\x02": "a Python pickle, which is never loaded, since it can run any code",
    b"\x80\x03": "a Python pickle, which is never loaded, since it can run any code",
    b"\x80\x04": "a Python pickle, which is never loaded, since it can run any code",
    b"\x80\x05": "a Python pickle, which is never loaded, since it can run any code",
}

Cells = Mapping[str, str | None]


@dataclass(frozen=True)
class Columns:
    """The columns to read: our name → the names it may have in the table, of which the first one found is taken.

    Attributes:
        required: Every row must have these.
        optional: Left out where the table lacks them; None where a row does.
    """

    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
                shown = ", ".join(map(repr, (name[:40] for name in names[:20]))) or "none"
                raise UserError(
                    f"{_upper(origin)} has no column '{first}'{others}{did_you_mean(first, names)}; "
                    f"its columns are {shown}."
                )
        return found


@dataclass(frozen=True)
class Table:
    """Rows as they were read.

    Attributes:
        cells: Columns of texts, and `line`, where each row begins.
        origin: Where they come from, as messages name it: "the file 'x.tsv'".
        skipped: Broken lines that were left out.
    """

    cells: pa.Table
    origin: str
    skipped: int = 0

    def __len__(self) -> int:
        return self.cells.num_rows

    def __contains__(self, name: str) -> bool:
        return name in self.cells.column_names

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of texts."""
        return self.cells.column(name)

    def take(self, row_N: NDArray[np.int64]) -> Table:
        """Some of the rows, in the order given."""
        return Table(self.cells.take(pa.array(row_N)), self.origin, self.skipped)

    def place(self, row: int) -> str:
        """Where a row is, as the beginning of a sentence."""
        return f"Line {self.cells.column('line')[row].as_py()} of {self.origin}"

    def codes(self, name: str) -> tuple[NDArray[np.int64], list[str | None]]:
        """A column as the number of each row's value, shape (N,), and the values in the order they first appear."""
        encoded: Any = self.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()

    def classes(self, name: str, numbers: Mapping[str, int], allow_missing: bool = False) -> NDArray[np.int64]:
        """A column's classes by their numbers, shape (N,); −1 for a missing one, where that is allowed.

        Raises:
            UserError: If a row has another value; its line is named.
        """
        code_N, values = self.codes(name)
        number_of = []
        for code, value in enumerate(values):
            text = (value or "").strip()
            if text in numbers:
                number_of.append(numbers[text])
            elif allow_missing and text in NO_LABEL:
                number_of.append(-1)
            else:
                row = int(np.flatnonzero(code_N == code)[0])
                missing = " (or -1 or - for none)" if allow_missing else ""
                raise UserError(
                    f"{self.place(row)} has the {name} {text[:60]!r}, which is none of "
                    f"{', '.join(numbers)}{missing}{did_you_mean(text, numbers)}."
                )
        return np.array(number_of, dtype=np.int64)[code_N]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers, shape (N,); NaN where a cell is empty.

        Raises:
            UserError: If a cell is no number; its line is named.
        """
        code_N, values = self.codes(name)
        value_of = np.full(len(values), np.nan)
        for code, value in enumerate(values):
            try:
                value_of[code] = float(value) if value and value.strip() else np.nan
            except ValueError:
                row = int(np.flatnonzero(code_N == code)[0])
                raise UserError(f"{self.place(row)} has {value!r} as {name}, which must be a number.") from None
        return value_of[code_N]

    def repeated(self, name: str) -> tuple[int, int] | None:
        """The first row whose value another had before, and that other row; None where all differ."""
        code_N, values = self.codes(name)
        if len(values) == len(self):
            return None
        _, first, inverse_N = np.unique(code_N, return_index=True, return_inverse=True)
        again = int(np.flatnonzero(first[inverse_N] != np.arange(len(self)))[0])
        return again, int(first[inverse_N[again]])


def read_table(path: Path, columns: Columns, skip_broken: bool = False) -> Table:
    """Read columns of a file: .csv is comma-separated with quotes, .jsonl JSON, anything else tab-separated, unquoted.

    Args:
        path: The file, in UTF-8.
        columns: What to read.
        skip_broken: Leave out lines with too few or too many fields, and count them.

    Raises:
        UserError: If the file can't be read, is of another kind, isn't UTF-8, lacks a column, or a line is broken.
    """
    readers = {".csv": _comma_rows, ".jsonl": _json_rows}
    broken: list[int] = []
    try:
        with path.open("rb") as file:
            start = file.read(8)
        for magic, what in _OTHER_KINDS.items():
            if start.startswith(magic):
                raise UserError(f"The file '{path}' is {what}.")
        if path.suffix in readers:
            cells = _arrow(readers[path.suffix](path, columns))
        else:
            cells = _arrow(_tab_rows(path, columns, broken if skip_broken else None))
    except OSError as error:
        raise UserError(f"The file '{path}' could not be read ({error.strerror}).") from error
    if not cells.num_rows:
        raise UserError(f"The file '{path}' holds no rows.")
    return Table(cells, f"the file '{path}'", len(broken))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1, and their line ends."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"Line {number} of the file '{path}' is not UTF-8 (byte {error.start + 1} of the line): "
                    "convert the file to UTF-8."
                ) from error


def _tab_rows(path: Path, columns: Columns, broken: list[int] | None) -> Iterator[tuple[int, Cells]]:
    lines = _lines(path)
    header = next(lines, (1, ""))[1].rstrip("\r\n").split("\t")
    found = columns.found_in(filter(None, header), f"the file '{path}'")
    place = {ours: header.index(name) for ours, name in found.items()}
    needed = 1 + max(place[ours] for ours in columns.required)
    for number, line in lines:
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if needed <= len(fields) <= len(header):
            yield number, {ours: fields[i] if i < len(fields) else None for ours, i in place.items()}
        elif broken is not None:
            broken.append(number)
        else:
            raise UserError(
                f"Line {number} of the file '{path}' has {len(fields)} fields separated by tabs, where the first line "
                f"names {len(header)}: it is truncated or damaged."
            )


def _comma_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Cells]]:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    try:
        header = next(reader, [])
        found = columns.found_in(header, f"the file '{path}'")
        place = {ours: header.index(name) for ours, name in found.items()}
        number = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise UserError(
                    f"Line {number} of the file '{path}' begins a row of {len(fields)} fields, where the first line "
                    f"names {len(header)}: it is truncated or damaged."
                )
            if fields:
                yield number, {ours: fields[i] for ours, i in place.items()}
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"The file '{path}' is truncated or no comma-separated text: {error}, at or before line {reader.line_num}."
        ) from error


def _json_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Cells]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise UserError(f"Line {number} of the file '{path}' is truncated or no JSON ({error}).") from error
        if not isinstance(row, dict):
            raise UserError(f"Line {number} of the file '{path}' holds no JSON object. Got {line.strip()[:40]!r}.")
        found = columns.found_in(row, f"line {number} of the file '{path}'")
        for ours, name in found.items():
            if isinstance(row[name], dict | list) or (row[name] is None and ours in columns.required):
                raise UserError(
                    f"Line {number} of the file '{path}' has no text under '{name}'. Got {row[name]!r:.60}."
                )
        yield number, {ours: None if row[name] is None else str(row[name]) for ours, name in found.items()}


def _arrow(rows: Iterator[tuple[int, Cells]]) -> pa.Table:
    """The rows in Arrow, piece by piece."""
    pieces = []
    while piece := list(islice(rows, _PIECE)):
        names = dict.fromkeys(name for _, cells in piece for name in cells)
        arrays: dict[str, pa.Array] = {
            name: pa.array([cells.get(name) for _, cells in piece], pa.string()) for name in names
        }
        pieces.append(pa.table(arrays | {"line": pa.array([number for number, _ in piece], pa.int64())}))
    return (
        pa.concat_tables(pieces, promote_options="default") if pieces else pa.table({"line": pa.array([], pa.int64())})
    )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
