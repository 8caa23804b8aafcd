"""The table of what accuracy doesn't tell: recall, F1, AUROC and calibration, of all test samples and by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.metrics import summarize
from evenhand.report.cells import Cell, Section, sizes
from evenhand.report.table import METHOD, Column, Row, Table, Value
from evenhand.runs.record import Metrics
from evenhand.runs.told import QualityTold
from evenhand.wording import NOTHING, clipped, mean_std

_MEASURES = {"recall": "Recall", "f1": "F1", "auroc": "AUROC", "ece": "ECE"}
ALL = "all samples"


def quality_table(section: Section) -> Table:
    """Rows of each method: all test samples, then each group; none where no record tells."""
    return Table(
        name="Table of recall, F1, AUROC and calibration",
        head=(METHOD, Column("Group", "foreign"), *map(Column, ("Samples", "Accuracy", *_MEASURES.values()))),
        rows=tuple(row for cell in section.cells for row in _rows(section, cell)),
        note="On the primary test set, in %, mean ± standard deviation over seeds. Recall and F1 are means over the "
        "classes. AUROC tells how well the probabilities rank, of several classes as the mean of each against the "
        "others; in a group of one class there is none. ECE, the expected calibration error, is how far the "
        "probabilities are from the share of right answers: there less is better.",
        sortable=True,
    )


def run_columns(measured: Metrics, *, by_group: bool) -> dict[str, Any]:
    """A run's measures on one test set as columns of its row; records keep groups of the primary one for good."""
    groups = measured.quality_by_group if by_group else {}
    told = {"": measured.quality, **{f" of group: {name}": one for name, one in groups.items()}}
    return {f"{m}{of}": getattr(one, m) for of, one in told.items() if one is not None for m in _MEASURES}


def run_data(measured: Metrics, *, by_group: bool) -> dict[str, Any]:
    """A run's measures on one test set as report.json has them; nothing where the record doesn't tell."""
    if measured.quality is None:
        return {}
    groups = {name: told.model_dump() for name, told in measured.quality_by_group.items()} if by_group else None
    return {"quality": measured.quality.model_dump(), **({} if groups is None else {"quality_by_group": groups})}


def _rows(section: Section, cell: Cell) -> list[Row]:
    measured = [run.metrics for run in cell.counted if run.metrics is not None]
    names = dict.fromkeys(name for found in measured for name in found.quality_by_group)
    whole = [(found.average, found.quality) for found in measured if found.quality is not None]
    parts: Mapping[str | None, Sequence[tuple[float | None, QualityTold]]] = {
        None: whole,
        **{
            name: [(m.by_group.get(name), m.quality_by_group[name]) for m in measured if name in m.quality_by_group]
            for name in names
        },
    }
    # no measure of a group without a sample is defined
    return [_row(section, cell, name, told) for name, told in parts.items() if any(one.n != 0 for _, one in told)]


def _row(section: Section, cell: Cell, group: str | None, told: Sequence[tuple[float | None, QualityTold]]) -> Row:
    values = {
        "accuracy": [accuracy for accuracy, _ in told],
        **{measure: [getattr(one, measure) for _, one in told] for measure in _MEASURES},
    }
    places: list[Value] = []
    for measure, found in values.items():
        summary = summarize(found)
        data = {f"{measure}_{part}": getattr(summary, part) for part in ("mean", "std", "n")}
        places.append(Value(mean_std(summary, len(cell.counted)), data))
    known = [one.n for _, one in told if one.n is not None]
    return Row(
        (
            Value(cell.label, {"section": section.heading, "label": cell.label}),
            Value(ALL if group is None else clipped(group), {"group": group}),
            Value(sizes(known) or NOTHING, {"samples": min(known, default=None)}),
            *places,
        )
    )
