"""The page's smaller tables: every test set, and what was run with which settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evenhand.metrics import summarize
from evenhand.report.cells import Cell, Section
from evenhand.report.notes import sizes
from evenhand.runs.read import METRICS, Record
from evenhand.wording import NOTHING, count, distinct, duration, mean_std, setting_value, settings_text


@dataclass(frozen=True)
class SetRow:
    """One method on one test set, with a number for each of `set_metrics`."""

    label: str
    test: str
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class MethodFacts:
    """What a method was run with, and the commands that run it again."""

    label: str
    settings: str
    label_access: str
    stages: str
    time: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """Something that holds for a whole section; several values where runs differ."""

    name: str
    values: tuple[str, ...]


def set_metrics(section: Section) -> tuple[str, ...]:
    """The metrics of the table of test sets."""
    return section.metrics(METRICS, all_tests=True)


def set_rows(section: Section) -> list[SetRow]:
    """Every finished method on every test set; the primary ones first."""
    primary = distinct(run.primary_test for run in section.done)
    names = distinct([*primary, *(name for run in section.done for name in run.tests)])
    rows: list[SetRow] = []
    for name in names:
        for cell in section.cells:
            if any(name in run.tests for run in cell.done):
                numbers = tuple(
                    mean_std(cell.summary(metric, name), len(cell.counted)) for metric in set_metrics(section)
                )
                rows.append(SetRow(cell.label, name, numbers))
    return rows


def method_facts(cell: Cell) -> MethodFacts:
    """Settings, label access, stages, time and commands of one cell."""
    first = cell.first
    seconds = [run.part("durations").get("total_s") for run in cell.done]
    time = summarize([float(s) for s in seconds if isinstance(s, int | float)]).mean
    return MethodFacts(
        label=cell.label,
        settings=settings_text(first.method_settings) or "none",
        label_access=first.label_access or "not recorded",
        stages=_stages(first) or NOTHING,
        time=NOTHING if time is None else duration(time),
        commands=tuple(distinct(run.command for run in cell.runs)),
    )


def section_facts(section: Section) -> list[Fact]:
    """Task, data, model, training, versions and machine; what no run recorded is left out."""
    sources: list[tuple[str, Callable[[Record], str | None]]] = [
        ("Task", lambda run: _named(run.task, settings_text(run.task_settings))),
        ("Model", _model),
        ("Training", lambda run: settings_text(run.training)),
        ("Model selection", lambda run: run.selection),
        ("Notes", _notes),
        ("Versions", lambda run: _pairs(run.part("versions"))),
        ("Commit", _commit),
        ("Machine", lambda run: _pairs(run.part("machine"))),
    ]
    runs = section.runs
    facts = [Fact(name, tuple(distinct(read(run) for run in runs))) for name, read in sources]
    facts.insert(1, Fact("Data", tuple(_data(section.done or runs))))
    facts.insert(4, Fact("Seeds", (_seeds(runs),)))
    return [fact for fact in facts if fact.values]


def _seeds(runs: list[Record]) -> str:
    """As in "0, 1, 2, each with its own data", every pair of seeds once."""
    pairs = sorted({(run.seed, run.data_seed) for run in runs})
    if all(seed == data_seed for seed, data_seed in pairs):
        return f"{', '.join(str(seed) for seed, _ in pairs)}; the data are drawn by the same seed"
    return ", ".join(f"{seed} (data seed {data_seed})" for seed, data_seed in pairs)


def _notes(run: Record) -> str | None:
    notes = run.raw.get("notes")
    return " ".join(str(note) for note in notes) if isinstance(notes, list) and notes else None


def _pairs(values: dict[str, Any]) -> str:
    """Names and values in one line, as in "python 3.11.7, torch 2.13.0"."""
    return ", ".join(f"{key} {setting_value(value)}" for key, value in values.items() if value is not None)


def _named(name: str, settings: str) -> str:
    return f"{name} ({settings})" if settings else name


def _model(run: Record) -> str:
    rest = {key: value for key, value in run.model.items() if key not in ("name", "parameters")}
    parameters = run.model.get("parameters")
    counted = f", {parameters:,} parameters" if isinstance(parameters, int) else ""
    return _named(str(run.model["name"]), settings_text(rest)) + counted


def _commit(run: Record) -> str | None:
    commit = run.part("commit")
    if not commit:
        return None
    return setting_value(commit.get("hash")) + (" with uncommitted changes" if commit.get("dirty") else "")


def _data(runs: list[Record]) -> list[str]:
    """Every part of the data, as in "train: 1,100 samples, 22 conflicting"."""
    texts: list[str] = []
    for name in distinct(name for run in runs for name in run.part("data")):
        number, conflicting = sizes(runs, "data", name, "n"), sizes(runs, "data", name, "conflicting")
        if number:
            texts.append(f"{name}: {number} samples" + (f", {conflicting} conflicting" if conflicting else ""))
    return texts


def _stages(run: Record) -> str:
    stages = run.raw.get("stages")
    texts: list[str] = []
    for stage in stages if isinstance(stages, list) else []:
        if isinstance(stage, dict):
            steps = stage.get("steps")
            counted = f" ({count(steps, 'step')})" if isinstance(steps, int) else ""
            texts.append(f"{stage.get('name')}{counted}")
    return ", ".join(texts)
