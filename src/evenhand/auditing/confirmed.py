"""The shortcuts of an `audit.json`: those that a person confirmed, or else the likely ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.auditing.findings import Finding
from evenhand.files import Files
from evenhand.runs.record import read_object
from evenhand.shortcuts import Shortcut
from evenhand.shortcuts.named import TRAIN, NamedShortcuts
from evenhand.tasks import Task, TaskSource
from evenhand.tasks.shortcuts import rows_of
from evenhand.validation import UserError, count

MOST = 12
"""So many findings are named at most."""

LIKELY = ("leak", "strong")
"""Verdicts of findings that are taken where nobody has confirmed any."""


@dataclass(frozen=True)
class Confirmed:
    """What is taken of an audit.

    Attributes:
        shortcuts: The shortcuts.
        note: Whether a person confirmed them.
    """

    shortcuts: tuple[Shortcut, ...]
    note: str


def nameable(task: Task, likely: Sequence[Finding]) -> list[tuple[Finding, NamedShortcuts]]:
    """The findings that can be named together, each with itself and those before it, fitted on the training rows.

    Left out is what has no spelling, what the rows' labels alone don't bear, and what is one rule with an earlier one,
    as the two words of a pair are of which every row has one.

    Args:
        task: The data.
        likely: The findings, those that tell most first.
    """
    train = {TRAIN: rows_of(task)[TRAIN]}
    found: list[tuple[Finding, NamedShortcuts]] = []
    rules: list[Shortcut] = []
    for finding in likely:
        if finding.shortcut is None or len(found) == MOST:
            continue
        try:
            named = NamedShortcuts.fit([*rules, finding.shortcut], train, task.label_names)
        except UserError:
            continue
        if named.fitted[-1].points_anywhere:
            found.append((finding, named))
            rules.append(finding.shortcut)
    return found


def data_identity(settings: Mapping[str, Any], files: Mapping[str, Files | None]) -> dict[str, Any]:
    """What an audit's data are known again by, as JSON has it.

    Args:
        settings: How the data are read or made, such as which columns are the text and the label.
        files: The files of each option; None for unknown ones.

    Returns:
        The settings but for shortcuts and names of known files, and the digest of each option's files.
    """
    known = {option: found.sha256 for option, found in files.items() if found is not None and option != "model"}
    told = {name: value for name, value in settings.items() if name not in known and name != "shortcuts"}
    return json.loads(json.dumps({"settings": told, "files": known}))


def read_confirmed(path: Path, source: TaskSource) -> Confirmed:
    """The shortcuts of an `audit.json` on the same data.

    A finding whose `confirmed` is true is taken, and one where it is false isn't. Where no finding has either, the
    likely ones are taken.

    Args:
        path: The file.
        source: The data that the shortcuts are for.

    Raises:
        UserError: If the file is no audit with spellings, is of other data, or holds no shortcut to take.
    """
    content = read_object(path)
    findings = content.get("findings")
    if content.get("kind") != "audit" or not isinstance(findings, list):
        raise UserError(f"'{path}' is no audit.json: give the file that `evenhand audit` wrote.")
    if "data" not in content or not all(isinstance(one, dict) and "shortcut" in one for one in findings):
        raise UserError(f"The audit '{path}' is of an older version, whose findings can't be passed on: audit again.")
    files = source.data_files()
    settings = source.settings_beside({option: found for option, found in files.items() if found is not None})
    if content.get("task") != source.name or content["data"] != data_identity(settings, files):
        raise UserError(
            f"The audit '{path}' is of other data than those given, or of data that are read in another way: audit "
            "these, or name shortcuts with --shortcut."
        )
    answered = [one for one in findings if isinstance(one.get("confirmed"), bool)]
    taken = [one for one in answered if one["confirmed"]] if answered else _likely(findings)
    shortcuts = tuple(Shortcut.parse(str(one["shortcut"])) for one in taken if one["shortcut"] is not None)
    if not shortcuts:
        why = "nobody confirmed one of its findings" if answered else "it found no likely one"
        raise UserError(f"The audit '{path}' has no shortcut to take: {why}.")
    how = "confirmed by a person" if answered else "likely, and not confirmed by a person"
    return Confirmed(shortcuts, f"{count(len(shortcuts), 'shortcut')} of '{path}' ({how})")


def _likely(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in findings if one.get("verdict") in LIKELY]
