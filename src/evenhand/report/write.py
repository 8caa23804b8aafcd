"""`write_report`: everything a folder of runs has to say, as a page and as tables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from evenhand.report.cells import Section, group_records
from evenhand.report.page import render_page, section_notes
from evenhand.report.records import find_records
from evenhand.report.tables import methods_csv, methods_markdown, runs_csv


@dataclass(frozen=True)
class ReportFiles:
    """Where `write_report` wrote.

    Attributes:
        html: The page, in one file that needs no network.
        markdown: Its main tables as Markdown.
        csv: One row a method and task, at full precision.
        runs_csv: One row a run, at full precision.
    """

    html: Path
    markdown: Path
    csv: Path
    runs_csv: Path


def write_report(folder: Path, title: str | None = None) -> ReportFiles:
    """Write `report.html` and `tables/` into a folder of runs, from every `record.json` below it.

    Args:
        folder: The folder of one run, of a study, or of several.
        title: The page's heading; made from the tasks' names if not given.

    Returns:
        The paths of the files. Each is complete or untouched, also if the program is stopped while it writes.

    Raises:
        UserError: If the folder is missing, holds no record, or holds one that can't be read.
    """
    folder = Path(folder)
    records = find_records(folder)
    sections = group_records(records)
    title = title or _title(sections)
    tables = folder / "tables"
    files = ReportFiles(folder / "report.html", tables / "methods.md", tables / "methods.csv", tables / "runs.csv")
    # All is computed before anything is written: a bad record leaves the last report as it was.
    contents = {
        files.html: render_page(title, sections, folder),
        files.markdown: methods_markdown(title, [(section, section_notes(section)) for section in sections]),
        files.csv: methods_csv(sections),
        files.runs_csv: runs_csv(records, folder),
    }
    tables.mkdir(exist_ok=True)
    for path, content in contents.items():
        _replace(path, content)
    return files


def _title(sections: list[Section]) -> str:
    tasks = sorted({run.task for section in sections for run in section.runs})
    return f"Shortcuts on {tasks[0]}" if len(tasks) == 1 else f"Shortcuts on {len(tasks)} tasks"


def _replace(path: Path, content: str) -> None:
    """Write under a temporary name, then rename: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # "replace": a name from a record may hold half a surrogate pair, which no UTF-8 file can.
        temporary.write_bytes(content.encode("utf-8", "replace"))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
