"""Which parameters' rules agree with autograd, found out on the first batches that give each a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from evenhand.gradients.sums import Sums, minus, norm_of

_ALWAYS = 3  # the first batches are compared in any case: they find uses that no tap sees
_AGAIN = 200  # batches from one comparison of everything to the next: two backwards, about 0.6 % of 200 steps
_SEVERAL = 2


class Verification:
    """Keeps count of what has been compared.

    A parameter counts as compared once its gradient wasn't 0 (LoRA's A has none in the first step), and is compared
    again on the first batch of several samples, where a rule can also mix them up. Every 200th batch compares them
    all, which finds what a model begins to do later.

    Args:
        parameters: Those to compare.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._compared = dict.fromkeys(parameters, 0)
        self._always = _ALWAYS
        self._batches = 0
        self._again = False

    def pending(
        self, single: set[nn.Parameter], tapped: set[nn.Parameter], renewed: set[nn.Parameter], batch: int
    ) -> set[nn.Parameter]:
        """Parameters to compare if this batch gives them a gradient.

        Args:
            single: Those whose b comes from rules.
            tapped: Those whose layers were called in this forward.
            renewed: Those that were compared under other circumstances, so that it doesn't count.
            batch: B.
        """
        self._batches += 1
        self._again = self._batches % _AGAIN == 0
        if self._again:
            return single & self._compared.keys()
        self._compared |= dict.fromkeys(renewed & self._compared.keys(), 0)
        left = {p for p, level in self._compared.items() if level < min(batch, _SEVERAL) and p in single}
        return left if self._always else left & tapped

    def due(self, pending: set[nn.Parameter]) -> bool:
        """Whether one of them has a gradient by now, for which the device is waited for while there are such."""
        if self._always or self._again:
            return True
        norms = [norm_of(p.grad) for p in pending if p.grad is not None]
        return bool(norms) and bool(torch.stack([n.float().cpu() for n in norms]).any())

    def compare(
        self, ours: Sums, right: Mapping[nn.Parameter, Tensor | None], batch: int, on_gpu: bool, coarse: bool
    ) -> set[nn.Parameter]:
        """The parameters whose weighted sums differ.

        Args:
            ours: By rules.
            right: By autograd.
            batch: B.
            on_gpu: Convolutions may use TF32.
            coarse: δ came in half precision.
        """
        norms = {p: torch.zeros(()) if g is None else norm_of(g).cpu() for p, g in right.items()}
        total = float(torch.stack(list(norms.values())).norm())
        if not total < float("inf"):  # the gradient scaler is still looking for its scale
            return set()
        # largest error relative to a tensor's norm, and the share of the global norm below which that is rounding
        tolerance, floor = (1e-1, 2e-3) if coarse else (1e-2, 1e-3) if on_gpu else (1e-4, 1e-3)
        wrong = set()
        for p, norm in norms.items():
            if p not in self._compared or (self._compared[p] >= _SEVERAL and not self._again):
                continue
            if p not in ours:
                wrong |= {p} if float(norm) > 1e-9 * total else set()
                continue
            g = right[p]
            error = norm_of(ours[p]) if g is None else norm_of(minus(ours[p], g))
            if float(error) > tolerance * max(float(norm), floor * total):
                wrong.add(p)
            elif float(norm) > 0:
                self._compared[p] = max(self._compared[p], min(batch, _SEVERAL))
        self._always = max(self._always - 1, 0)
        return wrong
