"""Which run of a folder was kept, and by which rule, where `evenhand debias` chose one."""

from __future__ import annotations

from pathlib import Path

from evenhand.files import if_there
from evenhand.runs.record import read_object
from evenhand.runs.schema import ShownItems, Stored, checked


class Chosen(Stored):
    """The run that was kept; the fields are those of `debias.json`."""

    title: str
    rule: str
    sentence: str
    counted: str
    remarks: ShownItems[str] = []
    audited: bool = False


def read_chosen(folder: Path) -> Chosen | None:
    """The choice that a folder's `debias.json` tells of; None where there is none, or none yet.

    Raises:
        UserError: If it can't be read.
    """
    path = folder / "debias.json"
    raw = if_there(read_object, path)
    choice = None if raw is None else raw.get("choice")
    if not isinstance(choice, dict):
        return None
    return checked(Chosen, choice | {"audited": (folder / "audit" / "audit.html").is_file()}, str(path))
