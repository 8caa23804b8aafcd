"""The verb `evenhand tasks`: lists the tasks, explains one with what it holds, and checks counts."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.progress import track
from rich.table import Table
from tyro.conf import Positional

from evenhand.cli.console import PlainConsole, output
from evenhand.cli.named import side_samples, side_table, value_table
from evenhand.cli.options import Shortcuts, default
from evenhand.cli.samples import sample_lines, unreadable, write_contact_sheet
from evenhand.cli.task_options import OWN_DATA, TaskChoice
from evenhand.tasks import TASKS, Task, TaskSource
from evenhand.tasks.shortcuts import with_shortcuts
from evenhand.tasks.splits import compared, split_counts
from evenhand.training.settings import Training
from evenhand.validation import UserError, check_seed, unknown_name
from evenhand.wording import one_line

_SAMPLES = 3  # of train and of the primary test set


@dataclass(frozen=True, kw_only=True)
class Tasks(Shortcuts, TaskChoice):
    """List the tasks, or explain one: origin, licence, bias, metric, published counts, training settings.

    A task that needs no files, or that is given its files, is built, and shown with the counts of its groups and a few
    samples. With --shortcut the shortcut's values are shown too, and which samples go along with it and against it.

    Attributes:
        task: The task to explain or check; without it all are listed, or checked.
        check: Build the task and compare its counts with the published ones, and read every picture; the exit code is
            1 if anything differs. Without a NAME every task that needs no files is checked, and those whose files lie
            in a folder of the task's name below --data-dir.
        samples: A PNG to write a sheet of the task's pictures to, from every group.
        data_seed: Drives the data's construction.
    """

    task: Annotated[Positional[str | None], tyro.conf.arg(metavar="[NAME]")] = None
    check: bool = False
    samples: Annotated[Path | None, default("FILE.png", "none")] = None
    data_seed: int = 0

    def run(self) -> int:
        """Print to standard output."""
        check_seed("tasks", "data_seed", self.data_seed)
        settings = self.settings_given()
        if self.task is None and "data" not in settings:
            others = sorted(set(settings) - ({"data_dir"} if self.check else set()))
            others += ["samples"] * (self.samples is not None) + ["shortcut"] * bool(self.shortcut)
            if others:
                option = others[0].replace("_", "-")
                raise UserError(
                    f"The option --{option} goes with one task: give its name, as in `evenhand tasks NAME`."
                )
            return self._check_all() if self.check else _list_all()
        if self.task is not None and self.task not in TASKS:
            raise unknown_name("task", self.task, TASKS)
        return self._check_one() if self.check else self._explain(settings)

    def _explain(self, settings: dict[str, Any]) -> int:
        source = self._source_unless_incomplete(settings)
        built = None
        if source is not None and (not needs_files(source) or getattr(source, "data_dir", None) is not None):
            built = self._build(source)
        for option, given in (("samples", self.samples), ("shortcut", self.shortcut)):
            if given and built is None:
                raise UserError(
                    f"The option --{option} needs the task's files: give --data-dir; {_files_of(self.task)}"
                )
        if self.samples is not None and built is not None:
            write_contact_sheet(built, self.samples)
        _describe(TASKS[self.task or OWN_DATA], source)
        if source is not None and built is not None:
            _show(built)
            _show_files(source)
        if self.samples is not None:
            output().print(f"\nSheet of pictures: {self.samples}")
        return 0

    def _build(self, source: TaskSource) -> Task:
        built = source.build(self.data_seed)
        return with_shortcuts(built, self.shortcut) if self.shortcut else built

    def _source_unless_incomplete(self, settings: dict[str, Any]) -> TaskSource | None:
        """The task with its settings; None if it can't be made without any, and none are given."""
        try:
            return self.task_source()
        except UserError:
            if settings:
                raise
            return None

    def _check_one(self) -> int:
        source = self.task_source()
        task = self._build(source)
        if self.samples is not None:
            write_contact_sheet(task, self.samples)
        return 0 if _checked(source, task) else 1

    def _check_all(self) -> int:
        """Check what can be built here, and say of the others what is missing."""
        root: Path | None = getattr(self, "data_dir", None)
        if root is not None and not Path(root).is_dir():
            raise UserError(f"The folder '{root}' given as --data-dir does not exist.")
        differ = []
        for name, cls in TASKS.items():
            try:
                source = _with_folder(cls, None if root is None else Path(root) / name)
            except UserError as error:
                output().print(f"{name}: not checked: {one_line(str(error))}")
                continue
            try:
                fine = _checked(source, source.build(self.data_seed))
            except UserError as error:
                output().print(f"{name}: failed: {one_line(str(error))}")
                fine = False
            if not fine:
                differ.append(name)
        if differ:
            output().print(f"\nNot as published, or failed: {', '.join(differ)}.")
        return 1 if differ else 0


def needs_files(source: TaskSource | type[TaskSource]) -> bool:
    """Whether a task is made of files or of the hub's copy of them."""
    return "data_dir" in {f.name for f in dataclasses.fields(source)}  # type: ignore[arg-type]


def _with_folder(cls: type[TaskSource], folder: Path | None) -> TaskSource:
    """The task with its default settings, reading a folder if it needs one.

    Raises:
        UserError: If it can't be made so; what is missing.
    """
    if not needs_files(cls):
        return cls()
    if folder is None or not folder.exists():
        where = (
            f"the folder '{folder}' does not exist" if folder else f"give --data-dir with a folder '{cls.name}' in it"
        )
        raise UserError(f"{where}; {_files_of(cls.name)}")
    return cls(data_dir=folder)  # type: ignore[call-arg]


def _files_of(name: str | None) -> str:
    files = TASKS[name].files if name in TASKS else ""
    return files or f"`evenhand tasks {name}` says what it needs."


def _list_all() -> int:
    table = Table("task", "what it is", "default model")
    for name, task in TASKS.items():
        table.add_row(name, task.summary, task.default_model)
    console = output()
    console.print(table)
    console.print("`evenhand tasks NAME` explains one, with the settings that each model is trained with.")
    return 0


def _describe(cls: type[TaskSource], source: TaskSource | None) -> None:
    console = output()
    facts = {"Origin": cls.origin, "Licence": cls.licence, "Bias": cls.bias, "Metric": cls.metric}
    if cls.files:
        facts["Files in --data-dir"] = cls.files
    lines = [f"{title}: {text}" for title, text in facts.items()]
    console.print(f"{cls.name} — {cls.summary}\n" + "\n".join(lines))
    console.print(f"\n{inspect.getdoc(cls)}\n")
    expected = source.expected_counts() if source is not None else {}
    if expected:
        console.print("Published counts, or those of the construction:")
        console.print(_count_table(expected))
    console.print("Training settings of each stage:")
    for model, training in cls.training.items():
        label = f"{model} (default)" if model == cls.default_model else model
        console.print(f"  {label}: {_described(training)}")
    for model, training in cls.adapter_training.items():
        console.print(f"  {model} with adapters (--lora, --peft): {_described(training)}")


def _show(task: Task) -> None:
    """What a built task holds."""
    console = output()
    console.print(f"\nBuilt (primary test set '{task.primary_test}'):")
    console.print(_count_table({name: split_counts(split) for name, split in task.splits.items()}))
    for name in ("train", task.primary_test):
        console.print(f"First samples of {name}:")
        origins = None if task.origins is None else task.origins(name)
        for line in sample_lines(task.splits[name], _SAMPLES, origins):
            console.print(f"  {one_line(line)}")
    if task.shortcuts is not None:
        for one in task.shortcuts.fitted:
            console.print(value_table(one))
        console.print(side_table(task.shortcuts))
        for line in side_samples(task):
            console.print(line)
    for note in task.notes:
        console.print(one_line(note))


def _show_files(source: TaskSource) -> None:
    """The files that were read, as a run's record describes them."""
    for option, files in source.data_files().items():
        if files is None:
            continue
        told = files.as_dict()
        size = f"{told['count']:,} of {told['bytes']:,} bytes"
        output().print(f"Files of --{option.replace('_', '-')}: {size}, SHA-256 {files.sha256}")


def _count_table(counts: dict[str, dict[str, int]]) -> Table:
    """Splits as columns; all samples, groups and alignments as rows."""
    table = Table("samples", *map(one_line, counts))
    names = dict.fromkeys(what for numbers in counts.values() for what in numbers)
    for what in names:
        cells = [f"{numbers[what]:,}" if what in numbers else "–" for numbers in counts.values()]
        table.add_row("all" if what == "n" else one_line(what), *cells)
    return table


def _checked(source: TaskSource, task: Task) -> bool:
    """Print each count beside the expected one, and read every picture; whether all is well."""
    console = output()
    counts = compared(task.splits, source.expected_counts())
    for count in counts:
        console.print(f"{source.name}: {count}: {'ok' if count.ok else 'DIFFERS'}")
    if not counts:
        sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in task.splits.items())
        console.print(f"{source.name}: no counts are published; built: {sizes}")
    fine = all(count.ok for count in counts)
    for split, rows in task.splits.items():
        if "image" not in rows.column_names:
            continue
        bar = PlainConsole(stderr=True)
        pictures = track(
            unreadable(rows), f"pictures of {split}", total=len(rows), console=bar, disable=not bar.is_terminal
        )
        broken = [problem for problem in pictures if problem is not None]
        if broken:
            fine = False
            console.print(
                f"{source.name}: {split}: {len(broken):,} of {len(rows):,} pictures can't be read, first {broken[0]}"
            )
        else:
            console.print(f"{source.name}: {split}: all {len(rows):,} pictures can be read: ok")
    if task.shortcuts is not None:
        console.print(side_table(task.shortcuts))
    for note in task.notes:
        console.print(f"{source.name}: {one_line(note)}")
    return fine


def _described(training: Training) -> str:
    """The settings in one line, without those that have no effect."""
    shown = dataclasses.asdict(training)
    if training.schedule != "step":
        del shown["step_epochs"]
    return ", ".join(f"{name} {value}" for name, value in shown.items() if value)
