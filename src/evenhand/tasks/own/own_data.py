"""own-data: a user's own table, folder or data set of the hub; nothing about its shortcuts need be known."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import TEXT_COLUMNS
from evenhand.data.encodings import check_encoding
from evenhand.data.origins import Origins
from evenhand.data.rows import arrow_table
from evenhand.files import Files, plain_name
from evenhand.shortcuts.several import given_rules, parse_all
from evenhand.tasks.base import BesideColumns, Task, TaskSource
from evenhand.tasks.own.copies import copy_notes
from evenhand.tasks.own.origins import split_origins
from evenhand.tasks.own.parts import Columns, Place, columns_beside
from evenhand.tasks.own.pictures import has_pictures
from evenhand.tasks.own.places import is_local, place_digest, place_files, read_place
from evenhand.tasks.own.rows import Labelled, labelled, split_rows, task_rows
from evenhand.tasks.shortcuts import with_shortcuts
from evenhand.tasks.summary import data_summary
from evenhand.tasks.text.splits import MINILM
from evenhand.training.settings import Training
from evenhand.validation import UserError, check_integer

logger = logging.getLogger(__name__)

_PATHS = ("data", "validation_data", "test_data")


@dataclass(frozen=True)
class Whole:
    """All rows of the data together.

    Attributes:
        task: The rows that count, as each of its splits.
        ids: The names of all rows, those without a label or text too.
        kept: Which of these the task has, in its order.
    """

    task: Task
    ids: tuple[str, ...]
    kept: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class OwnData(TaskSource):
    """Your own data: a table (CSV, TSV, JSONL, Parquet), a folder of tables or pictures, or a name on the hub.

    Splits are taken from the data where they have some: a column (`split`), files or folders named train, validation
    and test, the hub's splits. What is missing is drawn from the training rows, class by class, by the data's seed:
    20 % for test, 10 % for validation. Groups are class × value of a column; methods never see them, they are measured.

    Attributes:
        data: File, folder, or name on the Hugging Face hub (untried: the project's tests have no network).
        text: Column of the texts; two of them for pairs.
        image: Column of pictures or of their files' names, relative to the table; a folder of pictures needs none.
        label: Column of the labels; `label` unless given, and in a folder of pictures the folders' names.
        group: Columns that make groups for the evaluation; with several they overlap.
        split: Column that says train, validation or test.
        validation_data: File or folder of the validation split.
        test_data: File or folder of the test split.
        id: Column of the rows' own names, all different.
        drop_incomplete: Leave out rows without a label (empty, or -1 beside other numbers) or text, and say how many.
        allow_outside: Read pictures that a table names outside its folder, by `..`, a path from the root, or a link.
        encoding: How tables of text are encoded, such as cp1252; UTF-8, UTF-16 or Windows-1252, as is found, if None.
        image_side: Models without a processor of their own get pictures scaled to so many pixels a side.
        hub_config: Configuration of the hub's data set.
        revision: Its branch, tag or commit.
        shortcuts: Shortcuts that have a name, by their spellings (`token:nimbus`, `column:product`) or from Python.
    """

    data: Path | str | None = None
    text: tuple[str, ...] | str = ()
    image: str | None = None
    label: str | None = None
    group: tuple[str, ...] | str = ()
    split: str | None = None
    validation_data: Path | str | None = None
    test_data: Path | str | None = None
    id: str | None = None
    drop_incomplete: bool = False
    allow_outside: bool = False
    encoding: str | None = None
    image_side: int = 64
    hub_config: str | None = None
    revision: str | None = None
    shortcuts: Any = ()

    name: ClassVar[str] = "own-data"
    summary: ClassVar[str] = "your own table, folder of pictures, or data set of the hub (--data, --text or --image)"
    origin: ClassVar[str] = "the user's own"
    licence: ClassVar[str] = "the user's own"
    bias: ClassVar[str] = "unknown, unless --group names columns"
    metric: ClassVar[str] = "accuracy on the test split; worst group where --group names columns"
    default_model: ClassVar[str] = "MiniLM"
    picture_model: ClassVar[str] = "digits-cnn"
    training: ClassVar[dict[str, Training]] = {
        "MiniLM": replace(MINILM, epochs=3),
        "digits-cnn": Training(epochs=30, lr=1e-3, batch_size=64),
        "pgd-cnn": Training(epochs=30, lr=1e-3, batch_size=64),
        "mlp": Training(epochs=30, lr=1e-3, batch_size=64),
    }
    adapter_training: ClassVar[dict[str, Training]] = {"MiniLM": replace(training["MiniLM"], epochs=5, lr=1e-3)}

    def __post_init__(self) -> None:
        if self.data is None:
            raise UserError(
                "The task 'own-data' needs data: name a file, a folder or a data set of the hub with --data."
            )
        for field in ("text", "group"):
            value = getattr(self, field)
            # one name may stand without brackets
            object.__setattr__(self, field, (value,) if isinstance(value, str) else tuple(value))
        object.__setattr__(self, "shortcuts", given_rules(self.shortcuts))
        parse_all(self.shortcuts)
        if len(self.text) > 2:
            raise UserError(f"The 'text' parameter of own-data takes one or two columns. Got {len(self.text)}.")
        if self.text and self.image is not None:
            raise UserError("Own data are texts or pictures: give --text or --image, not both.")
        for what, names in (("text", list(self.text)), ("group", list(self.group))):
            if len(set(names)) < len(names):
                raise UserError(f"The '{what}' parameter of own-data names the column '{names[0]}' twice.")
        check_integer(self.name, "image_side", self.image_side, 4, 4096)
        if self.text and self.image_side != type(self).image_side:
            raise UserError("The 'image_side' parameter of own-data is for pictures, and the data are texts.")
        for field in ("hub_config", "revision"):
            if getattr(self, field) is not None and is_local(str(self.data)):
                raise UserError(f"The '{field}' parameter of own-data is for the hub, but '{self.data}' is a file.")
        if self.encoding is not None:
            object.__setattr__(self, "encoding", check_encoding(self.name, self.encoding))
        for field in ("image", "label", "split", "id"):
            if not isinstance(getattr(self, field), str | None):
                raise UserError(
                    f"The '{field}' parameter of own-data must be a column's name. Got {getattr(self, field)!r}."
                )

    @classmethod
    def from_settings(
        cls,
        settings: Mapping[str, Any],
        given: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
    ) -> Self:
        """The data that a record tells of; where files lie must be given, since it doesn't say.

        Raises:
            UserError: If a file isn't given, or isn't the one that the record tells of.
        """
        digests = settings.get("sha256", {})  # of a record that was made before all tasks told their files
        for name in digests:
            if name not in (given or {}):
                raise UserError(
                    f"The data were '{settings[name]}': say where they are with --{name.replace('_', '-')}."
                )
        source = super().from_settings(settings, given, files)
        for name, digest in digests.items():
            if source.settings()["sha256"].get(name) != digest:
                raise UserError(
                    f"'{getattr(source, name)}' doesn't hold what '{settings[name]}' held when the run was trained."
                )
        return source

    @property
    def kind(self) -> Any:
        """`text` or `image`."""
        return "text" if self.text or (self.image is None and not self._is_picture_folder) else "image"

    @property
    def usual_model(self) -> str:
        """A text encoder or a small vision model, as the data are."""
        return self.default_model if self.kind == "text" else self.picture_model

    def build(self, data_seed: int) -> Task:
        """Read and check the data, and split them; equal seeds give equal splits.

        Raises:
            UserError: One sentence for the first thing that is wrong with the data.
        """
        places = self._places()
        data = self._labelled(places)
        splits, notes = split_rows(data, data_seed)
        rows = task_rows(data, splits)
        beside = partial(columns_beside, [part for place in places for part in place.parts], splits)
        task = self.task(
            rows,
            (*data.notes, *notes),
            image_side=self.image_side,
            beside=beside,
            origins=partial(split_origins, data.parts, splits),
            called=dict(zip(TEXT_COLUMNS, self.text, strict=False)),
            reserved=self._reserved(places[0].label),
        )
        task = replace(task, notes=(*task.notes, *data_summary(task).warnings))
        return with_shortcuts(task, self.shortcuts) if self.shortcuts else task

    def _reserved(self, label: str) -> dict[str, str]:
        """The user's columns that can't be a shortcut, and what they are."""
        named = {label: "the label", self.id: "the name of the row", self.split: "the split"}
        # the rows hold the group's value by another name, too
        named |= dict.fromkeys((*self.group, *(["attribute"] if self.group else [])), "the group")
        return {name: what for name, what in named.items() if name is not None}

    def whole(self, label_names: Sequence[str] | None = None) -> Whole:
        """All of the data, whatever split they name, as a task whose every split is all rows: nothing is drawn.

        Args:
            label_names: The classes of a model, which all labels must be among; None: those of the data.

        Raises:
            UserError: One sentence for the first thing that is wrong with the data.
        """
        places = self._places()
        data = self._labelled(places, label_names)
        rows = task_rows(data, {"all": data.kept})["all"]
        task = self.task(
            {"train": rows, "validation": rows, "all": rows},
            (*data.notes, *copy_notes(data.content_N, data.label_N, {"train": data.kept}, data.what)),
            image_side=self.image_side,
            beside=lambda _: columns_beside(data.parts, {"all": data.kept}, "all"),
            origins=lambda _: split_origins(data.parts, {"all": data.kept}, "all"),
            called=dict(zip(TEXT_COLUMNS, self.text, strict=False)),
            reserved=self._reserved(places[0].label),
        )
        ids = arrow_table(data.inputs.select_columns("id")).column("id").to_pylist()
        return Whole(task, tuple(map(str, ids)), data.kept)

    def one_split(self, label_names: Sequence[str] | None) -> datasets.Dataset:
        """All of `data` as one split, to measure a trained model on; what its reader must know is logged.

        Args:
            label_names: The model's classes; labels that are none of them are refused. None: those of the data.
        """
        return self.located_split(label_names)[0]

    def located_split(self, label_names: Sequence[str] | None) -> tuple[datasets.Dataset, Origins]:
        """The split of `one_split`, and where its rows lie."""
        data = self._labelled(self._places()[:1], label_names)
        for note in (*data.notes, *copy_notes(data.content_N, data.label_N, {"train": data.kept}, data.what)):
            logger.warning(note)
        rows = {"all": data.kept}
        return task_rows(data, rows)["all"], split_origins(data.parts, rows, "all")

    def beside_one(self, label_names: Sequence[str] | None) -> BesideColumns:
        """The columns beside the rows of `one_split`."""
        places = self._places()[:1]
        data = self._labelled(places, label_names)
        return columns_beside(list(places[0].parts), {"all": data.kept}, "all")

    def data_files(self) -> dict[str, Files | None]:
        """The tables and pictures of each option; None for a name on the hub."""
        found: dict[str, Files | None] = {}
        for name in self._given_paths:
            try:
                found[name] = place_files(str(getattr(self, name)), self._columns)
            except (UserError, OSError):
                found[name] = None
        return found

    def settings_beside(self, files: Mapping[str, Files]) -> dict[str, Any]:
        """The options that were given; what the files hold stands beside them."""
        if not files:
            return self.settings()
        return {name: plain_name(value) if name in files else value for name, value in self.options().items()}

    def same_content(self, option: str, record: Mapping[str, Any]) -> bool:
        """Whether the files of an option are those that a record tells of."""
        told = (record.get("files") or {}).get(option)
        if told is not None:
            found = self.data_files().get(option)
            return found is not None and found.sha256 == told["sha256"]
        former = record["task"]["settings"].get("sha256", {})
        return option in former and former[option] == self.settings()["sha256"].get(option)

    def settings(self) -> dict[str, Any]:
        """The options that were given, with a digest of the files, as records had them before they told of files."""
        digests = {name: place_digest(str(getattr(self, name)), self._columns) for name in self._given_paths}
        return self.options() | {"sha256": {name: digest for name, digest in digests.items() if digest is not None}}

    def options(self) -> dict[str, Any]:
        """The options that were given; files and folders by their names alone."""
        given = super().options()
        given.pop("shortcuts", None)  # part of a run, whatever its task
        for name in self._given_paths:
            path = str(given[name])
            given[name] = Path(path).expanduser().absolute().name if is_local(path) else Path(path).as_posix()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def places(self) -> dict[str, str]:
        """Files and folders by their paths from the root; a name on the hub is none."""
        given = {name: str(getattr(self, name)) for name in self._given_paths}
        return {name: str(Path(path).expanduser().absolute()) for name, path in given.items() if is_local(path)}

    @property
    def _given_paths(self) -> list[str]:
        return [name for name in _PATHS if getattr(self, name) is not None]

    @cached_property
    def _is_picture_folder(self) -> bool:
        path = Path(str(self.data)).expanduser()
        return path.is_dir() and has_pictures(path)

    @property
    def _columns(self) -> Columns:
        return Columns(
            tuple(self.text),
            self.image,
            self.label,
            tuple(self.group),
            self.split,
            self.id,
            self.allow_outside,
            self.encoding,
        )

    def _places(self) -> list[Place]:
        places = [read_place(str(self.data), self._columns, self.hub_config, self.revision)]
        columns = replace(self._columns, split=None)
        for field, split in (("validation_data", "validation"), ("test_data", "test")):
            path = getattr(self, field)
            if path is None:
                continue
            place = read_place(str(path), replace(columns, label=places[0].label), None, None)
            places.append(replace(place, parts=tuple(replace(part, split=split) for part in place.parts)))
            _check_given_once(places[0], self.split, field, split)
        if self.encoding is not None and all(part.encoding is None for place in places for part in place.parts):
            raise UserError(
                "The 'encoding' parameter of own-data is for tables of text (CSV, TSV, JSONL), and the data have none."
            )
        return places

    def _labelled(self, places: list[Place], names: Sequence[str] | None = None) -> Labelled:
        return labelled(places, self._columns, self.drop_incomplete, names)


def _check_given_once(first: Place, column: str | None, field: str, split: str) -> None:
    named = {part.split for part in first.parts}
    if split in named or column is not None:
        raise UserError(
            f"The option --{field.replace('_', '-')} gives a {split} split, but the data "
            f"{'name one themselves' if split in named else f'are split by the column {column!r}'}: give one of them."
        )
