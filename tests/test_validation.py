from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from evenhand.validation import UserError, check_choice, check_integer, check_number, nearest_names, unknown_name

OUTSIDE = "The 'alpha' parameter of EDGE must be a float in the range {}. Got {}."


def refusal(check: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UserError) as caught:
        check(*args, **kwargs)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.float64(1), np.int64(1), Fraction(1, 3)])
def test_numbers_of_any_kind_in_a_closed_interval(value: Any) -> None:
    check_number("EDGE", "alpha", value, 0, 1)


@pytest.mark.parametrize(
    ("low_open", "high_open", "interval"),
    [(False, False, "[0, 1]"), (True, False, "(0, 1]"), (False, True, "[0, 1)"), (True, True, "(0, 1)")],
)
def test_open_ends_are_excluded_and_shown(low_open: bool, high_open: bool, interval: str) -> None:
    for value, is_open in ((0.0, low_open), (1.0, high_open)):
        if is_open:
            message = refusal(check_number, "EDGE", "alpha", value, 0, 1, low_open=low_open, high_open=high_open)
            assert message == OUTSIDE.format(interval, value)
        else:
            check_number("EDGE", "alpha", value, 0, 1, low_open=low_open, high_open=high_open)


def test_an_infinite_upper_end_is_open() -> None:
    check_number("EDGE", "alpha", 1e300, 0, math.inf)
    assert refusal(check_number, "EDGE", "alpha", math.inf, 0, math.inf) == OUTSIDE.format("[0, inf)", "inf")
    assert refusal(check_number, "EDGE", "alpha", -1, 0, math.inf) == OUTSIDE.format("[0, inf)", "-1")


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), True, False, np.True_, "1", None, [1], 1j, b"1"])
def test_what_is_no_number_lies_in_no_interval(value: Any) -> None:
    assert refusal(check_number, "EDGE", "alpha", value, 0, 1) == OUTSIDE.format("[0, 1]", repr(value))


def test_an_integer_beyond_all_floats_is_refused_like_infinity() -> None:
    assert "range [0, inf). Got 1000" in refusal(check_number, "EDGE", "alpha", 10**400, 0, math.inf)


@given(value=st.floats(), low=st.floats(-10, 10), width=st.floats(0, 10))
@settings(max_examples=25)
def test_numbers_are_accepted_exactly_inside(value: float, low: float, width: float) -> None:
    high = low + width
    if low <= value <= high:
        check_number("EDGE", "alpha", value, low, high)
    else:
        assert refusal(check_number, "EDGE", "alpha", value, low, high).endswith(f"Got {value!r}.")


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
