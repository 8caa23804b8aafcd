"""The report as one JSON object: what the page shows, at full precision."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from evenhand.report.cells import Section
from evenhand.report.cost import cost_data, cost_sentence
from evenhand.report.curves import stage_curves
from evenhand.report.details import method_facts, section_facts
from evenhand.report.detection import detection_data
from evenhand.report.headline import headline
from evenhand.report.heat import groups_data
from evenhand.report.notes import section_notes
from evenhand.report.paired import paired_data
from evenhand.report.ranking import best_other, fault
from evenhand.report.sweeps import Sweep, sweeps_data
from evenhand.report.worst_table import run_columns, worst_data
from evenhand.runs.read import METRICS, Record

JSON_FORMAT = 1  # of report.json; raised when a reader of the old one would misread the new one


def report_json(title: str, sections: Sequence[Section], sweeps: Sequence[Sweep]) -> str:
    """Everything that the page shows but its pictures' looks and the samples; accuracies are fractions of 1."""
    content = {
        "format": JSON_FORMAT,
        "title": title,
        "sections": [_section(section) for section in sections],
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


def _section(section: Section) -> dict[str, Any]:
    one = [section]
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
                "commands": list(method_facts(cell).commands),
                "runs": [_run(run) for run in cell.runs],
            }
            for cell in section.cells
        ],
        "tests": paired_data(one),
        "groups": groups_data(one),
        "detection": detection_data(one),
        "cost": cost_data(one),
        "settings": {fact.name: list(fact.values) for fact in section_facts(section)},
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
