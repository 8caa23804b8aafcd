"""Parts of a record: what is measured on one test set beside its accuracies. Damaged parts are as if they weren't."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, FiniteFloat
from pydantic_core import PydanticCustomError

from evenhand.runs.schema import Shown, Stored

_LARGEST = 1 + 1e-9  # a weighted mean of ones may exceed 1 by a rounding


def _fraction(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise PydanticCustomError("expected", "null or a fraction from 0 to 1")
    return float(value)


Fraction = Annotated[float | None, BeforeValidator(_fraction)]
ShownFraction = Shown[Annotated[float, BeforeValidator(_fraction)]]
Ends = Shown[Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]]
_Part = TypeVar("_Part", bound=Stored)
ShownPart: TypeAlias = Annotated[_Part, BeforeValidator(lambda value: value if isinstance(value, dict) else {})]


class ShareTold(Stored):
    """How many samples there are, and the share of them that is right (or taken)."""

    n: Shown[int] = None
    accuracy: ShownFraction = None
    interval: Ends = None


class GapTold(Stored):
    """Accuracy on aligned samples minus that on conflicting ones."""

    value: Shown[FiniteFloat] = None
    interval: Ends = None


class RelianceTold(Stored):
    """Samples that are other ones without the shortcut, and how many of them get another class then."""

    n: Shown[int] = None
    changed: Shown[int] = None
    share: ShownFraction = None
    interval: Ends = None


class ShortcutTold(Stored):
    """A model measured by one shortcut, or by all together; `taken`: conflicting samples that get its class."""

    aligned: ShownPart[ShareTold] = ShareTold()
    conflicting: ShownPart[ShareTold] = ShareTold()
    independent: ShownPart[ShareTold] = ShareTold()
    gap: ShownPart[GapTold] = GapTold()
    taken: ShownPart[ShareTold] = ShareTold()
    reliance: Shown[RelianceTold] = None
    why_no_reliance: Shown[str] = None


class QualityTold(Stored):
    """What accuracy doesn't tell: macro recall and F1, AUROC, and the expected calibration error."""

    n: Shown[int] = None
    recall: ShownFraction = None
    f1: ShownFraction = None
    auroc: ShownFraction = None
    ece: ShownFraction = None
