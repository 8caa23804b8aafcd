"""What `evenhand evaluate` does: a trained model on a task or on new data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro
from rich.table import Table
from tyro.conf import Positional

from evenhand.cli.console import note_formulas, output
from evenhand.cli.options import OnDevice, Shortcuts, default
from evenhand.cli.task_options import TaskChoice
from evenhand.cli.terminal import classes_table, group_lines
from evenhand.evaluation.exports import write_csv
from evenhand.files import check_place, whole_file
from evenhand.metrics import GroupShare
from evenhand.runs.by_class import class_shares
from evenhand.runs.by_shortcut import shortcut_lines
from evenhand.runs.evaluate import Evaluated, evaluate
from evenhand.runs.worst_groups import told_groups
from evenhand.validation import UserError
from evenhand.wording import distinct, one_line, percent

_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": write_csv,
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


@dataclass(frozen=True, kw_only=True)
class EvaluateVerb(Shortcuts, OnDevice, TaskChoice):
    """Measure a trained model on a task or on new data: accuracy by group with intervals, and every prediction.

    The model is that of a run of evenhand's, or any image or sequence classifier of transformers with its tokenizer or
    image processor. A run is measured on its own task unless another one or data are given. Where a run was trained on
    your own data, --data says where they lie: the very file has the run's splits, any other is measured whole, with the
    run's columns unless you name others.

    Attributes:
        model: A run's folder, a model's folder, or a name on the Hugging Face hub.
        task: The task to measure it on; `evenhand tasks` lists them. With --data it is own-data.
        on: Splits to measure, such as `test clean`; all but train unless given.
        predictions: Table of every prediction to write, FILE.csv or FILE.parquet.
        json: Print everything as JSON instead of tables.
        data_seed: Seed of the task's construction; the run's, or 0, unless given.
        batch_size: Samples a forward pass.
        shortcut: A shortcut to measure by, such as token:nimbus or colour; may be given several times. Else those that
            the run was trained with.
    """

    model: Annotated[Positional[str], tyro.conf.arg(metavar="RUN|MODEL")]
    task: Annotated[str | None, default("NAME", "the run's own, or your --data")] = None
    on: Annotated[tuple[str, ...], default("SPLIT [...]", "all but train")] = ()
    predictions: Annotated[Path | None, default("FILE", "none")] = None
    json: bool = False
    data_seed: Annotated[int | None, default("INT", "the run's, or 0")] = None
    batch_size: int = 256
    shortcut: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], default("SPELLING", "the run's")]] = ()

    def run(self) -> int:
        """Measure, write the table of predictions if asked, and print."""
        if self.predictions is not None:
            _check_place(self.predictions)
        named = self.task_given()  # else a run is measured on its own task, perhaps with other settings
        found = evaluate(
            self.model,
            self.task_source() if named else None,
            on=self.on or None,
            data_seed=self.data_seed,
            settings={} if named else self.settings_given(),
            shortcuts=self.shortcut,
            batch_size=self.batch_size,
            device=self.device,
        )
        if self.predictions is not None:
            table = pd.concat([split.predictions for split in found.values()], ignore_index=True)
            with whole_file(self.predictions) as partial:
                _WRITERS[self.predictions.suffix](table, partial)
        if self.json:
            content = {"model": self.model, "splits": {name: described(split) for name, split in found.items()}}
            output().print(json.dumps(content, indent=1, allow_nan=False))
            return 0
        for name, split in found.items():
            _show(name, split)
        for note in distinct(note for split in found.values() for note in split.notes):
            output().print(one_line(note))
        if self.predictions is not None:
            output().print(f"Predictions: {self.predictions}")
            note_formulas(self.predictions)
        return 0


def described(split: Evaluated) -> dict[str, Any]:
    """A split's metrics for a reader that is a program."""

    def shares(found: dict[str, GroupShare]) -> dict[str, Any]:
        return {n: {"accuracy": s.accuracy, "n": s.n, "interval": s.interval} for n, s in found.items()}

    metrics = split.result.metrics
    return {
        "metrics": {name: value for name, value in metrics.items() if name != "by_group"},
        "shares": shares(split.shares),
        "groups": shares(split.groups),
        "groups_not_counted": split.result.not_counted,
        "notes": list(split.notes),
    }


def _show(name: str, split: Evaluated) -> None:
    table = Table(title=one_line(name), title_justify="left")
    table.add_column("samples")
    for column in ("n", "accuracy %", "95 % interval"):
        table.add_column(column, justify="right")
    for part, found in (("", split.shares), ("group ", split.groups)):
        for label, share in found.items():
            ends = "–" if share.interval is None else " to ".join(percent(end) for end in share.interval)
            table.add_row(
                one_line(f"{part}{'all' if label == 'average' else label}"), str(share.n), percent(share.accuracy), ends
            )
    console = output()
    console.print(table)
    for classes in classes_table(class_shares(split.result.metrics)):
        console.print(classes)
    metrics = split.result.metrics
    for line in (*group_lines(told_groups(metrics), metrics["by_group"]), *shortcut_lines(metrics)):
        console.print(line)
    weighted = metrics["average_train_weighted"]
    if weighted is not None:
        console.print(f"Average, groups weighted as in train: {percent(weighted)} %.")


def _check_place(path: Path) -> None:
    if path.suffix not in _WRITERS:
        raise UserError(f"The table of predictions must be a .csv or .parquet file. Got '{path}'.")
    check_place(path)
    if not path.absolute().parent.is_dir():
        raise UserError(f"The table of predictions can't be written to '{path}': its folder doesn't exist.")
