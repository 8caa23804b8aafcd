"""Reports and audits read folders in which other processes make and remove runs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import evenhand as eh
from evenhand.auditing.records import find_runs
from evenhand.files import if_there
from evenhand.report import write_report
from evenhand.runs.ledger import add_lines, runs_below, runs_of_study
from evenhand.runs.read import find_records, read_samples
from evenhand.runs.record import read_object, write_json
from report_records import record, samples, write_run


@contextmanager
def churning(folder: Path) -> Iterator[None]:
    """Another thread makes, renames and removes runs, plans and half-made folders."""
    stop = threading.Event()
    broken: list[BaseException] = []

    def churn() -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                place = folder / f"run-{turn % 5}"
                made = record("erm", seed=turn % 5, status="running" if turn % 2 else "done")
                run = folder / f"of-{turn % 5}/run-00"  # written as runs are: whole or not at all
                write_json(run / "record.json", made)
                write_json(run / "samples.json", samples())
                (place / "stages/.x.partial").mkdir(parents=True)
                write_json(place / "study.json", {"format": 1, "title": "t", "baseline": [], "cells": []})
                add_lines(folder / "lines", [record("gce", seed=turn % 5)], {})
                place.rename(folder / "other")
                shutil.rmtree(folder / "other")
                shutil.rmtree(folder / f"of-{turn % 5}")
                if turn % 7 == 0:
                    shutil.rmtree(folder / "lines")
        except BaseException as error:
            broken.append(error)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not broken, broken


def test_readers_beside_runs_that_come_and_go(tmp_path: Path) -> None:
    write_run(tmp_path / "kept", record("erm", seed=7), samples())
    with churning(tmp_path):
        for _ in range(60):
            assert any(run.raw["seed"] == 7 for run in runs_below(tmp_path))
            assert any(run.seed == 7 for run in find_records(tmp_path))
            assert any(run.seed == 7 for run in find_runs(tmp_path))
            runs_of_study(tmp_path / "lines")
            for run in find_records(tmp_path):
                read_samples(run)


def test_a_report_beside_runs_that_come_and_go(tmp_path: Path) -> None:
    write_run(tmp_path / "kept", record("erm", seed=7), samples())
    with churning(tmp_path):
        for _ in range(2):
            assert "ERM" in write_report(tmp_path).html.read_text(encoding="utf-8")


def test_what_is_gone_is_passed_over_and_what_is_broken_is_told(tmp_path: Path) -> None:
    def read(path: Path) -> Any:
        return if_there(read_object, path)

    assert read(tmp_path / "gone.json") is None
    (tmp_path / "a").write_text("{")
    assert read(tmp_path / "a/gone.json") is None
    for path in (tmp_path / "a", tmp_path):
        with pytest.raises(eh.UserError):
            read(path)
