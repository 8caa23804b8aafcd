"""When norms by rules are compared with a loop over samples, and on which samples.

Legend: B samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

_AGAIN = 256  # batches from one comparison of everything to the next: a forward and backward of two single samples


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
        everything = self._batches % _AGAIN == 0
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
