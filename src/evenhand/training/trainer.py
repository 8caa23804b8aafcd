"""evenhand.Trainer: transformers' Trainer with a debiasing method, the only training loop here.

Legend: N training samples, B samples of a batch, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from evenhand.data.rows import IndexedDataset, IndexKeeping, LabelChecking, parted
from evenhand.gradients import GradientStatistics, WeightedGradients, running_statistics_kept
from evenhand.losses import counted, cross_entropy, true_class_probability
from evenhand.methods.base import Method, Signal
from evenhand.methods.erm import ERM
from evenhand.methods.rule import GradientRule
from evenhand.methods.signals import RunningProbabilities
from evenhand.models.heads import check_trainable
from evenhand.models.inference import logits_of, with_loss
from evenhand.sampling import ImportanceSampler, TellsEpoch
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.training.by_name import by_index, by_row, guidance_of, named_shortcuts
from evenhand.training.checks import (
    averages_needed,
    check_combination,
    check_companion,
    check_model,
    check_own_loss,
    check_precision,
    check_train_dataset,
    checked_class_weights,
    checked_sampling,
    checked_signal,
    has_index,
    one_stage,
)
from evenhand.training.objective_loss import ObjectiveLoss
from evenhand.training.own_loss import FirstLook
from evenhand.validation import UserError


class Trainer(ObjectiveLoss):
    """transformers.Trainer that trains with `method`; everything else is as there.

    The loss is the mean over samples of the method's per-sample loss, over all samples of an optimizer step (also with
    gradient accumulation, a short last batch and several processes), so that accumulation equals the large batch, as it
    doesn't in transformers 5.23 for most text classifiers (docs/gradients.md). Samples with the label −100 don't count.
    The model's own loss isn't used: where it isn't plain cross-entropy, a warning on the first batch says so. Gradient
    methods combine their two gradients once per optimizer step, on what has accumulated over micro-batches and
    processes, before clipping; the Trainer's logs then hold `erm_grad_norm` (‖e‖), `bias_grad_norm` (‖b‖) and
    `erm_bias_cosine`, means since the last log. Where an evaluation set has a column `group` or `alignment`, its
    metrics hold accuracies by group (`GroupEvaluation`).

    Args:
        *args: As transformers.Trainer's.
        method: A one-stage method; ERM by default. Methods with stages (PGD) are run by `evenhand.fit`.
        signal_probs: The method's signal of every training sample, by the sample's index (the data set's `index`
            column, or else the row number), shape (n,): for EDGE's biased signal the biased model's probability of the
            true class. For logit correction what is added to the logits, shape (n, C); for Group DRO the group, from 0.
        sampling: Weight of every training sample, by row number, shape (N,): batches are drawn i.i.d. with
            replacement in proportion to it. None: uniform batches without replacement, as in transformers.Trainer.
        class_weights: c of every class, shape (C,): the loss of sample i is c_{y_i}·l_i, and so are e = mean(c·g) and
            b = mean(c·w·g). The mean is over samples, not divided by Σ c, so that micro-batches and processes add up;
            weights with mean 1 over the samples keep the learning rate's meaning.
        companion: Where the second model's weights start, for methods that train one (LfF); a copy of the model's if
            None.
        shortcuts: Shortcuts that have a name (`token:nimbus`), read from columns of the training set beside the
            model's inputs: texts from `text`, pictures from `image`. `Balance`, `GroupDRO`, `LogitCorrection` and
            `EDGE(signal="shortcut")` train against them.
        **kwargs: As transformers.Trainer's.

    Attributes:
        shortcuts: The shortcuts, fitted on the training set; None without.

    Raises:
        UserError: If the method, the model, the labels or the probabilities can't be trained with, before training.
    """

    def __init__(
        self,
        *args: Any,
        method: Method | None = None,
        signal_probs: Signal | None = None,
        sampling: NDArray[np.floating] | None = None,
        class_weights: Sequence[float] | None = None,
        companion: nn.Module | None = None,
        shortcuts: Sequence[Rule | str] = (),
        **kwargs: Any,
    ) -> None:
        self.method = one_stage(ERM() if method is None else method)
        self.companion = companion
        super().__init__(*args, **kwargs)
        self._first_look = FirstLook(self.method.title)
        if type(self).compute_loss is not Trainer.compute_loss:
            check_own_loss(self.method, class_weights)
        else:  # our loss is normalised over the optimizer step, so the number of samples in it is always needed
            self.model_accepts_loss_kwargs = True
        self.label_names = self.args.label_names or ["labels"]  # which a model's signature may lack
        self.can_return_loss = True
        check_model(self)
        check_precision(self)
        check_companion(self, self.method, companion)
        check_combination(self, self.method)
        self.num_labels: int | None = getattr(getattr(self.model, "config", None), "num_labels", None)
        self.class_weight_C = checked_class_weights(class_weights, self.num_labels)
        self.sampling = sampling
        self.signal_probs = signal_probs
        self._rules = shortcuts
        self.shortcuts: NamedShortcuts | None = None
        self._drawn_by: NDArray[np.float64] | None = None
        self.running: RunningProbabilities | None = None
        self.weighted_gradients: WeightedGradients | None = None
        self._checked_dataset: Any = None
        self._micro_batch = 0
        if self.train_dataset is not None:
            self._check_data()

    # ---- what is trained on -----------------------------------------------------------------------------------------

    def _check_data(self) -> None:
        """Refuse a training set that can't be trained on, and get its signal ready; again where it was replaced."""
        dataset = self.train_dataset
        check_trainable(self._unwrapped())
        check_train_dataset(dataset, self.num_labels, custom=not self.args.remove_unused_columns)
        if self._rules:
            self.shortcuts = named_shortcuts(self._rules, dataset, self.num_labels)
        guidance = guidance_of(self.method, self.shortcuts, self.signal_probs, self.sampling)
        sampling = self.sampling if guidance is None else guidance.sampling
        if guidance is None:
            self.signal_N = checked_signal(self.method, self.signal_probs, dataset, self.num_labels)
            if sampling is None and self.signal_N is not None:
                sampling = self.method.sampling_by(by_row(self.signal_N.numpy(), dataset))
        else:
            self.signal_N = None if guidance.signal is None else by_index(guidance.signal, dataset)
        self._drawn_by = None if sampling is None else checked_sampling(sampling, dataset)
        if (decay := self._rule().averaging) is not None:
            self.running = RunningProbabilities(decay, averages_needed(dataset))
        self._checked_dataset = dataset

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """As transformers', with each sample's index where the method needs it, and labels that are classes."""
        plain, collator = self.train_dataset, self.data_collator
        if self._needs_index and not has_index(plain):
            self.train_dataset = cast(TorchDataset[Any], IndexedDataset(self._remove_unused(plain)))
        kept = IndexKeeping(collator) if self._needs_index else collator
        self.data_collator = LabelChecking(kept, self.num_labels)
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = plain, collator

    def _remove_unused(self, dataset: Any) -> Any:
        named = isinstance(dataset, datasets.Dataset)
        return self._remove_unused_columns(dataset, description="training") if named else dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self._drawn_by is None:
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler = ImportanceSampler(self._drawn_by, seed=seed)
        self.remove_callback(TellsEpoch)
        self.add_callback(TellsEpoch(sampler))
        return sampler

    @property
    def _needs_index(self) -> bool:
        return self.method.needs_index or self._has_signal

    @property
    def _has_signal(self) -> bool:
        return getattr(self, "signal_N", None) is not None or getattr(self, "running", None) is not None

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # without need a column of that name is the user's own affair
        if self._needs_index and self._signature_columns is not None and "index" not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, "index"]

    # ---- the step ---------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The method's loss on one micro-batch, normalised over the optimizer step's samples if their number is known.

        Outside training it is plain cross-entropy, so that the evaluation losses of methods compare.
        """
        if model.training:
            self._first_look(self, model, inputs)
        if model.training and self.method.needs_objective:
            loss, outputs = self._objective_loss(model, inputs, num_items_in_batch)
            return (loss, outputs) if return_outputs else loss
        outputs, labels_B, index_B = self._forward(model, inputs)
        logits_BC = logits_of(outputs, labels_B)
        if model.training:
            signal_B = self._signal(logits_BC, labels_B, index_B)
            loss_B = self._losses(self._rule(), logits_BC, labels_B, signal_B)
        else:
            loss_B, self._logits_BC = cross_entropy(logits_BC, labels_B), logits_BC.detach()
        loss = self._step_mean(loss_B, labels_B, num_items_in_batch)
        return (loss, with_loss(outputs, loss)) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch: backward, and for gradient methods the combination once the step is complete."""
        rule = self._rule()
        if rule.projection is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # schedule-free optimizers
            cast(Any, self.optimizer).train()
        inputs = self._prepare_inputs(inputs)
        self._first_look(self, model, inputs)
        engine = self._engine(rule)
        with self.compute_loss_context_manager():
            with engine.forward():
                outputs, labels_B, index_B = self._forward(model, inputs)
            logits_BC = logits_of(outputs, labels_B)
            if num_items_in_batch is None:  # not called by the training loop, which always counts them
                num_items_in_batch = counted(labels_B) * self.args.gradient_accumulation_steps
            signal_B = self._signal(logits_BC, labels_B, index_B)
            loss_B = self._losses(rule, logits_BC, labels_B, signal_B)
            weight_B = rule.weights(logits_BC, labels_B, signal_B)

        def mean(value_B: Tensor) -> Tensor:
            return self._step_mean(value_B, labels_B, num_items_in_batch)

        if rule.route == "double":
            loss = mean(loss_B)
            self._backward(loss)
            self._second_forward(engine, rule, inputs, signal_B, mean)
        else:
            loss = engine.backward(loss_B, weight_B, mean, self._backward)
        if self.accelerator.sync_gradients:
            if engine.statistics is not None and self.accelerator.scaler is not None:
                engine.statistics.scale = self.accelerator.scaler.scale(torch.ones((), device=loss.device))
            engine.combine_into_grad(rule.projection)
        self._micro_batch = 0 if self.accelerator.sync_gradients else self._micro_batch + 1
        period = self.args.torch_empty_cache_steps
        if period is not None and self.state.global_step % period == 0:
            clear_device_cache()
        return loss.detach()

    def _second_forward(
        self, engine: WeightedGradients, rule: GradientRule, inputs: dict[str, Any], signal_B: Tensor | None, mean: Any
    ) -> None:
        """Adds b from a forward of its own, whose dropout masks leave the stream of random numbers as it was.

        They follow from the seed, the step, the micro-batch and the process, so that resuming finds the same ones.
        """
        model = self._unwrapped()
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        place = [self.args.seed, self.state.global_step, self._micro_batch, self.args.process_index]
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        with torch.random.fork_rng(devices), running_statistics_kept(model), self.compute_loss_context_manager():
            torch.manual_seed(seed)
            # not its wrapper, which would get ready to average these gradients over the processes too
            outputs, labels_B, _ = self._forward(model, inputs)
            logits_BC = logits_of(outputs, labels_B)
            loss_B = self._losses(rule, logits_BC, labels_B, signal_B)
            loss = mean(rule.weights(logits_BC, labels_B, signal_B) * loss_B)
        engine.add_bias(loss, self._backward)

    def _engine(self, rule: GradientRule) -> WeightedGradients:
        """Made at the first step, when the model is on its device; anew where a callback froze or freed parameters."""
        engine = self.weighted_gradients
        if engine is not None and self._micro_batch == 0 and engine.outdated:
            engine.detach()
            self.weighted_gradients = None
        if self.weighted_gradients is None:
            self.weighted_gradients = WeightedGradients(
                self._unwrapped(), route=rule.route, scope=rule.scope, distributed=self.args.world_size > 1
            )
            self.weighted_gradients.statistics = GradientStatistics()
        return self.weighted_gradients

    def _unwrapped(self) -> nn.Module:
        assert self.model is not None
        return self.accelerator.unwrap_model(self.model)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers', leaving no hook on the model."""
        if self.train_dataset is not None and self.train_dataset is not self._checked_dataset:
            self._check_data()
        if self.running is not None:
            self.running.reset()
        self._micro_batch = 0
        self._first_look = FirstLook(self.method.title)
        if self.method.needs_companion:
            if (args and args[0]) or kwargs.get("resume_from_checkpoint"):
                raise UserError(
                    f"{self.method.title} can't go on from a checkpoint in mid-training, which doesn't hold its second "
                    "model; evenhand.fit repeats the stage."
                )
            # before accelerate changes the model's forward
            self.companion = copy.deepcopy(self.model if self.companion is None else self.companion)
        self.objective = self._objective_state = None
        try:
            return super().train(*args, **kwargs)
        finally:
            if self.weighted_gradients is not None:
                self.weighted_gradients.detach()
                self.weighted_gradients = None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers', with the means of ‖e‖, ‖b‖ and their cosine since the last training log."""
        statistics = None if self.weighted_gradients is None else self.weighted_gradients.statistics
        if statistics is not None and "loss" in logs:
            logs |= statistics.read()
        super().log(logs, start_time)

    def _backward(self, loss: Tensor, **kwargs: Any) -> None:
        # accelerate divides by its own accumulation steps, which the Trainer keeps at 1; it scales for fp16
        self.accelerator.backward(loss, **kwargs)

    def _rule(self) -> GradientRule:
        """The method's gradients at this step."""
        return self.method.gradient_rule(self.state.global_step)

    def _losses(self, rule: GradientRule, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None) -> Tensor:
        return self._by_class(rule.losses(logits_BC, labels_B, signal_B), labels_B)

    def _by_class(self, loss_B: Tensor, labels_B: Tensor) -> Tensor:
        """The losses times the weights of their classes."""
        if self.class_weight_C is None:
            return loss_B
        self.class_weight_C = self.class_weight_C.to(loss_B.device)
        return self.class_weight_C[labels_B.clamp(min=0)] * loss_B  # 0 where the label is −100

    def _forward(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Tensor, Tensor | None]:
        """The model's output, the labels, and the samples' indices if the batch has them."""
        inputs, labels_B, index_B = parted(inputs)
        return self._first_look.call(model, inputs, labels_B), labels_B, index_B

    def _signal(self, logits_BC: Tensor, labels_B: Tensor, index_B: Tensor | None) -> Tensor | None:
        """p_i of the bias signal where it isn't the model's own of now, shape (B,). In training only.

        Samples of an evaluation have no place in the training set, so no signal.
        """
        if self.running is None:
            return self._told(labels_B, index_B)
        index_B = self._known(index_B)
        visited = index_B, true_class_probability(logits_BC, labels_B)
        if self.args.world_size > 1:  # every process keeps the averages of all samples
            visited = self.accelerator.gather(visited)
        self.running.update(*visited)
        return self.running.value_N[index_B]

    def _told(self, labels_B: Tensor, index_B: Tensor | None) -> Tensor | None:
        """The signal of a batch as it was given, shape (B,) or (B, C); None for a method without."""
        return None if self.signal_N is None else self.signal_N.to(labels_B.device)[self._known(index_B)]

    @staticmethod
    def _known(index_B: Tensor | None) -> Tensor:
        if index_B is None:
            raise UserError(
                "The batches hold no 'index', so the samples' bias signal can't be found: the data set or its "
                "transform must keep the column."
            )
        return index_B

    def _step_mean(self, value_B: Tensor, labels_B: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Mean over the samples of the optimizer step that count, of which this micro-batch's are; its own without."""
        if num_items_in_batch is None:
            return value_B.sum() / counted(labels_B)
        if torch.is_grad_enabled():  # a step in which no sample counts adds nothing
            num_items_in_batch = torch.as_tensor(num_items_in_batch, device=value_B.device).clamp(min=1)
        total = value_B.sum() / num_items_in_batch
        # DDP averages gradients over processes, while the samples were counted over all of them.
        return total * self.accelerator.num_processes if self.args.average_tokens_across_devices else total

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.running is not None and self.args.should_save:
            self.running.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        # a checkpoint of the model alone begins everything else anew
        if self.running is not None and checkpoint is not None and (Path(checkpoint) / "optimizer.pt").exists():
            self.running.load(Path(checkpoint))
