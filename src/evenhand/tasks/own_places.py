"""Where users' own data lie: a table, a folder of tables or of pictures, or a name on the Hugging Face hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from evenhand.batches import silent_datasets
from evenhand.files import Files, read_files
from evenhand.tasks.own_beside import HubColumns, TableColumns
from evenhand.tasks.own_columns import Part, split_named
from evenhand.tasks.own_formats import is_table, table_format
from evenhand.tasks.own_images import (
    as_pictures,
    folder_digest,
    has_pictures,
    metadata_files,
    named_pictures,
    picture_files,
    read_folder,
    table_pictures_digest,
)
from evenhand.tasks.own_reading import (
    Role,
    check_columns,
    column_names,
    file_digest,
    read_table,
)
from evenhand.validation import UserError

_LABELS = ("label", "labels")  # the column of labels unless one is named


@dataclass(frozen=True)
class Columns:
    """The columns that the user names.

    Attributes:
        text: One or two columns of texts.
        image: A column of pictures or their files.
        label: The column of labels; None for `label` or, in folders of pictures, the class folders.
        group: Columns of groups.
        split: A column that names each row's split.
        id: A column of the rows' own names.
    """

    text: tuple[str, ...]
    image: str | None
    label: str | None
    group: tuple[str, ...]
    split: str | None
    id: str | None

    @property
    def others(self) -> dict[str, str]:
        """Option → column, of those that aren't inputs or labels."""
        named = {"split": self.split, "id": self.id}
        groups = {("group" if i == 0 else f"group (number {i + 1})"): name for i, name in enumerate(self.group)}
        return {**groups, **{option: name for option, name in named.items() if name is not None}}

    def asked(self, label: str) -> dict[str, str]:
        """Option → column, of a table whose column of labels is known."""
        texts = {("text" if i == 0 else "text (the second)"): name for i, name in enumerate(self.text)}
        image = {"image": self.image} if self.image else {}
        return {**texts, **image, "label": label, **self.others}

    def used(self, label: str) -> tuple[str, ...]:
        """The columns that are inputs, labels, splits or names of rows; a group is none of these."""
        named = (*self.text, self.image, label, self.split, self.id)
        return tuple(name for name in named if name is not None)

    def roles(self, label: str) -> dict[str, Role]:
        """Column → what it is for."""
        roles: dict[str, Role] = dict.fromkeys(self.asked(label).values(), "other")
        roles[label] = "label"
        roles.update(dict.fromkeys(self.text, "text"))
        return roles


@dataclass(frozen=True)
class Place:
    """What was read.

    Attributes:
        parts: The rows, by file or split.
        label: Their column of labels.
        notes: What a reader of the result must know.
    """

    parts: tuple[Part, ...]
    label: str
    notes: tuple[str, ...] = ()


def read_place(data: str, columns: Columns, hub_config: str | None, revision: str | None) -> Place:
    """Read data wherever they lie.

    Raises:
        UserError: If they can't be read, or lack a column.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        if not columns.text and has_pictures(path):
            parts, notes, label = read_folder(path, columns.image, columns.label, columns.others)
            return Place(tuple(parts), label, tuple(notes))
        _check_inputs(columns, f"The folder '{path}'", None)
        return _folder_of_tables(path, columns)
    if path.is_file() or _looks_like_a_file(data):
        _check_inputs(columns, f"The file '{path}'", column_names(path))
        part, label = _table(path, columns, None)
        return Place((part,), label)
    _check_inputs(columns, f"The data '{data}'", None)
    return _from_hub(data, columns, hub_config, revision)


def place_files(data: str, columns: Columns) -> Files | None:
    """The tables and pictures that a file or folder stands for; None for the hub.

    Raises:
        UserError: If they aren't there, or are none that can be read.
        OSError: If one can't be read.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        if not columns.text and has_pictures(path):
            return read_files([*picture_files(path), *metadata_files(path)], path)
        return read_files([entry for entry in path.iterdir() if entry.is_file() and is_table(entry)], path)
    if not path.is_file():
        return None
    pictures = [] if columns.image is None else named_pictures(path, columns.image)
    return read_files([path, *pictures], path.parent)


def place_digest(data: str, columns: Columns) -> str | None:
    """What tells the content of a file or folder from another; None for the hub, where name and revision do."""
    path = Path(data).expanduser()
    if path.is_dir():
        if not columns.text and has_pictures(path):
            return folder_digest(path)
        tables = sorted(entry for entry in path.iterdir() if entry.is_file() and is_table(entry))
        return _joined([f"{table.name} {file_digest(table)}" for table in tables])
    if path.is_file() or _looks_like_a_file(data):
        table_format(path)
        if columns.image is None:
            return file_digest(path)
        check_columns(f"The file '{path}'", {"image": columns.image}, column_names(path))
        return _joined([file_digest(path), table_pictures_digest(path, columns.image)])
    return None


def is_local(data: str) -> bool:
    """Whether the data are a file or folder, so that their name alone doesn't say where they are."""
    return Path(data).expanduser().exists() or _looks_like_a_file(data)


def _joined(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _looks_like_a_file(data: str) -> bool:
    """The hub's names are NAME or OWNER/NAME."""
    ending = Path(data.lower().removesuffix(".gz")).suffix
    known = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".zip", ".tar", ".gz", ".pkl", ".xlsx", ".txt")
    return data.startswith((".", "/", "~")) or data.count("/") > 1 or "\\" in data or ending in known


def _check_inputs(columns: Columns, where: str, found: list[str] | None) -> None:
    if not columns.text and columns.image is None:
        listed = f" (its columns are {', '.join(found)})" if found else ""
        raise UserError(f"{where} needs the name of the column of texts, --text, or of pictures, --image{listed}.")


# ---- files ----------------------------------------------------------------------------------------------------------


def _label_of(columns: Columns, where: str, found: list[str]) -> str:
    label = columns.label or next((name for name in _LABELS if name in found), None)
    if label is None:
        raise UserError(
            f"{where} has no column 'label': name the column of labels with --label; its columns are "
            f"{', '.join(found)}."
        )
    return label


def _table(path: Path, columns: Columns, split: str | None) -> tuple[Part, str]:
    where = f"The file '{path}'"
    found = column_names(path)
    label = _label_of(columns, where, found)
    check_columns(where, columns.asked(label), found)
    kind = table_format(path)
    beside = TableColumns(path, columns.used(label))
    rows = read_table(path, columns.roles(label))
    part = Part(f"'{path.name}'", rows, split, kind not in ("csv", "tsv"), beside=beside)
    if columns.image is not None:
        part = replace(part, rows=as_pictures(part, columns.image, path.parent))
    return part, label


def _folder_of_tables(folder: Path, columns: Columns) -> Place:
    tables = sorted(entry for entry in folder.iterdir() if entry.is_file() and is_table(entry))
    if not tables:
        raise UserError(f"The folder '{folder}' holds no tables (CSV, TSV, JSONL, Parquet) and no pictures.")
    if len(tables) == 1:
        part, label = _table(tables[0], columns, None)
        return Place((part,), label)
    named: dict[str, Path] = {}
    skipped = []
    for table in tables:
        split = split_named(table.name.split(".")[0])
        if split is None:
            skipped.append(table.name)
        elif split in named:
            raise UserError(f"The folder '{folder}' has both '{named[split].name}' and '{table.name}': keep one.")
        else:
            named[split] = table
    if "train" not in named:
        raise UserError(
            f"The folder '{folder}' holds {', '.join(t.name for t in tables)}, none of which is named train: give one "
            "file with --data, or name them train, validation and test."
        )
    read = [_table(table, columns, split) for split, table in named.items()]
    notes = [f"The files {', '.join(skipped)} of '{folder.name}' are of no split and were left out."] if skipped else []
    return Place(tuple(part for part, _ in read), read[0][1], tuple(notes))


# ---- the hub --------------------------------------------------------------------------------------------------------


def _from_hub(name: str, columns: Columns, config: str | None, revision: str | None) -> Place:
    try:
        with silent_datasets():
            loaded: Any = datasets.load_dataset(name, config, revision=revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"'{name}' is no file or folder here, and the Hugging Face hub was tried for a data set of that name "
            f"without success ({type(error).__name__}: {reason}); without a network, give a file or folder with "
            f"--data, such as what `hf download --repo-type dataset {name}` fetched elsewhere."
        ) from error
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
        part = Part(
            where=f"the split '{split}' of '{name}'",
            rows=rows.select_columns(list(columns.roles(label))),
            split=known,
            is_hub=True,
            beside=HubColumns(rows, columns.used(label)),
        )
        for text in columns.text:
            held = getattr(rows.features[text], "dtype", "no text")
            if "string" not in held:
                raise UserError(f"The column '{text}' of the data set '{name}' holds {held}, no text.")
        if columns.image is not None:
            part = replace(part, rows=as_pictures(part, columns.image, None))
        parts.append(part)
    return Place(tuple(parts), label, tuple(notes))
