"""What an audit reads of runs: which gradient scores, and where their biased models lie."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from evenhand.gradients import Norm, Source
from evenhand.methods.base import Exponent
from evenhand.runs.ledger import runs_below
from evenhand.runs.record import Record
from evenhand.runs.recorded import usable
from evenhand.validation import Range, UserError, check_fields


@dataclass(frozen=True)
class Asked:
    """The settings of a method that decide about its biased models; a method that has none of them has the usual."""

    folds: Annotated[int, Range(0)] = 0
    loss: str = "gce"
    signal: str = "biased"
    q: Exponent | None = None
    augment: bool = False
    source: Source = "head"
    norm: Norm = "l2"

    def __post_init__(self) -> None:
        check_fields("the method", self)

    @classmethod
    def of(cls, record: Record) -> Asked:
        """Those that a record tells of."""
        told = record.method.settings
        asked: dict[str, Any] = {f.name: told[f.name] for f in fields(cls) if f.name in told}
        if isinstance(asked.get("source"), list):
            asked["source"] = tuple(asked["source"])
        with usable(record, "method.settings", also=UserError):
            return cls(**asked)


@dataclass(frozen=True)
class RunRecord:
    """A run as an audit sees it.

    Attributes:
        record: Its record.
        asked: Its method's settings.
    """

    record: Record
    asked: Asked

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.record.path.parent

    @property
    def seed(self) -> int:
        """The seed of initialisation and order."""
        return self.record.seed

    @property
    def data(self) -> tuple[str, str, int]:
        """What tells the run's data from others'."""
        task, files = self.record.task, self.record.files or {}
        read = {option: told and told.sha256 for option, told in files.items() if option != "model"}
        return task.name, json.dumps([task.settings, read], sort_keys=True), self.record.data_seed

    @property
    def folds(self) -> int:
        """How many biased models the run has that each were trained on all but one part of the rows, as Even's; or 0.

        They are counted only where they lie in the run's folder.
        """
        count = self.asked.folds if self.record.method.name == "even" else 0
        stages = self.folder / "stages"
        there = all((stages / f"biased-{k + 1}" / "model").is_dir() for k in range(count))
        return count if count > 1 and there else 0

    @property
    def biased_q(self) -> float | None:
        """GCE's exponent of the run's biased models; None if its method trains none with GCE."""
        return self.asked.q if (self.asked.loss, self.asked.signal) == ("gce", "biased") else None


def find_runs(folder: Path) -> list[RunRecord]:
    """The run in a folder, or all runs below it.

    Raises:
        UserError: If there is none, or a record can't be read.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}': name a run's folder, or give --task or --data.")
    own = folder / "record.json"
    records = [Record.load(own)] if own.exists() else runs_below(folder)
    if not records:
        raise UserError(
            f"The folder '{folder}' holds no record.json, so there is no run to audit: name a run's folder, or give "
            "--task or --data to audit data without a run."
        )
    return [RunRecord(record, Asked.of(record)) for record in records]
