"""mnli-hans and snli-hard: models of natural language inference on test sets where shortcuts fail.

Legend: N pairs of a split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.counts import with_deviations
from evenhand.tasks.text.biased_snli import LABELS
from evenhand.tasks.text.nli_files import (
    HANS,
    HANS_LABELS,
    MNLI_MATCHED,
    MNLI_MISMATCHED,
    MNLI_TRAIN,
    SNLI_DEV,
    SNLI_HARD,
    SNLI_TEST,
    SNLI_TRAIN,
)
from evenhand.tasks.text.sources import Labelled, found_files
from evenhand.tasks.text.splits import MINILM, MINILM_ADAPTERS, PAIR_ADAPTERS, PAIR_TUNING, Classes, crossed, text_split
from evenhand.training.settings import Training
from evenhand.validation import check_integer

HEURISTICS = ("lexical_overlap", "subsequence", "constituent")

_MERGING = "On HANS the model's most probable class is taken first; neutral and contradiction then are non-entailment."
_TRAINING = {"MiniLM": MINILM, "bert-base-uncased": PAIR_TUNING, "roberta-base": PAIR_TUNING}
_ADAPTER_TRAINING = {"MiniLM": MINILM_ADAPTERS, "roberta-base": PAIR_ADAPTERS}


@dataclass(frozen=True, kw_only=True)
class MNLIHANS(TaskSource):
    """Trained on MultiNLI, tested on HANS, where word overlap suggests entailment and is wrong half the time.

    Validation is MultiNLI's matched development part: the in-distribution accuracy of the literature ("MNLI-m"). Tests:
    `hans` (primary), and `mismatched` where its file is there. In HANS the groups are heuristic × label; a pair is
    aligned if it is an entailment, as all three heuristics say, and else conflicting. A model of three classes is
    measured as its authors do: the class it predicts is taken first, and neutral or contradiction then count as
    non-entailment (probabilities aren't summed).

    Attributes:
        pairs: At most so many labelled pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of MultiNLI as for the task multinli, and of HANS's heuristics_evaluation_set.txt (or .jsonl).
            None takes all from the hub.
    """

    pairs: int | None = None
    data_dir: Path | str | None = None

    name: ClassVar[str] = "mnli-hans"
    summary: ClassVar[str] = "MultiNLI for training, HANS for testing (files in --data-dir, or the hub)"
    origin: ClassVar[str] = "MultiNLI 1.0 (Williams et al. 2018); HANS (McCoy et al. 2019)"
    licence: ClassVar[str] = "MultiNLI: OANC, CC BY 3.0 and CC BY-SA 3.0 by genre; HANS: MIT"
    bias: ClassVar[str] = "a hypothesis made of the premise's words is nearly always entailed in MultiNLI"
    metric: ClassVar[str] = "accuracy on HANS beside accuracy on MultiNLI's matched development part (validation)"
    default_model: ClassVar[str] = "MiniLM"
    training: ClassVar[dict[str, Training]] = _TRAINING
    adapter_training: ClassVar[dict[str, Training]] = _ADAPTER_TRAINING

    def __post_init__(self) -> None:
        if self.pairs is not None:
            check_integer(self.name, "pairs", self.pairs, 1)

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """The published sizes; 5,000 pairs of each heuristic and label."""
        groups = {f"{heuristic}, {label}": 5_000 for heuristic in HEURISTICS for label in HANS_LABELS}
        train = {} if self.pairs is not None else {"train": {"n": 392_702}}
        return train | {"validation": {"n": 9_815}, "hans": {"n": 30_000} | groups, "mismatched": {"n": 9_832}}

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of MultiNLI and HANS that are there."""
        return found_files(folder, MNLI_TRAIN, MNLI_MATCHED, MNLI_MISMATCHED, HANS)

    def build(self, data_seed: int) -> Task:
        """Build the splits, which don't depend on the seed.

        Raises:
            UserError: If a file is missing or broken.
        """
        folder = None if self.data_dir is None else Path(self.data_dir)
        train, matched, hans = MNLI_TRAIN.read(folder), MNLI_MATCHED.read(folder), HANS.read(folder)
        notes = [*train.notes, *matched.notes, *hans.notes, _MERGING]
        tests = {"hans": _hans_split(hans)}
        if folder is None or MNLI_MISMATCHED.find(folder) is not None:
            mismatched = MNLI_MISMATCHED.read(folder)
            notes += mismatched.notes
            tests["mismatched"] = _by_label(mismatched)
        task = Task(
            name=self.name,
            kind="text",
            train=_by_label(train.first(self.pairs)),
            validation=_by_label(matched),
            tests=tests,
            primary_test="hans",
            notes=tuple(notes),
            merged={"hans": {label: HANS_LABELS[label != "entailment"] for label in LABELS}},
        )
        return with_deviations(task, self.expected_counts())


@dataclass(frozen=True, kw_only=True)
class SNLIHard(TaskSource):
    """Trained on SNLI, tested on its hard test pairs, which a model that sees the hypothesis alone gets wrong.

    Validation is SNLI's development part. Tests: `hard` (primary) and `test`, all test pairs. Groups are the labels.
    Where both files have pair ids, a pair of `test` is conflicting if it is a hard one and else aligned.

    Attributes:
        pairs: At most so many labelled pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of snli_1.0_train, _dev and _test (.jsonl or .txt), or of train.tsv, dev.tsv and test.tsv with
            the columns premise, hypothesis and label, and of snli_1.0_test_hard.jsonl. None takes all from the hub.
    """

    pairs: int | None = None
    data_dir: Path | str | None = None

    name: ClassVar[str] = "snli-hard"
    summary: ClassVar[str] = "SNLI, tested on the pairs that can't be told from the hypothesis (files, or the hub)"
    origin: ClassVar[str] = "SNLI (Bowman et al. 2015); hard test pairs of Gururangan et al. (2018)"
    licence: ClassVar[str] = "CC BY-SA 4.0 (SNLI)"
    bias: ClassVar[str] = "words and length of the hypothesis alone tell the label of most pairs"
    metric: ClassVar[str] = "accuracy on the hard test pairs beside accuracy on all test pairs"
    default_model: ClassVar[str] = "MiniLM"
    training: ClassVar[dict[str, Training]] = _TRAINING
    adapter_training: ClassVar[dict[str, Training]] = _ADAPTER_TRAINING

    def __post_init__(self) -> None:
        if self.pairs is not None:
            check_integer(self.name, "pairs", self.pairs, 1)

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """The published sizes, without the pairs that have no label."""
        train = {} if self.pairs is not None else {"train": {"n": 549_367}}
        return train | {"validation": {"n": 9_842}, "hard": {"n": 3_261}, "test": {"n": 9_824}}

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of SNLI that are there."""
        return found_files(folder, SNLI_TRAIN, SNLI_DEV, SNLI_TEST, SNLI_HARD)

    def build(self, data_seed: int) -> Task:
        """Build the splits, which don't depend on the seed.

        Raises:
            UserError: If a file is missing or broken.
        """
        folder = None if self.data_dir is None else Path(self.data_dir)
        train, dev, test, hard = (part.read(folder) for part in (SNLI_TRAIN, SNLI_DEV, SNLI_TEST, SNLI_HARD))
        task = Task(
            name=self.name,
            kind="text",
            train=_by_label(train.first(self.pairs)),
            validation=_by_label(dev),
            tests={"hard": _by_label(hard), "test": _by_label(test, _among(test, hard))},
            primary_test="hard",
            notes=(*train.notes, *dev.notes, *test.notes, *hard.notes),
        )
        return with_deviations(task, self.expected_counts())


def _among(pairs: Labelled, hard: Labelled) -> NDArray[np.int64] | None:
    """1 for pairs that are among the hard ones, else 0, shape (N,); None where ids are unknown."""
    if "id" not in pairs.table or "id" not in hard.table:
        return None
    ids = set(hard.table.column("id").to_pylist())
    return np.array([name in ids for name in pairs.table.column("id").to_pylist()], dtype=np.int64)


def _by_label(pairs: Labelled, alignment_N: NDArray[np.int64] | None = None) -> datasets.Dataset:
    labels = Classes(LABELS, pairs.label_N)
    return text_split(
        pairs.table.column("premise"),
        labels,
        pair=pairs.table.column("hypothesis"),
        ids=pairs.table.column("id") if "id" in pairs.table else None,
        alignment_N=alignment_N,
        group=labels,
    )


def _hans_split(pairs: Labelled) -> datasets.Dataset:
    labels = Classes(HANS_LABELS, pairs.label_N)
    heuristic = Classes(HEURISTICS, pairs.table.classes("heuristic", {name: i for i, name in enumerate(HEURISTICS)}))
    return text_split(
        pairs.table.column("premise"),
        labels,
        pair=pairs.table.column("hypothesis"),
        ids=pairs.table.column("id") if "id" in pairs.table else None,
        attribute=heuristic,
        alignment_N=labels.value_N,  # entailment is aligned
        group=crossed(heuristic, labels),
    )
