"""Tables of texts in Arrow, each mistake in them with its line.

Legend: N rows of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.text_rows import Columns as Columns
from evenhand.data.text_rows import Kind, check_text_file, read_rows, text_arrays, told
from evenhand.validation import UserError, did_you_mean

NO_LABEL = ("", "-", "-1")
"""What stands for a missing label in the benchmarks' files: annotators didn't agree, or it is kept secret."""

_KINDS: dict[str, Kind] = {".csv": "csv", ".jsonl": "jsonl"}


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

    def whole_numbers(self, name: str, allowed: Sequence[int]) -> NDArray[np.int64]:
        """A column of some whole numbers, shape (N,).

        Raises:
            UserError: If a cell is empty or holds something else; its line is named.
        """
        number_N = self.numbers(name)
        wrong = np.flatnonzero(~np.isin(number_N, allowed))
        if len(wrong):
            value = self.column(name)[int(wrong[0])].as_py() or ""
            raise UserError(
                f"{self.place(int(wrong[0]))} has {value!r} as {name}, which must be one of "
                f"{', '.join(map(str, allowed))} ({len(wrong):,} such rows)."
            )
        return number_N.astype(np.int64)

    def repeated(self, name: str) -> tuple[int, int] | None:
        """The first row whose value another had before, and that other row; None where all differ."""
        code_N, values = self.codes(name)
        if len(values) == len(self):
            return None
        _, first, inverse_N = np.unique(code_N, return_index=True, return_inverse=True)
        again = int(np.flatnonzero(first[inverse_N] != np.arange(len(self)))[0])
        return again, int(first[inverse_N[again]])


def read_table(path: Path, columns: Columns, skip_broken: bool = False, kind: Kind | None = None) -> Table:
    """Read columns of a file.

    Args:
        path: The file, in UTF-8.
        columns: What to read.
        skip_broken: Leave out lines with too few or too many fields, and count them.
        kind: How it is written; None: .csv as CSV, .jsonl as JSON, anything else as TSV.

    Raises:
        UserError: If the file can't be read, is of another kind, isn't UTF-8, lacks a column, or a line is broken.
    """
    kind = kind or _KINDS.get(path.suffix, "tsv")
    broken: list[int] = []
    names = ["line", *columns.names]
    with told(path):
        check_text_file(path)
        rows = read_rows(path, kind, columns, broken if skip_broken else None)
        pieces = [pa.Table.from_arrays(arrays, names=names) for arrays in text_arrays(rows, path)]
    if not pieces:
        raise UserError(f"The file '{path}' has no rows.")
    cells = pa.concat_tables(pieces)
    lacking = [name for name in columns.optional if cells.column(name).null_count == len(cells)]
    return Table(cells.drop_columns(lacking), f"the file '{path}'", len(broken))
