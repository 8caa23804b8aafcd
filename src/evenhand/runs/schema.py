"""What every schema of a JSON file shares: fields that may be damaged, and one sentence on one that may not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WrapValidator
from pydantic_core import ErrorDetails

from evenhand.validation import UserError
from evenhand.wording import clipped, visible

Raw: TypeAlias = dict[str, Any]
_T = TypeVar("_T")
_M = TypeVar("_M", bound="Stored")


def _left_out(value: Any, check: Callable[[Any], Any]) -> Any:
    with suppress(ValidationError):
        return check(value)
    return None


def _entries(value: Any, check: Callable[[Any], Raw]) -> Raw:
    with suppress(ValidationError):
        return check(value)
    found: Raw = {}
    for key, inner in value.items() if isinstance(value, dict) else ():
        with suppress(ValidationError):
            found |= check({key: inner})
    return found


def _items(value: Any, check: Callable[[Any], list[Any]]) -> list[Any]:
    with suppress(ValidationError):
        return check(value)
    found = []
    for inner in value if isinstance(value, list) else ():
        with suppress(ValidationError):
            found += check([inner])
    return found


Text = Annotated[str | None, BeforeValidator(lambda value: None if value is None else str(value))]
# What is only shown: a damaged value, entry or item is as one that isn't there.
Shown: TypeAlias = Annotated[_T | None, WrapValidator(_left_out)]
ShownEntries: TypeAlias = Annotated[dict[str, _T], WrapValidator(_entries)]
ShownItems: TypeAlias = Annotated[list[_T], WrapValidator(_items)]


class Stored(BaseModel):
    """A part of a JSON file; types are as they stand there."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


_EXPECTED = {
    "string_type": "a text",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
}


_ADVICE = "delete it or repeat its run"


def checked(model: type[_M], raw: Any, source: str, advice: str = _ADVICE) -> _M:
    """A file's content as its schema has it.

    Raises:
        UserError: If a field is missing or wrong; the sentence names `source` and the field, and gives the advice.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{_sentence(error.errors(include_url=False)[0], source)}; {advice}.") from error


def _sentence(error: ErrorDetails, source: str) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{source} lacks the key '{_plain(key)}'"
    expected = _EXPECTED.get(error["type"], error["msg"])
    if error["type"] == "literal_error":
        expected = f"one of {error.get('ctx', {})['expected'].replace(chr(39), '')}"
    return _wrong(key, source, expected, error["input"])


def wrong(key: str, source: str, expected: str, value: Any) -> UserError:
    """The error on a field that holds something else than it must."""
    return UserError(f"{_wrong(key, source, expected, value)}; {_ADVICE}.")


def _wrong(key: str, source: str, expected: str, value: Any) -> str:
    return f"'{_plain(key)}' in {source} must be {expected}, but is {shown(value)}"


def _plain(name: str) -> str:
    return visible(clipped(" ".join(name.split())))


def shown(value: Any) -> str:
    """A value as JSON, or its beginning."""
    return json.dumps(value, default=str)[:60]


def number(value: Any) -> float | None:
    """A finite number of an optional entry; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None
