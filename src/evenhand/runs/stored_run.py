"""A run whose stages lie in a folder: each is stored as it finishes, and never trained again.

Legend: N training samples.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from evenhand.data.augmentation import Augmenting
from evenhand.data.columns import membership
from evenhand.data.rows import Collator, collator_for, model_rows
from evenhand.evaluation.curves import Curve, ValidationRows
from evenhand.evaluation.measured import SplitResult, sample_predictions, sizes_and_chance, split_result
from evenhand.evaluation.progress import Progress
from evenhand.gradients import Norm, Source, gradient_norms
from evenhand.methods.base import Init, OneStage, nothing_done
from evenhand.methods.erm import ERM
from evenhand.methods.pgd import Weighted
from evenhand.metrics import detection_quality
from evenhand.models.adapters import merged
from evenhand.models.inference import logits_and_labels, ready, true_class_probabilities
from evenhand.models.small_vision import SmallVisionConfig
from evenhand.models.source import ModelSource
from evenhand.runs.card import model_card
from evenhand.runs.configuration import Configuration
from evenhand.runs.memory import PeakMemory
from evenhand.runs.record import FORMAT, fresh_folder, machine, now, read_json, source_commit, versions, write_json
from evenhand.runs.shared_stages import SharedStages, model_digest, stage_key
from evenhand.sampling import effective_sample_size
from evenhand.tasks import Task
from evenhand.training.processes import Team
from evenhand.training.stage import train_stage

SELECTION = "last epoch"


class StoredRun:
    """A run whose stages lie in a folder; what a method's `fit` sees as its `Run`.

    Args:
        configuration: What is run.
        task: The task, built.
        source: Where models come from.
        folder: The run's folder; `record.json`, `model/`, `stages/` and `samples.json` are written there, and with
            adapters `adapter/`.
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
        self.shared = shared
        self.team = team or Team(0, 1, folder)
        self.preprocess, self.processor = source.preprocessor(configuration.training.max_length)
        self.source_notes = source.notes()
        self.collate = collator_for(self.preprocess)
        self.rows = {name: model_rows(split, self.preprocess) for name, split in task.splits.items()}
        self.reports: list[dict[str, Any]] = []
        self.durations: dict[str, float] = {}
        self.memory: dict[str, Any] = {}
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

    def train(
        self,
        name: str,
        method: OneStage,
        *,
        start: nn.Module | None = None,
        sampling: NDArray[np.float64] | None = None,
        signal_probs: NDArray[np.float32] | None = None,
        companion: nn.Module | None = None,
        augment: bool = False,
        epochs: int | None = None,
        only: NDArray[np.bool_] | None = None,
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
            self._save_processor(partial / "model")
            weights = signal_probs if isinstance(method, Weighted) else sampling
            effective = {} if weights is None else {"effective_sample_size": effective_sample_size(weights)}
            # what the method chose by itself, such as Even's α, is told nowhere else
            told = {"method": {"name": method.name, "settings": method.settings()}, "as_erm": report.idle}
            kept = {"steps": report.steps, "epochs": training.epochs, "losses": report.losses, **told, **effective}
            drawn = curve and curve.as_dict()
            return kept if drawn is None else kept | {"curve": drawn}

        key = None
        if start is None and sampling is None and signal_probs is None and companion is None:
            asked = {"settings": method.settings(), "augment": augment, "epochs": training.epochs}
            key = self._shared_key("train", method=method.name, **asked)
        stage = self._stage(name, work, key)
        self.did_nothing = self.reports[-1].get("as_erm")
        return ready(self.source.load(stage / "model"), self.device)

    def gradient_norms(
        self, model: nn.Module, source: Source, norm: Norm, *, augment: bool = False
    ) -> NDArray[np.float64]:
        """Norm of each training sample's cross-entropy gradient, shape (N,); of augmented images if asked."""

        def work(partial: Path) -> dict[str, Any]:
            scores = gradient_norms(model, self.rows["train"], source, norm, collate_fn=self._collator(augment))
            np.save(partial / "scores.npy", scores)
            conflicting_N = membership(self.task.train, "alignment").get("conflicting")
            found = None if conflicting_N is None else detection_quality(scores, conflicting_N)
            return {"detection": found}

        key = self._shared_key("scores", model, source=source, norm=norm, augment=augment)
        return np.load(self._stage("scores", work, key) / "scores.npy")

    def probabilities(self, model: nn.Module, name: str = "probabilities") -> NDArray[np.float32]:
        """Probability of each training sample's true class, shape (N,)."""

        def work(partial: Path) -> dict[str, Any]:
            np.save(
                partial / "probabilities.npy",
                true_class_probabilities(model, self.rows["train"], collate_fn=self.collate),
            )
            return {}

        key = self._shared_key("probabilities", model)
        return np.load(self._stage(name, work, key) / "probabilities.npy")

    def parts(self, count: int) -> NDArray[np.int64]:
        """Which of `count` random parts each training sample belongs to, shape (N,)."""
        n = len(self.rows["train"])
        return np.random.default_rng(self.configuration.seed).permutation(n) * count // n

    def errors(self, model: nn.Module) -> NDArray[np.bool_]:
        """Whether the model classifies each training sample wrongly, shape (N,)."""

        def work(partial: Path) -> dict[str, Any]:
            logits_NC, label_N = logits_and_labels(model, self.rows["train"], collate_fn=self.collate)
            wrong_N = logits_NC.argmax(1) != label_N
            np.save(partial / "errors.npy", wrong_N)
            return {"wrong": int(wrong_N.sum())}

        key = self._shared_key("errors", model)
        return np.load(self._stage("errors", work, key) / "errors.npy")

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

    # ---- the run ----------------------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether the run has finished before."""
        path = self.folder / "record.json"
        return path.exists() and read_json(path)["status"] == "done"

    def finish(self) -> None:
        """Run the method to its end and leave the record; a finished run is left as it is."""
        if self.is_done:
            return
        started = now()
        self._write(self._record("running"))
        try:
            model = self.configuration.method.fit(self)
            final = merged(model)
            results = self._evaluate(final)
            record = self._record("done", results=results, times={"started": started, "finished": now()})
            if final is not model:  # adapters, for who has the backbone already
                self._save_whole(model, "adapter")
            self._save_whole(final, "model", model_card(record))
            predicted_N = results[self.task.primary_test].predicted_N
            write_json(self.folder / "samples.json", {"samples": sample_predictions(self.task, predicted_N)})
        except BaseException as error:
            kind = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
            # The folder may be what failed (a full disk), and the error itself matters more than its record.
            with suppress(OSError):
                self._write(self._record("failed", error=" ".join(f"{kind}: {error}".split())))
            raise
        self._write(record)

    def _evaluate(self, model: nn.Module) -> dict[str, SplitResult]:
        clock = time.perf_counter()
        train = self.task.train
        results = {
            name: split_result(model, split, self.rows[name], self.collate, train, self.task.test_classes(name))
            for name, split in self.task.splits.items()
            if name != "train"
        }
        self.durations["evaluation"] = time.perf_counter() - clock
        return results

    def _save_whole(self, model: nn.Module, name: str, card: str | None = None) -> None:
        """Write a model, and its card if given, into a folder that appears whole or not at all."""
        partial = fresh_folder(self.folder / f".{name}.partial")
        if isinstance(model, PreTrainedModel):
            model.save_pretrained(partial)
        else:
            self.source.save(model, partial)
        self._save_processor(partial)
        if card is not None:
            (partial / "README.md").write_text(card, encoding="utf-8")
        final = self.folder / name
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)

    def _save_processor(self, folder: Path) -> None:
        if self.processor is not None:
            self.processor.save_pretrained(folder)

    def _shared_key(self, kind: str, model: nn.Module | None = None, **parts: Any) -> str | None:
        """The name that a stage has among those shared with other runs; None where nothing is shared."""
        if self.shared is None:
            return None
        digest = None if model is None else model_digest(model)
        return stage_key(self.configuration, {"kind": kind, "model": digest, **parts})

    def _stage(self, name: str, work: Callable[[Path], dict[str, Any]], key: str | None = None) -> Path:
        """The folder of a finished stage; `work` fills it if it isn't there yet. It appears whole or not at all.

        With a `key`, a stage that another run has finished is taken over, and this one is offered to others.
        """
        final = self.folder / "stages" / name
        shared = self.shared if key is not None else None
        if not final.exists():
            partial = fresh_folder(final.with_name(f".{name}.partial"))
            try:
                with shared.lock(key) if shared and key else nullcontext():
                    if not (shared and key and shared.fetch(key, partial, name)):
                        clock = time.perf_counter()
                        with PeakMemory(self.device) as peak:
                            report = {"name": name, **work(partial)}
                        cost = {"seconds": time.perf_counter() - clock, "memory": peak.as_dict()}
                        write_json(partial / "stage.json", report | cost)
                    self.team.settle(partial, final)
                    if shared and key:
                        shared.publish(key, final)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        report = read_json(final / "stage.json")
        self.durations[name] = report.pop("seconds")
        self.memory[name] = report.pop("memory", None)
        self.reports.append(report)
        return final

    def _on_step(self, name: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda done, total: progress.stage(name, done, total)

    @cached_property
    def measured_rows(self) -> ValidationRows:
        """The validation rows that the curves of all stages are measured on."""
        batch_size = self.configuration.training.batch_size  # what fits into memory while training
        rows = self.rows["validation"]
        return ValidationRows(self.task.validation, rows, self.collate, len(self.task.train), batch_size)

    def _write(self, record: dict[str, Any]) -> None:
        write_json(self.folder / "record.json", record)

    def _record(
        self,
        status: Literal["running", "done", "failed"],
        *,
        error: str | None = None,
        results: dict[str, SplitResult] | None = None,
        times: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        results = results or {}
        primary = results.get(self.task.primary_test)
        described = self.configuration.as_dict()
        described["model"]["parameters"] = self.parameters
        method = self.configuration.method
        idle = self.did_nothing if status == "done" and method.name != ERM.name else None
        done_nothing = [] if idle is None else [f"{nothing_done(method.title, idle)}."]
        return {
            "format": FORMAT,
            "status": status,
            "error": error,
            **described,
            "files": self.configuration.files_as_recorded(),
            "configuration": self.configuration.run_hash,
            "cell": self.configuration.cell_hash,
            "command": self.configuration.command(),
            "selection": SELECTION,
            "label_access": method.label_access,
            "kind": self.task.kind,
            "labels": list(self.task.label_names),
            "loader": "evenhand" if isinstance(self.source.config(), SmallVisionConfig) else "transformers",
            "primary_test": self.task.primary_test,
            "notes": [*self.task.notes, *self.source_notes, *done_nothing],
            "did_nothing": idle,
            "data": {name: sizes_and_chance(split) for name, split in self.task.splits.items()},
            "metrics": dict(primary.metrics) if primary else None,
            "tests": {name: dict(result.metrics) for name, result in results.items()},
            "group_sizes": {name: result.group_sizes for name, result in results.items()},
            "groups_not_counted": {name: result.not_counted for name, result in results.items()},
            "stages": self.reports,
            "durations": {
                "total_s": sum(self.durations.values()),
                "stages": self.durations,
                **(times or {}),
            },
            "memory": self.memory,
            "versions": versions(),
            "commit": source_commit(),
            "machine": machine(self.device),
        }
