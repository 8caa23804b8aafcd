"""Users' own pictures: folders of them, tables that name them, and the check that every one can be read."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from PIL import Image

from evenhand.data.cached_tables import (
    cache_folder,
    cached_table,
    check_columns,
    column_names,
    file_digest,
    text_encoding,
)
from evenhand.data.columns import picture_column
from evenhand.data.rows import arrow_table
from evenhand.files import PICTURES
from evenhand.tasks.own.columns import split_named
from evenhand.tasks.own.parts import Beside, Columns, Part, Place
from evenhand.validation import UserError, count

METADATA = tuple(f"metadata{ending}" for ending in (".csv", ".tsv", ".jsonl", ".parquet"))
FILE_COLUMN = "file_name"
"""The metadata's column of pictures, unless --image names another; their names are relative to the metadata."""

FULLY_CHECKED = 20_000
"""So many pictures are decoded before training; of larger sets only the files' heads are read."""

FOLDER_LABEL = "label"
"""The column of labels that class folders make."""

_AT_ONCE = 256


def picture_files(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted; what is hidden is left out."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place) / n for n in names if n.lower().endswith(PICTURES) and not n.startswith(".")]
    return sorted(found)


def has_pictures(folder: Path) -> bool:
    """Whether there is a picture anywhere below the folder."""
    return any(name.lower().endswith(PICTURES) for _, _, names in os.walk(folder) for name in names)


def metadata_files(folder: Path) -> list[Path]:
    """All metadata below a folder, sorted."""
    return sorted(path for name in METADATA for path in folder.rglob(name))


def named_pictures(table: Path, column: str, encoding: str | None) -> list[Path]:
    """The pictures that a table names and that are there; none where it holds pictures itself."""
    return [path for name in _names(table, column, encoding) if name and (path := table.parent / name).is_file()]


def folder_digest(folder: Path) -> str:
    """SHA-256 of the pictures' names and sizes and of the metadata."""
    told = [(path, path.stat().st_size) for path in picture_files(folder)]
    told += [(path, file_digest(path)) for path in metadata_files(folder)]
    return _digest(f"{path.relative_to(folder).as_posix()}\t{what}\n" for path, what in told)


def table_pictures_digest(table: Path, column: str, encoding: str | None) -> str:
    """SHA-256 of the names and sizes of the pictures that a table names; of a table that holds them itself, none."""
    paths = [(name, table.parent / (name or "")) for name in _names(table, column, encoding)]
    return _digest(f"{name}\t{path.stat().st_size if path.is_file() else None}\n" for name, path in paths)


def _names(table: Path, column: str, encoding: str | None) -> list[str | None]:
    check_columns(f"The file '{table}'", {"image": column}, column_names(table, encoding))
    stored: Any = arrow_table(cached_table(table, {column: "other"}, encoding)).column(column)
    return stored.to_pylist() if _is_text(stored.type) else []


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def folder_roots(folder: Path) -> list[tuple[str | None, Path]]:
    """The folder itself, or its split folders with the split that each name says."""
    inner = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and has_pictures(entry)]
    splits = [split_named(entry.name) for entry in inner]
    alone = not any(entry.name.lower().endswith(PICTURES) for entry in folder.iterdir()) and _metadata(folder) is None
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
    for split, root in folder_roots(folder):
        table = _metadata(root)
        if table is None:
            parts.append(_class_folders(root, split, columns))
            continue
        found, label, unlisted = _with_metadata(root, table, columns, split)
        if unlisted:
            notes.append(f"{count(unlisted, 'picture')} of '{root.name}' that {table.name} doesn't list left out.")
        parts.extend(found)
    return Place(tuple(parts), label, tuple(notes))


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


def _with_metadata(root: Path, table: Path, columns: Columns, split: str | None) -> tuple[list[Part], str, int]:
    """The rows that a metadata file lists, their column of labels, and the number of pictures that it doesn't list."""
    found = column_names(table, columns.encoding)
    image = columns.image or FILE_COLUMN
    columns = replace(columns, image=image)
    label = columns.label or (FOLDER_LABEL if FOLDER_LABEL in found else None)
    check_columns(f"The file '{table}'", columns.asked(label), found)
    listed = Part(f"'{table.name}'", cached_table(table, {**columns.roles(label), image: "text"}, columns.encoding))
    names: list[str | None] = listed.column(image).to_pylist()
    files = [root / (name or "") for name in names]
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
    unlisted = {path.resolve() for path in picture_files(root)} - {path.resolve() for path in files}
    return parts, label or FOLDER_LABEL, len(unlisted)


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


def as_pictures(part: Part, column: str, base: Path | None) -> datasets.Dataset:
    """The rows with a column of file names, or of pictures as bytes, as pictures; names are relative to `base`.

    Raises:
        UserError: If the column holds something else.
    """
    rows = part.rows
    feature: Any = rows.features[column]
    if isinstance(feature, datasets.Image):
        return rows
    stored = rows.features.arrow_schema.field(column).type
    if _is_text(stored) and base is not None:
        files = picture_column(str(base / (name or "")) for name in part.column(column).to_pylist())[1]
        pictures = datasets.Dataset(pa.table({column: files}))
        others = rows.remove_columns(column)
        rows = datasets.concatenate_datasets([pictures, others], axis=1) if others.column_names else pictures
    elif not (pa.types.is_binary(stored) or (pa.types.is_struct(stored) and stored.get_field_index("bytes") >= 0)):
        raise UserError(f"The column '{column}' of {part.where} holds {stored}, but file names or pictures are needed.")
    return rows.cast_column(column, datasets.Image())


# ---- every picture can be read --------------------------------------------------------------------------------------


def check_pictures(part: Part, column: str) -> None:
    """Open every picture, unless that was done before.

    Raises:
        UserError: If a file is missing or can't be decoded; the first one and their number.
    """
    rows = part.rows.select_columns(column).cast_column(column, datasets.Image(decode=False))
    whole = len(rows) <= FULLY_CHECKED
    digest, missing = _state(rows, column)
    if missing:
        raise UserError(
            f"The picture '{missing[0][1]}', row {missing[0][0] + 1} of {part.where}, is not there "
            f"({len(missing):,} in all)."
        )
    marker = cache_folder() / f"{digest[:32]}.pictures-checked"
    if marker.exists():
        return
    broken: list[tuple[int, str, str]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(rows), _AT_ONCE):
            batch = rows[start : start + _AT_ONCE][column]
            faults = pool.map(_fault, batch, [whole] * len(batch))
            broken += [
                (start + i, (batch[i] or {}).get("path") or "", fault) for i, fault in enumerate(faults) if fault
            ]
    if broken:
        row, path, fault = broken[0]
        name = f"The picture '{path}', row {row + 1} of {part.where}," if path else f"Row {row + 1} of {part.where}"
        raise UserError(f"{name} can't be read as a picture: {fault} ({len(broken):,} in all).")
    marker.touch()


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
        path = Path(name or "")
        if not name or not path.is_file():
            missing.append((row, name or ""))
            continue
        state = path.stat()
        digest.update(json.dumps([path.name, state.st_size, state.st_mtime_ns]).encode())
    return digest.hexdigest(), missing


def _fault(stored: dict[str, Any] | None, whole: bool) -> str | None:
    """Why a picture can't be read; None if it can."""
    if not stored or not (stored["bytes"] or stored["path"]):
        return "there is none"
    try:
        with Image.open(io.BytesIO(stored["bytes"]) if stored["bytes"] else stored["path"]) as picture:
            if whole:
                picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if stored["path"] and not stored["bytes"] and Path(stored["path"]).stat().st_size == 0:
            return "it has 0 bytes"
        reason = str(error).split("\n")[0].rstrip(".")
        return "no known format" if "cannot identify" in reason else reason
    return None
