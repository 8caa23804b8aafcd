"""The tables of a section, each built once, and what is written of them beside the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from evenhand.metrics import PairedDifference, Summary, holm, summarize, wilson
from evenhand.report.cells import Cell, Section, difference, sizes
from evenhand.report.class_table import classes_table
from evenhand.report.cost import cost_table, timed
from evenhand.report.facts import facts_table, settings_table
from evenhand.report.headline import headline, section_notes
from evenhand.report.quality_table import quality_table
from evenhand.report.quality_table import run_columns as quality_columns
from evenhand.report.ranking import fault
from evenhand.report.shortcut_table import run_columns as shortcut_columns
from evenhand.report.shortcut_table import shortcuts_table
from evenhand.report.table import METHOD, Column, Row, Table, Value, csv_text, table_of
from evenhand.report.worst_table import run_columns, worst_columns, worst_table
from evenhand.runs.record import METRICS, Metrics, Record, Status
from evenhand.wording import (
    METRIC_TITLES,
    NOTHING,
    clipped,
    count,
    distinct,
    interval,
    listed,
    markdown_text,
    mean_std,
    p_text,
    points,
)

SHOWN_METRICS = ("average", "worst_group", "aligned", "conflicting")
RUN_COLUMNS = ("seed", "data_seed", "status", "error", "did_nothing")
SCORE_MEASURES = {"auroc": "AUROC", "average_precision": "Average precision", "sampling_mass": "Sampling mass"}

Tables = Mapping[str, Table]
Told = Sequence[tuple[Section, Tables]]  # every section with its tables


def section_tables(section: Section) -> Tables:
    """All tables of a section by name; one that has nothing to show has no rows."""
    return {
        "methods": methods_table(section),
        "shortcuts": shortcuts_table(section),
        "worst": worst_table(section),
        "tests": paired_table(section),
        "detection": detection_table(section),
        "groups": groups_table(section),
        "classes": classes_table(section),
        "quality": quality_table(section),
        "cost": cost_table(section),
        "sets": sets_table(section),
        "facts": facts_table(section),
        "settings": settings_table(section),
    }


# ---- methods --------------------------------------------------------------------------------------------------------


def shown_metrics(section: Section) -> tuple[str, ...]:
    """The metrics of a section's main table."""
    return section.metrics(SHOWN_METRICS)


def methods_table(section: Section) -> Table:
    """The main table: every cell, whatever became of it."""
    return Table(
        name="Table of methods",
        head=(
            METHOD,
            *(Column(METRIC_TITLES[metric]) for metric in shown_metrics(section)),
            Column("Seeds"),
            Column(f"Conflicting vs. {section.baseline_name}"),
            Column("95% interval", only="text"),
            Column("Status", "", only="text"),
        ),
        rows=tuple(_method_row(section, cell) for cell in section.cells),
        note=" ".join(section_notes(section)),
        title="Accuracy by method.",
        kind="methods",
        sortable=True,
    )


def _method_row(section: Section, cell: Cell) -> Row:
    metrics, done = shown_metrics(section), len(cell.counted)
    paired = _to_baseline(cell, section.baseline)
    change = paired.summary if paired else None
    text, spread = "baseline" if cell is section.baseline else NOTHING, ""
    if change and change.n:
        text, spread = points(change.mean), interval(change) or "one seed, no interval"
        if 1 < change.n < done:
            spread += f", n = {change.n}"
    notes, remark = _notes(cell), _remark(cell)
    data = {
        f"conflicting_vs_baseline_{part}": change and getattr(change, part) for part in ("mean", "low", "high", "n")
    }
    values = (
        Value(cell.label, _cell_data(cell)),
        *(Value(mean_std(cell.summary(metric), done) if done else NOTHING) for metric in metrics),
        Value(str(done)),
        Value(text, data | {"conflicting_vs_baseline_p": paired and paired.p}, aside=spread, below=remark),
        Value(spread or NOTHING),
        Value("; ".join([listed(notes) or "done", *distinct([remark])])),
    )
    return Row(values, notes, done=done > 0)


def _to_baseline(cell: Cell, baseline: Cell | None) -> PairedDifference | None:
    """The paired difference to the baseline in conflicting accuracy; None for itself, without it, or of ERM's runs."""
    if baseline is None or cell is baseline or not cell.is_tried:
        return None
    return difference(cell.values("conflicting"), baseline.values("conflicting"))


def _cell_data(cell: Cell) -> dict[str, Any]:
    row = _identity(cell.first) | {"label": cell.label}
    row |= {status: len(cell.with_status(status)) for status in get_args(Status)}
    row["did_nothing"] = len(cell.idle)
    row["fault"] = fault(cell) if cell.done else None
    row["errors"] = "; ".join(distinct(run.error for run in cell.runs))
    for metric in METRICS:
        row |= _parts(cell.summary(metric), f"{metric}_")
    return row | worst_columns(cell)


def _parts(summary: Summary, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{part}": getattr(summary, part) for part in ("mean", "std", "n")}


def _remark(cell: Cell) -> str:
    """Why the method can't be called good, or in how many runs it did nothing; mostly empty."""
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


# ---- paired tests ---------------------------------------------------------------------------------------------------


def paired_table(section: Section) -> Table:
    """Every method that was tried against the baseline, in every metric that is defined; no rows without a baseline."""
    baseline = section.baseline
    return Table(
        name="Table of paired tests",
        head=(
            METHOD,
            Column("Metric", ""),
            *(Column(name) for name in ("Difference (points)", "95% interval", "Seeds", "p", "p, Holm")),
        ),
        rows=() if baseline is None else _tests(section, baseline),
        note=f"Paired t-tests against {baseline.label if baseline else NOTHING} over the seeds that both have run, "
        "two-sided; “p, Holm” is corrected for the number of methods compared in the same metric.",
        sortable=True,
    )


def _tests(section: Section, baseline: Cell) -> tuple[Row, ...]:
    others = [cell for cell in section.cells if cell is not baseline and cell.is_tried]
    rows: list[Row] = []
    for metric in section.metrics(METRICS):
        paired = [difference(cell.values(metric), baseline.values(metric)) for cell in others]
        for cell, test, p_holm in zip(others, paired, holm([test.p for test in paired]), strict=True):
            change = test.summary
            values = (
                _method(section, cell, baseline=baseline.label),
                Value(METRIC_TITLES[metric], {"metric": metric}),
                Value(points(change.mean), {"difference_mean": change.mean, "difference_std": change.std}),
                Value(interval(change) or NOTHING, {"low": change.low, "high": change.high}),
                Value(str(change.n), {"n": change.n}),
                Value(p_text(test.p), {"p": test.p}),
                Value(p_text(p_holm), {"p_holm": p_holm}),
            )
            rows += [Row(values)] if change.n else []
    return tuple(rows)


def _method(section: Section, cell: Cell, **more: Any) -> Value:
    return Value(cell.label, {"section": section.heading, "label": cell.label} | more)


# ---- scores ---------------------------------------------------------------------------------------------------------


def detection_table(section: Section) -> Table:
    """How well scores find the conflicting samples of the training set; one row a cell with scores."""
    return Table(
        name="Table of detection",
        head=(
            METHOD,
            *map(Column, SCORE_MEASURES.values()),
            Column("Seeds"),
            Column("Scoring", only="page"),  # tables are the same whenever a study is run again, times are not
        ),
        rows=tuple(row for cell in section.cells for row in _detection_row(section, cell)),
        note="How well the scores of the training samples find the conflicting ones, in %: area under the ROC curve, "
        "average precision, and the conflicting samples' share of the scores' sum, which is that of the draws.",
        more="“Scoring” is the mean time that computing the scores took; runs that took another's scores over carry "
        "that one's.",
        sortable=True,
    )


def _detection_row(section: Section, cell: Cell) -> tuple[Row, ...]:
    found = [(run, detection) for run in cell.done if (detection := _detection(run))]
    measures = {name: summarize([detection.get(name) for _, detection in found]) for name in SCORE_MEASURES}
    n = max(summary.n for summary in measures.values())
    seconds = summarize([run.durations.stages.get("scores") for run, _ in found])
    values = (
        _method(section, cell),
        *(Value(mean_std(summary, n), _parts(summary, f"{name}_")) for name, summary in measures.items()),
        Value(str(n)),
        timed(seconds.mean),
    )
    return (Row(values),) if n else ()


def _detection(run: Record) -> dict[str, float]:
    """What the stage `scores` says of it; empty where there is none or the alignment is unknown."""
    return next((stage.detection for stage in run.stages if stage.name == "scores" and stage.detection), {})


# ---- groups and test sets -------------------------------------------------------------------------------------------


def groups_table(section: Section) -> Table:
    """Accuracy by group as a heat map: a row a method, a column a group of the primary test set."""
    done, uncounted = section.done, set(section.groups_not_counted)
    names = distinct(name for run in done if run.metrics for name in run.metrics.by_group)
    heads = (
        Column(
            clipped(name),
            small=sizes(_size(run, name) for run in done) or NOTHING,
            starred=name in uncounted,
        )
        for name in names
    )
    smallest = {name: _least(section, name) for name in names}

    def reached(name: str) -> Callable[[Cell], Value]:
        return lambda cell: _group(cell, name, smallest[name], counted=name not in uncounted)

    return table_of(
        "Table of groups",
        [cell for cell in section.cells if cell.done and names],
        [
            (METHOD, lambda cell: _method(section, cell)),
            *((head, reached(name)) for head, name in zip(heads, names, strict=True)),
        ],
        note="Accuracy in % on each group of the primary test set, mean ± standard deviation over seeds. Groups marked "
        "* are too small to count as the worst one and are taken together as small groups.",
        more="Blue is high, orange low.",
        kind="heat",
        sortable=True,
        is_long=True,
    )


def _group(cell: Cell, name: str, size: int | None, *, counted: bool) -> Value:
    summary = cell.group_summary(name)
    low, high = (None if size is None else wilson(summary.mean, size)) or (None, None)
    data = {"group": name, "counted": counted, **_parts(summary), "samples": size, "low": low, "high": high}
    style = "" if summary.mean is None else f"--share: {100 * summary.mean:.1f}%"
    return Value(mean_std(summary, len(cell.counted)), data, style=style)


def _least(section: Section, group: str) -> int | None:
    """Samples of a group in the run that has the fewest; None where a run doesn't say."""
    found = [_size(run, group) for run in section.done]
    known = [size for size in found if size is not None and size > 0]
    return min(known) if known and len(known) == len(found) else None


def _size(run: Record, group: str) -> int | None:
    return run.group_sizes.get(run.primary_test or "", {}).get(group)


def sets_table(section: Section) -> Table:
    """Every finished method on every test set; the primary ones first."""
    done, metrics = section.done, section.metrics(METRICS, all_tests=True)
    names = distinct([*(run.primary_test for run in done), *(name for run in done for name in run.tests)])
    found = [(n, cell) for n in names for cell in section.cells if any(n in run.tests for run in cell.done)]

    def reached(metric: str) -> Callable[[tuple[str, Cell]], str]:
        return lambda pair: mean_std(pair[1].summary(metric, pair[0]), len(pair[1].counted))

    return table_of(
        "Table of test sets",
        found,
        [
            (Column("Test set", ""), lambda pair: clipped(pair[0])),
            (METHOD, lambda pair: pair[1].label),
            *((METRIC_TITLES[metric], reached(metric)) for metric in metrics),
        ],
        note="Accuracy in %, mean ± standard deviation over seeds. “Train-weighted” weighs each group by its share of "
        "the training data.",
        sortable=True,
    )


# ---- beside the page ------------------------------------------------------------------------------------------------


def methods_markdown(title: str, told: Told) -> str:
    """All sections as Markdown: for each, its notes and its tables."""
    lines = [f"# {markdown_text(title)}", ""]
    for section, tables in told:
        lines += [f"## {markdown_text(section.heading)}", "", markdown_text(headline(section)), ""]
        lines += [*(markdown_text(note) for note in section_notes(section)), ""]
        shown = [
            replace(tables["methods"], note=""),
            *(tables[n] for n in ("shortcuts", "worst", "tests", "detection", "groups", "classes", "quality")),
        ]
        lines += [line for table in shown if table.rows for line in table.markdown()]
    return "\n".join(lines)


def methods_latex(told: Told) -> str:
    """For each section its main tables and tests, each in a `table` with its notes as caption."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for section, tables in told:
        shown = [tables[name] for name in ("methods", "shortcuts", "worst", "tests")]
        parts += [table.latex(f"{section.heading}. {table.note}") for table in shown if table.rows]
    return "\n".join(parts)


def runs_csv(records: Sequence[Record], folder: Path) -> str:
    """One row a run, all metrics of all test sets at full precision; fractions of 1."""
    return csv_text(
        {"record": record.path.relative_to(folder).as_posix()}
        | _identity(record)
        | {name: getattr(record, name) for name in (*RUN_COLUMNS, "primary_test", "configuration")}
        | _metric_columns(record.metrics, record.raw.get("metrics"), "")
        | {
            key: value
            for test, found in record.tests.items()
            for key, value in _metric_columns(found, record.raw["tests"][test], f"{test}/").items()
        }
        for record in records
    )


def _identity(record: Record) -> dict[str, Any]:
    return {
        "method": record.method.name,
        "title": record.method.title,
        "method_settings": json.dumps(record.method.settings, sort_keys=True),
        "task": record.task.name,
        "task_settings": json.dumps(record.task.settings, sort_keys=True),
        "model": record.model["name"],
        "training": json.dumps(record.training, sort_keys=True),
        "cell": record.cell,
    }


def _metric_columns(metrics: Metrics | None, raw: Mapping[str, Any] | None, prefix: str) -> dict[str, Any]:
    """The columns exist for a run without metrics too, and are empty there."""
    if metrics is None:
        return {f"{prefix}{name}": None for name in METRICS}
    columns: dict[str, Any] = metrics.overall | run_columns(metrics)
    columns |= {f"group: {name}": value for name, value in metrics.by_group.items()}
    columns |= shortcut_columns(raw) | quality_columns(metrics, by_group=not prefix)
    return {f"{prefix}{name}": value for name, value in columns.items()}
