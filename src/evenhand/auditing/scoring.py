"""Biased models → scores and predictions of every row, each by models that haven't seen it.

Legend: N samples of a split, C classes, S seeds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from evenhand.data.columns import column_values
from evenhand.data.inputs import Preprocess
from evenhand.data.rows import AnyRows, collator_for, model_rows
from evenhand.evaluation.progress import Progress
from evenhand.files import alone_in, whole_file
from evenhand.gradients import Norm, Source, gradient_norms
from evenhand.methods.base import OneStage
from evenhand.methods.folds import biased_folds
from evenhand.models.inference import logits_and_labels, ready
from evenhand.runs.configuration import Configuration
from evenhand.runs.record import read_json, write_json
from evenhand.runs.seals import fault
from evenhand.runs.shared_stages import SharedStages
from evenhand.runs.stored_run import StoredRun
from evenhand.tasks import Task
from evenhand.training.stage import untouched_surroundings
from evenhand.validation import UserError

FOLDS = 2
"""Halves: each model is asked about the one it wasn't trained on, as in Even."""
_TOLERANCE = 0.02  # other processors and threads round otherwise, other data are far off


@dataclass(frozen=True)
class Scoring:
    """Which gradient scores.

    Attributes:
        source: Which parameters' gradient.
        norm: Its norm.
    """

    source: Source = "head"
    norm: Norm = "l2"


@dataclass(frozen=True)
class Answers:
    """What the biased models make of one split.

    Attributes:
        score_SN: The scores under each seed's models, as shares of the training samples' sum, shape (S, N).
        probability_NC: Mean of the models' class probabilities, shape (N, C); None where they aren't known.
        chosen_N: The predicted classes, shape (N,), where these alone are known.
    """

    score_SN: NDArray[np.float64]
    probability_NC: NDArray[np.float64] | None
    chosen_N: NDArray[np.int64] | None = None

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the seeds, shape (N,)."""
        return self.score_SN.mean(axis=0)

    @property
    def predicted(self) -> NDArray[np.int64] | None:
        """The predicted classes, shape (N,); None where they aren't known."""
        return self.chosen_N if self.probability_NC is None else self.probability_NC.argmax(axis=1)


@dataclass(frozen=True)
class Scored:
    """What the biased models make of the training samples, on which all findings rest, and of the other splits.

    Attributes:
        seeds: The models' seeds; None for a model given as it is.
        train: The training samples, whose scores sum to 1.
        elsewhere: The splits that no model is trained on, by name: their scores on the same scale.
    """

    seeds: tuple[int | None, ...]
    train: Answers
    elsewhere: Mapping[str, Answers]


@dataclass(frozen=True)
class BiasedModels:
    """The biased models of one seed, to be trained or taken.

    Attributes:
        configuration: How they are trained, or were; its method is what they minimise.
        folder: Where the audit keeps them, and what it computes with them.
        seed: Their seed.
        folds: How many there are: each is trained on all but one part, and asked about that one.
        augment: Whether they are trained on augmented images.
        stages: The stages of a run that trained them already; None has them trained.
        origin: What they are, told apart from others by this.
        shared: Where stages lie that runs need too.
    """

    configuration: Configuration
    folder: Path
    seed: int
    folds: int = FOLDS
    augment: bool = False
    stages: Path | None = None
    origin: str = "trained"
    shared: SharedStages | None = None

    def models(self, run: StoredRun) -> Iterator[tuple[nn.Module, NDArray[np.bool_]]]:
        """Each model and the training samples that it is asked about, shape (N,)."""
        if self.stages is None:
            method = self.configuration.method
            assert isinstance(method, OneStage)
            yield from biased_folds(run, method, self.folds, augment=self.augment)
        else:
            part_N = run.parts(self.folds)
            for k in range(self.folds):
                stage = self.stages / f"biased-{k + 1}"
                _check_stage(stage)
                yield ready(run.source.load(stage / "model"), run.device), part_N == k


def score_all(
    models: list[BiasedModels], task: Task, scoring: Scoring, device: torch.device, progress: Progress | None = None
) -> Scored:
    """Score with the models of each seed, and take the mean; what a killed audit has finished is not done again.

    Raises:
        UserError: If the models of a run weren't trained on the data, or scores can't be used.
        StageError: If a training diverged.
    """
    found = []
    for biased in models:
        with untouched_surroundings():
            found.append(_scored(biased, task, scoring, device, progress))
    joined = {
        name: Answers(
            np.stack([of_seed[name][0] for of_seed in found]), np.mean([of_seed[name][1] for of_seed in found], axis=0)
        )
        for name in scored_splits(task)
    }
    return Scored(tuple(biased.seed for biased in models), joined.pop("train"), joined)


def scored_splits(task: Task) -> dict[str, datasets.Dataset]:
    """The splits whose labels are the model's classes, train first."""
    same = task.label_names
    return {name: split for name, split in task.splits.items() if tuple(split.features["labels"].names) == same}


_OfSplit = tuple[NDArray[np.float64], NDArray[np.float64]]  # scores, shape (N,), and probabilities, shape (N, C)


def _scored(
    biased: BiasedModels, task: Task, scoring: Scoring, device: torch.device, progress: Progress | None
) -> dict[str, _OfSplit]:
    """The scores and class probabilities of one seed's models, split by split."""
    with alone_in(biased.folder):
        described = {
            "configuration": biased.configuration.run_hash,
            "origin": biased.origin,
            "folds": biased.folds,
            "augment": biased.augment,
            "source": scoring.source,
            "norm": scoring.norm,
        }
        claim(biased.folder, described)
        return _asked(biased, task, scoring, device, progress)


def _asked(
    biased: BiasedModels, task: Task, scoring: Scoring, device: torch.device, progress: Progress | None
) -> dict[str, _OfSplit]:
    source = biased.configuration.source(task)
    run = StoredRun(biased.configuration, task, source, biased.folder, device, progress, biased.shared)
    splits = scored_splits(task)
    norms = {name: np.zeros(len(split)) for name, split in splits.items()}
    probabilities = {name: np.zeros((len(split), len(task.label_names))) for name, split in splits.items()}
    for k, (model, asked_N) in enumerate(biased.models(run)):
        answers = Asking(task, run.rows, run.preprocess, model, scoring, biased.folder / f"answers-{k + 1}.npz")
        for name, split in splits.items():
            rows = np.flatnonzero(asked_N) if name == "train" else np.arange(len(split))
            share = 1.0 if name == "train" else 1 / biased.folds
            norm_N, probability_NC = answers.of(name, split, rows)
            if name == "train" and biased.stages is not None:
                _check_data(biased.stages / f"probabilities-{k + 1}", probability_NC, rows, split)
            norms[name][rows] += share * norm_N
            probabilities[name][rows] += share * probability_NC
        answers.keep()
    total = sum_of(norms["train"], f"the biased models in '{biased.folder}'")
    return {name: (norms[name] / total, probabilities[name]) for name in splits}


def sum_of(norm_N: NDArray[np.float64], what: str) -> float:
    """The norms' sum, by which all are divided.

    Raises:
        UserError: If samples can't be ranked by them.
    """
    total = float(norm_N.sum())
    if not np.isfinite(norm_N).all() or norm_N.min() < 0 or total <= 0:
        raise UserError(
            f"The scores of {what} aren't all finite and at least 0 with a positive sum, so samples can't be ranked by "
            "them."
        )
    return total


class Asking:
    """What one model says of rows: computed, or as an earlier audit computed it.

    Args:
        task: The task.
        rows: The rows of its splits as the model reads them.
        preprocess: How rows become the model's inputs.
        model: The model.
        scoring: Which gradient scores.
        path: Where the answers are kept; None keeps none.
        order: The number by which the model knows each of the task's classes, in the labels of `rows` too; None where
            it is the task's own.
        size: Rows a pass; as many as training's own passes have if None.
    """

    def __init__(
        self,
        task: Task,
        rows: Mapping[str, AnyRows],
        preprocess: Preprocess,
        model: nn.Module,
        scoring: Scoring,
        path: Path | None,
        order: list[int] | None = None,
        size: int | None = None,
    ) -> None:
        self.task, self.rows, self.preprocess, self.model, self.scoring = task, rows, preprocess, model, scoring
        self.path, self.order, self.size, self.collate = path, order, size, collator_for(preprocess)
        self.kept: dict[str, NDArray[Any]] | None = None
        self.found: dict[str, NDArray[Any]] = {}
        if path is not None:
            # what can't be read any more is computed again
            with suppress(OSError, ValueError, EOFError, BadZipFile, zlib.error), path.open("rb") as file:
                self.kept = dict(np.load(file))

    def of(self, name: str, split: datasets.Dataset, rows: NDArray[np.int64]) -> _OfSplit:
        """Norms and class probabilities of some rows of a split, in their order."""
        place = len(self.found) // 2
        keys = f"norms{place}", f"logits{place}"  # a split's name may be none that a file can have
        if self.kept is None:
            whole = len(rows) == len(split)
            asked = self.rows[name] if whole else model_rows(split.select(rows), self.preprocess)
            logits_NC = logits_and_labels(self.model, asked, self.size or 512, self.collate)[0]
            self._check_classes(logits_NC)
            logits_NC = logits_NC if self.order is None else logits_NC[:, self.order]
            source, norm = self.scoring.source, self.scoring.norm
            norm_N = gradient_norms(self.model, asked, source, norm, batch_size=self.size, collate_fn=self.collate)
        else:
            norm_N, logits_NC = (self.kept[key] for key in keys)
        if len(norm_N) != len(rows):
            raise UserError(
                f"'{self.path}' holds scores of {len(norm_N):,} rows of the split '{name}', but {len(rows):,} were "
                "asked for: choose another output folder."
            )
        self.found |= dict(zip(keys, (norm_N, logits_NC), strict=True))
        return norm_N, softmax(logits_NC.astype(np.float64), axis=1)

    def keep(self) -> None:
        """Write what was computed; the file appears whole or not at all."""
        if self.kept is not None or self.path is None:
            return
        with whole_file(self.path) as partial, partial.open("wb") as file:
            np.savez(file, **self.found)  # type: ignore[arg-type]

    def _check_classes(self, logits_NC: NDArray[np.float32]) -> None:
        names = self.task.label_names
        if logits_NC.shape[1] != len(names):
            raise UserError(
                f"The model gives {logits_NC.shape[1]} classes, but the task '{self.task.name}' has {len(names)}."
            )


def _check_data(
    stage: Path, probability_NC: NDArray[np.float64], rows: NDArray[np.int64], split: datasets.Dataset
) -> None:
    """The data are those of the run: its models give them the probabilities that the run stored."""
    path = stage / "probabilities.npy"
    if not path.exists():
        return
    wanted = "give the data that the run was trained on (the same --data-dir and settings)"
    _check_stage(stage)
    told_N = np.load(path)
    if told_N.shape != (len(split),):
        raise UserError(
            f"The probabilities in '{path}' don't match the data: {told_N.size} of them, {len(split)} training "
            f"samples; {wanted}."
        )
    again_N = probability_NC[np.arange(len(rows)), column_values(split, "labels")[rows]]
    scale_N = np.maximum(again_N, told_N[rows]) + 1e-3
    if np.mean(np.abs(again_N - told_N[rows]) / scale_N > _TOLERANCE) > 0.1:
        raise UserError(
            f"The probabilities in '{path}' don't match the data: computed again, the samples have other ones; "
            f"{wanted}."
        )


def _check_stage(stage: Path) -> None:
    """A run's stage is as the run wrote it."""
    reason = fault(stage)
    if reason is not None:
        raise UserError(f"The stage '{stage}' is damaged ({reason}): give its run's command again, which mends it.")


def claim(folder: Path, described: dict[str, Any]) -> None:
    """The folder is that of models described so; one of others is refused."""
    path = folder / "biased.json"
    if path.exists():
        try:
            same = read_json(path) == described
        except ValueError:
            same = False
        if not same:
            raise UserError(
                f"The folder '{folder}' holds a biased model of another audit (data, model, training or seed): "
                "choose another output folder."
            )
        return
    write_json(path, described)
