from __future__ import annotations

import math
from typing import Any, Literal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats
from sklearn.metrics import accuracy_score

from evenhand.metrics import (
    GroupAccuracy,
    PairedDifference,
    SplitGroups,
    Summary,
    accuracy,
    detection_quality,
    group_metrics,
    groups_not_counted,
    holm,
    paired_difference,
    summarize,
    wilson,
    worst_and_small,
)
from evenhand.validation import UserError


def members(n: int, *ranges: tuple[int, int]) -> np.ndarray:
    """Membership of n samples, true in the given ranges."""
    member_N = np.zeros(n, dtype=bool)
    for start, stop in ranges:
        member_N[start:stop] = True
    return member_N


def correct(n: int, wrong: list[int]) -> np.ndarray:
    correct_N = np.ones(n, dtype=bool)
    correct_N[wrong] = False
    return correct_N


def test_metrics_equal_counts_by_hand() -> None:
    # 100 samples: a has 40 with 10 wrong, b has 50 with 2 wrong, small has 10 with all wrong
    correct_N = correct(100, [*range(10), 40, 41, *range(90, 100)])
    groups = {"a": members(100, (0, 40)), "b": members(100, (40, 90)), "small": members(100, (90, 100))}
    alignment = {"aligned": members(100, (0, 60)), "conflicting": members(100, (60, 100))}
    assert group_metrics(correct_N, groups, alignment, {"a": 0.1, "b": 0.7, "small": 0.2}) == {
        "average": pytest.approx(78 / 100),
        "average_train_weighted": pytest.approx(0.1 * 30 / 40 + 0.7 * 48 / 50 + 0.2 * 0 / 10),
        "worst_group": pytest.approx(30 / 40),  # small is worse, but too small to count
        "worst_group_name": "a",
        "worst_group_n": 40,
        "worst_group_interval": pytest.approx(wilson(30 / 40, 40)),
        "small_groups": {"n": 10, "accuracy": 0.0, "interval": pytest.approx(wilson(0.0, 10)), "groups": ["small"]},
        "aligned": pytest.approx(48 / 60),
        "conflicting": pytest.approx(30 / 40),
        "by_group": {"a": pytest.approx(0.75), "b": pytest.approx(0.96), "small": 0.0},
    }
    assert groups_not_counted(groups) == ["small"]


@pytest.mark.parametrize(("size", "worst"), [(19, 0.8), (20, 0.0)])
def test_a_group_counts_from_20_samples_on(size: int, worst: float) -> None:
    correct_N = correct(120, [*range(20), *range(100, 120)])
    groups = {"all": members(120, (0, 100)), "few": members(120, (100, 100 + size))}
    metrics = group_metrics(correct_N, groups)
    assert metrics["worst_group"] == worst
    assert metrics["by_group"]["few"] == 0.0
    assert groups_not_counted(groups) == (["few"] if size < 20 else [])


def test_small_groups_are_pooled_and_a_sample_of_several_counts_once() -> None:
    # a and b share samples 10 to 14, of which 3 are wrong; "large" has 40 samples and none wrong
    correct_N = correct(60, [0, 10, 11, 12])
    groups = {"a": members(60, (0, 15)), "b": members(60, (10, 18)), "large": members(60, (20, 60)), "no": members(60)}
    found = group_metrics(correct_N, groups)
    assert found["small_groups"] == {
        "n": 18,
        "accuracy": pytest.approx(14 / 18),
        "interval": pytest.approx(wilson(14 / 18, 18)),
        "groups": ["a", "b"],
    }
    assert (found["worst_group_name"], found["worst_group_n"], found["worst_group"]) == ("large", 40, 1.0)


def test_among_equally_bad_groups_the_largest_is_named() -> None:
    found = group_metrics(correct(90, []), {"a": members(90, (0, 30)), "b": members(90, (30, 90))})
    assert (found["worst_group_name"], found["worst_group_n"]) == ("b", 60)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=120))
def test_every_sample_of_a_group_is_in_a_counted_group_or_pooled(samples: list[tuple[bool, int]]) -> None:
    right_N = np.array([right for right, _ in samples])
    group_N = np.array([group for _, group in samples])
    groups = {str(group): group_N == group for group in range(5)}
    found = group_metrics(right_N, groups)
    small = found["small_groups"]
    pooled = [] if small is None else small["groups"]
    counted = [name for name, member_N in groups.items() if member_N.sum() >= 20]
    assert (small["n"] if small else 0) + sum(int(groups[name].sum()) for name in counted) == len(samples)
    if small is not None:
        inside_N = np.isin(group_N, [int(name) for name in pooled])
        assert small["accuracy"] == pytest.approx(right_N[inside_N].mean())


def test_an_empty_group_has_no_accuracy_and_is_never_the_worst() -> None:
    groups = {"full": members(30, (0, 30)), "empty": members(30)}
    metrics = group_metrics(correct(30, [0]), groups, {"aligned": members(30), "conflicting": members(30, (0, 2))})
    assert metrics["by_group"] == {"full": pytest.approx(29 / 30), "empty": None}
    assert metrics["worst_group"] == pytest.approx(29 / 30)
    assert metrics["aligned"] is None
    assert metrics["conflicting"] == 0.5


def test_without_groups_only_the_average_is_defined() -> None:
    assert group_metrics(correct(4, [0])) == {
        "average": 0.75,
        "average_train_weighted": None,
        "worst_group": None,
        "worst_group_name": None,
        "worst_group_n": None,
        "worst_group_interval": None,
        "small_groups": None,
        "aligned": None,
        "conflicting": None,
        "by_group": {},
    }


def test_no_samples_at_all() -> None:
    assert group_metrics(correct(0, []))["average"] is None
    assert accuracy(correct(3, []), members(3)) is None
    assert accuracy(correct(3, [2]), members(3, (1, 3))) == 0.5


def test_only_small_groups_leave_no_worst_one() -> None:
    assert group_metrics(correct(10, []), {"a": members(10, (0, 10))})["worst_group"] is None


def test_groups_may_overlap() -> None:
    correct_N = correct(60, list(range(20, 40)))
    groups = {"a": members(60, (0, 40)), "b": members(60, (20, 60))}
    assert group_metrics(correct_N, groups)["by_group"] == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"a": 0.9, "b": 0.1}, 0.9 * 0.5 + 0.1 * 1.0),
        ({"a": 9, "b": 1}, 0.9 * 0.5 + 0.1 * 1.0),
        ({"a": 1.0, "b": 0.0}, 0.5),
        ({"a": 0.5, "empty": 0.5}, None),  # a group of the training data that the test set lacks
        ({"a": 0.5, "unknown": 0.5}, None),
        ({"a": 0.5, "b": 0.5, "empty": 0.0, "unknown": 0.0}, 0.75),
        ({"a": 0.0}, None),
        ({}, None),
        (None, None),
    ],
)
def test_train_weighted_average_by_hand(shares: Any, expected: float | None) -> None:
    groups = {"a": members(40, (0, 20)), "b": members(40, (20, 40)), "empty": members(40)}
    ours = group_metrics(correct(40, list(range(10))), groups, train_shares=shares)["average_train_weighted"]
    assert ours == (None if expected is None else pytest.approx(expected))


@given(
    correct_N=st.lists(st.booleans(), min_size=1, max_size=80),
    seed=st.integers(0, 1000),
    number=st.integers(1, 4),
)
@settings(max_examples=25)
def test_every_group_equals_a_count(correct_N: list[bool], seed: int, number: int) -> None:
    group_N = np.random.default_rng(seed).integers(0, number, len(correct_N))
    groups = {str(g): group_N == g for g in range(number)}
    by_hand: dict[str, list[bool]] = {str(g): [] for g in range(number)}
    for right, group in zip(correct_N, group_N, strict=True):
        by_hand[str(group)].append(right)
    metrics = group_metrics(np.array(correct_N), groups)
    for name, found in by_hand.items():
        assert metrics["by_group"][name] == (pytest.approx(sum(found) / len(found)) if found else None)
    counted = [sum(found) / len(found) for found in by_hand.values() if len(found) >= 20]
    assert metrics["worst_group"] == (pytest.approx(min(counted)) if counted else None)


# ---- across seeds ---------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10))
@settings(max_examples=25)
def test_summary_equals_scipys(values: list[float]) -> None:
    summary = summarize(values)
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(sum(values) / len(values))
    deviation = math.sqrt(sum((v - sum(values) / len(values)) ** 2 for v in values) / (len(values) - 1))
    assert summary.std == pytest.approx(deviation, abs=1e-12)
    if deviation > 1e-9:
        expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (summary.low, summary.high) == pytest.approx(expected)


def test_undefined_values_are_not_counted() -> None:
    assert summarize([0.5, None, 0.7, None]) == summarize([0.5, 0.7])
    assert summarize([0.5, None, 0.7]).n == 2


def test_one_seed_has_a_mean_and_no_spread() -> None:
    assert summarize([0.25, None]) == Summary(mean=0.25, std=None, low=None, high=None, n=1)


@pytest.mark.parametrize("values", [[], [None, None]])
def test_no_seed_has_nothing(values: list[None]) -> None:
    assert summarize(values) == Summary(None, None, None, None, 0)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
@settings(max_examples=25)
def test_paired_difference_equals_scipys_paired_test(pairs: list[tuple[float, float]]) -> None:
    difference_S = np.array([a - b for a, b in pairs])
    ours = paired_difference({s: a for s, (a, _) in enumerate(pairs)}, {s: b for s, (_, b) in enumerate(pairs)})
    assert ours.summary.mean == pytest.approx(difference_S.mean(), abs=1e-12)
    assert ours.summary.n == len(pairs)
    if difference_S.std() > 1e-6:
        expected = stats.ttest_rel([a for a, _ in pairs], [b for _, b in pairs]).pvalue
        assert ours.p == pytest.approx(expected, rel=1e-6)


def test_only_seeds_that_both_define_are_paired() -> None:
    ours = paired_difference({0: 0.5, 1: 0.9, 2: None, 3: 0.1, 5: 0.8}, {5: 0.7, 3: 0.3, 1: 0.6, 2: 0.5, 7: 0.0})
    assert ours.summary.n == 3  # 1, 3 and 5
    assert ours.summary.mean == pytest.approx((0.3 - 0.2 + 0.1) / 3)
    assert ours.p == pytest.approx(stats.ttest_rel([0.9, 0.1, 0.8], [0.6, 0.3, 0.7]).pvalue)


def test_no_common_seed() -> None:
    assert paired_difference({0: 0.5, 2: None}, {1: 0.5, 2: 0.1}) == PairedDifference(summarize([]), None)


def test_one_pair_has_a_difference_and_no_test() -> None:
    ours = paired_difference({4: 0.75}, {4: 0.5})
    assert (ours.summary.mean, ours.summary.std, ours.p) == (0.25, None, None)


@pytest.mark.parametrize(
    ("ours", "baseline"),
    [([0.5, 0.75, 1.0], [0.25, 0.5, 0.75]), ([0.5, 0.5], [0.5, 0.5]), ([0.3, 0.2, 0.6], [0.2, 0.1, 0.5])],
)
def test_equal_differences_have_no_test(ours: list[float], baseline: list[float]) -> None:
    """Also where they are equal but for the rounding of floats, which would give p = 1e-33."""
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(baseline)))
    assert found.summary.mean == pytest.approx(ours[0] - baseline[0])
    assert found.p is None


def test_holm_equals_the_worked_example() -> None:
    # 0.01·4, 0.02·3, 0.03·2 (not below 0.06), 0.04·1 (likewise)
    assert holm([0.03, None, 0.01, 0.04, 0.02]) == [
        pytest.approx(0.06),
        None,
        pytest.approx(0.04),
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_as_its_definition_does(p_values: list[float]) -> None:
    """Step down: the i-th smallest p is significant if it and all smaller ones are below level / (m − i)."""
    corrected = holm(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[i])
        assert corrected[i] == pytest.approx(min(1.0, largest))


def test_detection_quality_by_hand() -> None:
    score_N = np.array([4.0, 3.0, 2.0, 1.0])
    # of the 4 pairs (conflicting, other), 3 are in the right order; precision 1 at the first, 2/3 at the second
    assert detection_quality(score_N, np.array([True, False, True, False])) == {
        "auroc": pytest.approx(3 / 4),
        "average_precision": pytest.approx((1 + 2 / 3) / 2),
        "sampling_mass": pytest.approx(6 / 10),
    }
    for scores, conflicting in (
        (score_N, np.zeros(4, dtype=bool)),
        (score_N, np.ones(4, dtype=bool)),
        (np.zeros(4), np.array([True, False, True, False])),
        (np.array([1.0, np.nan, 1.0, 1.0]), np.array([True, False, True, False])),
    ):
        assert detection_quality(scores, conflicting) is None


# ---------------------------------------------------------------- Fairlearn's names


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", "c"])), min_size=2, max_size=60),
    st.sampled_from(["between_groups", "to_overall"]),
)
def test_groups_agree_with_a_metric_frame_of_the_same_predictions(
    samples: list[tuple[bool, str]], method: Literal["between_groups", "to_overall"]
) -> None:
    from fairlearn.metrics import MetricFrame

    right_N = np.array([right for right, _ in samples])
    group_N = np.array([group for _, group in samples])
    label_N = np.arange(len(samples)) % 2
    predicted_N = np.where(right_N, label_N, 1 - label_N)
    frame = MetricFrame(metrics=accuracy_score, y_true=label_N, y_pred=predicted_N, sensitive_features=group_N)
    measured = group_metrics(right_N, {name: group_N == name for name in ("a", "b", "c")})
    ours = GroupAccuracy(measured["average"], measured["by_group"])
    assert ours.overall == pytest.approx(frame.overall)
    assert {k: v for k, v in ours.by_group.items() if v is not None} == pytest.approx(frame.by_group.to_dict())
    assert ours.group_min() == pytest.approx(frame.group_min())
    assert ours.group_max() == pytest.approx(frame.group_max())
    assert ours.difference(method) == pytest.approx(frame.difference(method=method))
    if any(ours.by_group.values()):  # all wrong: 0 by 0
        assert ours.ratio(method) == pytest.approx(frame.ratio(method=method))


def test_groups_without_samples_and_unknown_comparisons() -> None:
    nothing = GroupAccuracy(None, {"a": None})
    assert (nothing.group_min(), nothing.group_max(), nothing.difference(), nothing.ratio()) == (None,) * 4
    assert GroupAccuracy(0.0, {"a": 0.0}).ratio() is None
    with pytest.raises(UserError, match="between_groups, to_overall"):
        nothing.difference("to_all")  # type: ignore[arg-type]


def test_wilsons_interval() -> None:
    # Newcombe 1998, table I: 81 of 263
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(None, 0) is None
    low, high = wilson(1.0, 20) or (0.0, 0.0)
    assert (low < 1, high) == (True, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=80))
def test_a_weighted_sample_has_the_accuracies_of_the_rows_that_it_stands_for(rows: list[tuple[bool, int, int]]) -> None:
    correct_N, group_N, weight_N = (np.array(column) for column in zip(*rows, strict=True))
    known = SplitGroups({str(g): group_N == g for g in range(3)}, {"aligned": group_N == 0}, {"0": 0.5, "1": 0.5})
    found = known.metrics(correct_N, weight_N.astype(float))
    repeated = np.repeat(np.arange(len(rows)), weight_N)
    whole = known.of_rows(repeated).metrics(correct_N[repeated])
    for name in ("average", "aligned", "conflicting", "average_train_weighted", "by_group"):
        assert found[name] == pytest.approx(whole[name])  # type: ignore[literal-required]
    worst, small = worst_and_small(found)
    assert (worst and worst.n) == found["worst_group_n"]  # samples, not what they stand for
    assert sum(share.n or 0 for share in (worst, small) if share) <= len(rows)
