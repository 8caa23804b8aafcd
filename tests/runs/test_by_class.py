from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenhand.evaluation.measured import measured
from evenhand.metrics import wilson
from evenhand.report.cells import group_records
from evenhand.report.class_table import apart_notes, classes_table
from evenhand.report.write import write_report
from evenhand.runs.by_class import APART, apart_text, class_shares
from evenhand.runs.card import model_card
from evenhand.runs.record import Record
from evenhand.tasks import Task
from report_records import metrics as plain_metrics
from report_records import record as plain_record


def record(validation: float, test: float, n: int, **changes: Any) -> dict[str, Any]:
    """A record without groups."""

    def metrics(value: float) -> dict[str, Any]:
        return {"average": value, "by_group": {}, "conflicting": None} | changes

    tests = {"validation": metrics(validation), "test": metrics(test)}
    return {"primary_test": "test", "tests": tests, "data": {"validation": {"n": n}, "test": {"n": n}}}


@pytest.mark.parametrize(
    ("validation", "test", "n", "is_apart"),
    [
        (0.73, 0.16, 100, True),
        (0.16, 0.73, 100, True),
        (0.73, 0.16, 8, False),  # chance may be behind it
        (0.73, 0.66, 100_000, True),  # 7 points, of which no chance is left
        (0.73, 0.69, 100_000, False),  # 4 points: certain, but not far
        (0.73, 0.73, 100, False),
    ],
)
def test_sets_are_apart_where_their_intervals_leave_five_points(
    validation: float, test: float, n: int, is_apart: bool
) -> None:
    text = apart_text(record(validation, test, n))
    assert (text is not None) == is_apart
    low, high = sorted(wilson(value, n) for value in (validation, test))  # type: ignore[type-var]
    assert (high[0] - low[1] > APART) == is_apart  # type: ignore[index]
    if text is not None:
        assert f"accuracy {100 * validation:.1f} % of {n:,} samples" in text


@pytest.mark.parametrize("changes", [{"by_group": {"a": 0.5}}, {"conflicting": 0.2}, {"average": None}])
def test_known_groups_tell_more_so_nothing_is_said(changes: dict[str, Any]) -> None:
    assert apart_text(record(0.73, 0.16, 100, **changes)) is None


@pytest.mark.parametrize("broken", [{}, {"tests": []}, {"tests": {"validation": 1}, "data": {}}])
def test_older_records_say_nothing(broken: dict[str, Any]) -> None:
    assert apart_text(broken) is None
    assert class_shares(broken) == {}


def test_classes_are_measured_where_no_groups_are_known(tiny_task: Task) -> None:
    split = tiny_task.validation
    label_N = np.asarray(split.with_format("numpy")["labels"])
    predicted_N = np.where(np.arange(len(label_N)) % 2, label_N, (label_N + 1) % 2)
    sure_NC = np.eye(len(split.features["labels"].names))[predicted_N]
    assert "by_class" not in measured(split, predicted_N, sure_NC, label_N, None).metrics
    bare = split.select_columns(["labels"])
    shares = class_shares(measured(bare, predicted_N, sure_NC, label_N, None).metrics)
    names = split.features["labels"].names
    assert {name: share.n for name, share in shares.items()} == {
        names[c]: int((label_N == c).sum()) for c in np.unique(label_N)
    }
    for name, share in shares.items():
        member_N = label_N == names.index(name)
        assert share.accuracy == pytest.approx((predicted_N == label_N)[member_N].mean())


def whole_record(seed: int, **title: Any) -> dict[str, Any]:
    """A whole record without groups, whose classes are `[x]` and `=y`."""
    measured = plain_metrics(None, None, 0.16) | {
        "by_group": {},
        "by_class": {"[x]": {"n": 60, "accuracy": 0.2}, "=y": {"n": 40, "accuracy": 0.1}},
    }
    tests = {"test": measured, "validation": measured | {"average": 0.73}}
    data = {"train": {"n": 400}, "validation": {"n": 100}, "test": {"n": 100}}
    return plain_record("erm", seed, tests=tests, metrics=measured, data=data, group_sizes={}, **title)


def test_the_card_has_the_classes_and_the_remark() -> None:
    card = model_card(whole_record(0))
    assert "| \\[x\\] | 60 | 20.0 | 11.8 to 31.8 |" in card
    assert "Validation and test are further apart than chance" in card


def test_the_page_has_the_classes_and_the_remark(tmp_path: Path) -> None:
    records = [whole_record(seed) for seed in range(5)]
    for made in records:
        path = tmp_path / str(made["seed"]) / "record.json"
        path.parent.mkdir()
        path.write_text(json.dumps(made))
    found = [Record.read(made, tmp_path / str(made["seed"]) / "record.json") for made in records]
    (section,) = group_records(found)
    table = classes_table(section)
    assert [column.name for column in table.head] == ["Method", "[x]", "=y"]
    assert [value.text for value in table.rows[0].values] == ["ERM", "20.0 ± 0.0", "10.0 ± 0.0"]
    assert table.data[1]["samples"] == 40
    notes = apart_notes(section)
    assert len(notes) == 4
    assert notes[-1] == "The same holds for 2 more runs."
    files = write_report(tmp_path)
    page = files.html.read_text(encoding="utf-8")
    assert "Accuracy by class" in page
    assert "Validation and test are further apart than chance" in page
    assert "Table of classes" in page
    assert "further apart" in files.markdown.read_text(encoding="utf-8")
