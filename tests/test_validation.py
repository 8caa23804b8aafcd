from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, get_type_hints

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from evenhand.validation import (
    Range,
    UserError,
    check_choice,
    check_fields,
    check_integer,
    nearest_names,
    range_of,
    unknown_name,
)

OUTSIDE = "The 'alpha' parameter of EDGE must be a float in the range {}. Got {}."


def refusal(check: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UserError) as caught:
        check(*args, **kwargs)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.float64(1), np.int64(1), Fraction(1, 3)])
def test_numbers_of_any_kind_in_a_closed_interval(value: Any) -> None:
    Range(0, 1).check("EDGE", "alpha", value)


@pytest.mark.parametrize(
    ("low_open", "high_open", "interval"),
    [(False, False, "[0, 1]"), (True, False, "(0, 1]"), (False, True, "[0, 1)"), (True, True, "(0, 1)")],
)
def test_open_ends_are_excluded_and_shown(low_open: bool, high_open: bool, interval: str) -> None:
    for value, is_open in ((0.0, low_open), (1.0, high_open)):
        if is_open:
            message = refusal(Range(0, 1, low_open, high_open).check, "EDGE", "alpha", value)
            assert message == OUTSIDE.format(interval, value)
        else:
            Range(0, 1, low_open, high_open).check("EDGE", "alpha", value)


def test_an_infinite_upper_end_is_open() -> None:
    Range(0).check("EDGE", "alpha", 1e300)
    assert refusal(Range(0).check, "EDGE", "alpha", math.inf) == OUTSIDE.format("[0, inf)", "inf")
    assert refusal(Range(0).check, "EDGE", "alpha", -1) == OUTSIDE.format("[0, inf)", "-1")


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), True, False, np.True_, "1", None, [1], 1j, b"1"])
def test_what_is_no_number_lies_in_no_interval(value: Any) -> None:
    assert refusal(Range(0, 1).check, "EDGE", "alpha", value) == OUTSIDE.format("[0, 1]", repr(value))


def test_an_integer_beyond_all_floats_is_refused_like_infinity() -> None:
    assert "range [0, inf). Got 1000" in refusal(Range(0).check, "EDGE", "alpha", 10**400)


@given(value=st.floats(), low=st.floats(-10, 10), width=st.floats(0, 10))
@settings(max_examples=25)
def test_numbers_are_accepted_exactly_inside(value: float, low: float, width: float) -> None:
    high = low + width
    if low <= value <= high:
        Range(low, high).check("EDGE", "alpha", value)
    else:
        assert refusal(Range(low, high).check, "EDGE", "alpha", value).endswith(f"Got {value!r}.")


@pytest.mark.parametrize("value", [1, 7, 10**30, np.int64(1), np.uint8(3)])
def test_integers(value: Any) -> None:
    check_integer("fit", "seed", value, 1)


@pytest.mark.parametrize("value", [0, -3, np.int64(-1), 1.0, 2.5, True, "2", None, math.nan, math.inf])
def test_what_is_no_integer_of_at_least_one(value: Any) -> None:
    expected = f"The 'seed' parameter of fit must be an integer of at least 1. Got {value!r}."
    assert refusal(check_integer, "fit", "seed", value, 1) == expected


def test_choices_name_the_nearest() -> None:
    check_choice("PGD", "init", "random", ("inherit", "random"))
    message = refusal(check_choice, "PGD", "init", "inherti", ("inherit", "random"))
    assert message == (
        "The 'init' parameter of PGD must be one of inherit, random. Got 'inherti' (did you mean 'inherit'?)."
    )


@pytest.mark.parametrize("value", ["zzz", None, 3, ""])
def test_choices_without_a_near_name(value: Any) -> None:
    message = refusal(check_choice, "PGD", "init", value, iter(("inherit", "random")))
    assert message == f"The 'init' parameter of PGD must be one of inherit, random. Got {value!r}."


def test_unknown_names_are_answered_with_the_nearest_first() -> None:
    error = unknown_name("task", "Colored-Digit", iter(["colored-mnist", "colored-digits", "other"]))
    assert isinstance(error, UserError)
    assert str(error) == (
        "Unknown task 'Colored-Digit' (did you mean 'colored-digits' or 'colored-mnist'?); "
        "known are colored-mnist, colored-digits, other."
    )
    assert str(unknown_name("task", "zzz", ["a"])) == "Unknown task 'zzz'; known are a."


def test_nearest_names_keep_their_case_and_are_three_at_most() -> None:
    assert nearest_names("edge", ["EDGE", "ERM"]) == ["EDGE"]
    assert nearest_names("aaaa", ["aaab", "aaac", "aaad", "aaae"]) != []
    assert len(nearest_names("aaaa", ["aaab", "aaac", "aaad", "aaae"])) == 3
    assert nearest_names("", ["erm"]) == []


@dataclass(frozen=True, kw_only=True)
class Settings:
    share: Annotated[float, Range(0, 1, low_open=True)] = 0.5
    seeds: Annotated[int, Range(1)] | None = None
    side: Annotated[int, Range(4, 4096)] = 32
    kind: Literal["row", "tensor"] = "row"
    alpha: Annotated[float, Range(0)] | Literal["balanced"] = "balanced"
    norm: Literal["l1", "l2"] | Annotated[float, Range(0, low_open=True)] = "l2"
    chosen: Annotated[float, Range(0)] = None  # type: ignore[assignment]  # chosen by the others
    fresh: bool = False
    free: str = ""


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"share": 1, "seeds": 3, "side": 4096, "kind": "tensor", "alpha": 0, "norm": 0.7, "chosen": 2, "fresh": True},
        {"share": np.float32(0.25), "seeds": np.int64(2), "norm": "l1", "free": 3},
    ],
)
def test_fields_that_their_annotations_allow(given: dict[str, Any]) -> None:
    check_fields("the settings", Settings(**given))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("share", 0, "a float in the range (0, 1]. Got 0."),
        ("share", None, "a float in the range (0, 1]. Got None."),
        ("share", math.nan, "a float in the range (0, 1]. Got nan."),
        ("seeds", 0, "an integer of at least 1. Got 0."),
        ("seeds", 1.5, "an integer of at least 1. Got 1.5."),
        ("side", 4097, "an integer from 4 to 4096. Got 4097."),
        ("kind", "tensr", "one of row, tensor. Got 'tensr' (did you mean 'tensor'?)."),
        ("kind", None, "one of row, tensor. Got None."),
        ("alpha", -1, "a float in the range [0, inf). Got -1."),
        ("alpha", "balance", "'balanced' or a float in the range [0, inf). Got 'balance' (did you mean 'balanced'?)."),
        ("norm", "l7", "one of l1, l2, or a float in the range (0, inf). Got 'l7' (did you mean 'l2' or 'l1'?)."),
        ("norm", True, "a float in the range (0, inf). Got True."),
        ("norm", None, "a float in the range (0, inf). Got None."),
        ("chosen", -1, "a float in the range [0, inf). Got -1."),
        ("fresh", 1, "True or False. Got 1."),
    ],
)
def test_fields_that_their_annotations_refuse(name: str, value: Any, wanted: str) -> None:
    message = refusal(check_fields, "the settings", Settings(**{name: value}))
    assert message == f"The '{name}' parameter of the settings must be {wanted}"


def test_annotations_for_type_checkers_only_declare_nothing() -> None:
    @dataclass(frozen=True)
    class Odd:
        value: Unknown  # type: ignore[name-defined]  # noqa: F821

    check_fields("odd", Odd("anything"))


def test_the_range_of_an_annotation() -> None:
    hints = get_type_hints(Settings, include_extras=True)
    found = {name: str(range_of(hint)) for name, hint in hints.items() if range_of(hint) is not None}
    assert found == {
        "share": "(0, 1]",
        "seeds": "[1, inf)",
        "side": "[4, 4096]",
        "alpha": "[0, inf)",
        "norm": "(0, inf)",
        "chosen": "[0, inf)",
    }
