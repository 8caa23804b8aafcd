"""One run of a study, as every engine carries it out, in whatever process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from evenhand.evaluation.progress import Progress
from evenhand.files import locked
from evenhand.models.inference import Device, torch_device
from evenhand.runs.configuration import Configuration, files_read
from evenhand.runs.fit import carry_out
from evenhand.runs.prepared import prepared
from evenhand.runs.record import Record, read_object
from evenhand.runs.shared_stages import SharedStages
from evenhand.studies.store import Outcome, drop_models, failed_record
from evenhand.validation import UserError


@dataclass(frozen=True)
class Job:
    """A run that is to be carried out.

    Attributes:
        name: How the run is shown.
        cell: How its cell is shown.
        run: What is run.
        folder: Where it lies.
        stages: Where stages lie that other runs need too.
        device: Where to train.
        threads: Threads of its process.
        keep_models: Whether the models stay on disk.
        elsewhere: Whether another machine may carry it out, whose files may be others under the same path.
    """

    name: str
    cell: str
    run: Configuration
    folder: Path
    stages: Path
    device: Device
    threads: int
    keep_models: bool
    elsewhere: bool = False


def perform(job: Job, progress: Progress | None = None) -> Outcome:
    """Carry a run out to its end; whatever goes wrong in it is the run's failure and nobody else's."""
    torch.set_num_threads(job.threads)
    # A process that lost its study (or its cluster) may still be at this run for a moment.
    with locked(job.folder.parent / ".locks" / job.run.run_hash):
        try:
            _carry_out(job, progress)
        except Exception as error:
            return Outcome(_failure(job, f"{type(error).__name__}: {' '.join(str(error).split())}"))
    record, samples = Record.load(job.folder / "record.json"), read_object(job.folder / "samples.json")
    if not job.keep_models:
        drop_models(job.folder)
    return Outcome(record, samples)


def _carry_out(job: Job, progress: Progress | None) -> None:
    if job.elsewhere and files_read(job.run.task, job.run.model) != job.run.files:
        raise UserError("The files on this machine aren't those that the study was started with.")
    carry_out(prepared(job.run), job.folder, torch_device(job.device), progress, SharedStages(job.stages))


def _failure(job: Job, error: str) -> Record:
    """The record that the run wrote of its failure, or one in its place."""
    with suppress(UserError):
        record = Record.load(job.folder / "record.json")
        if record.status == "failed" and record.configuration == job.run.run_hash:
            return record
    return failed_record(job.run, error)
