"""What a debiasing keeps in its folder, so that it goes on where it was: what was asked, the answers, the choice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.files import LOCK, check_place
from evenhand.runs.configuration import Configuration
from evenhand.runs.differences import differences_text
from evenhand.runs.record import read_object, write_json
from evenhand.validation import UserError

FORMAT = 1  # of debias.json
FILE = "debias.json"


@dataclass
class Kept:
    """`debias.json` of a folder.

    Attributes:
        folder: The folder.
        begun: What is debiased and by which shortcuts, as the command that began it said.
        answers: Shortcut → whether the model must not rely on it.
        choice: The run that is kept, once there is one.
    """

    folder: Path
    begun: Mapping[str, Any]
    answers: dict[str, bool] = field(default_factory=dict)
    choice: Mapping[str, Any] | None = None

    @classmethod
    def open(cls, folder: Path, configuration: Configuration, asked: Any) -> Kept:
        """What a folder holds; nothing is written.

        Args:
            folder: The folder.
            configuration: ERM's.
            asked: Where the shortcuts come from.

        Raises:
            UserError: If the folder holds anything else, or a debiasing of other data, settings or shortcuts.
        """
        begun = {"configuration": configuration.run_hash, "described": configuration.as_dict(), "asked": asked}
        if not os.access(folder, os.F_OK):
            check_place(folder / FILE)
            return cls(folder, begun)
        if not folder.is_dir():
            raise UserError(f"The output folder '{folder}' is a file.")
        if not (folder / FILE).exists():
            if any(entry.name not in (LOCK, ".writable") and entry.suffix != ".partial" for entry in folder.iterdir()):
                raise UserError(
                    f"The output folder '{folder}' is not empty and holds no debiasing: choose another one."
                )
            return cls(folder, begun)
        found = read_object(folder / FILE)
        stored = found.get("begun")
        if found.get("format") != FORMAT or not isinstance(stored, dict) or not isinstance(found.get("answers"), dict):
            raise UserError(
                f"The file '{folder / FILE}' is none that this version of evenhand reads: choose another folder."
            )
        if stored.get("configuration") != begun["configuration"]:
            told = differences_text(stored.get("described") or {}, begun["described"])
            raise UserError(
                f"The output folder '{folder}' holds a debiasing of another configuration ({told or 'other data'}; "
                "stored → asked): choose another one."
            )
        if stored.get("asked") != asked:
            raise UserError(
                f"The output folder '{folder}' holds a debiasing that took its shortcuts from elsewhere "
                f"({_source(stored.get('asked'))}; now: {_source(asked)}): choose another one."
            )
        return cls(folder, begun, found["answers"], found.get("choice"))

    def save(self) -> None:
        """Write it, whole or not at all."""
        content = {"format": FORMAT, "kind": "debias", "begun": self.begun, "answers": self.answers}
        write_json(self.folder / FILE, content | {"choice": self.choice})


def _source(asked: Any) -> str:
    if isinstance(asked, list):
        return ", ".join(str(name) for name in asked)
    return "all that the audit finds" if asked == "found" else "a person's answers" if asked == "asked" else "none"
