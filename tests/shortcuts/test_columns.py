"""Columns fitted on some rows and used on others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from evenhand.shortcuts.columns import ColumnCoding, parse_column
from evenhand.shortcuts.tenths import MISSING


def column(values: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, from_pandas=True)])


def names(train: Any, others: Any, view: Any = None) -> list[str | None]:
    """What the other rows' values are called."""
    parsed = parse_column(column(train))
    coding = ColumnCoding.fit(parsed, view or parsed.usual)
    assert coding.of(parsed).tolist() == coding.codes(column(train)).tolist()
    return [coding.names[code] if code >= 0 else None for code in coding.codes(column(others))]


def test_entries_unknown_and_missing() -> None:
    assert names(["a", "b", None], ["b", " a ", "c", "", None]) == ["b", "a", None, MISSING, MISSING]
    assert names(["a", "b"], [None, "a"]) == [None, "a"]
    assert names([True, False], ["true", "False"]) == ["true", None]


def test_the_same_number_in_another_type_is_the_same_entry() -> None:
    assert names([1, 2, 2], ["1", "2.0", "3"]) == ["1", "2", None]
    assert names(["1.50", "2.0", "1e3"] * 2, ["1.5", "2", "1000"]) == ["1.5", "2", "1000"]
    assert names([2**60, 2**60 + 1] * 2, [2**60 + 1, 2**60]) == [str(2**60 + 1), str(2**60)]
    assert names([1.0, 2.0, 2.0], pa.array([2, 1], pa.int64())) == ["2", "1"]
    assert names([1, 2, None], pd.Series([2, None])) == ["2", MISSING]


def test_words_among_numbers_stay_words() -> None:
    train = [*map(str, range(100)), *["none"] * 20, *["off scale"] * 5]
    found = names(train, ["3", "off scale", "", "another word", "1e9", "-7"])
    assert found == ["0 to 9", "off scale", MISSING, None, "90 to 99", "0 to 9"]


def test_dates_fitted_once_are_read_alike_later() -> None:
    days = pd.date_range("2024-01-01", periods=200).strftime("%d.%m.%Y").tolist()
    assert names(days, ["05.01.2024", "31.12.2031", "no date"], "tenths") == [
        "2024-01-01 to 2024-01-20",
        "2024-06-29 to 2024-07-18",
        None,
    ]
    assert names(days, ["05.02.2031", "no date"], "month") == ["February", None]
    assert names([*days, None], ["01.01.2024", None], "weekday") == ["Monday", MISSING]


@pytest.mark.parametrize("values", [["007", "123"] * 20, ["01", "02", "12"] * 9])
def test_numbers_with_a_leading_zero_are_names(values: list[str]) -> None:
    assert parse_column(column(values)).form == "words"


def test_entries_are_seen_as_asked() -> None:
    parsed = parse_column(column(np.arange(30).repeat(3)))
    assert parsed.views == ("entries", "tenths")
    assert len(ColumnCoding.fit(parsed, "entries").names) == 30
    assert len(ColumnCoding.fit(parsed, "tenths").names) == 10
    assert parse_column(column(np.arange(10).repeat(3))).usual == "entries"
