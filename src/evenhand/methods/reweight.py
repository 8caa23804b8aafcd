"""Reweighting: cross-entropy that fades where a biased model is right; what EDGE and Even must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.losses import cross_entropy, gce_weights
from evenhand.methods.base import Exponent, OneStage, Run, check_unprojected, weightless_reason
from evenhand.methods.gce import GCE
from evenhand.sampling import warn_if_equal
from evenhand.validation import Range


@dataclass(frozen=True, kw_only=True)
class Reweight(OneStage):
    """Train a biased model with GCE, then minimise mean[(1 − α·w_i)·l_i] from the initial weights, w_i = q·p_i^q.

    p_i is the biased model's probability of the true class, from one pass in eval mode. At α = 1/q the weight is
    1 − p_i^q, which lies in [0, 1]. It is EDGE(signal="biased", projection="reweight") under its own name.

    Attributes:
        alpha: Strength α in [0, 1/q]; 1.4, just below 1/0.7; `Even` finds its own.
        q: GCE's exponent in (0, 1]; 0.7 in the GCE, LfF, PGD and EDGE papers.

    Raises:
        UserError: If a value is out of range, or α·q > 1.
    """

    alpha: Annotated[float, Range(0)] = 1.4
    q: Exponent = 0.7

    name: ClassVar[str] = "reweight"
    paper: ClassVar[str] = "a control of this project: one minus GCE's weight (Zhang & Sabuncu, NeurIPS 2018)"
    spelling: ClassVar[str] = "Reweighting"
    needs_signal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_unprojected("Reweight", self.alpha, self.q)

    def models_trained(self) -> int:
        """The biased one and the debiased one."""
        return 2

    def idle_reason(self, signal_N: NDArray[np.floating] | None) -> str | None:
        """α = 0, or equal probabilities."""
        return weightless_reason(self.alpha, signal_N)

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """(1 − α·w_i)·l_i, shape (B,)."""
        assert signal_B is not None
        return (1 - self.alpha * gce_weights(signal_B, self.q)) * cross_entropy(logits_BC, labels_B)

    def fit(self, run: Run) -> nn.Module:
        """Biased model, its probabilities, weighted training."""
        biased = run.train("biased", GCE(q=self.q))
        probability_N = run.probabilities(biased)
        warn_if_equal(probability_N, "probability")
        return run.train("debiased", self, signal_probs=probability_N)
