"""b of several micro-batches beside the e that it belongs to: what drops e drops b."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from evenhand.gradients.sums import Sums, norm_of


class Accumulated:
    """The sums b of each weighting, and the state of `.grad` when they were last added to.

    e is dropped by `zero_grad`, which puts None or zeros in its place. Its tensor's identity and version counter show
    whether something was done to it since, so that its values are looked at in that case alone.
    """

    def __init__(self) -> None:
        self.sums: list[Sums] = [{}]
        self._left: dict[nn.Parameter, tuple[weakref.ref[Tensor], int]] = {}

    def clear(self) -> None:
        """Forget all."""
        self.sums = [{}]
        self._left = {}

    def widen(self, weightings: int) -> None:
        """Room for so many weightings."""
        self.sums += [{} for _ in range(weightings - len(self.sums))]

    def remember(self, parameters: Iterable[nn.Parameter]) -> None:
        """The gradients that are there now hold the e of what was added."""
        self._left = {p: (weakref.ref(p.grad), p.grad._version) for p in parameters if p.grad is not None}

    def drop_forgotten(self) -> None:
        """Forget the b of parameters whose e was zeroed or replaced."""
        gone: list[nn.Parameter] = []
        changed: list[tuple[nn.Parameter, Tensor]] = []
        for p in dict.fromkeys(p for sums in self.sums for p in sums):
            left, version = self._left.get(p, (None, 0))
            if p.grad is None or left is None or left() is not p.grad:
                gone.append(p)
            elif p.grad._version != version:
                changed.append((p, norm_of(p.grad)))
        if changed:
            norms = torch.stack([norm.cpu() for _, norm in changed]).tolist()
            gone += [p for (p, _), norm in zip(changed, norms, strict=True) if norm == 0]
        for sums in self.sums:
            for p in gone:
                sums.pop(p, None)
