"""Accuracy by group, and statistics across seeds.

Legend: N samples of a test set. Every accuracy is a fraction of 1, and None where no sample defines it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evenhand.validation import check_choice

Comparison = Literal["between_groups", "to_overall"]
Members = Mapping[str, NDArray[np.bool_]]
"""Name → which samples carry it, each of shape (N,)."""

SMALLEST_COUNTED_GROUP = 20  # a smaller group is shown, but can't be the worst one


@dataclass(frozen=True)
class GroupShare:
    """One group, or several taken together: what is told of the worst group and of the small ones.

    Attributes:
        names: The groups; none where they aren't known.
        accuracy: Over all their samples; None where it isn't known.
        n: How many samples; None where that isn't known.
        interval: Wilson's, of 95 %; None where n isn't known.
    """

    names: tuple[str, ...]
    accuracy: float | None
    n: int | None
    interval: tuple[float, float] | None

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        correct_N: NDArray[np.bool_],
        member_N: NDArray[np.bool_],
        weight_N: NDArray[np.float64] | None = None,
    ) -> GroupShare:
        """What is found over the members of some groups."""
        value, n = accuracy(correct_N, member_N, weight_N), int(member_N.sum())
        return cls(tuple(names), value, n, wilson(value, n))


class SmallGroups(TypedDict):
    """The groups of 1 to 19 samples taken together; a sample of several of them counts once."""

    n: int
    accuracy: float
    interval: list[float]
    groups: list[str]


class Metrics(TypedDict):
    """What is measured on one test set; fractions of 1, None where undefined. Intervals are Wilson's, of 95 %."""

    average: float | None
    average_train_weighted: float | None
    worst_group: float | None
    worst_group_name: str | None
    worst_group_n: int | None
    worst_group_interval: list[float] | None
    small_groups: SmallGroups | None
    aligned: float | None
    conflicting: float | None
    by_group: dict[str, float | None]


def accuracy(
    correct_N: NDArray[np.bool_],
    chosen_N: NDArray[np.bool_] | None = None,
    weight_N: NDArray[np.float64] | None = None,
) -> float | None:
    """Share of correct predictions, over the chosen samples, perhaps weighted; None if there are none."""
    chosen: Any = slice(None) if chosen_N is None else chosen_N
    if not correct_N[chosen].size:
        return None
    return float(np.average(correct_N[chosen], weights=None if weight_N is None else weight_N[chosen]))


def group_metrics(
    correct_N: NDArray[np.bool_],
    groups: Members | None = None,
    alignment: Members | None = None,
    train_shares: Mapping[str, float] | None = None,
    weight_N: NDArray[np.float64] | None = None,
) -> Metrics:
    """All metrics of one test set, reported together.

    Args:
        correct_N: Whether each prediction is right, shape (N,).
        groups: Evaluation groups, name → membership of shape (N,). They may overlap.
        alignment: Membership of shape (N,) under the names "aligned" and "conflicting".
        train_shares: Group name → its share of the training samples. Without it, or if a group with a share has
            no test sample, `average_train_weighted` is None.
        weight_N: How many samples each one stands for, shape (N,), where the test set was sampled; sizes and intervals
            are those of the sample.

    Returns:
        The metrics. `worst_group` is the lowest accuracy over groups of at least 20 samples, `small_groups` that over
        all samples of the smaller ones.
    """
    groups = groups or {}
    alignment = alignment or {}
    by_group = {name: accuracy(correct_N, member_N, weight_N) for name, member_N in groups.items()}
    sizes = {name: int(member_N.sum()) for name, member_N in groups.items()}
    worst, names = worst_group_name(by_group, sizes), small_group_names(sizes)
    interval = None if worst is None else wilson(by_group[worst], sizes[worst])
    small = None
    if names:
        pooled_N = np.logical_or.reduce([groups[name] for name in names])
        small = GroupShare.of(names, correct_N, pooled_N, weight_N)
    sides = {side: accuracy(correct_N, alignment[side], weight_N) for side in alignment}
    return Metrics(
        average=accuracy(correct_N, weight_N=weight_N),
        average_train_weighted=_train_weighted(by_group, train_shares),
        worst_group=None if worst is None else by_group[worst],
        worst_group_name=worst,
        worst_group_n=None if worst is None else sizes[worst],
        worst_group_interval=interval and list(interval),
        small_groups=small
        and SmallGroups(
            n=small.n or 0, accuracy=small.accuracy or 0.0, interval=list(small.interval or ()), groups=names
        ),
        aligned=sides.get("aligned"),
        conflicting=sides.get("conflicting"),
        by_group=by_group,
    )


@dataclass(frozen=True)
class SplitGroups:
    """Who belongs together in one split: what is known of its rows, and of the training split's.

    Attributes:
        groups: Evaluation groups, which may overlap.
        alignment: The rows under the names "aligned" and "conflicting".
        train_shares: Each group's share of the training samples.
    """

    groups: Members
    alignment: Members
    train_shares: Mapping[str, float]

    def of_rows(self, row_M: NDArray[Any]) -> SplitGroups:
        """The same of some rows, by their numbers or by a mask."""

        def chosen(members: Members) -> Members:
            return {name: member_N[row_M] for name, member_N in members.items()}

        return SplitGroups(chosen(self.groups), chosen(self.alignment), self.train_shares)

    def metrics(self, correct_N: NDArray[np.bool_], weight_N: NDArray[np.float64] | None = None) -> Metrics:
        """All metrics, as of `group_metrics`."""
        return group_metrics(correct_N, self.groups, self.alignment, self.train_shares, weight_N)


def worst_and_small(metrics: Metrics) -> tuple[GroupShare | None, GroupShare | None]:
    """The worst group, and the small ones taken together; None where there are none."""
    value, name, n = metrics["worst_group"], metrics["worst_group_name"], metrics["worst_group_n"]
    small = metrics["small_groups"]
    return (
        None if name is None or n is None else GroupShare((name,), value, n, wilson(value, n)),
        small
        and GroupShare(tuple(small["groups"]), small["accuracy"], small["n"], wilson(small["accuracy"], small["n"])),
    )


def group_shares(groups: Members) -> dict[str, float]:
    """Each group's share of the samples; none where groups overlap, which have no shares to weight by."""
    shares = {name: float(member_N.mean()) for name, member_N in groups.items()}
    return {} if sum(shares.values()) > 1 + 1e-9 else shares


def groups_not_counted(groups: Members) -> list[str]:
    """Names of the groups with fewer than 20 samples, empty ones too: shown, but never the worst group."""
    return [name for name, member_N in groups.items() if int(member_N.sum()) < SMALLEST_COUNTED_GROUP]


def small_group_names(sizes: Mapping[str, int]) -> list[str]:
    """Names of the groups with 1 to 19 samples, which are pooled."""
    return [name for name, size in sizes.items() if 0 < size < SMALLEST_COUNTED_GROUP]


def worst_group_name(by_group: Mapping[str, float | None], sizes: Mapping[str, int]) -> str | None:
    """The group with the lowest accuracy among those of at least 20 samples; among equals the largest."""
    large = {
        name: value
        for name, value in by_group.items()
        if value is not None and sizes.get(name, 0) >= SMALLEST_COUNTED_GROUP
    }
    return min(large, key=lambda name: (large[name], -sizes[name]), default=None)


def _train_weighted(by_group: Mapping[str, float | None], train_shares: Mapping[str, float] | None) -> float | None:
    """Group accuracies weighted by their shares in train: the literature's "adjusted average"."""
    if not by_group or not train_shares:
        return None
    present = {name: share for name, share in train_shares.items() if share > 0}
    values = [by_group.get(name) for name in present]
    if not present or any(v is None for v in values):
        return None
    weighted = sum(v * s for v, s in zip(values, present.values(), strict=True) if v is not None)
    return weighted / sum(present.values())


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy by group under the names of Fairlearn's `MetricFrame`.

    All groups that have samples count here, however small, as they do there; `worst_group` of the metrics leaves out
    groups of fewer than 20 samples.

    Attributes:
        overall: Accuracy on all samples.
        by_group: Accuracy on each group; None for a group without samples.
    """

    overall: float | None
    by_group: Mapping[str, float | None]

    def group_min(self) -> float | None:
        """The lowest accuracy of a group; None if no group has samples."""
        return min(self._defined(), default=None)

    def group_max(self) -> float | None:
        """The highest accuracy of a group."""
        return max(self._defined(), default=None)

    def difference(self, method: Comparison = "between_groups") -> float | None:
        """Highest minus lowest accuracy, or the largest distance of a group from the overall one.

        Args:
            method: `between_groups` or `to_overall`.
        """
        values = self._compared(method)
        if method == "between_groups":
            return max(values) - min(values) if values else None
        return max((abs(value - self.overall) for value in values if self.overall is not None), default=None)

    def ratio(self, method: Comparison = "between_groups") -> float | None:
        """Lowest by highest accuracy, or the smallest ratio of a group's and the overall one, always at most 1.

        Args:
            method: `between_groups` or `to_overall`.

        Returns:
            The ratio; None where it would be 0 by 0.
        """
        values = self._compared(method)
        overall = max(values, default=None) if method == "between_groups" else self.overall
        pairs = [(min(v, overall), max(v, overall)) for v in values if overall is not None]
        return min((small / large for small, large in pairs if large > 0), default=None)

    def _compared(self, method: str) -> list[float]:
        check_choice("GroupAccuracy", "method", method, ("between_groups", "to_overall"))
        return self._defined()

    def _defined(self) -> list[float]:
        return [value for value in self.by_group.values() if value is not None]


def wilson(accuracy: float | None, n: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of an accuracy over n samples; None if it is undefined."""
    if accuracy is None:
        return None
    interval = stats.binomtest(round(accuracy * n), n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def newcombe(first: float | None, first_n: int, second: float | None, second_n: int) -> tuple[float, float] | None:
    """Newcombe's 95 % interval (his hybrid score) of first − second, accuracies on different samples."""
    ends, others = wilson(first, first_n), wilson(second, second_n)
    if first is None or second is None or ends is None or others is None:
        return None
    below, above = math.hypot(first - ends[0], others[1] - second), math.hypot(ends[1] - first, second - others[0])
    return first - second - below, first - second + above


def detection_quality(score_N: NDArray[np.float64], conflicting_N: NDArray[np.bool_]) -> dict[str, float] | None:
    """How well scores single out the conflicting training samples.

    Args:
        score_N: A score for each sample, shape (N,), at least 0; high for samples to be drawn often.
        conflicting_N: Which samples conflict with the shortcut, shape (N,).

    Returns:
        "auroc", "average_precision" and "sampling_mass" (the conflicting samples' share of the scores' sum); None
        where all samples are of one kind, or a score isn't finite, or all are 0.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score  # a second to import, and seldom needed

    if conflicting_N.all() or not conflicting_N.any() or not np.isfinite(score_N).all() or not score_N.any():
        return None
    return {
        "auroc": float(roc_auc_score(conflicting_N, score_N)),
        "average_precision": float(average_precision_score(conflicting_N, score_N)),
        "sampling_mass": float(score_N[conflicting_N].sum() / score_N.sum()),
    }


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one number over seeds.

    Attributes:
        mean: The mean, None if no seed defines the number.
        std: Standard deviation over seeds (n − 1 in the denominator), None for fewer than two.
        low: Lower end of the 95 % interval of the mean (Student's t), None for fewer than two.
        high: Its upper end.
        n: How many seeds define the number.
    """

    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    n: int


def summarize(values: Sequence[float | None]) -> Summary:
    """Mean, standard deviation and 95 % t-interval over seeds; undefined values are left out and not counted."""
    defined = np.array([v for v in values if v is not None], dtype=np.float64)
    n = len(defined)
    if n == 0:
        return Summary(None, None, None, None, 0)
    mean = float(defined.mean())
    if n == 1:
        return Summary(mean, None, None, None, 1)
    std = float(defined.std(ddof=1))
    # half width of the interval: t(0.975, n − 1) · std / √n
    half = _t_quantile(n - 1) * std / math.sqrt(n)
    return Summary(mean, std, mean - half, mean + half, n)


@cache
def _t_quantile(freedom: int) -> float:
    """t(0.975) with so many degrees of freedom: a report asks for the same few thousands of times."""
    return float(stats.t.ppf(0.975, freedom))


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two methods over the seeds that both have run; `p` is the paired t-test's."""

    summary: Summary
    p: float | None


def paired_difference(ours: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> PairedDifference:
    """Compare two methods seed by seed (ours − baseline).

    Args:
        ours: Seed → value.
        baseline: Seed → value; only seeds that both define are used.

    Returns:
        Summary of the differences and the two-sided p of the paired t-test (None for fewer than two pairs
        or when all differences are equal, where the test is undefined).
    """
    differences: list[float] = []
    for seed in sorted(ours.keys() & baseline.keys()):
        a, b = ours[seed], baseline[seed]
        if a is not None and b is not None:
            differences.append(a - b)
    summary = summarize(differences)
    # equal differences may differ by the rounding of their floats
    if summary.mean is None or not summary.std or summary.std < 1e-12 * max(map(abs, differences)):
        return PairedDifference(summary, None)
    t = summary.mean / (summary.std / math.sqrt(summary.n))
    return PairedDifference(summary, float(2 * stats.t.sf(abs(t), summary.n - 1)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of several tests' p, in the same order.

    Args:
        p_values: One p for each comparison; None (an undefined test) stays None and isn't counted.

    Returns:
        Corrected p: the smallest times m, the next times m − 1, …, never decreasing and never above 1.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected
