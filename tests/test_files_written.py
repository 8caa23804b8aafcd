"""What is written appears whole or not at all, and what keeps it from being written is one sentence with the path."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import SafetensorError

import evenhand as eh
from evenhand.auditing import audit
from evenhand.cli.parser import main
from evenhand.cli.samples import write_contact_sheet
from evenhand.evaluation.progress import Measurement
from evenhand.files import (
    LOCK,
    alone_in,
    check_place,
    found_below,
    settle_if_first,
    whole_file,
    whole_folder,
    write_text,
)
from evenhand.report import report, write_report
from evenhand.runs.record import write_json
from evenhand.tasks import Task
from evenhand.validation import UserError
from report_records import record, write_run

LONG = "n" * 256
"""One byte more than a file's name may have."""


def refusal(work: Callable[[], Any]) -> str:
    with pytest.raises(eh.UserError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fill(path: Path) -> None:
    with whole_folder(path) as new:
        (new / "a").mkdir()
        np.save(new / "a/array.npy", np.zeros(9))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "file": lambda path: write_text(path, "content"),
    "folder": fill,
    "json": lambda path: write_json(path, {"a": 1}),
}


def test_of_folders_that_race_for_a_place_one_stays_whole(tmp_path: Path) -> None:
    place = tmp_path / "place"
    barrier = threading.Barrier(4)

    def write(name: str) -> None:
        for _ in range(25):
            with whole_folder(place) as new:
                for part in ("a", "b"):
                    (new / part).write_text(name)
                barrier.wait()

    with ThreadPoolExecutor(4) as pool:
        for written in [pool.submit(write, str(i)) for i in range(4)]:
            written.result()
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert len({(place / part).read_text() for part in ("a", "b")}) == 1


def test_the_first_folder_keeps_its_place(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with whole_folder(tmp_path / "place", settle_if_first) as new:
            (new / "a").write_text(text)
    assert (tmp_path / "place/a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_folder_that_cannot_settle_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with whole_folder(tmp_path / "place") as new:
        (new / "a").write_text("old")
    real = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial") and (self / "a").read_text() == "new":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(UserError, match="can't be written to"), whole_folder(tmp_path / "place") as new:
        (new / "a").write_text("new")
    assert (tmp_path / "place/a").read_text() == "old"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_is_there_is_replaced_whole_and_synced(
    write: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, rename, replace = os.fsync, Path.rename, Path.replace

    def spied(name: str, real: Any) -> Any:
        return lambda *given: (calls.append(name), real(*given))[1]

    write(tmp_path / "new/place")
    monkeypatch.setattr(os, "fsync", spied("sync", sync))
    monkeypatch.setattr(Path, "rename", spied("rename", rename))
    monkeypatch.setattr(Path, "replace", spied("rename", replace))
    write(tmp_path / "new/place")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["place"]
    assert calls[0] == "sync"
    assert calls[-2:] == ["rename", "sync"]  # the content before the new name, the folder after it


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_fills_leaves_what_was_there(
    code: int, write: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "place"
    write(path)
    before = {p: p.stat().st_ino for p in sorted(tmp_path.rglob("*"))}

    def full(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    told = refusal(lambda: write(path))
    assert f"'{path}' can't be written to ({os.strerror(code)})." in told
    assert {p: p.stat().st_ino for p in sorted(tmp_path.rglob("*"))} == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "elsewhere"),
        OSError("9 requested and 0 written"),  # NumPy's words
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc] . write failed: No space left on device"),
    ],
)
def test_each_librarys_words_for_a_full_disk(error: Exception, tmp_path: Path) -> None:
    def work() -> None:
        with whole_folder(tmp_path / "stage") as new:
            (new / "half").write_text("half")
            raise error

    assert refusal(work) == f"The folder '{tmp_path / 'stage'}' can't be written to (No space left on device)."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    def work() -> None:
        with whole_file(tmp_path / "file") as new:
            new.symlink_to("/dev/full")
            new.write_text("a")

    assert refusal(work) == f"The file '{tmp_path / 'file'}' can't be written to (No space left on device)."
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_work_stay_what_they_are(tmp_path: Path) -> None:
    for error in (ValueError("mine"), FileNotFoundError(2, "No such file", "elsewhere"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, whole_folder(tmp_path / "stage"):
            raise error
        assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_places_that_cannot_be(write: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file/below", tmp_path / "file/a/b", tmp_path / LONG, tmp_path / LONG / "a"):
        assert f"'{path}' can't be written to (" in refusal(lambda path=path: write(path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"
    write(tmp_path / LONG[1:])  # the longest name that there can be


def test_a_file_stays_where_a_folder_is_to_be_and_the_other_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    fill(tmp_path / "folder")
    assert "Not a directory" in refusal(lambda: fill(tmp_path / "file"))
    assert "Is a directory" in refusal(lambda: write_text(tmp_path / "folder", "a"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for write in WRITERS.values():
        assert "Permission denied" in refusal(lambda write=write: write(tmp_path / "a"))
    assert "Permission denied" in refusal(lambda: check_place(tmp_path / "a"))
    tmp_path.chmod(0o700)


@given(text=st.text())
@settings(max_examples=20)
def test_any_text_can_be_written(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("a") / "text"
    write_text(path, text)
    assert path.read_bytes() == text.encode("utf-8", "replace")


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / "stages/.ab12.partial/model").mkdir(parents=True)
    (tmp_path / ".cd34.partial").write_text("{")
    (tmp_path / "notes.partial").write_text("mine")
    with alone_in(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"stages", "notes.partial", LOCK}
        assert list((tmp_path / "stages").iterdir()) == []


def test_folders_that_come_and_go_are_passed_over(tmp_path: Path) -> None:
    for name in ("b", "a/c"):
        write_text(tmp_path / name / "x.json", "{}")
    (tmp_path / "x.json").mkdir()
    assert found_below(tmp_path, "x.json") == [tmp_path / "a/c/x.json", tmp_path / "b/x.json"]
    assert found_below(tmp_path / "gone", "x.json") == []


# ---- every place that is written to ----------------------------------------------------------------------------------


class Trained:
    """Fails the test when anything is trained or measured."""

    def stage(self, name: str, done: int, total: int) -> None:
        raise AssertionError("trained before the folder was looked at")

    def measured(self, measurement: Measurement) -> None:
        raise AssertionError("trained before the folder was looked at")


@pytest.fixture
def blocked(tmp_path: Path) -> list[Path]:
    (tmp_path / "file").write_text("mine")
    return [tmp_path / "file/below", tmp_path / LONG]


def test_a_run_and_an_audit_are_refused_before_the_work(tiny_task: Task, blocked: list[Path]) -> None:
    for folder in blocked:
        for work in (partial(eh.fit, eh.ERM()), audit):
            told = refusal(partial(work, tiny_task, "mlp", output_dir=folder, epochs=1, progress=Trained()))
            assert "is too long" in told or (f"'{folder}" in told and "can't be written to" in told)


def test_reports_are_refused_before_the_work(
    blocked: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs", record())
    (tmp_path / "runs/tables").write_text("mine")

    def read(*_: Any) -> None:
        raise AssertionError("the records were read first")

    monkeypatch.setattr("evenhand.report.write.find_records", read)
    assert f"{tmp_path / 'runs/tables'}" in refusal(lambda: write_report(tmp_path / "runs"))
    for folder in blocked:
        told = refusal(partial(report, tmp_path / "runs", folder))
        assert f"'{folder / 'report.html'}' can't be written to" in told
    assert not list(tmp_path.rglob("*.html"))


def test_scores_sheets_and_predictions(
    tiny_task: Task, blocked: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*_: Any, **__: Any) -> None:
        raise AssertionError("drawn before the folder was looked at")

    monkeypatch.setattr(Image, "new", drawn)
    for folder in blocked:
        assert "can't be written to" in refusal(lambda f=folder: write_contact_sheet(tiny_task, f / "a.png"))
        assert main(["evaluate", "gone", "--predictions", str(folder / "a.csv")]) == 2
        assert "can't be written to" in capsys.readouterr().err


def test_a_table_that_breaks_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for writer in (pd.DataFrame.to_csv, pd.DataFrame.to_parquet):
        with whole_file(path) as new:
            writer(pd.DataFrame({"a": [1]}), new)
        before = path.read_bytes()
        with pytest.raises(ValueError, match="mine"), whole_file(path) as new:  # noqa: PT012
            writer(pd.DataFrame({"a": [2]}), new)
            raise ValueError("mine")
        assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_a_run_whose_disk_fills_is_one_sentence(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    given = ["--task", "colored-digits", "--model", "mlp", "--epochs", "1", "--quiet", "--output-dir", str(tmp_path)]
    assert main(["train", "pgd", *given]) == 2
    shown = capsys.readouterr().err
    assert f"The folder '{tmp_path / 'stages/scores'}' can't be written to (No space left on device)." in shown
    assert sorted(path.name for path in (tmp_path / "stages").iterdir()) == ["biased"]
    assert '"status": "failed"' in (tmp_path / "record.json").read_text()
