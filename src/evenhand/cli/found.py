"""Shortcuts that a command doesn't spell: what an audit finds (`--shortcut found`), and those of an audit.json."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from evenhand.auditing import audit
from evenhand.auditing.confirmed import read_confirmed
from evenhand.cli.terminal import RunDisplay
from evenhand.tasks import OwnData, TaskSource
from evenhand.validation import UserError, count
from evenhand.wording import listed

FOUND = "found"


class Trains(Protocol):
    """A verb that trains."""

    @property
    def shortcut(self) -> tuple[str, ...]:
        """Spellings, or `found`."""
        ...

    @property
    def shortcuts(self) -> Path | None:
        """An audit.json."""
        ...

    @property
    def model(self) -> str | None:
        """The model's name."""
        ...

    @property
    def seed(self) -> int:
        """The seed."""
        ...

    def training(self) -> dict[str, Any]:
        """The other options that an audit takes too."""
        ...


def resolved_shortcuts(verb: Trains, task: TaskSource, display: RunDisplay) -> tuple[str, ...]:
    """The spellings of all shortcuts that a verb was told.

    With `found` the data are audited first, by the verb's own model and settings; an audit that was made before is
    taken from its folder.

    Raises:
        UserError: If shortcuts are named in two ways, an audit.json is of other data, or the audit finds none.
    """
    if verb.shortcuts is not None:
        if verb.shortcut:
            raise UserError("--shortcut and --shortcuts both name shortcuts: give one of them.")
        taken = read_confirmed(verb.shortcuts, task)
        spellings = tuple(one.spelling for one in taken.shortcuts)
        display.say(f"Takes {taken.note}: {listed(spellings)}.")
        return spellings
    if FOUND not in verb.shortcut:
        return verb.shortcut
    if len(verb.shortcut) > 1:
        raise UserError("--shortcut found takes what the audit finds, so no other --shortcut can be given beside it.")
    if isinstance(task, OwnData):
        task = replace(task, shortcuts=())
    display.begin("audit")
    options: dict[str, Any] = {**verb.training(), "output_dir": None}
    found = audit(task, verb.model, seeds=[verb.seed], progress=display, **options)
    if not found.shortcuts:
        raise UserError(f"The audit found no likely shortcut, so there is none to name: it {found.verdict}")
    spellings = tuple(one.spelling for one in found.shortcuts)
    display.say(f"The audit found {count(len(spellings), 'likely shortcut')}: {listed(spellings)}.")
    return spellings
