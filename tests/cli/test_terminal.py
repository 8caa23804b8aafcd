"""What is shown while it goes on: lines without a terminal, nothing when quiet."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from evenhand.cli.terminal import RunDisplay, StudyDisplay, classes_table, few_groups
from evenhand.evaluation.progress import Measurement
from evenhand.metrics import GroupShare, wilson
from evenhand.runs.record import Record
from evenhand.studies.engines import Finished, Measured, Stage
from evenhand.studies.store import Outcome
from report_records import metrics, named_record, record


def measurement(
    epoch: int = 2, worst: GroupShare | None = None, small: GroupShare | None = None, **values: float | None
) -> Measurement:
    return Measurement("debiased", epoch, 3, 0.31234, values, {}, worst, small)


def consoles(*, terminal: bool = False, quiet: bool = False) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, quiet=quiet, width=150), stream


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"worst_group": 0.55, "conflicting": 0.481}, "loss 0.312, validation: worst group 55.0 %, conflicting 48.1 %"),
        (
            {
                "worst": GroupShare(("praise, bowl",), 0.957, 300, (0.928, 0.975)),
                "small": GroupShare(("praise, kettle", "anger, bowl"), 0.376, 16, (0.184, 0.617)),
                "conflicting": 0.376,
            },
            "loss 0.312, validation: 16 samples in 2 small groups: 37.6 %, "
            "worst group 95.7 % (praise, bowl: 300 samples), conflicting 37.6 %",
        ),
        (
            {
                "worst": GroupShare(("praise, bowl",), 0.55, 300, (0.49, 0.6)),
                "small": GroupShare(("praise, kettle",), 1.0, 1, (0.2, 1.0)),
                "average": 0.9,
            },
            "loss 0.312, validation: worst group 55.0 % (praise, bowl: 300 samples), "
            "1 sample in 1 small group: 100.0 %",
        ),
        ({"worst_group": None, "conflicting": None, "average": 0.9}, "loss 0.312, validation: average 90.0 %"),
    ],
)
def test_an_epoch_is_a_line_with_loss_worst_group_and_rate(values: dict[str, Any], expected: str) -> None:
    console, stream = consoles()
    with RunDisplay(console=console) as display:
        display.begin("PGD")
        for done in (1, 2, 3):
            display.stage("debiased", done, 9)
        display.measured(measurement(**values))
        display.measured(measurement(3))  # not measured at this epoch
    (line,) = stream.getvalue().splitlines()
    assert line.startswith(f"PGD: stage 'debiased', epoch 2/3: {expected}, ")
    assert line.endswith(" steps/s")
    assert "\x1b" not in line


def test_without_epochs_a_stage_is_one_line() -> None:
    console, stream = consoles()
    with RunDisplay(console=console, epochs=False) as display:
        display.begin("PGD")
        display.stage("debiased", 9, 9)
        display.measured(measurement(average=0.5))
    assert stream.getvalue() == "PGD: stage 'debiased' trained for 9 steps\n"


def test_on_a_terminal_the_bar_tells_it() -> None:
    console, stream = consoles(terminal=True)
    with RunDisplay(console=console) as display:
        display.begin("PGD [x]")
        display.stage("debiased", 1, 9)
        display.measured(measurement(worst_group=0.55))
        display.progress.refresh()
    assert "PGD [x] · debiased" in stream.getvalue()
    assert "worst group 55.0 %" in stream.getvalue()


def finished(cell: str, seed: int, conflicting: float | None) -> Finished:
    job: Any = SimpleNamespace(name=f"{cell}, seed {seed}", cell=cell)
    raw = record(status="failed", error="lost")
    if conflicting is not None:
        measured = metrics(None, conflicting) | {"worst_group": conflicting / 2, "by_group": {}}
        raw = record(metrics=measured, tests={"test": measured}, durations={"total_s": 1.0})
    return Finished(job, Outcome(Record.read(raw, Path("record.json"))))


@pytest.mark.parametrize("quiet", [False, True])
def test_a_study_tells_each_cell_that_ends(quiet: bool) -> None:
    console, stream = consoles(quiet=quiet)
    with StudyDisplay({"ERM": 3, "PGD": 1}, quiet, console) as display:
        for seed, value in enumerate((0.4, 0.5, None)):
            display.event(finished("ERM", seed, value))
            display.event(Stage(finished("ERM", seed, value).job, "erm", 1, 2))
            display.event(Measured(finished("ERM", seed, value).job, measurement(average=0.5)))
        display.event(finished("PGD", 0, 0.9))
    if quiet:
        assert stream.getvalue() == ""
        return
    assert stream.getvalue().splitlines() == [
        "[1/4] ERM, seed 0: conflicting 40.0 % (1.0 s)",
        "[2/4] ERM, seed 1: conflicting 50.0 % (1.0 s)",
        "[3/4] ERM, seed 2: failed: lost",
        "cell ERM: 2 of 3 runs done, worst group 22.5 ± 3.5 %, conflicting 45.0 ± 7.1 %",
        "[4/4] PGD, seed 0: conflicting 90.0 % (1.0 s)",
    ]


def test_few_groups_of_named_shortcuts_are_shown_with_their_intervals() -> None:
    entry = named_record()
    shown = few_groups(entry)
    assert list(shown) == ["0 aligned", "0 conflicting", "1 aligned", "1 conflicting"]
    assert shown["1 conflicting"] == GroupShare(("1 conflicting",), 0.43, 240, wilson(0.43, 240))
    assert few_groups(record()) == {}  # no shortcut is named
    many = {f"{i} aligned": 0.5 for i in range(13)}
    entry["metrics"] |= {"by_group": many}
    assert few_groups(entry | {"group_sizes": {"test": dict.fromkeys(many, 30)}}) == {}
    console, stream = consoles()
    console.print(*classes_table(shown, "group"))
    assert "97.0" in stream.getvalue()
