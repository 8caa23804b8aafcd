"""What `evenhand debias` does: audit, ask, train, choose; and what it shows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from rich.table import Column, Table

from evenhand.cli.console import PlainConsole, note_formulas, output
from evenhand.cli.options import ModelOptions, default
from evenhand.cli.terminal import RunDisplay
from evenhand.studies.choice import Measured
from evenhand.studies.confirm import Question
from evenhand.studies.debias import Debiased, debias
from evenhand.validation import UserError
from evenhand.wording import one_line, percent

_YES, _NO = ("y", "yes"), ("n", "no")
_SIDES = {"along": "aligned", "against": "conflicting"}


@dataclass(frozen=True, kw_only=True)
class Debias(ModelOptions):
    """From data to a model that doesn't take the shortcuts you name: audit, ask, train, choose.

    Audits the data, asks of each likely shortcut whether the model must not rely on it, trains plainly (ERM) and with
    methods that correct, and keeps the model that the validation rows speak for. It ends with model/, report.html and
    one sentence. What was stopped goes on where it was when the same command is given again.

    Attributes:
        yes: Take every likely shortcut that the audit finds, without a question.
        budget: Train so many models at most, those of the audit included.
        seed: Drives initialisation, order and dropout.
        output_dir: The folder of what is made; runs/TASK/debias-… unless given.
    """

    yes: bool = False
    budget: Annotated[int | None, default("INT", "every method that may help")] = None
    seed: int = 0

    def run(self) -> int:
        """Do all that, and say what came of it."""
        if self.yes and self.shortcut:
            raise UserError(
                "--yes takes the shortcuts that the audit finds and --shortcut names them: give one of them."
            )
        asks = not self.yes and not self.shortcut and sys.stdin.isatty() and sys.stderr.isatty()
        with RunDisplay(self.quiet, epochs=False, shows_data=True) as display:
            found = debias(
                self.task_source(),
                self.model,
                shortcuts="found" if self.yes else self.shortcut or None,
                confirm=_Asking(display) if asks else None,
                budget=self.budget,
                seed=self.seed,
                progress=display,
                **self.training(),
            )
        _show(found)
        return 0


class _Asking:
    """Asks in the terminal, with the bars out of the way."""

    def __init__(self, display: RunDisplay) -> None:
        self.display = display
        self.console = PlainConsole(stderr=True)

    def __call__(self, question: Question) -> bool:
        with self.display.paused():
            self.console.print(f"\nFound, {question.place}: {question.text}")
            for example in question.examples:
                self.console.print(f"  {example}")
            while True:
                self.console.print("Must the model not rely on it? [y/n] ", end="")
                line = sys.stdin.readline()
                if not line:
                    self.console.print()
                    raise UserError(
                        "The input ended before the question was answered: give the same command again, with --yes or "
                        "--shortcut where nobody can answer."
                    )
                answer = line.strip().lower()
                if answer in (*_YES, *_NO):
                    return answer in _YES
                self.console.print(
                    "Answer y if the label can't be told by it where the model will be used, and n if it can."
                )


def _show(found: Debiased) -> None:
    console, choice = output(), found.choice
    console.print(_table(found))
    console.print(choice.rule)
    for remark in choice.remarks:
        console.print(one_line(remark))
    console.print(f"\n{one_line(choice.sentence)}\n{one_line(choice.counted)}")
    folder = found.folder
    console.print(f"Model: {folder / 'model'}\nPage: {found.page}")
    if found.audit is not None:
        console.print(f"Audit: {found.audit.folder / 'audit.html'}")
    note_formulas(*folder.glob("tables/*.csv"))


def _table(found: Debiased) -> Table:
    """Each run on validation rows, by which it is judged, and on the test rows."""
    primary = next(iter(found.runs.values())).primary_test or "test"
    splits = {"validation": "valid.", primary: "test"}
    of = {name: [Measured.of(record, split) for split in splits] for name, record in found.runs.items()}
    sided = all("conflicting" in measured.sides for measured in of[found.chosen])
    heads = ("all", *(("along", "against") if sided else ()))
    columns = [Column(f"{split}\n{head}", justify="right") for split in splits.values() for head in heads]
    table = Table(Column("accuracy %\nof rows"), *columns)
    for name, measured in of.items():
        title = found.runs[name].method.title
        shares = [m.average if head == "all" else m.sides[_SIDES[head]] for m in measured for head in heads]
        kept = " (kept)" if name == found.chosen else ""
        table.add_row(f"{title}{kept}", *(percent(share.accuracy) for share in shares))
    return table
