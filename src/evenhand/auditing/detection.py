"""How far the scores agree with each other, with known groups, and with the classes.

Legend: N samples, S seeds, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evenhand.metrics import detection_quality


@dataclass(frozen=True)
class Agreement:
    """How alike the models' scores are, over all pairs of seeds.

    Attributes:
        seeds: How many models.
        rank_correlation: Mean of Spearman's correlation of the scores; None where all of a model's scores are equal.
        lowest_rank_correlation: Its lowest value.
        first: How many samples of the highest scores `overlap` compares: a hundredth of all, at least 10.
        overlap: Mean share of these that two models have in common.
        chance_overlap: What it would be for unrelated scores.
    """

    seeds: int
    rank_correlation: float | None
    lowest_rank_correlation: float | None
    first: int
    overlap: float
    chance_overlap: float


@dataclass(frozen=True)
class Detection:
    """How well the scores find the samples that are known to conflict.

    Attributes:
        conflicting: How many there are.
        samples: Of how many.
        auroc: Probability that a conflicting sample outscores another one.
        average_precision: Area under precision over recall.
        sampling_mass: The conflicting samples' share of the scores' sum.
        precision: (k, share of conflicting ones among the k highest scores).
    """

    conflicting: int
    samples: int
    auroc: float
    average_precision: float
    sampling_mass: float
    precision: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ClassView:
    """One class.

    Attributes:
        name: The class.
        samples: Its training samples.
        mass: Their share of the scores' sum.
        mean_score: Their mean score, as a multiple of the mean over all samples.
        in_first_tenth: Share of them among the tenth of all samples with the highest scores.
        predicted_right: Share that the biased model predicts as this class; None where that isn't known.
    """

    name: str
    samples: int
    mass: float
    mean_score: float
    in_first_tenth: float
    predicted_right: float | None


def agreement(score_SN: NDArray[np.float64]) -> Agreement | None:
    """Compare the models' scores pair by pair; None for a single one."""
    seeds, samples = score_SN.shape
    if seeds < 2:
        return None
    first = min(samples, max(10, samples // 100))
    top = [set(order(score_N)[:first].tolist()) for score_N in score_SN]
    constant = (np.ptp(score_SN, axis=1) == 0).any()
    rank_SN = stats.rankdata(score_SN, axis=1)
    correlations = [] if constant else [float(np.corrcoef(rank_SN[a], rank_SN[b])[0, 1]) for a, b in _pairs(seeds)]
    return Agreement(
        seeds=seeds,
        rank_correlation=float(np.mean(correlations)) if correlations else None,
        lowest_rank_correlation=min(correlations, default=None),
        first=first,
        overlap=float(np.mean([len(top[a] & top[b]) / first for a, b in _pairs(seeds)])),
        chance_overlap=first / samples,
    )


def detection(score_N: NDArray[np.float64], conflicting_N: NDArray[np.bool_]) -> Detection | None:
    """Compare the scores with the samples known to conflict; None where all samples are of one kind."""
    quality = detection_quality(score_N, conflicting_N)
    if quality is None:
        return None
    samples, conflicting = len(score_N), int(conflicting_N.sum())
    found_N = conflicting_N[order(score_N)]
    sizes = sorted({k for k in (10, 100, math.ceil(samples / 100), conflicting) if k <= samples})
    return Detection(
        conflicting=conflicting,
        samples=samples,
        precision=tuple((k, float(found_N[:k].mean())) for k in sizes),
        **quality,
    )


def class_views(
    score_N: NDArray[np.float64],
    label_N: NDArray[np.int64],
    predicted_N: NDArray[np.int64] | None,
    names: tuple[str, ...],
) -> list[ClassView]:
    """One view a class that has samples."""
    samples = len(score_N)
    first_N = np.zeros(samples, dtype=bool)
    first_N[order(score_N)[: math.ceil(samples / 10)]] = True
    views = []
    for label, name in enumerate(names):
        member_N = label_N == label
        if not member_N.any():
            continue
        mass = float(score_N[member_N].sum() / score_N.sum())
        views.append(
            ClassView(
                name=name,
                samples=int(member_N.sum()),
                mass=mass,
                mean_score=mass * samples / int(member_N.sum()),
                in_first_tenth=float(first_N[member_N].mean()),
                predicted_right=None if predicted_N is None else float((predicted_N[member_N] == label).mean()),
            )
        )
    return views


def order(score_N: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows from the highest score to the lowest; equal ones as they stand in the data."""
    return np.argsort(-score_N, kind="stable")


def decile_masses(score_N: NDArray[np.float64]) -> list[float]:
    """The share of the scores' sum that each tenth of the samples has, from the highest scores down."""
    sorted_N = score_N[order(score_N)]
    return [float(part.sum() / score_N.sum()) for part in np.array_split(sorted_N, 10)]


def histogram(score_N: NDArray[np.float64], bins: int = 40) -> dict[str, list[float] | list[int] | int]:
    """Counts of the scores, as multiples of their mean, in bins of equal width on a logarithmic scale.

    Scores of 0 are counted beside them.
    """
    times_N = score_N / score_N.mean()
    positive = times_N[times_N > 0]
    low, high = np.log10(positive.min()), np.log10(positive.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    edges = np.logspace(low, high, bins + 1)
    edges[0], edges[-1] = min(edges[0], positive.min()), max(edges[-1], positive.max())
    counts, _ = np.histogram(positive, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "zeros": int((times_N == 0).sum())}


def _pairs(seeds: int) -> list[tuple[int, int]]:
    return list(combinations(range(seeds), 2))
