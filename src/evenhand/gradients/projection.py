"""EDGE's combination of the ERM gradient e and the bias-aligned gradient b into one update.

Legend: R rows of a tensor (its dim 0), D the product of its other dims.

All forms but `published` are closed: projecting b on the shared direction c = e/‖e‖ + b/‖b‖ leaves
ext = b/2 − (ρ/2)·e with ρ = ‖b‖/‖e‖, so that e − α·ext = (1 + αρ/2)·e − (α/2)·b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from evenhand.validation import Range, check_choice

ProjectionKind = Literal["published", "row", "tensor", "global", "naive"]

T = TypeVar("T")

NEGLIGIBLE = 1e-12  # of the global norm: below it a gradient has no direction


@dataclass(frozen=True)
class Projection:
    """How e and b become the update.

    Attributes:
        kind: `published`: the paper's listing, whose norms are per tensor while its dots are per row.
            `row`: a true projection of each row. `tensor`: of each tensor. `global`: of all parameters as one vector.
            `naive`: e − αb. In `published` and `row`, tensors of fewer than two dims take the `tensor` form.
        alpha: Strength α ≥ 0; 0 gives e bit for bit.
    """

    kind: ProjectionKind
    alpha: float

    def __post_init__(self) -> None:
        check_choice("EDGE", "projection", self.kind, get_args(ProjectionKind))
        Range(0).check("EDGE", "alpha", self.alpha)

    def combine(self, erm: Sequence[Tensor], bias: Sequence[Tensor]) -> None:
        """Replace each tensor of `erm` by its update, in place.

        Where ‖e‖ or ‖b‖ of a tensor (a row, all parameters) is 0 or below 1e-12 of its global norm, the update is e.
        A tensor of a transposed layer (input × output, as GPT-2's Conv1D) is passed as its transposed view.
        An infinite or NaN gradient anywhere makes the whole update NaN, so that a gradient scaler still sees it.

        Args:
            erm: Gradient e of each trainable parameter.
            bias: Gradient b of the same parameters, in the same order and shapes; used up.
        """
        if not erm:
            return
        if self.kind == "naive":
            torch._foreach_add_(list(erm), list(bias), alpha=-self.alpha)  # pyright: ignore[reportPrivateImportUsage]
            return
        e_norms, b_norms = tensor_norms(erm), tensor_norms(bias)
        e_total, b_total = torch.linalg.vector_norm(e_norms), torch.linalg.vector_norm(b_norms)
        overflow = 0 * (e_total + b_total)  # 0, or NaN if any gradient is not finite
        whole = [self.kind in ("tensor", "global") or e.ndim < 2 for e in erm]
        if any(whole):
            of_all = (e_total.expand_as(e_norms), b_total.expand_as(b_norms))
            norms = of_all if self.kind == "global" else (e_norms, b_norms)
            e_factors, b_factors = self._closed_form(*norms, e_total, b_total)
            # as numbers: one transfer from the device instead of two small kernels a tensor
            e_chosen, b_chosen = (_chosen(f.tolist(), whole) for f in (e_factors + overflow, b_factors))
            e_tensors, b_tensors = _chosen(erm, whole), _chosen(bias, whole)
            torch._foreach_mul_(e_tensors, e_chosen)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_mul_(b_tensors, b_chosen)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(e_tensors, b_tensors)  # pyright: ignore[reportPrivateImportUsage]
        for k, (e, b) in enumerate(zip(erm, bias, strict=True)):
            if whole[k]:
                continue
            e_RD, b_RD = _wide(e).flatten(1), _wide(b).flatten(1)
            if self.kind == "row":
                e_rows = torch.linalg.vector_norm(e_RD, dim=1, keepdim=True)
                b_rows = torch.linalg.vector_norm(b_RD, dim=1, keepdim=True)
                e_factor, b_factor = self._closed_form(e_rows, b_rows, e_total, b_total)
            else:
                e_factor, b_factor = self._published(e_RD, b_RD, e_norms[k], b_norms[k], e_total, b_total)
            row_shape = (-1, *[1] * (e.ndim - 1))
            e.mul_(e_factor.reshape(row_shape) + overflow).add_(b.mul_(b_factor.reshape(row_shape)))

    def _closed_form(self, e_norm: Tensor, b_norm: Tensor, e_total: Tensor, b_total: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of e and b in (1 + αρ/2)·e − (α/2)·b; 1 and 0 where a norm is negligible."""
        defined = _has_direction(e_norm, b_norm, e_total, b_total)
        ratio = torch.where(defined, b_norm, 0) / torch.where(defined, e_norm, 1)
        return 1 + self.alpha / 2 * ratio, -self.alpha / 2 * defined.to(ratio.dtype)

    def _published(
        self, e_RD: Tensor, b_RD: Tensor, e_norm: Tensor, b_norm: Tensor, e_total: Tensor, b_total: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Factors of e and b in e_r − α(b_r − d_r·c_r) with c = e/‖e‖ + b/‖b‖ per tensor and d_r = ⟨b_r, c_r⟩."""
        defined = _has_direction(e_norm, b_norm, e_total, b_total)
        known = defined.to(e_norm.dtype)
        per_e = known / torch.where(defined, e_norm, 1)
        per_b = known / torch.where(defined, b_norm, 1)
        dot_R = per_e * (b_RD * e_RD).sum(1) + per_b * b_RD.square().sum(1)
        return 1 + self.alpha * per_e * dot_R, self.alpha * per_b * dot_R - self.alpha * known


def _chosen(values: Sequence[T], chosen: Sequence[bool]) -> list[T]:
    return [value for value, kept in zip(values, chosen, strict=True) if kept]


def _wide(gradient: Tensor) -> Tensor:
    """Half precision is too coarse for norms and dots."""
    return gradient.float() if gradient.dtype in (torch.float16, torch.bfloat16) else gradient


def tensor_norms(gradients: Sequence[Tensor]) -> Tensor:
    """The 2-norm of each tensor."""
    return torch.stack(torch._foreach_norm([_wide(g) for g in gradients]))  # pyright: ignore[reportPrivateImportUsage]


def _has_direction(e_norm: Tensor, b_norm: Tensor, e_total: Tensor, b_total: Tensor) -> Tensor:
    return (e_norm > NEGLIGIBLE * e_total) & (b_norm > NEGLIGIBLE * b_total)
