"""Cross-entropy with a weight for each sample: what importance sampling does in expectation, without its draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evenhand.losses import cross_entropy
from evenhand.methods.base import OneStage, weightless_reason
from evenhand.validation import Range


@dataclass(frozen=True, kw_only=True)
class Weighted(OneStage):
    """Minimise the mean of N·p_i·l_i over uniform batches, whose expectation is that of drawing i with p_i.

    A stage of other methods: the sampling probabilities p_i come in as the stage's signal.

    Attributes:
        samples: N.
    """

    samples: Annotated[int, Range(1)]

    name: ClassVar[str] = "weighted"
    paper: ClassVar[str] = "importance weighting"
    needs_signal: ClassVar[bool] = True

    def idle_reason(self, signal_N: NDArray[np.floating] | None) -> str | None:
        """Equal probabilities."""
        return weightless_reason(1, signal_N)

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """N·p_i·l_i, shape (B,)."""
        assert signal_B is not None
        return self.samples * signal_B * cross_entropy(logits_BC, labels_B)
