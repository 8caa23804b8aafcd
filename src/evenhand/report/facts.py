"""What was run: what holds for a whole section, and each method's settings, stages and commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evenhand.metrics import summarize
from evenhand.report.cells import Cell, Section, sizes
from evenhand.report.cost import timed
from evenhand.report.table import METHOD, Column, Table, Value, table_of
from evenhand.runs.by_shortcut import fitted_shortcuts
from evenhand.runs.record import Record
from evenhand.shortcuts import FittedShortcut
from evenhand.wording import NOTHING, clipped, count, distinct, listed, setting_value, settings_text

_MOST_VALUES = 3  # of a shortcut, that are named


def facts_table(section: Section) -> Table:
    """Task, data, model, training, versions and machine."""
    return table_of(
        "Table of settings",
        section_facts(section).items(),
        [(Column("", "label"), lambda fact: fact[0]), (Column("", ""), lambda fact: Value("", lines=fact[1]))],
        note="The same for all methods of this section, unless several values are given.",
        kind="facts",
    )


def settings_table(section: Section) -> Table:
    """Settings, label access, stages and time of each method."""
    return table_of(
        "Table of method settings",
        section.cells,
        [
            (METHOD, lambda cell: cell.label),
            (Column("Settings", ""), lambda cell: settings_text(cell.first.method.settings) or "none"),
            (Column("Label access", ""), lambda cell: cell.first.label_access or "not recorded"),
            (Column("Stages", ""), lambda cell: _stages(cell.first) or NOTHING),
            ("Time a run", _time),
        ],
        note="Each method’s own settings. The time is the mean over finished runs.",
        kind="facts",
        sortable=True,
    )


def commands(cell: Cell) -> list[str]:
    """The commands that run it again."""
    return distinct(run.command for run in cell.runs)


def section_facts(section: Section) -> dict[str, list[str]]:
    """What holds for a section by its name, several texts where runs differ; what no run recorded is left out."""
    runs = section.runs

    def told(read: Callable[[Record], str | None]) -> list[str]:
        return distinct(read(run) for run in runs)

    facts = {
        "Task": told(lambda run: _named(run.task.name, settings_text(run.task.settings))),
        "Data": _data(section.done or runs),
        "Shortcuts": _shortcuts(runs),
        "Model": told(_model),
        "Training": told(lambda run: settings_text(run.training)),
        "Seeds": [_seeds(runs)],
        "Model selection": told(lambda run: run.selection),
        "Notes": told(_notes),
        "Versions": told(lambda run: _pairs(run.versions)),
        "Commit": told(_commit),
        "Machine": told(lambda run: _pairs(run.machine)),
    }
    return {name: texts for name, texts in facts.items() if texts}


def _time(cell: Cell) -> Value:
    return timed(summarize([run.durations.total_s for run in cell.done]).mean)


def _seeds(runs: list[Record]) -> str:
    """As in "0, 1, 2, each with its own data", every pair of seeds once."""
    pairs = sorted({(run.seed, run.data_seed) for run in runs})
    if all(seed == data_seed for seed, data_seed in pairs):
        return f"{', '.join(str(seed) for seed, _ in pairs)}; the data are drawn by the same seed"
    return ", ".join(f"{seed} (data seed {data_seed})" for seed, data_seed in pairs)


def _notes(run: Record) -> str | None:
    return " ".join(run.notes) or None


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
    if not run.commit:
        return None
    return setting_value(run.commit.get("hash")) + (" with uncommitted changes" if run.commit.get("dirty") else "")


def _data(runs: list[Record]) -> list[str]:
    """Every part of the data, as in "train: 1,100 samples, 22 conflicting"."""
    texts: list[str] = []
    for name in distinct(name for run in runs for name in run.data):
        splits = [run.split(name) for run in runs]
        number, conflicting = sizes(split.n for split in splits), sizes(split.conflicting for split in splits)
        if number:
            texts.append(f"{name}: {number} samples" + (f", {conflicting} conflicting" if conflicting else ""))
    return texts


def _shortcuts(runs: list[Record]) -> list[str]:
    """What the training samples say of each named shortcut, and which values point to which class."""
    by_name: dict[str, list[FittedShortcut]] = {}
    for run in runs:
        for fitted in fitted_shortcuts(run.raw):
            by_name.setdefault(fitted.name, []).append(fitted)
    return [f"{clipped(name)}: {_fitted(fitted)}" for name, fitted in by_name.items()]


def _fitted(fitted: list[FittedShortcut]) -> str:
    pairs = [(v, c) for v, c in enumerate(fitted[0].points_to) if c >= 0]
    pairs.sort(key=lambda pair: -sum(fitted[0].counts[pair[0]]))
    pointing = [f"“{clipped(fitted[0].names[v])}” points to {clipped(fitted[0].classes[c])}" for v, c in pairs]
    more = [count(len(pairs) - _MOST_VALUES, "more value")] if len(pairs) > _MOST_VALUES else []
    along, against = sizes(one.aligned for one in fitted), sizes(one.conflicting for one in fitted)
    texts = listed([*pointing[:_MOST_VALUES], *more]) or "no value points to a class"
    return f"{texts}; {along} training samples go along with it, {against} against it"


def _stages(run: Record) -> str:
    counted = [(stage.name, "" if stage.steps is None else f" ({count(stage.steps, 'step')})") for stage in run.stages]
    return ", ".join(f"{name}{steps}" for name, steps in counted)
