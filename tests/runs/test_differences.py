from __future__ import annotations

from typing import Any

import pytest

from evenhand.runs.differences import differences, differences_text

STORED: dict[str, Any] = {
    "method": {"name": "edge", "title": "EDGE", "settings": {"alpha": 1.0}},
    "task": {"name": "own-data", "settings": {"data": "a.csv", "group": ["g"]}},
    "model": {"name": "mlp", "parameters": 7},
    "training": {"epochs": 1, "lr": 0.1},
    "seed": 0,
    "data_seed": 0,
    "status": "done",
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"status": "failed"}, []),
        ({"seed": 3}, ["seed 0 → 3"]),
        ({"model": {"name": "mlp"}}, []),
        ({"model": {"name": "[x]\n", "fresh": True}}, ["model mlp → [x] ", "model.fresh none → true"]),
        ({"training": {"epochs": 2}}, ["training.epochs 1 → 2", "training.lr 0.1 → none"]),
        ({"shortcuts": ["token:b|a"]}, ["shortcuts none → token:a|b"]),
        ({"task": {"name": "own-data", "settings": {"data": "a.csv"}}}, ['task.group ["g"] → none']),
    ],
)
def test_each_value_that_differs_is_told(changes: dict[str, Any], told: list[str]) -> None:
    assert differences(STORED, STORED | changes) == told


def test_of_many_the_first_are_told() -> None:
    asked = STORED | {"training": {"epochs": 2, "lr": 0.2}, "seed": 1, "data_seed": 1}
    assert differences_text(STORED, asked) == "training.epochs 1 → 2, training.lr 0.1 → 0.2, seed 0 → 1 and 1 more"
