"""Runs → cells (one configuration, all its seeds) → sections (cells that may be compared)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evenhand.metrics import PairedDifference, Summary, paired_difference, summarize
from evenhand.runs.by_shortcut import shortcut_names
from evenhand.runs.read import NO_PLANS, Plans
from evenhand.runs.record import Metrics, Record
from evenhand.runs.worst_groups import is_lower
from evenhand.shortcuts.several import identities, shortcuts_text
from evenhand.wording import clipped, distinct, settings_text

SeedValues: TypeAlias = Mapping[tuple[int, int], float | None]  # (seed, data seed) → value

DID_NOTHING = " (did nothing)"  # what the label of such a method ends with

# Which of two records of the same run counts.
_STATUS_ORDER = {"done": 0, "running": 1, "failed": 2, "planned": 3, "skipped": 4}


@dataclass(frozen=True)
class Cell:
    """One configuration with all its runs, ordered by seed; `is_baseline`: the others are compared with it."""

    label: str
    runs: tuple[Record, ...]
    is_baseline: bool

    @property
    def first(self) -> Record:
        """The run that speaks for the cell: a finished one if there is one."""
        return min(self.runs, key=lambda run: _STATUS_ORDER[run.status])

    def with_status(self, status: str) -> list[Record]:
        """The runs of one of the statuses of a record."""
        return [run for run in self.runs if run.status == status]

    @property
    def done(self) -> list[Record]:
        """The finished runs."""
        return self.with_status("done")

    @property
    def is_tried(self) -> bool:
        """Whether the method did something in a finished run; where it didn't, the runs are ERM's."""
        return any(run.did_nothing is None for run in self.done)

    @property
    def counted(self) -> list[Record]:
        """The finished runs that speak for the method: those in which it did something, or all where it never did."""
        return [run for run in self.done if run.did_nothing is None] or self.done

    @property
    def idle(self) -> list[Record]:
        """The finished runs in which the method did nothing."""
        return [run for run in self.done if run.did_nothing is not None]

    def values(self, metric: str, test: str | None = None) -> SeedValues:
        """A metric of every run that counts, on the primary test set or on a named one."""
        return {
            (run.seed, run.data_seed): None if (found := measured_on(run, test)) is None else found.value(metric)
            for run in self.counted
        }

    def summary(self, metric: str, test: str | None = None) -> Summary:
        """Mean and spread of a metric over the runs that count."""
        return summarize(list(self.values(metric, test).values()))

    def group_summary(self, group: str) -> Summary:
        """The same for the accuracy on one group of the primary test set."""
        return summarize([run.metrics.by_group.get(group) for run in self.counted if run.metrics])


@dataclass(frozen=True)
class Section:
    """Cells on the same task and shortcuts, model and training: the only ones whose numbers stand side by side.

    Attributes:
        heading: What sets the section apart, in words.
        cells: The baseline first, then in the order of the study's file, others by label.
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
    def shortcuts(self) -> list[str]:
        """What the shortcuts are called that were named for its runs."""
        return shortcut_names(self.cells[0].first.raw)

    @property
    def baseline(self) -> Cell | None:
        """The cell that the others are compared with, if a run of it is finished: the study's choice, or ERM."""
        return next((cell for cell in self.cells if cell.is_baseline and cell.is_tried), None)

    @property
    def erm(self) -> Cell | None:
        """The cell that costs are compared with, if a run of it is finished."""
        return next((cell for cell in self.cells if cell.first.method.name == "erm" and cell.done), None)

    @property
    def groups_not_counted(self) -> list[str]:
        """Groups of the primary test set that are too small to be the worst one, in any of the runs."""
        return distinct(name for run in self.done for name in run.groups_not_counted.get(run.primary_test or "", []))

    def metrics(self, names: Sequence[str], *, all_tests: bool = False) -> tuple[str, ...]:
        """Those metrics, with that of the small groups behind the worst one's where a run does worse on the former.

        Args:
            names: Metrics.
            all_tests: Whether every test set counts, or the primary one alone.
        """
        found = [m for run in self.done for m in (run.tests.values() if all_tests else [run.metrics]) if m is not None]
        matter = any(is_lower(measured.groups) for measured in found)
        return tuple(m for name in names for m in (name, *(["small_groups"] * (matter and name == "worst_group"))))

    @property
    def baseline_name(self) -> str:
        """What the heading of the comparison calls it."""
        chosen = next((cell for cell in self.cells if cell.is_baseline), None)
        return "ERM" if chosen is None or chosen.first.method.name == "erm" else chosen.label


def measured_on(run: Record, test: str | None) -> Metrics | None:
    """What a run reached on its primary test set, or on a named one."""
    return run.metrics if test is None else run.tests.get(test)


def sizes(told: Iterable[int | None]) -> str:
    """The size that the runs' records tell of, or its range; empty where none does."""
    numbers = sorted({n for n in told if n is not None})
    if not numbers:
        return ""
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,}–{numbers[-1]:,}"


def difference(ours: SeedValues, baseline: SeedValues) -> PairedDifference:
    """Paired difference over the runs that share both seeds, so that only like data are compared."""
    number = {key: i for i, key in enumerate(sorted({*ours, *baseline}))}
    return paired_difference(
        {number[key]: value for key, value in ours.items()}, {number[key]: value for key, value in baseline.items()}
    )


def group_records(records: Sequence[Record], plans: Plans = NO_PLANS) -> list[Section]:
    """Sort records into sections and cells, with labels that tell them apart; a study's plan names its own cells."""
    by_section: dict[str, list[Record]] = {}
    for record in records:
        by_section.setdefault(_section_key(record), []).append(record)
    groups = list(by_section.values())
    headings = _tell_apart(
        [f"{clipped(group[0].task.name)}, {clipped(group[0].model['name'])}" for group in groups],
        [_section_settings(group[0]) for group in groups],
        list(by_section),
    )
    sections = [_section(heading, group, plans) for heading, group in zip(headings, groups, strict=True)]
    return sorted(sections, key=lambda section: _by_number(section.heading))


def _by_number(text: str) -> list[str | float]:
    """A key that puts r=8 before r=32: texts and numbers in turn."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", text)
    return [float(part) if i % 2 else part for i, part in enumerate(parts)]


def _section(heading: str, records: list[Record], plans: Plans) -> Section:
    runs: dict[tuple[str, int, int], Record] = {}
    repeats: list[Record] = []
    for record in sorted(records, key=lambda r: (_STATUS_ORDER[r.status], r.path)):
        kept = runs.setdefault((record.cell, record.seed, record.data_seed), record)
        if kept is not record:
            repeats.append(record)
    by_cell: dict[str, list[Record]] = {}
    for record in sorted(runs.values(), key=lambda r: (r.seed, r.data_seed)):
        by_cell.setdefault(record.cell, []).append(record)
    chosen = plans.baselines & set(by_cell)
    placed = [
        (
            plans.order.get(key, len(plans.order)),
            Cell(label + _mark(group), tuple(group), key in chosen if chosen else group[0].method.name == "erm"),
        )
        for label, (key, group) in zip(_labels(by_cell, plans), by_cell.items(), strict=True)
    ]
    placed.sort(key=lambda entry: (not entry[1].is_baseline, entry[0], entry[1].label.lower(), entry[1].label))
    return Section(heading, tuple(cell for _, cell in placed), tuple(repeats))


def _mark(runs: list[Record]) -> str:
    """What the name of a method ends with where it did nothing in any finished run: no table shows it as tried."""
    done = [run for run in runs if run.status == "done"]
    return DID_NOTHING if done and all(run.did_nothing is not None for run in done) else ""


def _labels(by_cell: dict[str, list[Record]], plans: Plans) -> list[str]:
    """The names of the study's file where all have one and they differ, else titles with what tells them apart."""
    named = [plans.names.get(key) for key in by_cell]
    names = [clipped(name) for name in named if name is not None]
    if len(set(names)) == len(by_cell):
        return _without_common(names)
    groups = list(by_cell.values())
    titles = [clipped(name or group[0].method.title) for name, group in zip(named, groups, strict=True)]
    return _tell_apart(titles, [group[0].method.settings for group in groups], list(by_cell))


def _without_common(names: list[str]) -> list[str]:
    """Names such as "PGD, task=x, source=head" without the settings that all have: the section's heading has them."""
    parts = [name.split(", ") for name in names]
    common = {part for part in parts[0][1:] if "=" in part and all(part in other[1:] for other in parts)}
    shorter = [", ".join(part for part in own if part not in common) for own in parts]
    return shorter if len(names) > 1 and len(set(shorter)) == len(names) else names


def _section_settings(record: Record) -> dict[str, Any]:
    # The parameter counts describe the model and are unknown to a run that failed early: no part of its identity.
    model = {key: value for key, value in record.model.items() if not key.endswith("parameters") and key != "name"}
    files = {"files": {option: digest[:8] for option, digest in record.digests.items()}}
    named = {"shortcuts": shortcuts_text(record.shortcuts) if record.shortcuts else "none named"}
    return {**record.task.settings, **model, **record.training, **(files if record.digests else {}), **named}


def _section_key(record: Record) -> str:
    model = {key: value for key, value in record.model.items() if not key.endswith("parameters")}
    parts = [record.task.name, record.task.settings, model, record.training, record.digests]
    if record.shortcuts:  # other samples are aligned and conflicting by others
        parts.append(identities(record.shortcuts))
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
