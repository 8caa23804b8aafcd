"""How a stage is trained: the settings that a task ships for each of its models."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from evenhand.validation import Range, UserError, check_fields, check_within

_MOST = 1_000_000  # more would count, plan and allocate for hours before the first step


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

    epochs: Annotated[int, Range(1)]
    lr: Annotated[float, Range(0, low_open=True)]
    batch_size: Annotated[int, Range(1)]
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[float, Range(0)] = 0.0
    momentum: Annotated[float, Range(0, 1, high_open=True)] = 0.0
    schedule: Literal["constant", "linear", "step"] = "constant"
    step_epochs: Annotated[int, Range(1)] = 40
    max_grad_norm: Annotated[float, Range(0)] = 0.0
    max_length: Annotated[int, Range(8)] | None = None
    bf16: bool = False

    def __post_init__(self) -> None:
        check_fields("the training", self)
        for name in ("epochs", "batch_size", "step_epochs"):
            check_within("the training", name, getattr(self, name), 1, _MOST)
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
