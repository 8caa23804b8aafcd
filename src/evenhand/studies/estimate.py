"""How long runs will take, judged by those that are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

from evenhand.runs.configuration import Configuration
from evenhand.runs.ledger import Raw, runs_of_study
from evenhand.validation import UserError


def expected_seconds(runs: Sequence[Configuration], records: Iterable[Raw]) -> list[float | None]:
    """Seconds for each run: the mean of finished runs most like it; None where none is like it.

    Alike is, in this order: the same cell, the same method on the same task and model, the same task and model. The
    time of the last two is scaled by the number of epochs. A stage that was taken over from another run cost nothing.
    """
    done = [record for record in records if record.get("status") == "done"]
    return [_expected(run, done) for run in runs]


def _expected(run: Configuration, done: list[Raw]) -> float | None:
    described = run.as_dict()
    keys: list[Callable[[Raw], Any]] = [
        lambda r: [r.get("cell", run.cell_hash)],
        lambda r: [r["method"]["name"], r["task"]["name"], r["model"]["name"]],
        lambda r: [r["task"]["name"], r["model"]["name"]],
    ]
    for key in keys:
        alike = [record for record in done if key(record) == key(described)]
        if alike:
            epochs = described["training"]["epochs"]
            return mean(_paid(record) * epochs / record["training"]["epochs"] for record in alike)
    return None


def _paid(record: Raw) -> float:
    """Seconds that the run spent itself."""
    durations = record["durations"]
    reused = [stage["name"] for stage in record["stages"] if stage.get("reused")]
    return durations["total_s"] - sum(durations["stages"].get(name, 0.0) for name in reused)


def records_below(folders: Iterable[Path]) -> list[Raw]:
    """Every record of a finished run in studies below some folders; a study that can't be read is left out."""
    found: dict[str, Raw] = {}
    for folder in folders:
        for study in sorted(path for path in folder.glob("*") if path.is_dir()):
            with suppress(UserError, OSError):
                for record in (run.raw for run in runs_of_study(study)):
                    with suppress(KeyError, TypeError, AttributeError):
                        if record["status"] == "done":
                            _paid(record)
                            found[record["configuration"]] = record
    return list(found.values())
