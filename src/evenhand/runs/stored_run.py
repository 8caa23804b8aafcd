"""What a method's `fit` sees as its `Run`: it trains and asks, and each answer is a stage on disk.

Legend: N training samples.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenhand.data.augmentation import Augmenting
from evenhand.data.columns import column_values, membership
from evenhand.data.rows import Collator, collator_for, model_rows
from evenhand.evaluation.curves import Curve, ValidationRows
from evenhand.evaluation.progress import Progress
from evenhand.gradients import Norm, Source, gradient_norms
from evenhand.methods.base import Init, OneStage, Signal
from evenhand.methods.pgd import Weighted
from evenhand.metrics import detection_quality
from evenhand.models.inference import logits_and_labels, ready, true_class_probabilities
from evenhand.models.source import ModelSource
from evenhand.runs.configuration import Configuration
from evenhand.runs.shared_stages import SharedStages
from evenhand.runs.stages import Stages
from evenhand.sampling import effective_sample_size
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.tasks import Task
from evenhand.training.processes import Team
from evenhand.training.stage import train_stage


class StoredRun:
    """A run whose stages lie in a folder: each is stored as it finishes, and never trained again.

    Args:
        configuration: What is run.
        task: The task, built.
        source: Where models come from.
        folder: The run's folder; `record.json`, `model/`, `stages/`, `samples.json` and `predictions.parquet` are
            written there, and with adapters `adapter/`.
        device: Where to train.
        progress: Is told how far each stage is.
        shared: Where stages lie that other runs of a study need too.
        team: The processes that carry the run out together; this one alone if None.
    """

    def __init__(
        self,
        configuration: Configuration,
        task: Task,
        source: ModelSource,
        folder: Path,
        device: torch.device,
        progress: Progress | None = None,
        shared: SharedStages | None = None,
        team: Team | None = None,
    ) -> None:
        self.configuration = configuration
        self.task = task
        self.source = source
        self.folder = folder
        self.device = device
        self.progress = progress
        self.team = team or Team(0, 1, folder)
        self.stages = Stages(folder / "stages", configuration, device, self.team, shared)
        self.preprocess, self.processor = source.preprocessor(configuration.training.max_length)
        self.source_notes = source.notes()
        self.collate = collator_for(self.preprocess)
        self.rows = {name: model_rows(split, self.preprocess) for name, split in task.splits.items()}
        self.did_nothing: str | None = None  # why the stage that was trained last is plain ERM
        self.parameters = source.parameter_count()

    # ---- what a method asks for -------------------------------------------------------------------------------------

    @property
    def epochs(self) -> int:
        """Epochs of a stage, unless it asks for others."""
        return self.configuration.training.epochs

    @property
    def pretrained(self) -> bool:
        """Whether the run starts from a checkpoint, not from fresh weights."""
        return not self.source.starts_random

    @property
    def shortcuts(self) -> NamedShortcuts | None:
        """The shortcuts that have a name; None where none has."""
        return self.task.shortcuts

    def train(
        self,
        name: str,
        method: OneStage,
        *,
        start: nn.Module | None = None,
        sampling: NDArray[np.float64] | None = None,
        signal_probs: Signal | None = None,
        companion: nn.Module | None = None,
        augment: bool = False,
        epochs: int | None = None,
        only: NDArray[np.bool_] | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> nn.Module:
        """Train a stage, or give back the one that was finished before."""
        training = self.configuration.training.replaced(epochs=epochs)
        if only is not None:
            sampling = only.astype(np.float64)
        curve = None
        if self.team.rank == 0:
            curve = Curve(name, self.measured_rows, training.epochs, self.progress)

        def work(partial: Path) -> dict[str, Any]:
            seed = self.configuration.seed
            model = self.source.pretrained(seed) if start is None else copy.deepcopy(start)
            report = train_stage(
                name,
                model,
                method,
                training,
                self.rows["train"],
                self._collator(augment),
                seed=seed,
                device=self.device,
                scratch=partial,
                sampling=sampling,
                signal_probs=signal_probs,
                companion=companion,
                on_step=self._on_step(name),
                on_epoch=None if curve is None else curve.after_epoch,
            )
            self.source.save(model, partial / "model")
            self.save_processor(partial / "model")
            weighed = isinstance(method, Weighted) or (method.needs_signal and method.signal_kind == "weight")
            weights = signal_probs if weighed else sampling
            effective = {} if weights is None else {"effective_sample_size": effective_sample_size(weights)}
            # what the method chose by itself, such as Even's α, is told nowhere else
            named = {"method": {"name": method.name, "settings": method.settings()}, "as_erm": report.idle}
            kept = {"steps": report.steps, "epochs": training.epochs, "losses": report.losses, **named, **effective}
            kept |= {**(told or {}), **report.outcome}
            drawn = curve and curve.as_dict()
            return kept if drawn is None else kept | {"curve": drawn}

        key = None
        if start is None and (sampling is None or only is not None) and signal_probs is None and companion is None:
            asked = {"settings": method.settings(), "augment": augment, "epochs": training.epochs}
            key = self.stages.key("train", None, method=method.name, **asked, **_part(only))
        stage = self.stages.stage(name, work, key)
        self.did_nothing = self.stages.reports[-1].get("as_erm")
        return ready(self.source.load(stage / "model"), self.device)

    def gradient_norms(
        self, model: nn.Module, source: Source, norm: Norm, *, augment: bool = False
    ) -> NDArray[np.float64]:
        """Norm of each training sample's cross-entropy gradient, shape (N,); of augmented images if asked."""

        def compute() -> tuple[NDArray[Any], dict[str, Any]]:
            score_N = gradient_norms(model, self.rows["train"], source, norm, collate_fn=self._collator(augment))
            conflicting_N = membership(self.task.train, "alignment").get("conflicting")
            found = None if conflicting_N is None else detection_quality(score_N, conflicting_N)
            return score_N, {"detection": found}

        key = self.stages.key("scores", model, source=source, norm=norm, augment=augment)
        return self.stages.array("scores", "scores.npy", compute, key)

    def probabilities(self, model: nn.Module, name: str = "probabilities") -> NDArray[np.float32]:
        """Probability of each training sample's true class, shape (N,)."""

        def compute() -> tuple[NDArray[Any], dict[str, Any]]:
            return true_class_probabilities(model, self.rows["train"], collate_fn=self.collate), {}

        return self.stages.array(name, "probabilities.npy", compute, self.stages.key("probabilities", model))

    def log_probabilities(self, model: nn.Module, name: str) -> NDArray[np.float32]:
        """The log-probability of every class for each training sample, shape (N, C)."""

        def compute() -> tuple[NDArray[Any], dict[str, Any]]:
            logits_NC, _ = logits_and_labels(model, self.rows["train"], collate_fn=self.collate)
            return torch.from_numpy(logits_NC).log_softmax(dim=1).numpy(), {}

        return self.stages.array(name, f"{name}.npy", compute, self.stages.key("log-probabilities", model))

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Training samples of each class, shape (C,)."""
        label_N = column_values(self.task.train, "labels")
        return np.bincount(label_N, minlength=len(self.task.label_names))

    def parts(self, count: int) -> NDArray[np.int64]:
        """Which of `count` random parts each training sample belongs to, shape (N,)."""
        n = len(self.rows["train"])
        return np.random.default_rng(self.configuration.seed).permutation(n) * count // n

    def errors(self, model: nn.Module) -> NDArray[np.bool_]:
        """Whether the model classifies each training sample wrongly, shape (N,)."""

        def compute() -> tuple[NDArray[Any], dict[str, Any]]:
            logits_NC, label_N = logits_and_labels(model, self.rows["train"], collate_fn=self.collate)
            wrong_N = logits_NC.argmax(1) != label_N
            return wrong_N, {"wrong": int(wrong_N.sum())}

        return self.stages.array("errors", "errors.npy", compute, self.stages.key("errors", model))

    def initial(self, draw: int = 0) -> nn.Module:
        """The weights that a run starts from; other draws of the same seed differ in what is drawn (a new head)."""
        return self.source.pretrained(self._seed(draw))

    def start_from(self, init: Init, biased: nn.Module) -> nn.Module:
        """The weights that a debiased model starts from."""
        if init == "inherit":
            return biased
        if init in ("pretrained", "initial"):
            return self.initial()
        # Other weights than the biased model started from. With adapters theirs and the head's, on the checkpoint's
        # backbone, which is frozen.
        return self.source.random(self._seed(1))

    def _seed(self, draw: int) -> int:
        """The run's seed, or one of the others that it gives."""
        seed = self.configuration.seed
        return seed if draw == 0 else int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])

    def _collator(self, augment: bool) -> Collator:
        return Augmenting(self.collate, self.configuration.seed) if augment else self.collate

    def save_processor(self, folder: Path) -> None:
        """Write what makes inputs of rows beside a model, if the model has such a thing."""
        if self.processor is not None:
            self.processor.save_pretrained(folder)

    def _on_step(self, name: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda done, total: progress.stage(name, done, total)

    @cached_property
    def measured_rows(self) -> ValidationRows:
        """The validation rows that the curves of all stages are measured on."""
        batch_size = self.configuration.training.batch_size  # what fits into memory while training
        rows = self.rows["validation"]
        return ValidationRows(self.task.validation, rows, self.collate, len(self.task.train), batch_size)


def _part(only: NDArray[np.bool_] | None) -> dict[str, str]:
    """What names the samples that a stage is trained on, shape (N,); nothing for all."""
    return {} if only is None else {"only": hashlib.sha256(only.tobytes()).hexdigest()}
