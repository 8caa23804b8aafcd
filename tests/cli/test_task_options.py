from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import evenhand as eh
from evenhand.cli.task_options import TaskChoice, task_fields, with_task_fields
from evenhand.tasks import TASKS

Choice = with_task_fields(TaskChoice)


def test_every_field_of_every_task_is_an_option() -> None:
    declared = {f.name for source in TASKS.values() for f in dataclasses.fields(source)}  # type: ignore[arg-type]
    declared -= {"shortcuts"}  # --shortcut names them, whatever the task
    assert set(task_fields()) == declared
    assert {f.name for f in dataclasses.fields(Choice)} == declared | {"task"}


def test_settings_reach_the_task() -> None:
    source = Choice(task="colored-mnist", conflict=0.05, recipe="lff", data_dir=Path("mnist")).task_source()
    assert source == eh.ColoredMNIST(conflict=0.05, recipe="lff", data_dir=Path("mnist"))


def test_what_is_not_given_is_the_tasks_own() -> None:
    assert Choice().task_source() == eh.ColoredDigits()
    assert Choice(conflict=0.0).task_source() == eh.ColoredDigits(conflict=0.0)


def test_an_option_of_another_task_is_refused() -> None:
    with pytest.raises(eh.UserError, match=r"^The task 'colored-digits' has no option '--test-pairs'\.$"):
        Choice(test_pairs=3).task_source()
