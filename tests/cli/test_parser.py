from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets.config
import huggingface_hub.constants
import pytest
import torch

from evenhand.cli.parser import VERBS, main
from evenhand.methods import METHODS
from evenhand.models.named import NAMED
from evenhand.tasks import TASKS
from evenhand.version import __version__


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # so that no table breaks the words looked for
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def refusal(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a command that must end with 2 and one line, and leave everything as it was."""
    before = snapshot(Path())
    assert run(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("evenhand: error: ")
    assert snapshot(Path()) == before
    return captured.err.removeprefix("evenhand: error: ").rstrip("\n")


def run(command: str) -> int:
    return main(command.split())


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def shown(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must succeed prints."""
    assert run(command) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Batches of 8×8 images gain nothing from more, and lose much where other programs run beside the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "trian erm",
            "Unknown command 'trian' (did you mean 'train'?); known are demo, train, audit, debias, evaluate, study, "
            "report, methods, tasks.",
        ),
        ("train", "`evenhand train` needs a method: one of " + ", ".join(METHODS) + "."),
        (
            "train pdg",
            "Unknown method 'pdg' (did you mean 'pgd' or 'edge'?); known are " + ", ".join(METHODS) + ".",
        ),
        (
            "train erm --task colored-digit",
            "Unknown task 'colored-digit' (did you mean 'colored-digits' or 'colored-mnist'?); "
            f"known are {', '.join(TASKS)}.",
        ),
        (
            "train erm --model digits-cn",
            f"Unknown model 'digits-cn' (did you mean 'digits-cnn' or 'pgd-cnn'?); known are {', '.join(NAMED)}.",
        ),
        (
            "methods edg",
            "Unknown method 'edg' (did you mean 'edge'?); known are " + ", ".join(METHODS) + ".",
        ),
        ("tasks zzz", f"Unknown task 'zzz'; known are {', '.join(TASKS)}."),
        ("train erm colored-mnist", "The task is an option of `evenhand train`: write --task colored-mnist."),
        ("audit --seed 1 colored-mnist", "The task is an option of `evenhand audit`: write --task colored-mnist."),
    ],
)
def test_misspelt_names_are_answered_with_the_one_meant(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(command, capsys) == message


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train edge --alpha -1", "The 'alpha' parameter of EDGE must be a float in the range [0, inf). Got -1.0."),
        ("train edge --alpha=-1", "The 'alpha' parameter of EDGE must be a float in the range [0, inf). Got -1.0."),
        ("train edge --alpha nan", "The 'alpha' parameter of EDGE must be a float in the range [0, inf). Got nan."),
        ("train edge --alpha inf", "The 'alpha' parameter of EDGE must be a float in the range [0, inf). Got inf."),
        ("train edge --q 0", "The 'q' parameter of EDGE must be a float in the range (0, 1]. Got 0.0."),
        ("train gce --q 0", "The 'q' parameter of GCE must be a float in the range (0, 1]. Got 0.0."),
        ("train pgd --q 1.1", "The 'q' parameter of PGD must be a float in the range (0, 1]. Got 1.1."),
        (
            "train erm --conflict 1.5",
            "The 'conflict' parameter of colored-digits must be a float in the range [0, 1]. Got 1.5.",
        ),
        ("train erm --recipe lff", "The task 'colored-digits' has no option '--recipe'."),
        ("train erm --data-dir x", "The task 'colored-digits' has no option '--data-dir'."),
        (
            "train erm --task colored-mnist --data-dir no/such",
            "The folder 'no/such' given as --data-dir does not exist.",
        ),
        ("train erm --seed -1", "The 'seed' parameter of fit must be an integer of at least 0. Got -1."),
        ("train erm --data-seed -1", "The 'data_seed' parameter of fit must be an integer of at least 0. Got -1."),
        ("train erm --epochs 0", "The 'epochs' parameter of the training must be an integer of at least 1. Got 0."),
        ("train erm --lr nan", "The 'lr' parameter of the training must be a float in the range (0, inf). Got nan."),
        (
            "train erm --batch-size 0",
            "The 'batch_size' parameter of the training must be an integer of at least 1. Got 0.",
        ),
        ("train erm --model pgd-cnn", "The model 'pgd-cnn' needs images of at least 28×28 pixels. Got 8×8."),
        ("demo --seeds 0", "The 'seeds' parameter of demo must be an integer of at least 1. Got 0."),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(command, capsys) == message


def test_demo_refuses_bad_epochs_before_anything_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal("demo --epochs 0 --quiet", capsys) == (
        "The 'epochs' parameter of the training must be an integer of at least 1. Got 0."
    )


def test_pretrained_start_without_a_checkpoint_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal("train pgd --init pretrained", capsys).startswith(
        "The 'init' parameter of PGD can be 'pretrained' only for a model that starts from a checkpoint"
    )


def test_models_that_are_not_found_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal("train erm --model nobody/nothing", capsys)
    assert told.startswith("Unknown model 'nobody/nothing': it is none of mlp")
    assert refusal("train erm --model no/such/folder", capsys) == "There is no folder 'no/such/folder'."


def test_mnist_without_files_and_network(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal("train erm --task colored-mnist", capsys)
    assert message.startswith("MNIST could not be loaded from the hub as 'ylecun/mnist' (")
    assert message.endswith("); give a folder of its four IDX files with --data-dir instead.")


def test_reports_of_no_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nosuch" in refusal("report nosuch", capsys)
    (tmp_path / "empty").mkdir()
    assert "empty" in refusal("report empty", capsys)


@pytest.mark.parametrize("command", ["train erm --epochs abc", "train edge --projection nme", "train erm extra"])
def test_what_tyro_refuses_ends_with_2_too(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err != ""
    assert snapshot(Path()) == {}


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("train erm --epoch 1", "--epochs INT"),
        ("train edge --aplha 2", "--alpha {None}|FLOAT"),
        ("demo --sedes 2", "--seeds INT"),
        ("audit --sed 1", "--seed INT"),
        ("evaluate model --predicitons x.csv", "--predictions FILE"),
        ("study file.yaml --retry", "--retry-failed"),
    ],
)
def test_a_misspelt_option_is_answered_with_those_of_the_verb_that_may_be_meant(
    command: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"Unrecognized options: {command.split('--')[1].split()[0]}" in said.replace("options: --", "options: ")
    assert meant in said
    verb = command.split()[0]
    assert all(f"evenhand {other} " not in said for other in VERBS if other != verb)
    assert snapshot(Path()) == {}


def test_a_folder_may_be_called_like_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    """The method is the word that is no option's value, also where the options come first."""
    assert refusal("train --output-dir pgd edge --alpha nan", capsys).startswith("The 'alpha' parameter of EDGE")


# ---- output folders that are taken ----------------------------------------------------------------------------------


def test_an_output_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert refusal("train erm --output-dir out", capsys) == "The output folder 'out' is a file."


def test_an_output_folder_with_something_else_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    assert refusal("train erm --output-dir out", capsys) == (
        "The output folder 'out' is not empty and holds no run: choose another one."
    )


@pytest.mark.parametrize("content", ["{", "{}"])
def test_an_output_folder_with_a_damaged_record(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "record.json").write_text(content)
    message = refusal("train erm --output-dir out", capsys)
    assert message.startswith("The file 'out/record.json' is no record of a run (")
    assert message.endswith("): choose another folder.")


# ---- what is explained ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(flag, capsys) == f"evenhand {__version__}\n"


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert all(verb in out for verb in VERBS)


def test_help_of_a_method_shows_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "edge", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(f"--{name}" in out for name in ("alpha", "q", "projection", "signal", "task", "epochs", "output-dir"))


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("edge", ["(default: by the signal and projection, range: [0, inf))", "(default: 0.7, range: (0, 1])"]),
        ("jtt", ["(default: 1, range: [1, inf))", "(default: 50.0, range: [1, inf))"]),
        ("even", ["(default: balanced, range: [0, inf))", "(default: l2, range: (0, inf))", "(default: auto)"]),
    ],
)
def test_help_shows_the_range_of_each_option(method: str, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", method, "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert [ending for ending in shown if ending not in out] == []


def test_methods_are_listed_with_the_labels_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown("methods", capsys)
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert [name for name in rows if name] == list(METHODS)
    against = [name for name, method in METHODS.items() if method.label_access == "the shortcut's name"]
    assert against == ["balance", "group-dro", "logit-correction"]
    assert out.count("the shortcut's name") == len(against)
    assert out.count("none (groups are used for") == len(METHODS) - 1 - len(against)
    assert out.count("none (the paper chooses T and") == 1


def test_one_method_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown("methods edge", capsys)
    assert out.startswith("edge — EDGE: Enhanced Debiased Gradient Extraction for Robust Fine-tuning, CCL 2025")
    assert all(f"{name}:" in out for name in ("alpha", "q", "projection", "signal"))
    assert "Labels needed beyond the class: none" in out
    assert "mean[(1 − α·w)·l]" in out  # brackets are no markup


def test_tasks_are_listed_with_their_default_model(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line for line in shown("tasks", capsys).splitlines() if line.startswith("│ colored")]
    assert "colored-digits" in rows[0]
    assert "digits-cnn" in rows[0]
    assert "colored-mnist" in rows[1]
    assert "mlp" in rows[1]


def test_one_task_is_explained_with_its_training_settings(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown("tasks colored-mnist", capsys)
    assert "54,000 train, 6,000 validation (both biased), 10,000 test" in out
    lines = out.splitlines()
    assert "  mlp (default): epochs 8, lr 0.001, batch_size 256, optimizer adam, schedule constant" in lines
    assert (
        "  pgd-cnn: epochs 100, lr 0.02, batch_size 128, optimizer sgd, weight_decay 0.001, momentum 0.9, "
        "schedule step, step_epochs 40" in lines
    )


def test_the_module_is_the_same_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evenhand", "trian"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("evenhand: error: Unknown command 'trian'")
    assert done.stdout == ""
    assert os.listdir(tmp_path) == []  # noqa: PTH208


# ---- runs -----------------------------------------------------------------------------------------------------------


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def test_a_run_leaves_its_record_and_is_not_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "train erm --epochs 1 --quiet --output-dir out"
    first = shown(command, capsys)
    record = record_of(tmp_path / "out")
    assert record["status"] == "done"
    assert (record["training"]["epochs"], record["seed"], record["data_seed"]) == (1, 0, 0)
    assert record["data"]["test"]["n"] == 497
    assert "ERM on colored-digits (digits-cnn, seed 0, test set 'test')" in first
    assert "Result: out (record.json, model/, stages/)" in first
    cells = [c.strip() for line in first.splitlines() if line.startswith("│") for c in line.strip("│").split("│")]
    names = ("average", "worst_group", "aligned", "conflicting")
    assert cells == [f"{100 * record['metrics'][name]:.1f}" for name in names]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("record.json", "samples.json", "predictions.parquet", "model", "stages")
    }

    files = [p for p in sorted((tmp_path / "out").rglob("*")) if p.is_file()]
    times = [p.stat().st_mtime_ns for p in files]
    assert "out/stages/erm/model/model.safetensors" in {str(p.relative_to(tmp_path)) for p in files}
    assert shown(command, capsys) == first
    assert [p for p in sorted((tmp_path / "out").rglob("*")) if p.is_file()] == files
    assert [p.stat().st_mtime_ns for p in files] == times

    for other, told in (
        ("train gce --epochs 1", "method erm → gce, method.q none → 0.7"),
        ("train erm --epochs 2", "training.epochs 1 → 2"),
        ("train erm --epochs 1 --seed 1", "seed 0 → 1, data_seed 0 → 1"),
    ):
        assert refusal(f"{other} --quiet --output-dir out", capsys) == (
            f"The output folder 'out' holds a run of another configuration ({told}; stored → asked): choose another "
            "one."
        )


def test_options_reach_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(
        "train edge --alpha 2 --projection tensor --conflict 0.1 --model mlp --epochs 1 --lr 0.002 --batch-size 128 "
        "--seed 3 --data-seed 4 --device cpu --quiet",
        capsys,
    )
    folder = next((tmp_path / "runs" / "colored-digits").iterdir())
    assert folder.name.startswith("edge-")
    assert folder.name.endswith("-seed3-data4")
    assert f"Result: {folder.relative_to(tmp_path)} (" in out
    record = record_of(folder)
    assert record["method"]["settings"] == {
        "alpha": 2.0,
        "q": 0.7,
        "projection": "tensor",
        "signal": "self",
        "scope": "all",
        "route": "auto",
        "ema_decay": 0.7,
        "alpha_warmup": 0,
        "q_warmup": 0,
    }
    assert record["task"]["settings"] == {"conflict": 0.1, "test_conflict": 0.9}
    assert record["model"]["name"] == "mlp"
    assert (record["training"]["lr"], record["training"]["batch_size"]) == (0.002, 128)
    assert (record["seed"], record["data_seed"]) == (3, 4)
    assert record["command"] == (
        "evenhand train edge --alpha 2.0 --projection tensor --task colored-digits --conflict 0.1 --model mlp "
        "--epochs 1 --lr 0.002 --batch-size 128 --seed 3 --data-seed 4"
    )


def test_a_switch_of_a_method_reaches_the_run_and_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown("train pgd --augment --score-on augmented --norm 0.7 --epochs 1 --quiet --output-dir out", capsys)
    record = record_of(tmp_path / "out")
    assert record["method"]["settings"]["augment"] is True
    assert record["command"] == (
        "evenhand train pgd --augment --norm 0.7 --score-on augmented --task colored-digits --epochs 1 --seed 0"
    )
    assert shown(f"{record['command'].removeprefix('evenhand ')} --quiet --output-dir out", capsys)


def test_a_run_that_diverges_ends_with_1_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train erm --model mlp --lr 1e30 --epochs 1 --quiet --output-dir out") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evenhand: the run failed: The stage 'erm' diverged")
    assert captured.err.count("\n") == 1
    record = record_of(tmp_path / "out")
    assert record["status"] == "failed"
    assert record["metrics"] is None
    assert "diverged" in record["error"]


def test_progress_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train erm --model mlp --epochs 1 --output-dir out") == 0
    captured = capsys.readouterr()
    assert "ERM: stage 'erm' trained for 18 steps" in captured.err  # ⌈1100 / 64⌉
    assert "stage" not in captured.out.split("Result:")[0]
    assert (tmp_path / "out" / "record.json").exists()


def test_the_demo_trains_everything_and_ends_with_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(2)
    out = shown("demo --seeds 1 --epochs 1 --output-dir out --quiet", capsys)
    assert torch.get_num_threads() == 2
    assert "out/report.html" in out
    runs = {p.parent.name: record_of(p.parent) for p in (tmp_path / "out").glob("*/record.json")}
    assert set(runs) == {"erm-seed0", "edge-own-seed0", "edge-biased-seed0", "pgd-seed0", "even-seed0"}
    assert {run["status"] for run in runs.values()} == {"done"}
    assert {run["machine"]["threads"] for run in runs.values()} == {1}  # the same numbers on any number of cores
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Who took the shortcut?" in html
    assert all(name in html for name in ("ERM", "PGD", "EDGE (own signal)", "EDGE (biased signal)", "Even"))
    assert (tmp_path / "out" / "tables" / "methods.md").exists()
    # the same page again, of the runs that are there, without training
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.safetensors")}
    assert "out/report.html" in shown("report out", capsys)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.safetensors")} == times


def test_the_text_demo_trains_the_same_methods_on_notes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []
    reported: list[Path] = []

    def fit(method: Any, task: str, model: str | None, **options: Any) -> Any:
        asked.append((method.name, task, model, options["seed"], str(options["output_dir"])))
        return SimpleNamespace(metrics={"aligned": 1.0, "conflicting": 0.5}, record={"did_nothing": None})

    monkeypatch.setattr("evenhand.cli.verbs.fit", fit)
    monkeypatch.setattr("evenhand.cli.verbs._show_report", lambda folder, _title: reported.append(folder))
    assert shown("demo --text --model MiniLM --seeds 2 --quiet", capsys) == ""
    names = [("erm", "erm"), ("edge", "edge-own"), ("edge", "edge-biased"), ("pgd", "pgd"), ("even", "even")]
    assert asked == [
        (method, "marked-notes", "MiniLM", seed, f"runs/demo-text/{name}-seed{seed}")
        for seed in (0, 1)
        for method, name in names
    ]
    asked.clear()
    shown("demo --seeds 1 --quiet", capsys)
    assert asked[0] == ("erm", "colored-digits", None, 0, "runs/demo/erm-seed0")
    assert reported == [Path("runs/demo-text"), Path("runs/demo")]
