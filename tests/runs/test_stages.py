"""Damaged stages are found, said and trained again; nothing is damaged by a second process."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evenhand as eh
from evenhand.files import LOCK, locked
from evenhand.models.inference import torch_device
from evenhand.runs import stored_run
from evenhand.runs.configuration import Configuration
from evenhand.runs.fit import carry_out
from evenhand.runs.prepared import prepared
from evenhand.runs.seals import SEAL, fault
from evenhand.runs.shared_stages import SharedStages
from evenhand.tasks import Task


def fit(folder: Path, task: Task, method: Any = None, **options: Any) -> eh.Result:
    given: dict[str, Any] = {"model": "mlp", "output_dir": folder, "epochs": 1, "batch_size": 16, "device": "cpu"}
    return eh.fit(method or eh.PGD(), task, **(given | options))


def weights(folder: Path) -> bytes:
    return (folder / "model/model.safetensors").read_bytes()


# ---- damage ---------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))


def another_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1'))


Damage = Callable[[Path], None]
DAMAGES = [
    ("biased", "model/model.safetensors", truncate),
    ("biased", "model/model.safetensors", flip),
    ("biased", "model/model.safetensors", Path.unlink),
    ("biased", "model/config.json", empty),
    ("biased", "stage.json", truncate),
    ("biased", "stage.json", another_number),
    ("biased", "stage.json", Path.unlink),
    ("biased", SEAL, truncate),
    ("scores", "scores.npy", truncate),
    ("scores", "scores.npy", flip),
    ("scores", "scores.npy", Path.unlink),
    ("debiased", "model/model.safetensors", flip),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task]:
    from conftest import make_task

    folder, task = tmp_path_factory.mktemp("finished") / "run", make_task()
    fit(folder, task)
    return folder, task


@pytest.mark.parametrize(
    ("stage", "file", "damage", "status"),
    [(*damage, "running") for damage in DAMAGES]
    + [("biased", "model/config.json", empty, "done"), ("scores", "scores.npy", flip, "done")],
)
def test_a_damaged_stage_is_said_and_trained_again(
    stage: str,
    file: str,
    damage: Damage,
    status: str,
    finished: tuple[Path, Task],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, task = finished
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"status": status}))
    damage(folder / "stages" / stage / file)
    with caplog.at_level(logging.WARNING):
        again = fit(folder, task)
    said = [message for message in caplog.messages if "damaged" in message]
    assert len(said) == 1
    assert said[0].startswith(f"The stage '{stage}' was damaged (its file {file} ")
    assert [note for note in again.record["notes"] if "damaged" in note] == said
    assert weights(folder) == weights(whole)
    assert again.metrics == record["metrics"]
    assert again.scores is not None
    np.testing.assert_array_equal(again.scores, np.load(whole / "stages/scores/scores.npy"))
    caplog.clear()
    assert fit(folder, task).record == again.record
    assert not caplog.messages


def unsealed(run: Path) -> None:
    for path in run.glob("stages/*/" + SEAL):
        path.unlink()


def test_stages_of_earlier_versions_are_taken_while_they_are_whole(
    finished: tuple[Path, Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, task = finished
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    unsealed(folder)
    (folder / "record.json").write_text((folder / "record.json").read_text().replace('"done"', '"running"', 1))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(stored_run, "train_stage", refuse)
    assert fit(folder, task).record["notes"] == json.loads((whole / "record.json").read_text())["notes"]


@pytest.mark.parametrize(
    ("stage", "file", "damage"),
    [
        (stage, file, damage)
        for stage, file, damage in DAMAGES
        if (damage is not flip and file in ("model/model.safetensors", "scores.npy")) or damage is Path.unlink
    ]
    + [("biased", "stage.json", truncate)],
)
def test_what_can_be_seen_of_stages_of_earlier_versions_is_seen(
    stage: str, file: str, damage: Damage, finished: tuple[Path, Task], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    unsealed(folder)
    assert fault(folder / "stages" / stage) is None
    damage(folder / "stages" / stage / file)
    assert fault(folder / "stages" / stage) is not None


def test_a_damaged_stage_that_runs_share_is_trained_again_for_all(
    tiny_task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(method: Any, folder: str) -> Any:
        training = eh.ColoredDigits().training_for("mlp").replaced(epochs=1, batch_size=16)
        configuration = Configuration(
            method=method, task=tiny_task, model="mlp", training=training, seed=0, data_seed=0
        )
        shared = SharedStages(tmp_path / "shared")
        carry_out(prepared(configuration), tmp_path / folder, torch_device("cpu"), shared=shared)
        return json.loads((tmp_path / folder / "record.json").read_text())

    run(eh.GCE(), "first")
    key = next(path.parent for path in (tmp_path / "shared").glob("*/model"))
    flip(key / "model/model.safetensors")  # a link: the first run's own file is the same one
    second = run(eh.PGD(), "second")
    assert sum("damaged" in note for note in second["notes"]) == 1
    assert sum("was damaged" in message for message in caplog.messages) == 1
    assert second["stages"][0].get("reused") is None
    assert all(fault(path.parent) is None for path in (tmp_path / "shared").glob("*/stage.json"))
    assert run(eh.GCE(), "third")["stages"][0]["reused"] is True


def test_an_audit_refuses_a_damaged_stage_of_its_run(tiny_task: Task, tmp_path: Path) -> None:
    fit(tmp_path / "run", tiny_task, eh.Even())
    flip(tmp_path / "run/stages/biased-1/model/model.safetensors")
    with pytest.raises(eh.UserError, match=r"biased-1' is damaged \(its file model/model.safetensors isn't what"):
        eh.audit(tmp_path / "run", task=tiny_task)
    fit(tmp_path / "run", tiny_task, eh.Even())
    assert eh.audit(tmp_path / "run", task=tiny_task).summary()


def test_answers_that_cannot_be_read_are_computed_again(tiny_task: Task, tmp_path: Path) -> None:
    first = eh.audit(tiny_task, "mlp", epochs=1, output_dir=tmp_path / "a")
    kept = sorted(tmp_path.rglob("answers-*.npz"))
    before = [path.read_bytes() for path in kept]
    truncate(kept[0])
    flip(kept[1])
    again = eh.audit(tiny_task, "mlp", epochs=1, output_dir=tmp_path / "a")
    assert again.to_frame().equals(first.to_frame())
    assert [len(path.read_bytes()) for path in kept] == [len(content) for content in before]


# ---- the model is gone ----------------------------------------------------------------------------------------------


def test_a_finished_run_without_its_model_is_one_sentence(finished: tuple[Path, Task], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "model")
    for ask in (lambda: fit(folder, finished[1]), lambda: eh.evaluate(str(folder), finished[1])):
        with pytest.raises(eh.UserError, match=r"^The run in '.+' has no folder 'model' \("):
            ask()


# ---- two processes --------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from evenhand.files import alone_in
with alone_in(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_and_a_killed_one_leaves_nothing(tiny_task: Task, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        for work in (
            lambda: fit(tmp_path / "run", tiny_task),
            lambda: fit(tmp_path / "run", tiny_task, eh.ERM(), seed=3),
        ):
            with pytest.raises(eh.UserError, match=r"^Another process is at work in the folder '.+run': wait for its"):
                work()
        assert not (tmp_path / "run/record.json").exists()
    finally:
        process.kill()
        process.communicate()
    assert fit(tmp_path / "run", tiny_task, eh.ERM()).record["status"] == "done"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("record.json", "samples.json", "predictions.parquet", "train_rows.npy", "model", "stages")
    }


def test_two_audits_in_one_folder(tiny_task: Task, tmp_path: Path) -> None:
    inner = tmp_path / "a/models/folds-seed0"
    with locked(inner / LOCK), pytest.raises(eh.UserError, match="Another process is at work"):
        eh.audit(tiny_task, "mlp", epochs=1, output_dir=tmp_path / "a")
    assert not list(tmp_path.rglob("*.json"))


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    code = HOLD.replace("time.sleep(60)", "time.sleep(0.5)")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    begun = time.monotonic()
    with locked(tmp_path / LOCK):
        assert time.monotonic() - begun > 0.1
    process.communicate()
