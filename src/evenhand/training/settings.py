"""How a stage is trained: the settings that a task ships for each of its models."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from evenhand.validation import UserError, check_choice, check_integer, check_number

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "linear", "step"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of one training stage.

    Attributes:
        epochs: Epochs of each stage.
        lr: Learning rate at the start.
        batch_size: Samples a step.
        optimizer: `adam`, `adamw` or `sgd`.
        weight_decay: Coupled (L2) for adam and sgd, decoupled for adamw.
        momentum: Of sgd.
        schedule: `constant`, `linear` (to 0), or `step` (×0.1 every `step_epochs`).
        step_epochs: Epochs between two steps of the `step` schedule.
        max_grad_norm: The gradient is clipped to this norm; 0 switches clipping off.
        max_length: Tokens that a text is cut to; None: as many as the model takes. Images have none.
        bf16: Whether forward and backward passes run under autocast to bfloat16. Weights, optimizer and evaluation stay
            in float32.
    """

    epochs: int
    lr: float
    batch_size: int
    optimizer: Optimizer = "adam"
    weight_decay: float = 0.0
    momentum: float = 0.0
    schedule: Schedule = "constant"
    step_epochs: int = 40
    max_grad_norm: float = 0.0
    max_length: int | None = None
    bf16: bool = False

    def __post_init__(self) -> None:
        owner = "the training"
        check_integer(owner, "epochs", self.epochs, 1)
        check_integer(owner, "batch_size", self.batch_size, 1)
        check_integer(owner, "step_epochs", self.step_epochs, 1)
        check_number(owner, "lr", self.lr, 0, float("inf"), low_open=True)
        check_number(owner, "weight_decay", self.weight_decay, 0, float("inf"))
        check_number(owner, "momentum", self.momentum, 0, 1, high_open=True)
        check_number(owner, "max_grad_norm", self.max_grad_norm, 0, float("inf"))
        if self.max_length is not None:
            check_integer(owner, "max_length", self.max_length, 8)
        check_choice(owner, "optimizer", self.optimizer, ("adam", "adamw", "sgd"))
        check_choice(owner, "schedule", self.schedule, ("constant", "linear", "step"))
        if not isinstance(self.bf16, bool):
            raise UserError(f"The 'bf16' parameter of {owner} must be True or False. Got {self.bf16!r}.")
        if self.schedule == "step" and self.optimizer == "adamw":
            raise UserError("The 'step' schedule of the training goes with the optimizers adam and sgd only.")

    def replaced(
        self,
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        bf16: bool | None = None,
    ) -> Training:
        """The same settings with those given here in their place."""
        given = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "bf16": bf16}
        return dataclasses.replace(self, **{k: v for k, v in given.items() if v is not None})


FINE_TUNING = Training(epochs=3, lr=5e-5, batch_size=32, optimizer="adamw", schedule="linear", max_grad_norm=1.0)
"""For a pretrained checkpoint on a task that ships no settings for it: the defaults of transformers' examples."""

FROM_SCRATCH = Training(epochs=20, lr=5e-4, batch_size=64, optimizer="adamw", schedule="linear", max_grad_norm=1.0)
"""For transformers' architectures with random weights, on a task that ships no settings for them."""

HEAD_TUNING = Training(epochs=10, lr=1e-3, batch_size=32, optimizer="adamw", schedule="linear", max_grad_norm=1.0)
"""For a head on a frozen checkpoint, which takes larger steps and more of them."""

ADAPTER_TUNING = Training(epochs=3, lr=3e-4, batch_size=32, optimizer="adamw", schedule="linear", max_grad_norm=1.0)
"""The same for adapters, which take larger steps: with the learning rate of EDGE's code for LoRA."""
