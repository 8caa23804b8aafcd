"""One training stage: from settings to a trained model, by evenhand.Trainer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from evenhand.data.rows import AnyRows, Collator
from evenhand.methods.base import OneStage, Signal
from evenhand.sampling import all_equal, normalized, warn_of_collapse
from evenhand.training.processes import process_of, share_of
from evenhand.training.settings import Training
from evenhand.training.trainer import Trainer


class StageError(RuntimeError):
    """A stage ended without a usable model; the message says why."""


@dataclass(frozen=True)
class StageReport:
    """How a stage went.

    Attributes:
        steps: Optimizer steps.
        losses: The mean training loss of each epoch.
        idle: Why it was plain ERM if it was.
        outcome: What the method's objective says of itself at the end.
    """

    steps: int
    losses: list[float]
    idle: str | None
    outcome: dict[str, Any]


def train_stage(
    name: str,
    model: nn.Module,
    method: OneStage,
    training: Training,
    rows: AnyRows,
    collate: Collator,
    *,
    seed: int,
    device: torch.device,
    scratch: Path,
    sampling: NDArray[np.float64] | None = None,
    signal_probs: Signal | None = None,
    companion: nn.Module | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[nn.Module, int, float], None] | None = None,
) -> StageReport:
    """Train `model` in place; the result depends on the arguments alone, not on what ran before in this process.

    Args:
        name: The stage's name, for messages.
        model: The model, with the weights to start from.
        method: A one-stage method.
        training: Settings.
        rows: Training data, with `index`.
        collate: Their collator.
        seed: Drives order, draws and dropout.
        device: Where to train.
        scratch: A folder for the Trainer, which writes nothing into it.
        sampling: Sampling probabilities, shape (N,).
        signal_probs: The method's signal, shape (N,) or (N, C).
        companion: The weights that a method's second model starts from; a copy of `model`'s if None.
        on_step: Called after each step with the steps done and all steps.
        on_epoch: Called after each epoch with the model, the epochs done and the epoch's mean loss. It may draw random
            numbers, but must not change the weights.

    Raises:
        StageError: If the weights or the loss are no longer finite.
    """
    if sampling is not None:
        warn_of_collapse(normalized(sampling))
    trainer = Trainer(
        model,
        _arguments(training, seed, device, scratch),
        train_dataset=rows,
        data_collator=collate,
        method=method,
        sampling=sampling,
        signal_probs=signal_probs,
        companion=companion,
        optimizers=_optimizer(model.to(device), training, math.ceil(len(rows) / training.batch_size)),
        callbacks=[_Telling(model, on_step, on_epoch)],
    )
    trainer.remove_callback(PrinterCallback)
    with _quick_attention(model, training, device):
        trainer.train()
    return _report(name, model, trainer, sampling, signal_probs)


def _arguments(training: Training, seed: int, device: torch.device, scratch: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=share_of(training.batch_size, process_of(device)[1]),
        learning_rate=training.lr,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        lr_scheduler_type="linear" if training.schedule == "linear" else "constant",
        seed=seed,
        use_cpu=device.type == "cpu",
        bf16=training.bf16,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
        save_strategy="no",
        logging_strategy="epoch",
        # A loss that isn't finite must show up in the losses below instead of being replaced by a mean.
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a stage trains on one GPU, however many there are
    return arguments


def _report(
    name: str,
    model: nn.Module,
    trainer: Trainer,
    sampling: NDArray[np.float64] | None,
    signal_probs: Signal | None,
) -> StageReport:
    """How it went; it was plain ERM if its batches were uniform and its method weighed nothing."""
    steps = trainer.state.global_step
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    if not all(map(math.isfinite, losses)) or not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise StageError(
            f"The stage '{name}' diverged: its weights or its loss are no longer finite after {steps} steps."
        )
    if sampling is not None and not all_equal(sampling):
        idle = None
    elif trainer.objective is not None:
        idle = trainer.objective.idle_reason()
    else:
        idle = trainer.method.idle_reason(signal_probs)
    return StageReport(steps, losses, idle, {} if trainer.objective is None else trainer.objective.outcome())


@contextmanager
def _quick_attention(model: nn.Module, training: Training, device: torch.device) -> Iterator[None]:
    """On a CPU, bfloat16 trains with plain attention: PyTorch's fused one takes ten times as long backwards."""
    fused = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if not training.bf16 or device.type != "cpu" or fused != "sdpa" or not isinstance(model, PreTrainedModel):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(fused)


def _optimizer(model: nn.Module, training: Training, steps_per_epoch: int) -> tuple[Any, Any]:
    """Optimizer and scheduler as in the papers' code, where transformers' differ (they decay no bias)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if training.optimizer == "adamw":
        return None, None
    if training.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            parameters, lr=training.lr, weight_decay=training.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            parameters, lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay
        )
    if training.schedule == "step":
        period = training.step_epochs * steps_per_epoch
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, period, gamma=0.1)
    return optimizer, None


class _Telling(TrainerCallback):
    """Tells how far the stage is."""

    def __init__(
        self,
        model: nn.Module,
        on_step: Callable[[int, int], None] | None,
        on_epoch: Callable[[nn.Module, int, float], None] | None,
    ) -> None:
        self.model = model
        self.step_done = on_step
        self.epoch_done = on_epoch
        self.epochs = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.step_done is not None:
            self.step_done(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        # the Trainer logs the loss once an epoch, when it has ended
        if "loss" not in (logs or {}):
            return
        self.epochs += 1
        if self.epoch_done is not None:
            with untouched_surroundings():
                self.epoch_done(self.model, self.epochs, float(logs["loss"]))


@contextmanager
def untouched_surroundings() -> Iterator[None]:
    """Random states and transformers' progress bars are afterwards as they were before.

    transformers.Trainer seeds Python's, NumPy's and torch's global generators when it is built.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if bars:
            transformers_logging.enable_progress_bar()
