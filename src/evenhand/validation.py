"""One sentence for every bad parameter, raised before anything runs or is written."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union

LARGEST_SEED = 2**32 - 1
"""NumPy's global generator takes no larger one."""

MOST_SEEDS = 10_000
"""How many may be asked for by their number."""

LONGEST_FILE_NAME = 255
"""Bytes that file systems give a name."""


class UserError(ValueError):
    """A mistake that the user can mend; its message is one sentence that says how."""


@dataclass(frozen=True)
class Range:
    """An interval of numbers, declared at a field's type: `alpha: Annotated[float, Range(0)]`.

    Attributes:
        low: Lower end of the interval.
        high: Upper end of the interval; `math.inf` makes it open.
        low_open: Whether `low` itself is excluded.
        high_open: Whether `high` itself is excluded.
    """

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __str__(self) -> str:
        end = ")" if self.high_open or math.isinf(self.high) else "]"
        return f"{'(' if self.low_open else '['}{self.low:g}, {self.high:g}{end}"

    def check(self, owner: str, name: str, value: object, kind: Any = float) -> None:
        """Raise `UserError` unless the value is a number of this kind in the interval; booleans and NaN are none."""
        if kind is int:
            return check_integer(owner, name, value, int(self.low), None if math.isinf(self.high) else int(self.high))
        try:
            number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
        except OverflowError:  # an integer beyond all floats
            number = math.inf
        above = number > self.low if self.low_open else number >= self.low
        below = number < self.high if self.high_open or math.isinf(self.high) else number <= self.high
        if not (above and below):
            raise UserError(f"The '{name}' parameter of {owner} must be a float in the range {self}. Got {value!r}.")
        return None


def check_integer(owner: str, name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise `UserError` unless `value` is an integer of at least `low` and, if given, at most `high`."""
    integer = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if integer is None or integer < low or (high is not None and integer > high):
        wanted = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"The '{name}' parameter of {owner} must be an integer {wanted}. Got {value!r}.")


def check_within(owner: str, name: str, value: object, low: int, high: int) -> None:
    """The same with an upper end so far away that only what passes it is told of it."""
    check_integer(owner, name, value, low)
    check_integer(owner, name, value, low, high)


def check_seed(owner: str, name: str, value: object) -> None:
    """Raise `UserError` unless `value` is an integer that every random generator takes."""
    check_within(owner, name, value, 0, LARGEST_SEED)


def check_choice(owner: str, name: str, value: object, choices: Iterable[str], beside: str = "") -> None:
    """Raise `UserError` unless `value` is one of `choices`; the nearest ones are named, and what goes beside them."""
    choices = list(choices)
    if value not in choices:
        wanted = f"one of {', '.join(choices)}{',' * bool(beside)}" if choices[1:] else repr(choices[0])
        raise UserError(
            f"The '{name}' parameter of {owner} must be {wanted}{beside}. "
            f"Got {value!r}{did_you_mean(str(value), choices)}."
        )


def check_value(owner: str, name: str, value: object, hint: Any) -> None:
    """Raise `UserError` unless a parameter's annotation allows the value.

    Args:
        owner: What the parameter belongs to, as the user knows it ("EDGE").
        name: The parameter's name.
        value: The value to check.
        hint: The annotation: a Literal's choices, a bool, and what is `Annotated` with a `Range` (or another object
            that has a `check`) are checked, also as parts of a union; of other types nothing is.
    """
    parts = _parts(hint)
    choices = [choice for part in parts if typing.get_origin(part) is Literal for choice in typing.get_args(part)]
    if value is None and types.NoneType in parts:
        return
    if choices and (isinstance(value, str) or len(parts) == 1):
        interval = range_of(hint)
        check_choice(owner, name, value, choices, f" or a float in the range {interval}" if interval else "")
        return
    for part in parts:
        if part is bool and not isinstance(value, bool):
            raise UserError(f"The '{name}' parameter of {owner} must be True or False. Got {value!r}.")
        for mark in getattr(part, "__metadata__", ()):
            if hasattr(mark, "check"):
                mark.check(owner, name, value, typing.get_args(part)[0])


def check_path(path: Path | str) -> None:
    """Raise `UserError` where a name in a path is one that no file can have."""
    for part in Path(path).parts:
        if "\0" in part:
            raise UserError(f"The path {str(path)!r} can't be used: no file's name may hold a NUL.")
        if len(os.fsencode(part)) > LONGEST_FILE_NAME:
            raise UserError(f"The name '{part[:40]}…' is too long: a file's may have {LONGEST_FILE_NAME} bytes.")


def check_file_name(what: str, name: str, remedy: str) -> None:
    """Raise `UserError` where a name can't be that of a single file or folder.

    Args:
        what: Whose name it is, as in "the task's".
        name: The name.
        remedy: What the user can do.
    """
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0") or len(os.fsencode(name)) > LONGEST_FILE_NAME:
        shown = name if len(name) <= 60 else f"{name[:60]}…"
        raise UserError(f"No folder can have {what} name {shown!r}: {remedy}.")


def check_fields(owner: str, settings: Any) -> None:
    """Check each field of a dataclass by its annotation; one that is None by default may be None.

    Args:
        owner: What the fields belong to, as the user knows it.
        settings: The dataclass.

    Raises:
        UserError: If a value isn't allowed.
    """
    hints = _hints_of(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None or field.default is not None:
            check_value(owner, field.name, value, hints.get(field.name))


@functools.cache
def _hints_of(settings: type) -> dict[str, Any]:
    """The annotations of a class, resolved; none where a name in them is for type checkers only."""
    try:
        return typing.get_type_hints(settings, include_extras=True)
    except NameError:
        return {}


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def range_of(hint: Any) -> Range | None:
    """The interval that an annotation declares, if it does."""
    marks = (mark for part in _parts(hint) for mark in getattr(part, "__metadata__", ()))
    return next((mark for mark in marks if isinstance(mark, Range)), None)


def plain_fields(owner: Any) -> dict[str, Any]:
    """A dataclass's fields by name, those of one within too; their values are Python's own, 2 is 2.0 for a float."""
    return {f.name: _plain(getattr(owner, f.name), "int" in str(f.type)) for f in dataclasses.fields(owner)}


def _plain(value: Any, integer: bool) -> Any:
    if dataclasses.is_dataclass(value):
        return plain_fields(value)
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, Real) or isinstance(value, bool):
        return value
    return int(value) if integer and isinstance(value, Integral) else float(value)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a misspelt name of a task, method or model, with the nearest known names."""
    known = list(known)
    return UserError(f"Unknown {kind} '{name}'{did_you_mean(name, known)}; known are {', '.join(known)}.")


def nearest_names(name: str, known: Iterable[str], cutoff: float = 0.5) -> list[str]:
    """The known names that a misspelt one may stand for, nearest first (at most three).

    Args:
        name: The name as it was given.
        known: Names that there are.
        cutoff: How alike they must be, from 0 to 1.
    """
    lowered = {k.lower(): k for k in known}
    return [lowered[k] for k in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=cutoff)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """As in " (did you mean 'train'?)", or nothing where no known name is near."""
    near = nearest_names(name, known)
    return f" (did you mean {' or '.join(repr(k) for k in near)}?)" if near else ""


def count(number: int, noun: str) -> str:
    """As in "1 seed" and "1,100 samples"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def named(names: Iterable[str], most: int | None = None) -> str:
    """As in "a, x; b, y", or "a, x; b, y; and 3 more": for names such as groups' that hold commas themselves."""
    names = list(names)
    if most is None or len(names) <= most:
        return "; ".join(names)
    return "; ".join([*names[: most - 1], f"and {len(names) - most + 1:,} more"])
