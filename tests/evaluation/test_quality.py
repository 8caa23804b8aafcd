"""Recall, F1, AUROC and calibration against slow counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.evaluation.quality import BINS, quality, quality_by_group


def slow_recall(labels: list[int], predicted: list[int]) -> float:
    each = []
    for c in set(labels):
        rows = [p == c for label, p in zip(labels, predicted, strict=True) if label == c]
        each.append(sum(rows) / len(rows))
    return sum(each) / len(each)


def slow_f1(labels: list[int], predicted: list[int]) -> float:
    each = []
    for c in {*labels, *predicted}:
        both = sum(label == c == p for label, p in zip(labels, predicted, strict=True))
        each.append(2 * both / (labels.count(c) + predicted.count(c)))
    return sum(each) / len(each)


def slow_auroc(labels: list[int], probability_NC: np.ndarray) -> float | None:
    each = []
    for c in sorted(set(labels)):
        ours = [p[c] for label, p in zip(labels, probability_NC, strict=True) if label == c]
        others = [p[c] for label, p in zip(labels, probability_NC, strict=True) if label != c]
        if others:
            each.append(np.mean([(a > b) + 0.5 * (a == b) for a in ours for b in others]))
    return float(np.mean(each)) if each else None


def slow_ece(labels: list[int], predicted: list[int], probability_NC: np.ndarray) -> float:
    total = 0.0
    for place in range(BINS):
        rows = [
            (sure, predicted[row] == labels[row])
            for row, sure in enumerate(probability_NC[range(len(labels)), predicted])
            if place / BINS < sure <= (place + 1) / BINS
        ]
        if rows:
            total += len(rows) * abs(np.mean([sure for sure, _ in rows]) - np.mean([right for _, right in rows]))
    return total / len(labels)


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_measures_equal_slow_counts(seed: int, classes: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    probability_NC = rng.dirichlet(np.ones(classes), n)
    label_N, predicted_N = rng.integers(0, classes, n), probability_NC.argmax(1)
    found = quality(probability_NC, predicted_N, label_N)
    labels, predicted = label_N.tolist(), predicted_N.tolist()
    assert found == {
        "n": n,
        "recall": pytest.approx(slow_recall(labels, predicted), abs=1e-5),
        "f1": pytest.approx(slow_f1(labels, predicted), abs=1e-5),
        "auroc": pytest.approx(slow_auroc(labels, probability_NC), abs=1e-5),
        "ece": pytest.approx(slow_ece(labels, predicted, probability_NC), abs=1e-5),
    }
    member_N = label_N == 0
    by_group = quality_by_group(probability_NC, predicted_N, label_N, {"0": member_N, "none": np.zeros(n, dtype=bool)})
    assert by_group["none"] == {"n": 0, "recall": None, "f1": None, "auroc": None, "ece": None}
    assert by_group["0"]["n"] == member_N.sum()
    assert by_group["0"]["auroc"] is None  # of one class nothing is ranked


def test_without_probabilities_the_classes_still_count() -> None:
    found = quality(np.full((2, 2), np.nan), np.array([0, 1]), np.array([0, 1]))
    assert found == {"n": 2, "recall": 1.0, "f1": 1.0, "auroc": None, "ece": None}
