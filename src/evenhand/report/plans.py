"""Reading the plans that studies leave (`study.json`): names of cells, the baseline, and runs without a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evenhand.files import found_below, if_there
from evenhand.runs.read import Record, checked_record
from evenhand.runs.record import read_object
from evenhand.validation import UserError


@dataclass(frozen=True)
class Plans:
    """All plans below a folder.

    Attributes:
        title: The study's own title, if there is one study only.
        names: Cell hash → its name in the study's file.
        order: Cell hash → its place in the study's file.
        baselines: Hashes of the cells that others are compared with.
        runs: Every planned run as a record without result, "planned" or "skipped".
        former: Cell hash of before records told of files → a planned run of the cell.
    """

    title: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    baselines: frozenset[str] = frozenset()
    runs: tuple[Record, ...] = ()
    former: Mapping[str, Record] = field(default_factory=dict)


NO_PLANS = Plans()


def find_plans(folder: Path) -> Plans:
    """Read every `study.json` at or below `folder`.

    Raises:
        UserError: If one is damaged.
    """
    names: dict[str, str] = {}
    baselines: set[str] = set()
    runs: dict[str, Record] = {}
    former: dict[str, Record] = {}
    titles: list[str] = []
    for path in found_below(folder, "study.json"):
        raw = if_there(read_object, path)
        if raw is None:
            continue
        try:
            titles.append(str(raw["title"]))
            baselines |= {str(cell) for cell in raw["baseline"]}
            for cell in raw["cells"]:
                names.setdefault(cell["cell"], str(cell["name"]))
                for run in cell["runs"]:
                    planned = runs.setdefault(run["configuration"], _planned(path, raw, cell, run))
                    if "former" in cell:
                        former[str(cell["former"])] = planned
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no plan of a study ({error!r}); start the study again.") from error
    return Plans(
        title=titles[0] if len(titles) == 1 else None,
        names=names,
        order={cell: i for i, cell in enumerate(names)},
        baselines=frozenset(baselines),
        runs=tuple(runs.values()),
        former=former,
    )


def with_planned(records: Sequence[Record], plans: Plans) -> list[Record]:
    """The records, those that don't tell of files in the cells that took them, and planned runs that have none."""
    placed = [_placed(record, plans) for record in records]
    there = {(record.cell, record.seed, record.data_seed) for record in placed}
    return [*placed, *(run for run in plans.runs if (run.cell, run.seed, run.data_seed) not in there)]


def _placed(record: Record, plans: Plans) -> Record:
    """A record that was made before records told of files, as one of the cell that a study took it for."""
    cell = plans.former.get(record.cell)
    if cell is None or "files" in record.raw:
        return record
    raw = record.raw | {"files": cell.raw.get("files")}
    unknown = not set(cell.files) <= {"data", "validation_data", "test_data"}  # own data had a digest before
    return replace(record, cell=cell.cell, task_settings=cell.task_settings, raw=raw, files_unknown=unknown)


def _planned(path: Path, plan: dict[str, Any], cell: dict[str, Any], run: dict[str, Any]) -> Record:
    described = {key: value for key, value in cell.items() if key not in ("runs", "name")}
    skipped = run["status"] == "skipped"
    nothing = dict.fromkeys(("command", "selection", "label_access", "primary_test", "metrics"))
    error = f"left out by --only '{plan.get('only')}'" if skipped else None
    raw = {"format": plan["format"], **nothing, **described, **run, "error": error}
    return checked_record(raw, path.parent / run["configuration"] / "record.json", source=str(path))
