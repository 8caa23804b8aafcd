"""What a study leaves on disk, and what is found there of earlier starts.

`runs/<study>/` is the working folder: a folder for each run, named by its hash, and the stages that runs share.
`results/<study>/` holds the same runs without models: a line each, small enough for a repository. Both hold
`study.json`, the plan, so that a report can show what hasn't run.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evenhand.runs.configuration import Configuration, without_seeds
from evenhand.runs.differences import differences, differences_text
from evenhand.runs.ledger import FoundRun, Raw, add_lines, convert, runs_of_study
from evenhand.runs.record import FORMAT, read_object, write_json
from evenhand.studies.plan import Cell, Plan
from evenhand.validation import UserError

_COMPARED = 30  # cells

State = Literal["planned", "running", "done", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its record, "done" or "failed", and the samples it leaves for the report."""

    record: Raw
    samples: Raw | None = None


class Store:
    """The two folders of a study.

    Args:
        working: Where runs lie while they go on; models too, if they are kept.
        results: Where the records of finished runs go.
    """

    def __init__(self, working: Path, results: Path) -> None:
        self.working = working
        self.results = results
        self._results: dict[str, FoundRun] | None = None

    @property
    def stages(self) -> Path:
        """Where stages lie that several runs need."""
        return self.working / "stages"

    def check(self, plan: Plan) -> None:
        """Refuse folders of another study, and folders that hold something else; nothing is written.

        Raises:
            UserError: If a folder is taken, or its plan can't be read.
        """
        for folder in (self.working, self.results):
            if folder.exists() and not folder.is_dir():
                raise UserError(f"The study's folder '{folder}' is a file.")
            found = _read(folder / "study.json")
            if found is None:
                if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
                    raise UserError(f"The folder '{folder}' is not empty and holds no study: choose another one.")
                continue
            try:
                file, other_files = found["file"], _on_other_files(found["cells"], plan)
                names = {cell[key] for cell in found["cells"] for key in ("cell", "former") if key in cell}
            except (KeyError, TypeError, AttributeError) as error:
                raise UserError(f"The file '{folder / 'study.json'}' is no plan of a study: delete it.") from error
            if file != plan.file:
                raise UserError(
                    f"The folder '{folder}' belongs to the study of another file, {file}: give this study another "
                    "name by the key 'study', or choose another folder."
                )
            if other_files:
                raise UserError(
                    f"The folder '{folder}' holds this study on other files: give those with --data-dir, or choose "
                    "other folders with --output-dir and --results-dir."
                )
            runs = [cell.first for cell in plan.cells]
            if not names & {name for run in runs for name in (run.cell_hash, run.former_cell_hash)}:
                raise UserError(
                    f"The folder '{folder}' belongs to another file called {file}, which has no cell in common with "
                    f"this one{_nearest(found['cells'], runs)}: give this study another name by the key 'study', or "
                    "choose another folder."
                )

    def open(self, plan: Plan, skipped: Collection[str], only: str | None) -> None:
        """Make the folders and write the plan into both.

        Args:
            plan: The plan.
            skipped: Hashes of the runs that this start leaves out.
            only: The pattern that leaves them out.
        """
        content = _described(plan, skipped, only)
        for folder in (self.working, self.results):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_json(folder / "study.json", content)
            except OSError as error:
                raise UserError(f"The folder '{folder}' can't be written to ({error.strerror}).") from error

    def record(self, run: Configuration) -> Raw | None:
        """The record of a run if it is done or failed, here or on the machine that the results came from.

        Records made before they told of files have another name; a run on files is taken as done by them too.
        """
        for name in dict.fromkeys((run.run_hash, run.former_run_hash)):
            here, there = self._here(name), self._there().get(name)
            found = [(here, str(self.working / name / "record.json"))]
            found += [(there.raw, there.source)] if there is not None else []
            for record, source in found:
                if record is not None and record.get("configuration") != name:
                    raise UserError(f"The file '{source}' is the record of another run: delete it.")
            ended = [r for r, _ in reversed(found) if r is not None and r.get("status") in ("done", "failed")]
            ended = [record for record in ended if run.is_record(record)]
            if ended:
                return min(ended, key=lambda record: record["status"] != "done")
        return None

    def _here(self, name: str) -> Raw | None:
        return _read(self.working / name / "record.json")

    def _there(self) -> dict[str, FoundRun]:
        """What the results hold, by the runs' hashes; read once after each change."""
        if self._results is None:
            self._results = {run.path.parent.name: run for run in runs_of_study(self.results)}
        return self._results

    def started(self, run: Configuration) -> bool:
        """Whether the run was begun here and not finished."""
        record = _read(self.working / run.run_hash / "record.json")
        return record is not None and record.get("status") == "running"

    def keep(self, run: Configuration, outcome: Outcome, *, show_samples: bool) -> None:
        """Put a finished run's record where the results are, and into the working folder if it ran elsewhere."""
        name = str(outcome.record["configuration"])
        if name != run.former_run_hash:
            self._forget_former(run)
        self._keep({name: outcome}, {name} if show_samples else set())

    def _keep(self, outcomes: Mapping[str, Outcome], show_samples: Collection[str]) -> None:
        for name, outcome in outcomes.items():
            path, here = self.working / name / "record.json", self._here(name)
            if here is None or here.get("status") != outcome.record["status"]:
                path.parent.mkdir(parents=True, exist_ok=True)
                if outcome.samples is not None:
                    write_json(path.with_name("samples.json"), outcome.samples)
                write_json(path, outcome.record)
        samples = {n: o.samples for n, o in outcomes.items() if o.samples is not None and n in show_samples}
        add_lines(self.results, [outcome.record for outcome in outcomes.values()], samples)
        self._results = None

    def _forget_former(self, run: Configuration) -> None:
        """Remove what an unfinished or failed run left under the name that it had before records told of files."""
        name = run.former_run_hash
        there = self._there().get(name)
        for record in (self._here(name), there and there.raw):
            if record is None or "files" in record or record.get("status") == "done":
                continue
            shutil.rmtree(self.working / name, ignore_errors=True)
            add_lines(self.results, [], {}, without={name})
            self._results = None

    def settle(self, cells: Collection[Cell], *, first_seed: tuple[int, int]) -> None:
        """Bring both folders to the same state: each record that is in one only is put into the other."""
        convert(self.results)
        self._results = None
        outcomes: dict[str, Outcome] = {}
        shows: set[str] = set()
        for run in (run for cell in cells for run in cell.runs):
            record = self.record(run)
            if record is None:
                continue
            name = str(record["configuration"])
            here, there = self._here(name), self._there().get(name)
            if any(found is None or found.get("status") != record["status"] for found in (here, there and there.raw)):
                samples = _read(self.working / name / "samples.json")
                if samples is None and there is not None and there.samples is not None:
                    samples = there.samples[0]
                outcomes[name] = Outcome(record, samples)
                shows |= {name} if shown(run, first_seed) else set()
        self._keep(outcomes, shows)

    def sweep(self, cells: Collection[Cell], *, keep_models: bool) -> None:
        """Remove what no further run needs: models of finished runs, and the shared stages when all runs are done."""
        if keep_models:
            return
        records = [self.record(run) for cell in cells for run in cell.runs]
        for record in records:
            if record is not None and record["status"] == "done":
                drop_models(self.working / record["configuration"])
        if all(record is not None and record["status"] == "done" for record in records):
            shutil.rmtree(self.stages, ignore_errors=True)


def shown(run: Configuration, first_seed: tuple[int, int]) -> bool:
    """Whether the results hold the run's samples: those of the first seed only, to stay small."""
    return (run.seed, run.data_seed) == first_seed


def drop_models(folder: Path) -> None:
    """Remove a run's models and stages; its record stays."""
    for part in ("model", "stages"):
        shutil.rmtree(folder / part, ignore_errors=True)


def failed_record(run: Configuration, error: str) -> Raw:
    """The record of a run that ended before it could write one."""
    nothing = ("selection", "primary_test", "metrics")
    return {
        "format": FORMAT,
        "status": "failed",
        "error": error,
        **run.as_dict(),
        "files": run.files_as_recorded(),
        "configuration": run.run_hash,
        "cell": run.cell_hash,
        "command": run.command(),
        "label_access": run.method.label_access,
        **dict.fromkeys(nothing),
    }


def _described(plan: Plan, skipped: Collection[str], only: str | None) -> Raw:
    baseline = [] if plan.baseline is None else [cell.first.cell_hash for cell in plan.matching(plan.baseline)]
    cells = []
    for cell in plan.cells:
        runs = [
            {
                "seed": run.seed,
                "data_seed": run.data_seed,
                "configuration": run.run_hash,
                "status": "skipped" if run.run_hash in skipped else "planned",
            }
            for run in cell.runs
        ]
        name, former = cell.first.cell_hash, cell.first.former_cell_hash
        named = {"name": cell.name, "cell": name, **({"former": former} if former != name else {})}
        cells.append({**named, **without_seeds(cell.first.as_dict()), "runs": runs})
    return {
        "format": FORMAT,
        "study": plan.name,
        "title": plan.title,
        "file": plan.file,
        "baseline": baseline,
        "only": only,
        "cells": cells,
    }


def _on_other_files(cells: list[Raw], plan: Plan) -> bool:
    """Whether a plan that was found has cells of this one, but on other files."""
    known: dict[str, set[str]] = {}
    for cell in cells:
        if "former" in cell:
            known.setdefault(cell["former"], set()).add(cell["cell"])
    wanted: dict[str, set[str]] = {}
    for cell in plan.cells:
        wanted.setdefault(cell.first.former_cell_hash, set()).add(cell.first.cell_hash)
    return any(former in known and not known[former] & hashes for former, hashes in wanted.items())


def _nearest(cells: list[Raw], runs: Sequence[Configuration]) -> str:
    """In what the two cells differ that are most alike, of the first ones of both."""
    asked = [without_seeds(run.as_dict()) for run in runs[:_COMPARED]]
    pairs = [(cell, one) for cell in cells[:_COMPARED] if isinstance(cell, dict) for one in asked]
    if not pairs:
        return ""
    told = differences_text(*min(pairs, key=lambda pair: len(differences(*pair))))
    return f" (stored → asked: {told})" if told else ""


def _read(path: Path) -> Raw | None:
    """A JSON object, None where there is no file.

    Raises:
        UserError: If the file is damaged.
    """
    return read_object(path) if path.exists() else None
