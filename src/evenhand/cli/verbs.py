"""What each verb of the command line does: `demo`, `train`, `evaluate`, `study`, `report`, `methods`, `tasks`.

Options are the fields of the dataclasses below; the command line (cli.py) makes its parser and help of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.table import Table
from tyro.conf import Positional

from evenhand.cli.evaluate import EvaluateVerb
from evenhand.cli.study import StudyVerb
from evenhand.cli.task_options import TaskChoice
from evenhand.cli.tasks import Tasks
from evenhand.cli.terminal import RunDisplay, group_lines, metrics_table, output, percent
from evenhand.methods import EDGE, ERM, METHODS, PGD, Even, Method
from evenhand.methods.base import nothing_done
from evenhand.models.adapters import AdapterKind, Adapters
from evenhand.report import write_report
from evenhand.runs.fit import Device, Result, fit
from evenhand.runs.worst_groups import record_groups
from evenhand.training.processes import is_first_process, leave
from evenhand.training.stage import StageError
from evenhand.validation import UserError, check_integer, unknown_name


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """That many threads for torch while it lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _left_to_task(metavar: str) -> Any:
    """An option that is the task's own unless given."""
    return _default(metavar, "the task's")


def _default(metavar: str, default: str) -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True, kw_only=True)
class Train(TaskChoice):
    """Train one method on one task with one seed: stages, models and the record go to the output folder.

    A run that was stopped goes on where it was when the same command is given again.

    Attributes:
        task: The task; `evenhand tasks` lists them. With --data it is own-data.
        model: One of `mlp`, `pgd-cnn`, `digits-cnn`, `tiny-bert`, `small-vit`, `small-resnet`, `MiniLM`; a folder; or a
            name on the Hugging Face hub.
        fresh: Take the model's architecture only: all weights are random at first.
        epochs: Epochs of each stage.
        lr: Learning rate.
        batch_size: Samples a step.
        bf16: Train under autocast to bfloat16: faster on most GPUs, and on processors that multiply it (AMX).
        lora: Train LoRA adapters and the head instead of the whole model; short for --peft lora.
        head_only: Train the head alone on the frozen model; short for --peft head.
        peft: Adapters to train with the head instead of the whole model.
        peft_r: Rank of lora and dora.
        peft_alpha: Their update is scaled by alpha / r.
        peft_dropout: Their dropout.
        peft_targets: Layers to adapt, separated by commas, or all-linear.
        seed: Drives initialisation, order and dropout.
        data_seed: Drives the data's construction; equal to the seed unless given.
        output_dir: The run's folder; runs/TASK/… unless given.
        device: `auto` takes a GPU if there is one.
        quiet: Show nothing but the result.
    """

    model: Annotated[str | None, _left_to_task("NAME")] = None
    epochs: Annotated[int | None, _left_to_task("INT")] = None
    lr: Annotated[float | None, _left_to_task("FLOAT")] = None
    batch_size: Annotated[int | None, _left_to_task("INT")] = None
    bf16: bool = False
    fresh: bool = False
    lora: bool = False
    head_only: bool = False
    peft: Annotated[AdapterKind | None, _default("{lora,dora,ia3,head}", "none: the whole model trains")] = None
    peft_r: Annotated[int | None, _default("INT", "8")] = None
    peft_alpha: Annotated[float | None, _default("FLOAT", "16")] = None
    peft_dropout: Annotated[float | None, _default("FLOAT", "0.1")] = None
    peft_targets: Annotated[str | None, _default("NAMES", "peft's for the architecture")] = None
    seed: int = 0
    data_seed: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the seed)")] = None
    output_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/TASK/…)")] = None
    device: Device = "auto"
    quiet: bool = False

    def run(self, method: Method) -> int:
        """Train, and say where the result lies."""
        task = self.task_source()
        adapters = self.adapters()
        with RunDisplay(self.quiet or not is_first_process(), shows_data=True) as display:
            display.begin(method.title)
            result = fit(
                method,
                task,
                self.model,
                seed=self.seed,
                data_seed=self.data_seed,
                output_dir=self.output_dir,
                epochs=self.epochs,
                lr=self.lr,
                batch_size=self.batch_size,
                bf16=self.bf16,
                peft=adapters,
                fresh=self.fresh,
                device=self.device,
                progress=display,
            )
        if is_first_process():
            _show_result(method, result)
        leave()
        return 0

    def adapters(self) -> Adapters | None:
        """The adapters asked for by --lora, --head-only or --peft; None trains the whole model.

        Raises:
            UserError: If the flags contradict each other, or an option of adapters is given without any.
        """
        if self.lora and self.head_only:
            raise UserError("--lora trains adapters and --head-only none: give one of them.")
        short: AdapterKind | None = "lora" if self.lora else "head" if self.head_only else None
        kind = self.peft or short
        if short is not None and kind != short:
            flag = "--lora" if self.lora else "--head-only"
            raise UserError(f"{flag} is short for --peft {short}, so it can't be given beside --peft {kind}.")
        options = {name: getattr(self, f"peft_{name}") for name in ("r", "alpha", "dropout", "targets")}
        given = {name: value for name, value in options.items() if value is not None}
        if kind is None:
            if given:
                raise UserError(f"The option --peft-{next(iter(given))} needs --lora or --peft.")
            return None
        return Adapters(kind=kind, **given)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train ERM, EDGE (own and biased signal), PGD and Even on colored-digits, and show who took the shortcut.

    Takes some minutes on two cores; needs no network. What was trained before is not trained again.

    Attributes:
        text: Train on marked-notes, sentences whose last word leaks the label, instead of images.
        model: The model; `MiniLM` reads texts better than the default, and takes longer.
        seeds: How many seeds of each method (0, 1, …); they draw the bias, the weights and the order.
        epochs: Epochs of each stage.
        output_dir: Where the runs and report.html go; runs/demo, or runs/demo-text with --text, unless given.
        device: `auto` takes a GPU if there is one.
        quiet: Show nothing but the result.
    """

    text: bool = False
    model: Annotated[str | None, _left_to_task("NAME")] = None
    seeds: int = 3
    epochs: Annotated[int | None, _left_to_task("INT")] = None
    output_dir: Annotated[Path | None, _default("DIR", "runs/demo, or runs/demo-text")] = None
    device: Device = "auto"
    quiet: bool = False

    def run(self) -> int:
        """Train everything, then write the report; a run that fails is shown in it."""
        check_integer("demo", "seeds", self.seeds, 1)
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
        console.print(f"{self.name} — {method.paper}\n\n{inspect.getdoc(method)}", markup=False)
        console.print(f"\nLabels needed beyond the class: {method.label_access}", markup=False)
        return 0


VERBS: dict[str, type[Any]] = {
    "demo": Demo,
    "train": Train,
    "evaluate": EvaluateVerb,
    "study": StudyVerb,
    "report": Report,
    "methods": Methods,
    "tasks": Tasks,
}


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
        console.print(line, markup=False)
    for note in record.get("notes", []):
        console.print(note, markup=False)
    console.print(f"Result: {result.folder} (record.json, model/, stages/)", markup=False)


def _show_report(folder: Path, title: str | None) -> None:
    files = write_report(folder, title)
    output().print(f"Report: {files.html}\nTables: {files.html.parent / 'tables'}", markup=False)
