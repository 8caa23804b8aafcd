"""LfF: a biased and a debiased model learn side by side, the second most from what is harder for the first.

Legend: B samples of a batch, C classes, N training samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from evenhand.losses import cross_entropy, generalized_cross_entropy
from evenhand.methods.base import EQUAL_WEIGHTS, Exponent, OneStage, Run
from evenhand.methods.objective import Companion, Objective, Setting, TrainingBatch, WeightRange
from evenhand.validation import Range


@dataclass(frozen=True, kw_only=True)
class LfF(OneStage):
    """Train f_b with GCE and f_d with W·CE on the same batches; W = L_b / (L_b + L_d + 1e-8).

    L_b and L_d are the two models' cross-entropies of the sample, as running averages over its visits and divided by
    the largest average of its class so far. `evenhand.fit` draws f_b's weights anew (of a checkpoint, its new head);
    in an `evenhand.Trainer` of your own f_b starts as a copy of the model.

    Attributes:
        q: GCE's exponent in (0, 1]; 0.7 as released.
        ema: Share of the old average at each visit, in [0, 1); 0.7 as released.

    Raises:
        UserError: If a value is out of range.
    """

    q: Exponent = 0.7
    ema: Annotated[float, Range(0, 1, high_open=True)] = 0.7

    name: ClassVar[str] = "lff"
    paper: ClassVar[str] = "Nam et al., Learning from Failure, NeurIPS 2020"
    needs_objective: ClassVar[bool] = True
    needs_index: ClassVar[bool] = True
    needs_companion: ClassVar[bool] = True
    spelling: ClassVar[str] = "LfF"

    def objective(self, setting: Setting) -> Objective:
        """Both models' averages."""
        return _LfFObjective(self, setting.companion, setting.samples)

    def fit(self, run: Run) -> nn.Module:
        """Both models in one stage; the biased one from a second draw of the initial weights."""
        return run.train("debiased", self, companion=run.initial(draw=1))


class _LfFObjective(Objective):
    def __init__(self, method: LfF, companion: Companion, samples: int) -> None:
        self.method = method
        self.companion = companion
        self.biased, self.debiased = (ClassScaledAverage(samples, method.ema) for _ in range(2))
        self.biased_loss_B = torch.empty(0)
        self.range = WeightRange()

    def prepare(self, batch: TrainingBatch) -> TrainingBatch:
        """f_b's step of GCE; its cross-entropy is that from before the step, as f_d's will be."""
        logits_BC = self.companion.learn(batch, lambda z, y: generalized_cross_entropy(z, y, self.method.q))
        self.biased_loss_B = cross_entropy(logits_BC, batch.label_B)
        return batch

    def sample_losses(self, logits_BC: Tensor, batch: TrainingBatch) -> Tensor:
        """W_i·l_i of f_d, shape (B,)."""
        assert batch.index_B is not None
        loss_B = cross_entropy(logits_BC, batch.label_B)
        biased_B = self.biased.update(self.biased_loss_B, batch.label_B, batch.index_B)
        debiased_B = self.debiased.update(loss_B.detach(), batch.label_B, batch.index_B)
        weight_B = biased_B / (biased_B + debiased_B + 1e-8)
        self.range.see(weight_B)
        return weight_B * loss_B

    def idle_reason(self) -> str | None:
        """Equal weights throughout."""
        return EQUAL_WEIGHTS if self.range.is_point else None


class ClassScaledAverage:
    """A running average of each sample's loss, divided by the largest of its class.

    Args:
        samples: One more than the largest index.
        ema: Share of the old average at each visit after the first.
    """

    def __init__(self, samples: int, ema: float) -> None:
        self.ema = ema
        self.average_N = torch.zeros(samples)
        self.label_N = torch.full((samples,), -1)

    def update(self, loss_B: Tensor, label_B: Tensor, index_B: Tensor) -> Tensor:
        """Take in this visit's losses; the averages of these samples over their class's largest, shape (B,)."""
        self.average_N, self.label_N = self.average_N.to(loss_B), self.label_N.to(label_B)
        seen_B = self.label_N[index_B] >= 0
        self.average_N[index_B] = torch.where(
            seen_B, self.ema * self.average_N[index_B] + (1 - self.ema) * loss_B, loss_B
        )
        self.label_N[index_B] = label_B
        class_B = label_B.clamp(min=0)  # a sample that doesn't count has a loss of 0, and no class
        largest_C = loss_B.new_zeros(1 + int(torch.maximum(self.label_N.max(), class_B.max())))
        seen_N = self.label_N >= 0
        largest_C.scatter_reduce_(0, self.label_N[seen_N], self.average_N[seen_N], "amax")
        # where a class has no loss at all its averages are 0, and stay so
        return self.average_N[index_B] / largest_C[class_B].clamp(min=torch.finfo(loss_B.dtype).tiny)
