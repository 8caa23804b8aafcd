"""Several shortcuts together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.shortcuts import OwnShortcut, fit_shortcuts, standing_to_all
from evenhand.validation import UserError
from made_shortcuts import CLASSES, tickets

ROWS = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1)


@given(ROWS)
def test_any_conflict_counts_then_any_agreement(rows: list[tuple[int, ...]]) -> None:
    expected = [1 if 1 in row else 0 if 0 in row else 2 for row in rows]
    assert standing_to_all(list(np.array(rows).T)).tolist() == expected


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        (["token:nimbus", "token:Nimbus"], "The shortcut 'token:nimbus' is given 2 times"),
        (["token:nimbus", "token:text:nimbus"], "'token:nimbus' and 'token:text:nimbus' are one rule by two names"),
        (["length", "length:text"], "one rule by two names"),
        (["column:product", "column:product:entries"], "one rule by two names"),
        ([OwnShortcut("x", {"train": [0, 1]}), OwnShortcut("x", len)], "The shortcut 'x' is given 2 times"),
        (
            [OwnShortcut("x", lambda row: row["product"]), OwnShortcut("y", lambda row: row["product"][0])],
            "The shortcuts 'x' and 'y' are one rule by two names",
        ),
        ([3], "A shortcut is a spelling such as 'token:nimbus', or a Shortcut. Got 3."),
    ],
)
def test_shortcuts_that_contradict_each_other(given_: list[Any], sentence: str) -> None:
    samples, label_N = tickets()
    with pytest.raises(UserError) as caught:
        fit_shortcuts(given_, samples, label_N, CLASSES)
    assert sentence in str(caught.value)


def test_shortcuts_of_different_kinds_may_be_on_the_same_rows() -> None:
    samples, label_N = tickets(conflict=0.0)
    given_ = ["column:product", OwnShortcut("mine", lambda row: row["product"])]
    assert [one.name for one in fit_shortcuts(given_, samples, label_N, CLASSES)] == ["column:product", "mine"]


def test_no_shortcut_has_no_sides() -> None:
    with pytest.raises(UserError, match="No shortcut is given"):
        standing_to_all([])
