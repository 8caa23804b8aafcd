"""What `evenhand study` does: a grid of cells × seeds from a file, then the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.table import Table
from tyro.conf import Positional

from evenhand.cli.console import note_formulas, output
from evenhand.cli.options import Working, default
from evenhand.cli.terminal import StudyDisplay
from evenhand.studies import EngineName, Study
from evenhand.wording import count, duration, one_line


@dataclass(frozen=True, kw_only=True)
class StudyVerb(Working):
    """Run all cells of a study file with all seeds; what is done already is not run again.

    Ends with report.html and tables/. A study that was stopped, also by kill -9, goes on when the same command is given
    again. The file is explained in docs/studies.md; recipes/ has some.

    Attributes:
        file: The study's YAML file.
        seeds: This many seeds (0, 1, …) in place of the file's.
        only: Run only cells whose name matches this pattern, such as 'pgd*'; the others are skipped.
        retry_failed: Begin runs again that have failed.
        dry_run: Show what would run and how long it may take; write nothing.
        jobs: Runs at a time; each takes its share of the threads.
        engine: `local`: processes of this machine. `ray`: tasks of a Ray cluster that is there already.
        address: The Ray cluster: auto, HOST:PORT or ray://HOST:PORT.
        output_dir: The working folder; runs/STUDY unless given.
        results_dir: The folder of the records without models; results/STUDY unless given.
        data_dir: Folder of data files for the tasks that need some.
    """

    file: Positional[Path]
    seeds: Annotated[int | None, default("INT", "the file's")] = None
    only: Annotated[str | None, default("PATTERN", "all cells")] = None
    retry_failed: bool = False
    dry_run: bool = False
    jobs: Annotated[int | None, default("INT", "1; on Ray what fits")] = None
    engine: EngineName = "local"
    address: str = "auto"
    output_dir: Annotated[Path | None, default("DIR", "runs/STUDY")] = None
    results_dir: Annotated[Path | None, default("DIR", "results/STUDY")] = None
    data_dir: Annotated[Path | None, default("DIR", "none")] = None

    def run(self) -> int:
        """Carry the study out, then write the report; 1 if a run failed."""
        opened = Study.open(
            self.file,
            seeds=self.seeds,
            only=self.only,
            retry_failed=self.retry_failed,
            output_dir=self.output_dir,
            results_dir=self.results_dir,
            data_dir=self.data_dir,
        )
        if self.dry_run:
            _show_plan(opened, self.jobs or 1)
            return 0
        with StudyDisplay(Counter(cell.name for cell, _ in opened.pending), self.quiet) as display:
            opened.run(engine=self.engine, jobs=self.jobs, address=self.address, device=self.device, watch=display)
        _show_end(opened)
        return 1 if opened.count()["failed"] else 0


def _show_plan(opened: Study, jobs: int) -> None:
    console = output()
    table = Table("cell", "task", "model", "epochs", "runs")
    for cell in opened.plan.cells:
        run = cell.first
        states = opened.shown_states(cell)
        table.add_row(cell.name, run.task.name, run.model, str(run.training.epochs), states)
    console.print(table)
    console.print(f"{count(len(opened.pending), 'run')} to carry out. {_estimate(opened, jobs)}")


def _estimate(opened: Study, jobs: int) -> str:
    expected = opened.expected()
    known = [seconds for seconds in expected if seconds is not None]
    if not expected:
        return "Nothing is left to do."
    if not known:
        return "There is no estimate of the time: no run like these is done yet."
    rest = (
        f", without {count(len(expected) - len(known), 'run')} like none that is done"
        if len(known) < len(expected)
        else ""
    )
    return f"About {duration(sum(known) / jobs)}, judged by runs that are done{rest}."


def _show_end(opened: Study) -> None:
    console = output()
    console.print(f"{opened.plan.title}: {opened.shown_states()}")
    if opened.files_unknown:
        console.print(
            f"{count(len(opened.files_unknown), 'run')} taken as done though the record doesn't say which files were "
            "read: it was made before records did."
        )
    for cell in opened.plan.cells:
        failed = [run for run in cell.runs if opened.states[run.run_hash] == "failed"]
        if failed:
            record = opened.store.record(failed[0])
            seeds = ", ".join(str(run.seed) for run in failed)
            console.print(f"failed: {cell.name}, seed {seeds}: {one_line(str(record and record.error))}")
    files = opened.write_report()
    console.print(f"Report: {files.html}")
    console.print(f"Tables: {files.html.parent / 'tables'}")
    console.print(f"Records: {opened.store.results}")
    note_formulas(*files.html.parent.glob("tables/*.csv"))
