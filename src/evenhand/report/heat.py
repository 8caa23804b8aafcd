"""Accuracy by group as a heat map: a row a method, a column a group of the primary test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.metrics import wilson
from evenhand.report.cells import Section
from evenhand.report.notes import groups_not_counted, sizes
from evenhand.wording import NOTHING, distinct, mean_std

HEAT_NOTE = (
    "Accuracy in % on each group of the primary test set, mean ± standard deviation over seeds. Groups marked * are "
    "too small to count as the worst one and are taken together as small groups."
)


@dataclass(frozen=True)
class GroupColumn:
    """One evaluation group; `counted`: it is large enough to be the worst one."""

    name: str
    size: str
    counted: bool


@dataclass(frozen=True)
class HeatCell:
    """A number as it is printed, and as a fraction for its colour; None where it is undefined."""

    text: str
    value: float | None


@dataclass(frozen=True)
class HeatRow:
    """A method with one cell a group."""

    label: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class HeatMap:
    """All methods and groups; no columns where no run has groups."""

    columns: tuple[GroupColumn, ...]
    rows: tuple[HeatRow, ...]


def heat_map(section: Section) -> HeatMap:
    """Mean accuracy of every finished method on every group, in the records' order."""
    done = section.done
    uncounted = set(groups_not_counted(done))
    names = _names(section)
    columns = [
        GroupColumn(
            name, sizes(done, "group_sizes", done[0].primary_test or "", name) or NOTHING, name not in uncounted
        )
        for name in names
    ]
    rows: list[HeatRow] = []
    for cell in section.cells:
        if cell.done:
            summaries = [cell.group_summary(name) for name in names]
            texts = tuple(HeatCell(mean_std(s, len(cell.counted)), s.mean) for s in summaries)
            rows.append(HeatRow(cell.label, texts))
    return HeatMap(tuple(columns), tuple(rows))


def groups_data(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """One row a method and group, at full precision; fractions of 1."""
    rows: list[dict[str, Any]] = []
    for section in sections:
        uncounted = set(groups_not_counted(section.done))
        names = _names(section)
        for cell in section.cells:
            for name in names if cell.done else []:
                summary = cell.group_summary(name)
                size = _least(section, name)
                ends = None if size is None else wilson(summary.mean, size)
                rows.append(
                    {
                        "section": section.heading,
                        "label": cell.label,
                        "group": name,
                        "counted": name not in uncounted,
                        "mean": summary.mean,
                        "std": summary.std,
                        "n": summary.n,
                        "samples": size,
                        "low": ends and ends[0],
                        "high": ends and ends[1],
                    }
                )
    return rows


def _least(section: Section, group: str) -> int | None:
    """Samples of a group in the run that has the fewest; None where a run doesn't say."""
    found = [run.part("group_sizes", run.primary_test or "").get(group) for run in section.done]
    known = [size for size in found if isinstance(size, int) and size > 0]
    return min(known) if known and len(known) == len(found) else None


def _names(section: Section) -> list[str]:
    return distinct(name for run in section.done if run.metrics for name in run.metrics.by_group)
