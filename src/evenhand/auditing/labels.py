"""Samples that go against what the model is sure of: of a shortcut without a name, or with a wrong label.

Legend: N samples, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenhand.auditing.detection import order
from evenhand.auditing.hints import Hint

CONFIDENT = 0.9
"""The biased model must give another class at least this probability."""
RELIABLE = 0.9
"""And be right on this share of the samples that it predicts so confidently, among those with a shortcut or without."""
LOOKED_AT = 10
"""The samples looked at: one of ten, those with the highest scores."""
SURE_ERRORS = 0.7
"""An ordinary task's errors are less often confident than its right predictions. Where they are so at this ratio or
more, and nothing found explains them …"""
SURE_MASS = 0.45
"""… and the confident ones hold this share of the scores' sum …"""
FEW = 0.2
"""… and are no more than this share of the samples, they are of a shortcut without a name, or wrong labels."""
LEAST = 10
"""Fewer samples than these say nothing."""


@dataclass(frozen=True)
class Opposites:
    """Samples that nothing found explains and that the models surely take for another class.

    Attributes:
        rows: Their rows, the highest scores first, shape (n,).
        mass: Their share of the scores' sum.
        ratio: How often such wrong predictions are confident, as a multiple of how often right ones are; None if there
            are none.
        unnamed: Whether they are so few, sure and heavy that a shortcut without a name, or wrong labels, are likely.
    """

    rows: NDArray[np.int64]
    mass: float
    ratio: float | None
    unnamed: bool


@dataclass(frozen=True)
class Suspects:
    """Samples whose label looks wrong.

    Attributes:
        rows: Their rows, those whose label the biased model finds least likely first, shape (n,).
        looked_at: How many samples of the highest scores were looked at.
        explained: Confident other predictions among these that something found explains, so that they are none.
        right_when_confident: Share of the biased model's confident predictions that are right; None if there are none.
    """

    rows: NDArray[np.int64]
    looked_at: int
    explained: int
    right_when_confident: float | None


NO_OPPOSITES = Opposites(np.array([], dtype=np.int64), 0.0, None, False)
NO_SUSPECTS = Suspects(np.array([], dtype=np.int64), 0, 0, None)
"""Nothing is said where the classifier's probabilities aren't known."""


def find_opposites(
    score_N: NDArray[np.float64], probability_NC: NDArray[np.float64], label_N: NDArray[np.int64], hint: Hint
) -> Opposites:
    """Whether scores concentrate on few samples with sure opposite predictions that nothing found explains."""
    predicted_N = probability_NC.argmax(axis=1)
    right_N = predicted_N == label_N
    confident_N = probability_NC.max(axis=1) >= CONFIDENT
    wrong_N = ~right_N & ~hint.explained(label_N, predicted_N)
    ranking = order(score_N)
    rows = ranking[(wrong_N & confident_N)[ranking]]
    mass = float(score_N[rows].sum() / score_N.sum())
    confident_right = float(confident_N[right_N].mean()) if right_N.any() else 0.0
    ratio = len(rows) / int(wrong_N.sum()) / confident_right if wrong_N.any() and confident_right else None
    few = LEAST <= len(rows) <= FEW * len(score_N)
    return Opposites(rows, mass, ratio, few and mass >= SURE_MASS and ratio is not None and ratio >= SURE_ERRORS)


def find_suspects(
    score_N: NDArray[np.float64], probability_NC: NDArray[np.float64], label_N: NDArray[np.int64], hint: Hint
) -> Suspects:
    """Among the highest scores: confident predictions of another class, of samples that nothing found explains."""
    first = order(score_N)[: math.ceil(len(score_N) / LOOKED_AT)]
    predicted_N = probability_NC.argmax(axis=1)
    confident_N = probability_NC.max(axis=1) >= CONFIDENT
    right_N = predicted_N == label_N
    explained_N = hint.explained(label_N, predicted_N)
    other = first[confident_N[first] & ~right_N[first]]
    reliable_N = _reliable(predicted_N, hint.pointed(len(score_N)), confident_N, right_N)
    rows = other[~explained_N[other] & reliable_N[other]]
    # not by score: a gradient's norm also grows with the features', whatever the label
    least_likely = np.argsort(probability_NC[rows, label_N[rows]], kind="stable")
    return Suspects(
        rows=rows[least_likely],
        looked_at=len(first),
        explained=int(explained_N[other].sum()),
        right_when_confident=float(right_N[confident_N].mean()) if confident_N.any() else None,
    )


def _reliable(
    predicted_N: NDArray[np.int64],
    pointed_N: NDArray[np.int64],
    confident_N: NDArray[np.bool_],
    right_N: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether confident predictions like a sample's are nearly always right.

    Like it are those of the same class, on samples that have some shortcut, or on those that have none: what a model
    says where its shortcut is missing may be worth little.
    """
    kind_N = 2 * predicted_N + (pointed_N >= 0)
    count = np.bincount(kind_N[confident_N], minlength=kind_N.max() + 1)
    right = np.bincount(kind_N[confident_N & right_N], minlength=kind_N.max() + 1)
    return (right >= RELIABLE * np.maximum(count, 1))[kind_N]
