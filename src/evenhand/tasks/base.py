"""What a task is: data with labels, a stable index, and groups that are known by name.

Columns of every split: the inputs (`pixel_values`, uint8 of shape (channels, height, width), or `text` and perhaps
`text_pair`), `labels`, `index` (the row's number in its split, which stays with the row when the data are shuffled
or selected), and where groups are known `group`, `attribute` and `alignment`, each a ClassLabel with names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.batches import arrow_table
from evenhand.models import BACKBONES, Kind
from evenhand.training import ADAPTER_TUNING, FINE_TUNING, Training
from evenhand.validation import UserError, plain_fields


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
    """

    name: str
    kind: Kind
    train: datasets.Dataset
    validation: datasets.Dataset
    tests: dict[str, datasets.Dataset]
    primary_test: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.primary_test not in self.tests:
            raise UserError(f"The task '{self.name}' has no test set '{self.primary_test}'.")
        for split_name, split in self.splits.items():
            _check_split(self.name, self.kind, split_name, split)

    @property
    def splits(self) -> dict[str, datasets.Dataset]:
        """Every split by name, train first."""
        return {"train": self.train, "validation": self.validation, **self.tests}

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return tuple(self.train.features["labels"].names)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of the images, None for text."""
        if self.kind != "image":
            return None
        channels, height, width = self.train.features["pixel_values"].shape
        return channels, height, width


def membership(split: datasets.Dataset, column: str) -> dict[str, NDArray[np.bool_]]:
    """Name → which rows carry it, each of shape (n,); empty if the split has no such column."""
    if column not in split.column_names:
        return {}
    value_N = column_values(split, column)
    return {name: value_N == i for i, name in enumerate(split.features[column].names)}


def column_values(split: datasets.Dataset, column: str) -> NDArray[Any]:
    """A column of numbers as an array of shape (n,)."""
    return arrow_table(split).column(column).to_numpy()


class TaskSource(ABC):
    """A task that can be built: its construction's settings are the fields of the dataclass that derives from this."""

    name: ClassVar[str]
    summary: ClassVar[str]
    origin: ClassVar[str]
    default_model: ClassVar[str]
    training: ClassVar[dict[str, Training]]
    adapter_training: ClassVar[dict[str, Training]] = {}

    @abstractmethod
    def build(self, data_seed: int) -> Task:
        """Build the task; equal seeds give equal data."""

    def settings(self) -> dict[str, Any]:
        """The construction's settings, without paths (which differ between machines)."""
        return {name: value for name, value in plain_fields(self).items() if name != "data_dir"}

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
        return ADAPTER_TUNING if adapters else FINE_TUNING


def _check_split(task: str, kind: Kind, name: str, split: datasets.Dataset) -> None:
    missing = {"labels", "index", "pixel_values" if kind == "image" else "text"} - set(split.column_names)
    if missing:
        raise UserError(f"The split '{name}' of the task '{task}' has no column {sorted(missing)}.")
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
