"""Focal loss: cross-entropy that fades where the model is right; the one-stage control of PGD and EDGE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenhand.losses import cross_entropy
from evenhand.methods.base import OneStage
from evenhand.validation import Range


@dataclass(frozen=True, kw_only=True)
class Focal(OneStage):
    """Minimise (1 − p_i)^γ · (−log p_i): samples that the model itself is sure of count less.

    The gradient goes through the factor too, as in the paper.

    Attributes:
        gamma: γ ≥ 0; 2 in the paper. 0 is cross-entropy.

    Raises:
        UserError: If γ is negative or not finite.
    """

    gamma: Annotated[float, Range(0)] = 2.0

    name: ClassVar[str] = "focal"
    paper: ClassVar[str] = "Lin, Goyal, Girshick, He & Dollár, Focal Loss for Dense Object Detection, ICCV 2017"
    spelling: ClassVar[str] = "Focal loss"

    def idle_reason(self, signal_N: NDArray[np.floating] | None) -> str | None:
        """γ = 0, which is cross-entropy."""
        return "its γ is 0" if self.gamma == 0 else None

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """(1 − p_i)^γ · l_i, shape (B,)."""
        loss_B = cross_entropy(logits_BC, labels_B)
        # 1 − p = −expm1(−l) keeps its digits near p = 1. At p = 1 the loss is 0 with gradient 0, while the power's own
        # derivative would be infinite for γ < 1, so the base stays above 0.
        tiny = torch.finfo(loss_B.dtype).tiny
        return (-torch.expm1(-loss_B)).clamp(min=tiny) ** self.gamma * loss_B
