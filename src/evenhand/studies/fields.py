"""From a study file's cells and grids to flat fields: "method.source" → its value and its place in the file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.studies.file import CellEntry, StudyFile, seed_list
from evenhand.studies.located import Located, Place
from evenhand.validation import did_you_mean

# What a cell is made of. A mapping with a name (a text stands for it), a mapping, or a plain value.
NAMED = ("task", "method")
SECTIONS = (*NAMED, "training", "peft")
HEADS = {"task": "name", "method": "name", "peft": "kind"}  # the field that a text in place of the section stands for
PLAIN = ("model", "fresh", "shortcuts")
MOST_RUNS = 100_000  # of a study: planning more takes minutes


@dataclass(frozen=True)
class Field:
    """A value and where the file says so."""

    value: Any
    place: Place


Fields = Mapping[str, Field]
"""Dotted name ("method.source", "task.name", "model") → its value."""


@dataclass(frozen=True)
class FlatCell:
    """One cell of the study, before its fields are checked.

    Attributes:
        name: The name given in the file, if any.
        fields: All its fields.
        grid: The fields that a grid varies, in the grid's order.
        seeds: The seeds of its runs.
        place: Where it stands.
    """

    name: str | None
    fields: Fields
    grid: tuple[str, ...]
    seeds: list[int]
    place: Place


def flat_cells(file: StudyFile, located: Located) -> list[FlatCell]:
    """Every cell of the file: the common fields, the study's grid, the cell's own fields, the cell's own grid.

    Raises:
        UserError: If a grid names a field that no cell can have.
    """
    common = _own_fields(file, ())
    entries: list[tuple[CellEntry, Place]] = (
        [(CellEntry(), ())] if file.cells is None else [(c, ("cells", i)) for i, c in enumerate(file.cells)]
    )
    cells = []
    for entry, place in entries:
        own = _own_fields(entry, place)
        for outer in _combinations(file.grid, (), located):
            for inner in _combinations(entry.grid if place else None, place, located):
                fields = common
                for layer in (outer, own, inner):
                    fields = _overlaid(fields, layer)
                varied = tuple(dict.fromkeys([*outer, *inner]))
                cells.append(FlatCell(entry.name, fields, varied, seed_list(entry.seeds or file.seeds), place))
    return cells


def _own_fields(entry: StudyFile | CellEntry, place: Place) -> Fields:
    found: dict[str, Field] = {}
    for section in (*SECTIONS, *PLAIN):
        value = getattr(entry, section)
        if value is not None:
            found |= _flat(section, value, (*place, section))
    return found


def _flat(name: str, value: Any, place: Place) -> dict[str, Field]:
    """A section as dotted fields; a text stands for its name."""
    if name in SECTIONS and isinstance(value, dict):
        return {f"{name}.{key}": Field(entry, (*place, key)) for key, entry in value.items()}
    return {f"{name}.{HEADS[name]}" if name in HEADS else name: Field(value, place)}


def _combinations(grid: Mapping[str, list[Any]] | None, place: Place, located: Located) -> Iterator[dict[str, Field]]:
    """Every combination of a grid's values; a single empty one where there is no grid."""
    axes = []
    for name, values in (grid or {}).items():
        where = (*place, "grid", name)
        section = str(name).split(".")[0]
        dotted = "." in str(name)
        if section not in (*SECTIONS, *PLAIN) or (dotted and section in PLAIN) or (not dotted and name == "training"):
            known = [*(f"{s}.FIELD" for s in SECTIONS), *HEADS, *PLAIN]
            near = did_you_mean(section, [*SECTIONS, *PLAIN])
            raise located.error(where, f"a grid can't vary '{name}'{near}; it varies {', '.join(known)}.")
        axes.append([_flat(str(name), value, (*where, i)) for i, value in enumerate(values)])
    if math.prod(map(len, axes)) > MOST_RUNS:
        raise located.error((*place, "grid"), f"the grid has more than {MOST_RUNS:,} combinations.")
    for chosen in itertools.product(*axes):
        yield {name: field for part in chosen for name, field in part.items()}


def _overlaid(below: Fields, layer: Fields) -> Fields:
    """`layer` over what lies below; the fields of another task or method than the layer's go with it."""
    kept = dict(below)
    for section in NAMED:
        name = layer.get(f"{section}.name")
        old = below.get(f"{section}.name")
        if name is not None and old is not None and name.value != old.value:
            kept = {key: field for key, field in kept.items() if not key.startswith(f"{section}.")}
    return kept | dict(layer)
