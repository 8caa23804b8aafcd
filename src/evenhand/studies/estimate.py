"""How long runs will take, judged by those that are done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean

from evenhand.runs.configuration import Configuration
from evenhand.runs.ledger import runs_of_study
from evenhand.runs.record import Record
from evenhand.runs.recorded import recorded_training
from evenhand.validation import UserError


def expected_seconds(runs: Sequence[Configuration], records: Iterable[Record]) -> list[float | None]:
    """Seconds for each run: the mean of finished runs most like it; None where none is like it.

    Alike is, in this order: the same cell, the same method on the same task and model, the same task and model. The
    time of the last two is scaled by the number of epochs. A stage that was taken over from another run cost nothing.
    """
    paid = [(record, seconds) for record in records if record.is_done and (seconds := _paid(record)) is not None]
    return [_expected(run, paid) for run in runs]


def _expected(run: Configuration, paid: list[tuple[Record, float]]) -> float | None:
    ours: tuple[tuple[str, ...], ...] = (
        (run.cell_hash,),
        (run.method.name, run.task.name, run.model),
        (run.task.name, run.model),
    )
    for kind, mine in enumerate(ours):
        alike = [(record, seconds) for record, seconds in paid if _kinds(record)[kind] == mine]
        if alike:
            return mean(s * run.training.epochs / recorded_training(record).epochs for record, s in alike)
    return None


def _kinds(record: Record) -> tuple[tuple[str, ...], ...]:
    model = record.model["name"]
    return (record.cell,), (record.method.name, record.task.name, model), (record.task.name, model)


def _paid(record: Record) -> float | None:
    """Seconds that the run spent itself; None where its record doesn't tell."""
    total, stages = record.durations.total_s, record.durations.stages
    return None if total is None else total - sum(stages.get(s.name or "", 0.0) for s in record.stages if s.reused)


def records_below(folders: Iterable[Path]) -> list[Record]:
    """Every record of a finished run in studies below some folders; a study that can't be read is left out."""
    found: dict[str, Record] = {}
    for folder in folders:
        for study in sorted(path for path in folder.glob("*") if path.is_dir()):
            with suppress(UserError, OSError):
                for record in runs_of_study(study):
                    if record.is_done:
                        recorded_training(record)
                        found[record.configuration] = record
    return list(found.values())
