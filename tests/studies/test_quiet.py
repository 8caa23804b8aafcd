"""Engines tell every few seconds that they are quiet, and a study without a terminal says how far it is."""

from __future__ import annotations

import io
import multiprocessing
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from evenhand.cli.terminal import StudyDisplay
from evenhand.studies import local, on_ray
from evenhand.studies.engines import Measured, Quiet, Stage, Started
from evenhand.studies.study import Study

JOB: Any = SimpleNamespace(name="[ERM], seed 0", cell="ERM", threads=1, device="cpu", run=SimpleNamespace(run_hash="x"))


class _Process:
    """One that never says anything."""

    exitcode = None

    def __init__(self, **_: Any) -> None: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def join(self) -> None: ...


def test_the_local_engine_tells_that_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def pipe(duplex: bool) -> Any:
        ours, theirs = multiprocessing.Pipe(duplex)
        kept.append(theirs)
        return ours, SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(local, "TICK", 0.01)
    monkeypatch.setattr(local, "_context", lambda: SimpleNamespace(Pipe=pipe, Process=_Process))
    events: Any = local.LocalEngine(1).events([JOB])
    assert [type(next(events)) for _ in range(3)] == [Started, Quiet, Quiet]
    events.close()
    kept[0].close()


def test_the_ray_engine_tells_that_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def wait(active: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        asked.append((num_returns, timeout))
        return [], active

    task = SimpleNamespace(remote=lambda job: "reference")
    ray = SimpleNamespace(
        nodes=lambda: [{"Resources": {"CPU": 2}, "Alive": True}],
        remote=lambda **_: lambda _: task,
        wait=wait,
        cancel=lambda *_, **__: None,
        shutdown=lambda: None,
    )
    monkeypatch.setattr(on_ray, "_connected", lambda _: ray)
    monkeypatch.setattr(on_ray, "replace", lambda job, **_: job)
    events: Any = on_ray.RayEngine("auto").events([JOB])
    assert [type(next(events)) for _ in range(3)] == [Started, Quiet, Quiet]
    events.close()
    assert set(asked) == {(1, on_ray.TICK)}


def test_a_study_passes_it_on_to_watches_that_speak() -> None:
    told = []
    engine: Any = SimpleNamespace(events=lambda jobs: (event for event in (Started(JOB), Quiet(), Quiet())))
    speaks: Any = SimpleNamespace(event=told.append, waiting=lambda: told.append("waiting"))
    opened: Any = SimpleNamespace(states={})
    Study._carry_out(opened, engine, [], (0, 0), speaks)
    assert told == [Started(JOB), "waiting", "waiting"]
    told.clear()
    Study._carry_out(opened, engine, [], (0, 0), SimpleNamespace(event=told.append))  # type: ignore[arg-type]
    assert told == [Started(JOB)]


@pytest.mark.parametrize("speaks", ["steps", "nothing"])
def test_without_a_terminal_a_line_comes_at_least_once_a_minute(speaks: str) -> None:
    now = [0.0]
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    lines: list[float] = []
    with StudyDisplay({"ERM": 2}, console=console, clock=lambda: now[0]) as display:
        display.event(Started(JOB))
        for second in range(0, 600, 5):
            now[0] = float(second)
            before = stream.tell()
            if speaks == "steps":
                display.event(Stage(JOB, "erm", second, 1000))
            else:
                display.waiting()
            if stream.tell() > before:
                lines.append(now[0])
    assert max(b - a for a, b in zip([0.0, *lines], [*lines, 600.0], strict=True)) <= 60
    assert len(lines) <= 12
    last = stream.getvalue().splitlines()[-1]
    how_far = "stage 'erm', step 550 of 1,000" if speaks == "steps" else "begun"
    assert last == f"[0/2] 1 at work after 9 min 10 s: [ERM], seed 0 ({how_far})"


def test_on_a_terminal_and_when_quiet_no_such_line_is_written() -> None:
    for quiet, terminal in ((True, False), (False, True)):
        now = [0.0]
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=terminal, quiet=quiet, width=200)
        with StudyDisplay({"ERM": 2}, quiet, console, clock=lambda now=now: now[0]) as display:
            display.event(Started(JOB))
            now[0] = 500.0
            display.waiting()
        assert "at work" not in stream.getvalue()


def test_measured_epochs_do_not_hide_the_step() -> None:
    stream = io.StringIO()
    now = [0.0]
    with StudyDisplay({"ERM": 2}, console=Console(file=stream, width=200), clock=lambda: now[0]) as display:
        display.event(Stage(JOB, "erm", 7, 9))
        now[0] = 51.0
        display.event(Measured(JOB, None))  # type: ignore[arg-type]
    assert "step 7 of 9" in stream.getvalue()
