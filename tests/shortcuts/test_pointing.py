"""Which class a value points to, against loops and SciPy's own test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from evenhand.shortcuts.pointing import class_shares, fisher_p, pointed_classes

TABLES = st.integers(2, 4).flatmap(
    lambda classes: st.lists(
        st.lists(st.integers(0, 60), min_size=classes, max_size=classes), min_size=2, max_size=4
    ).filter(lambda table: sum(map(sum, table)) > 0)
)


def slow_p(count_VC: NDArray[np.int64], size_C: NDArray[np.int64], v: int, c: int) -> float:
    met, other = int(count_VC[v, c]), int(count_VC[v].sum() - count_VC[v, c])
    rest, others = int(size_C[c]) - met, int(size_C.sum() - size_C[c]) - other
    found: Any = stats.fisher_exact([[met, other], [rest, others]], alternative="greater")
    return float(found.pvalue)


def slow_pointed(count_VC: NDArray[np.int64], size_C: NDArray[np.int64]) -> list[int]:
    values, classes = count_VC.shape
    total = size_C.sum()
    p = {(v, c): slow_p(count_VC, size_C, v, c) for v in range(values) for c in range(classes)}
    # Holm: the i-th smallest times what is left, never decreasing
    corrected, largest = {}, 0.0
    for rank, key in enumerate(sorted(p, key=lambda key: p[key])):
        largest = max(largest, min(1.0, p[key] * (len(p) - rank)))
        corrected[key] = largest
    found = []
    for v in range(values):
        excess = [
            (count_VC[v, c] + 1) / (count_VC[v].sum() + classes) - (size_C[c] + 1) / (total + classes)
            for c in range(classes)
        ]
        c = int(np.argmax(excess))
        met, other = count_VC[v, c], count_VC[v].sum() - count_VC[v, c]
        rest, others = size_C[c] - met, total - size_C[c] - other
        odds = met * others > 3 * rest * other
        clear = odds if size_C[c] > 0.8 * total else excess[c] >= 0.1
        found.append(c if clear and corrected[v, c] < 0.01 else -1)
    return found


@settings(deadline=None, max_examples=60)
@given(TABLES)
def test_values_point_where_the_loops_say(table: list[list[int]]) -> None:
    counts = np.array(table)
    count_VC, size_C = counts[:-1], counts.sum(axis=0)  # the last row has no value
    assert pointed_classes(count_VC, size_C).tolist() == slow_pointed(count_VC, size_C)
    p_VC = fisher_p(count_VC, size_C)
    for v, c in np.ndindex(*count_VC.shape):
        expected = slow_p(count_VC, size_C, v, c)
        assert p_VC[v, c] == pytest.approx(expected, rel=1e-6) or (p_VC[v, c] == 1.0 and expected >= 0.5)


def test_a_class_that_most_rows_have_is_pointed_to_by_its_odds() -> None:
    size_C = np.array([900, 100])
    assert pointed_classes(np.array([[200, 5]]), size_C).tolist() == [0]  # 97.6 %, 4.3 times the odds of the others
    assert pointed_classes(np.array([[200, 10]]), size_C).tolist() == [-1]
    assert pointed_classes(np.array([[20, 20]]), size_C).tolist() == [1]


def test_ten_points_are_needed_and_enough_rows() -> None:
    size_C = np.array([5000, 5000])
    assert pointed_classes(np.array([[1180, 820], [1220, 780]]), size_C).tolist() == [-1, 0]
    assert pointed_classes(np.array([[4, 0]]), size_C).tolist() == [-1]


def test_shares_have_a_pseudo_count_a_class() -> None:
    assert class_shares(np.array([[3, 0], [0, 0]])).tolist() == [[0.8, 0.2], [0.5, 0.5]]
