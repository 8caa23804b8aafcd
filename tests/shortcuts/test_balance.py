"""Weights and corrections from the table of labels and values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.shortcuts import Joint, fit_shortcut, fit_shortcuts
from evenhand.shortcuts.balance import capped
from evenhand.validation import UserError
from made_shortcuts import CLASSES, tickets


def joint(*spellings: str) -> tuple[Joint, list[np.ndarray], np.ndarray]:
    samples, label_N = tickets()
    fitted = fit_shortcuts(spellings, samples, label_N, CLASSES)
    values = [one.apply(samples).value_N for one in fitted]
    return Joint.fit(fitted, values, label_N), values, label_N


def test_weights_are_what_labels_and_values_would_be_by_chance_over_what_they_are() -> None:
    table, values, label_N = joint("token:nimbus|pebble|kettle")
    weight_N = table.weights(values, label_N, cap=None)
    expected_N = [
        (label_N == y).mean() * (values[0] == a).mean() / ((label_N == y) & (values[0] == a)).mean()
        for y, a in zip(label_N, values[0], strict=True)
    ]
    assert weight_N.mean() == pytest.approx(1.0)
    assert weight_N / weight_N[0] == pytest.approx(np.array(expected_N) / expected_N[0])


def test_where_no_group_is_empty_labels_and_values_become_independent() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 2, 400)
    value_N = np.where(rng.random(400) < 0.2, 1 - label_N, label_N)
    samples, made_N = tickets()
    table = Joint.fit([fit_shortcut("column:product", samples, made_N, CLASSES)], [value_N], label_N)
    weight_N = table.weights([value_N], label_N)
    weighed = np.zeros((2, 2))
    np.add.at(weighed, (value_N, label_N), weight_N / 400)
    assert weighed == pytest.approx(
        np.outer([(value_N == v).mean() for v in (0, 1)], [(label_N == c).mean() for c in (0, 1)])
    )


def test_groups_alike_have_the_same_weight_together() -> None:
    table, values, label_N = joint("column:product")
    weight_N = table.weights(values, label_N, groups_alike=True, cap=None)
    group_N = table.groups(values, label_N)
    sums = [weight_N[group_N == group].sum() for group in np.unique(group_N)]
    assert sums == pytest.approx([sums[0]] * len(sums))
    assert len(table.group_names) == 9
    assert table.group_names[group_N[0]] == f"{CLASSES[label_N[0]]}, {table.names[table.places(values)[0]]}"


def test_groups_without_a_training_row_are_named() -> None:
    table, values, label_N = joint("column:product")
    assert len(table.empty) == 3  # a product goes to its own class or the next
    with pytest.raises(UserError, match="a group that no training row is in"):
        table.weights(values, (label_N + 1) % 3)


def test_absence_is_a_value_here_and_combinations_are_those_of_training_rows() -> None:
    table, _, label_N = joint("token:nimbus", "column:noise")
    assert all("no token:nimbus" in name for name in table.names[:3])
    assert len(table.combinations) == 6
    unknown = [np.array([0, 5]), np.array([-1, 0])]
    assert table.places(unknown).tolist() == [-1, -1]
    assert (table.log_ratio(unknown) == 0).all()
    assert table.groups(unknown, np.array([0, 1])).tolist() == [-1, -1]
    prior = (table.count_AC.sum(axis=0) + 1) / (len(label_N) + 3)
    assert table.label_probability(unknown, np.array([0, 1])) == pytest.approx(prior[:2])


def test_the_correction_is_what_the_value_says_beyond_the_prior() -> None:
    table, values, label_N = joint("column:product")
    ratio_NC = table.log_ratio(values)
    for row in range(20):
        same = label_N[values[0] == values[0][row]]
        for c in range(3):
            p = ((same == c).sum() + 1) / (len(same) + 3)
            prior = ((label_N == c).sum() + 1) / (len(label_N) + 3)
            assert ratio_NC[row, c] == pytest.approx(math.log(p / prior))
        own = ((same == label_N[row]).sum() + 1) / (len(same) + 3)
        assert table.label_probability(values, label_N)[row] == pytest.approx(own)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50), st.floats(1.01, 20))
def test_no_weight_is_above_the_cap_and_the_mean_stays(weights: list[float], cap: float) -> None:
    weight_N = np.array(weights)
    found_N = capped(weight_N, cap)
    assert found_N.mean() == pytest.approx(1.0)
    assert found_N.max() <= cap * (1 + 1e-9)
    below = found_N < cap * (1 - 1e-9)
    if below.any():
        ratio = found_N[below] / weight_N[below]
        assert ratio == pytest.approx(ratio[0])


def test_a_cap_below_the_mean_is_refused() -> None:
    table, values, label_N = joint("column:product")
    with pytest.raises(UserError, match=r"The 'cap' parameter of the weights must be a float in the range \(1, inf\)"):
        table.weights(values, label_N, cap=0.5)
