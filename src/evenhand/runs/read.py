"""Records, samples and plans of studies as they are found below a folder."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image
from pydantic import BeforeValidator, Field, FiniteFloat

from evenhand.files import found_below, if_there
from evenhand.runs.ledger import runs_below
from evenhand.runs.record import FilesTold, Method, Model, Named, Record, read_object
from evenhand.runs.schema import Raw, Shown, Stored, Text, checked
from evenhand.validation import UserError

_LARGEST_SIDE = 4096  # pixels of a sample's picture


def find_records(folder: Path) -> list[Record]:
    """Read every run at or below `folder`, in the order of their paths; none where a study is only planned.

    Raises:
        UserError: If the folder is missing, holds no record, or holds one that can't be read.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; name one that holds finished runs.")
    runs = runs_below(folder)
    if not runs and not found_below(folder, "study.json"):
        raise UserError(f"{folder} holds no record.json; run 'evenhand train' or 'evenhand demo' first.")
    return runs


# ---- samples --------------------------------------------------------------------------------------------------------


class Sample(Stored):
    """One test sample with what a run predicted for it: an image (`png`, base64), a text, or a pair of texts.

    `where`: its place in the user's files. `broken`: it has an image that can't be shown.
    """

    index: int
    png: str | None
    prediction: Text
    label: Annotated[str, BeforeValidator(str)]
    text: Text = None
    text_pair: Text = None
    attribute: Text = None
    alignment: Text = None
    id: Text = None
    where: Text = None
    probability: Shown[FiniteFloat] = None
    broken: bool = Field(False, init=False, exclude=True)

    @property
    def identity(self) -> tuple[object, ...]:
        """All but the prediction: runs on the same data agree on it."""
        return (self.index, self.png, self.text, self.text_pair, self.label, self.attribute, self.alignment)


class _Samples(Stored):
    samples: list[Sample]


def has_samples(run: Record) -> bool:
    """Whether the run has left samples, in a line or in a file of their own."""
    return run.samples is not None or run.path.with_name("samples.json").is_file()


def read_samples(run: Record) -> list[Sample]:
    """The samples that a run has left.

    Raises:
        UserError: If they can't be read, or a field is missing or wrong.
    """
    path = run.path.with_name("samples.json")
    raw, source = (if_there(read_object, path), str(path)) if run.samples is None else run.samples
    if raw is None:
        return []
    return [
        sample if sample.png is None or is_png(sample.png) else sample.model_copy(update={"png": None, "broken": True})
        for sample in checked(_Samples, raw, source).samples
    ]


def is_png(encoded: str) -> bool:
    """Whether it is a whole PNG of a size that a page can show."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG"]) as image:
            if max(image.size) > _LARGEST_SIDE:
                return False
            image.load()
    except Exception:  # a damaged file can fail anywhere within the decoder
        return False
    return True


# ---- plans of studies ------------------------------------------------------------------------------------------------


class PlannedRun(Stored):
    """A run that a study plans, or leaves out this time."""

    seed: int
    data_seed: int
    configuration: str
    status: Literal["planned", "skipped"]


class PlannedCell(Stored):
    """A cell of a study: a configuration without its seeds, and its runs."""

    name: str
    cell: str
    former: str | None = None  # the cell's hash before records told of files
    method: Method
    task: Named
    model: Model
    training: Raw
    files: dict[str, FilesTold | None] | None = None
    runs: list[PlannedRun]


class StudyPlan(Stored):
    """What a study leaves in `study.json`."""

    format: int
    study: str = "?"
    title: str
    file: str = "?"
    baseline: list[str]
    only: str | None = None
    cells: list[PlannedCell]


def checked_plan(raw: Raw, source: Path) -> StudyPlan:
    """A plan from its content.

    Raises:
        UserError: If a field is missing or wrong.
    """
    return checked(StudyPlan, raw, str(source), "delete it and start the study again")


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
    found = {path: if_there(read_object, path) for path in found_below(folder, "study.json")}
    plans = {path: raw for path, raw in found.items() if raw is not None}
    titles = []
    for path, raw in plans.items():
        plan = checked_plan(raw, path)
        titles.append(plan.title)
        baselines |= set(plan.baseline)
        for cell, told in zip(plan.cells, raw["cells"], strict=True):
            names.setdefault(cell.cell, cell.name)
            for run in told["runs"]:
                planned = runs.setdefault(run["configuration"], _planned(path, raw, told, run))
                if cell.former is not None:
                    former[cell.former] = planned
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
    unknown = not set(cell.digests) <= {"data", "validation_data", "test_data"}  # own data had a digest before
    taken = {"cell": cell.cell, "task": cell.task, "files": cell.files, "files_unknown": unknown}
    return record.model_copy(update=taken)


def _planned(path: Path, plan: Raw, cell: Raw, run: Raw) -> Record:
    described = {key: value for key, value in cell.items() if key not in ("runs", "name")}
    skipped = run["status"] == "skipped"
    nothing = dict.fromkeys(("command", "selection", "label_access", "primary_test", "metrics"))
    error = f"left out by --only '{plan.get('only')}'" if skipped else None
    raw = {"format": plan["format"], **nothing, **described, **run, "error": error}
    return Record.read(raw, path.parent / run["configuration"] / "record.json", str(path))
