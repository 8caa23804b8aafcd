"""When sums and norms by rules are compared with autograd's, and on what: the batches that first give a gradient.

Legend: B samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from evenhand.gradients.accumulation import Sums, minus, norm_of

_ALWAYS = 3  # the first batches are compared in any case: they find uses that no tap sees
_AGAIN = 200  # batches from one comparison of everything to the next: two backwards, about 0.6 % of 200 steps
_SEVERAL = 2
_NORMS_AGAIN = 256  # likewise of norms: a forward and backward of two single samples


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


class NormCheck:
    """Keeps count of what has been compared.

    All parameters are compared on the first batch and on every 256th after it; each one besides on the first batch
    that gives it a gradient (an expert that no token went to has none), and when its rows may no longer be what they
    were then.

    Args:
        parameters: Those to compare.
    """

    def __init__(self, parameters: set[nn.Parameter]) -> None:
        self._unseen = set(parameters)
        self._uncertain: set[nn.Parameter] = set()
        self._batches = 0

    def see(self, renewed: set[nn.Parameter], uncertain: set[nn.Parameter]) -> None:
        """What a forward showed.

        Args:
            renewed: Parameters whose layers gave a number of rows that is new.
            uncertain: Those whose rows nothing but a comparison of all samples can tell apart.
        """
        self._unseen |= renewed
        self._uncertain = set(uncertain)

    def due(
        self, ruled: Sequence[nn.Parameter], sums: Mapping[nn.Parameter, Tensor], batch: int
    ) -> tuple[list[int], Sequence[nn.Parameter]]:
        """The samples of this batch to compare, and the parameters."""
        everything = self._batches % _NORMS_AGAIN == 0
        self._batches += 1
        fresh = [p for p in ruled if p in self._unseen and p in sums]
        samples = {0, batch - 1} if everything and ruled else set()
        if fresh:
            nonzero_PB = torch.stack([sums[p] != 0 for p in fresh]).cpu()
            fresh = [p for p, some in zip(fresh, nonzero_PB.any(1).tolist(), strict=True) if some]
            samples |= _covering(nonzero_PB[nonzero_PB.any(1)], {0, batch - 1} if fresh else set())
            self._unseen -= set(fresh)
            if not self._uncertain.isdisjoint(fresh):
                samples = set(range(batch))
        return sorted(samples), ruled if everything else fresh


def _covering(nonzero_PB: Tensor, samples: set[int]) -> set[int]:
    """Some samples more, so that each parameter has a gradient in one of them."""
    samples = set(samples)
    left_PB = nonzero_PB[~nonzero_PB[:, sorted(samples)].any(1)] if samples else nonzero_PB
    while len(left_PB):
        best = int(left_PB.sum(0).argmax())
        samples.add(best)
        left_PB = left_PB[~left_PB[:, best]]
    return samples
