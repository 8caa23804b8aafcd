"""What a run shows on the terminal: bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from evenhand.studies.engines import Event, Finished, Lost, Stage
from evenhand.tasks import OwnData, Task
from evenhand.tasks.summary import DataSummary, data_summary

OWN_DATA = OwnData.name
_ROWS = 30  # of a table of classes or groups


class RunDisplay:
    """Shows how far each stage of each run is; the `Progress` that `evenhand.fit` reports to.

    Args:
        quiet: Show nothing.
        console: Where to; standard error by default, so that results can be piped.
        shows_data: Show what the user's own data hold before training.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None, shows_data: bool = False) -> None:
        self.shows_data = shows_data
        self.console = console or Console(stderr=True, quiet=quiet)
        self.live = self.console.is_terminal and not quiet
        self.run = ""
        self.bars: dict[tuple[str, str], TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )

    def __enter__(self) -> RunDisplay:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def begin(self, run: str) -> None:
        """Name the run whose stages come next."""
        self.run = run

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def data(self, task: Task) -> None:
        """The task is built."""
        if self.shows_data and task.name == OWN_DATA:
            self.console.print(*data_tables(data_summary(task)), sep="\n")
            for note in task.notes:
                self.say(note)

    def stage(self, name: str, done: int, total: int) -> None:
        """A stage has done so many of its steps."""
        if self.live:
            key = (self.run, name)
            if key not in self.bars:
                self.bars[key] = self.progress.add_task(f"{self.run} · {name}".lstrip(" ·"), total=total)
            self.progress.update(self.bars[key], completed=done)
        elif done == total:
            self.say(f"{self.run}: stage '{name}' trained for {total} steps")


class StudyDisplay:
    """Shows how a study goes on: a bar for it and one for each run at work, and a line for each run that ends.

    Args:
        total: How many runs are to be carried out.
        quiet: Show nothing.
        console: Where to; standard error by default.
    """

    def __init__(self, total: int, quiet: bool = False, console: Console | None = None) -> None:
        self.runs = RunDisplay(quiet, console)
        self.total = total
        self.ended = 0
        self.overall: TaskID | None = None

    def __enter__(self) -> StudyDisplay:
        self.runs.__enter__()
        if self.runs.live:
            self.overall = self.runs.progress.add_task("runs", total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runs.__exit__(kind, error, trace)

    def event(self, event: Event) -> None:
        """Something has happened to a run."""
        name = event.job.name
        if isinstance(event, Stage):
            if self.runs.live:
                self.runs.begin(name)
                self.runs.stage(event.name, event.done, event.total)
        elif isinstance(event, Lost):
            self._close(name)
            self.runs.say(f"{name}: its process {event.reason}; begun again")
        elif isinstance(event, Finished):
            self._close(name)
            self.ended += 1
            if self.overall is not None:
                self.runs.progress.update(self.overall, completed=self.ended)
            self.runs.say(f"[{self.ended}/{self.total}] {name}: {_ending(event.outcome.record)}")

    def _close(self, run: str) -> None:
        """The bars of a run go when it ends: a study has too many."""
        for key in [key for key in self.runs.bars if key[0] == run]:
            self.runs.progress.remove_task(self.runs.bars.pop(key))


def _ending(record: dict[str, Any]) -> str:
    if record["status"] != "done":
        return f"failed: {record['error']}"
    metrics = record["metrics"]
    shown = "conflicting" if metrics["conflicting"] is not None else "average"
    return f"{shown} {percent(metrics[shown])} % ({record['durations']['total_s']:.1f} s)"


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal, a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.1f}"


def metrics_table(metrics: dict[str, Any]) -> Table:
    """The headline metrics of one run."""
    table = Table()
    for column in ("average", "worst group", "aligned", "conflicting"):
        table.add_column(f"{column} %", justify="right")
    table.add_row(*(percent(metrics[name]) for name in ("average", "worst_group", "aligned", "conflicting")))
    return table


def data_tables(summary: DataSummary) -> list[Table]:
    """Classes with their counts and shares, and groups with theirs, split by split."""
    tables = []
    for kind, counted in (("class", summary.classes), ("group", summary.groups)):
        if not counted:
            continue
        table = Table(Column(kind, overflow="fold"), *(Column(split, justify="right") for split in summary.sizes))
        for name, of in list(counted.items())[:_ROWS]:
            table.add_row(Text(name), *(_counted(of.get(split, 0), size) for split, size in summary.sizes.items()))
        if len(counted) > _ROWS:
            table.add_row(f"… {len(counted) - _ROWS} more")
        tables.append(table)
    return tables


def _counted(count: int, size: int) -> str:
    return f"{count:,} ({100 * count / size:.1f} %)"


def output() -> Console:
    """Standard output, for results."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)
