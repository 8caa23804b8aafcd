"""Cuts of a number: those of the training rows, the same for any row."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evenhand.shortcuts.tenths import MISSING, Tenths

NUMBERS = st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf))


def slow_parts(train: list[float], number: float) -> object:
    """Which part a number falls into: itself where a tenth of the rows have it, else how many cuts lie below it."""
    known = [x for x in train if math.isfinite(x)]
    if not math.isfinite(number):
        return "missing"
    often = {x for x in known if known.count(x) >= len(train) / 10}
    if number in often:
        return ("often", number)
    rest = sorted(x for x in known if x not in often)
    if not rest:
        return "unknown"
    parts = max(1, round(10 * len(rest) / len(train)))
    cuts = {rest[math.ceil(len(rest) * (k / parts) - 1e-9) - 1] for k in range(1, parts)}
    return ("part", sum(cut < number for cut in cuts if cut < rest[-1]))


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.lists(NUMBERS, max_size=10))
def test_any_number_falls_where_the_training_rows_cut(train: list[float], others: list[float]) -> None:
    tenths = Tenths.fit(np.array(train))
    everything = train + others
    code_N = tenths.codes(np.array(everything))
    expected = [slow_parts(train, x) for x in everything]
    # the same parts, whatever their numbers
    pairs = {(int(code), part) for code, part in zip(code_N, expected, strict=True)}
    none = {part for code, part in pairs if code < 0}
    assert none <= {"missing", "unknown"}
    named = [pair for pair in pairs if pair[0] >= 0]
    assert len(named) == len({code for code, _ in named}) == len({part for _, part in named})
    assert code_N[: len(train)].min() >= 0
    assert set(code_N[: len(train)].tolist()) == set(range(len(tenths.names)))
    assert all((tenths.names[code] == MISSING) == (part == "missing") for code, part in named)


@given(st.lists(NUMBERS, min_size=1, max_size=60))
def test_each_value_has_a_name_of_its_own(train: list[float]) -> None:
    names = Tenths.fit(np.array(train)).names
    assert len(set(names)) == len(names)


def test_numbers_that_are_alike_at_first_sight_are_told_apart() -> None:
    tenths = Tenths.fit(1_700_000_000 + np.arange(1000.0))
    assert len(tenths.names) == 10
    assert tenths.codes(np.array([1_700_000_450.0])).tolist() == [4]


def test_numbers_beyond_the_training_rows_are_in_the_first_and_the_last_tenth() -> None:
    tenths = Tenths.fit(np.arange(100.0))
    assert tenths.codes(np.array([-1e9, 1e9])).tolist() == [0, 9]
    assert tenths.codes(np.array([np.nan])).tolist() == [-1]
