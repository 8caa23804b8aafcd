"""Rows with the same content, byte for byte: how many there are, so that none falls on both sides of a drawn split.

Legend: N rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.rows import arrow_table
from evenhand.files import content_digest
from evenhand.validation import count


def content_numbers(inputs: datasets.Dataset, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each row's content, shape (N,), the same for copies; −1 for rows that aren't kept."""
    columns = [name for name in ("text", "text_pair", "image") if name in inputs.column_names]
    stored = arrow_table(inputs.select_columns(columns).select(kept))
    contents = [_pictures(stored.column(name)) if name == "image" else _texts(stored.column(name)) for name in columns]
    numbers: dict[Any, int] = {}
    number_N = np.full(len(inputs), -1, dtype=np.int64)
    number_N[kept] = [numbers.setdefault(content, len(numbers)) for content in zip(*contents, strict=True)]
    return number_N


def _texts(column: Any) -> Iterator[bytes]:
    for chunk in column.chunks:
        for text in chunk.to_pylist():
            yield _short(text.encode())


def _short(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _pictures(column: Any) -> Iterator[bytes]:
    """What tells pictures apart: their bytes, which files of a size of their own needn't be read for."""
    paths = [path for chunk in column.chunks for path in chunk.field("path").to_pylist()]
    held = (content for chunk in column.chunks for content in chunk.field("bytes"))
    sizes = [Path(path).stat().st_size if path and Path(path).is_file() else -1 for path in paths]
    many = Counter(sizes)
    for path, size, content in zip(paths, sizes, held, strict=True):
        if content.is_valid:
            yield _short(content.as_buffer())
        else:
            yield bytes.fromhex(content_digest(Path(path))) if many[size] > 1 else size.to_bytes(8, "little")


def copy_notes(
    number_N: NDArray[np.int64], label_N: NDArray[np.int64], splits: Mapping[str, NDArray[np.int64]], what: str
) -> list[str]:
    """How many rows repeat another row's content, and how many of the other splits are among the training rows.

    Args:
        number_N: The content of each row by its number.
        label_N: The class of each row.
        splits: The rows of each split.
        what: What the content is: a text, a pair of texts or a picture.
    """
    rows = np.concatenate(list(splits.values()))
    different = len(np.unique(number_N[rows]))
    labelled = len(np.unique(number_N[rows] * (label_N.max() + 1) + label_N[rows]))
    notes = []
    if different < len(rows):
        repeat = f"{count(len(rows) - different, 'row')} repeat{'s' * (len(rows) - different == 1)}"
        notes.append(
            f"{repeat} the {what} of an earlier one: {len(rows) - labelled:,} with the same label and "
            f"{labelled - different:,} with another one."
        )
    for name in [name for name in splits if name != "train"]:
        again = int(np.isin(number_N[splits[name]], number_N[splits["train"]]).sum())
        if again:
            notes.append(
                f"The {name} split has {count(again, 'row')} whose {what} is among the training rows too, so its "
                "numbers partly tell what was remembered."
            )
    return notes
