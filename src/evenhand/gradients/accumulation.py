"""Gradients by parameter as they add up; b of several micro-batches beside the e that it belongs to."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

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


class Accumulated:
    """The sums b, and the state of `.grad` when they were last added to: what drops e drops b.

    e is dropped by `zero_grad`, which puts None or zeros in its place. Its tensor's identity and version counter show
    whether something was done to it since, so that its values are looked at in that case alone.
    """

    def __init__(self) -> None:
        self.sums: Sums = {}
        self._left: dict[nn.Parameter, tuple[weakref.ref[Tensor], int]] = {}

    def clear(self) -> None:
        """Forget all."""
        self.sums, self._left = {}, {}

    def remember(self, parameters: Iterable[nn.Parameter]) -> None:
        """The gradients that are there now hold the e of what was added."""
        self._left = {p: (weakref.ref(p.grad), p.grad._version) for p in parameters if p.grad is not None}

    def drop_forgotten(self) -> None:
        """Forget the b of parameters whose e was zeroed or replaced."""
        gone: list[nn.Parameter] = []
        changed: list[tuple[nn.Parameter, Tensor]] = []
        for p in self.sums:
            left, version = self._left.get(p, (None, 0))
            if p.grad is None or left is None or left() is not p.grad:
                gone.append(p)
            elif p.grad._version != version:
                changed.append((p, norm_of(p.grad)))
        if changed:
            norms = torch.stack([norm.cpu() for _, norm in changed]).tolist()
            gone += [p for (p, _), norm in zip(changed, norms, strict=True) if norm == 0]
        for p in gone:
            self.sums.pop(p, None)
