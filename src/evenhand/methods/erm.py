"""ERM: empirical risk minimisation, the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evenhand.methods.base import OneStage


@dataclass(frozen=True, kw_only=True)
class ERM(OneStage):
    """Minimise the mean cross-entropy over uniform batches: (1/n) Σ −log p_i."""

    name: ClassVar[str] = "erm"
    paper: ClassVar[str] = "Vapnik, Principles of Risk Minimization for Learning Theory, NIPS 1991"
