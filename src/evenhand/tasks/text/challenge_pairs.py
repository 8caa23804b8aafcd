"""qqp-paws and fever-symmetric: paraphrases and fact verification on test sets where shortcuts fail.

Legend: N pairs of a split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.tables import Columns
from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.counts import with_deviations
from evenhand.tasks.text.sources import HubPart, Labelled, Part, found_files
from evenhand.tasks.text.splits import MINILM, MINILM_ADAPTERS, PAIR_TUNING, Classes, text_split
from evenhand.training.settings import Training
from evenhand.validation import UserError, check_integer

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
            {"first": ("question1",), "second": ("question2",), "label": ("is_duplicate", "label")},
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
PAWS = Part(
    title="PAWS-QQP's dev_and_test.tsv",
    files=("dev_and_test.tsv", "paws_qqp/dev_and_test.tsv", "paws_qqp/output/dev_and_test.tsv"),
    columns=Columns({"first": ("sentence1",), "second": ("sentence2",), "label": ("label",), "id": ("id",)}),
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
            {
                "claim": ("claim",),
                "evidence": ("evidence_sentence", "evidence"),
                "label": ("gold_label", "label"),
            },
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
class QQPPAWS(TaskSource):
    """Trained on Quora Question Pairs, tested on PAWS-QQP, where both questions have the same words in another order.

    Validation is QQP's development part: the in-distribution accuracy. Test: `paws` (primary), the dev_and_test part.
    Groups are the labels, as papers report them. In PAWS a duplicate is aligned, since word overlap says so of every
    pair, and a non-duplicate conflicting. QQP's training file is GLUE's, whose broken lines are left out and counted.

    Attributes:
        pairs: At most so many pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of PAWS-QQP's dev_and_test.tsv, which is made by hand (the message says how), and of GLUE's
            QQP: train.tsv and dev.tsv; without these two, QQP comes from the hub.
    """

    pairs: int | None = None
    data_dir: Path | str | None = None

    name: ClassVar[str] = "qqp-paws"
    summary: ClassVar[str] = "Quora Question Pairs for training, PAWS-QQP for testing (files in --data-dir)"
    origin: ClassVar[str] = "Quora Question Pairs, GLUE's split; PAWS-QQP (Zhang et al. 2019)"
    licence: ClassVar[str] = "Quora's terms: no sharing of QQP, nor of PAWS-QQP, which contains it"
    bias: ClassVar[str] = "questions with the same words are nearly always duplicates in QQP"
    metric: ClassVar[str] = "accuracy on PAWS-QQP, and by label, beside accuracy on QQP's development part"
    default_model: ClassVar[str] = "MiniLM"
    training: ClassVar[dict[str, Training]] = {
        "MiniLM": MINILM,
        "bert-base-uncased": PAIR_TUNING,
        "roberta-base": PAIR_TUNING,
    }
    adapter_training: ClassVar[dict[str, Training]] = {"MiniLM": MINILM_ADAPTERS}

    def __post_init__(self) -> None:
        if self.pairs is not None:
            check_integer(self.name, "pairs", self.pairs, 1)

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """GLUE's sizes, and PAWS-QQP's of its current README."""
        train = {} if self.pairs is not None else {"train": {"n": 363_846}}
        return train | {"validation": {"n": 40_430}, "paws": {"n": 677}}

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of QQP and PAWS that are there."""
        return found_files(folder, QQP_TRAIN, QQP_DEV, PAWS)

    def build(self, data_seed: int) -> Task:
        """Build the splits, which don't depend on the seed.

        Raises:
            UserError: If a file is missing or broken.
        """
        folder = None if self.data_dir is None else Path(self.data_dir)
        paws = PAWS.read(folder)
        _refuse_byte_literals(paws)
        train, dev = QQP_TRAIN.read(folder), QQP_DEV.read(folder)
        columns, names = ("first", "second"), DUPLICATE_LABELS
        task = Task(
            name=self.name,
            kind="text",
            train=_pair_split(train.first(self.pairs), columns, names),
            validation=_pair_split(dev, columns, names),
            tests={"paws": _pair_split(paws, columns, names, alignment_N=1 - paws.label_N)},
            primary_test="paws",
            notes=(*paws.notes, *train.notes, *dev.notes),
        )
        return with_deviations(task, self.expected_counts())


@dataclass(frozen=True, kw_only=True)
class FEVERSymmetric(TaskSource):
    """Trained on FEVER's claims with their evidence, tested on the symmetric set, where the claim alone says nothing.

    Three classes in training and validation (FEVER's development part); the symmetric sets have SUPPORTS and REFUTES
    only, and a prediction of NOT ENOUGH INFO is wrong there. Tests: `symmetric` (primary), the 717 generated pairs of
    v0.1, and, where their files are there, `symmetric-v0.2` and `symmetric-v0.2-dev`, which is meant for tuning. Groups
    are the labels. Claim and evidence are first and second text.

    Attributes:
        pairs: At most so many pairs are taken from the beginning of the training part; None takes all.
        data_dir: Folder of fever.train.jsonl and fever.dev.jsonl as Schuster et al. share them (claim, evidence as one
            text, and gold_label or label), of fever_symmetric_generated.jsonl (v0.1), and perhaps of
            fever_symmetric_test.jsonl and fever_symmetric_dev.jsonl (v0.2). There is no copy on the hub.
    """

    pairs: int | None = None
    data_dir: Path | str | None = None

    name: ClassVar[str] = "fever-symmetric"
    summary: ClassVar[str] = "FEVER for training, its symmetric set for testing (files in --data-dir)"
    origin: ClassVar[str] = (
        "FEVER (Thorne et al. 2018) in the form of Schuster et al. (2019), whose symmetric sets these are"
    )
    licence: ClassVar[str] = "Wikipedia's terms (CC BY-SA 3.0); the symmetric sets: DATA_LICENSE in their repository"
    bias: ClassVar[str] = "words of the claim alone, such as negations, tell whether it is refuted"
    metric: ClassVar[str] = "accuracy on the symmetric set beside accuracy on FEVER's development part (validation)"
    default_model: ClassVar[str] = "MiniLM"
    training: ClassVar[dict[str, Training]] = {
        "MiniLM": MINILM,
        # Schuster et al.'s train_baseline.sh
        "bert-base-uncased": replace(PAIR_TUNING, lr=2e-5),
        "roberta-base": PAIR_TUNING,
    }
    adapter_training: ClassVar[dict[str, Training]] = {"MiniLM": MINILM_ADAPTERS}

    def __post_init__(self) -> None:
        if self.pairs is not None:
            check_integer(self.name, "pairs", self.pairs, 1)

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """The symmetric sets' published sizes; those of the training files are not published."""
        return {"symmetric": {"n": 717}, "symmetric-v0.2": {"n": 712}, "symmetric-v0.2-dev": {"n": 708}}

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of FEVER and its symmetric sets that are there."""
        return found_files(folder, FEVER_TRAIN, FEVER_DEV, *SYMMETRIC.values())

    def build(self, data_seed: int) -> Task:
        """Build the splits, which don't depend on the seed.

        Raises:
            UserError: If a file is missing or broken.
        """
        folder = None if self.data_dir is None else Path(self.data_dir)
        train, dev = FEVER_TRAIN.read(folder), FEVER_DEV.read(folder)
        parts = {
            name: part.read(folder)
            for name, part in SYMMETRIC.items()
            if name == "symmetric" or part.find(folder) is not None
        }
        columns, names = ("claim", "evidence"), FEVER_LABELS
        task = Task(
            name=self.name,
            kind="text",
            train=_pair_split(train.first(self.pairs), columns, names),
            validation=_pair_split(dev, columns, names),
            tests={name: _pair_split(part, columns, names) for name, part in parts.items()},
            primary_test="symmetric",
            notes=tuple(note for part in (train, dev, *parts.values()) for note in part.notes),
        )
        return with_deviations(task, self.expected_counts())


def _pair_split(
    pairs: Labelled, columns: tuple[str, str], names: tuple[str, ...], alignment_N: NDArray[np.int64] | None = None
) -> datasets.Dataset:
    labels = Classes(names, pairs.label_N)
    return text_split(
        pairs.table.column(columns[0]),
        labels,
        pair=pairs.table.column(columns[1]),
        ids=pairs.table.column("id") if "id" in pairs.table else None,
        alignment_N=alignment_N,
        group=labels,
    )


def _refuse_byte_literals(pairs: Labelled) -> None:
    """The script that makes PAWS-QQP is Python 2's; under Python 3 it writes b'…' in place of the text."""
    texts = pairs.table.column("first").to_pylist()
    if texts and all(text[:2] in ("b'", 'b"') for text in texts):
        raise UserError(
            f"The sentences in {pairs.table.origin} are Python's byte literals (b'…'), as qqp_generate_data.py writes "
            "them under Python 3: remove its calls of encode and decode, open its files as UTF-8, and run it again."
        )
