"""What a method keeps beside the model while one training lasts: a companion model and per-sample averages.

Legend: B samples of a batch, C classes.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from evenhand.models.inference import Call, logits_of

SampleLosses = Callable[[Tensor, Tensor], Tensor]
"""Logits of shape (B, C) and labels of shape (B,) to the loss of each sample, shape (B,)."""


@dataclass(frozen=True)
class TrainingBatch:
    """A micro-batch on its device, as the Trainer hands it to an objective.

    Attributes:
        inputs: What the model's forward takes.
        label_B: True classes.
        index_B: Each sample's index; None unless the method's `needs_index` or a signal asks for it.
        signal_B: What the method is told of each sample, shape (B,) or (B, C); None for one without a signal.
        mean: Turns per-sample values into their share of the optimizer step's mean.
        last: Whether the optimizer steps after this micro-batch.
        call: How the model is called.
        over_processes: The sum of a tensor over the processes that train together, each with a micro-batch of its own.
    """

    inputs: dict[str, Any]
    label_B: Tensor
    index_B: Tensor | None
    mean: Callable[[Tensor], Tensor]
    last: bool
    call: Call = field(default_factory=Call)
    signal_B: Tensor | None = None
    over_processes: Callable[[Tensor], Tensor] = lambda value: value

    def __len__(self) -> int:
        return len(self.label_B)

    def logits(self, model: nn.Module) -> Tensor:
        """A model's logits of this batch, shape (B, C)."""
        return logits_of(self.call(model, self.inputs, self.label_B), self.label_B)

    def taken(self, row_B: Tensor) -> dict[str, Any]:
        """The inputs of some samples; what isn't one row a sample stays as it is."""
        return {
            name: value[row_B] if isinstance(value, Tensor) and value.ndim and len(value) == len(self) else value
            for name, value in self.inputs.items()
        }


class Objective(ABC):
    """The loss of one training whose weights depend on more than the batch. Made anew for every training.

    The Trainer calls `prepare`, then the model on what that returned, then `sample_losses`.
    """

    def prepare(self, batch: TrainingBatch) -> TrainingBatch:
        """Learn what is to be learnt beside the model, and return the batch that the model is trained on."""
        return batch

    def idle_reason(self) -> str | None:
        """Why the training was plain ERM, as in "every training sample weighs the same"; None if it wasn't."""
        return None

    @abstractmethod
    def sample_losses(self, logits_BC: Tensor, batch: TrainingBatch) -> Tensor:
        """The loss of each sample of the prepared batch, shape (B,)."""

    def outcome(self) -> dict[str, Any]:
        """What the record says of it at the end of the training, as plain data."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What it goes on from in mid-training, beside the model; asked for where there is no companion."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:  # noqa: B027
        """Go on with what `state` gave."""


class WeightRange:
    """The lowest and the highest weight that the samples of a training had so far; kept where the weights are."""

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def see(self, weight_B: Tensor) -> None:
        """Take in the weights of a batch, shape (B,)."""
        low, high = weight_B.detach().aminmax()
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    @property
    def is_point(self) -> bool:
        """Whether all weights were the same, to 0.1 %."""
        return self.low is not None and self.high is not None and bool(self.high - self.low <= 1e-3 * self.high)


class Companion:
    """A second model that learns from the same batches, by an optimizer of the same kind and settings as the first's.

    It is trained in full precision, and clipped to the same norm. Its learning rate is the first model's at every step.

    Args:
        model: The second model; of the same architecture as `beside`.
        beside: The first model.
        optimizer: The first model's optimizer, before its first step.
        max_grad_norm: The gradient is clipped to this norm; 0 switches clipping off.
    """

    def __init__(self, model: nn.Module, beside: nn.Module, optimizer: Optimizer, max_grad_norm: float) -> None:
        self.model = model.to(next(beside.parameters()).device).train()
        self.leader = optimizer
        self.max_grad_norm = max_grad_norm
        # a copy of the optimizer in which each parameter is replaced by the companion's of the same name
        own = dict(model.named_parameters())
        self.optimizer = copy.deepcopy(optimizer, {id(p): own[name] for name, p in beside.named_parameters()})

    def learn(self, batch: TrainingBatch, losses: SampleLosses) -> Tensor:
        """One micro-batch: forward, backward, and a step where the step's last is; its logits, detached, (B, C)."""
        logits_BC = batch.logits(self.model)
        batch.mean(losses(logits_BC, batch.label_B)).backward()
        if batch.last:
            if self.max_grad_norm > 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
            for own, leading in zip(self.optimizer.param_groups, self.leader.param_groups, strict=True):
                own.update({name: value for name, value in leading.items() if name != "params"})
            self.optimizer.step()
            self.optimizer.zero_grad()
        return logits_BC.detach()


@dataclass(frozen=True)
class Setting:
    """What an objective is made for.

    Attributes:
        samples: One more than the largest index of a training sample.
        signal_N: What the method is told of each sample, by index, shape (N,) or (N, C); None for one without a signal.
        second: The second model with its optimizer; None for a method without.
    """

    samples: int
    signal_N: Tensor | None = None
    second: Companion | None = None

    @property
    def companion(self) -> Companion:
        """The second model, of a method that has one."""
        assert self.second is not None
        return self.second
