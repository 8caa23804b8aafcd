"""What a method is: hyper-parameters, and a `fit` that reads like its paper.

Legend: B samples of a batch, C classes, N training samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.gradients import Norm, Projection, Route, Scope, Source
from evenhand.losses import cross_entropy
from evenhand.methods.attached import Attached
from evenhand.validation import UserError, plain_fields

Init = Literal["inherit", "random", "pretrained"]


class Run(Protocol):
    """What a method's `fit` may ask of a run; `evenhand.run` keeps each stage on disk as it finishes."""

    def train(
        self,
        name: str,
        method: OneStage,
        *,
        start: nn.Module | None = None,
        sampling: NDArray[np.float64] | None = None,
        signal_probs: NDArray[np.float32] | None = None,
    ) -> nn.Module:
        """Train a stage with a one-stage method, from `start` (a copy) or from the run's initial weights."""
        ...

    def gradient_norms(self, model: nn.Module, source: Source, norm: Norm) -> NDArray[np.float64]:
        """Norm of each training sample's cross-entropy gradient, shape (N,)."""
        ...

    def probabilities(self, model: nn.Module) -> NDArray[np.float32]:
        """Probability of each training sample's true class, shape (N,)."""
        ...

    def start_from(self, init: Init, biased: nn.Module) -> nn.Module:
        """The weights that a debiased model starts from."""
        ...


class Method(ABC):
    """A method: a frozen dataclass of its hyper-parameters.

    Attributes:
        name: Its name on the command line.
        paper: Where it comes from.
        label_access: Which labels beyond the class it needs.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    label_access: ClassVar[str] = "none (groups are used for evaluation only)"

    @property
    def title(self) -> str:
        """How reports call it."""
        return self.name.upper()

    def settings(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return plain_fields(self)

    def check_start(self, pretrained: bool) -> None:
        """Raise `UserError` if the method can't start from this kind of model: a checkpoint's weights or fresh ones."""
        del pretrained

    def models_trained(self) -> int:
        """How many models one run trains."""
        return 1

    @abstractmethod
    def fit(self, run: Run) -> nn.Module:
        """Train, stage by stage, and return the debiased model."""

    def attach(self, model: nn.Module, *, scaler: torch.amp.GradScaler | None = None, verify: bool = True) -> Attached:
        """Refused: only one-stage methods have a place in a loop."""
        del model, scaler, verify
        raise UserError(f"{self.title} trains in several stages, so it can't be attached to a loop: use evenhand.fit.")


class OneStage(Method):
    """A method that trains one model in one go, so that `evenhand.Trainer` can run it.

    It has a loss for each sample and, for gradient methods, a second weighting of the per-sample gradients and the
    rule that combines both.
    """

    @property
    def needs_signal(self) -> bool:
        """Whether the loss or the weights need the true-class probabilities of another model."""
        return False

    @property
    def averaging(self) -> float | None:
        """The decay of a running average of the model's own true-class probabilities that is the signal; None: none."""
        return None

    def at_step(self, step: int) -> OneStage:
        """The method with the hyper-parameters that it has at an optimizer step, counted from 0."""
        del step
        return self

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """The loss of each sample, shape (B,); their mean is minimised. Plain cross-entropy unless overridden.

        Args:
            logits_BC: The model's output, shape (B, C).
            labels_B: True classes, shape (B,).
            signal_B: Probability of the true class under the bias signal's model, shape (B,), for methods with one.
        """
        del signal_B
        return cross_entropy(logits_BC, labels_B)

    def combination(self) -> Projection | None:
        """How the ERM and bias gradients are combined; None for a method with an ordinary gradient."""
        return None

    def gradient_route(self) -> Route:
        """How both gradients are computed, for methods with a combination."""
        return "auto"

    def gradient_scope(self) -> Scope:
        """Which parameters' gradients are combined, for methods with a combination."""
        return "all"

    def bias_weights(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None) -> Tensor:
        """w_i of the bias gradient b = (1/B) Σ w_i g_i, detached, shape (B,). Only asked for with a combination."""
        raise AssertionError(f"{self.name} has a combination but no bias weights")

    def attach(self, model: nn.Module, *, scaler: torch.amp.GradScaler | None = None, verify: bool = True) -> Attached:
        """Use the method in a loop of your own: its `backward(logits, labels)` takes the place of `loss.backward()`.

        Args:
            model: The model; its trainable parameters are those that require gradients now.
            scaler: The loop's `torch.amp.GradScaler`, if it has one.
            verify: Check the single-backward route against plain autograd on the first batches.
        """
        return Attached(self, model, scaler=scaler, verify=verify)

    def fit(self, run: Run) -> nn.Module:
        """Train one model."""
        return run.train(self.name, self)
