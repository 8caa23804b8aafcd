"""`write_report`: everything a folder of runs has to say, as a page and as tables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from evenhand.report.cells import Section, group_records
from evenhand.report.cost import cost_data
from evenhand.report.curves import curves_data
from evenhand.report.data import report_json
from evenhand.report.detection import detection_data
from evenhand.report.heat import groups_data
from evenhand.report.latex import methods_latex
from evenhand.report.page import render_page, section_notes
from evenhand.report.paired import paired_data
from evenhand.report.plans import find_plans, with_planned
from evenhand.report.sweeps import find_sweeps, sweeps_data
from evenhand.report.tables import csv_text, methods_csv, methods_markdown, runs_csv
from evenhand.runs.read import find_records


@dataclass(frozen=True)
class ReportFiles:
    """Where `write_report` wrote.

    Attributes:
        html: The page, in one file that needs no network.
        markdown: Its main tables as Markdown.
        csv: One row a method and task, at full precision.
        runs_csv: One row a run, at full precision.
        latex: The main tables and the paired tests as LaTeX (booktabs).
        tests_csv: One row a paired test, at full precision.
        detection_csv: One row a method that scores samples: how well it finds the conflicting ones.
        groups_csv: One row a method and group of the primary test set.
        curves_csv: One row a run, stage, epoch and series of what was measured while training.
        sweeps_csv: One row a value of a setting that takes several numbers, and line.
        json: All that the page shows at full precision; with the page only, since it holds times.
        cost_csv: One row a method: time and memory; with the page only.
    """

    html: Path
    markdown: Path
    csv: Path
    runs_csv: Path
    latex: Path
    tests_csv: Path
    detection_csv: Path
    groups_csv: Path
    curves_csv: Path
    sweeps_csv: Path
    json: Path
    cost_csv: Path


def write_report(folder: Path, title: str | None = None, *, page: bool = True) -> ReportFiles:
    """Write `report.html`, `report.json` and `tables/` into a folder of runs.

    They are made from every run and every `study.json` below it.

    Args:
        folder: The folder of one run, of a study, or of several.
        title: The page's heading; made from the tasks' names if not given.
        page: Whether to write the page too, which is some megabytes, and what else holds times; or only the tables
            that are the same whenever the runs are repeated.

    Returns:
        The paths of the files. Each is complete or untouched, also if the program is stopped while it writes.

    Raises:
        UserError: If the folder is missing, holds no record, or holds one that can't be read.
    """
    folder = Path(folder)
    plans = find_plans(folder)
    records = with_planned(find_records(folder), plans)
    sections = group_records(records, plans)
    title = title or plans.title or _title(sections)
    tables = folder / "tables"
    files = ReportFiles(
        html=folder / "report.html",
        markdown=tables / "methods.md",
        csv=tables / "methods.csv",
        runs_csv=tables / "runs.csv",
        latex=tables / "methods.tex",
        tests_csv=tables / "tests.csv",
        detection_csv=tables / "detection.csv",
        groups_csv=tables / "groups.csv",
        curves_csv=tables / "curves.csv",
        sweeps_csv=tables / "sweeps.csv",
        json=folder / "report.json",
        cost_csv=tables / "cost.csv",
    )
    sweeps = find_sweeps(sections)
    timed = {
        files.html: lambda: render_page(title, sections, sweeps, folder),
        files.json: lambda: report_json(title, sections, sweeps),
        files.cost_csv: lambda: csv_text(cost_data(sections)),
    }
    noted = [(section, section_notes(section)) for section in sections]
    # All is computed before anything is written: a bad record leaves the last report as it was.
    contents = {
        **{path: make() for path, make in timed.items() if page},
        files.markdown: methods_markdown(title, noted),
        files.csv: methods_csv(sections),
        files.runs_csv: runs_csv(records, folder),
        files.latex: methods_latex(noted),
        files.tests_csv: csv_text(paired_data(sections)),
        files.detection_csv: csv_text(detection_data(sections)),
        files.groups_csv: csv_text(groups_data(sections)),
        files.curves_csv: csv_text(curves_data(sections)),
        files.sweeps_csv: csv_text(sweeps_data(sweeps)),
    }
    tables.mkdir(exist_ok=True)
    for path, content in contents.items():
        replace_file(path, content)
    return files


def report_page(folder: Path, title: str | None = None) -> str:
    """The page of `write_report` as a text; nothing is written.

    Raises:
        UserError: As of `write_report`.
    """
    plans = find_plans(folder)
    sections = group_records(with_planned(find_records(folder), plans), plans)
    return render_page(title or plans.title or _title(sections), sections, find_sweeps(sections), folder)


def _title(sections: list[Section]) -> str:
    tasks = sorted({run.task for section in sections for run in section.runs})
    return f"Shortcuts on {tasks[0]}" if len(tasks) == 1 else f"Shortcuts on {len(tasks)} tasks"


def replace_file(path: Path, content: str) -> None:
    """Write under a temporary name, then rename: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # "replace": a name from a record may hold half a surrogate pair, which no UTF-8 file can.
        temporary.write_bytes(content.encode("utf-8", "replace"))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
