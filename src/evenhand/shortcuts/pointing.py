"""Which class a value points to, by the training rows.

Legend: V values, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evenhand.metrics import holm

LEAST_EXCESS = 0.1
"""A value points to a class whose share among its rows is higher than among all rows by at least this much."""
COMMON = 0.8
"""Of a class with a larger share than this, the odds count instead."""
LEAST_ODDS = 3.0
"""A value points to such a class if the odds of the class are more than this many times those of the other rows."""
SIGNIFICANCE = 0.01
"""Level of Fisher's exact test, after Holm's correction for all values and classes."""


def class_shares(count_VC: NDArray[np.int64]) -> NDArray[np.float64]:
    """P(y|a) with one pseudo-count a class, shape (V, C); of one row of counts, P(y)."""
    return (count_VC + 1) / (count_VC.sum(axis=-1, keepdims=True) + count_VC.shape[-1])


def pointed_classes(count_VC: NDArray[np.int64], size_C: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class that each value points to, −1 for none, shape (V,).

    It is the class whose P(c|a) exceeds P(c) the most, if that is by 10 points or more (of a class that more than 80 %
    of the rows have: if its odds are more than 3 times those of the rows without the value), and if Fisher's exact
    test (one-sided, corrected for all values and classes) is below 1 %.

    Args:
        count_VC: Training rows with each value in each class.
        size_C: Training rows of each class, with or without a value.
    """
    class_V, clear_V = clearest_classes(count_VC, size_C)
    if not clear_V.any():
        return np.full(len(count_VC), -1)
    p_VC = np.array(holm(fisher_p(count_VC, size_C).ravel().tolist()), dtype=np.float64).reshape(count_VC.shape)
    return np.where(clear_V & (p_VC[np.arange(len(count_VC)), class_V] < SIGNIFICANCE), class_V, -1)


def clearest_classes(
    count_VC: NDArray[np.int64], size_C: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The class whose P(c|a) exceeds P(c) the most, and whether it does by enough, whatever Fisher's test says, (V,).

    Args:
        count_VC: Training rows with each value in each class.
        size_C: Training rows of each class, with or without a value.
    """
    excess_VC = class_shares(count_VC) - class_shares(size_C)
    class_V = excess_VC.argmax(axis=1)
    value_V = np.arange(len(count_VC))
    met_V, count_V = count_VC[value_V, class_V], count_VC.sum(axis=1)
    # the table of Fisher's test: with or without the value, of the class or of another
    without_V = size_C[class_V] - met_V
    others_V = size_C.sum() - size_C[class_V] - (count_V - met_V)
    odds_V = met_V * others_V > LEAST_ODDS * without_V * (count_V - met_V)
    common_V = size_C[class_V] > COMMON * size_C.sum()
    return class_V, np.where(common_V, odds_V, excess_VC[value_V, class_V] >= LEAST_EXCESS)


def fisher_p(count_VC: NDArray[np.int64], size_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """One-sided p of Fisher's exact test, that a value and a class meet more often than by chance, shape (V, C)."""
    samples = int(size_C.sum())
    count_V1 = count_VC.sum(axis=1, keepdims=True)
    p_VC = np.ones(count_VC.shape)
    # where they meet no more often than that, p is at least a half: it never passes, and corrects none that does
    more_VC = count_VC * samples > count_V1 * size_C
    cases = np.stack(np.broadcast_arrays(count_VC, size_C, count_V1), axis=-1)[more_VC]
    different, place = np.unique(cases, axis=0, return_inverse=True)
    if len(different):
        met, size, count = different.T
        p_VC[more_VC] = stats.hypergeom.sf(met - 1, samples, size, count)[place.ravel()]
    return p_VC
