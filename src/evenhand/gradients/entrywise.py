"""Entrywise norms of per-sample gradients in bounded memory: Σ |g|^p of each sample, or max |g|.

Legend: B samples, O and I the sides of an outer product, T positions, U distinct rows of a table.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evenhand.gradients.forms import Correlation, Dense, Lookup, Outer, SampleGradients, Total, wide

CHUNK_BYTES = 64 * 2**20
"""About what a chunk of per-sample gradients may take; a single sample's gradient of one tensor may take more."""


def power_sums(gradients: SampleGradients, power: float) -> Tensor:
    """Σ |g_i|^p over a parameter's entries, or max |g_i| where p is infinite; shape (B,).

    For p = 2 each form has its own way without building g_i; any other p needs the entries, chunk by chunk.
    """
    if isinstance(gradients, Lookup):
        return _lookup(gradients, power)
    if isinstance(gradients, Dense):
        return entry_sums(gradients.gradient_B, power)
    if isinstance(gradients, Outer) and gradients.left_BTO.shape[1] == 1:
        left, right = (entry_sums(side, power) for side in (gradients.left_BTO, gradients.right_BTI))
        return left * right
    batch, bytes_each = _samples_and_bytes(gradients, power)
    step = max(1, CHUNK_BYTES // max(bytes_each, 1))
    chunks = (gradients[start : min(start + step, batch)] for start in range(0, batch, step))
    if power == 2:
        return torch.cat([chunk.squared_norms() for chunk in chunks])
    return torch.cat([_sums_of_entries(chunk, power) for chunk in chunks])


def entry_sums(x_B: Tensor, power: float) -> Tensor:
    """Σ |x|^p over all but dim 0, or max |x|, accumulated in float64 where the device has it."""
    x_BN = wide(x_B).flatten(1)
    if math.isinf(power):
        return x_BN.abs().amax(1) if x_BN.shape[1] else x_BN.new_zeros(len(x_BN))
    terms = x_BN.square() if power == 2 else x_BN.abs() if power == 1 else x_BN.abs().pow_(power)
    return terms.sum(1, dtype=terms.dtype if x_B.device.type == "mps" else torch.float64)


def _sums_of_entries(gradients: SampleGradients, power: float) -> Tensor:
    """By building the gradients; a wide outer product in blocks of its rows."""
    if isinstance(gradients, Outer):
        left, right = wide(gradients.left_BTO), wide(gradients.right_BTI)
        step = max(1, CHUNK_BYTES // (len(right) * right.shape[2] * right.element_size()))
        blocks = [entry_sums(block.mT @ right, power) for block in left.split(step, dim=2)]
        return torch.stack(blocks).amax(0) if math.isinf(power) else torch.stack(blocks).sum(0)
    return entry_sums(gradients.per_sample(), power)


def _lookup(gradients: Lookup, power: float) -> Tensor:
    """Only the rows that a sample uses: positions with the same id add up first."""
    sample_U, sum_UD = gradients.rows_used()
    row_U = entry_sums(sum_UD, power)
    out_B = row_U.new_zeros(len(gradients.id_BT))
    if math.isinf(power):
        return out_B.scatter_reduce_(0, sample_U, row_U, "amax")
    return out_B.index_add_(0, sample_U, row_U)


def _samples_and_bytes(gradients: SampleGradients, power: float) -> tuple[int, int]:
    """B, and about what one sample takes while it is reduced."""
    if isinstance(gradients, Total):
        parts = [_samples_and_bytes(use, 1.0) for use in gradients.uses]
        return parts[0][0], sum(size for _, size in parts)
    if isinstance(gradients, Outer):
        left, right = gradients.left_BTO, gradients.right_BTI
        batch, positions = left.shape[:2]
        entries = left.shape[2] * right.shape[2]
        if power == 2 and positions * (left.shape[2] + right.shape[2]) < entries:
            entries = 2 * positions**2
        return batch, entries * max(left.element_size(), 4)
    if isinstance(gradients, Correlation):
        images = len(gradients.delta_NOHW) // gradients.batch
        patches = images * gradients.delta_NOHW[0, 0].numel() * math.prod(gradients.shape[1:]) * gradients.groups
        return gradients.batch, 2 * (patches + gradients.shape.numel()) * max(gradients.delta_NOHW.element_size(), 4)
    if isinstance(gradients, Lookup):  # as part of a sum with other forms
        return len(gradients.id_BT), gradients.rows * gradients.delta_BTD.shape[2] * 4
    assert isinstance(gradients, Dense)
    return len(gradients.gradient_B), gradients.gradient_B[0].numel() * gradients.gradient_B.element_size()
