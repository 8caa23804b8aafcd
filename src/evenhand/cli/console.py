"""The consoles that everything is printed to: what the user's data say is shown as it stands, and is never markup."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from evenhand.evaluation.exports import has_escaped
from evenhand.wording import listed, visible


class PlainConsole(Console):
    """A console on which square brackets, colons and control characters mean nothing.

    Args:
        looks: As of rich's own; standard output unless `file` or `stderr` is given.
    """

    def __init__(self, **looks: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **looks)

    def render_str(self, text: str, **looks: Any) -> Text:
        """As rich's own, which print, tables and their headings call for every text that isn't styled already."""
        style = looks.get("style") or ""
        return Text(visible(text), style, justify=looks.get("justify"), overflow=looks.get("overflow"))

    def on_broken_pipe(self) -> None:
        """Whoever reads standard output has gone, so there is nothing to say; a run goes on if progress isn't read."""
        if not self.stderr:
            raise BrokenPipeError
        self.quiet = True
        discard(sys.stderr)


def output() -> Console:
    """Standard output, for results."""
    return PlainConsole(file=sys.stdout)


def note_formulas(*files: Path) -> None:
    """Say in which CSV files texts are written with an apostrophe before them."""
    tables = [path for path in files if path.suffix == ".csv" and has_escaped(path)]
    if tables:
        output().print(
            f"Texts that a spreadsheet would compute, such as =1+1, begin with ' in {listed(map(str, tables))}."
        )


def discard(stream: Any) -> None:
    """Send to nowhere what is still written to a stream that nobody reads, also what Python writes when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def write_any_text() -> None:
    """Let standard output and standard error replace what their encoding doesn't have, such as – in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
