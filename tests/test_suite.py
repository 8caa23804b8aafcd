"""The suite itself: no test depends on the clock, on the number of cores or on today's date."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

FILES = sorted(Path(__file__).parent.glob("*.py"))
CLOCKS = {"time", "monotonic", "perf_counter", "process_time", "now", "today", "utcnow", "cpu_count"}
MODULES = {"time", "datetime", "date", "os", "multiprocessing", "dt"}
HANG = 100  # seconds; a limit is there to end a hang, not to measure


def test_examples_have_no_deadline_and_may_take_their_time_to_draw() -> None:
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_test_depends_on_the_clock(path: Path) -> None:
    found = list(faults(ast.parse(path.read_text(encoding="utf-8"))))
    assert found == [], f"{path.name}: {found}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("began = time.perf_counter()", ["line 1 reads perf_counter"]),
        ("from time import monotonic", ["line 1 reads monotonic"]),
        ("datetime.date.today()", ["line 1 reads today"]),
        ("os.cpu_count()", ["line 1 reads cpu_count"]),
        ("time.sleep(3)", ["line 1 sleeps without waiting for anything"]),
        ("while not done():\n    time.sleep(0.1)", []),
        ("process.communicate(timeout=60)", ["line 1 has a limit of 60 s"]),
        ("process.communicate(timeout=600)", []),
        ("assert a.stat().st_mtime_ns < b.stat().st_mtime_ns", ["line 1 orders by mtime"]),
        ("assert a.stat().st_mtime_ns == before", []),
        ("sorted(files, key=lambda p: p.stat().st_mtime)", ["line 1 orders by mtime"]),
        ("@settings(deadline=200)\ndef f(): pass", ["line 1 sets a deadline"]),
    ],
)
def test_what_counts_as_depending_on_it(source: str, expected: list[str]) -> None:
    assert list(faults(ast.parse(source))) == expected


def faults(tree: ast.Module) -> Iterator[str]:
    """What in a file of tests depends on the clock."""
    polling = {id(node) for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
    for node in ast.walk(tree):
        where = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield from (f"{where} reads {alias.name}" for alias in node.names if alias.name in CLOCKS)
        elif isinstance(node, ast.Compare) and any(
            isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)) for op in node.ops
        ):
            if _reads_mtime(node):
                yield f"{where} orders by mtime"
        elif isinstance(node, ast.Call):
            yield from (f"{where} {fault}" for fault in _faults_of_call(node, id(node) in polling))


def _faults_of_call(call: ast.Call, polling: bool) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    of = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    if of in MODULES and name in CLOCKS:
        yield f"reads {name}"
    if of == "time" and name == "sleep" and not polling:
        yield "sleeps without waiting for anything"
    if name in ("sorted", "sort", "min", "max") and _reads_mtime(call):
        yield "orders by mtime"
    for keyword in call.keywords:
        value = getattr(keyword.value, "value", None)
        if keyword.arg == "deadline" and value is not None:
            yield "sets a deadline"
        if keyword.arg == "timeout" and isinstance(value, (int, float)) and name != "wait_procs" and value < HANG:
            yield f"has a limit of {value} s"


def _reads_mtime(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr.startswith("st_mtime") for n in ast.walk(node))
