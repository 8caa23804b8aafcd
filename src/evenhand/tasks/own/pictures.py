"""Users' own pictures: folders of them, tables that name them, and the check that every one can be read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.cached_tables import (
    cache_folder,
    cached_table,
    check_columns,
    column_names,
    file_digest,
    text_encoding,
)
from evenhand.data.columns import picture_column
from evenhand.data.decoding import PictureError, Scale, decoded_with_scale, is_picture, opened, undecoded
from evenhand.data.folders import files_below, is_file, passed_over, visible
from evenhand.data.rows import arrow_table
from evenhand.tasks.own.columns import SPLITS, split_named
from evenhand.tasks.own.named_pictures import listed_files, texts_digest
from evenhand.tasks.own.parts import Beside, Columns, Part, Place
from evenhand.validation import UserError, count

METADATA = tuple(f"metadata{ending}" for ending in (".csv", ".tsv", ".jsonl", ".parquet"))
FILE_COLUMN = "file_name"
"""The metadata's column of pictures, unless --image names another; their names are relative to the metadata."""

FULLY_CHECKED = 20_000
"""So many pictures are decoded before training; of larger sets a hundredth of so many, and the others' heads."""

MANY_COLOURS, NOT_LOOKED_AT = -1, -2
"""What stands for the colour of a picture that isn't of one colour."""

FOLDER_LABEL = "label"
"""The column of labels that class folders make."""

_AT_ONCE = 256
_ENOUGH = 20  # so many pictures of one colour, of those of a large split that were looked at, stand for all


def picture_files(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted; what is hidden is left out."""
    return [path for path in files_below(folder) if is_picture(path.name)]


def has_pictures(folder: Path) -> bool:
    """Whether there is a picture anywhere below the folder."""
    return any(is_picture(path.name) for path in files_below(folder))


def metadata_files(folder: Path) -> list[Path]:
    """All metadata below a folder, sorted."""
    return [path for path in files_below(folder) if path.name in METADATA]


def folder_digest(folder: Path) -> str:
    """SHA-256 of the pictures' names and sizes and of the metadata."""
    told = [(path, path.stat().st_size) for path in picture_files(folder)]
    told += [(path, file_digest(path)) for path in metadata_files(folder)]
    return texts_digest(f"{path.relative_to(folder).as_posix()}\t{what}\n" for path, what in told)


def folder_roots(folder: Path) -> list[tuple[str | None, Path]]:
    """The folder itself, or its split folders with the split that each name says."""
    entries = visible(folder)
    inner = [entry for entry in entries if entry.is_dir() and has_pictures(entry)]
    splits = [split_named(entry.name) for entry in inner]
    alone = not any(is_picture(entry.name) for entry in entries) and _metadata(folder) is None
    if alone and "train" in splits:
        if None in splits:
            other = inner[splits.index(None)].name
            raise UserError(
                f"The folder '{folder}' holds split folders and '{other}', which names no split: move it away, or "
                "rename the folders if they are classes."
            )
        return list(zip(splits, inner, strict=True))
    return [(None, folder)]


def read_folder(folder: Path, columns: Columns) -> Place:
    """The pictures of a folder, in the column `image`, with what its metadata or class folders say about them.

    Args:
        folder: Class folders, perhaps below train, validation and test, or a metadata file.
        columns: The metadata's columns. Unless named, `file_name` names the files, and `label` has the labels; without
            it the class folders do.
    """
    parts: list[Part] = []
    notes: list[str] = []
    label = FOLDER_LABEL
    read: set[Path] = set()
    roots = folder_roots(folder)
    for split, root in roots:
        table = _metadata(root)
        if table is None:
            found, files = [_class_folders(root, split, columns)], picture_files(root)
            notes += _empty(root)
        else:
            found, label, files = _with_metadata(root, table, columns, split)
            unlisted = {path.resolve() for path in picture_files(root)} - {path.resolve() for path in files}
            if unlisted:
                listing = f"{table.name} doesn't list left out."
                notes.append(f"{count(len(unlisted), 'picture')} of '{root.name}' that {listing}")
            read.add(table)
        parts.extend(found)
        read.update(files)
    notes += _empty(folder) if roots[0][1] != folder else []
    others = (path for path in files_below(folder) if path not in read and not is_picture(path.name))
    return Place(tuple(parts), label, (*notes, *passed_over(folder, others, "pictures")))


def _empty(root: Path) -> list[str]:
    """A note on the folders of classes or splits that hold no picture, so that they are none."""
    empty = [f"'{entry.name}'" for entry in visible(root) if entry.is_dir() and not has_pictures(entry)]
    verb = "holds" if len(empty) == 1 else "hold"
    noun = "folder" if len(empty) == 1 else "folders"
    return [f"The {noun} {', '.join(empty)} of '{root.name}' {verb} no picture that can be read."] if empty else []


def _metadata(root: Path) -> Path | None:
    found = [root / name for name in METADATA if (root / name).is_file()]
    if len(found) > 1:
        raise UserError(f"The folder '{root}' has {' and '.join(p.name for p in found)}: keep one of them.")
    return found[0] if found else None


def _class_folders(root: Path, split: str | None, columns: Columns) -> Part:
    for option, column in replace(columns, image=None).asked(columns.label).items():
        raise UserError(
            f"The folder '{root}' has no metadata file ({', '.join(METADATA)}), so there is no column '{column}', "
            f"given as --{option}."
        )
    files = picture_files(root)
    outside = [path for path in files if path.parent == root]
    if outside:
        raise UserError(
            f"The picture '{outside[0].name}' of '{root}' lies in no class folder ({len(outside):,} in all): put "
            "each picture into a folder named after its class, or add a metadata file (metadata.csv)."
        )
    labels = [path.relative_to(root).parts[0] for path in files]
    return Part(f"'{root.name}'", _pictures(root, files, {FOLDER_LABEL: pa.array(labels, pa.string())}), split)


def _with_metadata(root: Path, table: Path, columns: Columns, split: str | None) -> tuple[list[Part], str, list[Path]]:
    """The rows that a metadata file lists, their column of labels, and the files that it lists."""
    found = column_names(table, columns.encoding)
    image = columns.image or FILE_COLUMN
    columns = replace(columns, image=image)
    label = columns.label or (FOLDER_LABEL if FOLDER_LABEL in found else None)
    check_columns(f"The file '{table}'", columns.asked(label), found)
    listed = Part(f"'{table.name}'", cached_table(table, {**columns.roles(label), image: "text"}, columns.encoding))
    names: list[str | None] = listed.column(image).to_pylist()
    files = listed_files(table, names, columns.outside)
    others = {name: listed.column(name) for name in listed.rows.column_names if name != image}
    if label is None:
        others[FOLDER_LABEL] = pa.array([Path(name or "").parent.name for name in names], pa.string())
    part = replace(
        listed,
        rows=_pictures(root, files, others),
        split=split,
        typed=label is None or table.suffix not in (".csv", ".tsv"),
        encoding=text_encoding(table, columns.encoding),
        beside=Beside(table, columns.used(label), encoding=columns.encoding),
    )
    parts = [part] if split or columns.split else _by_folder(part, names)
    return parts, label or FOLDER_LABEL, files


def _by_folder(part: Part, names: list[str | None]) -> list[Part]:
    """The rows by the split folders that their files lie in, if all do and one is for training."""
    paths = [Path(name or "").parts for name in names]
    splits = [split_named(path[0]) if len(path) > 1 else None for path in paths]
    if "train" not in splits or None in splits:
        return [part]
    parts = []
    for split in dict.fromkeys(splits):
        rows = tuple(i for i, of_row in enumerate(splits) if of_row == split)
        beside = part.beside and replace(part.beside, chosen=rows)
        parts.append(replace(part, rows=part.rows.select(rows), split=split, beside=beside))
    return parts


def _pictures(root: Path, files: list[Path], columns: Mapping[str, Any]) -> datasets.Dataset:
    """Rows of pictures, with each file's name below the root as its `id` unless a column is called so."""
    ids = [os.path.relpath(path, root).replace(os.sep, "/") for path in files]
    others = {name: column for name, column in columns.items() if name != "image"}
    table = pa.table({"image": picture_column(map(str, files))[1], "id": pa.array(ids, pa.string()), **others})
    return datasets.Dataset(table).cast_column("image", datasets.Image())


# ---- every picture can be read --------------------------------------------------------------------------------------


def check_pictures(part: Part, column: str) -> NDArray[np.int64]:
    """Open every picture, unless that was done before.

    Returns:
        The colour of each picture that is of one colour throughout, as a number; `MANY_COLOURS` for the others, and
        `NOT_LOOKED_AT`.

    Raises:
        UserError: If a file is missing or can't be decoded; the first one and their number.
    """
    rows = undecoded(part.rows.select_columns(column))
    digest, missing = _state(rows, column)
    if missing:
        raise UserError(
            f"The picture '{missing[0][1]}', row {missing[0][0] + 1} of {part.where}, is not there "
            f"({len(missing):,} in all)."
        )
    cached = cache_folder() / f"{digest[:32]}.colours.npy"
    try:
        return np.load(cached)
    except (OSError, ValueError, EOFError):  # not there, or damaged
        colour_N = _look_at_all(part, rows, column)
    partial = cached.with_name(f".{cached.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.save(file, colour_N)
    partial.replace(cached)
    return colour_N


def _look_at_all(part: Part, rows: datasets.Dataset, column: str) -> NDArray[np.int64]:
    """Decode all pictures of a small set; of a large one some, and of the others only the heads."""
    every = 1 if len(rows) <= FULLY_CHECKED else len(rows) // max(1, FULLY_CHECKED // 100)
    looks: list[_Look] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(rows), _AT_ONCE):
            batch = rows[start : start + _AT_ONCE][column]
            looks += pool.map(_look, batch, [(start + i) % every == 0 for i in range(len(batch))])
    broken = [row for row, look in enumerate(looks) if look.fault]
    if broken:
        row, path = broken[0], looks[broken[0]].path
        name = f"The picture '{path}', row {row + 1} of {part.where}," if path else f"Row {row + 1} of {part.where}"
        raise UserError(f"{name} can't be read as a picture: {looks[row].fault} ({len(broken):,} in all).")
    scales: dict[Scale, int] = {}
    for row, look in enumerate(looks):
        if look.scale is not None:
            scales.setdefault(look.scale, row)
    for (mode, white), row in scales.items():
        for other, other_row in scales.items():
            if other[0] == mode and other[1] != white:
                raise UserError(
                    f"The pictures of {part.where} of mode {mode} go up to {white} (row {row + 1}) and up to "
                    f"{other[1]} (row {other_row + 1}), so nothing says what is white: save them with 8 or 16 bits."
                )
    return np.array([look.colour for look in looks], dtype=np.int64)


class _Look(NamedTuple):
    """What was seen of a picture: why it can't be read (None if it can), its one colour, its scale, its file."""

    fault: str | None
    colour: int = NOT_LOOKED_AT
    scale: Scale | None = None
    path: str = ""


def _look(stored: dict[str, Any] | None, whole: bool) -> _Look:
    path = (stored or {}).get("path") or ""
    try:
        if not whole:
            with opened(stored):
                return _Look(None)
        rgb, scale = decoded_with_scale(stored)
    except PictureError as error:
        return _Look(error.reason, path=path)
    ranges: Any = rgb.getextrema()
    one = all(low == high for low, high in ranges)
    return _Look(None, int.from_bytes(low for low, _ in ranges) if one else MANY_COLOURS, scale, path)


def check_colours(
    where: str, colour_N: NDArray[np.int64], split_N: NDArray[np.int8], kept_N: NDArray[np.bool_]
) -> list[str]:
    """Refuse a split whose pictures are all of one colour, and count those that are.

    Args:
        where: The part that the pictures are of.
        colour_N: As `check_pictures` gave them.
        split_N: Their splits' places in `SPLITS`; −1 where none is said.
        kept_N: Which rows count.

    Returns:
        A note where pictures are of one colour throughout.

    Raises:
        UserError: If all pictures of a split are of the same colour; of a large set, all of those looked at.
    """
    for split in np.unique(split_N[kept_N]):
        rows_N = kept_N & (split_N == split)
        seen = colour_N[rows_N & (colour_N != NOT_LOOKED_AT)]
        enough = len(seen) == rows_N.sum() or len(seen) >= _ENOUGH
        if enough and len(set(seen)) == 1 and seen[0] >= 0:
            of_split = f" of the {SPLITS[split]} split" if split >= 0 else ""
            raise UserError(
                f"All {len(seen):,} pictures{of_split} of {where} that were looked at are of one colour throughout, "
                f"#{seen[0]:06x}, so they show nothing."
            )
    blank, seen = int((kept_N & (colour_N >= 0)).sum()), int((kept_N & (colour_N != NOT_LOOKED_AT)).sum())
    verb = "is" if blank == 1 else "are"
    return [f"{blank:,} of the {count(seen, 'picture')} of {where} {verb} of one colour throughout."] if blank else []


def _state(rows: datasets.Dataset, column: str) -> tuple[str, list[tuple[int, str]]]:
    """A digest of the files' names, sizes and times (of the rows themselves where they hold bytes); missing files."""
    digest, missing = hashlib.sha256(), []
    stored: Any = arrow_table(rows).column(column)
    embedded = stored.type.get_field_index("bytes") >= 0 and any(
        chunk.field("bytes").null_count < len(chunk) for chunk in stored.chunks
    )
    if embedded:
        return hashlib.sha256(rows._fingerprint.encode()).hexdigest(), []
    names: Iterable[str | None] = (name for chunk in stored.chunks for name in chunk.field("path").to_pylist())
    for row, name in enumerate(names):
        if not name or not is_file(Path(name)):
            missing.append((row, name or ""))
            continue
        state = Path(name).stat()
        digest.update(json.dumps([Path(name).name, state.st_size, state.st_mtime_ns]).encode())
    return digest.hexdigest(), missing
