"""What a study file says: its top-level keys, checked by pydantic. What the fields mean stands in fields.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from evenhand.studies.located import Located, Place, read_yaml
from evenhand.validation import LARGEST_SEED, MOST_SEEDS, UserError, did_you_mean

Fields = dict[str, Any] | StrictStr
Values = Annotated[list[Any], Field(min_length=1)]
Grid = Annotated[dict[str, Values], Field(min_length=1)]


def _different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("names a seed twice")
    return seeds


Seed = Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)]
Seeds = (
    Annotated[StrictInt, Field(ge=1, le=MOST_SEEDS)]
    | Annotated[list[Seed], Field(min_length=1), AfterValidator(_different)]
)


def seed_list(seeds: int | list[int]) -> list[int]:
    """The seeds one by one: 5 means 0 to 4."""
    return list(range(seeds)) if isinstance(seeds, int) else seeds


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Fields | None = None
    model: StrictStr | None = None
    method: Fields | None = None
    training: dict[str, Any] | None = None
    peft: Fields | None = None
    fresh: StrictBool | None = None
    shortcuts: list[Any] | StrictStr | None = None
    grid: Grid | None = None


class CellEntry(_Keys):
    """An entry of `cells`: its own fields, and perhaps a grid and seeds of its own."""

    name: StrictStr | None = None
    seeds: Seeds | None = None


class StudyFile(_Keys):
    """The whole file.

    Attributes:
        study: The study's name, which is that of its folders; the file's own name unless given.
        title: The report's heading.
        seeds: How many (0, 1, …), or which.
        data_seed: Seed of the data for every run; the run's own seed if None.
        baseline: Pattern over the cells' names: what the others are compared with; ERM if None.
        keep_models: Whether the runs' models stay on disk.
        cells: The cells listed one by one; a single one with no fields of its own if there is no such list.
    """

    study: Annotated[StrictStr, Field(pattern=r"^[\w][\w.-]*$")] | None = None
    title: StrictStr | None = None
    seeds: Seeds
    data_seed: Seed | None = None
    baseline: StrictStr | None = None
    keep_models: StrictBool = False
    cells: Annotated[list[CellEntry], Field(min_length=1)] | None = None


def read_study_file(path: Path) -> tuple[StudyFile, Located]:
    """Read and check a study file, fields of tasks, methods and training excepted.

    Raises:
        UserError: One sentence with the file, the line, and what is allowed there.
    """
    located = read_yaml(path)
    if not isinstance(located.content, dict):
        raise located.error((), "a study file must be a mapping, such as 'task: colored-digits'.")
    try:
        return StudyFile.model_validate(located.content), located
    except ValidationError as error:
        raise _sentence(error, located) from error


def _sentence(error: ValidationError, located: Located) -> UserError:
    """The first mistake of the file; where several types were allowed, all that was allowed."""
    first = min(error.errors(), key=lambda e: (located.line(_in_file(e["loc"], located)), -len(e["loc"])))
    place = _in_file(first["loc"], located)
    name = ".".join(str(step) for step in place)
    kind, got = first["type"], json.dumps(first.get("input"), default=str, ensure_ascii=False)
    if kind == "missing":
        return located.error((), f"the key '{name}' is missing.")
    if kind == "extra_forbidden":
        known = CellEntry.model_fields if "cells" in place else StudyFile.model_fields
        return located.error(
            place, f"unknown key '{place[-1]}'{did_you_mean(str(place[-1]), known)}; known are {', '.join(known)}."
        )
    if "seeds" in place:
        wanted = "must be a number of at least 1 or a list of different integers of at least 0"
        if kind == "less_than_equal":
            wanted = f"must be a number from 1 to {MOST_SEEDS} or a list of different integers from 0 to {LARGEST_SEED}"
        return located.error(place, f"'seeds' {wanted}. Got {got}.")
    if kind == "too_short":
        return located.error(place, f"'{name}' is empty, so there is nothing to run.")
    wanted = {"string_pattern_mismatch": "must be made of letters, digits, '.', '-' and '_'"}.get(kind)
    in_grid = "grid" in place[:-1]
    allowed = "a list of values" if in_grid else _ALLOWED.get(str(place[-1]), "of another kind")
    return located.error(place, f"'{name}' {wanted or 'must be ' + allowed}. Got {got}.")


_ALLOWED = {
    "study": "a text",
    "title": "a text",
    "name": "a text",
    "baseline": "a text: a cell's name, perhaps with '*'",
    "model": "a text: a model's name",
    "task": "a task's name, or a mapping with its name and fields",
    "method": "a method's name, or a mapping with its name and fields",
    "training": "a mapping of training fields",
    "peft": "the adapters' kind, or a mapping with their kind and settings",
    "fresh": "true or false",
    "shortcuts": "a list of spellings, such as ['token:nimbus']",
    "data_seed": f"an integer from 0 to {LARGEST_SEED}",
    "keep_models": "true or false",
    "cells": "a list of cells",
    "grid": "a mapping of fields to lists of values, such as 'method.source: [head, all]'",
}


def _in_file(loc: tuple[Any, ...], located: Located) -> Place:
    """Pydantic's place without what isn't in the file: the names of a union's members."""
    place: list[str | int] = []
    content = located.content
    for step in loc:
        if (isinstance(content, dict) and step in content) or (
            isinstance(content, list) and isinstance(step, int) and step < len(content)
        ):
            content = content[step]
        elif not place:
            content = None  # a missing key
        else:
            continue
        place.append(step)
    return tuple(place)
