"""‖e‖, ‖b‖ and their cosine, averaged over steps on the device: nothing waits for it before they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evenhand.gradients.projection import tensor_norms


class GradientStatistics:
    """Running means over the steps since the last `read`. Steps whose gradients aren't finite are left out.

    Attributes:
        scale: What e and b were multiplied by (a gradient scaler's scale), a scalar tensor or number.
    """

    def __init__(self) -> None:
        self.scale: Tensor | float = 1.0
        self._sums: Tensor | None = None  # ‖e‖, ‖b‖, cosine, steps

    def add(self, erm: Sequence[Tensor], bias: Sequence[Tensor]) -> None:
        """Count a step's e and b, each a list of tensors in the same order."""
        if not erm:
            return
        e_norm = torch.linalg.vector_norm(tensor_norms(erm))
        b_norm = torch.linalg.vector_norm(tensor_norms(bias))
        dot = torch.stack([_dot(e, b) for e, b in zip(erm, bias, strict=True)]).sum()
        cosine = dot / (e_norm * b_norm).clamp_min(torch.finfo(dot.dtype).tiny)
        step = torch.stack([e_norm / self.scale, b_norm / self.scale, cosine, torch.ones_like(cosine)])
        step = torch.where(torch.isfinite(step).all(), step, 0)
        self._sums = step if self._sums is None else self._sums + step

    def read(self) -> dict[str, float]:
        """The means by name, and begin anew; empty if no step was counted."""
        sums, self._sums = self._sums, None
        e_norm, b_norm, cosine, steps = [0.0] * 4 if sums is None else sums.tolist()
        if not steps:
            return {}
        return {
            "erm_grad_norm": e_norm / steps,
            "bias_grad_norm": b_norm / steps,
            "erm_bias_cosine": cosine / steps,
        }


def _dot(e: Tensor, b: Tensor) -> Tensor:
    """In float32; tensors of one layout are read as they lie."""
    if e.is_contiguous() and b.is_contiguous():
        return torch.dot(e.flatten().float(), b.flatten().float())
    return (e.float() * b.float()).sum()
