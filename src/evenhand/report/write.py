"""`write_report`: everything a folder of runs has to say, as a page and as tables."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.report.cells import Section, group_records
from evenhand.report.cost import cost_sentence
from evenhand.report.curves import curves_data, stage_curves
from evenhand.report.facts import commands, section_facts
from evenhand.report.headline import headline, section_notes
from evenhand.report.page import render_page
from evenhand.report.plans import find_plans, with_planned
from evenhand.report.ranking import best_other, fault
from evenhand.report.sweeps import Sweep, find_sweeps, sweeps_data
from evenhand.report.table import csv_text
from evenhand.report.tables import Tables, Told, methods_latex, methods_markdown, runs_csv, section_tables
from evenhand.report.worst_table import run_columns, worst_data
from evenhand.runs.read import METRICS, Record, find_records

JSON_FORMAT = 1  # of report.json; raised when a reader of the old one would misread the new one


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

    They are made from every `record.json` and `study.json` below it.

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
    told = [(section, section_tables(section)) for section in sections]

    def rows(name: str) -> str:
        return csv_text(row for _, made in told for row in made[name].data)

    timed = {
        files.html: lambda: render_page(title, told, sweeps, folder),
        files.json: lambda: report_json(title, told, sweeps),
        files.cost_csv: lambda: rows("cost"),
    }
    # All is computed before anything is written: a bad record leaves the last report as it was.
    contents = {
        **{path: make() for path, make in timed.items() if page},
        files.markdown: methods_markdown(title, told),
        files.csv: rows("methods"),
        files.runs_csv: runs_csv(records, folder),
        files.latex: methods_latex(told),
        files.tests_csv: rows("tests"),
        files.detection_csv: rows("detection"),
        files.groups_csv: rows("groups"),
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
    told = [(section, section_tables(section)) for section in sections]
    return render_page(title or plans.title or _title(sections), told, find_sweeps(sections), folder)


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


def report_json(title: str, told: Told, sweeps: Sequence[Sweep]) -> str:
    """Everything that the page shows but its pictures' looks and the samples; accuracies are fractions of 1."""
    content = {
        "format": JSON_FORMAT,
        "title": title,
        "sections": [_section(section, tables) for section, tables in told],
        "sweeps": sweeps_data(sweeps),
    }
    # ASCII: half a surrogate pair in a name stays what it was
    return json.dumps(_finite(content), ensure_ascii=True, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The same with None in place of numbers that JSON hasn't; a record's optional parts may hold any."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _section(section: Section, tables: Tables) -> dict[str, Any]:
    return {
        "heading": section.heading,
        "headline": headline(section, cost_sentence(section, best_other(section))),
        "notes": section_notes(section),
        "baseline": section.baseline.label if section.baseline else None,
        "methods": [
            {
                "label": cell.label,
                "method": cell.first.method,
                "settings": cell.first.method_settings,
                "label_access": cell.first.label_access,
                "selection": cell.first.selection,
                "fault": fault(cell) if cell.done else None,
                "metrics": {
                    name: {part: getattr(summary, part) for part in ("mean", "std", "low", "high", "n")}
                    for name in METRICS
                    for summary in [cell.summary(name)]
                },
                "worst_and_small_groups": worst_data(cell),
                "commands": commands(cell),
                "runs": [_run(run) for run in cell.runs],
            }
            for cell in section.cells
        ],
        "tests": tables["tests"].data,
        "groups": tables["groups"].data,
        "detection": tables["detection"].data,
        "cost": tables["cost"].data,
        "settings": section_facts(section),
    }


def _run(run: Record) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "data_seed": run.data_seed,
        "status": run.status,
        "error": run.error,
        "did_nothing": run.did_nothing,
        "configuration": run.configuration,
        "primary_test": run.primary_test,
        "tests": {
            name: found.overall | run_columns(found) | {"by_group": found.by_group} for name, found in run.tests.items()
        },
        "curves": stage_curves(run),
        "versions": run.part("versions"),
        "commit": run.part("commit"),
        "machine": run.part("machine"),
    }
