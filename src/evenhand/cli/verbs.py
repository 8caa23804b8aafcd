"""The verbs `train`, `demo`, `report` and `methods`; their options are the fields of the dataclasses below."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.table import Table
from tyro.conf import Positional

from evenhand.cli.console import note_formulas, output
from evenhand.cli.found import resolved_shortcuts
from evenhand.cli.options import ModelOptions, Working, default
from evenhand.cli.terminal import RunDisplay, classes_table, few_groups, group_lines, metrics_table
from evenhand.methods import EDGE, ERM, METHODS, PGD, Even, Method
from evenhand.methods.base import nothing_done
from evenhand.report import write_report
from evenhand.runs.by_class import apart_text, class_shares
from evenhand.runs.by_shortcut import shortcut_lines
from evenhand.runs.fit import Result, fit
from evenhand.runs.worst_groups import record_groups
from evenhand.training.processes import is_first_process, leave
from evenhand.training.stage import StageError
from evenhand.validation import MOST_SEEDS, check_within, unknown_name
from evenhand.wording import distinct, one_line, percent


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """That many threads for torch while it lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class Train(ModelOptions):
    """Train one method on one task with one seed: stages, models and the record go to the output folder.

    A run that was stopped goes on where it was when the same command is given again.

    Attributes:
        seed: Drives initialisation, order and dropout.
        shortcuts: An audit.json on the same data: its confirmed shortcuts are named; where none is, its likely ones.
    """

    seed: int = 0
    shortcuts: Annotated[Path | None, default("FILE", "none")] = None

    def run(self, method: Method) -> int:
        """Train, and say where the result lies."""
        task, training = self.task_source(), self.training()
        with RunDisplay(self.quiet or not is_first_process(), shows_data=True) as display:
            named = resolved_shortcuts(self, task, display)
            display.begin(method.title)
            result = fit(method, task, self.model, seed=self.seed, shortcuts=named, progress=display, **training)
        if is_first_process():
            _show_result(method, result)
        leave()
        return 0


@dataclass(frozen=True, kw_only=True)
class Demo(Working):
    """Train ERM, EDGE (own and biased signal), PGD and Even on colored-digits, and show who took the shortcut.

    Takes some minutes on two cores; needs no network. What was trained before is not trained again.

    Attributes:
        text: Train on marked-notes, sentences whose last word leaks the label, instead of images.
        model: The model; `MiniLM` reads texts better than the default, and takes longer.
        seeds: How many seeds of each method (0, 1, …); they draw the bias, the weights and the order.
        epochs: Epochs of each stage.
        output_dir: Where the runs and report.html go; runs/demo, or runs/demo-text with --text, unless given.
    """

    text: bool = False
    model: Annotated[str | None, default("NAME")] = None
    seeds: int = 3
    epochs: Annotated[int | None, default("INT")] = None
    output_dir: Annotated[Path | None, default("DIR", "runs/demo, or runs/demo-text")] = None

    def run(self) -> int:
        """Train everything, then write the report; a run that fails is shown in it."""
        check_within("demo", "seeds", self.seeds, 1, MOST_SEEDS)
        folder = self.output_dir or Path("runs/demo-text" if self.text else "runs/demo")
        failed = 0
        # these models gain an eighth by a second thread, lose a factor of ten where another program has the cores, and
        # round the same everywhere with one
        threads = torch.get_num_threads() if self.model else 1
        with RunDisplay(self.quiet, epochs=False) as display, _threads(threads):
            for seed in range(self.seeds):
                for name, method in _demo_methods().items():
                    display.begin(f"{method.title}, seed {seed}")
                    try:
                        result = fit(
                            method,
                            "marked-notes" if self.text else "colored-digits",
                            self.model,
                            seed=seed,
                            output_dir=folder / f"{name}-seed{seed}",
                            epochs=self.epochs,
                            device=self.device,
                            progress=display,
                        )
                    except StageError as error:
                        failed += 1
                        display.say(f"{method.title}, seed {seed}: failed: {error}")
                    else:
                        scores = result.metrics
                        display.say(
                            f"{method.title}, seed {seed}: aligned {percent(scores['aligned'])} %, "
                            f"conflicting {percent(scores['conflicting'])} %"
                        )
                        idle = result.record["did_nothing"]
                        if idle is not None:
                            display.say(f"{nothing_done(method.title, idle)}.")
        _show_report(folder, "Who took the shortcut?")
        return 1 if failed else 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """Make one page, and its tables as Markdown and CSV, of all runs below a folder.

    Attributes:
        folder: The folder; the page is written there as report.html.
    """

    folder: Positional[Path]

    def run(self) -> int:
        """Write the page."""
        _show_report(self.folder, None)
        return 0


@dataclass(frozen=True, kw_only=True)
class Methods:
    """List the methods, or explain one.

    Attributes:
        name: The method to explain.
    """

    name: Positional[str | None] = None

    def run(self) -> int:
        """Print to standard output."""
        console = output()
        if self.name is None:
            table = Table("method", "what it does", "labels needed beyond the class", show_lines=True)
            for name, method in METHODS.items():
                table.add_row(name, _summary(method), method.label_access)
            console.print(table)
            console.print("`evenhand methods NAME` explains one; `evenhand train NAME --help` shows its options.")
            return 0
        if self.name not in METHODS:
            raise unknown_name("method", self.name, METHODS)
        method = METHODS[self.name]
        console.print(f"{self.name} — {method.paper}\n\n{inspect.getdoc(method)}")
        console.print(f"\nLabels needed beyond the class: {method.label_access}")
        return 0


def _summary(documented: type[Any]) -> str:
    return (inspect.getdoc(documented) or "").split("\n\n")[0].replace("\n", " ")


def _demo_methods() -> dict[str, Method]:
    return {
        "erm": ERM(),
        "edge-own": EDGE(),
        "edge-biased": EDGE(signal="biased", projection="naive", alpha=1.3),
        "pgd": PGD(),
        "even": Even(),
    }


def _show_result(method: Method, result: Result) -> None:
    console = output()
    record = result.record
    console.print(
        f"{method.title} on {record['task']['name']} ({record['model']['name']}, seed {record['seed']}, "
        f"test set '{record['primary_test']}')"
    )
    console.print(metrics_table(record))
    for line in group_lines(record_groups(record), result.metrics["by_group"]):
        console.print(line)
    for line in shortcut_lines(result.metrics):
        console.print(line)
    for table in (*classes_table(class_shares(result.metrics)), *classes_table(few_groups(record), "group")):
        console.print(table)
    for note in distinct([apart_text(record), *map(str, record.get("notes", []))]):
        console.print(one_line(note))
    console.print(f"Result: {result.folder} (record.json, model/, stages/)")


def _show_report(folder: Path, title: str | None) -> None:
    files = write_report(folder, title)
    output().print(f"Report: {files.html}\nTables: {files.html.parent / 'tables'}")
    note_formulas(*files.html.parent.glob("tables/*.csv"))
