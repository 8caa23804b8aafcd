"""multinli: natural language inference by groups of label × negation, as in group DRO's paper.

Legend: N pairs of a split.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.tables import Columns, Table, read_table
from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.splits import held_out, sizes
from evenhand.tasks.text.nli_files import LABELS, MNLI_MATCHED, MNLI_MISMATCHED, MNLI_TRAIN
from evenhand.tasks.text.sources import Labelled, found_files
from evenhand.tasks.text.splits import (
    NLI,
    PAIR_ADAPTER_TRAINING,
    PAIR_TRAINING,
    PAIR_TUNING,
    Classes,
    crossed,
    pair_split,
)
from evenhand.training.settings import Training
from evenhand.validation import Range, UserError

NEGATION_WORDS = ("nobody", "no", "never", "nothing")
METADATA = "metadata_random.csv"
OFFICIAL_SIZES = {"train": 392_702, "validation": 9_815, "test": 9_832}

_NEGATIONS = ("no negation", "negation")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PART_OF = {"0": "train", "1": "validation", "2": "test"}
_LABEL_OF = {"0": "contradiction", "1": "entailment", "2": "neutral"}  # group DRO's numbers
# (no negation, negation) of each label: appendix C.1 of Sagawa et al. (2020)
_GROUP_DRO_SIZES = {
    "train": {"contradiction": (57_498, 11_158), "entailment": (67_376, 1_521), "neutral": (66_630, 1_992)},
    "validation": {"contradiction": (22_814, 4_634), "entailment": (26_949, 613), "neutral": (26_655, 797)},
    "test": {"contradiction": (34_597, 6_655), "entailment": (40_496, 886), "neutral": (39_930, 1_148)},
}


@dataclass(frozen=True, kw_only=True)
class MultiNLI(TaskSource):
    """MultiNLI, where negation words in the hypothesis go with contradiction.

    The groups are label × whether the hypothesis has one of the words nobody, no, never, nothing (punctuation removed,
    lower case, split at blanks, as group DRO's script does). A pair with such a word is aligned if it is a
    contradiction and conflicting if not; without one it is independent.

    With the recipe `official`, training, matched and mismatched part are train, validation and test. Without a
    mismatched file the matched pairs are the test, and a tenth of each class of the training part, drawn by the data
    seed, validates. With `group-dro` all three are split again as in group DRO's paper (50 / 20 / 30 %), by its
    metadata_random.csv.

    Attributes:
        recipe: official or group-dro. The latter needs metadata_random.csv in data_dir, beside the three parts.
        pairs: Up to N labelled pairs are taken from the beginning of the training split; None takes all.
        test_pairs: Likewise of the test; None takes all.
        data_dir: Folder of multinli_1.0_train, _dev_matched and _dev_mismatched (.jsonl or .txt), GLUE's train.tsv,
            dev_matched.tsv and dev_mismatched.tsv, or plain tables of these names (train_*.tsv will do) with the
            columns premise, hypothesis and label. None takes all from the hub.
    """

    recipe: Literal["official", "group-dro"] = "official"
    pairs: Annotated[int, Range(1)] | None = None
    test_pairs: Annotated[int, Range(1)] | None = None
    data_dir: Path | str | None = None

    name = "multinli"
    summary = "MultiNLI by label × negation words (files in --data-dir, or the hub)"
    origin = "MultiNLI 1.0 (Williams et al. 2018); groups and split of Sagawa et al. (2020)"
    licence = "OANC, CC BY 3.0 and CC BY-SA 3.0 by genre, as MultiNLI's paper states"
    bias = "negation words in the hypothesis nearly always mean contradiction"
    metric = "worst-group and average test accuracy over label × negation, on group DRO's random split"
    default_model = "MiniLM"
    # bert-base-uncased by group DRO's command: AdamW, weight decay 0
    training: ClassVar[dict[str, Training]] = PAIR_TRAINING | {"bert-base-uncased": replace(PAIR_TUNING, lr=2e-5)}
    adapter_training = PAIR_ADAPTER_TRAINING

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """The recipe's sizes, and its groups' where they are published."""
        published = sizes(OFFICIAL_SIZES)
        if self.recipe == "group-dro":
            published = {
                split: {"n": sum(map(sum, counts.values()))}
                | {f"{label}, {word}": pair[i] for label, pair in counts.items() for i, word in enumerate(_NEGATIONS)}
                for split, counts in _GROUP_DRO_SIZES.items()
            }
        chosen = {"train": self.pairs, "test": self.test_pairs}
        return {split: counts for split, counts in published.items() if chosen.get(split) is None}

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of MultiNLI that are there, and of the split that the recipe needs."""
        metadata = [folder / METADATA] if self.recipe == "group-dro" else []
        return found_files(folder, MNLI_TRAIN, MNLI_MATCHED, MNLI_MISMATCHED) + metadata

    def build(self, data_seed: int) -> Task:
        """Build the splits; only a validation split that must be drawn depends on the seed."""
        train, matched = MNLI_TRAIN.read(self.folder), MNLI_MATCHED.read(self.folder)
        has_mismatched = self.folder is None or MNLI_MISMATCHED.find(self.folder) is not None
        mismatched = MNLI_MISMATCHED.read(self.folder) if has_mismatched or self.recipe == "group-dro" else None
        parts = [part for part in (train, matched, mismatched) if part is not None]
        notes = [note for part in parts for note in part.notes]
        expected = self.expected_counts()
        train = train.first(self.pairs)
        if self.recipe == "group-dro":
            splits, more = self._by_metadata(self.folder, parts)
            notes += more
        elif mismatched is None:
            kept, held = held_out(train.label_N, np.random.default_rng([data_seed, 0]))
            splits = {"train": _split(train.take(kept)), "validation": _split(train.take(held))}
            splits["test"] = _split(matched.first(self.test_pairs))
            notes.append(
                "Without a mismatched part the matched pairs are the test, and a tenth of the training part validates."
            )
            expected = {split: counts for split, counts in expected.items() if split == "train"}
        else:
            splits = {"train": _split(train), "validation": _split(matched)}
            splits["test"] = _split(mismatched.first(self.test_pairs))
        return self.task(splits, notes, expected, called=NLI)

    def _by_metadata(self, folder: Path | None, parts: list[Labelled]) -> tuple[dict[str, datasets.Dataset], list[str]]:
        """Group DRO's split of all labelled pairs, in the order train, matched, mismatched."""
        path = None if folder is None else folder / METADATA
        if path is None or not path.is_file():
            raise UserError(
                f"The recipe 'group-dro' of {self.name} needs the file '{METADATA}' in the folder given with "
                "--data-dir: take it from dataset_metadata/multinli of github.com/kohpangwei/group_DRO (MIT)."
            )
        columns = {name: (name,) for name in ("gold_label", "sentence2_has_negation", "split")}
        metadata = read_table(path, Columns(columns))
        found_N = np.concatenate([part.label_N for part in parts])
        if len(metadata) != len(found_N):
            raise UserError(
                f"The file '{path}' has {len(metadata):,} rows, but the training, matched and mismatched parts have "
                f"{len(found_N):,} labelled pairs together: they don't belong together."
            )
        label_N = metadata.classes("gold_label", {k: LABELS.index(v) for k, v in _LABEL_OF.items()})  # type: ignore[arg-type]
        other = np.flatnonzero(label_N != found_N)
        if len(other):
            row = int(other[0])
            raise UserError(
                f"{metadata.place(row)} says {LABELS[label_N[row]]}, but labelled pair {row + 1:,} of MultiNLI is a "
                f"{LABELS[found_N[row]]} ({len(other):,} such rows): they don't belong together."
            )
        part_N = metadata.classes("split", {"0": 0, "1": 1, "2": 2})
        negation_N = metadata.classes("sentence2_has_negation", {"0": 0, "1": 1})
        tables = [part.table.cells.select(["premise", "hypothesis"]) for part in parts]
        everything = Labelled(Table(pa.concat_tables(tables), "MultiNLI"), found_N)
        differing = int((_has_negation(everything) != negation_N).sum())
        notes = []
        if differing:
            notes.append(f"{METADATA} and the words of the hypothesis disagree on negation in {differing:,} pairs.")
        limits = {"train": self.pairs, "test": self.test_pairs}
        splits = {}
        for number, name in enumerate(_PART_OF.values()):
            rows = np.flatnonzero(part_N == number)[: limits.get(name)]
            splits[name] = _split(everything.take(rows), negation_N[rows])
        return splits, notes


def has_negation(hypothesis: str) -> bool:
    """Whether one of the four words is in it, as group DRO's script finds them."""
    words = hypothesis.translate(_PUNCTUATION).lower().split(" ")
    return any(word in words for word in NEGATION_WORDS)


def _has_negation(pairs: Labelled) -> NDArray[np.int64]:
    hypotheses: Iterable[str] = pairs.table.column("hypothesis").to_pylist()
    return np.array([has_negation(hypothesis) for hypothesis in hypotheses], dtype=np.int64)


def _split(pairs: Labelled, negation_N: NDArray[np.int64] | None = None) -> datasets.Dataset:
    labels = Classes(LABELS, pairs.label_N)
    negation = Classes(_NEGATIONS, _has_negation(pairs) if negation_N is None else negation_N)
    is_contradiction_N = labels.value_N == LABELS.index("contradiction")
    return pair_split(
        pairs,
        labels,
        attribute=negation,
        alignment_N=np.where(negation.value_N == 1, np.where(is_contradiction_N, 0, 1), 2),
        group=crossed(labels, negation),
    )
