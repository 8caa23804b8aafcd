"""Splits of texts: labels, groups and alignment as columns; the settings that text tasks share.

Legend: N rows of a split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.columns import Column, class_column, member_column, split_of
from evenhand.tasks.text.sources import Labelled
from evenhand.training.settings import FINE_TUNING

ALIGNMENTS = ("aligned", "conflicting", "independent")

MINILM = replace(FINE_TUNING, epochs=2, lr=1e-4, max_length=128)
"""For MiniLM on sentence pairs: found on biased-snli, not tuned on any other task."""

MINILM_ADAPTERS = replace(MINILM, lr=1e-3, batch_size=64)
"""The same for adapters; on 18,000 pairs of biased-snli they learn the token and little else."""

PAIR_TUNING = replace(FINE_TUNING, max_length=128)
"""For a checkpoint on sentence pairs: the defaults of transformers' examples, which Clark et al. (2019) and Utama et
al. (2020) also take for BERT on MNLI (5e-5, batches of 32, 3 epochs, 128 tokens)."""

PAIR_ADAPTERS = replace(FINE_TUNING, epochs=15, lr=3e-4, batch_size=64, weight_decay=0.1, max_length=128)
"""EDGE's released settings for LoRA on roberta-base, on SNLI; schedule and clipping are transformers' defaults."""

PAIR_TRAINING = {"MiniLM": MINILM, "bert-base-uncased": PAIR_TUNING, "roberta-base": PAIR_TUNING}
"""For each model that a task of sentence pairs ships settings for."""

PAIR_ADAPTER_TRAINING = {"MiniLM": MINILM_ADAPTERS, "roberta-base": PAIR_ADAPTERS}
"""The same with adapters."""


NLI = {"text": "premise", "text_pair": "hypothesis"}
"""What the texts of an inference task are called."""


@dataclass(frozen=True)
class Classes:
    """A column of classes.

    Attributes:
        names: Name of each class.
        value_N: Class of each row, shape (N,); −1 for none.
    """

    names: tuple[str, ...]
    value_N: NDArray[np.int64]


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
    group: Classes | Overlapping | Column | None = None,
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
    columns: dict[str, Column] = {"text": (datasets.Value("string"), text)}
    if pair is not None:
        columns["text_pair"] = (datasets.Value("string"), pair)
    if ids is not None:
        columns["id"] = (datasets.Value("string"), ids)
    columns["labels"] = class_column(labels.value_N, labels.names)
    if attribute is not None:
        columns["attribute"] = class_column(attribute.value_N, attribute.names)
    if alignment_N is not None:
        columns["alignment"] = class_column(alignment_N, ALIGNMENTS)
    if isinstance(group, Classes):
        columns["group"] = class_column(group.value_N, group.names)
    elif isinstance(group, Overlapping):
        columns["group"] = member_column(group.member_NG, group.names)
    elif group is not None:
        columns["group"] = group
    return split_of(columns)


def crossed(labels: Classes, attribute: Classes, between: str = ", ") -> Classes:
    """The groups label × attribute, "label, attribute"; rows without one or the other are in none."""
    names = tuple(f"{label}{between}{value}" for label in labels.names for value in attribute.names)
    value_N = labels.value_N * len(attribute.names) + attribute.value_N
    return Classes(names, np.where((labels.value_N < 0) | (attribute.value_N < 0), -1, value_N))


def pair_split(
    pairs: Labelled, labels: Classes, *, text: Texts | None = None, pair: Texts | None = None, **more: Any
) -> datasets.Dataset:
    """A split of pairs under the ids of their source; `text` and `pair` stand in for its premises and hypotheses."""
    table = pairs.table
    return text_split(
        table.column("premise") if text is None else text,
        labels,
        pair=table.column("hypothesis") if pair is None else pair,
        ids=table.column("id") if "id" in table else None,
        **more,
    )
