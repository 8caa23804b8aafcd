"""What a task is: data with labels, a stable index, and groups that are known by name.

Columns of every split: the inputs, `labels`, `index` (the row's number in its split, which stays with the row when
the data are shuffled or selected), perhaps `id` (the user's own name for the row), and where groups are known `group`,
`attribute` and `alignment`, each a ClassLabel with names. Where groups overlap, `group` is a datasets.List of
ClassLabel: a row is in as many as it names. Inputs are `text` and perhaps `text_pair`; or images of one size,
`pixel_values` (uint8 of shape (channels, height, width)); or pictures of any size, `image` (datasets.Image), which are
decoded when they are read.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.columns import Inputs, column_values
from evenhand.data.folders import files_below
from evenhand.data.origins import Origins
from evenhand.files import Files, read_files
from evenhand.models.small_transformers import ARCHITECTURES
from evenhand.models.small_vision import BACKBONES
from evenhand.models.source import Kind
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.tasks.splits import compared
from evenhand.training.settings import ADAPTER_TUNING, FINE_TUNING, FROM_SCRATCH, Training
from evenhand.validation import Range, UserError, check_fields, plain_fields

Share = Annotated[float, Range(0, 1)]
"""A part of the whole, such as of conflicting samples."""


@dataclass(frozen=True)
class BesideColumns:
    """The columns beside a split's inputs and labels, read one at a time.

    Attributes:
        names: Those that hold one value a row.
        column: A column by name, in the split's order.
        nested: Names of those that hold lists, objects, pictures or bytes.
    """

    names: tuple[str, ...]
    column: Callable[[str], pa.ChunkedArray]
    nested: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """Data to train, validate and test on.

    Attributes:
        name: The task's name.
        kind: `image` or `text`.
        train: Training split.
        validation: Validation split, drawn like the training split (so it is biased if that is).
        tests: Test sets by name.
        primary_test: Name of the test set whose metrics head every report.
        notes: What a reader of the result must know about the data, one sentence each.
        image_side: Pixels a side to which pictures of any size are scaled for models without their own processor.
        merged: For a test set that has other classes than the model: test set → the model's class → the test's class
            that it counts as. The predicted class (the model's most probable one) is mapped, not the probabilities.
        beside: Split → what the user's data say of its rows in further columns, which no model reads; None where there
            is nothing.
        called: The user's names of the columns `text` and `text_pair`, where they are others.
        reserved: Further columns that can't be a shortcut, and what they are.
        shortcuts: The shortcuts that have a name; None where none has.
        origins: Split → where its rows lie in the user's files; None where the data are of no files of theirs.
    """

    name: str
    kind: Kind
    train: datasets.Dataset
    validation: datasets.Dataset
    tests: dict[str, datasets.Dataset]
    primary_test: str
    notes: tuple[str, ...] = ()
    image_side: int = 64
    merged: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    beside: Callable[[str], BesideColumns] | None = None
    called: Mapping[str, str] = field(default_factory=dict)
    reserved: Mapping[str, str] = field(default_factory=dict)
    shortcuts: NamedShortcuts | None = None
    origins: Callable[[str], Origins] | None = None

    def __post_init__(self) -> None:
        if self.primary_test not in self.tests:
            raise UserError(f"The task '{self.name}' has no test set '{self.primary_test}'.")
        for split_name, split in self.splits.items():
            _check_split(self.name, self.kind, split_name, split)
        for test_name, mapping in self.merged.items():
            self._check_merged(test_name, mapping)

    @property
    def splits(self) -> dict[str, datasets.Dataset]:
        """Every split by name, train first."""
        return {"train": self.train, "validation": self.validation, **self.tests}

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return tuple(self.train.features["labels"].names)

    def test_classes(self, split_name: str) -> NDArray[np.int64] | None:
        """The split's class that each of the model's classes counts as, shape (C,); None where they are the same."""
        if split_name not in self.merged:
            return None
        names = self.splits[split_name].features["labels"].names
        mapping = self.merged[split_name]
        return np.array([names.index(mapping[label]) for label in self.label_names])

    def _check_merged(self, test_name: str, mapping: Mapping[str, str]) -> None:
        if test_name not in self.tests:
            raise UserError(f"The task '{self.name}' has no test set '{test_name}' whose classes could be merged.")
        names = self.tests[test_name].features["labels"].names
        if set(mapping) != set(self.label_names) or not set(mapping.values()) <= set(names):
            raise UserError(
                f"The classes merged for the test set '{test_name}' of the task '{self.name}' must map each of "
                f"{', '.join(self.label_names)} to one of {', '.join(names)}. Got {dict(mapping)}."
            )

    @property
    def inputs(self) -> Inputs:
        """What a method's augmentation meets: texts, images of one size, or pictures of any size."""
        return "pictures" if self.kind == "image" and self.has_pictures else self.kind

    @property
    def has_pictures(self) -> bool:
        """Whether the images are pictures of any size, decoded when they are read."""
        return "image" in self.train.column_names

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of the images as small models get them, None for text."""
        if self.kind != "image":
            return None
        if self.has_pictures:
            return 3, self.image_side, self.image_side
        channels, height, width = self.train.features["pixel_values"].shape
        return channels, height, width


class TaskSource(ABC):
    """A task that can be built: its construction's settings are the fields of the dataclass that derives from this.

    Attributes:
        name: The task's name.
        summary: What it is, in one line.
        origin: Where the data come from, and whose construction it is.
        licence: The data's licence, as stated at their source.
        files: What must lie in --data-dir and where it comes from, as the end of a sentence; empty if none is needed.
        bias: Which shortcut leaks which label, in one sentence.
        metric: What the literature reports on it, and on which test set.
        default_model: The model that is trained unless another is named.
        training: The settings shipped for each model.
        adapter_training: The settings shipped for each model with adapters.
        published: Published sizes, as `expected_counts()` has them.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    origin: ClassVar[str]
    licence: ClassVar[str]
    files: ClassVar[str] = ""
    bias: ClassVar[str]
    metric: ClassVar[str]
    default_model: ClassVar[str]
    training: ClassVar[dict[str, Training]]
    adapter_training: ClassVar[dict[str, Training]] = {}
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def __post_init__(self) -> None:
        check_fields(self.name, self)

    @abstractmethod
    def build(self, data_seed: int) -> Task:
        """Build the task; equal seeds give equal data.

        Raises:
            UserError: If a file is missing or damaged, or holds something else than the task's data.
        """

    def task(
        self,
        splits: Mapping[str, datasets.Dataset],
        notes: Iterable[str] = (),
        expected: Mapping[str, Mapping[str, int]] | None = None,
        **more: Any,
    ) -> Task:
        """The task that these splits make, with a note that says which counts differ from the published ones.

        Args:
            splits: The splits by name: train, validation, and the tests, of which the first heads every report.
            notes: What a reader of the result must know about the data.
            expected: The published counts, where they are others than `expected_counts()`.
            more: Further fields of `Task`.
        """
        tests = {name: split for name, split in splits.items() if name not in ("train", "validation")}
        differing = compared(splits, self.expected_counts() if expected is None else expected)
        shown = "; ".join(str(count) for count in differing if not count.ok)
        return Task(
            name=self.name,
            kind="text" if "text" in splits["train"].column_names else "image",
            train=splits["train"],
            validation=splits["validation"],
            tests=tests,
            primary_test=next(iter(tests)),
            notes=(*notes, *([f"Counts differ from the published ones: {shown}."] if shown else [])),
            **more,
        )

    @property
    def folder(self) -> Path | None:
        """The folder given as `data_dir`; None where none was."""
        given = getattr(self, "data_dir", None)
        return None if given is None else Path(given)

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """Published sizes: split → its samples as `n`, and those of groups or alignments by name; {} if none are."""
        return {split: dict(sizes) for split, sizes in self.published.items()}

    def read_paths(self, folder: Path) -> Iterable[Path]:
        """The files that are read of the folder given as `data_dir`; all visible ones unless a task knows better.

        Raises:
            UserError: If one is missing.
        """
        return (path for path in files_below(folder) if path.is_file())

    def data_files(self) -> dict[str, Files | None]:
        """What the task reads, by the option that says where it lies; {} for a task that reads no files.

        None stands for files that are unknown: the hub's, or some that can't be read, as building the task will tell.
        """
        if "data_dir" not in {f.name for f in dataclasses.fields(self)}:  # type: ignore[arg-type]
            return {}
        try:
            return {"data_dir": None if self.folder is None else read_files(self.read_paths(self.folder))}
        except (UserError, OSError):
            return {"data_dir": None}

    @classmethod
    def from_settings(
        cls,
        settings: Mapping[str, Any],
        given: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
    ) -> Self:
        """The task that a record describes, to be built again.

        Args:
            settings: As `settings()` gave them, perhaps read back from JSON.
            given: What they leave out, such as `data_dir`, or what is to be taken in their place.
            files: What the record says of the files that were read: option → as `Files.as_dict()` gave it.

        Raises:
            UserError: If the task has no such setting, a setting is wrong, or the files aren't those of the record.
        """
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in given or {}:
            if name not in known:
                raise UserError(f"The task '{cls.name}' has no option '--{name.replace('_', '-')}'.")
        made_with = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k in known}
        places = {name: place for name, place in (given or {}).items() if name in (files or {})}
        for option, told in (files or {}).items():
            if told is not None and option in known:
                cls._check_files(option, told, made_with, places)
        return cls(**(made_with | dict(given or {})))

    @classmethod
    def _check_files(
        cls, option: str, told: Mapping[str, Any], made_with: Mapping[str, Any], places: Mapping[str, Any]
    ) -> None:
        """Refuse other files than the record's; whatever else is asked of the task, it is read with its settings."""
        if option not in places:
            more = f" and {told['count'] - 1:,} more files" if told["count"] > 1 else ""
            raise UserError(
                f"The data were '{made_with.get(option) or told['listed'][0]['name']}'{more}: say where they are with "
                f"--{option.replace('_', '-')}."
            )
        found = cls(**{**made_with, **places}).data_files().get(option)
        if found is not None and found.sha256 != told["sha256"]:
            name = f"'{made_with[option]}'" if made_with.get(option) else "the folder"
            raise UserError(
                f"'{places[option]}' doesn't hold what {name} held when the run was trained"
                f"{_first_difference(told, found.as_dict())}."
            )

    @property
    def usual_model(self) -> str:
        """The model that is trained unless another is named, for the inputs that the task has with these settings."""
        return self.default_model

    def options(self) -> dict[str, Any]:
        """The settings that differ from their defaults, as the command line has them; folders of data are left out."""
        changed = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) != f.default
        }
        return {name: value for name, value in changed.items() if name != "data_dir"}

    def places(self) -> dict[str, str]:
        """Where the task's files lie on this machine: the options that name them, with paths from the root."""
        if self.folder is None:
            return {}
        folder = self.folder if self.folder.exists() else self.folder.expanduser()
        return {"data_dir": str(folder.absolute())}

    def settings(self) -> dict[str, Any]:
        """The construction's settings, without paths (which differ between machines)."""
        return {name: value for name, value in plain_fields(self).items() if name != "data_dir"}

    def settings_beside(self, files: Mapping[str, Files]) -> dict[str, Any]:
        """The construction's settings where a description of the files read stands beside them."""
        del files  # the user's own data have a digest of theirs among the settings otherwise
        return self.settings()

    def training_for(self, model: str, adapters: bool = False) -> Training:
        """The settings shipped for a model on this task, trained whole or with adapters; general ones for a checkpoint.

        Raises:
            UserError: If the model is a small one for which this task ships no settings.
        """
        shipped = self.adapter_training if adapters else self.training
        if model in shipped:
            return shipped[model]
        if model in BACKBONES:
            raise UserError(
                f"The task '{self.name}' ships no training settings for the model '{model}', "
                f"only for {', '.join(self.training)} and pretrained checkpoints."
            )
        if model in ARCHITECTURES:
            return FROM_SCRATCH
        return ADAPTER_TUNING if adapters else FINE_TUNING


def _first_difference(told: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The first entry in which two descriptions of files differ, in brackets."""
    ours = {entry["name"]: entry for entry in found["listed"]}
    theirs = {entry["name"]: entry for entry in told["listed"]}
    for name in [*theirs, *ours]:
        if ours.get(name) != theirs.get(name):
            return f" ('{name}' {'is missing' if name not in ours else 'is new' if name not in theirs else 'differs'})"
    return ""


def _check_split(task: str, kind: Kind, name: str, split: datasets.Dataset) -> None:
    inputs = ("pixel_values", "image") if kind == "image" else ("text",)
    missing = [column for column in ("labels", "index") if column not in split.column_names]
    if not set(inputs) & set(split.column_names):
        missing.append(" or ".join(inputs))
    if missing:
        raise UserError(f"The split '{name}' of the task '{task}' has no column {', '.join(missing)}.")
    if not len(split):
        raise UserError(f"The split '{name}' of the task '{task}' is empty.")
    if not isinstance(split.features["labels"], datasets.ClassLabel):
        raise UserError(
            f"The column 'labels' of the split '{name}' of the task '{task}' must be a datasets.ClassLabel, which "
            f"names the classes. Got {split.features['labels']}."
        )
    label_N = column_values(split, "labels")
    without = np.flatnonzero(np.isnan(label_N.astype(np.float64)))  # a missing label is read as NaN
    if len(without):
        raise UserError(
            f"The split '{name}' of the task '{task}' has rows without a label: row {without[0]} "
            f"({len(without)} such rows)."
        )
    num_classes = len(split.features["labels"].names)
    outside = np.flatnonzero((label_N < 0) | (label_N >= num_classes))
    if len(outside):
        raise UserError(
            f"The split '{name}' of the task '{task}' has labels outside its {num_classes} classes: "
            f"row {outside[0]} is {label_N[outside[0]]} ({len(outside)} such rows)."
        )
    if name == "train" and len(np.unique(label_N)) < 2:
        raise UserError(f"The training split of the task '{task}' has one class only, so there is nothing to learn.")
