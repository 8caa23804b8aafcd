"""GCE: generalised cross-entropy, which learns what is easy; the biased model of PGD and EDGE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from evenhand.losses import generalized_cross_entropy
from evenhand.methods.base import Exponent, OneStage


@dataclass(frozen=True, kw_only=True)
class GCE(OneStage):
    """Minimise (1 − p_i^q)/q, whose gradient is p_i^q · ∇(−log p_i), times q (as LfF's code has it).

    Samples that are fitted already weigh more, so that an easy shortcut is amplified: a biased model on purpose.

    Attributes:
        q: Exponent in (0, 1]; 0.7 in the GCE, LfF, PGD and EDGE papers. Near 0 it is cross-entropy, at 1 mean
            absolute error.

    Raises:
        UserError: If q is outside (0, 1].
    """

    q: Exponent = 0.7

    name: ClassVar[str] = "gce"
    paper: ClassVar[str] = "Zhang & Sabuncu, Generalized Cross Entropy Loss, NeurIPS 2018"

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """w_i·l_i with w_i = q·p_i^q detached, shape (B,)."""
        return generalized_cross_entropy(logits_BC, labels_B, self.q)
