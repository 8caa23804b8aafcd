"""What a run shows on the terminal: bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from evenhand.cli.console import PlainConsole
from evenhand.evaluation.progress import Measurement
from evenhand.methods.base import nothing_done
from evenhand.metrics import GroupShare, summarize, wilson
from evenhand.runs.by_shortcut import by_shortcut
from evenhand.runs.record import Record
from evenhand.runs.worst_groups import (
    Groups,
    empty_groups,
    group_texts,
    interval_text,
    is_lower,
    record_groups,
    weakest,
)
from evenhand.studies.engines import Event, Lost, Measured, Stage, Started
from evenhand.tasks import OwnData
from evenhand.tasks import Task as BuiltTask
from evenhand.tasks.summary import DataSummary, data_summary
from evenhand.validation import named
from evenhand.wording import duration, one_line, percent

_SHARE_COLUMNS = ("n", "accuracy %", "95 % interval")
_ROWS = 30  # of a table of classes or groups
_FEW = 12  # groups that a run of named shortcuts shows


_PATIENCE = 50.0  # seconds without a line; engines tell every few seconds that they are quiet
_NAMED = 6  # runs in a line


class RunDisplay:
    """Shows how far each stage of each run is; the `Progress` that `evenhand.fit` reports to.

    Args:
        quiet: Show nothing.
        console: Where to; standard error by default, so that results can be piped.
        epochs: Without a terminal, whether each epoch that is measured has a line of its own, or each stage only.
        shows_data: Show what the user's own data hold before training.
    """

    def __init__(
        self,
        quiet: bool = False,
        console: Console | None = None,
        *,
        epochs: bool = True,
        shows_data: bool = False,
    ) -> None:
        self.shows_data = shows_data
        self.console = console or PlainConsole(stderr=True, quiet=quiet)
        self.live = self.console.is_terminal and not quiet
        self.epochs = epochs
        self.run = ""
        self.clocks: dict[tuple[str, str], _Clock] = {}
        self.bars: dict[tuple[str, str], TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            _StepRate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=self.console,
            disable=not self.live,
        )

    def __enter__(self) -> RunDisplay:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No bars while it lasts; those of stages that have ended don't come back."""
        for bar in self.bars.values():
            self.progress.remove_task(bar)
        self.bars.clear()
        self.progress.stop()
        try:
            yield
        finally:
            self.progress.start()

    def begin(self, run: str) -> None:
        """Name the run whose stages come next."""
        self.run = run

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(Text(one_line(line)), soft_wrap=True)

    def data(self, task: BuiltTask) -> None:
        """The task is built."""
        if self.shows_data and task.name == OwnData.name:
            self.console.print(*data_tables(data_summary(task)), sep="\n")
            for note in task.notes:
                self.say(note)

    def stage(self, name: str, done: int, total: int) -> None:
        """A stage has done `done` of its `total` steps."""
        key = (self.run, name)
        self.clocks.setdefault(key, _Clock(done)).steps = done
        if self.live:
            if key not in self.bars:
                description = one_line(f"{self.run} · {name}".lstrip(" ·"))
                self.bars[key] = self.progress.add_task(description, total=total, unit="steps", told="")
            self.progress.update(self.bars[key], completed=done)
        elif done == total:
            self.say(f"{self.run}: stage '{name}' trained for {total} steps")

    def measured(self, measurement: Measurement) -> None:
        """A stage has ended an epoch: its loss, how fast it goes, and how it does on validation data."""
        key = (self.run, measurement.stage)
        told = _told(measurement)
        if key in self.bars:
            self.progress.update(self.bars[key], told=told)
        elif not self.live and self.epochs and measurement.values:
            rate = self.clocks[key].rate if key in self.clocks else None
            speed = "" if rate is None else f", {rate:.1f} steps/s"
            epoch = f"epoch {measurement.epoch}/{measurement.epochs}"
            self.say(f"{self.run}: stage '{measurement.stage}', {epoch}: {told}{speed}")


class _Clock:
    """How many steps a second a stage does, on average since it was first heard of."""

    def __init__(self, steps: int) -> None:
        self.began = time.monotonic()
        self.first = self.steps = steps

    @property
    def rate(self) -> float | None:
        passed = time.monotonic() - self.began
        return (self.steps - self.first) / passed if passed > 0 and self.steps > self.first else None


class _StepRate(ProgressColumn):
    """Steps a second; nothing for the bar that counts runs."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed and task.fields["unit"] == "steps" else "")


def _told(measurement: Measurement) -> str:
    """As in "loss 0.312, validation: worst group 55.0 % (a, b: 40 samples), conflicting 48.0 %".

    What is undefined is left out; small groups together stand before the worst one where they are lower.
    """
    worst, value = measurement.worst, measurement.values.get("worst_group")
    if worst is None and value is not None:
        worst = GroupShare((), value, None, None)
    parts = group_texts((worst, measurement.small), brief=True)
    if measurement.values.get("conflicting") is not None:
        parts.append(f"conflicting {percent(measurement.values['conflicting'])} %")
    if not parts and measurement.values.get("average") is not None:
        parts = [f"average {percent(measurement.values['average'])} %"]
    loss = f"loss {measurement.train_loss:.3g}"
    return f"{loss}, validation: {', '.join(parts)}" if parts else loss


class StudyDisplay:
    """Shows how a study goes on: a bar for it and one for each run at work, and a line for each run and cell that ends.

    Args:
        pending: The cells with runs to carry out, by name, and how many runs each has.
        quiet: Show nothing.
        console: Where to; standard error by default.
        clock: Seconds. Without a terminal a line says at least once a minute what is at work.
    """

    def __init__(
        self,
        pending: Mapping[str, int],
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runs = RunDisplay(quiet, console)
        self.pending = dict(pending)
        self.outcomes: dict[str, list[Record]] = {}
        self.total = sum(self.pending.values())
        self.ended = 0
        self.clock = clock
        self.said = self.began = clock()
        self.active: dict[str, str] = {}  # each run at work, and how far it is
        self.overall: TaskID | None = None

    def __enter__(self) -> StudyDisplay:
        self.runs.__enter__()
        if self.runs.live:
            self.overall = self.runs.progress.add_task("all", total=self.total, unit="runs", told=self._cells())
        return self

    def __exit__(self, *error: object) -> None:
        self.runs.__exit__(*error)

    def waiting(self) -> None:
        """Nothing has happened for some seconds."""
        if not self.runs.live and self.clock() - self.said >= _PATIENCE:
            self._say(self._at_work())

    def event(self, event: Event) -> None:
        """Something has happened to a run."""
        name = event.job.name
        if isinstance(event, Started):
            self.active[name] = "begun"
        elif isinstance(event, Stage):
            self.active[name] = f"stage '{event.name}', step {event.done:,} of {event.total:,}"
            if self.runs.live:
                self.runs.begin(name)
                self.runs.stage(event.name, event.done, event.total)
        elif isinstance(event, Measured):
            if self.runs.live:
                self.runs.begin(name)
                self.runs.measured(event.measurement)
        elif isinstance(event, Lost):
            self._close(name)
            self._say(f"{name}: its process {event.reason}; begun again")
        else:
            self._close(name)
            self.ended += 1
            self._say(f"[{self.ended}/{self.total}] {name}: {_ending(event.outcome.record)}")
            self._cell_goes_on(event.job.cell, event.outcome.record)
            if self.overall is not None:
                self.runs.progress.update(self.overall, completed=self.ended, told=self._cells())
        self.waiting()

    def _cell_goes_on(self, cell: str, record: Record) -> None:
        """After a cell's last run of this start, what its runs of this start gave."""
        records = self.outcomes.setdefault(cell, [])
        records.append(record)
        if len(records) == self.pending.get(cell) and len(records) > 1:
            self._say(f"cell {cell}: {_cell_ending(records)}")

    def _say(self, line: str) -> None:
        self.runs.say(line)
        self.said = self.clock()

    def _at_work(self) -> str:
        """As in "[3/12] 2 at work after 4 min 10 s: PGD, seed 0 (stage 'biased', step 40 of 200); …"."""
        shown = [f"{name} ({how_far})" for name, how_far in self.active.items()]
        after = duration(self.clock() - self.began)
        return f"[{self.ended}/{self.total}] {len(shown)} at work after {after}: {named(shown, _NAMED) or 'none yet'}"

    def _cells(self) -> str:
        ended = sum(len(self.outcomes.get(cell, [])) == runs for cell, runs in self.pending.items())
        return f"{ended} of {len(self.pending)} cells"

    def _close(self, run: str) -> None:
        """The bars of a run go when it ends: a study has too many."""
        self.active.pop(run, None)
        for key in [key for key in self.runs.bars if key[0] == run]:
            self.runs.progress.remove_task(self.runs.bars.pop(key))


def _ending(record: Record) -> str:
    metrics, idle = record.metrics, record.did_nothing
    if metrics is None:
        return f"failed: {record.error}"
    nothing = "" if idle is None else f"; {nothing_done(record.method.title, idle)}"
    aligned = [] if metrics.aligned is None else [f"aligned {percent(metrics.aligned)} %"]
    parts = [*aligned, f"conflicting {percent(metrics.conflicting)} %"]
    if metrics.conflicting is None:
        parts = [*aligned, f"average {percent(metrics.average)} %", *group_texts(metrics.groups, brief=True)[:1]]
    return f"{', '.join(parts)} ({record.durations.total_s or 0:.1f} s){nothing}"


def _cell_ending(records: list[Record]) -> str:
    done = [record.metrics for record in records if record.metrics is not None]
    names = ("worst_group", "small_groups", "aligned", "conflicting")
    series = {name.replace("_", " "): [metrics.value(name) for metrics in done] for name in names}
    parts = [f"{len(done)} of {len(records)} runs done"]
    for name, values in series.items():
        summary = summarize(values)
        if summary.mean is not None:
            spread = "" if summary.std is None else f" ± {percent(summary.std)}"
            parts.append(f"{name} {percent(summary.mean)}{spread} %")
    idle = sum(record.did_nothing is not None for record in records)
    if idle:
        parts.append(f"did nothing in {idle} of them, which trained as ERM does")
    return ", ".join(parts)


def metrics_table(record: dict[str, Any]) -> Table:
    """The headline metrics of one run; the small groups stand in it where they are the worst."""
    metrics, groups = record["metrics"], record_groups(record)
    values = {"average": metrics["average"], "worst group": metrics["worst_group"]}
    values |= {"small groups": weakest(groups)} if is_lower(groups) else {}
    values |= {"aligned": metrics["aligned"], "conflicting": metrics["conflicting"]}
    table = Table()
    for column in values:
        table.add_column(f"{column} %", justify="right")
    table.add_row(*(percent(value) for value in values.values()))
    return table


def classes_table(shares: Mapping[str, GroupShare], kind: str = "class") -> list[Table]:
    """Accuracy of each class, or group, with its samples; no table where groups are known."""
    if not shares:
        return []
    table = Table(Column(kind, overflow="fold"), *(Column(c, justify="right") for c in _SHARE_COLUMNS))
    for name, share in list(shares.items())[:_ROWS]:
        table.add_row(Text(one_line(name)), f"{share.n:,}", percent(share.accuracy), interval_text(share))
    if len(shares) > _ROWS:
        table.add_row(f"… {len(shares) - _ROWS} more")
    return [table]


def few_groups(record: dict[str, Any]) -> dict[str, GroupShare]:
    """Each group with its samples and interval, where shortcuts are named, which make few groups; else none."""
    metrics, sizes = record["metrics"], (record.get("group_sizes") or {}).get(record["primary_test"]) or {}
    found = {
        name: GroupShare((name,), value, sizes[name], wilson(value, sizes[name]))
        for name, value in metrics["by_group"].items()
        if value is not None and sizes.get(name)
    }
    return found if by_shortcut(metrics) and len(found) <= _FEW else {}


def group_lines(groups: Groups, by_group: dict[str, Any]) -> list[str]:
    """The worst group and the small ones, a line each, the lower one first, and the groups without a sample."""
    lines = [f"{text[:1].upper()}{text[1:]}." for text in group_texts(groups)]
    empty = empty_groups(by_group)
    return [*lines, one_line(f"Groups without a sample here: {named(empty)}.")] if empty else lines


def data_tables(summary: DataSummary) -> list[Table]:
    """Classes with their counts and shares, and groups with theirs, split by split."""
    tables = []
    for kind, counted in (("class", summary.classes), ("group", summary.groups)):
        if not counted:
            continue
        table = Table(Column(kind, overflow="fold"), *(Column(split, justify="right") for split in summary.sizes))
        for name, of in list(counted.items())[:_ROWS]:
            table.add_row(
                Text(one_line(name)), *(_counted(of.get(split, 0), size) for split, size in summary.sizes.items())
            )
        if len(counted) > _ROWS:
            table.add_row(f"… {len(counted) - _ROWS} more")
        tables.append(table)
    return tables


def _counted(count: int, size: int) -> str:
    return f"{count:,} ({100 * count / size:.1f} %)"
