"""The finished stages of a run: each lies in a folder of its own, sealed, and is never trained again while it is whole.

Legend: N training samples.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenhand.files import whole_folder
from evenhand.runs.configuration import Configuration
from evenhand.runs.memory import PeakMemory
from evenhand.runs.record import read_json, write_json
from evenhand.runs.seals import REPORT, fault, seal
from evenhand.runs.shared_stages import SharedStages, model_digest, stage_key
from evenhand.training.processes import Team

logger = logging.getLogger(__name__)


class Stages:
    """The stages of one run, and what they say of themselves for its record.

    Args:
        folder: Where they lie.
        configuration: What is run.
        device: Where it is trained.
        team: The processes that carry the run out together.
        shared: Where stages lie that other runs of a study need too.

    Attributes:
        reports: The report of each stage that was asked for.
        durations: Stage → seconds.
        memory: Stage → the peak of its memory.
        notes: A sentence on each stage that was damaged.
    """

    def __init__(
        self,
        folder: Path,
        configuration: Configuration,
        device: torch.device,
        team: Team,
        shared: SharedStages | None = None,
    ) -> None:
        self.folder = folder
        self.configuration = configuration
        self.device = device
        self.team = team
        self.shared = shared
        self.reports: list[dict[str, Any]] = []
        self.durations: dict[str, float] = {}
        self.memory: dict[str, Any] = {}
        self.notes: list[str] = []

    @property
    def are_whole(self) -> bool:
        """Whether each stage that is there is as it was written."""
        return all(fault(stage) is None for stage in self.folder.glob("[!.]*"))

    def key(self, kind: str, model: nn.Module | None = None, **parts: Any) -> str | None:
        """The name that a stage has among those shared with other runs; None where nothing is shared."""
        if self.shared is None:
            return None
        digest = None if model is None else model_digest(model)
        return stage_key(self.configuration, {"kind": kind, "model": digest, **parts})

    def array(
        self, name: str, file: str, compute: Callable[[], tuple[NDArray[Any], dict[str, Any]]], key: str | None
    ) -> NDArray[Any]:
        """The array of a stage that is one value a training sample, shape (N,); `compute` gives it with a report."""

        def work(partial: Path) -> dict[str, Any]:
            found_N, report = compute()
            np.save(partial / file, found_N)
            return report

        return np.load(self.stage(name, work, key) / file)

    def stage(self, name: str, work: Callable[[Path], dict[str, Any]], key: str | None = None) -> Path:
        """The folder of a finished stage; `work` fills it if it isn't there yet, or damaged, and gives its report.

        With a `key`, a stage that another run has finished is taken over, and this one is offered to others.
        """
        final = self.folder / name
        if not self._is_whole(name, final):
            shared = self.shared if key is not None else None
            with shared.lock(key) if shared and key else nullcontext():
                with whole_folder(final, self.team.settle) as partial:
                    taken = shared and key and self._is_whole(name, shared.folder / key)
                    if not (taken and shared and key and shared.fetch(key, partial, name)):
                        clock = time.perf_counter()
                        with PeakMemory(self.device) as peak:
                            report = {"name": name, **work(partial)}
                        cost = {"seconds": time.perf_counter() - clock, "memory": peak.as_dict()}
                        write_json(partial / REPORT, report | cost)
                        seal(partial)
                if shared and key:
                    shared.publish(key, final)
        report = read_json(final / REPORT)
        self.durations[name] = report.pop("seconds")
        self.memory[name] = report.pop("memory", None)
        self.reports.append(report)
        return final

    def _is_whole(self, name: str, stage: Path) -> bool:
        """Whether a stage is there; a damaged one goes, which is said."""
        reason = fault(stage) if stage.exists() else ""
        if reason:
            shutil.rmtree(stage, ignore_errors=True)
            self.notes.append(f"The stage '{name}' was damaged ({reason}), so it was trained again.")
            logger.warning(self.notes[-1])
        return reason is None
