"""A running average of each sample's true-class probability, EDGE's `ema` signal.

Legend: N samples known so far, B samples of a batch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from evenhand.validation import UserError

_FILE = "signal.pt"


class RunningProbabilities:
    """p̄_i ← d·p̄_i + (1 − d)·p_i at each visit of sample i; its first visit sets p̄_i = p_i.

    Args:
        decay: d in [0, 1); 0 gives p_i itself.
        samples: How many samples there are; it grows by itself, for which it has to look at the indices.
    """

    def __init__(self, decay: float, samples: int | None = None) -> None:
        self.decay = decay
        self.fixed = samples is not None
        self.value_N = torch.full((samples or 0,), float("nan"))  # NaN: not visited yet

    def reset(self) -> None:
        """As if no sample had been visited."""
        self.value_N = torch.full_like(self.value_N, float("nan"))

    def save(self, folder: Path) -> None:
        """Put them into a checkpoint's folder."""
        torch.save(self.value_N.cpu(), folder / _FILE)

    def load(self, folder: Path) -> None:
        """Go on with those of a checkpoint.

        Raises:
            UserError: If it has none, or of another number of samples.
        """
        path = folder / _FILE
        if not path.exists():
            raise UserError(f"The checkpoint '{folder}' holds no running averages of the samples' probabilities.")
        found = torch.load(path, weights_only=True)
        if len(found) != len(self.value_N):
            raise UserError(
                f"The checkpoint '{folder}' holds running averages of {len(found)} samples, but the training set has "
                f"{len(self.value_N)}."
            )
        self.value_N = found

    def update(self, index_B: Tensor, probability_B: Tensor) -> Tensor:
        """Count these visits and give p̄ after them, shape (B,), on the probabilities' device.

        Args:
            index_B: Which samples, shape (B,). Of a sample that is there twice one visit counts.
            probability_B: Their p_i now, shape (B,); one that isn't finite doesn't change its average.
        """
        index_B = index_B.to(probability_B.device)
        if not self.fixed:
            missing = int(index_B.max()) + 1 - len(self.value_N)
            self.value_N = torch.cat([self.value_N, self.value_N.new_full((max(missing, 0),), float("nan"))])
        self.value_N = self.value_N.to(probability_B.device)
        before_B, now_B = self.value_N[index_B], probability_B.float()
        after_B = torch.where(before_B.isnan(), now_B, self.decay * before_B + (1 - self.decay) * now_B)
        self.value_N[index_B] = torch.where(now_B.isfinite(), after_B, before_B)
        return self.value_N[index_B]
