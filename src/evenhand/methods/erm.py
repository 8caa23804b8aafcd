"""ERM: empirical risk minimisation, the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evenhand.methods.base import EQUAL_WEIGHTS, OneStage


@dataclass(frozen=True, kw_only=True)
class ERM(OneStage):
    """Minimise the mean cross-entropy over uniform batches: (1/n) Σ −log p_i."""

    name: ClassVar[str] = "erm"
    paper: ClassVar[str] = "Vapnik, Principles of Risk Minimization for Learning Theory, NIPS 1991"

    def idle_reason(self, signal_N: NDArray[np.floating] | None) -> str:
        """Where another method ends with it on uniform batches, that has nothing to tell samples apart by."""
        return EQUAL_WEIGHTS
