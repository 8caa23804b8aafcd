"""How a method's losses become the gradient of an optimizer step.

Legend: B samples of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from evenhand.gradients import Projection, Route, Scope

PerSample = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From logits (B, C), labels (B,) and the signal (B,) or (B, C), for methods with one, to a value a sample, (B,)."""


SignalKind = Literal["probability", "weight", "correction", "group"]
"""What a signal says of a sample: its class's probability, its weight, a correction of each logit, or its group."""


def alike(logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None) -> Tensor:
    """w_i = 1, with which b is e."""
    return torch.ones_like(labels_B, dtype=logits_BC.dtype)


@dataclass(frozen=True)
class GradientRule:
    """The gradients of one optimizer step: e of the losses, and for some methods b beside it.

    Attributes:
        losses: l_i of each sample; e is the gradient of their mean.
        weights: w_i of the second gradient b = (1/B) Σ w_i g_i, detached.
        projection: How e and b become the update; None: e alone is the update.
        route: How both are computed.
        scope: Which parameters have a b.
        averaging: The decay of the running average of the model's own true-class probabilities that is the signal;
            None: no such signal.
    """

    losses: PerSample
    weights: PerSample = alike
    projection: Projection | None = None
    route: Route = "auto"
    scope: Scope = "all"
    averaging: float | None = None


class HasRule(Protocol):
    """A one-stage method, as a training loop sees it."""

    needs_signal: ClassVar[bool]
    signal_kind: ClassVar[SignalKind]

    @property
    def title(self) -> str:
        """How messages call it."""
        ...

    def gradient_rule(self, step: int = 0) -> GradientRule:
        """Its gradients at an optimizer step, counted from 0."""
        ...
