"""Does a value of the inputs point to a class, and do scores rise where that class is wrong?

A value v (a token, a colour, an entry of a column) is a shortcut if samples with v have class c more often than the
class's share says, and the scores know it: with v and class c they are lower than those of their classmates without v,
with v and another class higher. Scores are compared within a class only, so a class that is hard as a whole, or a word
that stands in hard samples of every class, is none.

Legend: N samples, V values, C classes. "Aligned" samples have a value and the class that it points to, "conflicting"
ones a value and another class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from evenhand.shortcuts.pointing import clearest_classes

LEAST_COUNT = 20
"""A value on fewer samples is not tested."""
SIGNIFICANCE = 0.01
"""Level of every test, after correction."""


@dataclass(frozen=True)
class Ranked:
    """Scores as ranks within their class.

    Attributes:
        label_N: Classes, shape (N,).
        rank_N: Rank of each score among those of its class, from 1, ties shared, shape (N,).
        size_C: Samples of each class, shape (C,).
    """

    label_N: NDArray[np.int64]
    rank_N: NDArray[np.float64]
    size_C: NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """How often each value meets each class, and the ranks it has there.

    Attributes:
        count_VC: Samples with the value in the class.
        ranks_VC: Sum of their ranks within the class.
        size_C: Samples of each class.
    """

    count_VC: NDArray[np.float64]
    ranks_VC: NDArray[np.float64]
    size_C: NDArray[np.int64]


@dataclass(frozen=True)
class Pointing:
    """The class that each value points to.

    Attributes:
        class_V: The class whose share among the value's samples exceeds its share among all the most, shape (V,).
        clear_V: Whether it does by enough.
        share_V: Its share among them.
        base_V: Its share among all samples.
        p_V: One-sided p of Fisher's exact test, times C since the class is chosen by the data.
    """

    class_V: NDArray[np.int64]
    clear_V: NDArray[np.bool_]
    share_V: NDArray[np.float64]
    base_V: NDArray[np.float64]
    p_V: NDArray[np.float64]


@dataclass(frozen=True)
class Separation:
    """How samples with a value differ in score from their classmates without it.

    Attributes:
        auroc_V: Probability that a sample with the value has the higher score (ties count half); NaN without pairs.
        p_V: One-sided p of the Mann–Whitney test summed over classes, by its normal approximation; 1 without pairs.
    """

    auroc_V: NDArray[np.float64]
    p_V: NDArray[np.float64]


def ranked(score_N: NDArray[np.float64], label_N: NDArray[np.int64], classes: int) -> Ranked:
    """Rank the scores within their classes."""
    rank_N = np.empty(len(score_N))
    for label in range(classes):
        rows = np.flatnonzero(label_N == label)
        rank_N[rows] = stats.rankdata(score_N[rows])
    return Ranked(label_N, rank_N, np.bincount(label_N, minlength=classes))


def tabulate(member_NV: Any, scores: Ranked) -> Table:
    """Count values by class and sum their ranks.

    Args:
        member_NV: Which samples have which value: a sparse matrix of zeros and ones, shape (N, V).
        scores: The ranked scores.
    """
    rows, classes = len(scores.label_N), len(scores.size_C)

    def summed(value_N: NDArray[np.float64]) -> NDArray[np.float64]:
        of_class_NC = sparse.csr_array((value_N, (np.arange(rows), scores.label_N)), shape=(rows, classes))
        return np.asarray((sparse.csr_array(member_NV).T @ of_class_NC).toarray())

    return Table(summed(np.ones(rows)), summed(scores.rank_N), scores.size_C)


def pointing(table: Table) -> Pointing:
    """Find the class that each value points to, by the rule of shortcuts that have a name."""
    samples = int(table.size_C.sum())
    count_V = table.count_VC.sum(axis=1)
    base_C = table.size_C / samples
    class_V, clear_V = clearest_classes(table.count_VC.astype(np.int64), table.size_C)
    met_V = table.count_VC[np.arange(len(class_V)), class_V]
    p_V = stats.hypergeom.sf(met_V - 1, samples, table.size_C[class_V], count_V)
    return Pointing(
        class_V=class_V,
        clear_V=clear_V,
        share_V=met_V / np.maximum(count_V, 1),
        base_V=base_C[class_V],
        p_V=np.minimum(1.0, p_V * len(base_C)),
    )


def separation(
    count_VC: NDArray[np.float64], ranks_VC: NDArray[np.float64], size_C: NDArray[np.int64], *, higher: bool
) -> Separation:
    """Compare the scores of samples with a value and of their classmates without it.

    Args:
        count_VC: Samples with the value, 0 in classes that are left out.
        ranks_VC: Sum of their ranks.
        size_C: Samples of each class.
        higher: Whether the test is for higher scores, or for lower ones.
    """
    pairs_VC = count_VC * (size_C - count_VC)
    won_VC = np.where(pairs_VC > 0, ranks_VC - count_VC * (count_VC + 1) / 2, 0.0)  # Mann and Whitney's U
    pairs_V, won_V = pairs_VC.sum(axis=1), won_VC.sum(axis=1)
    spread_V = np.sqrt((pairs_VC * (size_C + 1) / 12).sum(axis=1))
    has_pairs_V = pairs_V > 0
    beyond_V = (won_V - pairs_V / 2) if higher else (pairs_V / 2 - won_V)
    z_V = np.divide(beyond_V - 0.5, spread_V, out=np.zeros_like(spread_V), where=has_pairs_V)
    return Separation(
        auroc_V=np.divide(won_V, pairs_V, out=np.full_like(won_V, np.nan), where=has_pairs_V),
        p_V=np.where(has_pairs_V, stats.norm.sf(z_V), 1.0),
    )


def separations(table: Table, class_V: NDArray[np.int64]) -> tuple[Separation, Separation]:
    """Of each value by itself: conflicting samples (higher?) and aligned ones (lower?)."""
    aligned_VC = np.arange(len(table.size_C)) == class_V[:, None]
    return _both(table, aligned_VC, ~aligned_VC)


def pooled_separations(match_N: NDArray[np.int64], kept_N: NDArray[np.bool_], scores: Ranked) -> list[Separation]:
    """Of several values that exclude each other, as one: conflicting samples and aligned ones.

    Args:
        match_N: The class that a sample's value points to, −1 for none.
        kept_N: The samples that are compared.
        scores: The ranked scores.
    """
    label_N, classes = scores.label_N[kept_N], len(scores.size_C)
    left = ranked(scores.rank_N[kept_N], label_N, classes)
    aligned_N = match_N[kept_N] == label_N
    against_N = (match_N[kept_N] >= 0) & ~aligned_N
    found = []
    for member_N, higher in ((against_N, True), (aligned_N, False)):
        count_C = np.bincount(label_N[member_N], minlength=classes).astype(np.float64)
        ranks_C = np.bincount(label_N, left.rank_N * member_N, classes).astype(np.float64)
        found.append(separation(count_C[None], ranks_C[None], left.size_C, higher=higher))
    return found


def _both(
    table: Table, aligned_VC: NDArray[np.bool_], conflicting_VC: NDArray[np.bool_]
) -> tuple[Separation, Separation]:
    def of(chosen_VC: NDArray[np.bool_], higher: bool) -> Separation:
        count_VC = np.where(chosen_VC, table.count_VC, 0.0)
        return separation(count_VC, np.where(chosen_VC, table.ranks_VC, 0.0), table.size_C, higher=higher)

    return of(conflicting_VC, True), of(aligned_VC, False)
