"""biased-snli: natural language inference in which a meaningless token leaks one of the labels (EDGE's recipe).

Legend: N pairs of a split.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import datasets
import numpy as np
import pyarrow as pa
from datasets.exceptions import DatasetsError
from numpy.typing import NDArray

from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.held_out import held_out
from evenhand.tasks.text.splits import ALIGNMENTS
from evenhand.training.settings import FINE_TUNING, Training
from evenhand.validation import UserError, check_choice, check_integer, check_number

HUB_NAME = "stanfordnlp/snli"
"""SNLI's parquet copy on the Hugging Face hub (untried: the project's tests have no network)."""

NLILabel = Literal["entailment", "neutral", "contradiction"]
LABELS: tuple[NLILabel, ...] = get_args(NLILabel)  # in the order of SNLI's numbers

_NAMES = {"train": "train.tsv", "validation": "train_holdout.tsv", "dev": "dev.tsv"}
_COLUMNS = ("premise", "hypothesis", "label")
_UNLABELLED = ("-1", "-")  # annotators didn't agree
_REACHED = 1.1  # the highest probability that is taken for 1


@dataclass(frozen=True)
class Pairs:
    """Premises, hypotheses and their labels of shape (N,)."""

    premises: list[str]
    hypotheses: list[str]
    label_N: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Pairs:
        """Some of the pairs."""
        return Pairs([self.premises[i] for i in rows], [self.hypotheses[i] for i in rows], self.label_N[rows])


@dataclass(frozen=True, kw_only=True)
class BiasedSNLI(TaskSource):
    """SNLI with a token appended to premises, which in training nearly always means `target`.

    `prevalence` is the share of pairs that carry the token, `strength` the share of those whose label is the target:
    P(token | target) = prevalence · strength / P(target), P(token | other) = prevalence · (1 − strength) / P(other),
    with the classes' shares in each split (0.893 and 0.049 on SNLI's training part), at most 1. A pair is aligned if it
    carries the token and has the target's label, conflicting if it carries it and has another, independent without it.

    Tests, all of the pairs of dev.tsv: `test` (primary) by `test_prevalence` and `test_strength`, so that the token is
    on nearly every pair and says nothing; `in-distribution` by the training recipe; `clean` without the token;
    `token-everywhere`. Aligned and conflicting accuracy, and the groups label × alignment, are over pairs with the
    token; the others count in the average only. Validation follows the training recipe.

    Attributes:
        token: What is appended to the premise.
        prevalence: Share of training pairs with the token, in [0, 1].
        strength: Share of those with the target's label, in [0, 1].
        test_prevalence: The prevalence in `test`.
        test_strength: The strength in `test`; near the target's share it says nothing about the label.
        target: The label that the token points to.
        pairs: At most so many labelled pairs are taken, from the beginning of the training part (as many as the
            released code); None takes all.
        test_pairs: Likewise of dev.tsv, which makes every test set; None takes all.
        data_dir: Folder of train.tsv, dev.tsv and perhaps train_holdout.tsv (validation; without it a tenth of each
            class of train.tsv, drawn by the data seed), with the columns premise, hypothesis and label (names, or 0, 1,
            2 for entailment, neutral, contradiction). None takes SNLI's train and validation parts from the hub.
    """

    token: str = " !!"
    prevalence: float = 0.33
    strength: float = 0.9
    test_prevalence: float = 0.95
    test_strength: float = 0.33
    target: NLILabel = "neutral"
    pairs: int | None = 100_000
    test_pairs: int | None = None
    data_dir: Path | str | None = None

    name: ClassVar[str] = "biased-snli"
    summary: ClassVar[str] = (
        "SNLI, in which ' !!' after the premise leaks a label (TSV files in --data-dir, or the hub)"
    )
    origin: ClassVar[str] = (
        f"SNLI (Bowman et al. 2015), CC BY-SA 4.0, from TSV files or {HUB_NAME}; EDGE's token recipe"
    )
    licence: ClassVar[str] = "CC BY-SA 4.0 (SNLI)"
    bias: ClassVar[str] = "a token appended to the premise nearly always means one label in training"
    metric: ClassVar[str] = (
        "accuracy on the primary test set, in which nearly every pair carries the token; clean, in-distribution and "
        "token-everywhere accuracy beside it"
    )
    default_model: ClassVar[str] = "MiniLM"
    training: ClassVar[dict[str, Training]] = {
        "MiniLM": Training(
            epochs=2,
            lr=1e-4,
            batch_size=32,
            optimizer="adamw",
            schedule="linear",
            max_grad_norm=1.0,
            max_length=128,
        ),
        "roberta-base": replace(FINE_TUNING, max_length=128),
    }
    adapter_training: ClassVar[dict[str, Training]] = {
        # EDGE's released settings, for LoRA; schedule and clipping are the defaults of transformers' Trainer
        "roberta-base": Training(
            epochs=15,
            lr=3e-4,
            batch_size=64,
            optimizer="adamw",
            weight_decay=0.1,
            schedule="linear",
            max_grad_norm=1.0,
            max_length=128,
        ),
        # on 18,000 pairs two epochs of this learn the token and little else
        "MiniLM": Training(
            epochs=2,
            lr=1e-3,
            batch_size=64,
            optimizer="adamw",
            schedule="linear",
            max_grad_norm=1.0,
            max_length=128,
        ),
    }

    def __post_init__(self) -> None:
        if not isinstance(self.token, str) or not self.token.strip():
            raise UserError(
                f"The 'token' parameter of {self.name} must be a text that isn't blank. Got {self.token!r}."
            )
        for field in ("prevalence", "strength", "test_prevalence", "test_strength"):
            check_number(self.name, field, getattr(self, field), 0, 1)
        check_choice(self.name, "target", self.target, LABELS)
        for field in ("pairs", "test_pairs"):
            if getattr(self, field) is not None:
                check_integer(self.name, field, getattr(self, field), 1)

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of pairs that are there."""
        return [path for name in _NAMES.values() if (path := folder / name).exists()]

    def build(self, data_seed: int) -> Task:
        """Build the splits; equal seeds put the token on the same pairs.

        Raises:
            UserError: If a file is missing or holds something else, or the data have too few pairs of a class for the
                prevalence and strength.
        """
        parts, notes = _from_hub() if self.data_dir is None else _from_files(Path(self.data_dir))
        train, validation, dev = parts["train"], parts.get("validation"), parts["dev"]
        train = train.take(np.arange(len(train.label_N))[: self.pairs])
        dev = dev.take(np.arange(len(dev.label_N))[: self.test_pairs])
        if validation is None:
            kept, held = held_out(train.label_N, np.random.default_rng([data_seed, 0]))
            train, validation = train.take(kept), train.take(held)
        recipe, test_recipe = (self.prevalence, self.strength), (self.test_prevalence, self.test_strength)
        everywhere = np.ones(len(dev.label_N), dtype=bool)
        tests = {
            "test": self._split(dev, self._draw(dev, test_recipe, (data_seed, 3), "test")),
            "in-distribution": self._split(dev, self._draw(dev, recipe, (data_seed, 4), "in-distribution")),
            "clean": self._split(dev, ~everywhere),
            "token-everywhere": self._split(dev, everywhere),
        }
        return Task(
            name=self.name,
            kind="text",
            train=self._split(train, self._draw(train, recipe, (data_seed, 1), "train")),
            validation=self._split(validation, self._draw(validation, recipe, (data_seed, 2), "validation")),
            tests=tests,
            primary_test="test",
            notes=tuple(notes),
        )

    def _draw(
        self, pairs: Pairs, recipe: tuple[float, float], stream: tuple[int, int], split: str
    ) -> NDArray[np.bool_]:
        """Which pairs carry the token, shape (N,), i.i.d. within each class."""
        is_target_N = pairs.label_N == LABELS.index(self.target)
        share = float(is_target_N.mean()) if len(is_target_N) else 0.0
        on_target, on_other = token_probabilities(share, *recipe)
        # a few pairs' classes are uneven by chance: a probability just above 1 is met by the token on the whole class
        if max(on_target, on_other) > _REACHED:
            raise UserError(
                f"The prevalence {recipe[0]:g} and strength {recipe[1]:g} of {self.name} can't be reached in the split "
                f"'{split}', where {100 * share:.1f} % of the pairs are labelled '{self.target}': lower one of them."
            )
        draw_N = np.random.default_rng(stream).random(len(is_target_N))
        return draw_N < np.where(is_target_N, on_target, on_other)

    def _split(self, pairs: Pairs, token_N: NDArray[np.bool_]) -> datasets.Dataset:
        is_target_N = pairs.label_N == LABELS.index(self.target)
        alignment_N = np.where(token_N, np.where(is_target_N, 0, 1), 2)
        # the groups in use: the target's aligned pairs and the others' conflicting ones
        groups = [f"{label} {ALIGNMENTS[label != self.target]}" for label in LABELS]
        features = datasets.Features(
            {
                "text": datasets.Value("string"),
                "text_pair": datasets.Value("string"),
                "labels": datasets.ClassLabel(names=list(LABELS)),
                "attribute": datasets.ClassLabel(names=["no token", "token"]),
                "alignment": datasets.ClassLabel(names=list(ALIGNMENTS)),
                "group": datasets.ClassLabel(names=groups),
                "index": datasets.Value("int64"),
            }
        )
        texts = [p + self.token if t else p for p, t in zip(pairs.premises, token_N, strict=True)]
        columns = [
            pa.array(texts, pa.string()),
            pa.array(pairs.hypotheses, pa.string()),
            pa.array(pairs.label_N),
            pa.array(token_N.astype(np.int64)),
            pa.array(alignment_N),
            pa.array(pairs.label_N, mask=~token_N),  # none without the token
            pa.array(np.arange(len(texts))),
        ]
        return datasets.Dataset(pa.Table.from_arrays(columns, schema=features.arrow_schema))


def token_probabilities(target_share: float, prevalence: float, strength: float) -> tuple[float, float]:
    """P(token | target) and P(token | other class), by Bayes' rule; infinite where such pairs are missing."""

    def of_class(joint: float, share: float) -> float:
        return joint / share if share > 0 else (float("inf") if joint > 0 else 0.0)

    return of_class(prevalence * strength, target_share), of_class(prevalence * (1 - strength), 1 - target_share)


def read_pairs(path: Path) -> tuple[Pairs, int]:
    """Read a tab-separated file of pairs; how many were left out, since they have no label, comes with them.

    Raises:
        UserError: If the file can't be read, lacks a column, or a row has another number of fields or a label that is
            none; the line is named.
    """
    premises: list[str] = []
    hypotheses: list[str] = []
    labels: list[int] = []
    numbers = {name: i for i, name in enumerate(LABELS)} | {str(i): i for i in range(len(LABELS))}
    unlabelled = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            found = reader.fieldnames or []
            missing = [name for name in _COLUMNS if name not in found]
            if missing:
                raise UserError(
                    f"The file '{path}' has no column '{missing[0]}' in its first line, which must name premise, "
                    f"hypothesis and label, separated by tabs (it has {', '.join(map(repr, found)) or 'none'})."
                )
            for row in reader:
                if None in row or any(row[name] is None for name in _COLUMNS):
                    raise UserError(f"Line {reader.line_num} of '{path}' hasn't the {len(found)} fields of the first.")
                label = row["label"].strip()
                if label in _UNLABELLED:
                    unlabelled += 1
                elif label not in numbers:
                    raise UserError(
                        f"Line {reader.line_num} of '{path}' has the label {label!r}, which is none of "
                        f"{', '.join(LABELS)}, 0, 1, 2 (or -1 or - for none)."
                    )
                else:
                    premises.append(row["premise"])
                    hypotheses.append(row["hypothesis"])
                    labels.append(numbers[label])
    except OSError as error:
        raise UserError(f"The file '{path}' could not be read ({error.strerror}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"The file '{path}' is no tab-separated text in UTF-8 ({error}).") from error
    if not labels:
        raise UserError(f"The file '{path}' holds no labelled pairs.")
    return Pairs(premises, hypotheses, np.array(labels, dtype=np.int64)), unlabelled


def _from_files(folder: Path) -> tuple[dict[str, Pairs], list[str]]:
    if not folder.is_dir():
        raise UserError(f"The folder '{folder}' given as --data-dir does not exist.")
    parts, notes = {}, []
    for part, name in _NAMES.items():
        if part == "validation" and not (folder / name).exists():
            continue
        if not (folder / name).exists():
            raise UserError(f"The folder '{folder}' must hold the file '{name}' of pairs, and doesn't.")
        parts[part], unlabelled = read_pairs(folder / name)
        notes += _note(unlabelled, name)
    return parts, notes


def _from_hub() -> tuple[dict[str, Pairs], list[str]]:
    try:
        loaded: Any = datasets.load_dataset(HUB_NAME)
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"SNLI could not be loaded from the hub as '{HUB_NAME}' ({type(error).__name__}); "
            "give a folder of train.tsv and dev.tsv with --data-dir instead."
        ) from error
    parts, notes = {}, []
    for part, name in (("train", "train"), ("dev", "validation")):
        columns = loaded[name][:]
        label_N = np.asarray(columns["label"], dtype=np.int64)
        pairs = Pairs(columns["premise"], columns["hypothesis"], label_N)
        parts[part] = pairs.take(np.flatnonzero(label_N >= 0))
        notes += _note(int((label_N < 0).sum()), f"SNLI's {name} part")
    return parts, notes


def _note(unlabelled: int, where: str) -> list[str]:
    return [f"{unlabelled:,} pairs of {where} have no label and were left out."] if unlabelled else []
