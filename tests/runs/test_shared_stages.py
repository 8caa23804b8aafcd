from __future__ import annotations

import json
import threading
from pathlib import Path

import torch

import evenhand as eh
from evenhand.runs.configuration import Configuration
from evenhand.runs.shared_stages import SharedStages, model_digest, stage_key


def make_stage(folder: Path, content: str = "weights") -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model/model.safetensors").write_text(content)
    (folder / "stage.json").write_text(json.dumps({"name": "gce", "seconds": 3.5}))
    return folder


def test_a_stage_is_handed_on_under_another_name_and_stays_as_it_was(tmp_path: Path) -> None:
    shared = SharedStages(tmp_path / "stages")
    into = tmp_path / "into"
    into.mkdir()
    assert not shared.fetch("key", into, "biased")
    with shared.lock("key"):
        shared.publish("key", make_stage(tmp_path / "first"))
    assert shared.fetch("key", into, "biased")
    assert (into / "model/model.safetensors").read_text() == "weights"
    assert json.loads((into / "stage.json").read_text()) == {"name": "biased", "seconds": 3.5, "reused": True}
    for kept in (tmp_path / "first", tmp_path / "stages/key"):
        assert json.loads((kept / "stage.json").read_text()) == {"name": "gce", "seconds": 3.5}


def test_the_first_of_two_stages_counts(tmp_path: Path) -> None:
    shared = SharedStages(tmp_path / "stages")
    with shared.lock("key"):
        shared.publish("key", make_stage(tmp_path / "first"))
        shared.publish("key", make_stage(tmp_path / "second", "others"))
    assert (tmp_path / "stages/key/model/model.safetensors").read_text() == "weights"


def test_two_that_race_leave_one_whole_stage(tmp_path: Path) -> None:
    shared = SharedStages(tmp_path / "stages")
    shared.folder.mkdir()
    stages = [make_stage(tmp_path / str(i), str(i)) for i in range(8)]
    threads = [threading.Thread(target=shared.publish, args=("key", stage)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.name for p in shared.folder.iterdir()] == ["key"]
    assert (shared.folder / "key/model/model.safetensors").read_text() in "01234567"


def configuration(method: eh.PGD | eh.ERM, **changes: int) -> Configuration:
    task = eh.ColoredDigits()
    seeds = {"seed": 0, "data_seed": 0} | changes
    return Configuration(method=method, task=task, model="mlp", training=task.training_for("mlp"), **seeds)


def test_a_key_is_what_decides_the_stage() -> None:
    parts = {"kind": "train", "method": "gce", "settings": {"q": 0.7}}
    key = stage_key(configuration(eh.PGD()), parts)
    assert key == stage_key(configuration(eh.PGD(source="all")), parts)
    assert key == stage_key(configuration(eh.ERM()), parts)
    assert key != stage_key(configuration(eh.PGD(), seed=1), parts)
    assert key != stage_key(configuration(eh.PGD(), data_seed=1), parts)
    assert key != stage_key(configuration(eh.PGD()), parts | {"settings": {"q": 0.5}})


def test_a_digest_tells_weights_and_buffers_apart() -> None:
    model = torch.nn.BatchNorm1d(3)  # with a buffer of no dimension
    digest = model_digest(model)
    assert digest == model_digest(torch.nn.BatchNorm1d(3))
    assert model.running_mean is not None
    model.running_mean[1] = 0.5
    assert digest != model_digest(model)
    half = torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    assert len(model_digest(half)) == 64
