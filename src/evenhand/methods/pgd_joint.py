"""PGD in a single stage: the biased model learns along, and its current scores weigh or draw each batch.

Legend: B samples of a batch, C classes, F features that the head takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from evenhand.gradients import Norm, norm_power
from evenhand.gradients.head_norms import head_input, head_norms, logit_gradients, watching
from evenhand.losses import IGNORED, counted, cross_entropy
from evenhand.methods.base import EQUAL_WEIGHTS, OneStage
from evenhand.methods.objective import Companion, Objective, Setting, TrainingBatch, WeightRange
from evenhand.models.heads import head_of
from evenhand.models.inference import check_separate, evaluating
from evenhand.validation import UserError


@dataclass(frozen=True, kw_only=True)
class JointPGD(OneStage):
    """The single stage of `PGD(stages="single")`, whose fields these are; its docstring defines it."""

    biased: OneStage
    norm: Norm
    sampling: Literal["resample", "reweight"]
    mix: float
    floor: float

    name: ClassVar[str] = "pgd-single"
    paper: ClassVar[str] = "Ahn, Kim & Yun, ICLR 2023, single-stage ablation"
    needs_objective: ClassVar[bool] = True
    needs_companion: ClassVar[bool] = True

    def objective(self, setting: Setting) -> Objective:
        """Scores of the companion."""
        return _JointObjective(self, setting.companion)


class _JointObjective(Objective):
    def __init__(self, method: JointPGD, companion: Companion) -> None:
        self.method = method
        self.companion = companion
        self.weight_B = torch.empty(0)
        self.range = WeightRange()

    def prepare(self, batch: TrainingBatch) -> TrainingBatch:
        """Score the batch by the biased model as it is, let that learn, and draw the batch anew if asked."""
        probability_B = self.probabilities(self.scores(batch), batch.label_B.ne(IGNORED))
        samples = counted(batch.label_B)
        self.range.see(len(batch) * probability_B)
        self.companion.learn(batch, self.method.biased.sample_losses)
        if self.method.sampling == "reweight":
            self.weight_B = samples * probability_B
            return batch
        drawn_B = torch.multinomial(probability_B, len(batch), replacement=True)
        self.weight_B = torch.ones_like(probability_B) * samples / len(batch)  # the mean is over those that count
        index_B = None if batch.index_B is None else batch.index_B[drawn_B]
        return replace(batch, inputs=batch.taken(drawn_B), label_B=batch.label_B[drawn_B], index_B=index_B)

    def sample_losses(self, logits_BC: Tensor, batch: TrainingBatch) -> Tensor:
        """B·p_i·l_i, or l_i of a drawn batch; shape (B,)."""
        loss_B = cross_entropy(logits_BC, batch.label_B)
        return self.weight_B.to(loss_B) * loss_B

    def idle_reason(self) -> str | None:
        """Equal probabilities throughout."""
        return EQUAL_WEIGHTS if self.range.is_point else None

    def scores(self, batch: TrainingBatch) -> Tensor:
        """‖∇l_i‖ of the companion's head in eval mode, in closed form; shape (B,), float64."""
        model = self.companion.model
        head = head_of(model)[1]
        with evaluating(model), watching(head) as calls:
            check_separate(model)
            logits_BC = batch.logits(model)
            features_BF = head_input(calls, logits_BC)
        if not bool(torch.isfinite(logits_BC).all()):
            raise UserError("The biased model of PGD has diverged: its scores are no longer finite.")
        if features_BF is None:
            raise UserError(
                "PGD with stages='single' needs a model whose last operation is its Linear head; "
                "use stages='multi' for this one."
            )
        error_BC = logit_gradients(logits_BC, batch.label_B.clamp(min=0))
        norm_B = head_norms(error_BC, features_BF, head.bias is not None, norm_power(self.method.norm))
        return norm_B**2 if self.method.norm == "l2sq" else norm_B

    def probabilities(self, score_B: Tensor, counts_B: Tensor | None = None) -> Tensor:
        """λ·max(s_i / Σ s, floor) + (1 − λ)/n over the n samples that count, normalised; uniform for scores of 0."""
        counts_B = torch.ones_like(score_B) if counts_B is None else counts_B.to(score_B)
        counts_B = torch.where(counts_B.any(), counts_B, torch.ones_like(counts_B))
        score_B, uniform_B = score_B * counts_B, counts_B / counts_B.sum()
        total = score_B.sum()
        share_B = torch.where(total == 0, uniform_B, score_B / total)
        mixed_B = self.method.mix * share_B.clamp(min=self.method.floor) * counts_B + (1 - self.method.mix) * uniform_B
        return mixed_B / mixed_B.sum()
