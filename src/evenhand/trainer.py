"""evenhand.Trainer: transformers' Trainer with a debiasing method, the only training loop here.

Legend: N training samples, B samples of a batch, C classes.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import datasets
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, Sampler

from evenhand.batches import IndexedDataset, IndexKeeping
from evenhand.gradients import WeightedGradients
from evenhand.inference import logits_of
from evenhand.losses import cross_entropy
from evenhand.methods.base import Method, OneStage
from evenhand.methods.erm import ERM
from evenhand.methods.objective import Companion, Objective, TrainingBatch
from evenhand.sampling import ImportanceSampler, normalized
from evenhand.validation import UserError


class Trainer(transformers.Trainer):
    """transformers.Trainer that trains with `method`; everything else is as there.

    The loss is the mean over samples of the method's per-sample loss, over all samples of an optimizer step (also with
    gradient accumulation and a short last batch). Gradient methods combine their two gradients once per optimizer
    step, on what has accumulated, before clipping.

    Args:
        *args: As transformers.Trainer's.
        method: A one-stage method; ERM by default. Methods with stages (PGD) are run by `evenhand.fit`.
        signal_probs: Probability of the true class of every training sample under the model that gives EDGE's biased
            signal, by the sample's index (the data set's `index` column, or else the row number), shape (n,).
        sampling: Weight of every training sample, by row number, shape (N,): batches are drawn i.i.d. with
            replacement in proportion to it. None: uniform batches without replacement, as in transformers.Trainer.
        companion: Where the second model's weights start, for methods that train one (LfF); a copy of the model's if
            None.
        **kwargs: As transformers.Trainer's.

    Raises:
        UserError: If the method, the model, the labels or the probabilities can't be trained with, before training.
    """

    def __init__(
        self,
        *args: Any,
        method: Method | None = None,
        signal_probs: NDArray[np.floating] | None = None,
        sampling: NDArray[np.floating] | None = None,
        companion: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        self.method = _one_stage(ERM() if method is None else method)
        self.companion = companion
        self.objective: Objective | None = None
        super().__init__(*args, **kwargs)
        # Our loss is normalised over the optimizer step, so the number of samples in it is always needed.
        self.model_accepts_loss_kwargs = True
        # The model never sees the labels, so transformers can't find their name in its signature.
        self.label_names = self.args.label_names or ["labels"]
        self.can_return_loss = True
        self._check_model()
        self.sampling = sampling
        if self.train_dataset is not None:
            self._check_train_dataset()
        self.signal_N = self._checked_signal(signal_probs)
        if self._needs_index:
            self.data_collator = IndexKeeping(self.data_collator)
        self.weighted_gradients: WeightedGradients | None = None

    # ---- what is trained on -----------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """As transformers', with each sample's index where the method needs it."""
        plain = self.train_dataset
        if self._needs_index and not _has_index(plain):
            self.train_dataset = cast(TorchDataset[Any], IndexedDataset(self._remove_unused(plain)))
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset = plain

    def _remove_unused(self, dataset: Any) -> Any:
        return (
            self._remove_unused_columns(dataset, description="training")
            if isinstance(dataset, datasets.Dataset)
            else dataset
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.sampling is None:
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler = ImportanceSampler(self.sampling, seed=seed)
        self.remove_callback(_TellsEpoch)
        self.add_callback(_TellsEpoch(sampler))
        return sampler

    @property
    def _needs_index(self) -> bool:
        return self.method.needs_index or getattr(self, "signal_N", None) is not None

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # without need a column of that name is the user's own affair
        if self._needs_index and self._signature_columns is not None and "index" not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, "index"]

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As transformers', which without labels would hand the model `index` too."""
        return super().prediction_step(model, {k: v for k, v in inputs.items() if k != "index"}, *args, **kwargs)

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
        if model.training and self.method.needs_companion:
            loss, outputs = self._objective_loss(model, inputs, num_items_in_batch)
            return (loss, outputs) if return_outputs else loss
        outputs, labels_B, signal_B = self._forward(model, inputs)
        logits_BC = logits_of(outputs, labels_B)
        if model.training:
            loss_B = self.method.sample_losses(logits_BC, labels_B, signal_B)
        else:
            loss_B = cross_entropy(logits_BC, labels_B)
        loss = self._step_mean(loss_B, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch: backward, and for gradient methods the combination once the step is complete."""
        projection = self.method.combination()
        if projection is None:
            return super().training_step(model, inputs, num_items_in_batch)
        if self.weighted_gradients is None:
            self.weighted_gradients = WeightedGradients(model, route=self.method.gradient_route())
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            with self.weighted_gradients.forward():
                outputs, labels_B, signal_B = self._forward(model, inputs)
            logits_BC = logits_of(outputs, labels_B)
            if num_items_in_batch is None:  # not called by the training loop, which always counts them
                num_items_in_batch = len(labels_B) * self.args.gradient_accumulation_steps
            loss_B = self.method.sample_losses(logits_BC, labels_B, signal_B)
            weight_B = self.method.bias_weights(logits_BC, labels_B, signal_B)
        loss = self.weighted_gradients.backward(
            loss_B, weight_B, lambda value_B: self._step_mean(value_B, num_items_in_batch), self._backward
        )
        if self.accelerator.sync_gradients:
            self.weighted_gradients.combine_into_grad(projection)
        return loss

    def _objective_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, Any]:
        """The loss of a method with a companion, which learns first, and the model's output."""
        if self.objective is None:
            assert self.companion is not None  # train() saw to it
            leader: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate's wrapper holds it
            second = Companion(self.companion, self.accelerator.unwrap_model(model), leader, self.args.max_grad_norm)
            self.objective = self.method.objective(second, _index_bound(self.train_dataset))
        inputs = dict(inputs)
        labels_B, index_B = inputs.pop("labels"), inputs.pop("index", None)
        if self.method.needs_index and index_B is None:
            raise UserError(f"The batches hold no 'index', by which {self.method.title} knows the samples.")
        batch = self.objective.prepare(
            TrainingBatch(
                inputs,
                labels_B,
                index_B,
                mean=lambda value_B: self._step_mean(value_B, num_items_in_batch),
                last=self.accelerator.sync_gradients,
            )
        )
        outputs = model(**batch.inputs)
        loss_B = self.objective.sample_losses(logits_of(outputs, batch.label_B), batch)
        return self._step_mean(loss_B, num_items_in_batch), outputs

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers', leaving no hook on the model."""
        if self.method.needs_companion:
            if (args and args[0]) or kwargs.get("resume_from_checkpoint"):
                raise UserError(
                    f"{self.method.title} can't go on from a checkpoint in mid-training, which doesn't hold its second "
                    "model; evenhand.fit repeats the stage."
                )
            # before accelerate changes the model's forward
            self.companion = copy.deepcopy(self.model if self.companion is None else self.companion)
            self.objective = None
        try:
            return super().train(*args, **kwargs)
        finally:
            if self.weighted_gradients is not None:
                self.weighted_gradients.detach()
                self.weighted_gradients = None

    def _backward(self, loss: Tensor, **kwargs: Any) -> None:
        # accelerate divides by its own accumulation steps, which the Trainer keeps at 1; it scales for fp16
        self.accelerator.backward(loss, **kwargs)

    def _forward(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Tensor, Tensor | None]:
        """The model's output without its own loss, the labels, and the bias signal of each sample."""
        inputs = dict(inputs)
        if "labels" not in inputs:
            raise UserError("The batches hold no 'labels', so there is nothing to learn.")
        labels_B = inputs.pop("labels")
        index_B = inputs.pop("index", None)
        # Outside training (evaluation) samples have no place in the training set, so no signal of its own model.
        signal_B = None
        if self.signal_N is not None and model.training:
            if index_B is None:
                raise UserError(
                    "The batches hold no 'index', so the samples' signal_probs can't be found: the data set or its "
                    "transform must keep the column."
                )
            signal_B = self.signal_N.to(labels_B.device)[index_B]
        return model(**inputs), labels_B, signal_B

    def _step_mean(self, value_B: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Mean over the samples of the optimizer step, of which `value_B` are this micro-batch's; its own without."""
        if num_items_in_batch is None:
            return value_B.mean()
        total = value_B.sum() / num_items_in_batch
        # DDP averages gradients over processes, while the samples were counted over all of them.
        return total * self.accelerator.num_processes if self.args.average_tokens_across_devices else total

    # ---- checks before training -------------------------------------------------------------------------------------

    def _check_model(self) -> None:
        config = getattr(self.model, "config", None)
        problem = getattr(config, "problem_type", None)
        if problem in ("regression", "multi_label_classification"):
            raise UserError(f"evenhand trains single-label classifiers; {problem.replace('_', ' ')} is not supported.")
        if type(self.model).__name__.endswith("ForTokenClassification"):
            raise UserError("evenhand trains single-label classifiers; token classification is not supported.")
        if self.args.label_smoothing_factor:
            raise UserError("evenhand.Trainer does not support label_smoothing_factor: set it to 0.")
        if self.compute_loss_func is not None:
            raise UserError("evenhand.Trainer computes the loss by its method: compute_loss_func must be None.")
        if self.args.n_gpu > 1:
            raise UserError(
                "evenhand.Trainer does not run under torch.nn.DataParallel: launch one process a GPU with torchrun, "
                f"or show it one GPU by CUDA_VISIBLE_DEVICES. Got {self.args.n_gpu} GPUs in one process."
            )
        if self.method.combination() is not None and self.args.world_size > 1:
            raise UserError(f"{self.method.title} runs in one process only so far. Got {self.args.world_size}.")
        if self.companion is not None and not self.method.needs_companion:
            raise UserError(
                f"{self.method.title} trains no second model, so it makes no use of companion: leave it out."
            )
        if self.method.needs_companion and (self.args.world_size > 1 or self.is_deepspeed_enabled):
            raise UserError(
                f"{self.method.title} trains a second model beside the first, which runs in one process and without "
                f"DeepSpeed only. Got {self.args.world_size} processes."
            )
        if self.method.combination() is not None and self.args.torch_compile:
            raise UserError(
                f"{self.method.title} can't be run with torch_compile=True, which hides the layers from it."
            )
        if self.method.combination() is not None and self.is_deepspeed_enabled:
            raise UserError(f"{self.method.title} can't be run under DeepSpeed, which keeps the gradients to itself.")

    def _check_train_dataset(self) -> None:
        dataset: Any = self.train_dataset
        if isinstance(dataset, (IterableDataset, datasets.IterableDataset)):
            raise UserError("evenhand.Trainer needs a data set with a length; streaming data sets are not supported.")
        if self.sampling is not None:
            self.sampling = normalized(self.sampling)
            if len(self.sampling) != len(dataset):
                raise UserError(
                    f"sampling must hold one weight for each of the {len(dataset)} training samples. "
                    f"Got {len(self.sampling)}."
                )
        num_labels = getattr(getattr(self.model, "config", None), "num_labels", None)
        if isinstance(dataset, datasets.Dataset) and num_labels is not None:
            column = next((c for c in ("labels", "label") if c in dataset.column_names), None)
            custom = not self.args.remove_unused_columns  # the collator sees every column and may make labels of any
            if column is None:
                if custom:
                    return
                raise UserError(f"The training data set has no 'labels' column; it has {dataset.column_names}.")
            label_N = _column(dataset, column)
            if custom and not np.issubdtype(label_N.dtype, np.integer):
                return
            check_labels(label_N, num_labels)

    def _checked_signal(self, signal_probs: NDArray[np.floating] | None) -> Tensor | None:
        if signal_probs is None:
            if self.method.needs_signal:
                raise UserError(
                    f"{self.method.title} needs signal_probs, the biased model's probability of each training "
                    "sample's true class; evenhand.fit trains that model as a first stage."
                )
            return None
        if not self.method.needs_signal:
            raise UserError(f"{self.method.title} makes no use of signal_probs: leave it out.")
        probs = np.asarray(signal_probs, dtype=np.float32)
        rows = _index_bound(self.train_dataset)
        # with an `index` column the training set may be a part of what the probabilities were computed for
        too_long = not _has_index(self.train_dataset) and len(probs) > rows
        if probs.ndim != 1 or len(probs) < rows or too_long:
            raise UserError(
                f"signal_probs must have shape ({rows},), one value for each index 0…{rows - 1} of a training sample. "
                f"Got {probs.shape}."
            )
        bad = np.flatnonzero(~((probs >= 0) & (probs <= 1)))
        if len(bad):
            raise UserError(f"signal_probs must lie in [0, 1]. Got {probs[bad[0]]} for sample {bad[0]}.")
        return torch.from_numpy(probs)


class _TellsEpoch(transformers.TrainerCallback):
    """Tells the sampler the epoch, which transformers can't when it goes on in mid-epoch on several processes."""

    def __init__(self, sampler: ImportanceSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))  # 1.4 where training goes on in the second epoch


def check_labels(label_N: NDArray[Any], num_labels: int) -> None:
    """Raise `UserError` unless the labels are classes 0 … num_labels − 1, one a sample."""
    if label_N.ndim != 1:
        raise UserError("evenhand trains single-label classifiers; multi-label data (lists of labels) are refused.")
    if label_N.dtype.kind in "OUS":
        raise UserError(f"Labels must be integers, one a sample and none missing. Got {str(label_N[0])!r} first.")
    if not np.issubdtype(label_N.dtype, np.integer):
        raise UserError(
            f"evenhand trains classifiers, whose labels are integers; regression is refused. Got {label_N.dtype}."
        )
    outside = np.flatnonzero((label_N < 0) | (label_N >= num_labels))
    if len(outside):
        raise UserError(
            f"Labels must lie in 0…{num_labels - 1} for this model. "
            f"Got {label_N[outside[0]]} for sample {outside[0]} ({len(outside)} such samples)."
        )


def _one_stage(method: Method) -> OneStage:
    if not isinstance(method, Method):
        raise UserError(f"The 'method' parameter of Trainer must be a method such as evenhand.EDGE(). Got {method!r}.")
    if not isinstance(method, OneStage):
        raise UserError(f"{method.title} trains in several stages, so evenhand.Trainer can't run it: use evenhand.fit.")
    return method


def _has_index(dataset: Any) -> bool:
    names = getattr(dataset, "column_names", None)
    return "index" in names if names is not None else "index" in getattr(dataset, "views", {})


def _index_bound(dataset: Any) -> int:
    """One more than the largest index of a training sample."""
    if isinstance(dataset, datasets.Dataset) and "index" in dataset.column_names:
        index_N = _column(dataset, "index")
        if not np.issubdtype(index_N.dtype, np.integer) or index_N.min() < 0:
            raise UserError("The training data set's 'index' column must hold integers from 0 on: rename or remove it.")
        return int(index_N.max()) + 1
    return len(dataset)


def _column(dataset: datasets.Dataset, name: str) -> NDArray[Any]:
    """A column, read at once: `dataset[name]` of datasets 4 is read row by row."""
    return np.asarray(dataset.select_columns([name]).with_format("numpy")[:][name])
