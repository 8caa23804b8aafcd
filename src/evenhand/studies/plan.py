"""The plan of a study: its cells as configurations, their names, and every run that belongs to it."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from evenhand.files import Files
from evenhand.methods import METHODS, Method
from evenhand.models.adapters import Adapters
from evenhand.runs.configuration import Configuration, files_read, shipped_training
from evenhand.runs.prepared import parted
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.several import given_rules, identities, parse_all, shortcuts_text
from evenhand.studies.fields import HEADS, MOST_RUNS, SECTIONS, FlatCell, flat_cells
from evenhand.studies.file import StudyFile, read_study_file
from evenhand.studies.located import Located, Place
from evenhand.tasks import TASKS, TaskSource
from evenhand.training.settings import Training
from evenhand.validation import MOST_SEEDS, UserError, check_file_name, check_within, did_you_mean, unknown_name

T = TypeVar("T")
FilesRead = dict[str, Files | None]


@dataclass(frozen=True)
class Cell:
    """A cell: its name in tables and patterns, and the configuration of each of its runs, in the order of the seeds."""

    name: str
    runs: tuple[Configuration, ...]

    @property
    def first(self) -> Configuration:
        """The run that speaks for all: they differ by their seeds alone."""
        return self.runs[0]


@dataclass(frozen=True)
class Plan:
    """All that a study file asks for.

    Attributes:
        name: The study's name.
        file: Name of its file.
        title: The report's heading.
        baseline: Pattern of the cells that the others are compared with; ERM if None.
        keep_models: Whether models stay on disk.
        cells: The cells, in the file's order.
    """

    name: str
    file: str
    title: str
    baseline: str | None
    keep_models: bool
    cells: tuple[Cell, ...]

    def matching(self, pattern: str) -> list[Cell]:
        """The cells whose name matches a pattern with `*`, whatever the case.

        Raises:
            UserError: If there is none.
        """
        found = [cell for cell in self.cells if fnmatch.fnmatchcase(cell.name.lower(), pattern.lower())]
        if not found:
            names = [cell.name for cell in self.cells]
            near = did_you_mean(pattern, names)
            raise UserError(f"No cell of {self.file} matches '{pattern}'{near}; its cells are {'; '.join(names)}.")
        return found


def read_plan(path: Path, seeds: int | None = None, data_dir: Path | None = None) -> Plan:
    """Read a study file.

    Args:
        path: The file.
        seeds: The number of seeds (0, 1, …), in place of the file's.
        data_dir: Folder of data files for every task that has such a setting.

    Raises:
        UserError: One sentence for the first mistake, with file and line.
    """
    file, located = read_study_file(path)
    if seeds is not None:
        check_within("study", "seeds", seeds, 1, MOST_SEEDS)
    name = file.study or path.stem
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"The file's name '{path.name}' can't name a study: give it a name with the key 'study'.")
    check_file_name("the study's", name, "give it a shorter one with the key 'study'")
    flat = flat_cells(file, located)
    runs = sum(len(cell.seeds) if seeds is None else seeds for cell in flat)
    if runs > MOST_RUNS:
        raise located.error((), f"the study has {runs:,} runs, but it can have up to {MOST_RUNS:,}.")
    names = _names(flat, located)
    looked_at: dict[str, FilesRead] = {}
    cells = tuple(
        Cell(label, tuple(_configurations(cell, seeds, file, located, data_dir, looked_at)))
        for label, cell in zip(names, flat, strict=True)
    )
    _check_different(cells, flat, located)
    plan = Plan(name, path.name, file.title or name, file.baseline, file.keep_models, cells)
    if file.baseline is not None:
        _check_baseline(plan, located)
    return plan


def _configurations(
    cell: FlatCell,
    seeds: int | None,
    file: StudyFile,
    located: Located,
    data_dir: Path | None,
    looked_at: dict[str, FilesRead],
) -> list[Configuration]:
    """The cell's runs; files are looked at once for all cells of a task, and in no run's own process."""
    _check_spelled(cell, located)
    task = _named(cell, "task", TASKS, located)
    method = _named(cell, "method", METHODS, located)
    assert isinstance(task, TaskSource)
    assert isinstance(method, Method)
    if data_dir is not None and hasattr(task, "data_dir"):
        task = dataclasses.replace(task, data_dir=data_dir)  # type: ignore[type-var]
    model = cell.fields["model"].value if "model" in cell.fields else task.usual_model
    if not isinstance(model, str):
        place = cell.fields["model"].place
        raise located.error(place, f"'model' must be a text: a model's name. Got {_shown(model)}.")
    adapters = None
    if any(name.startswith("peft.") for name in cell.fields):
        adapters = _built(cell, "peft", Adapters, {}, located)
    fresh = cell.fields["fresh"].value if "fresh" in cell.fields else False
    if not isinstance(fresh, bool):
        raise located.error(cell.fields["fresh"].place, f"'fresh' must be true or false. Got {_shown(fresh)}.")
    task, shortcuts = _shortcuts(cell, task, located)
    try:
        shipped = shipped_training(task, model, adapters, fresh)
    except UserError as error:
        # a task's own model is named in no field
        place = next(f.place for name, f in cell.fields.items() if name == "model" or name.startswith("peft."))
        raise located.error(place, str(error)) from error
    training = _built(cell, "training", Training, dataclasses.asdict(shipped), located)
    key = repr((task, model))
    if key not in looked_at:
        looked_at[key] = files_read(task, model)
    return [
        Configuration(
            method=method,
            task=task,
            model=model,
            training=training,
            seed=seed,
            adapters=adapters,
            fresh=fresh,
            shortcuts=shortcuts,
            data_seed=seed if file.data_seed is None else file.data_seed,
            files=looked_at[key],
        )
        for seed in (cell.seeds if seeds is None else range(seeds))
    ]


def _shortcuts(cell: FlatCell, task: TaskSource, located: Located) -> tuple[TaskSource, tuple[Rule, ...]]:
    """The task without its shortcuts, and the cell's: they are part of a run, whatever its task."""
    field = cell.fields.get("shortcuts")
    given = () if field is None else given_rules(field.value)
    try:
        recipe, named = parted(task, given)
        assert isinstance(recipe, TaskSource)
        return recipe, tuple(parse_all(named))
    except UserError as error:
        raise located.error(cell.place if field is None else field.place, str(error)) from error


def _check_spelled(cell: FlatCell, located: Located) -> None:
    """Each shortcut is spelled rightly; a mistake is told with its own line."""
    for field in (cell.fields.get(name) for name in ("shortcuts", "task.shortcuts")):
        value = None if field is None else field.value
        for i, one in enumerate(value if isinstance(value, list) else [] if field is None else [value]):
            assert field is not None
            place = (*field.place, i)
            if not isinstance(one, str):
                wanted = "be a list of spellings, such as ['token:nimbus']"
                raise located.error(place, f"'shortcuts' must {wanted}. Got {_shown(one)}.")
            try:
                parse_all(one)
            except UserError as error:
                raise located.error(place, str(error)) from error


def _named(cell: FlatCell, section: str, known: Mapping[str, type[T]], located: Located) -> T:
    """The task or method that the cell names, with its fields."""
    field = cell.fields.get(f"{section}.name")
    if field is None:
        raise located.error(cell.place, f"a cell has no {section}: give its name with the key '{section}'.")
    if not isinstance(field.value, str) or field.value not in known:
        raise located.error(field.place, str(unknown_name(section, str(field.value), known)))
    return _built(cell, section, known[field.value], {}, located)


def _built(cell: FlatCell, section: str, cls: type[T], shipped: dict[str, Any], located: Located) -> T:
    """The dataclass of a section from its fields; its own fields, types and checks are the only declaration."""
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    places: dict[str, Place] = {}
    owner = section
    for name, field in cell.fields.items():
        if not name.startswith(f"{section}.") or name == f"{section}.name":
            continue
        key = name.removeprefix(f"{section}.")
        owner = f"{section} '{cell.fields[f'{section}.name'].value}'" if f"{section}.name" in cell.fields else section
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise located.error(field.place, f"the {owner} has no field '{key}'{did_you_mean(key, known)}; {has}.")
        given[key], places[key] = field.value, field.place
    try:
        # As JSON, strictly: a text is no number and a number no text, but a path may be a text.
        return TypeAdapter(cls).validate_json(json.dumps(shipped | given, default=str), strict=True)
    except ValidationError as error:
        raise _field_error(error, cell, owner, given, places, located) from error


def _field_error(
    error: ValidationError,
    cell: FlatCell,
    owner: str,
    given: dict[str, Any],
    places: dict[str, Place],
    located: Located,
) -> UserError:
    first = error.errors()[0]
    own = first.get("ctx", {}).get("error")
    if isinstance(own, UserError):  # the class's own check, which names its parameter
        named = re.match(r"The '(\w+)' parameter", str(own))
        place = places.get(named[1]) if named else None
        return located.error(place or next(iter(places.values()), cell.place), str(own))
    key = str(first["loc"][0])
    allowed = [_allowed(e) for e in error.errors() if e["loc"][:1] == first["loc"][:1]]
    wanted = " or ".join(dict.fromkeys(allowed))
    return located.error(
        places.get(key, cell.place), f"the field '{key}' of the {owner} must be {wanted}. Got {_shown(given.get(key))}."
    )


def _allowed(error: Any) -> str:
    """What pydantic would have taken, in words."""
    if error["type"] == "literal_error":
        return f"one of {error['ctx']['expected']}"
    kind = str(error["type"]).removesuffix("_type").removesuffix("_parsing").removesuffix("_from_float")
    words = {"float": "a number", "int": "an integer", "string": "a text", "bool": "true or false", "path": "a path"}
    return words.get(kind, f"of another kind ({error['msg'].lower()})")


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


# ---- names ----------------------------------------------------------------------------------------------------------


def _names(cells: Sequence[FlatCell], located: Located) -> list[str]:
    """What each cell is called: its own name or its method's, and what varies."""
    names = []
    for cell in cells:
        varied = cell.grid if cell.name is not None else _telling_apart(cell, cells)
        method = cell.fields.get("method.name")
        base = cell.name if cell.name is not None else str(method.value).upper() if method else "?"
        shown = [f"{_short(name)}={_label(name, cell.fields[name].value)}" for name in varied if name != "method.name"]
        if cell.name is not None and "method.name" in varied and method:
            shown.insert(0, str(method.value))
        names.append(", ".join([base, *shown]))
    for i, name in enumerate(names):
        if cells[i].name is not None and names.index(name) < i:
            raise located.error(cells[i].place, f"two cells are called '{name}'.")
    return names


def _telling_apart(cell: FlatCell, cells: Sequence[FlatCell]) -> list[str]:
    """The cell's fields in which it differs from another cell of its method, or has alone."""

    def value(other: FlatCell, name: str) -> Any:
        return _text(other.fields[name].value) if name in other.fields else None

    rivals = [other for other in cells if value(other, "method.name") == value(cell, "method.name")]
    return [name for name in cell.fields if any(value(other, name) != value(cell, name) for other in rivals)]


def _short(name: str) -> str:
    """Shortened: "method.source" is "source", "training.lr" is "lr", "task.name" is "task"; "task.conflict" stays."""
    section, _, field = name.partition(".")
    if HEADS.get(section) == field:
        return section
    return field if section in SECTIONS and section != "task" and field else name


def _label(name: str, value: Any) -> str:
    """A field's value in a cell's name; shortcuts without brackets, which patterns over names would misread."""
    return shortcuts_text([value] if isinstance(value, str) else value) if name == "shortcuts" else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _shown(value)


# ---- checks of the whole plan ---------------------------------------------------------------------------------------


def _check_different(cells: Sequence[Cell], flat: Sequence[FlatCell], located: Located) -> None:
    seen: dict[str, int] = {}
    for i, cell in enumerate(cells):
        other = seen.setdefault(cell.first.cell_hash, i)
        if other != i:
            first = located.line(_place(flat[other]))
            raise located.error(
                _place(flat[i]),
                f"the cell '{cell.name}' is the same as '{cells[other].name}' (line {first}): every field is equal, "
                "defaults included.",
            )


def _place(cell: FlatCell) -> Place:
    """Where the cell is made: its entry, or the last value that a grid of the whole study gave it."""
    return cell.place or (cell.fields[cell.grid[-1]].place if cell.grid else ())


def _check_baseline(plan: Plan, located: Located) -> None:
    """The pattern matches, and cells that are compared with each other have one baseline."""
    assert plan.baseline is not None
    try:
        found = plan.matching(plan.baseline)
    except UserError as error:
        raise located.error(("baseline",), str(error)) from error
    sections: dict[str, str] = {}
    for cell in found:
        described = cell.first.as_dict()
        parts = [described.get(part) for part in ("task", "model", "training", "files")]
        key = json.dumps([parts, identities(described.get("shortcuts", []))], sort_keys=True)
        if key in sections:
            raise located.error(
                ("baseline",),
                f"the baseline '{plan.baseline}' matches both '{sections[key]}' and '{cell.name}', which are compared "
                "with each other: name one.",
            )
        sections[key] = cell.name
