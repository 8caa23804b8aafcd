"""Importance sampling: i.i.d. draws with replacement from n probabilities."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers import TrainerCallback

from evenhand.validation import UserError

logger = logging.getLogger(__name__)

CHUNK = 1_048_576  # draws made at once: 32 MB, and dense enough in 10 million probabilities to be read in order


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


def mixture(score_N: NDArray[np.floating], mix: float, floor: float) -> NDArray[np.float64] | None:
    """Sampling probabilities λ·max(s_i / Σ s, floor) + (1 − λ)/N, shape (N,).

    At λ = 0 they are None, which is read as uniform batches without replacement, the ordinary epoch.

    Args:
        score_N: One score a sample, shape (N,).
        mix: λ in [0, 1].
        floor: Lowest probability that a score gives.

    Raises:
        UserError: If a score is negative or not finite, or all are 0: then nothing tells the samples apart.
    """
    if mix == 0:
        return None
    if len(score_N) and not np.any(score_N):
        raise UserError(
            "All scores are 0: the biased model is certain of every training sample, so nothing tells them apart; "
            "train it less, by a smaller learning rate or larger batches."
        )
    probability_N = normalized(score_N, "score")
    warn_if_equal(probability_N, "score")
    return mix * probability_N.clip(min=floor) + (1 - mix) / len(probability_N)


def all_equal(value_N: NDArray[np.floating]) -> bool:
    """Whether values of at least 0, shape (N,), are the same to 0.1 %."""
    low, high = float(value_N.min()), float(value_N.max())
    return high - low <= 1e-3 * high


def warn_if_equal(value_N: NDArray[np.floating], what: str) -> None:
    """Warn when a biased model gives all samples the same value, to 0.1 %: it learned nothing, or everything."""
    if all_equal(value_N):
        logger.warning(
            "The biased model gives every training sample the same %s, so it tells no sample from another: "
            "it learned nothing, or everything.",
            what,
        )


def effective_sample_size(probability_N: NDArray[np.floating]) -> float:
    """(Σ p)² / Σ p², the number of equally likely samples that a draw is worth; N for uniform probabilities."""
    probability_N = np.asarray(probability_N, dtype=np.float64)
    return float(probability_N.sum() ** 2 / np.square(probability_N).sum())


def collapse_limit(n: int) -> float:
    """The effective sample size below which draws count as collapsed: N/1000, at least 10 (N/10 if N is below 100).

    Draws that find their samples well are worth about as many as there are conflicting ones: 13–22 of 1,100 on
    colored-digits, 364 of 54,000 on colored-mnist with 1 %. A higher limit, such as 1 % of N or a batch, would warn of
    success.
    """
    return max(n / 1000, min(10, n / 10))


def warn_of_collapse(probability_N: NDArray[np.floating]) -> None:
    """Warn when the draws are worth fewer samples than `collapse_limit`."""
    n = len(probability_N)
    effective = effective_sample_size(probability_N)
    if effective < collapse_limit(n):
        logger.warning(
            "The sampling has collapsed: draws from %d samples are worth %.1f equally likely ones, so the model sees "
            "hardly any others; a smaller mix or alpha spreads them.",
            n,
            effective,
        )


class ImportanceSampler(Sampler[int]):
    """Draws `num_draws` indices an epoch, i.i.d. with replacement, with given probabilities.

    Set-up is O(n) (one cumulative sum in float64). A draw is a binary search, O(log n); draws are made by the chunk,
    sorted, so that neighbours in a chunk find what they read in the cache (seven times faster at n = 10 million), and
    memory beside the cumulative sum is that of a chunk. The draws depend on `seed` and the epoch alone, so every
    process of a distributed run makes the same ones and a resumed epoch makes them again.

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

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """All draws of the current epoch, in arrays of at most `CHUNK`."""
        generator = np.random.default_rng([self.seed, self.epoch])
        for start in range(0, self.num_draws, CHUNK):
            # Scaling by the last sum absorbs its rounding error. "right" skips samples of probability 0.
            wanted = generator.random(min(CHUNK, self.num_draws - start)) * self.cumulative_N[-1]
            order = np.argsort(wanted)
            drawn = np.empty(len(wanted), dtype=np.int64)
            drawn[order] = np.searchsorted(self.cumulative_N, wanted[order], side="right")
            yield drawn

    def draws(self) -> NDArray[np.int64]:
        """All draws of the current epoch, shape (num_draws,)."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self.chunks()])

    def __iter__(self) -> Iterator[int]:
        for chunk in self.chunks():
            yield from chunk.tolist()


class TellsEpoch(TrainerCallback):
    """Tells the sampler the epoch, which transformers can't when it goes on in mid-epoch on several processes."""

    def __init__(self, sampler: ImportanceSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Once an epoch, whole or resumed."""
        self.sampler.set_epoch(int(state.epoch or 0))  # 1.4 where training goes on in the second epoch
