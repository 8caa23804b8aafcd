"""A validation split for benchmarks that come without one.

Legend: N rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HELD_OUT = 10  # one row of so many, class by class


def held_out(label_N: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that stay and the tenth of each class (at least one row) that is held out, both in their own order."""
    chosen = [
        rng.permutation(np.flatnonzero(label_N == label))[: max(1, int(count) // HELD_OUT)]
        for label, count in zip(*np.unique(label_N, return_counts=True), strict=True)
    ]
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(label_N)), validation), validation
