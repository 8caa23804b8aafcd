"""DPR: draw samples in proportion to how far a biased model is from their label; PGD without the features' norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from evenhand.methods.base import Exponent, Init, Method, Run
from evenhand.methods.erm import ERM
from evenhand.methods.gce import GCE
from evenhand.sampling import mixture


@dataclass(frozen=True, kw_only=True)
class DPR(Method):
    """Train a biased model with GCE, retrain with draws of probability (1 − p_i) / Σ (1 − p).

    p_i is the biased model's probability of the true class. PGD's head score is ‖softmax − onehot‖·‖h_i‖, so DPR is its
    control: the same but for the features' norm ‖h_i‖ and the choice of norm.

    Attributes:
        q: GCE's exponent in (0, 1]; 0.7 as in PGD.
        init: What the debiased model starts from: `inherit` the biased weights, as PGD does, so that only the score
            differs; `random` fresh ones; `initial` those that the run started from; `pretrained` the same, where they
            are a checkpoint's.

    Raises:
        UserError: If a value is out of range, or the biased model is certain of every sample.
    """

    q: Exponent = 0.7
    init: Init = "inherit"

    name: ClassVar[str] = "dpr"
    paper: ClassVar[str] = "Han et al., Mitigating Spurious Correlations via Disagreement Probability, NeurIPS 2024"

    def models_trained(self) -> int:
        """The biased one and the debiased one."""
        return 2

    def fit(self, run: Run) -> nn.Module:
        """Biased model, disagreement, draws."""
        biased = run.train("biased", GCE(q=self.q))
        sampling = mixture(1.0 - run.probabilities(biased).astype(np.float64), mix=1.0, floor=0.0)
        return run.train("debiased", ERM(), start=run.start_from(self.init, biased), sampling=sampling)
