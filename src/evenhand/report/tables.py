"""The tables as data: one row a method (page, Markdown, CSV) and one row a run (CSV)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.metrics import PairedDifference
from evenhand.report.cells import Cell, Section, difference
from evenhand.report.detection import DETECTION_HEAD, DETECTION_NOTE, detection_rows
from evenhand.report.headline import headline
from evenhand.report.heat import HEAT_NOTE, heat_map
from evenhand.report.paired import PAIRED_HEAD, paired_note, paired_rows
from evenhand.report.ranking import fault
from evenhand.report.worst_table import WORST_HEAD, WORST_NOTE, run_columns, worst_columns, worst_rows
from evenhand.runs.read import METRICS, STATUSES, Measured, Record
from evenhand.wording import (
    METRIC_TITLES,
    NOTHING,
    count,
    distinct,
    interval,
    listed,
    markdown_table,
    markdown_text,
    mean_std,
    points,
)

SHOWN_METRICS = ("average", "worst_group", "aligned", "conflicting")


@dataclass(frozen=True)
class MethodRow:
    """One method, as the page and the Markdown table print it.

    Attributes:
        numbers: "mean ± std" for each of the section's `shown_metrics`; empty where no run is finished.
        change: Paired difference to the baseline in conflicting accuracy, in points; "baseline" for that itself.
        interval: Its 95% interval, or why there is none.
        notes: What has failed, still runs, is planned or was skipped.
        remark: Why the method can't be called good, or in how many runs it did nothing; mostly empty.
    """

    label: str
    numbers: tuple[str, ...]
    seeds: int
    change: str
    interval: str
    notes: tuple[str, ...]
    remark: str


def method_rows(section: Section) -> list[MethodRow]:
    """The rows of a section's main table: every cell, whatever became of it."""
    metrics = shown_metrics(section)
    return [_method_row(cell, section.baseline, metrics) for cell in section.cells]


def shown_metrics(section: Section) -> tuple[str, ...]:
    """The metrics of a section's main table."""
    return section.metrics(SHOWN_METRICS)


def to_baseline(cell: Cell, baseline: Cell | None) -> PairedDifference | None:
    """The paired difference to the baseline in conflicting accuracy; None for itself, without it, or of ERM's runs."""
    if baseline is None or cell is baseline or not cell.is_tried:
        return None
    return difference(cell.values("conflicting"), baseline.values("conflicting"))


def _method_row(cell: Cell, baseline: Cell | None, metrics: Sequence[str]) -> MethodRow:
    done = len(cell.counted)
    numbers = tuple(mean_std(cell.summary(metric), done) for metric in metrics) if done else ()
    change, spread = NOTHING, ""
    paired = to_baseline(cell, baseline)
    if cell is baseline:
        change = "baseline"
    elif paired is not None and paired.summary.n:
        change = points(paired.summary.mean)
        spread = interval(paired.summary) or "one seed, no interval"
        if 1 < paired.summary.n < done:
            spread += f", n = {paired.summary.n}"
    return MethodRow(cell.label, numbers, done, change, spread, _notes(cell), _remark(cell))


def _remark(cell: Cell) -> str:
    parts: list[str] = []
    if cell.idle:
        reasons = listed(distinct(run.did_nothing for run in cell.idle), "or")
        few = f" in {len(cell.idle)} of {count(len(cell.done), 'run')}, not counted here" if cell.is_tried else ""
        parts.append(f"did nothing{few}, so it trained as ERM does: {reasons}")
    if cell.is_tried:
        parts += distinct([fault(cell)])
    return "; ".join(parts)


def _notes(cell: Cell) -> tuple[str, ...]:
    """What isn't done, as in "failed (2 of 3 runs): the error", with every different error named once."""
    notes: list[str] = []
    for status in ("failed", "running", "planned", "skipped"):
        runs = cell.with_status(status)
        if not runs:
            continue
        missing = "no error recorded" if status == "failed" else None
        errors = distinct(run.error or missing for run in runs) if status in ("failed", "skipped") else []
        text = f"{status} ({len(runs)} of {count(len(cell.runs), 'run')})"
        notes.append(f"{text}: {'; '.join(errors)}" if errors else text)
    return tuple(notes)


def methods_markdown(title: str, sections: Sequence[tuple[Section, Sequence[str]]]) -> str:
    """All sections as Markdown: for each, its notes and its main table."""
    lines = [f"# {markdown_text(title)}", ""]
    for section, notes in sections:
        head = main_head(section)
        lines += [f"## {markdown_text(section.heading)}", "", markdown_text(headline(section)), ""]
        lines += [*(markdown_text(note) for note in notes), ""]
        lines.append(f"| {' | '.join(markdown_text(name) for name in head)} |")
        lines.append(f"| --- |{' ---: |' * (len(head) - 2)} --- |")
        for values in main_rows(section):
            lines.append(f"| {' | '.join(markdown_text(value) for value in values)} |")
        lines.append("")
        worst = worst_rows(section)
        if worst:
            lines += markdown_table(WORST_NOTE, WORST_HEAD, [row.texts for row in worst], 2)
        tests = paired_rows(section)
        if tests:
            lines += markdown_table(paired_note(section), PAIRED_HEAD, [row.texts for row in tests], 2)
        found = detection_rows(section)
        if found:
            lines += markdown_table(DETECTION_NOTE, DETECTION_HEAD, [row.texts for row in found], 1)
        heat = heat_map(section)
        if heat.columns:
            head = ["Method", *(column.name + ("" if column.counted else " *") for column in heat.columns)]
            lines += markdown_table(HEAT_NOTE, head, [[r.label, *(c.text for c in r.cells)] for r in heat.rows], 1)
    return "\n".join(lines)


def main_head(section: Section) -> list[str]:
    """Headings of a section's main table as text."""
    metrics = [METRIC_TITLES[m] for m in shown_metrics(section)]
    return ["Method", *metrics, "Seeds", f"Conflicting vs. {section.baseline_name}", "95% interval", "Status"]


def main_rows(section: Section) -> list[list[str]]:
    """Its rows as text."""
    rows = []
    for row in method_rows(section):
        numbers = row.numbers or (NOTHING,) * len(shown_metrics(section))
        status = "; ".join([listed(row.notes) or "done", *distinct([row.remark])])
        rows.append([row.label, *numbers, str(row.seeds), row.change, row.interval or NOTHING, status])
    return rows


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV, numbers at full precision; every key of any row is a column."""
    stream = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    # not pandas, whose columns can't be named by every text that JSON can hold
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def methods_csv(sections: Sequence[Section]) -> str:
    """One row a cell, all numbers at full precision."""
    rows: list[dict[str, Any]] = []
    for section in sections:
        for cell in section.cells:
            row = _identity(cell.first) | {"label": cell.label}
            row |= {status: len(cell.with_status(status)) for status in STATUSES}
            row["did_nothing"] = len(cell.idle)
            row["fault"] = fault(cell) if cell.done else None
            row["errors"] = "; ".join(dict.fromkeys(run.error for run in cell.runs if run.error))
            for metric in METRICS:
                summary = cell.summary(metric)
                row |= {f"{metric}_mean": summary.mean, f"{metric}_std": summary.std, f"{metric}_n": summary.n}
            row |= {f"{kind}_{part}": value for kind, part, value in worst_columns(cell)}
            paired = to_baseline(cell, section.baseline)
            change = paired.summary if paired else None
            row |= {
                "conflicting_vs_baseline_mean": change and change.mean,
                "conflicting_vs_baseline_low": change and change.low,
                "conflicting_vs_baseline_high": change and change.high,
                "conflicting_vs_baseline_n": change and change.n,
                "conflicting_vs_baseline_p": paired and paired.p,
            }
            rows.append(row)
    return csv_text(rows)


def runs_csv(records: Sequence[Record], folder: Path) -> str:
    """One row a run, all metrics of all test sets at full precision; fractions of 1."""
    rows: list[dict[str, Any]] = []
    for record in records:
        row: dict[str, Any] = {"record": record.path.relative_to(folder).as_posix()} | _identity(record)
        row |= {
            "seed": record.seed,
            "data_seed": record.data_seed,
            "status": record.status,
            "error": record.error,
            "did_nothing": record.did_nothing,
            "primary_test": record.primary_test,
            "configuration": record.configuration,
        }
        row |= _metric_columns(record.metrics, "")
        for test, metrics in record.tests.items():
            row |= _metric_columns(metrics, f"{test}/")
        rows.append(row)
    return csv_text(rows)


def _identity(record: Record) -> dict[str, Any]:
    return {
        "method": record.method,
        "title": record.title,
        "method_settings": json.dumps(record.method_settings, sort_keys=True),
        "task": record.task,
        "task_settings": json.dumps(record.task_settings, sort_keys=True),
        "model": record.model["name"],
        "training": json.dumps(record.training, sort_keys=True),
        "cell": record.cell,
    }


def _metric_columns(metrics: Measured | None, prefix: str) -> dict[str, Any]:
    """The columns exist for a run without metrics too, and are empty there."""
    if metrics is None:
        return {f"{prefix}{name}": None for name in METRICS}
    columns: dict[str, Any] = {f"{prefix}{name}": value for name, value in metrics.overall.items()}
    columns |= {f"{prefix}{name}": value for name, value in run_columns(metrics).items()}
    return columns | {f"{prefix}group: {name}": value for name, value in metrics.by_group.items()}
