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
from evenhand.runs.ledger import add_lines, convert, runs_of_study
from evenhand.runs.read import PlannedCell, checked_plan
from evenhand.runs.record import FORMAT, Record, read_object, write_json
from evenhand.runs.schema import Raw
from evenhand.studies.plan import Cell, Plan
from evenhand.validation import UserError

_COMPARED = 30  # cells

State = Literal["planned", "running", "done", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its record, "done" or "failed", and the samples it leaves for the report."""

    record: Record
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
        self._results: dict[str, Record] | None = None

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
            path = folder / "study.json"
            if not path.exists():
                if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
                    raise UserError(f"The folder '{folder}' is not empty and holds no study: choose another one.")
                continue
            raw = read_object(path)
            found = checked_plan(raw, path)
            names = {name for cell in found.cells for name in (cell.cell, cell.former)}
            if found.file != plan.file:
                raise UserError(
                    f"The folder '{folder}' belongs to the study of another file, {found.file}: give this study "
                    "another name by the key 'study', or choose another folder."
                )
            if _on_other_files(found.cells, plan):
                raise UserError(
                    f"The folder '{folder}' holds this study on other files: give those with --data-dir, or choose "
                    "other folders with --output-dir and --results-dir."
                )
            runs = [cell.first for cell in plan.cells]
            if not names & {name for run in runs for name in (run.cell_hash, run.former_cell_hash)}:
                raise UserError(
                    f"The folder '{folder}' belongs to another file called {found.file}, which has no cell in common "
                    f"with this one{_nearest(raw['cells'], runs)}: give this study another name by the key 'study', or "
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
        checked_plan(content, self.working / "study.json")
        for folder in (self.working, self.results):
            write_json(folder / "study.json", content)

    def record(self, run: Configuration) -> Record | None:
        """The record of a run if it is done or failed, here or on the machine that the results came from.

        Records made before they told of files have another name; a run on files is taken as done by them too.
        """
        for name in dict.fromkeys((run.run_hash, run.former_run_hash)):
            found = [record for record in (self._there().get(name), self._here(name)) if record is not None]
            for record in found:
                if record.configuration != name:
                    raise UserError(f"The file '{record.source}' is the record of another run: delete it.")
            ended = [r for r in found if r.status in ("done", "failed") and run.is_record(r.raw)]
            if ended:
                return min(ended, key=lambda record: not record.is_done)
        return None

    def _here(self, name: str) -> Record | None:
        path = self.working / name / "record.json"
        return Record.load(path) if path.exists() else None

    def _there(self) -> dict[str, Record]:
        """What the results hold, by the runs' hashes; read once after each change."""
        if self._results is None:
            self._results = {run.path.parent.name: run for run in runs_of_study(self.results)}
        return self._results

    def started(self, run: Configuration) -> bool:
        """Whether the run was begun here and not finished."""
        record = self._here(run.run_hash)
        return record is not None and record.status == "running"

    def keep(self, run: Configuration, outcome: Outcome, *, show_samples: bool) -> None:
        """Put a finished run's record where the results are, and into the working folder if it ran elsewhere."""
        name = outcome.record.configuration
        if name != run.former_run_hash:
            self._forget_former(run)
        self._keep({name: outcome}, {name} if show_samples else set())

    def _keep(self, outcomes: Mapping[str, Outcome], show_samples: Collection[str]) -> None:
        for name, outcome in outcomes.items():
            path, here = self.working / name / "record.json", self._here(name)
            if here is None or here.status != outcome.record.status:
                if outcome.samples is not None:
                    write_json(path.with_name("samples.json"), outcome.samples)
                write_json(path, outcome.record.raw)
        samples = {n: o.samples for n, o in outcomes.items() if o.samples is not None and n in show_samples}
        add_lines(self.results, [outcome.record.raw for outcome in outcomes.values()], samples)
        self._results = None

    def _forget_former(self, run: Configuration) -> None:
        """Remove what an unfinished or failed run left under the name that it had before records told of files."""
        name = run.former_run_hash
        there = self._there().get(name)
        for record in (self._here(name), there):
            if record is None or "files" in record.raw or record.is_done:
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
            name = record.configuration
            here, there = self._here(name), self._there().get(name)
            if any(found is None or found.status != record.status for found in (here, there)):
                path = self.working / name / "samples.json"
                samples = read_object(path) if path.exists() else None
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
            if record is not None and record.is_done:
                drop_models(self.working / record.configuration)
        if all(record is not None and record.is_done for record in records):
            shutil.rmtree(self.stages, ignore_errors=True)


def shown(run: Configuration, first_seed: tuple[int, int]) -> bool:
    """Whether the results hold the run's samples: those of the first seed only, to stay small."""
    return (run.seed, run.data_seed) == first_seed


def drop_models(folder: Path) -> None:
    """Remove a run's models and stages; its record stays."""
    for part in ("model", "stages"):
        shutil.rmtree(folder / part, ignore_errors=True)


def failed_record(run: Configuration, error: str) -> Record:
    """The record of a run that ended before it could write one."""
    nothing = ("selection", "primary_test", "metrics")
    raw = {
        "format": FORMAT,
        "status": "failed",
        "error": error,
        **run.as_dict(),
        "files": run.files_as_recorded(),
        "configuration": run.run_hash,
        "cell": run.cell_hash,
        "command": run.command(),
        "label_access": run.method.labels_needed,
        **dict.fromkeys(nothing),
    }
    return Record.read(raw, Path(run.run_hash) / "record.json")


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


def _on_other_files(cells: list[PlannedCell], plan: Plan) -> bool:
    """Whether a plan that was found has cells of this one, but on other files."""
    known: dict[str, set[str]] = {}
    for cell in cells:
        if cell.former is not None:
            known.setdefault(cell.former, set()).add(cell.cell)
    wanted: dict[str, set[str]] = {}
    for cell in plan.cells:
        wanted.setdefault(cell.first.former_cell_hash, set()).add(cell.first.cell_hash)
    return any(former in known and not known[former] & hashes for former, hashes in wanted.items())


def _nearest(cells: list[Raw], runs: Sequence[Configuration]) -> str:
    """In what the two cells differ that are most alike, of the first ones of both."""
    asked = [without_seeds(run.as_dict()) for run in runs[:_COMPARED]]
    pairs = [(cell, one) for cell in cells[:_COMPARED] for one in asked]
    if not pairs:
        return ""
    told = differences_text(*min(pairs, key=lambda pair: len(differences(*pair))))
    return f" (stored → asked: {told})" if told else ""
