"""The part of the Trainer that trains by an objective: a loss that is made over a whole training.

Legend: B samples of a batch, C classes.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from evenhand.data.rows import parted
from evenhand.methods.base import OneStage
from evenhand.methods.objective import Companion, Objective, Setting, TrainingBatch
from evenhand.models.inference import logits_of
from evenhand.training.checks import index_bound
from evenhand.training.group_evaluation import GroupEvaluation
from evenhand.training.own_loss import FirstLook
from evenhand.validation import UserError

_FILE = "objective.pt"  # in a checkpoint


class ObjectiveLoss(GroupEvaluation):
    """Makes the method's objective at the first step, asks it for the loss, and keeps it in checkpoints."""

    method: OneStage
    companion: nn.Module | None = None
    objective: Objective | None = None
    signal_N: Tensor | None = None
    _first_look: FirstLook
    _objective_state: dict[str, Tensor] | None = None

    def _objective_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, Any]:
        """The loss of a method with an objective, which learns first, and the model's output."""
        if self.objective is None:
            self.objective = self._new_objective(model)
        inputs, labels_B, index_B = parted(inputs)
        if self.method.needs_index and index_B is None:
            raise UserError(f"The batches hold no 'index', by which {self.method.title} knows the samples.")
        batch = self.objective.prepare(
            TrainingBatch(
                inputs,
                labels_B,
                index_B,
                mean=lambda value_B: self._step_mean(value_B, labels_B, num_items_in_batch),
                last=self.accelerator.sync_gradients,
                call=self._first_look.call,
                signal_B=self._told(labels_B, index_B),
                over_processes=self._over_processes,
            )
        )
        outputs = self._first_look.call(model, batch.inputs, batch.label_B)
        loss_B = self.objective.sample_losses(logits_of(outputs, batch.label_B), batch)
        return self._step_mean(self._by_class(loss_B, batch.label_B), labels_B, num_items_in_batch), outputs

    def _new_objective(self, model: nn.Module) -> Objective:
        """Made at the first step, when the optimizer is there; gone on with after a checkpoint."""
        second = None
        if self.method.needs_companion:
            assert self.companion is not None  # train() saw to it
            leader: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate's wrapper holds it
            second = Companion(self.companion, self.accelerator.unwrap_model(model), leader, self.args.max_grad_norm)
        objective = self.method.objective(Setting(index_bound(self.train_dataset), self.signal_N, second))
        if self._objective_state is not None:
            objective.restore(self._objective_state)
        return objective

    def _over_processes(self, value: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(value, "sum"))

    # ---- which the Trainer has --------------------------------------------------------------------------------------

    @abstractmethod
    def _step_mean(self, value_B: Tensor, labels_B: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Mean over the samples of the optimizer step that count."""

    @abstractmethod
    def _told(self, labels_B: Tensor, index_B: Tensor | None) -> Tensor | None:
        """The signal of the batch's samples."""

    @abstractmethod
    def _by_class(self, loss_B: Tensor, labels_B: Tensor) -> Tensor:
        """The losses times their classes' weights, shape (B,)."""

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        state = {} if self.objective is None else self.objective.state()
        if state and self.args.should_save:
            torch.save(state, Path(output_dir) / _FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        kept = None if checkpoint is None else Path(checkpoint) / _FILE
        if kept is not None and kept.exists():
            self._objective_state = torch.load(kept, weights_only=True)
