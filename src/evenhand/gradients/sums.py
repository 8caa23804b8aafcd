"""Gradients by parameter, dense or sparse, as they add up over micro-batches and uses of a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Sums = dict[nn.Parameter, Tensor]


def add(sums: Sums, parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add to a parameter's sum, which is sparse as long as all its parts are."""
    gradient = gradient.to(parameter.dtype)
    known = sums.get(parameter)
    if known is None:
        sums[parameter] = gradient
    elif known.is_sparse and not gradient.is_sparse:
        sums[parameter] = gradient + known
    else:
        sums[parameter] = known.add_(gradient)


def minus(ours: Tensor, right: Tensor) -> Tensor:
    """Their difference, dense."""
    return (ours.to_dense() if ours.is_sparse else ours) - (right.to_dense() if right.is_sparse else right)


def norm_of(gradient: Tensor) -> Tensor:
    """The 2-norm, in float32."""
    return torch.linalg.vector_norm((gradient.to_dense() if gradient.is_sparse else gradient).float())
