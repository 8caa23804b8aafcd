"""Numbers and names that can't be: one sentence at once, and nothing is written."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.cli.terminal import RunDisplay
from evenhand.tasks import Task
from evenhand.training.settings import Training

LARGEST = 2**32 - 1


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train erm --epochs 2.5", "The option --epochs must be an integer. Got '2.5'."),
        ("train erm --epochs=2.0", "The option --epochs must be an integer. Got '2.0'."),
        ("train erm --seed [/x]", "The option --seed must be an integer. Got '[/x]'."),
        ("train erm --lr x", "The option --lr must be a number. Got 'x'."),
        (
            "train erm --device gpu",
            "The option --device must be one of auto, cpu, cuda. Got 'gpu' (did you mean 'cpu'?).",
        ),
        (
            "train erm --model --foo",
            "The option --model needs a value: one that begins with '-' is written --model=--foo.",
        ),
        ("demo --seeds", "The option --seeds needs a value."),
        (
            f"train erm --seed {LARGEST + 1}",
            f"The 'seed' parameter of fit must be an integer from 0 to {LARGEST}. Got {LARGEST + 1}.",
        ),
        (
            f"train erm --data-seed {LARGEST + 1}",
            f"The 'data_seed' parameter of fit must be an integer from 0 to {LARGEST}. Got {LARGEST + 1}.",
        ),
        ("demo --seeds 1000000", "The 'seeds' parameter of demo must be an integer from 1 to 10000. Got 1000000."),
        ("audit --seeds 1000000", "The 'seeds' parameter of audit must be an integer from 1 to 10000. Got 1000000."),
        (
            f"train erm --epochs {10**30}",
            f"The 'epochs' parameter of the training must be an integer from 1 to 1000000. Got {10**30}.",
        ),
        (f"train erm --output-dir {'a' * 256}", f"The name '{'a' * 40}…' is too long: a file's may have 255 bytes."),
        (f"report {'a' * 256}", f"The path '{'a' * 60}…' is longer than a file's may be."),
        (f"study {'a' * 256}.yaml", f"The name '{'a' * 40}…' is too long: a file's may have 255 bytes."),
        ("evaluate no/such", "There is no folder 'no/such': name a run's, or say by a task or data what a model of "
         "the hub is measured on."),
        ("evaluate ./no", "There is no folder './no'."),
        ("evaluate ./no --task colored-digits", "There is no folder './no'."),
    ],
)  # fmt: skip
def test_a_command_is_refused_in_a_sentence(command: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(command.split())
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    assert (code, out, err) == (2, "", f"evenhand: error: {sentence}\n")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("seeds: 1000000", "from 1 to 10000"),
        (f"seeds: [{2**32}]", f"from 0 to {LARGEST}"),
        (f"seeds: 1\ndata_seed: {2**32}", f"from 0 to {LARGEST}"),
        (f"seeds: 1\nstudy: {'a' * 256}", "No folder can have the study's name"),
        ("seeds: 1\ntraining: {epochs: 2.5}", "must be an integer"),
        ("seeds: 1\ntraining: {lr: .nan}", "'lr'"),
        ("seeds: 1\ntraining: {epochs: true}", "must be"),
        ("seeds: 10000\ngrid: {training.epochs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}", "has 110,000 runs"),
        (f"seeds: 1\ngrid: {{{', '.join(f'task.x{i}: [1, 2]' for i in range(60))}}}", "more than 100,000 combinations"),
    ],
)
def test_a_study_file_is_refused_in_a_sentence(
    line: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(f"task: colored-digits\nmethod: erm\n{line}\n")
    assert main(["study", "s.yaml"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err
    assert [path.name for path in Path().iterdir()] == ["s.yaml"]


@pytest.mark.parametrize("adapters", ["peft: lora", "peft: {kind: dora}"])
def test_adapters_of_a_study_need_no_model_key(adapters: str, tmp_path: Path) -> None:
    """The task's own model has no shipped settings for adapters, or is no checkpoint: a sentence either way."""
    (tmp_path / "s.yaml").write_text(f"task: colored-digits\nmethod: erm\nseeds: 1\n{adapters}\n")
    assert main(["study", "s.yaml"]) == 2


@pytest.mark.parametrize("name", ["a/b", "..", "x" * 256, "a\0b", ""])
def test_a_tasks_name_that_names_no_folder_needs_output_dir(name: str, tiny_task: Task) -> None:
    task = Task(name, "image", tiny_task.train, tiny_task.validation, tiny_task.tests, tiny_task.primary_test)
    with pytest.raises(eh.UserError, match="No folder can have the task's name"):
        eh.fit(eh.ERM(), task, "mlp", epochs=1)
    assert list(Path().iterdir()) == []


def test_numbers_of_numpy_are_numbers_and_booleans_are_none() -> None:
    assert Training(epochs=np.int64(2), lr=np.float32(0.5), batch_size=np.int32(4)).epochs == 2  # type: ignore[arg-type]
    for given in ({"seed": True}, {"seed": 1.0}, {"seed": 2**32}, {"data_seed": 2**32}, {"epochs": True}):
        with pytest.raises(eh.UserError, match="must be an integer"):
            eh.fit(eh.ERM(), "colored-digits", **given)  # type: ignore[arg-type]
    with pytest.raises(eh.UserError, match="NUL"):
        eh.fit(eh.ERM(), "colored-digits", output_dir="a\0b")


@pytest.mark.parametrize("command", ["methods", "train erm --help", "--version"])
def test_a_closed_pipe_ends_the_program_quietly(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(command.split()) == 141
    assert capsys.readouterr().err == ""


def test_a_run_goes_on_where_nobody_reads_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with RunDisplay() as display:
            display.say("one")
            assert display.console.quiet
            display.say("two")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["train", "erm", "--model", "mlp", "--epochs", "1", "--output-dir", "r"]) == 0
    assert json.loads(Path("r/record.json").read_text())["status"] == "done"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_in_another_encoding_replaces_what_it_lacks(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {}
    for name in ("stdout", "stderr"):
        streams[name] = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(streams[name], encoding=encoding))
    assert main(["methods", "edge"]) == 0
    assert b"edge ? " in streams["stdout"].getvalue()
    assert main(["report", "/no/\N{EN DASH}"]) == 2
    sys.stderr.flush()
    assert streams["stderr"].getvalue() == (
        b"evenhand: error: There is no folder /no/?; name one that holds finished runs.\n"
    )
