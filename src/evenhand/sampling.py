"""Importance sampling: i.i.d. draws with replacement from n probabilities."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from evenhand.validation import UserError


def normalized(weights_N: NDArray[np.floating], owner: str = "sampling") -> NDArray[np.float64]:
    """Turn non-negative weights into probabilities.

    Args:
        weights_N: One weight a sample, shape (N,).
        owner: What the weights are called in the error message.

    Raises:
        UserError: If a weight is negative or not finite (the first such sample is named), or all are zero.
    """
    weights_N = np.asarray(weights_N, dtype=np.float64)
    if weights_N.ndim != 1 or not len(weights_N):
        raise UserError(f"The {owner} weights must have shape (n,) with n > 0. Got {weights_N.shape}.")
    bad = np.flatnonzero(~(np.isfinite(weights_N) & (weights_N >= 0)))
    if len(bad):
        raise UserError(
            f"The {owner} weights must be finite and not negative. "
            f"Got {weights_N[bad[0]]} for sample {bad[0]} ({len(bad)} such samples)."
        )
    largest = weights_N.max()
    if largest == 0:
        raise UserError(f"The {owner} weights are all zero, so no sample can be drawn.")
    with np.errstate(over="ignore"):
        total = weights_N.sum()
    if np.isinf(total):  # finite weights whose sum is beyond all floats
        weights_N = weights_N / largest
        total = weights_N.sum()
    return weights_N / total


def effective_sample_size(probability_N: NDArray[np.float64]) -> float:
    """1 / Σ p², the number of equally likely samples that a draw is worth; N for uniform probabilities."""
    return float(1.0 / np.square(probability_N).sum())


class ImportanceSampler(Sampler[int]):
    """Draws `num_draws` indices an epoch, i.i.d. with replacement, with given probabilities.

    Set-up is O(n) (one cumulative sum in float64), an epoch's draws are one vectorised binary search,
    O(log n) a draw. The draws depend on `seed` and the epoch alone, so every process of a distributed run
    makes the same ones and a resumed epoch makes them again.

    Args:
        probability_N: Sampling probabilities, shape (N,); they are normalised.
        num_draws: Draws an epoch; defaults to N.
        seed: Seed of the draws.
    """

    def __init__(self, probability_N: NDArray[np.floating], num_draws: int | None = None, seed: int = 0) -> None:
        self.cumulative_N = np.cumsum(normalized(probability_N))
        self.num_draws = len(self.cumulative_N) if num_draws is None else num_draws
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws are made next (the Trainer calls it)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_draws

    def draws(self) -> NDArray[np.int64]:
        """All draws of the current epoch, shape (num_draws,)."""
        uniform = np.random.default_rng([self.seed, self.epoch]).random(self.num_draws)
        # Scaling by the last sum absorbs its rounding error. "right" skips samples of probability 0.
        return np.searchsorted(self.cumulative_N, uniform * self.cumulative_N[-1], side="right")

    def __iter__(self) -> Iterator[int]:
        return iter(torch.from_numpy(self.draws()).tolist())
