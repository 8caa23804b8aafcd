"""Splits of texts: labels, groups and alignment as columns, a tenth held out, and what differs from published sizes.

Legend: N rows of a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.tasks.base import Task, membership
from evenhand.training import FINE_TUNING, Training

ALIGNMENTS = ("aligned", "conflicting", "independent")

HELD_OUT = 10
"""One row of so many, class by class, validates where no file holds the validation rows."""

MINILM = Training(
    epochs=2, lr=1e-4, batch_size=32, optimizer="adamw", schedule="linear", max_grad_norm=1.0, max_length=128
)
"""For MiniLM on sentence pairs: found on biased-snli, not tuned on any other task."""

MINILM_ADAPTERS = replace(MINILM, lr=1e-3, batch_size=64)
"""The same for adapters."""

PAIR_TUNING = replace(FINE_TUNING, max_length=128)
"""For a checkpoint on sentence pairs: the defaults of transformers' examples, which Clark et al. (2019) and Utama et
al. (2020) also take for BERT on MNLI (5e-5, batches of 32, 3 epochs, 128 tokens)."""

PAIR_ADAPTERS = Training(
    epochs=15,
    lr=3e-4,
    batch_size=64,
    optimizer="adamw",
    weight_decay=0.1,
    schedule="linear",
    max_grad_norm=1.0,
    max_length=128,
)
"""EDGE's released settings for LoRA on roberta-base, on SNLI."""


@dataclass(frozen=True)
class Classes:
    """A column of classes.

    Attributes:
        names: Name of each class.
        value_N: Class of each row, shape (N,); −1 for none.
    """

    names: tuple[str, ...]
    value_N: NDArray[np.int64]

    def take(self, row_N: NDArray[np.int64]) -> Classes:
        """Some of the rows."""
        return Classes(self.names, self.value_N[row_N])


@dataclass(frozen=True)
class Overlapping:
    """A column of groups that overlap.

    Attributes:
        names: Name of each group.
        member_NG: Which rows are in which groups, shape (N, groups).
    """

    names: tuple[str, ...]
    member_NG: NDArray[np.bool_]


Texts: TypeAlias = pa.Array | pa.ChunkedArray


def text_split(
    text: Texts,
    labels: Classes,
    *,
    pair: Texts | None = None,
    ids: Texts | None = None,
    attribute: Classes | None = None,
    alignment_N: NDArray[np.int64] | None = None,
    group: Classes | Overlapping | None = None,
) -> datasets.Dataset:
    """A split in Arrow, with the columns that tasks have.

    Args:
        text: The texts.
        labels: Their classes.
        pair: The second text of each pair.
        ids: The source's own name of each row.
        attribute: What leaks the label.
        alignment_N: 0, 1, 2 for aligned, conflicting, independent, shape (N,).
        group: The evaluation groups.
    """
    columns: dict[str, tuple[Any, Any]] = {"text": (datasets.Value("string"), text)}
    if pair is not None:
        columns["text_pair"] = (datasets.Value("string"), pair)
    if ids is not None:
        columns["id"] = (datasets.Value("string"), ids)
    columns["labels"] = _class_column(labels)
    if attribute is not None:
        columns["attribute"] = _class_column(attribute)
    if alignment_N is not None:
        columns["alignment"] = _class_column(Classes(ALIGNMENTS, alignment_N))
    if group is not None:
        columns["group"] = _class_column(group) if isinstance(group, Classes) else _list_column(group)
    columns["index"] = (datasets.Value("int64"), pa.array(np.arange(len(labels.value_N))))
    features = datasets.Features({name: feature for name, (feature, _) in columns.items()})
    arrays = [array for _, array in columns.values()]
    return datasets.Dataset(pa.Table.from_arrays(arrays, schema=features.arrow_schema))


def crossed(labels: Classes, attribute: Classes, between: str = ", ") -> Classes:
    """The groups label × attribute, "label, attribute"; rows without one or the other are in none."""
    names = tuple(f"{label}{between}{value}" for label in labels.names for value in attribute.names)
    value_N = labels.value_N * len(attribute.names) + attribute.value_N
    return Classes(names, np.where((labels.value_N < 0) | (attribute.value_N < 0), -1, value_N))


def held_out(label_N: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that stay, and a tenth of each class (at least one row) that is held out; both in order."""
    held = [
        rng.permutation(np.flatnonzero(label_N == label))[: max(1, count // HELD_OUT)]
        for label, count in sorted(Counter(label_N.tolist()).items())
    ]
    chosen = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(label_N)), chosen), chosen


def count_notes(splits: Mapping[str, datasets.Dataset], expected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for every size that isn't the published one."""
    notes = []
    for name, sizes in expected.items():
        if name not in splits:
            continue
        groups = membership(splits[name], "group")
        for what, published in sizes.items():
            found = len(splits[name]) if what == "n" else int(groups[what].sum())
            if found != published:
                of = "" if what == "n" else f" of the group '{what}'"
                notes.append(f"The split '{name}' has {found:,} rows{of} where {published:,} are published.")
    return notes


def checked(task: Task, expected: Mapping[str, Mapping[str, int]]) -> Task:
    """The task with a note for every size that isn't the published one."""
    return replace(task, notes=(*task.notes, *count_notes(task.splits, expected)))


def _class_column(classes: Classes) -> tuple[datasets.ClassLabel, pa.Array]:
    values = pa.array(classes.value_N, pa.int64(), mask=classes.value_N < 0)
    return datasets.ClassLabel(names=list(classes.names)), values


def _list_column(groups: Overlapping) -> tuple[datasets.List, pa.Array]:
    members = np.nonzero(groups.member_NG)[1]  # row by row
    offsets = np.concatenate([[0], groups.member_NG.sum(axis=1).cumsum()])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(members, pa.int64()))
    return datasets.List(datasets.ClassLabel(names=list(groups.names))), lists
