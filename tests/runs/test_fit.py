from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

import evenhand as eh
from conftest import make_task
from evenhand.evaluation.progress import Measurement
from evenhand.models.source import load_model
from evenhand.report import write_report
from evenhand.runs import fit as run_module
from evenhand.runs import stored_run
from evenhand.runs.record import write_json
from evenhand.runs.stages import Stages
from evenhand.tasks import Task
from evenhand.tasks.images.coloring import PGD_PALETTE, colored_dataset
from evenhand.training.stage import StageError

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16}


def fit(method: Any, task: Any, folder: Path | None, **options: Any) -> eh.Result:
    return eh.fit(method, task, **({"model": "digits-cnn", "output_dir": folder} | QUICK | options))


def without_durations(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in ("durations", "memory")}


class CountingProgress:
    def __init__(self) -> None:
        self.stages: dict[str, tuple[int, int]] = {}
        self.epochs: list[Measurement] = []

    def stage(self, name: str, done: int, total: int) -> None:
        self.stages[name] = (done, total)

    def measured(self, measurement: Measurement) -> None:
        self.epochs.append(measurement)


def test_record_says_what_was_run(tmp_path: Path) -> None:
    task = eh.ColoredDigits(conflict=0.05)
    result = eh.fit(eh.PGD(norm="l1"), task, seed=3, data_seed=4, output_dir=tmp_path / "run", epochs=1, lr=0.002)
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record == result.record
    assert record["format"] == 1
    assert record["status"] == "done"
    assert record["error"] is None
    assert record["method"]["settings"]["norm"] == "l1"
    assert record["task"] == {"name": "colored-digits", "settings": {"conflict": 0.05, "test_conflict": 0.9}}
    assert record["model"] == {"name": "digits-cnn", "parameters": 85_642}
    assert record["training"]["epochs"] == 1
    assert record["training"]["lr"] == 0.002
    assert (record["seed"], record["data_seed"]) == (3, 4)
    command = "evenhand train pgd --norm l1 --task colored-digits --conflict 0.05 --epochs 1 --lr 0.002"
    assert record["command"] == f"{command} --seed 3 --data-seed 4"
    assert record["selection"] == "last epoch"
    assert record["label_access"].startswith("none")
    assert record["primary_test"] == "test"
    assert record["metrics"] == record["tests"]["test"]
    assert set(record["tests"]) == {"validation", "test"}
    assert sum(record["group_sizes"]["test"].values()) == 497
    assert [stage["name"] for stage in record["stages"]] == ["biased", "scores", "debiased"]
    assert record["data"]["train"]["n"] == 1100
    assert record["versions"]["torch"] == torch.__version__
    assert set(record["machine"]) == {"system", "cores", "threads", "device"}
    assert record["durations"]["total_s"] > 0
    # evenhand runs from a checkout of its own here, or from an installation: then there is no commit
    assert record["commit"] is None or set(record["commit"]) == {"hash", "dirty"}
    assert result.scores is not None
    assert result.scores.shape == (1100,)
    samples = json.loads((tmp_path / "run/samples.json").read_text())["samples"]
    assert len(samples) == 12
    assert sum(s["alignment"] == "conflicting" for s in samples) == 10


def test_metrics_are_those_of_the_saved_model(tiny_task: Task, tmp_path: Path) -> None:
    result = fit(eh.ERM(), tiny_task, tmp_path / "run")
    model: Any = load_model(tmp_path / "run/model").eval()
    test = tiny_task.tests["test"]
    images = torch.tensor(test["pixel_values"], dtype=torch.uint8)
    with torch.no_grad():
        right = (model(images).logits.argmax(1) == torch.tensor(test["labels"])).double()
    conflicting = torch.tensor(test["alignment"]) == 1
    assert result.metrics["average"] == pytest.approx(float(right.mean()))
    assert result.metrics["conflicting"] == pytest.approx(float(right[conflicting].mean()))
    assert result.metrics["aligned"] == pytest.approx(float(right[~conflicting].mean()))


def test_the_same_run_twice_is_the_same(tiny_task: Task, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = fit(eh.PGD(), tiny_task, tmp_path / "a")
    torch.manual_seed(2)  # what ran before must not matter
    second = fit(eh.PGD(), tiny_task, tmp_path / "b")
    assert without_durations(first.record) == without_durations(second.record)
    assert (tmp_path / "a/model/model.safetensors").read_bytes() == (
        tmp_path / "b/model/model.safetensors"
    ).read_bytes()


def test_another_seed_is_another_run(tiny_task: Task, tmp_path: Path) -> None:
    first, second = (fit(eh.ERM(), tiny_task, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert first.record["configuration"] != second.record["configuration"]
    assert first.record["cell"] == second.record["cell"]
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert any(not torch.equal(p, q) for p, q in pairs)


def test_the_seed_drives_the_order_too(tiny_task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "start"
    fit(eh.ERM(), tiny_task, folder, epochs=1)
    # from one checkpoint, runs of two seeds differ by their order alone
    runs = [fit(eh.ERM(), tiny_task, tmp_path / str(s), model=str(folder / "model"), lr=1e-2, seed=s) for s in (1, 2)]
    pairs = zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True)
    assert any(not torch.equal(p, q) for p, q in pairs)


def test_pgd_draws_by_its_scores(tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # with one sample of any weight, the debiased model sees nothing else and learns its class for all
    def one_score(_model: Any, rows: Any, *_args: Any, **_kwargs: Any) -> Any:
        scores = np.zeros(len(rows))
        scores[3] = 1.0
        return scores

    monkeypatch.setattr(stored_run, "gradient_norms", one_score)
    result = fit(eh.PGD(floor=0.0), tiny_task, tmp_path / "run", epochs=8, lr=1e-2)
    test = tiny_task.tests["test"]
    images = torch.tensor(test["pixel_values"], dtype=torch.uint8)
    with torch.no_grad():
        predicted = result.model(images).logits.argmax(1)
    assert (predicted == tiny_task.train[3]["labels"]).all()


def test_data_seed_changes_the_data_only(tmp_path: Path) -> None:
    digits: Any = eh.ColoredDigits()
    records = [
        eh.fit(eh.ERM(), digits, seed=0, data_seed=d, output_dir=tmp_path / str(d), epochs=1).record for d in (0, 1)
    ]
    assert records[0]["data"]["train"]["conflicting"] != records[1]["data"]["train"]["conflicting"]


def test_a_finished_run_is_given_back_untrained(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit(eh.PGD(), tiny_task, tmp_path / "run")

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(stored_run, "train_stage", refuse)
    second = fit(eh.PGD(), tiny_task, tmp_path / "run")
    assert second.record == first.record
    np.testing.assert_array_equal(second.scores, first.scores)
    for p, q in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("stop_before", ["scores", "debiased"])
def test_a_stopped_run_goes_on_from_its_last_stage(
    stop_before: str, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(eh.PGD(), tiny_task, tmp_path / "whole")
    original = Stages.stage

    def stopping(self: Any, name: str, *rest: Any) -> Path:
        if name == stop_before:
            raise KeyboardInterrupt
        return original(self, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "stage", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(eh.PGD(), tiny_task, tmp_path / "stopped")
    record = json.loads((tmp_path / "stopped/record.json").read_text())
    assert record["status"] == "failed"
    assert record["error"].startswith("interrupted")
    assert record["metrics"] is None

    progress = CountingProgress()
    resumed = fit(eh.PGD(), tiny_task, tmp_path / "stopped", progress=progress)
    assert "biased" not in progress.stages
    assert progress.stages["debiased"] == (12, 12)
    assert without_durations(resumed.record) == without_durations(whole.record)


SCRIPT = """
import os, signal, sys
import evenhand as eh
import torch
from evenhand.runs import stored_run
train_stage = stored_run.train_stage
def killed_after_the_first(name, *args, **kwargs):
    if name != sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_stage(name, *args, **kwargs)
stored_run.train_stage = killed_after_the_first
torch.set_num_threads(1)  # as in the tests: another number of threads rounds differently
eh.fit(getattr(eh, sys.argv[2])(), "colored-digits", output_dir=sys.argv[1], epochs=3)
"""


@pytest.mark.parametrize(("name", "stage"), [("PGD", "biased"), ("Even", "biased-1")])
def test_killed_with_kill_9_between_stages_it_goes_on(name: str, stage: str, tmp_path: Path) -> None:
    method = getattr(eh, name)()
    whole = eh.fit(method, "colored-digits", output_dir=tmp_path / "whole", epochs=3)
    folder = tmp_path / "killed"
    process = subprocess.run([sys.executable, "-c", SCRIPT, str(folder), name, stage], check=False)
    assert process.returncode == -signal.SIGKILL
    weights = folder / "stages" / stage / "model/model.safetensors"
    assert weights.exists()
    assert json.loads((folder / "record.json").read_text())["status"] == "running"
    trained = weights.stat().st_mtime_ns
    resumed = eh.fit(method, "colored-digits", output_dir=folder, epochs=3)
    assert weights.stat().st_mtime_ns == trained
    assert without_durations(resumed.record) == without_durations(whole.record)


def test_a_half_written_stage_is_thrown_away(tiny_task: Task, tmp_path: Path) -> None:
    whole = fit(eh.ERM(), tiny_task, tmp_path / "whole")
    folder = tmp_path / "half"
    fit(eh.ERM(), tiny_task, folder)
    # as a kill in the middle of the stage would leave it
    (folder / "stages/erm").rename(folder / "stages/.erm.partial")
    (folder / "stages/.erm.partial/model/model.safetensors").write_bytes(b"half")
    record = json.loads((folder / "record.json").read_text())
    write_json(folder / "record.json", record | {"status": "running", "metrics": None})
    resumed = fit(eh.ERM(), tiny_task, folder)
    assert without_durations(resumed.record) == without_durations(whole.record)
    assert sorted(p.name for p in (folder / "stages").iterdir()) == ["erm"]


def test_a_diverged_stage_is_a_failed_run_with_its_reason(tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="The stage 'erm' diverged: its weights or its loss are no longer finite"):
        fit(eh.ERM(), tiny_task, tmp_path / "run", lr=1e38)
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["status"] == "failed"
    assert record["error"].startswith("StageError: The stage 'erm' diverged")
    assert record["metrics"] is None
    assert not list((tmp_path / "run/stages").glob("*"))


def test_a_full_disk_leaves_no_half_written_file(
    tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(eh.UserError, match=r"record\.json' can't be written to \(No space left"):
            write_json(tmp_path / "record.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_write_json_keeps_the_old_file_if_the_new_one_fails(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "record.json", {"a": float("nan")})
    assert json.loads((tmp_path / "record.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_fit_leaves_the_random_states_as_they_were(tiny_task: Task, tmp_path: Path) -> None:
    random.seed(123)
    np.random.seed(123)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[union-attr]
    fit(eh.ERM(), tiny_task, tmp_path / "run")
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_pgd_starts(tiny_task: Task, tmp_path: Path) -> None:
    runs = {init: fit(eh.PGD(init=init), tiny_task, tmp_path / init, lr=1e-9) for init in ("inherit", "random")}
    # at a learning rate near 0 a model stays where it started
    biased: Any = load_model(tmp_path / "inherit/stages/biased/model")
    for p, q in zip(runs["inherit"].model.parameters(), biased.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=0)
    pairs = zip(runs["random"].model.parameters(), biased.parameters(), strict=True)
    assert any(float((p - q).detach().abs().max()) > 1e-2 for p, q in pairs)


def shifted_task(offset: int) -> Task:
    """The same labels, other pictures."""

    def split() -> Any:
        label_N = np.arange(100) % 10
        pixels = np.random.default_rng(1).integers(0, 200, (100, 3, 8, 8)).astype(np.uint8) + np.uint8(offset)
        return colored_dataset(pixels, label_N, label_N, PGD_PALETTE)

    return Task("mine", "image", split(), split(), {"test": split()}, "test")


def test_other_inputs_are_another_run_and_a_report_takes_tasks_of_ones_own(tmp_path: Path) -> None:
    fit(eh.ERM(), shifted_task(0), tmp_path / "run")
    with pytest.raises(eh.UserError, match="another configuration"):
        fit(eh.ERM(), shifted_task(9), tmp_path / "run")
    files = write_report(tmp_path)
    assert "mine" in files.html.read_text(encoding="utf-8")


def test_numbers_of_numpy_and_integers_for_floats_are_the_same_run(tiny_task: Task, tmp_path: Path) -> None:
    first = fit(eh.EDGE(alpha=2.0), tiny_task, tmp_path / "run", seed=0)
    alpha: Any = np.float32(2)
    again = fit(eh.EDGE(alpha=alpha), tiny_task, tmp_path / "run", seed=np.int64(0))
    assert again.record == first.record
    assert isinstance(eh.EDGE(alpha=2).settings()["alpha"], float)


@pytest.mark.parametrize("left", [".record.json.partial", ".writable"])
def test_a_run_killed_before_its_first_record_starts_again(left: str, tiny_task: Task, tmp_path: Path) -> None:
    (tmp_path / left).touch()
    assert fit(eh.ERM(), tiny_task, tmp_path).record["status"] == "done"


# ---- checkpoints of transformers in place of the small models --------------------------------------------------------


@pytest.fixture
def vit_folder(tmp_path: Path) -> Path:
    from transformers import ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    folder = tmp_path / "vit"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", [eh.EDGE(signal="biased", projection="tensor"), eh.PGD(init="pretrained")])
def test_an_image_checkpoint_in_place_of_a_small_model(
    method: Any, vit_folder: Path, tiny_task: Task, tmp_path: Path
) -> None:
    result = fit(method, tiny_task, tmp_path / "run", model=str(vit_folder), epochs=1)
    assert result.record["status"] == "done"
    # plain transformers loads it, with this task's classes
    loaded = ViTForImageClassification.from_pretrained(tmp_path / "run/model")
    assert loaded.config.id2label[7] == "7"
    assert (tmp_path / "run/model/preprocessor_config.json").exists()


def test_a_saved_small_model_is_a_checkpoint_too(tiny_task: Task, tmp_path: Path) -> None:
    start = fit(eh.ERM(), tiny_task, tmp_path / "start")
    again = fit(eh.PGD(init="pretrained"), tiny_task, tmp_path / "run", model=str(tmp_path / "start/model"), lr=1e-9)
    for p, q in zip(start.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=0)


def text_task() -> Task:
    import datasets

    words = ["good", "bad", "film", "plot"]
    rng = np.random.default_rng(0)

    def split(n: int) -> Any:
        labels = [i % 2 for i in range(n)]
        texts = [" ".join([words[label], *rng.choice(words[2:], rng.integers(1, 5))]) for label in labels]
        features = datasets.Features(
            {
                "text": datasets.Value("string"),
                "labels": datasets.ClassLabel(names=["pos", "neg"]),
                "index": datasets.Value("int64"),
            }
        )
        return datasets.Dataset.from_dict({"text": texts, "labels": labels, "index": list(range(n))}, features=features)

    return Task(
        name="films", kind="text", train=split(32), validation=split(8), tests={"dev": split(24)}, primary_test="dev"
    )


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    from transformers import BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "plot"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    config = BertConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    folder = tmp_path / "bert"
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "method", [eh.ERM(), eh.EDGE(), eh.PGD(), eh.LfF(), eh.PGD(stages="single", sampling="reweight", mix=0.5)]
)
def test_a_text_checkpoint_on_a_task_of_ones_own(method: Any, bert_folder: Path, tmp_path: Path) -> None:
    result = fit(method, text_task(), tmp_path / "run", model=str(bert_folder), epochs=15, lr=1e-2)
    assert result.metrics["average"] == 1.0
    assert result.metrics["worst_group"] is None  # no groups are known
    assert result.metrics["by_group"] == {}
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "run/model")
    assert loaded.config.label2id == {"pos": 0, "neg": 1}


def test_bf16_trains_in_half_precision_and_keeps_the_weights_whole(bert_folder: Path, tmp_path: Path) -> None:
    dtypes: set[torch.dtype] = set()

    def watch(module: Any, arguments: Any, output: Any) -> None:
        if module.training and isinstance(module, torch.nn.Linear):
            dtypes.add(output.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(watch)
    try:
        given: dict[str, Any] = {"model": str(bert_folder), "epochs": 15, "lr": 1e-2}
        half = fit(eh.PGD(), text_task(), tmp_path / "half", bf16=True, **given)
        assert dtypes == {torch.bfloat16}
        dtypes.clear()
        whole = fit(eh.PGD(), text_task(), tmp_path / "whole", **given)
        assert dtypes == {torch.float32}
    finally:
        handle.remove()
    assert half.metrics["average"] == 1.0
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert half.model.config._attn_implementation == whole.model.config._attn_implementation == "sdpa"
    assert half.record["training"]["bf16"] is True
    assert "bf16" not in whole.record["training"]
    assert half.record["cell"] != whole.record["cell"]


@pytest.mark.parametrize("method", [eh.EDGE(projection="tensor"), eh.EDGE(projection="tensor", route="double")])
def test_edge_learns_in_bf16(method: Any, bert_folder: Path, tmp_path: Path) -> None:
    result = fit(method, text_task(), tmp_path / "run", model=str(bert_folder), epochs=15, lr=1e-2, bf16=True)
    assert result.metrics["average"] == 1.0


# ---- mistakes: one sentence, before training, nothing written --------------------------------------------------------


@pytest.fixture
def nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []


def test_augmenting_text_is_refused_before_anything_is_written(bert_folder: Path, nothing_written: Path) -> None:
    with pytest.raises(eh.UserError, match=r"^PGD's augmentation is made for images of one size, but"):
        fit(eh.PGD(augment=True), text_task(), nothing_written / "run", model=str(bert_folder))


def test_a_checkpoint_without_weights_is_refused(vit_folder: Path, tiny_task: Task, tmp_path: Path) -> None:
    (vit_folder / "model.safetensors").unlink()
    with pytest.raises(eh.UserError, match=r"The weights of '.*vit' could not be loaded"):
        fit(eh.ERM(), tiny_task, tmp_path / "run", model=str(vit_folder))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "colored-digit"}, r"Unknown task 'colored-digit' \(did you mean 'colored-digits'"),
        ({"task": 7}, "'task' parameter of fit must be a task's name or a task. Got 7"),
        ({"method": "pgd"}, "'method' parameter of fit must be a method such as"),
        ({"model": "mpl"}, r"Unknown model 'mpl' \(did you mean 'mlp'\?\)"),
        ({"model": "pgd-cnn"}, "needs images of at least 28×28 pixels. Got 8×8"),
        ({"model": None}, "'model' parameter of fit must be given for a task of your own"),
        ({"seed": -1}, "'seed' parameter of fit must be an integer of at least 0. Got -1"),
        ({"seed": 1.5}, "'seed' parameter of fit must be an integer of at least 0. Got 1.5"),
        ({"epochs": 0}, "'epochs' parameter of the training must be an integer of at least 1. Got 0"),
        ({"lr": float("nan")}, r"'lr' parameter of the training must be a float in the range \(0, inf\). Got nan"),
        ({"device": "tpu"}, "must be one of auto, cpu, cuda. Got 'tpu'"),
        ({"method": eh.PGD(init="pretrained")}, "'pretrained' only for a model that starts from a checkpoint"),
    ],
)
def test_mistakes_are_refused(arguments: dict[str, Any], message: str, tiny_task: Task, nothing_written: Path) -> None:
    options = {"method": eh.ERM(), "task": tiny_task, "folder": nothing_written / "run"} | arguments
    with pytest.raises(eh.UserError, match=message):
        fit(**options)


def test_a_folder_that_cannot_be_used_is_refused(tiny_task: Task, tmp_path: Path) -> None:
    fit(eh.ERM(), tiny_task, tmp_path / "run")
    before = (tmp_path / "run/record.json").read_bytes()
    with pytest.raises(eh.UserError, match="holds a run of another configuration"):
        fit(eh.GCE(), tiny_task, tmp_path / "run")
    with pytest.raises(eh.UserError, match="holds a run of another configuration"):
        fit(eh.ERM(), make_task(seed=5, train=120), tmp_path / "run")
    assert (tmp_path / "run/record.json").read_bytes() == before

    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(eh.UserError, match="is not empty and holds no run"):
        fit(eh.ERM(), tiny_task, tmp_path / "full")
    with pytest.raises(eh.UserError, match="is a file"):
        fit(eh.ERM(), tiny_task, tmp_path / "full/notes.txt")
    with pytest.raises(eh.UserError, match="can't be written to"):
        fit(eh.ERM(), tiny_task, tmp_path / "full/notes.txt/run")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/record.json").write_text("{")
    with pytest.raises(eh.UserError, match="is no record of a run"):
        fit(eh.ERM(), tiny_task, tmp_path / "broken")
    assert (tmp_path / "full/notes.txt").read_text() == "mine"


def test_too_little_space_is_refused_beforehand(
    tiny_task: Task, nothing_written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(nothing_written)._replace(free=1_000_000)
    monkeypatch.setattr(run_module.shutil, "disk_usage", lambda _path: usage)
    # 4 models of 85,642 parameters: 4 · 4 · 85,642 = 1.4 MB, and 10 MB
    with pytest.raises(eh.UserError, match=r"needs 11 MB in .*, but only 1 MB are free"):
        fit(eh.PGD(), tiny_task, nothing_written / "run")
