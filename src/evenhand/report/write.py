"""Everything that a folder of runs or an audit has to say, as a page and as tables; `evenhand.report` calls it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jinja2 import UndefinedError

from evenhand.files import check_place, write_text
from evenhand.report.audit_page import audit_markdown, render_audit_page
from evenhand.report.cells import Section, group_records
from evenhand.report.changed import changed_data, counts_data
from evenhand.report.chosen import read_chosen
from evenhand.report.cost import cost_sentence
from evenhand.report.curves import curves_data, stage_curves
from evenhand.report.facts import commands, section_facts
from evenhand.report.headline import headline, section_notes
from evenhand.report.page import render_page
from evenhand.report.quality_table import run_data as quality_data
from evenhand.report.ranking import best_other, fault
from evenhand.report.shortcut_table import run_data as shortcut_data
from evenhand.report.sweeps import Sweep, find_sweeps, sweeps_data
from evenhand.report.table import csv_text
from evenhand.report.tables import RUN_COLUMNS, Tables, Told, methods_latex, methods_markdown, runs_csv, section_tables
from evenhand.report.worst_table import run_columns, worst_data
from evenhand.runs.read import find_plans, find_records, with_planned
from evenhand.runs.record import METRICS, Record
from evenhand.validation import UserError

_WHERE_TOLD = ("shortcuts", "quality")  # tables that are files only where a record has something for them
_WITH_PREDICTIONS = ("changed",)  # and where predictions lie beside records
_FILES = {
    "html": "report.html",
    "json": "report.json",
    "markdown": "tables/methods.md",
    "latex": "tables/methods.tex",
    "csv": "tables/methods.csv",
    **{
        f"{name}_csv": f"tables/{name}.csv"
        for name in (
            "runs",
            "tests",
            "detection",
            "groups",
            "curves",
            "sweeps",
            "cost",
            *_WHERE_TOLD,
            *_WITH_PREDICTIONS,
        )
    },
}
AUDIT_FORMAT = 2  # of audit.json, as this room reads it
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
        shortcuts_csv: One row a method and named shortcut; None where no shortcut is named.
        quality_csv: One row a method and group: recall, F1, AUROC and calibration; None where no record tells of them.
        changed_csv: One row a method and test sample that it gets right and ERM wrong, or the reverse; with the page
            only. None where fewer than two runs' predictions lie beside their records.
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
    shortcuts_csv: Path | None = None
    quality_csv: Path | None = None
    changed_csv: Path | None = None


def write_report(folder: Path, title: str | None = None, *, page: bool = True) -> ReportFiles:
    """Write `report.html`, `report.json` and `tables/` into a folder of runs.

    They are made from every run and every `study.json` below it.

    Args:
        folder: The folder of one run, of a study, or of several.
        title: The page's heading; made from the tasks' names if not given.
        page: Whether to write the page (some megabytes) and the files with times too, or only the tables that are
            the same whenever the runs are repeated.

    Returns:
        The paths of the files. Each is complete or untouched, also if the program is stopped while it writes.

    Raises:
        UserError: If the folder is missing, holds no record, holds one that can't be read, or can't be written to.
    """
    folder = Path(folder)
    files = {name: folder / path for name, path in _FILES.items()}
    if os.access(folder, os.F_OK):
        for path in files.values():
            check_place(path)
    title, records, told, sweeps = _read(folder, title)
    sections = [section for section, _ in told]

    def rows(name: str) -> str:
        return csv_text(row for _, made in told for row in made[name].data)

    timed = {
        "html": lambda: render_page(title, told, sweeps, folder, read_chosen(folder)),
        "json": lambda: report_json(title, told, sweeps),
        "cost_csv": lambda: rows("cost"),
    }
    changes = [row for section in sections for row in changed_data(section)] if page else []
    # All is computed before anything is written: a bad record leaves the last report as it was.
    contents = {
        **{name: make() for name, make in timed.items() if page},
        "markdown": methods_markdown(title, told),
        "latex": methods_latex(told),
        "csv": rows("methods"),
        "runs_csv": runs_csv(records, folder),
        **{f"{name}_csv": rows(name) for name in ("tests", "detection", "groups")},
        "curves_csv": csv_text(curves_data(sections)),
        "sweeps_csv": csv_text(sweeps_data(sweeps)),
        **{f"{name}_csv": rows(name) for name in _WHERE_TOLD if any(made[name].rows for _, made in told)},
        **({"changed_csv": csv_text(changes)} if changes else {}),
    }
    for name, content in contents.items():
        write_text(files[name], content)
    perhaps = (*_WHERE_TOLD, *(_WITH_PREDICTIONS if page else ()))
    for name in [name for table in perhaps if (name := f"{table}_csv") not in contents]:
        files.pop(name).unlink(missing_ok=True)  # of an earlier report on other runs
    return ReportFiles(**files)


def report_page(folder: Path, title: str | None = None) -> str:
    """The page of `write_report` as a text; nothing is written.

    Raises:
        UserError: As of `write_report`.
    """
    title, _, told, sweeps = _read(folder, title)
    return render_page(title, told, sweeps, folder, read_chosen(folder))


def _read(folder: Path, title: str | None) -> tuple[str, list[Record], Told, list[Sweep]]:
    """A folder's title, its records with what is planned, the sections with their tables, and the sweeps."""
    plans = find_plans(folder)
    records = with_planned(find_records(folder), plans)
    sections = group_records(records, plans)
    tasks = sorted({run.task.name for section in sections for run in section.runs})
    title = title or plans.title or f"Shortcuts on {tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks'}"
    return title, records, [(section, section_tables(section)) for section in sections], find_sweeps(sections)


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
    """The same with None in place of numbers that JSON does not have; a record's optional parts may hold any."""
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
                "method": cell.first.method.name,
                "settings": cell.first.method.settings,
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
        "classes": tables["classes"].data,
        "shortcuts": tables["shortcuts"].data,
        "quality": tables["quality"].data,
        "detection": tables["detection"].data,
        "cost": tables["cost"].data,
        "changed": counts_data(section),
        "settings": section_facts(section),
    }


def _run(run: Record) -> dict[str, Any]:
    return {
        **{name: getattr(run, name) for name in (*RUN_COLUMNS, "configuration", "primary_test")},
        "tests": {
            name: {
                **found.overall,
                **run_columns(found),
                "by_group": found.by_group,
                **shortcut_data(run, name),
                **quality_data(found, by_group=name == run.primary_test),
            }
            for name, found in run.tests.items()
        },
        "curves": stage_curves(run),
        **{name: getattr(run, name) for name in ("versions", "commit", "machine")},
    }


# ---- `evenhand.report` ---------------------------------------------------------------------------------------------


class HasFolder(Protocol):
    """What lies in a folder, such as a finished run."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        ...


@runtime_checkable
class AnyAudit(HasFolder, Protocol):
    """An audit, of which this room needs the plain data only."""

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write the data and the scores into a folder."""
        ...


def report(result_or_folder: HasFolder | Path | str, path: Path | str | None = None) -> Path:
    """Render a result as one HTML file that needs no network.

    Args:
        result_or_folder: An audit, a finished run, a folder of runs, or a folder that an audit was saved in.
        path: Where to: a file ending in .html, or a folder, where it is called report.html or audit.html. None writes
            beside what is rendered.

    Returns:
        The page's path.

    Raises:
        UserError: If there is nothing to render, something can't be read, or the page can't be written.
    """
    what = result_or_folder
    if isinstance(what, AnyAudit):
        return _write(lambda: render_audit_page(what.as_dict()), path, what.folder / "audit.html")
    folder = Path(what) if isinstance(what, (Path, str)) else what.folder
    if (folder / "audit.json").exists() and not (folder / "record.json").exists():
        return _write(lambda: _page_of(folder / "audit.json"), path, folder / "audit.html")
    if path is None:
        return write_report(folder).html
    return _write(lambda: report_page(folder), path, folder / "report.html")


def write_audit(audit: AnyAudit, folder: Path | str | None = None) -> list[Path]:
    """Write an audit's page, `audit.md`, `audit.json` and the scores into a folder; its own unless given."""
    folder = audit.folder if folder is None else Path(folder)
    content = audit.as_dict()
    # all is computed before anything is written
    page, text = render_audit_page(content), audit_markdown(content)
    data = audit.save(folder)
    for name, written in (("audit.html", page), ("audit.md", text)):
        write_text(folder / name, written)
    return [folder / "audit.html", folder / "audit.md", *data]


def _page_of(path: Path) -> str:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The audit '{path}' can't be read ({error}): repeat the audit.") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != AUDIT_FORMAT:
        raise UserError(
            f"The audit '{path}' has format {found!r}, but this version of evenhand reads format {AUDIT_FORMAT}: "
            "repeat the audit."
        )
    try:
        return render_audit_page(content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, UndefinedError) as error:
        raise UserError(
            f"The audit '{path}' isn't whole ({type(error).__name__}: {error}): repeat the audit."
        ) from error


def _write(page: Callable[[], str], path: Path | str | None, default: Path) -> Path:
    target = default if path is None else Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        target = target / default.name
    check_place(target)
    write_text(target, page())
    return target
