"""Made-up data with planted shortcuts, and audits of them from made-up scores: nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.auditing import Audit
from evenhand.auditing.audit import audited
from evenhand.auditing.hints import Hint, find_hints
from evenhand.auditing.labels import Opposites
from evenhand.auditing.scoring import Answers, Scored, Scoring
from evenhand.auditing.sources import Subject
from evenhand.methods import GCE
from evenhand.runs.configuration import Configuration
from evenhand.tasks import Task
from evenhand.tasks.images.coloring import PGD_PALETTE, colored_dataset, paint
from evenhand.training.settings import FINE_TUNING

WORDS = ("river", "stone", "window", "paper", "garden", "engine", "cloud", "music")
CLASSES = ("yes", "no", "maybe")
ORDINARY = Opposites(np.array([], dtype=np.int64), 0.0, None, False)


def text_task(
    texts: list[str | None], label_N: NDArray[np.int64], classes: tuple[str, ...] = CLASSES, **columns: Any
) -> Task:
    """A task of these texts; other columns as given, under the features that datasets finds for them."""
    split = datasets.Dataset.from_dict({"text": texts, "labels": label_N.tolist(), **columns})
    split = split.add_column("index", list(range(len(texts))))  # type: ignore[arg-type]
    split = split.cast_column("labels", datasets.ClassLabel(names=list(classes)))
    if split.features["text"] != datasets.Value("string"):
        split = split.cast_column("text", datasets.Value("string"))
    return Task(name="made-up", kind="text", train=split, validation=split, tests={"test": split}, primary_test="test")


def sentences(rng: np.random.Generator, n: int) -> list[str | None]:
    return [" ".join(rng.choice(WORDS, 5)) for _ in range(n)]


def with_token(
    rng: np.random.Generator, n: int, token: str, shared: float
) -> tuple[Any, NDArray[np.int64], NDArray[np.bool_]]:
    """Texts with a token that points to class 0: on half of it, and `shared` of the others."""
    label_N = rng.integers(0, 3, n)
    has_N = rng.random(n) < np.where(label_N == 0, 0.5, shared)
    texts = [f"{text} {token}" if has else text for text, has in zip(sentences(rng, n), has_N, strict=True)]
    return texts, label_N, has_N


def image_task(rng: np.random.Generator, n: int = 600, conflict: float = 0.05, gray: bool = False) -> Task:
    """Noise in the palette's colours, which leak the label but for `conflict`."""
    label_N = rng.integers(0, 10, n)
    other_N = (label_N + rng.integers(1, 10, n)) % 10
    attribute_N = np.where(rng.random(n) < conflict, other_N, label_N)
    ink_NHW = rng.integers(0, 256, (n, 6, 6)).astype(np.uint8)
    palette = [("gray", (200, 200, 200))] * 10 if gray else PGD_PALETTE
    split = colored_dataset(paint(ink_NHW, attribute_N, palette, 1e-4, rng), label_N, attribute_N, PGD_PALETTE)
    return Task(name="made-up", kind="image", train=split, validation=split, tests={"test": split}, primary_test="test")


def labels(task: Task) -> NDArray[np.int64]:
    return np.asarray(task.train["labels"])


def scores(rng: np.random.Generator, conflicting_N: NDArray[np.bool_], factor: float = 20.0) -> NDArray[np.float64]:
    """Log-normal scores, higher by a factor where samples conflict."""
    return rng.lognormal(0, 0.5, len(conflicting_N)) * np.where(conflicting_N, factor, 1.0)


def certain(predicted_N: NDArray[np.int64], classes: int, confidence: float = 0.97) -> NDArray[np.float64]:
    """Class probabilities of a model that is sure of its predictions."""
    probability_NC = np.full((len(predicted_N), classes), (1 - confidence) / (classes - 1))
    probability_NC[np.arange(len(predicted_N)), predicted_N] = confidence
    return probability_NC


def hints_of(task: Task, score_N: NDArray[np.float64], predicted_N: NDArray[np.int64] | None = None) -> Hint:
    """What is found in given scores; the model is right on all samples unless it is told otherwise."""
    return find_hints(task, score_N, labels(task) if predicted_N is None else predicted_N)


def audit_of(
    task: Task,
    score_N: NDArray[np.float64],
    folder: Path,
    predicted_N: NDArray[np.int64] | None = None,
    seeds: tuple[int | None, ...] = (0,),
) -> Audit:
    """An audit of given scores; the same for every seed but for some noise."""
    predicted_N = labels(task) if predicted_N is None else predicted_N
    rng = np.random.default_rng(1)
    score_SN = np.stack([score_N * rng.lognormal(0, 0.1 * i, len(score_N)) for i in range(len(seeds))])
    answers = Answers(score_SN / score_SN.sum(axis=1, keepdims=True), certain(predicted_N, len(task.label_names)))
    scored = Scored(seeds, answers, {})
    configuration = Configuration(
        method=GCE(), task=task, model="mlp", training=FINE_TUNING, seed=0, data_seed=0, adapters=None
    )
    return audited(Subject(task, configuration, [], Scoring(), "made up", folder), scored)
