"""Where users' own data lie: a table, a folder of tables or of pictures, or a name on the Hugging Face hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import datasets

from evenhand.data.cached_tables import (
    READABLE,
    cached_table,
    check_columns,
    column_names,
    file_digest,
    is_table,
    named_columns,
    table_format,
    text_encoding,
)
from evenhand.data.folders import passed_over, visible
from evenhand.data.hub import load_from_hub
from evenhand.data.rows import silent_datasets
from evenhand.files import Files, read_files
from evenhand.tasks.own.columns import split_named
from evenhand.tasks.own.named_pictures import as_pictures, named_pictures, table_pictures_digest
from evenhand.tasks.own.parts import Beside, Columns, Part, Place
from evenhand.tasks.own.pictures import (
    folder_digest,
    has_pictures,
    metadata_files,
    picture_files,
    read_folder,
)
from evenhand.validation import UserError

_LABELS = ("label", "labels")  # the column of labels unless one is named


def read_place(data: str, columns: Columns, hub_config: str | None, revision: str | None) -> Place:
    """Read data wherever they lie.

    Raises:
        UserError: If they can't be read, or lack a column.
    """
    kind, path = _found(data, columns)
    if kind == "pictures":
        return read_folder(path, columns)
    if not columns.text and columns.image is None:
        where = {"tables": f"The folder '{path}'", "table": f"The file '{path}'", "hub": f"The data '{data}'"}[kind]
        listed = f" (its columns are {named_columns(column_names(path, columns.encoding))})" if kind == "table" else ""
        raise UserError(f"{where} needs the name of the column of texts, --text, or of pictures, --image{listed}.")
    if kind == "tables":
        return _folder_of_tables(path, columns)
    if kind == "table":
        part, label = _table(path, columns, None)
        return Place((part,), label)
    return _from_hub(data, columns, hub_config, revision)


def place_files(data: str, columns: Columns) -> Files | None:
    """The tables and pictures that a file or folder stands for; None for the hub.

    Raises:
        UserError: If they aren't there, or are none that can be read.
        OSError: If one can't be read.
    """
    kind, path = _found(data, columns)
    if kind == "pictures":
        return read_files([*picture_files(path), *metadata_files(path)], path)
    if kind == "tables":
        return read_files(_tables(path), path)
    if not path.is_file():
        return None
    return read_files(
        [path, *([] if columns.image is None else named_pictures(path, columns.image, columns))], path.parent
    )


def place_digest(data: str, columns: Columns) -> str | None:
    """What tells the content of a file or folder from another; None for the hub, where name and revision do."""
    kind, path = _found(data, columns)
    if kind == "pictures":
        return folder_digest(path)
    if kind == "hub":
        return None
    if kind == "tables":
        parts = [f"{table.name} {file_digest(table)}" for table in _tables(path)]
    else:
        table_format(path)
        if columns.image is None:
            return file_digest(path)
        parts = [file_digest(path), table_pictures_digest(path, columns.image, columns)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_local(data: str) -> bool:
    """Whether the data are a file or folder, so that their name alone doesn't say where they are."""
    # the hub's names are NAME or OWNER/NAME
    ending = Path(data.lower().removesuffix(".gz")).suffix
    known = (*READABLE, ".zip", ".tar", ".gz", ".pkl", ".xlsx", ".txt")
    looks = data.startswith((".", "/", "~")) or data.count("/") > 1 or "\\" in data or ending in known
    return looks or Path(data).expanduser().exists()


def _found(data: str, columns: Columns) -> tuple[Literal["pictures", "tables", "table", "hub"], Path]:
    path = Path(data).expanduser()
    if path.is_dir():
        return "pictures" if not columns.text and has_pictures(path) else "tables", path
    return "table" if is_local(data) else "hub", path


# ---- files ----------------------------------------------------------------------------------------------------------


def _label_of(columns: Columns, where: str, found: list[str]) -> str:
    label = columns.label or next((name for name in _LABELS if name in found), None)
    if label is None:
        raise UserError(
            f"{where} has no column 'label': name the column of labels with --label; its columns are "
            f"{named_columns(found)}."
        )
    return label


def _table(path: Path, columns: Columns, split: str | None) -> tuple[Part, str]:
    given = columns.encoding
    where = f"The file '{path}'" + ("" if given is None else f", read as {given} by --encoding,")
    found = column_names(path, given)
    label = _label_of(columns, where, found)
    check_columns(where, columns.asked(label), found)
    part = Part(
        where=f"'{path.name}'",
        rows=cached_table(path, columns.roles(label), given),
        split=split,
        typed=table_format(path) not in ("csv", "tsv"),
        encoding=text_encoding(path, given),
        beside=Beside(path, columns.used(label), encoding=given),
    )
    return _with_pictures(part, columns, path), label


def _with_pictures(part: Part, columns: Columns, table: Path | None) -> Part:
    if columns.image is None:
        return part
    return replace(part, rows=as_pictures(part, columns.image, table, columns.outside))


def _tables(folder: Path) -> list[Path]:
    return [entry for entry in visible(folder) if entry.is_file() and is_table(entry)]


def _folder_of_tables(folder: Path, columns: Columns) -> Place:
    tables = _tables(folder)
    if not tables:
        raise UserError(f"The folder '{folder}' holds no tables (CSV, TSV, JSONL, Parquet) and no pictures.")
    others = passed_over(folder, (entry for entry in visible(folder) if entry not in tables), "tables")
    if len(tables) == 1:
        part, label = _table(tables[0], columns, None)
        return Place((part,), label, tuple(others))
    named: dict[str, Path] = {}
    for table in tables:
        split = split_named(table.name.split(".")[0])
        if split in named:
            raise UserError(f"The folder '{folder}' has both '{named[split].name}' and '{table.name}': keep one.")
        if split is not None:
            named[split] = table
    if "train" not in named:
        raise UserError(
            f"The folder '{folder}' holds {', '.join(t.name for t in tables)}, none of which is named train: give one "
            "file with --data, or name them train, validation and test."
        )
    read = [_table(table, columns, split) for split, table in named.items()]
    left = ", ".join(table.name for table in tables if table not in named.values())
    notes = [f"The files {left} of '{folder.name}' are of no split and were left out."] if left else []
    return Place(tuple(part for part, _ in read), read[0][1], (*notes, *others))


# ---- the hub --------------------------------------------------------------------------------------------------------


def _from_hub(name: str, columns: Columns, config: str | None, revision: str | None) -> Place:
    def refusal(why: str) -> str:
        return (
            f"'{name}' is no file or folder here, and the Hugging Face hub was tried for a data set of that name "
            f"without success ({why}); without a network, give a file or folder with --data, such as what `hf download "
            f"--repo-type dataset {name}` fetched elsewhere."
        )

    with silent_datasets():
        loaded = load_from_hub(refusal, name, config, revision=revision)
    return hub_place(name, loaded, columns)


def hub_place(name: str, loaded: Mapping[str, datasets.Dataset], columns: Columns) -> Place:
    """The splits of a data set of the hub as parts; those of other names than train, validation, test are left out."""
    named: dict[str, str] = {}
    for split in loaded:
        known = split_named(split)
        if known is not None:
            named.setdefault(known, split)
    if "train" not in named:
        raise UserError(f"The data set '{name}' of the hub has no split 'train' (it has {', '.join(loaded)}).")
    left = [split for split in loaded if split not in named.values()]
    notes = [f"The splits {', '.join(left)} of {name} were not used."] if left else []
    parts = []
    label = ""
    for known, split in named.items():
        rows = loaded[split]
        where = f"The split '{split}' of '{name}'"
        label = _label_of(columns, where, rows.column_names)
        check_columns(where, columns.asked(label), rows.column_names)
        for text in columns.text:
            held = getattr(rows.features[text], "dtype", "no text")
            if "string" not in held:
                raise UserError(f"The column '{text}' of the data set '{name}' holds {held}, no text.")
        part = Part(
            where=f"the split '{split}' of '{name}'",
            rows=rows.select_columns(list(columns.roles(label))),
            split=known,
            is_hub=True,
            beside=Beside(rows, columns.used(label)),
        )
        parts.append(_with_pictures(part, columns, None))
    return Place(tuple(parts), label, tuple(notes))
