"""What a run shows on the terminal: bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table


class RunDisplay:
    """Shows how far each stage of each run is; the `Progress` that `evenhand.fit` reports to.

    Args:
        quiet: Show nothing.
        console: Where to; standard error by default, so that results can be piped.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
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

    def stage(self, name: str, done: int, total: int) -> None:
        """A stage has done so many of its steps."""
        if self.live:
            key = (self.run, name)
            if key not in self.bars:
                self.bars[key] = self.progress.add_task(f"{self.run} · {name}".lstrip(" ·"), total=total)
            self.progress.update(self.bars[key], completed=done)
        elif done == total:
            self.say(f"{self.run}: stage '{name}' trained for {total} steps")


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


def output() -> Console:
    """Standard output, for results."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)
