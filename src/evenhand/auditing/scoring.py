"""Biased models → scores and predictions of every training sample.

Legend: N samples, C classes, S seeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from evenhand.batches import AnyRows
from evenhand.configuration import Configuration, model_source
from evenhand.gradients import Norm, Source, gradient_norms
from evenhand.inference import logits_and_labels
from evenhand.methods import GCE
from evenhand.record import read_json, write_json
from evenhand.stages import untouched_surroundings
from evenhand.stored_run import Progress, StoredRun, ready
from evenhand.tasks import Task
from evenhand.validation import UserError

_CHECKED = 32  # of the highest stored scores, and as many of all, are computed again
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
class Scored:
    """What the biased models make of the training samples.

    Attributes:
        seeds: The models' seeds; None for a model given as it is.
        score_SN: Each model's scores, of sum 1, shape (S, N).
        probability_NC: Mean of the models' class probabilities, shape (N, C).
    """

    seeds: tuple[int | None, ...]
    score_SN: NDArray[np.float64]
    probability_NC: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the models' scores, of sum 1, shape (N,)."""
        return self.score_SN.mean(axis=0)


@dataclass(frozen=True)
class BiasedModel:
    """A biased model to take or to train.

    Attributes:
        configuration: As what it is trained, or was.
        folder: Where the audit keeps it, and what it computes with it.
        seed: Its seed; None for a model given as it is.
        load: Loads it where it lies; None has it trained.
        scores: A file of scores that were computed with it before.
        origin: What it is, told apart from others by this.
    """

    configuration: Configuration
    folder: Path
    seed: int | None
    load: Callable[[], nn.Module] | None = None
    scores: Path | None = None
    origin: str = "trained"


def score_all(
    models: list[BiasedModel], task: Task, scoring: Scoring, device: torch.device, progress: Progress | None = None
) -> Scored:
    """Score with each model, and take the mean; what a killed audit has finished is not done again.

    Raises:
        UserError: If stored scores don't belong to the data, or can't be used.
        StageError: If a training diverged.
    """
    score_SN, mean_NC = [], None
    for biased in models:
        with untouched_surroundings():
            norm_N, logits_NC = _scored(biased, task, scoring, device, progress)
        total = norm_N.sum()
        if not np.isfinite(norm_N).all() or norm_N.min() < 0 or total <= 0:
            raise UserError(
                f"The scores of the biased model in '{biased.folder}' are no numbers of at least 0 with a positive "
                "sum, so samples can't be ranked by them."
            )
        score_SN.append(norm_N / total)
        probability_NC = softmax(logits_NC.astype(np.float64), axis=1) / len(models)
        mean_NC = probability_NC if mean_NC is None else mean_NC + probability_NC
    assert mean_NC is not None
    return Scored(tuple(biased.seed for biased in models), np.stack(score_SN), mean_NC)


def _scored(
    biased: BiasedModel, task: Task, scoring: Scoring, device: torch.device, progress: Progress | None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """One model's scores and logits, from its folder where they are there."""
    configuration = biased.configuration
    _claim(biased, scoring)
    source = model_source(configuration.model, task, configuration.adapters)
    run = StoredRun(configuration, task, source, biased.folder, device, progress)
    model = run.train("biased", GCE()) if biased.load is None else ready(biased.load(), device)
    logits_file = biased.folder / "logits.npy"
    logits_NC = _kept(logits_file, lambda: logits_and_labels(model, run.rows["train"], collate_fn=run.collate)[0])
    if logits_NC.shape != (len(task.train), len(task.label_names)):
        raise UserError(
            f"The model gives {logits_NC.shape[1]} classes for {logits_NC.shape[0]} samples, but the task "
            f"'{task.name}' has {len(task.label_names)} classes and {len(task.train)} training samples."
        )
    if biased.scores is None:
        return run.gradient_norms(model, scoring.source, scoring.norm), logits_NC
    norm_N = _read(biased.scores)
    _check_scores(norm_N, biased.scores, model, run, scoring)
    return norm_N, logits_NC


def _claim(biased: BiasedModel, scoring: Scoring) -> None:
    """The folder is this model's; one of another model is refused."""
    described = {
        "configuration": biased.configuration.run_hash,
        "origin": biased.origin,
        "source": scoring.source,
        "norm": scoring.norm,
    }
    path = biased.folder / "biased.json"
    if path.exists():
        try:
            same = read_json(path) == described
        except ValueError:
            same = False
        if not same:
            raise UserError(
                f"The folder '{biased.folder}' holds a biased model of another audit (data, model, training or "
                "seed): choose another output folder."
            )
        return
    try:
        biased.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, described)
    except OSError as error:
        raise UserError(f"The output folder '{biased.folder}' can't be written to ({error.strerror}).") from error


def _kept(path: Path, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """An array from its file, which appears whole or not at all."""
    if not path.exists():
        partial = path.with_name(f".{path.stem}.{os.getpid()}.npy")
        try:
            np.save(partial, compute())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(path)


def _read(path: Path) -> NDArray[np.float64]:
    try:
        norm_N = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"The scores in '{path}' can't be read ({error}): delete the file or repeat its run."
        ) from error
    return norm_N.astype(np.float64)


def _check_scores(norm_N: NDArray[np.float64], path: Path, model: nn.Module, run: StoredRun, scoring: Scoring) -> None:
    """Scores are those of these very samples: as many, and equal where they are computed again."""
    rows = run.rows["train"]
    wanted = "give the data that the run was trained on (the same --data-dir and settings)"
    if norm_N.shape != (len(rows),):
        raise UserError(
            f"The scores in '{path}' don't match the data: {norm_N.size} scores, {len(rows)} training samples; "
            f"{wanted}."
        )
    spread = np.linspace(0, len(rows) - 1, min(_CHECKED, len(rows))).astype(np.int64)
    chosen = np.union1d(spread, np.argsort(-norm_N)[:_CHECKED])
    again_N = gradient_norms(model, _Part(rows, chosen), scoring.source, scoring.norm, collate_fn=run.collate)
    scale = np.maximum(again_N, norm_N[chosen]) + 1e-3 * norm_N.mean()
    if np.mean(np.abs(again_N - norm_N[chosen]) / scale > _TOLERANCE) > 0.1:
        raise UserError(
            f"The scores in '{path}' don't match the data: computed again, the samples have other scores; {wanted}."
        )


class _Part:
    """Some rows of a data set that is read by the batch."""

    def __init__(self, rows: AnyRows, chosen: NDArray[np.int64]) -> None:
        self.rows, self.chosen = rows, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitems__(self, places: list[int]) -> dict[str, object]:
        return self.rows.__getitems__([int(self.chosen[place]) for place in places])

    def __getitem__(self, place: int) -> dict[str, object]:
        return self.rows[int(self.chosen[place])]
