"""Audits of runs, of models and of tasks: what is trained, what is taken, what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub.constants
import numpy as np
import pytest
import torch

import evenhand as eh
from audit_data import image_task, text_task
from conftest import make_task
from evenhand.auditing import scoring
from evenhand.cli.parser import main
from evenhand.models.saved import load_model
from evenhand.runs.seals import SEAL
from evenhand.tasks import Task
from evenhand.validation import UserError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(train=200)


@pytest.fixture(scope="module")
def even(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Even with two seeds on the same data."""
    folder = tmp_path_factory.mktemp("even")
    for seed in (0, 1):
        eh.fit(eh.Even(), task, "mlp", seed=seed, data_seed=0, output_dir=folder / f"even{seed}", epochs=2)
    return folder


@pytest.fixture(scope="module")
def runs(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PGD with two seeds on the same data."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        eh.fit(eh.PGD(), task, "mlp", seed=seed, data_seed=0, output_dir=folder / f"pgd{seed}", epochs=2)
    return folder


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        eh.audit(*arguments, **options)
    return str(caught.value)


# ---- what is audited ------------------------------------------------------------------------------------------------


def asked_by_halves(run: Path, task: Task) -> Any:
    """Each training sample's norm under the biased model of a run of Even that didn't see it."""
    part_N = np.random.default_rng(0).permutation(len(task.train)) * 2 // len(task.train)
    rows = task.train.with_format("numpy")

    def collate(batch: Any) -> dict[str, torch.Tensor]:
        pixels = np.stack([row["pixel_values"] for row in batch]).astype(np.uint8)
        return {"pixel_values": torch.from_numpy(pixels), "labels": torch.tensor([int(row["labels"]) for row in batch])}

    of_model = [
        eh.gradient_norms(load_model(run / "stages" / f"biased-{k + 1}" / "model"), rows, collate_fn=collate)
        for k in range(2)
    ]
    return np.where(part_N == 0, *of_model)


def test_a_run_of_even_gives_its_halves(even: Path, task: Task, tmp_path: Path) -> None:
    found = eh.audit(even / "even0", task=task, output_dir=tmp_path / "out")
    norm_N = asked_by_halves(even / "even0", task)
    assert np.allclose(found.training["score"], norm_N / norm_N.sum(), rtol=1e-4)
    assert found.described == "those of the run, each asked about the part that it wasn't trained on"
    assert found.agreement is None
    assert found.detection is not None
    assert not (tmp_path / "out" / "models" / "folds-seed0" / "stages").exists()  # nothing was trained


def test_runs_with_several_seeds_on_the_same_data_are_compared(even: Path, task: Task, tmp_path: Path) -> None:
    found = eh.audit(even, task=task, output_dir=tmp_path / "out")
    assert found.seeds == (0, 1)
    assert found.agreement is not None
    frame = found.training
    for seed in (0, 1):
        alone = eh.audit(even / f"even{seed}", task=task, output_dir=tmp_path / f"{seed}").training
        assert np.allclose(alone["score"], frame[f"score_seed{seed}"])
    assert np.allclose(frame["score"], (frame["score_seed0"] + frame["score_seed1"]) / 2)


def test_a_run_whose_biased_model_saw_every_row_has_halves_trained(runs: Path, task: Task, tmp_path: Path) -> None:
    found = eh.audit(runs, task=task, output_dir=tmp_path / "out")
    assert found.seeds == (0, 1)
    assert "GCE (q = 0.7) and the run's settings, two for each seed" in found.described
    assert any("trained on every training row and may know some by heart" in note for note in found.notes)
    for seed in (0, 1):
        stages = tmp_path / "out" / "models" / f"folds-seed{seed}" / "stages"
        assert sorted(stage.name for stage in stages.iterdir()) == ["biased-1", "biased-2"]
    again = eh.fit(eh.Even(), task, "mlp", seed=0, data_seed=0, output_dir=tmp_path / "even", epochs=2)
    assert np.allclose(eh.audit(again.folder, task=task).training["score"], found.training["score_seed0"], rtol=1e-4)


def test_runs_on_different_data_are_not_compared_and_it_is_said(tmp_path: Path) -> None:
    for seed in (0, 1):
        eh.fit(eh.GCE(), "colored-digits", seed=seed, output_dir=tmp_path / f"gce{seed}", epochs=1)
    found = eh.audit(tmp_path)
    assert found.seeds == (0,)
    assert found.agreement is None
    assert "The folder holds runs on 2 different data sets" in found.notes[0]
    assert found.folder == tmp_path / "audit"


def test_a_run_without_a_biased_model_has_one_trained_which_is_kept(tmp_path: Path) -> None:
    eh.fit(eh.ERM(), "colored-digits", seed=2, output_dir=tmp_path / "erm", epochs=1)
    found = eh.audit(tmp_path / "erm")
    assert "trained for this audit" in found.described
    assert (found.seeds, found.data_seed) == ((2,), 2)
    model = tmp_path / "erm" / "audit" / "models" / "folds-seed2" / "stages" / "biased-1" / "stage.json"
    before = model.stat().st_mtime_ns
    again = eh.audit(tmp_path / "erm")
    assert model.stat().st_mtime_ns == before
    assert again.to_frame().equals(found.to_frame())


def test_seeds_train_models_on_the_same_data(tmp_path: Path) -> None:
    found = eh.audit("colored-digits", "mlp", seeds=2, epochs=1, output_dir=tmp_path / "a")
    assert (found.seeds, found.data_seed) == ((0, 1), 0)
    assert found.agreement is not None
    frame = found.to_frame()
    assert not np.allclose(frame["score_seed0"], frame["score_seed1"])
    one = eh.audit("colored-digits", "mlp", seeds=[1], data_seed=0, epochs=1, output_dir=tmp_path / "b").to_frame()
    assert np.allclose(one["score"], frame["score_seed1"])
    assert one["attribute"].tolist() == frame["attribute"].tolist()


def test_a_saved_classifier_is_taken_as_it_is(runs: Path, task: Task, tmp_path: Path) -> None:
    taken = eh.audit(task, runs / "pgd0" / "stages" / "biased" / "model", output_dir=tmp_path / "taken")
    scores = np.load(runs / "pgd0" / "stages" / "scores" / "scores.npy")
    assert np.allclose(taken.training["score"], scores / scores.sum(), rtol=1e-4)
    assert taken.seeds == (None,)
    assert not (tmp_path / "taken" / "models" / "given" / "stages").exists()
    assert any("trained on the rows that it was asked about can't be known" in note for note in taken.notes)


# ---- what is refused, in one sentence -------------------------------------------------------------------------------


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert "holds no record.json, so there is no run to audit" in refusal(tmp_path)
    assert "There is no folder" in refusal(tmp_path / "none")


def spoiled(runs: Path, tmp_path: Path, change: Any) -> Path:
    folder = tmp_path / "spoiled"
    shutil.copytree(runs / "pgd0", folder)
    path = folder / "record.json"
    text = change(json.loads(path.read_text()))
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record | {"format": 0}, "has record format 0 but this version of evenhand reads format 1"),
        (lambda record: json.dumps(record)[:200], "is not valid JSON"),
        (lambda record: [], "must hold a JSON object"),
        (
            lambda record: {k: v for k, v in record.items() if k != "task"},
            "record.json lacks the key 'task'; delete it or repeat its run.",
        ),
        (lambda record: record | {"seed": "x"}, 'record.json must be an integer, but is "x"; delete it'),
    ],
)
def test_records_that_can_not_be_used(runs: Path, task: Task, tmp_path: Path, change: Any, said: str) -> None:
    message = refusal(spoiled(runs, tmp_path, change), task=task)
    assert said in message
    assert "\n" not in message


def test_a_run_on_data_of_ones_own_needs_them(runs: Path) -> None:
    assert "whose data its record doesn't hold: give the data it was trained on" in refusal(runs / "pgd0")


def test_data_that_are_not_the_runs(runs: Path, task: Task, tmp_path: Path) -> None:
    said = refusal(runs / "pgd0", task=make_task(train=100))
    assert "it was trained on 200 samples, the data given have 100" in said
    shuffled = dataclasses.replace(task, train=task.train.shuffle(seed=0))
    other = refusal(runs / "pgd0", task=shuffled, output_dir=tmp_path / "a")
    assert "they hold other rows than those that it was trained and tested on, or in another order" in other
    assert not (tmp_path / "a").exists()


def test_models_that_do_not_match(even: Path, task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "spoiled"
    shutil.copytree(even / "even0", folder)
    path = folder / "stages" / "probabilities-1" / "probabilities.npy"
    path.with_name(SEAL).unlink()  # else any other file is a damaged one
    told = np.load(path)
    np.save(path, told[:150])
    assert "don't match the data: 150 of them, 200 training samples" in refusal(folder, task=task)
    np.save(path, told[::-1])
    assert "computed again, the samples have other ones" in refusal(folder, task=task)
    path.write_bytes(path.read_bytes()[:100])
    assert "can't be read" in refusal(folder, task=task)
    path.unlink()  # nothing to compare with
    eh.audit(folder, task=task)


def test_several_tasks_in_one_folder(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "pgd0", tmp_path / "a")
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    record["task"]["name"] = "other"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "record.json").write_text(json.dumps(record))
    assert "holds runs of several tasks (noise, other): name the folder of one" in refusal(tmp_path)


def test_options_that_a_run_answers_itself(runs: Path, task: Task) -> None:
    assert "--epochs can't be given beside a run" in refusal(runs / "pgd0", task=task, epochs=3)
    assert "go with a run" in refusal("colored-digits", places={"data_dir": "x"})


def test_models_that_do_not_fit(runs: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    two = image_task(rng, 100)
    assert "Unknown model 'mpl'" in refusal(two, "mpl")
    assert "must be given for a task of your own" in refusal(two)
    assert "is a run, not a model" in refusal(two, runs / "pgd0")
    folder = runs / "pgd0" / "stages" / "biased" / "model"
    assert "is a trained classifier and is taken as it is, so 'seeds' can't be given" in refusal(
        make_task(train=200), folder, seeds=2
    )
    text = text_task(["a"] * 30, np.arange(30) % 3)
    assert "takes images, but the task's inputs are text" in refusal(text, "mlp")


def test_an_output_folder_of_another_audit(tmp_path: Path) -> None:
    eh.audit("colored-digits", "mlp", epochs=1, output_dir=tmp_path / "a")
    said = refusal("colored-digits", "mlp", epochs=2, output_dir=tmp_path / "a")
    assert "holds a biased model of another audit" in said
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal("colored-digits", "mlp", epochs=1, output_dir=tmp_path / "file")


@pytest.mark.parametrize("seeds", [0, [], "3", [-1], True])
def test_seeds_that_are_none(seeds: Any) -> None:
    assert "'seeds' parameter of audit must be" in refusal("colored-digits", seeds=seeds)


def test_scores_that_are_no_numbers_rank_nothing(
    even: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (np.nan, 0.0):
        monkeypatch.setattr(scoring, "gradient_norms", lambda model, rows, *_, n=number, **__: np.full(len(rows), n))
        said = refusal(even / "even0", task=task, output_dir=tmp_path / str(number))
        assert "so samples can't be ranked by them" in said


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_page_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "audit --task colored-digits --model mlp --epochs 4 --seeds 2 --output-dir a --quiet"
    assert main(words.split()) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("colored-digits: found a likely shortcut: the colour.")
    assert "evenhand train even --task colored-digits --model mlp --epochs 4 --seed 0" in said.out
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"models", "audit.html", "audit.md", "audit.json", "scores.parquet", "scores.csv"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("audit none", "There is no folder 'none': name a run's folder"),
        ("audit . --model mlp", "so --model can't be given beside a run"),
        ("audit . --shortcut colour", "so --shortcut can't be given beside a run"),
        ("audit --task colored-digits --shortcut token:x", "holds no texts, so no token"),
        ("audit --task colored-digits --shortcut column:labels", "The column 'labels' is the label"),
        ("audit . --task colored-digits", "so --task can't be given beside a run"),
        ("audit . --conflict 0.1", "so --conflict can't be given beside a run"),
        ("audit . --lora", "so --peft can't be given beside a run"),
        ("audit --seeds 0", "The 'seeds' parameter of audit must be an integer of at least 1. Got 0."),
        ("audit --seeds 2 --seed 1", "give one of them"),
        ("audit --task colored-digit", "Unknown task 'colored-digit'"),
        ("audit --data-dir x", "The task 'colored-digits' has no option '--data-dir'."),
    ],
)
def test_what_the_command_refuses(words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_named_shortcuts_are_told_of_whether_found_or_not(tmp_path: Path) -> None:
    task = make_task()
    found = eh.audit(task, "digits-cnn", shortcuts="column:attribute", epochs=1, output_dir=tmp_path / "audit")
    aligned, conflicting = (list(task.train["alignment"]).count(side) for side in (0, 1))
    (told,) = [note for note in found.notes if "'column:attribute', which has a name" in note]
    sizes = [int(word.replace(",", "")) for word in told.split() if word.replace(",", "").isdigit()]
    assert sum(sizes) == len(task.train)
    assert sizes[0] <= aligned
    assert sizes[1] <= conflicting
