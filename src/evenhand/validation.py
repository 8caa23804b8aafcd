"""One sentence for every bad parameter, raised before anything runs or is written."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


class UserError(ValueError):
    """A mistake that the user can mend; its message is one sentence that says how."""


def check_number(
    owner: str,
    name: str,
    value: object,
    low: float,
    high: float,
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raise `UserError` unless `value` is a real number in the given interval.

    Args:
        owner: What the parameter belongs to, as the user knows it ("EDGE").
        name: The parameter's name.
        value: The value to check. Booleans and NaN are refused.
        low: Lower end of the interval.
        high: Upper end of the interval; `math.inf` makes it open.
        low_open: Whether `low` itself is excluded.
        high_open: Whether `high` itself is excluded.

    Raises:
        UserError: If the value is not a number or lies outside the interval.
    """
    high_open = high_open or math.isinf(high)
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan  # lies in none
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    if not ((number > low if low_open else number >= low) and (number < high if high_open else number <= high)):
        interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
        raise UserError(f"The '{name}' parameter of {owner} must be a float in the range {interval}. Got {value!r}.")


def check_integer(owner: str, name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise `UserError` unless `value` is an integer of at least `low` and, if given, at most `high`."""
    integer = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if integer is None or integer < low or (high is not None and integer > high):
        wanted = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"The '{name}' parameter of {owner} must be an integer {wanted}. Got {value!r}.")


def check_choice(owner: str, name: str, value: object, choices: Iterable[str]) -> None:
    """Raise `UserError` unless `value` is one of `choices`; the nearest ones are named."""
    choices = list(choices)
    if value not in choices:
        raise UserError(
            f"The '{name}' parameter of {owner} must be one of {', '.join(choices)}. "
            f"Got {value!r}{did_you_mean(str(value), choices)}."
        )


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
