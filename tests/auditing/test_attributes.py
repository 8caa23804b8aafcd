"""Which columns an audit tests, and as what: numbers, dates, categories, ids, free text, and what is mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_data import hints_of, scores, sentences, text_task
from evenhand.auditing.attributes import Attribute, by_tenths, column_attributes
from evenhand.shortcuts import Shortcut
from evenhand.shortcuts.tenths import MISSING
from evenhand.tasks import Task
from evenhand.tasks.base import BesideColumns

N = 400
RNG = np.random.default_rng(0)


def read(values: Any, name: str = "column", labels: tuple[str, ...] = ()) -> Any:
    return column_attributes(name, pa.chunked_array([pa.array(values, from_pandas=True)]), labels)


def single(values: Any, name: str = "column") -> Attribute:
    found = read(values, name)
    assert not isinstance(found, str), found
    ((attribute,),) = found
    return attribute


@pytest.mark.parametrize("as_text", [False, True])
def test_a_number_is_cut_into_tenths(as_text: bool) -> None:
    number_N = RNG.normal(size=N)
    attribute = single([str(x) for x in number_N] if as_text else number_N)
    assert len(attribute.names) == 10
    assert np.bincount(attribute.value_N).tolist() == [40] * 10


def test_a_number_that_many_share_stands_for_itself() -> None:
    number_N = np.where(np.arange(N) % 2 == 0, 0.0, RNG.random(N) + 1)
    attribute = single(number_N)
    assert "0" in attribute.names
    assert len(attribute.names) == 6
    assert (attribute.value_N == attribute.names.index("0")).sum() == N / 2


def test_words_among_numbers_and_missing_ones_are_values_of_their_own() -> None:
    values = [str(x) for x in RNG.normal(size=N)]
    values[:50] = ["above range"] * 50
    values[50:80] = ["NA"] * 20 + [""] * 10
    attribute = single(values)
    assert {"above range", MISSING} <= set(attribute.names)
    assert (attribute.value_N == attribute.names.index(MISSING)).sum() == 30


@pytest.mark.parametrize("values", [[True, False, None] * 100, ["true", "false", None] * 100])
def test_booleans_and_missing_entries(values: list[Any]) -> None:
    attribute = single(values)
    assert sorted(attribute.names) == [MISSING, "false", "true"]


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%d.%m.%Y", "%m/%d/%Y", None])
def test_dates_are_read_by_month_weekday_and_tenths(form: str | None) -> None:
    when = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 365, N), "D"))
    found = read(when if form is None else when.dt.strftime(form))
    assert not isinstance(found, str)
    views = {views[0].name: views[0] for views in found}
    assert set(views) == {"column (month)", "column (weekday)", "column (tenths)"}
    assert "January" in views["column (month)"].names
    assert views["column (weekday)"].names[views["column (weekday)"].value_N[0]] == when[0].day_name()
    assert all(" to 2024-" in name for name in views["column (tenths)"].names)


def test_whole_numbers_of_few_values_are_tested_as_codes_and_as_tenths() -> None:
    (views,) = read(RNG.integers(0, 30, N))
    assert [len(view.names) for view in views] == [30, 10]


@pytest.mark.parametrize(
    ("values", "name", "why"),
    [
        (np.arange(N), "n", "ids"),
        (RNG.permutation(N) * 1000, "patient_id", "ids"),
        ([f"case-{i}" for i in range(N)], "name", "no entry on 20 rows, as ids"),
        ([f"{i:05d}" for i in range(N)], "zip", "no entry on 20 rows, as ids"),
        ([f"it came with cable {i}" for i in range(N)], "remark", "free text"),
        ([3] * N, "n", "one value"),
        ([None] * N, "n", "one value"),
        ([""] * N, "n", "one value"),
        ([[1, 2]] * N, "n", "lists, objects or bytes"),
        ([b"1"] * N, "n", "lists, objects or bytes"),
    ],
)
def test_what_is_not_tested_and_why(values: Any, name: str, why: str) -> None:
    assert read(values, name) == why


def test_the_label_once_more_is_not_tested() -> None:
    assert read(["Good", "bad"] * 200, "sentiment", labels=("bad", "good")) == "the classes' names"


def test_of_many_values_those_on_enough_rows_are_tested() -> None:
    attribute = single([f"user {i}" if i % 4 else "guest" for i in range(N)])
    assert (attribute.value_N == attribute.names.index("guest")).sum() == N / 4


@given(st.lists(st.one_of(st.none(), st.text(max_size=8), st.just("2024-01-01"), st.just("1e999")), min_size=1))
def test_any_column_of_texts_is_read_or_left_out(values: list[str | None]) -> None:
    found = column_attributes("x", pa.chunked_array([pa.array(values, pa.string())]))
    if not isinstance(found, str):
        assert all(
            len(view.value_N) == len(values) and view.value_N.max() < len(view.names) for v in found for view in v
        )


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**60), 2**60).map(float)), min_size=1))
def test_any_column_of_numbers_is_read_or_left_out(values: list[float | None]) -> None:
    found = column_attributes("x", pa.chunked_array([pa.array(values, pa.float64())]))
    if not isinstance(found, str):
        assert all(len(view.value_N) == len(values) for views in found for view in views)
    tenths = by_tenths(Shortcut("brightness"), np.array([np.nan if v is None else v for v in values]))
    assert tenths is None or len(tenths.value_N) == len(values)


# ---- beside a task's rows -------------------------------------------------------------------------------------------


def beside(task: Task, columns: dict[str, Any]) -> Task:
    """The task with columns beside its rows."""
    table = {name: pa.chunked_array([pa.array(values, from_pandas=True)]) for name, values in columns.items()}
    found = BesideColumns(tuple(table), table.__getitem__, ("pictures",))
    return Task(**{**vars(task), "beside": lambda split: found})


def test_a_column_beside_the_rows_is_found_among_hundreds() -> None:
    rng = np.random.default_rng(0)
    n = 900
    label_N = rng.integers(0, 3, n)
    conflicting_N = rng.random(n) < 0.08
    site_N = np.where(conflicting_N, (label_N + 1) % 3, label_N)
    columns: dict[str, Any] = {f"noise {i}": rng.normal(size=n) for i in range(150)}
    columns |= {f"category {i}": rng.integers(0, 6, n) for i in range(150)}
    columns |= {f"id {i}": rng.permutation(n) for i in range(20)}
    task = beside(text_task(sentences(rng, n), label_N), columns | {"site": [f"site {s}" for s in site_N]})
    hint = hints_of(task, scores(rng, conflicting_N))
    assert [(f.kind, f.name, f.verdict) for f in hint.findings] == [("column", "site", "strong")]
    assert hint.tested["column"] == 301
    assert (
        "Columns not tested, as they hold ids: id 0, id 1, id 2, id 3, id 4, id 5, id 6, id 7 and 12 more."
        in hint.notes
    )
    assert "Columns not tested, as they hold lists, objects or bytes: pictures." in hint.notes


def test_a_month_and_a_tenth_of_a_number_are_found() -> None:
    rng = np.random.default_rng(1)
    n = 1200
    label_N = rng.integers(0, 2, n)
    conflicting_N = rng.random(n) < 0.06
    told_N = np.where(conflicting_N, 1 - label_N, label_N)
    day_N = rng.integers(0, 28, n) + np.where(told_N == 1, 32 + 29, 0)  # March, or January
    when = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(day_N, "D")).dt.strftime("%Y-%m-%d")
    task = beside(text_task(sentences(rng, n), label_N, ("no", "yes")), {"taken": when, "dose": told_N + rng.random(n)})
    hint = hints_of(task, scores(rng, conflicting_N))
    (finding,) = hint.strong  # all say the same, so they are one
    assert {finding.name, *(name for _, name, _ in finding.also)} == {"taken (month)", "taken (tenths)", "dose"}
