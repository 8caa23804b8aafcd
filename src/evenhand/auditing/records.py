"""What an audit reads of runs: which task they are of, and where their biased models lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.models.adapters import Adapters
from evenhand.runs.ledger import FoundRun, runs_below
from evenhand.runs.record import FORMAT, read_object
from evenhand.tasks import TASKS, TaskSource
from evenhand.training.settings import Training
from evenhand.validation import UserError

_NEEDED: dict[str, type] = {
    "status": str,
    "method": dict,
    "task": dict,
    "model": dict,
    "training": dict,
    "seed": int,
    "data_seed": int,
    "data": dict,
}


@dataclass(frozen=True)
class RunRecord:
    """The part of a `record.json` that an audit needs.

    Attributes:
        folder: The run's folder.
        raw: The record.
    """

    folder: Path
    raw: dict[str, Any]

    @property
    def seed(self) -> int:
        """The seed of initialisation and order."""
        return self.raw["seed"]

    @property
    def data_seed(self) -> int:
        """The seed of the data."""
        return self.raw["data_seed"]

    @property
    def method(self) -> dict[str, Any]:
        """The method's name and settings."""
        return self.raw["method"]

    @property
    def data(self) -> tuple[str, str, int]:
        """What tells the run's data from others'."""
        task, files = self.raw["task"], self.raw.get("files") or {}
        read = {option: told and told["sha256"] for option, told in files.items() if option != "model"}
        return task["name"], json.dumps([task["settings"], read], sort_keys=True), self.data_seed

    @property
    def _settings(self) -> dict[str, Any]:
        return self.method["settings"]

    @property
    def folds(self) -> int:
        """How many biased models the run has that each were trained on all but one part of the rows, as Even's; or 0.

        They are counted only where they lie in the run's folder.
        """
        count = self._settings.get("folds", 0) if self.method["name"] == "even" else 0
        stages = self.folder / "stages"
        there = all((stages / f"biased-{k + 1}" / "model").is_dir() for k in range(count))
        return count if count > 1 and there else 0

    @property
    def biased_q(self) -> float | None:
        """GCE's exponent of the run's biased models; None if its method trains none with GCE."""
        if self._settings.get("loss", "gce") != "gce" or self._settings.get("signal", "biased") != "biased":
            return None
        return self._settings.get("q")

    @property
    def augments(self) -> bool:
        """Whether the run's biased model was trained on augmented images."""
        return bool(self._settings.get("augment", False))

    @property
    def scoring(self) -> tuple[Any, Any]:
        """Which gradient's norm the run scores by: of the head, L2, unless its method says otherwise."""
        source = self._settings.get("source", "head")
        return tuple(source) if isinstance(source, list) else source, self._settings.get("norm", "l2")

    @property
    def fresh(self) -> bool:
        """Whether the run took its checkpoint's architecture only."""
        return bool(self.raw["model"].get("fresh", False))

    def task_source(self, given: Mapping[str, Any]) -> TaskSource:
        """The run's task, to be built again.

        Args:
            given: Where its files lie.

        Raises:
            UserError: If the task isn't one of those by name, or its files aren't given.
        """
        task = self.raw["task"]
        if task["name"] not in TASKS:
            raise UserError(
                f"The run in '{self.folder}' is of the task '{task['name']}', whose data its record doesn't hold: give "
                "the data it was trained on beside it."
            )
        return TASKS[task["name"]].from_settings(task["settings"], given, self.raw.get("files"))

    def training(self) -> Training:
        """The settings that the run's stages were trained with."""
        return Training(**self.raw["training"])

    def adapters(self) -> Adapters | None:
        """What the run trained beside the head, None for the whole model."""
        model = self.raw["model"]
        if "peft" not in model:
            return None
        names = ("r", "alpha", "dropout", "targets")
        return Adapters(kind=model["peft"], **{n: model[f"peft_{n}"] for n in names if f"peft_{n}" in model})


def find_runs(folder: Path) -> list[RunRecord]:
    """The run in a folder, or all runs below it.

    Raises:
        UserError: If there is none, or a record can't be read.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}': name a run's folder, or give --task or --data.")
    own = folder / "record.json"
    runs = [FoundRun(own, read_object(own), str(own))] if own.exists() else runs_below(folder)
    if not runs:
        raise UserError(
            f"The folder '{folder}' holds no record.json, so there is no run to audit: name a run's folder, or give "
            "--task or --data to audit data without a run."
        )
    return [_checked(run) for run in runs]


def _checked(run: FoundRun) -> RunRecord:
    raw = run.raw
    if raw.get("format") != FORMAT:
        raise UserError(
            f"The record '{run.source}' has format {raw.get('format')!r}, but this version of evenhand reads format "
            f"{FORMAT}: repeat the run, or audit it with the version that made it."
        )
    for key, kind in _NEEDED.items():
        if not isinstance(raw.get(key), kind):
            raise UserError(f"The record '{run.source}' lacks '{key}', so it is no whole record: repeat its run.")
    return RunRecord(run.path.parent, raw)
