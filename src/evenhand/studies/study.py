"""A study from its file to its records: what is there, what is to be done, and doing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch

from evenhand.files import LOCK, locked
from evenhand.models.inference import Device, torch_device
from evenhand.models.source import RANDOM_START
from evenhand.report import ReportFiles, write_report
from evenhand.runs.configuration import Configuration
from evenhand.runs.prepared import prepared
from evenhand.studies.engines import Engine, Event, Finished, Quiet
from evenhand.studies.estimate import expected_seconds, records_below
from evenhand.studies.local import LocalEngine
from evenhand.studies.on_ray import RayEngine
from evenhand.studies.plan import Cell, Plan, read_plan
from evenhand.studies.store import State, Store, shown
from evenhand.studies.worker import Job
from evenhand.tasks import Task, TaskSource
from evenhand.validation import UserError, check_choice, check_integer, check_path

EngineName = Literal["local", "ray"]


class Watch(Protocol):
    """Receives what happens to a study's runs; its method `waiting`, if it has one, is called when nothing happens."""

    def event(self, event: Event) -> None:
        """Something has happened to a run."""
        ...


@runtime_checkable
class Waiting(Protocol):
    """A watch that speaks of itself while nothing happens."""

    def waiting(self) -> None:
        """Nothing has happened for some seconds."""
        ...


@dataclass(frozen=True)
class Study:
    """A study that can be started.

    Attributes:
        plan: What its file asks for.
        store: Its folders.
        states: What is known of each run, by hash.
        pending: What this start would carry out: cell and run, in order.
        only: The pattern that the cells were chosen by.
        files_unknown: Hashes of the runs that are done by a record made before records held the files read.
    """

    plan: Plan
    store: Store
    states: dict[str, State]
    pending: tuple[tuple[Cell, Configuration], ...]
    only: str | None
    files_unknown: frozenset[str] = frozenset()

    @classmethod
    def open(
        cls,
        file: Path,
        *,
        seeds: int | None = None,
        only: str | None = None,
        retry_failed: bool = False,
        output_dir: Path | None = None,
        results_dir: Path | None = None,
        data_dir: Path | None = None,
    ) -> Study:
        """Read a study's file and what is there of it; nothing is written. The arguments are those of `study`.

        Raises:
            UserError: If the file is wrong, or a folder belongs to something else.
        """
        for path in (file, output_dir, results_dir, data_dir):
            if path is not None:
                check_path(path)
        plan = read_plan(file, seeds, data_dir)
        for cell in plan.cells:
            try:
                cell.first.method.check_start(pretrained=cell.first.model not in RANDOM_START and not cell.first.fresh)
            except UserError as error:
                raise _in_cell(plan, cell, error) from error
        chosen = plan.cells if only is None else plan.matching(only)
        store = Store(output_dir or Path("runs") / plan.name, results_dir or Path("results") / plan.name)
        if store.working.absolute() == store.results.absolute():
            raise UserError(f"The working folder and the folder of the results are both '{store.working}'.")
        store.check(plan)
        states: dict[str, State] = {}
        pending = []
        unknown = set()
        for cell in plan.cells:
            for run in cell.runs:
                record = store.record(run)
                state: State = "planned" if record is None else "done" if record.is_done else "failed"
                if state == "planned" or (state == "failed" and retry_failed):
                    if cell in chosen:
                        pending.append((cell, run))
                    elif state == "planned":
                        state = "skipped"
                elif state == "done" and record is not None and run.has_unknown_files(record.raw):
                    unknown.add(run.run_hash)
                states[run.run_hash] = state
        return cls(plan, store, states, tuple(pending), only, frozenset(unknown))

    def count(self, cell: Cell | None = None) -> Counter[State]:
        """How many runs of a cell, or of all, are in which state."""
        cells = self.plan.cells if cell is None else (cell,)
        return Counter(self.states[run.run_hash] for cell in cells for run in cell.runs)

    def shown_states(self, cell: Cell | None = None) -> str:
        """How many runs of a cell, or of all, are in which state, in words; "3 done (2 of them: files unknown)"."""
        cells = self.plan.cells if cell is None else (cell,)
        unknown = sum(run.run_hash in self.files_unknown for each in cells for run in each.runs)
        mark = f" ({unknown} of them: files unknown)" if unknown else ""
        return ", ".join(
            f"{number} {state}{mark if state == 'done' else ''}" for state, number in self.count(cell).items()
        )

    def expected(self) -> list[float | None]:
        """Seconds that each pending run will take, judged by runs of this and of neighbouring studies."""
        folders = {self.store.results.absolute().parent, self.store.working.absolute().parent}
        return expected_seconds([run for _, run in self.pending], records_below(sorted(folders)))

    def run(
        self,
        *,
        engine: EngineName = "local",
        jobs: int | None = None,
        address: str = "auto",
        device: Device = "auto",
        watch: Watch | None = None,
    ) -> None:
        """Carry out what is pending; `states` says afterwards what became of each run. The arguments are `study`'s.

        Raises:
            UserError: If a cell can't run at all, the study is running already, or there is no such cluster.
        """
        check_choice("study", "engine", engine, ("local", "ray"))
        if jobs is not None:
            check_integer("study", "jobs", jobs, 1)
        torch_device(device)
        _check_cells(self.plan, self.pending)
        made = _engine(engine, jobs, address) if self.pending else None
        skipped = [key for key, state in self.states.items() if state == "skipped"]
        self.store.open(self.plan, skipped, self.only)
        busy = f"The study in '{self.store.working}' is running already, in another process."
        with locked(self.store.working / LOCK, busy):
            first = self.plan.cells[0].first
            first_seed = first.seed, first.data_seed
            self.store.settle(self.plan.cells, first_seed=first_seed)
            if made is not None:
                self._carry_out(made, self._jobs(device, jobs or 1, elsewhere=engine == "ray"), first_seed, watch)
            self.store.sweep(self.plan.cells, keep_models=self.plan.keep_models)

    def write_report(self) -> ReportFiles:
        """The page and the tables into the working folder, the tables beside the results too."""
        write_report(self.store.results, page=False)  # a page is megabytes: too much for a repository
        return write_report(self.store.working)

    def _carry_out(self, engine: Engine, jobs: list[Job], first_seed: tuple[int, int], watch: Watch | None) -> None:
        events = engine.events(jobs)
        try:
            for event in events:
                if isinstance(event, Quiet):
                    if isinstance(watch, Waiting):
                        watch.waiting()
                    continue
                self.states[event.job.run.run_hash] = "running"
                if isinstance(event, Finished):
                    run = event.job.run
                    self.store.keep(run, event.outcome, show_samples=shown(run, first_seed))
                    self.states[run.run_hash] = "done" if event.outcome.record.is_done else "failed"
                if watch is not None:
                    watch.event(event)
        finally:
            events.close()  # type: ignore[attr-defined]  # a generator: what still goes on is stopped

    def _jobs(self, device: Device, jobs: int, *, elsewhere: bool) -> list[Job]:
        processes = 1 if elsewhere else jobs
        threads = max(1, torch.get_num_threads() // min(processes, len(self.pending)))
        return [
            Job(
                name=f"{cell.name}, seed {run.seed}",
                cell=cell.name,
                run=run,
                folder=self.store.working.absolute() / run.run_hash,
                stages=self.store.stages.absolute(),
                device=device,
                threads=threads,
                keep_models=self.plan.keep_models,
                elsewhere=elsewhere,
            )
            for cell, run in self.pending
        ]


def study(
    file: Path | str,
    *,
    seeds: int | None = None,
    only: str | None = None,
    retry_failed: bool = False,
    engine: EngineName = "local",
    jobs: int | None = None,
    address: str = "auto",
    output_dir: Path | str | None = None,
    results_dir: Path | str | None = None,
    data_dir: Path | str | None = None,
    device: Device = "auto",
    watch: Watch | None = None,
) -> Study:
    """Carry out a study and write its report, as `evenhand study` does.

    Runs are processes of their own, so a script that calls this needs `if __name__ == "__main__":` around the call.

    Args:
        file: The YAML file.
        seeds: The number of seeds (0, 1, …), in place of the file's.
        only: Pattern with `*` of the cells to run; the others are skipped.
        retry_failed: Begin runs again that failed before.
        engine: `local`: processes of this machine; `ray`: tasks of a Ray cluster.
        jobs: Runs at a time; one for `local`, and as many as there is room for on Ray if None.
        address: The Ray cluster.
        output_dir: The working folder; runs/<study> if None.
        results_dir: The folder of the records; results/<study> if None.
        data_dir: Folder of data files for the tasks that need some.
        device: Where to train.
        watch: Receives what happens to the runs.

    Returns:
        The study; `states` says what became of each run, and `store` where things lie.

    Raises:
        UserError: If anything given is wrong; nothing has been trained then.
    """
    opened = Study.open(
        Path(file),
        seeds=seeds,
        only=only,
        retry_failed=retry_failed,
        output_dir=None if output_dir is None else Path(output_dir),
        results_dir=None if results_dir is None else Path(results_dir),
        data_dir=None if data_dir is None else Path(data_dir),
    )
    opened.run(engine=engine, jobs=jobs, address=address, device=device, watch=watch)
    opened.write_report()
    return opened


def _engine(engine: EngineName, jobs: int | None, address: str) -> Engine:
    if engine == "ray":
        return RayEngine(address, jobs)
    return LocalEngine(jobs or 1)


def _check_cells(plan: Plan, pending: Sequence[tuple[Cell, Configuration]]) -> None:
    """Each cell's data and model fit together, which only the built task tells; each is built and read once."""
    built: dict[str, Task] = {}
    seen: set[str] = set()
    for cell, run in pending:
        if cell.name in seen:
            continue
        seen.add(cell.name)
        bare, named = repr((run.task, ())), repr((run.task, run.shortcuts))
        try:
            if bare not in built and isinstance(run.task, TaskSource):
                built[bare] = run.task.build(run.data_seed)
            built[named] = prepared(run, built.get(named, built.get(bare))).task
        except UserError as error:
            raise _in_cell(plan, cell, error) from error


def _in_cell(plan: Plan, cell: Cell, error: UserError) -> UserError:
    return UserError(f"{plan.file}, cell '{cell.name}': {error}")
