"""Benchmarks with a test set on which a known shortcut fails: mnli-hans, snli-hard, qqp-paws, fever-symmetric.

The two texts of a pair are called premise and hypothesis, whatever they are.

Legend: N pairs of a split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.tables import Columns
from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.splits import sizes
from evenhand.tasks.text.nli_files import (
    HANS,
    HANS_LABELS,
    LABELS,
    MNLI_MATCHED,
    MNLI_MISMATCHED,
    MNLI_TRAIN,
    SNLI_DEV,
    SNLI_HARD,
    SNLI_TEST,
    SNLI_TRAIN,
)
from evenhand.tasks.text.sources import HubPart, Labelled, Part, found_files
from evenhand.tasks.text.splits import (
    MINILM_ADAPTERS,
    PAIR_ADAPTER_TRAINING,
    PAIR_TRAINING,
    PAIR_TUNING,
    Classes,
    crossed,
    pair_split,
)
from evenhand.training.settings import Training
from evenhand.validation import Range, UserError

Parts = Mapping[str, Part]

HEURISTICS = ("lexical_overlap", "subsequence", "constituent")

GLUE_HUB = "nyu-mll/glue"
"""GLUE's parquet copy on the Hugging Face hub, for QQP (untried: the project's tests have no network)."""

DUPLICATE_LABELS = ("non-duplicate", "duplicate")
FEVER_LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")

_QQP_ADVICE = "take QQP-clean.zip from gluebenchmark.com/tasks, unpack it, and give its folder with --data-dir"
_FEVER_ADVICE = (
    "take fever.train.jsonl and fever.dev.jsonl by the links in train_baseline.sh of "
    "github.com/TalSchuster/FeverSymmetric into the folder given with --data-dir (FEVER's claims and evidence are "
    "under Wikipedia's licence, and aren't shipped here)"
)
_SYMMETRIC_ADVICE = (
    "take it from github.com/TalSchuster/FeverSymmetric into the folder given with --data-dir, v0.2's two files with "
    "their own names"
)


def _qqp(title: str, file: str, split: str) -> Part:
    return Part(
        title=f"QQP's {title} part",
        files=(file,),
        columns=Columns(
            {"premise": ("question1",), "hypothesis": ("question2",), "label": ("is_duplicate", "label")},
            {"id": ("id", "idx")},
        ),
        labels={"0": 0, "1": 1},
        hub=HubPart(GLUE_HUB, split, "qqp"),
        advice=_QQP_ADVICE,
        unique_ids=False,
        skip_broken=True,  # GLUE's files have questions with line breaks
    )


QQP_TRAIN = _qqp("training", "train.tsv", "train")
QQP_DEV = _qqp("development", "dev.tsv", "validation")


class _PAWSPart(Part):
    """The script that makes PAWS-QQP is Python 2's; under Python 3 it writes b'…' in place of the text."""

    def read(self, folder: Path | None) -> Labelled:
        pairs = super().read(folder)
        texts = pairs.table.column("premise").to_pylist()
        if texts and all(text[:2] in ("b'", 'b"') for text in texts):
            raise UserError(
                f"The sentences in {pairs.table.origin} are Python's byte literals (b'…'), as qqp_generate_data.py "
                "writes them under Python 3: remove its calls of encode and decode, open its files as UTF-8, and run "
                "it again."
            )
        return pairs


PAWS = _PAWSPart(
    title="PAWS-QQP's dev_and_test.tsv",
    files=("dev_and_test.tsv", "paws_qqp/dev_and_test.tsv", "paws_qqp/output/dev_and_test.tsv"),
    columns=Columns({"premise": ("sentence1",), "hypothesis": ("sentence2",), "label": ("label",), "id": ("id",)}),
    labels={"0": 0, "1": 1},
    advice=(
        "QQP's licence forbids sharing it, so it is made by hand: run qqp_generate_data.py of "
        "github.com/google-research-datasets/paws on Quora's original questions and PAWS-QQP's index, and put its "
        "output dev_and_test.tsv into the folder given with --data-dir"
    ),
)


def _fever(title: str, *files: str, symmetric: bool = False) -> Part:
    return Part(
        title=f"FEVER's {'symmetric set ' if symmetric else ''}{title}",
        files=files,
        columns=Columns(
            {"premise": ("claim",), "hypothesis": ("evidence_sentence", "evidence"), "label": ("gold_label", "label")},
            {"id": ("id",)},
        ),
        labels={name: i for i, name in enumerate(FEVER_LABELS[:2] if symmetric else FEVER_LABELS)},
        advice=_SYMMETRIC_ADVICE if symmetric else _FEVER_ADVICE,
        unique_ids=symmetric,  # FEVER has a row for each piece of a claim's evidence
    )


FEVER_TRAIN = _fever("training part", "fever.train.jsonl", "train.jsonl")
FEVER_DEV = _fever("development part", "fever.dev.jsonl", "dev.jsonl")
SYMMETRIC = {
    "symmetric": _fever("v0.1", "fever_symmetric_generated.jsonl", symmetric=True),
    "symmetric-v0.2": _fever("v0.2 (test)", "fever_symmetric_test.jsonl", symmetric=True),
    "symmetric-v0.2-dev": _fever("v0.2 (dev)", "fever_symmetric_dev.jsonl", symmetric=True),
}


@dataclass(frozen=True, kw_only=True)
class ChallengeSet(TaskSource):
    """A benchmark to train on with test sets that defeat its shortcut.

    Attributes:
        pairs: Up to N labelled pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of the files; None takes all from the hub.
        labels: The classes of training and validation.
        parts: What is read, in this order: `train`, `validation`, and the test sets, of which the first is the primary.
        optional: Those that a folder may lack.
        remarks: What every reader of a result must know.
        merged: As in `Task`.
    """

    pairs: Annotated[int, Range(1)] | None = None
    data_dir: Path | str | None = None

    labels: ClassVar[tuple[str, ...]]
    parts: ClassVar[Parts]
    optional: ClassVar[tuple[str, ...]] = ()
    remarks: ClassVar[tuple[str, ...]] = ()
    merged: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    default_model = "MiniLM"
    training = PAIR_TRAINING
    adapter_training = PAIR_ADAPTER_TRAINING

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """The published sizes; the training part's only where it is taken whole."""
        counts = super().expected_counts()
        return counts if self.pairs is None else {split: n for split, n in counts.items() if split != "train"}

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of all parts that are there."""
        return found_files(folder, *self.parts.values())

    def build(self, data_seed: int) -> Task:
        """Build the splits, which don't depend on the seed."""
        folder = self.folder
        read = {
            name: part.read(folder)
            for name, part in self.parts.items()
            if name not in self.optional or folder is None or part.find(folder) is not None
        }
        notes = [note for pairs in read.values() for note in pairs.notes]
        read["train"] = read["train"].first(self.pairs)
        splits = {name: self.split(name, read) for name in read}
        return self.task(splits, (*notes, *self.remarks), merged=self.merged)

    def split(self, name: str, read: Mapping[str, Labelled]) -> datasets.Dataset:
        """The split of one of the parts read; its groups are the labels unless a benchmark has others."""
        labels = Classes(self.labels, read[name].label_N)
        return pair_split(read[name], labels, alignment_N=self.alignment(name, read), group=labels)

    def alignment(self, name: str, read: Mapping[str, Labelled]) -> NDArray[np.int64] | None:
        """Which pairs of a part are aligned (0) and conflicting (1), shape (N,); None where nothing says so."""
        return None


class MNLIHANS(ChallengeSet):
    """Trained on MultiNLI, tested on HANS, where word overlap suggests entailment and is wrong half the time.

    Validation is MultiNLI's matched development part: the in-distribution accuracy of the literature ("MNLI-m"). Tests:
    `hans` (primary), and `mismatched` where its file is there. In HANS the groups are heuristic × label; a pair is
    aligned if it is an entailment, as all three heuristics say, and else conflicting. A model of three classes is
    measured as its authors do: the class it predicts is taken first, and neutral or contradiction then count as
    non-entailment (probabilities aren't summed).

    Attributes:
        pairs: Up to N labelled pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of MultiNLI as for the task multinli, and of HANS's heuristics_evaluation_set.txt (or .jsonl).
            None takes all from the hub.
    """

    name = "mnli-hans"
    summary = "MultiNLI for training, HANS for testing (files in --data-dir, or the hub)"
    origin = "MultiNLI 1.0 (Williams et al. 2018); HANS (McCoy et al. 2019)"
    licence = "MultiNLI: OANC, CC BY 3.0 and CC BY-SA 3.0 by genre; HANS: MIT"
    bias = "a hypothesis made of the premise's words is nearly always entailed in MultiNLI"
    metric = "accuracy on HANS beside accuracy on MultiNLI's matched development part (validation)"

    labels = LABELS
    parts: ClassVar[Parts] = {
        "train": MNLI_TRAIN,
        "validation": MNLI_MATCHED,
        "hans": HANS,
        "mismatched": MNLI_MISMATCHED,
    }
    optional = ("mismatched",)
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        **sizes({"train": 392_702, "validation": 9_815, "hans": 30_000, "mismatched": 9_832}),
        "hans": {"n": 30_000} | {f"{heuristic}, {label}": 5_000 for heuristic in HEURISTICS for label in HANS_LABELS},
    }
    remarks = (
        "On HANS the model's most probable class is taken first; neutral and contradiction then are non-entailment.",
    )
    merged: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "hans": {label: HANS_LABELS[label != "entailment"] for label in LABELS}
    }

    def split(self, name: str, read: Mapping[str, Labelled]) -> datasets.Dataset:
        """HANS has two classes, and groups heuristic × label."""
        if name != "hans":
            return super().split(name, read)
        labels = Classes(HANS_LABELS, read[name].label_N)
        number_of = {heuristic: number for number, heuristic in enumerate(HEURISTICS)}
        heuristic = Classes(HEURISTICS, read[name].table.classes("heuristic", number_of))
        return pair_split(
            read[name],
            labels,
            attribute=heuristic,
            alignment_N=labels.value_N,  # entailment is aligned
            group=crossed(heuristic, labels),
        )


class SNLIHard(ChallengeSet):
    """Trained on SNLI, tested on its hard test pairs, which a model that sees the hypothesis alone gets wrong.

    Validation is SNLI's development part. Tests: `hard` (primary) and `test`, all test pairs. Groups are the labels.
    Where both files have pair ids, a pair of `test` is conflicting if it is a hard one and else aligned.

    Attributes:
        pairs: Up to N labelled pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of snli_1.0_train, _dev and _test (.jsonl or .txt), or of train.tsv, dev.tsv and test.tsv with
            the columns premise, hypothesis and label, and of snli_1.0_test_hard.jsonl. None takes all from the hub.
    """

    name = "snli-hard"
    summary = "SNLI, tested on the pairs that can't be told from the hypothesis (files, or the hub)"
    origin = "SNLI (Bowman et al. 2015); hard test pairs of Gururangan et al. (2018)"
    licence = "CC BY-SA 4.0 (SNLI)"
    bias = "words and length of the hypothesis alone tell the label of most pairs"
    metric = "accuracy on the hard test pairs beside accuracy on all test pairs"

    labels = LABELS
    parts: ClassVar[Parts] = {"train": SNLI_TRAIN, "validation": SNLI_DEV, "hard": SNLI_HARD, "test": SNLI_TEST}
    # without the pairs that have no label
    published = sizes({"train": 549_367, "validation": 9_842, "hard": 3_261, "test": 9_824})

    def alignment(self, name: str, read: Mapping[str, Labelled]) -> NDArray[np.int64] | None:
        """Of all test pairs, the hard ones are conflicting, where their ids are known."""
        if name != "test" or not all("id" in read[part].table for part in ("test", "hard")):
            return None
        hard = set(read["hard"].table.column("id").to_pylist())
        return np.array([pair in hard for pair in read["test"].table.column("id").to_pylist()], dtype=np.int64)


class QQPPAWS(ChallengeSet):
    """Trained on Quora Question Pairs, tested on PAWS-QQP, where both questions have the same words in another order.

    Validation is QQP's development part: the in-distribution accuracy. Test: `paws` (primary), the dev_and_test part.
    Groups are the labels, as papers report them. In PAWS a duplicate is aligned, since word overlap says so of every
    pair, and a non-duplicate conflicting. QQP's training file is GLUE's, whose broken lines are left out and counted.

    Attributes:
        pairs: Up to N pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of PAWS-QQP's dev_and_test.tsv, which is made by hand (the message says how), and of GLUE's
            QQP: train.tsv and dev.tsv; without these two, QQP comes from the hub.
    """

    name = "qqp-paws"
    summary = "Quora Question Pairs for training, PAWS-QQP for testing (files in --data-dir)"
    origin = "Quora Question Pairs, GLUE's split; PAWS-QQP (Zhang et al. 2019)"
    licence = "Quora's terms: no sharing of QQP, nor of PAWS-QQP, which contains it"
    bias = "questions with the same words are nearly always duplicates in QQP"
    metric = "accuracy on PAWS-QQP, and by label, beside accuracy on QQP's development part"
    adapter_training: ClassVar[dict[str, Training]] = {"MiniLM": MINILM_ADAPTERS}

    labels = DUPLICATE_LABELS
    # what must be made by hand comes first, before anything is loaded from the hub
    parts: ClassVar[Parts] = {"paws": PAWS, "train": QQP_TRAIN, "validation": QQP_DEV}
    # GLUE's, and those of PAWS-QQP's current README
    published = sizes({"train": 363_846, "validation": 40_430, "paws": 677})

    def alignment(self, name: str, read: Mapping[str, Labelled]) -> NDArray[np.int64] | None:
        """In PAWS a duplicate is aligned."""
        return 1 - read[name].label_N if name == "paws" else None


class FEVERSymmetric(ChallengeSet):
    """Trained on FEVER's claims with their evidence, tested on the symmetric set, where the claim alone says nothing.

    Three classes in training and validation (FEVER's development part); the symmetric sets have SUPPORTS and REFUTES
    only, and a prediction of NOT ENOUGH INFO is wrong there. Tests: `symmetric` (primary), the 717 generated pairs of
    v0.1, and, where their files are there, `symmetric-v0.2` and `symmetric-v0.2-dev`, which is meant for tuning. Groups
    are the labels. Claim and evidence are first and second text.

    Attributes:
        pairs: Up to N pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of fever.train.jsonl and fever.dev.jsonl as Schuster et al. share them (claim, evidence as one
            text, and gold_label or label), of fever_symmetric_generated.jsonl (v0.1), and perhaps of
            fever_symmetric_test.jsonl and fever_symmetric_dev.jsonl (v0.2). There is no copy on the hub.
    """

    name = "fever-symmetric"
    summary = "FEVER for training, its symmetric set for testing (files in --data-dir)"
    origin = "FEVER (Thorne et al. 2018) in the form of Schuster et al. (2019), whose symmetric sets these are"
    licence = "Wikipedia's terms (CC BY-SA 3.0); the symmetric sets: DATA_LICENSE in their repository"
    bias = "words of the claim alone, such as negations, tell whether it is refuted"
    metric = "accuracy on the symmetric set beside accuracy on FEVER's development part (validation)"
    # bert-base-uncased by Schuster et al.'s train_baseline.sh
    training: ClassVar[dict[str, Training]] = PAIR_TRAINING | {"bert-base-uncased": replace(PAIR_TUNING, lr=2e-5)}
    adapter_training: ClassVar[dict[str, Training]] = {"MiniLM": MINILM_ADAPTERS}

    labels = FEVER_LABELS
    parts: ClassVar[Parts] = {"train": FEVER_TRAIN, "validation": FEVER_DEV, **SYMMETRIC}
    optional = ("symmetric-v0.2", "symmetric-v0.2-dev")
    # of the training files none are published
    published = sizes({"symmetric": 717, "symmetric-v0.2": 712, "symmetric-v0.2-dev": 708})
