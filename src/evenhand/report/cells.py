"""Runs → cells (one configuration, all its seeds) → sections (cells that may be compared)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evenhand.metrics import PairedDifference, Summary, paired_difference, summarize
from evenhand.report.records import Measured, Record
from evenhand.report.wording import settings_text

SeedValues: TypeAlias = Mapping[tuple[int, int], float | None]  # (seed, data seed) → value

# Which of two records of the same run counts.
_STATUS_ORDER = {"done": 0, "running": 1, "failed": 2}


@dataclass(frozen=True)
class Cell:
    """One configuration with all its runs, ordered by seed."""

    label: str
    runs: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """The run that speaks for the cell: a finished one if there is one."""
        return min(self.runs, key=lambda run: _STATUS_ORDER[run.status])

    @property
    def is_baseline(self) -> bool:
        """Whether this is plain training, which the others are compared with."""
        return self.first.method == "erm"

    def with_status(self, status: str) -> list[Record]:
        """The runs that are "done", "running" or "failed"."""
        return [run for run in self.runs if run.status == status]

    @property
    def done(self) -> list[Record]:
        """The finished runs."""
        return self.with_status("done")

    def values(self, metric: str, test: str | None = None) -> SeedValues:
        """A metric of every finished run, on the primary test set or on a named one."""
        return {
            (run.seed, run.data_seed): None if (found := measured_on(run, test)) is None else found.overall[metric]
            for run in self.done
        }

    def summary(self, metric: str, test: str | None = None) -> Summary:
        """Mean and spread of a metric over the finished runs."""
        return summarize(list(self.values(metric, test).values()))

    def group_summary(self, group: str) -> Summary:
        """The same for the accuracy on one group of the primary test set."""
        return summarize([run.metrics.by_group.get(group) for run in self.done if run.metrics])


@dataclass(frozen=True)
class Section:
    """Cells on the same task, model and training: the only ones whose numbers stand side by side.

    Attributes:
        heading: What sets the section apart, in words.
        cells: ERM first, then by label.
        repeats: Further records of runs that are already in a cell; shown, but not counted twice.
    """

    heading: str
    cells: tuple[Cell, ...]
    repeats: tuple[Record, ...]

    @property
    def runs(self) -> list[Record]:
        """All runs, whatever became of them."""
        return [run for cell in self.cells for run in cell.runs]

    @property
    def done(self) -> list[Record]:
        """The finished runs of all cells."""
        return [run for cell in self.cells for run in cell.done]

    @property
    def baseline(self) -> Cell | None:
        """The ERM cell that the others are compared with; None where no ERM run is finished."""
        return next((cell for cell in self.cells if cell.is_baseline and cell.done), None)


def measured_on(run: Record, test: str | None) -> Measured | None:
    """What a run reached on its primary test set, or on a named one."""
    return run.metrics if test is None else run.tests.get(test)


def difference(ours: SeedValues, baseline: SeedValues) -> PairedDifference:
    """Paired difference over the runs that share both seeds, so that only like data are compared."""
    number = {key: i for i, key in enumerate(sorted({*ours, *baseline}))}
    return paired_difference(
        {number[key]: value for key, value in ours.items()},
        {number[key]: value for key, value in baseline.items()},
    )


def group_records(records: Sequence[Record]) -> list[Section]:
    """Sort records into sections and cells, with labels that tell them apart."""
    by_section: dict[str, list[Record]] = {}
    for record in records:
        by_section.setdefault(_section_key(record), []).append(record)
    groups = list(by_section.values())
    headings = _tell_apart(
        [f"{group[0].task}, {group[0].model['name']}" for group in groups],
        [_section_settings(group[0]) for group in groups],
        list(by_section),
    )
    sections = [_section(heading, group) for heading, group in zip(headings, groups, strict=True)]
    return sorted(sections, key=lambda section: section.heading)


def _section(heading: str, records: list[Record]) -> Section:
    runs: dict[tuple[str, int, int], Record] = {}
    repeats: list[Record] = []
    for record in sorted(records, key=lambda r: (_STATUS_ORDER[r.status], r.path)):
        kept = runs.setdefault((record.cell, record.seed, record.data_seed), record)
        if kept is not record:
            repeats.append(record)
    by_cell: dict[str, list[Record]] = {}
    for record in sorted(runs.values(), key=lambda r: (r.seed, r.data_seed)):
        by_cell.setdefault(record.cell, []).append(record)
    groups = list(by_cell.values())
    labels = _tell_apart(
        [group[0].title for group in groups], [group[0].method_settings for group in groups], list(by_cell)
    )
    cells = [Cell(label, tuple(group)) for label, group in zip(labels, groups, strict=True)]
    cells.sort(key=lambda cell: (not cell.is_baseline, cell.label.lower(), cell.label))
    return Section(heading, tuple(cells), tuple(repeats))


def _section_settings(record: Record) -> dict[str, Any]:
    # The parameter counts describe the model and are unknown to a run that failed early: no part of its identity.
    model = {key: value for key, value in record.model.items() if not key.endswith("parameters") and key != "name"}
    return {**record.task_settings, **model, **record.training}


def _section_key(record: Record) -> str:
    model = {key: value for key, value in record.model.items() if not key.endswith("parameters")}
    parts = [record.task, record.task_settings, model, record.training]
    return json.dumps(parts, sort_keys=True)


def _tell_apart(titles: list[str], settings: list[dict[str, Any]], keys: list[str]) -> list[str]:
    """Add to titles that occur twice the settings that differ, and where none does, a number."""
    labels: list[str] = []
    for title, mine in zip(titles, settings, strict=True):
        rivals = [other for name, other in zip(titles, settings, strict=True) if name == title]
        names = [key for key in mine if any(key not in other or other[key] != mine[key] for other in rivals)]
        labels.append(", ".join([title, settings_text({key: mine[key] for key in names})]) if names else title)
    order = sorted(range(len(keys)), key=lambda i: keys[i])
    return [
        f"{label} (variant {1 + [j for j in order if labels[j] == label].index(i)})"
        if labels.count(label) > 1
        else label
        for i, label in enumerate(labels)
    ]
