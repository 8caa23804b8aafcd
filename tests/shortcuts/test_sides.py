"""Measures by shortcut against a slow count, row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.metrics import newcombe, wilson
from evenhand.shortcuts.fitted import ALIGNED, CONFLICTING, INDEPENDENT
from evenhand.shortcuts.sides import Sides, reliance


def score_ends(right: int, n: int) -> tuple[float, float]:
    """Wilson's interval by its formula."""
    z, p = 1.959963984540054, right / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def share(rows: list[bool]) -> dict[str, Any]:
    if not rows:
        return {"n": 0, "accuracy": None, "interval": None}
    ends = pytest.approx(list(score_ends(sum(rows), len(rows))), abs=1e-5)
    return {"n": len(rows), "accuracy": pytest.approx(sum(rows) / len(rows), abs=1e-6), "interval": ends}


def slow_gap(aligned: list[bool], conflicting: list[bool]) -> dict[str, Any]:
    if not aligned or not conflicting:
        return {"value": None, "interval": None}
    (p, n), (q, m) = ((sum(rows) / len(rows), len(rows)) for rows in (aligned, conflicting))
    (low, high), (other_low, other_high) = score_ends(sum(aligned), n), score_ends(sum(conflicting), m)
    below = math.sqrt((p - low) ** 2 + (other_high - q) ** 2)
    above = math.sqrt((high - p) ** 2 + (q - other_low) ** 2)
    ends = [p - q - below, p - q + above]
    return {"value": pytest.approx(p - q, abs=1e-6), "interval": pytest.approx(ends, abs=1e-5)}


def slow(labels: list[int], predicted: list[int], points: list[list[int]]) -> dict[str, Any]:
    """What one shortcut, or several together, say, by the definition: row by row."""
    rows: dict[str, list[bool]] = {"aligned": [], "conflicting": [], "independent": []}
    taken = []
    for row, (label, found) in enumerate(zip(labels, predicted, strict=True)):
        pointed = [points_N[row] for points_N in points if points_N[row] >= 0]
        against = [place for place in pointed if place != label]
        side = "conflicting" if against else "aligned" if pointed else "independent"
        rows[side].append(label == found)
        if against:
            taken.append(found in against)
    sides = {side: share(right) for side, right in rows.items()}
    gap = slow_gap(rows["aligned"], rows["conflicting"])
    return {**sides, "gap": gap, "taken": share(taken), "reliance": None, "why_no_reliance": ""}


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[int], list[int], list[list[int]]]:
    classes, n, shortcuts = draw(st.integers(2, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 3))

    def numbers(least: int) -> list[int]:
        return draw(st.lists(st.integers(least, classes - 1), min_size=n, max_size=n))

    return numbers(0), numbers(0), [numbers(-1) for _ in range(shortcuts)]


@given(splits())
@settings(deadline=None)
def test_measures_equal_a_count_row_by_row(drawn: tuple[list[int], list[int], list[list[int]]]) -> None:
    labels, predicted, points = drawn
    label_N, points_SN = np.array(labels), np.array(points)
    standing_SN = np.where(points_SN < 0, INDEPENDENT, np.where(points_SN == label_N, ALIGNED, CONFLICTING))
    names = tuple("abc"[: len(points)])
    found = Sides(names, label_N, standing_SN, points_SN).measures(np.array(predicted))
    for name, points_N in zip(names, points, strict=True):
        assert found["by_shortcut"][name] == slow(labels, predicted, [points_N])
    assert ("all_shortcuts" in found) == (len(points) > 1)
    if "all_shortcuts" in found:
        assert found["all_shortcuts"] == slow(labels, predicted, points)
    chosen_N = np.arange(len(labels)) % 2 == 0
    some = Sides(names, label_N, standing_SN, points_SN).of_rows(chosen_N).measures(np.array(predicted)[chosen_N])
    assert some["by_shortcut"]["a"] == slow(labels[::2], predicted[::2], [points[0][::2]])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_reliance_counts_predictions_that_differ(pairs: list[tuple[int, int]]) -> None:
    before_N, after_N = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    differ = [a != b for a, b in pairs]
    told = share(differ)
    expected = {"n": len(pairs), "changed": sum(differ), "share": told["accuracy"], "interval": told["interval"]}
    assert reliance(before_N, after_N) == expected


def test_newcombes_interval_is_that_of_his_paper() -> None:
    # Newcombe 1998, table II, method 10: 56/70 − 48/80 and 9/10 − 3/10
    assert newcombe(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe(9 / 10, 10, 3 / 10, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert newcombe(None, 0, 0.5, 10) is None
    assert wilson(0.5, 10) == pytest.approx(score_ends(5, 10))
