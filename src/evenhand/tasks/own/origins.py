"""Where the rows of users' own data lie: the file, the row's number as errors count it, and its line.

Legend: N rows of a part or of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.data.cached_tables import row_lines
from evenhand.data.origins import Origins
from evenhand.tasks.own.parts import Part
from evenhand.validation import UserError


def split_origins(parts: Sequence[Part], splits: Mapping[str, NDArray[Any]], split: str) -> Origins:
    """Where the rows of a split lie.

    Args:
        parts: All parts, in the order in which their rows are counted.
        splits: Split → its rows among those of all parts.
        split: The split.
    """
    names = _short_names([path for part in parts if (path := _table(part)) is not None])
    found = [_of_part(part, names) for part in parts]
    rows = splits[split]
    return Origins(*(np.concatenate(of_parts)[rows] for of_parts in zip(*found, strict=True)))


def _of_part(part: Part, names: Mapping[Path, str]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    size = len(part.rows)
    none_N = np.zeros(size, dtype=np.int64)
    table = _table(part)
    if part.beside is None:  # class folders: each row is a file
        within = "" if part.split is None else f"{part.where.strip(chr(39))}/"
        files = [f"{within}{name}" for name in part.column("id").to_pylist()]
        return np.array(files, dtype=object), none_N, none_N
    chosen = part.beside.chosen
    row_N = np.arange(size) if chosen is None else np.array(chosen, dtype=np.int64)
    name = part.where.removeprefix("the ") if table is None else names[table]
    line_N = none_N if table is None else _lines(table, part.beside.encoding, row_N)
    return np.full(size, name, dtype=object), row_N + 1, line_N


def _table(part: Part) -> Path | None:
    """The table that the rows are of; None for pictures of class folders and for the hub."""
    return part.beside.source if part.beside is not None and isinstance(part.beside.source, Path) else None


def _lines(table: Path, encoding: str | None, row_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows' lines; 0 where the table has none, or is no longer what it was when its rows were read."""
    try:
        found = row_lines(table, encoding)
    except (UserError, OSError):  # nothing may fail for want of a line's number after a training
        found = None
    return np.zeros_like(row_N) if found is None or row_N.max(initial=-1) >= len(found) else found[row_N]


def _short_names(tables: Sequence[Path]) -> dict[Path, str]:
    """What tells tables apart: their names, with the folders around them where two are called the same."""
    whole = {path: path.absolute().parts for path in tables}
    for length in range(1, max(map(len, whole.values()), default=0) + 1):
        names = {path: "/".join(parts[-length:]) for path, parts in whole.items()}
        if len(set(names.values())) == len(set(whole.values())):
            return names
    return {}
