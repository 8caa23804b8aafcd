"""EDGE: remove from the ERM gradient what the bias-aligned (GCE) gradient adds beyond their shared direction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.gradients import Projection, ProjectionKind, Route, Scope
from evenhand.losses import cross_entropy, gce_weights, true_class_probability
from evenhand.methods.base import Exponent, Guidance, OneStage, Run, check_unprojected, weightless_reason
from evenhand.methods.gce import GCE
from evenhand.methods.rule import GradientRule
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.validation import Range, UserError

EdgeProjection = Literal[ProjectionKind, "reweight"]
Owner = Literal["self", "biased", "ema", "shortcut"]

_OWNERS = {"self": "own", "biased": "biased", "ema": "averaged", "shortcut": "shortcut"}


class _Chosen(float):
    """An α that wasn't given: it is chosen anew where `dataclasses.replace` changes what it goes by."""


class _ChosenText(str):
    """The same for the projection."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class EDGE(OneStage):
    """Update with e − α·ext, ext the part of the GCE gradient b outside the direction that e and b share.

    e = (1/B) Σ g_i is the ERM gradient, b = (1/B) Σ w_i g_i with w_i = q·p_i^q the bias-aligned one.

    What isn't given goes by the signal: with the model's own it is the published rule, with `biased`, which isn't in
    the paper, what gained most in our tables (docs/edge.md); `projection="published"` there is the paper's, with α = 1.
    `shortcut`, which isn't in the paper either, needs a shortcut's name.

    Attributes:
        alpha: Strength α ≥ 0, without a projection at most 1/q. Unless given 1.0, as released; with the biased signal
            and the shortcut's 64 in `row`, `tensor` and `global`, and 1.4, or 1/q if less, in `naive` and `reweight`.
        q: GCE's exponent in (0, 1]; 0.7 as released.
        projection: `published` (the paper's listing), `row`, `tensor`, `global` (true projections of each row, each
            tensor, all parameters), `naive` (e − αb), `reweight` (one backward of mean[(1 − α·w)·l], equal to naive).
            1-D tensors take the `tensor` form in `published` and `row`. Unless given `published`, with the biased
            signal `row`, with the shortcut's `reweight`.
        signal: Whose p_i weighs b. `self`: the model being trained, as published; it gained nothing certain over ERM in
            our tables of images. `biased`: a GCE model trained before, with the run's own settings. `ema`: a running
            average, by sample, of the model's own p_i. `shortcut`: no model's, but P(y_i|a_i), the share of the
            sample's class among the training samples with its value of the named shortcuts.
        scope: Which parameters are changed: `all` that train, `adapters` (of peft; the released code does this),
            or a name pattern such as `encoder.*`. The others take the ERM gradient.
        route: How b is computed; but for `double` the result is the same to rounding. `auto`: in e's backward where a
            layer's rule allows, the rest by a second backward. `single`: an error where one backward isn't enough.
            `retain`: always a second backward. `double`: a forward of its own with its own dropout masks, as released.
        ema_decay: d of the `ema` signal, p̄ ← d·p̄ + (1 − d)·p, in [0, 1); 0.7 as LfF averages its losses.
        alpha_warmup: Optimizer steps over which α rises linearly to its value; 0 for none.
        q_warmup: The same for q, whose small values make b small and alike for all samples.

    Raises:
        UserError: If a value is out of its range, a name is unknown, or two don't go together.
    """

    alpha: Annotated[float, Range(0)] = None  # type: ignore[assignment]  # never None once it is made
    q: Exponent = 0.7
    projection: EdgeProjection = None  # type: ignore[assignment]
    signal: Owner = "self"
    scope: Scope = "all"
    route: Route = "auto"
    ema_decay: Annotated[float, Range(0, 1, high_open=True)] = 0.7
    alpha_warmup: Annotated[int, Range(0)] = 0
    q_warmup: Annotated[int, Range(0)] = 0

    name: ClassVar[str] = "edge"
    paper: ClassVar[str] = "EDGE: Enhanced Debiased Gradient Extraction for Robust Fine-tuning, CCL 2025"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projection is None or isinstance(self.projection, _ChosenText):
            chosen = {"biased": "row", "shortcut": "reweight"}.get(self.signal, "published")
            object.__setattr__(self, "projection", _ChosenText(chosen))
        if self.alpha is None or isinstance(self.alpha, _Chosen):
            object.__setattr__(self, "alpha", _Chosen(self._usual_alpha()))
        if self.projection in ("naive", "reweight"):
            check_unprojected("EDGE", self.alpha, self.q)
        if self.projection == "reweight" and self.scope != "all":
            raise UserError(
                "The 'scope' parameter of EDGE must be 'all' with projection='reweight', whose one backward weighs "
                f"every parameter's gradient alike; projection='naive' is equal and takes a scope. Got {self.scope!r}."
            )
        if self.projection == "reweight" and self.route != "auto":
            raise UserError(
                "The 'route' parameter of EDGE must be 'auto' with projection='reweight', which has one backward only. "
                f"Got {self.route!r}."
            )

    def _usual_alpha(self) -> float:
        if not self.needs_signal or self.projection == "published":
            return 1.0
        return min(1.4, 1 / self.q) if self.projection in ("naive", "reweight") else 64.0

    @property
    def title(self) -> str:
        """EDGE, with its signal, since that decides what it can do."""
        return f"EDGE ({_OWNERS[self.signal]} signal)"

    @property
    def needs_signal(self) -> bool:  # type: ignore[override]
        """Whether probabilities are needed that aren't the model's own."""
        return self.signal in ("biased", "shortcut")

    @property
    def needs_shortcut(self) -> bool:
        """With the shortcut's signal."""
        return self.signal == "shortcut"

    def models_trained(self) -> int:
        """Two with the biased signal, else one."""
        return 2 if self.signal == "biased" else 1

    def guidance(self, shortcuts: NamedShortcuts) -> Guidance:
        """P(y_i|a_i) of each sample."""
        return Guidance(signal=shortcuts.label_probability().astype(np.float32))

    def idle_reason(self, signal_N: NDArray[np.floating] | None) -> str | None:
        """α = 0, or a biased model that gives all samples the same: then e and b point the same way."""
        return weightless_reason(self.alpha, signal_N)

    def gradient_rule(self, step: int = 0) -> GradientRule:
        """The two gradients, or one for `reweight`; α and q are their value times min(1, (step + 1) / warm-up)."""
        alpha, q = (
            value * min(1.0, (step + 1) / warmup) if warmup else value
            for value, warmup in ((self.alpha, self.alpha_warmup), (self.q, self.q_warmup))
        )
        now = replace(self, alpha=alpha, q=q) if self.alpha_warmup or self.q_warmup else self
        return GradientRule(
            losses=now.sample_losses,
            weights=now.bias_weights,
            projection=None if self.projection == "reweight" else Projection(self.projection, alpha),
            route=self.route,
            scope=self.scope,
            averaging=self.ema_decay if self.signal == "ema" else None,
        )

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
        if self.needs_shortcut:
            return super().fit(run)
        if not self.needs_signal:
            return run.train("debiased", self)
        biased = run.train("biased", GCE(q=self.q))
        return run.train("debiased", self, signal_probs=run.probabilities(biased))
