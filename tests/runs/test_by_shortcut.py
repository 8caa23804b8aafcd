"""What cards and the terminal say of shortcuts that have a name."""

from __future__ import annotations

from typing import Any

import pytest

from evenhand.runs.by_shortcut import by_shortcut, fitted_shortcuts, shortcut_lines
from evenhand.runs.card import model_card
from report_records import fitted, measured_by, named_record, record


def test_two_lines_a_shortcut_with_sizes_and_intervals() -> None:
    assert shortcut_lines({"by_shortcut": {"token:nimbus": measured_by()}}) == [
        "Shortcut 'token:nimbus': aligned 97.0 % of 430 samples (95 % interval 94.9 to 98.2), conflicting 43.0 % of 30 "
        "samples (27.4 to 60.8), gap +54.0 points (+44.0 to +64.0).",
        "50.0 % of the conflicting samples (33.2 to 66.8) get the class that it points to; without it 62.0 % of 400 "
        "answers change (57.2 to 66.6).",
    ]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (
            {"by_shortcut": {"length": measured_by(0.9, None, reliance=None, why="lengths stay.")}},
            ["no sample goes against it.", "How far the model relies on it isn't measured: lengths stay."],
        ),
        (
            {"by_shortcut": {"length": measured_by() | {"reliance": {"n": 0, "changed": 0, "share": None}}}},
            ["no input is"],
        ),
        ({"by_shortcut": {}, "all_shortcuts": measured_by()}, ["All shortcuts together:", "one of them points to"]),
        ({"by_shortcut": {"a\n\u202eb": measured_by()}}, ["'a \ufffdb'"]),
        ({"by_shortcut": {"a": {}}}, ["Shortcut 'a': aligned not recorded, conflicting not recorded."]),
        ({"by_shortcut": 3, "all_shortcuts": "?"}, []),
        ({}, []),
        (None, []),
    ],
)
def test_what_is_missing_is_said_or_left_out(measured: dict[str, Any] | None, expected: list[str]) -> None:
    text = "\n".join(shortcut_lines(measured))
    assert bool(text) == bool(expected)
    for words in expected:
        assert words in text


def test_damaged_parts_are_left_out() -> None:
    found = by_shortcut({"by_shortcut": {"a": measured_by() | {"aligned": {"n": "x", "accuracy": 7}}, "b": None}})
    assert list(found) == ["a"]
    assert (found["a"].aligned.n, found["a"].aligned.accuracy, found["a"].conflicting.n) == (None, None, 30)
    good = fitted("token:nimbus")
    for damage in ({"counts": [[1]]}, {"points_to": [9, 9, 9]}, {"coding": {"coding": "none"}}, {"spelling": "moon"}):
        assert fitted_shortcuts({"shortcuts_fitted": [good | damage, good, 3]})[-1].name == "token:nimbus"
    assert fitted_shortcuts({"shortcuts_fitted": {}}) == []


def test_the_card_says_it_and_of_which_shortcuts_it_tells() -> None:
    card = model_card(named_record(shortcuts={"token:a|b": measured_by()}, shortcuts_fitted=[]))
    assert "### By shortcut: test\n\n- Shortcut 'token:a\\|b': aligned 97.0 % of 430 samples" in card
    assert "- They tell of 'token:a\\|b'. Other shortcuts" in card
    assert "By shortcut" not in model_card(record())
    assert "They tell of the shortcut that the test sets vary" in model_card(record())
