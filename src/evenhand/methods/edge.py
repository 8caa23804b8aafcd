"""EDGE: remove from the ERM gradient what the bias-aligned (GCE) gradient adds beyond their shared direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from evenhand.gradients import Projection, ProjectionKind, Route
from evenhand.losses import cross_entropy, gce_weights, true_class_probability
from evenhand.methods.base import OneStage, Run
from evenhand.methods.gce import GCE
from evenhand.validation import check_choice, check_number

EdgeProjection = Literal[ProjectionKind, "reweight"]
Signal = Literal["self", "biased"]


@dataclass(frozen=True, kw_only=True)
class EDGE(OneStage):
    """Update with e − α·ext, ext the part of the GCE gradient b outside the direction that e and b share.

    e = (1/B) Σ g_i is the ERM gradient, b = (1/B) Σ w_i g_i with w_i = q·p_i^q the bias-aligned one.

    Attributes:
        alpha: Strength α ≥ 0; 1.0 as released.
        q: GCE's exponent in (0, 1]; 0.7 as released.
        projection: `published` (the paper's listing), `row`, `tensor`, `global` (true projections of each row, each
            tensor, all parameters), `naive` (e − αb), `reweight` (one backward of mean[(1 − α·w)·l], equal to naive).
            1-D tensors take the `tensor` form in `published` and `row`.
        signal: Whose p_i weighs b. `self`: the model being trained, as published. `biased`: a GCE model trained
            before, with the run's own settings. On Colored MNIST only the latter separates from ERM.
        route: How b is computed; the result is the same to rounding. `auto`: in e's backward where a layer's rule
            allows, the rest by a second backward. `single`: an error where one backward isn't enough. `retain`: always
            a second backward.

    Raises:
        UserError: If α is negative, NaN or infinite, q is outside (0, 1], or a name is unknown.
    """

    alpha: float = 1.0
    q: float = 0.7
    projection: EdgeProjection = "published"
    signal: Signal = "self"
    route: Route = "auto"

    name: ClassVar[str] = "edge"
    paper: ClassVar[str] = "EDGE: Enhanced Debiased Gradient Extraction for Robust Fine-tuning, CCL 2025"

    def __post_init__(self) -> None:
        check_number("EDGE", "alpha", self.alpha, 0, math.inf)
        check_number("EDGE", "q", self.q, 0, 1, low_open=True)
        check_choice("EDGE", "projection", self.projection, (*get_args(ProjectionKind), "reweight"))
        check_choice("EDGE", "signal", self.signal, get_args(Signal))
        check_choice("EDGE", "route", self.route, get_args(Route))

    @property
    def title(self) -> str:
        """EDGE, with its signal, since that decides what it can do."""
        return f"EDGE ({'own' if self.signal == 'self' else 'biased'} signal)"

    @property
    def needs_signal(self) -> bool:
        """Whether the biased model's probabilities are needed."""
        return self.signal == "biased"

    def models_trained(self) -> int:
        """Two with the biased signal, else one."""
        return 2 if self.needs_signal else 1

    def combination(self) -> Projection | None:
        """The projection, None for `reweight`, which needs one backward only."""
        return None if self.projection == "reweight" else Projection(self.projection, self.alpha)

    def gradient_route(self) -> Route:
        """As asked for."""
        return self.route

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """l_i, or (1 − α·w_i)·l_i for `reweight`; shape (B,)."""
        loss_B = cross_entropy(logits_BC, labels_B)
        if self.projection != "reweight":
            return loss_B
        return (1 - self.alpha * self.bias_weights(logits_BC, labels_B, signal_B)) * loss_B

    def bias_weights(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None) -> Tensor:
        """w_i = q·p_i^q with p_i from the signal, shape (B,)."""
        probability_B = true_class_probability(logits_BC, labels_B) if signal_B is None else signal_B
        return gce_weights(probability_B, self.q)

    def fit(self, run: Run) -> nn.Module:
        """Train the biased model if its signal is asked for, then the debiased one from the initial weights."""
        if not self.needs_signal:
            return run.train("debiased", self)
        biased = run.train("biased", GCE(q=self.q))
        return run.train("debiased", self, signal_probs=run.probabilities(biased))
