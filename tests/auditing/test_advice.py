"""The command that an audit advises: copied as printed, from any working folder, it trains what was audited."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizerFast

import evenhand as eh
from audit_data import CLASSES, sentences, text_task
from evenhand.auditing.advice import command
from evenhand.auditing.sources import subject_of_data
from evenhand.cli.parser import main
from evenhand.runs.configuration import Configuration
from evenhand.runs.prepared import Asked
from evenhand.training.settings import Training


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose name must be quoted, with data and a checkpoint."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "the text": sentences(rng, 60),
            'second "text"': sentences(rng, 60),
            "the label": rng.integers(0, 2, 60),
            "-l": rng.integers(0, 2, 60),
            "kind of": rng.choice(["a", "b"], 60),
            "place": rng.choice(["x", "y"], 60),
            "name": [f"n{i}" for i in range(60)],
            "part": ["train"] * 40 + ["validation"] * 10 + ["test"] * 10,
        }
    )
    rows.to_csv("all rows.csv", index=False)
    Path("splits").mkdir()
    for name, part in rows.groupby("part"):
        part.drop(columns="part").to_csv(f"splits/{name}.csv", index=False)
    for label in ("cat", "dog"):
        Path("pictures", label).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"pictures/{label}/{i}.png")
    words = sorted({word for text in rows["the text"] for word in text.split()})
    checkpoint = Path("a model")
    checkpoint.mkdir()
    (checkpoint / "words.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(vocab=str(checkpoint / "words.txt")).save_pretrained(checkpoint)
    config = BertConfig(
        vocab_size=len(words) + 5,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(checkpoint)
    return folder


FILE = "--data 'all rows.csv' --text 'the text' --label 'the label' --split part"
FOLDER = "--data splits --text 'the text' --label 'the label'"
FILES = (
    "--data splits/train.csv --validation-data splits/validation.csv --test-data splits/test.csv --text 'the text' "
    "--label 'the label'"
)
MODEL = "--model 'a model' --epochs 1"


@pytest.mark.parametrize(
    "options",
    [
        f"{FILE} {MODEL}",
        f"--data 'all rows.csv' --text 'the text' 'second \"text\"' --label=-l "
        f"--group 'kind of' place --id name {MODEL}",
        f"{FOLDER} {MODEL} --lora --peft-r 4 --peft-targets query,key --seed 3 --data-seed 1 --device cpu",
        f"{FOLDER} {MODEL} --head-only --lr 0.01 --batch-size 7",
        f"{FILES} {MODEL} --fresh --drop-incomplete --bf16 --seed 2",
        "--data pictures --image-side 16 --model mlp --epochs 1",
        "--task colored-digits --conflict 0.3 --model mlp --epochs 1 --data-seed 4",
        "--task marked-notes --model 'a model' --epochs 1 --head-only",
    ],
)
def test_the_advised_command_works_as_printed_from_another_folder(
    options: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *shlex.split(options), "--output-dir", str(tmp_path / "audit"), "--quiet"]) == 0
    printed = json.loads((tmp_path / "audit" / "audit.json").read_text())["advice"]
    assert printed["command"] in capsys.readouterr().out
    # what was asked for, trained where the audit was started
    asked = ["train", "erm", *shlex.split(options), "--output-dir", str(tmp_path / "asked"), "--quiet"]
    assert main(asked) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for line in filter(None, (printed["command"], printed["compare"])):
        words = shlex.split(line)
        assert words[:2] == ["evenhand", "train"]
        assert main([*words[1:], "--quiet"]) == 0
    wanted = json.loads((tmp_path / "asked" / "record.json").read_text())
    records = [json.loads(path.read_text()) for path in Path("runs").rglob("record.json")]
    assert len(records) == 1 + (printed["compare"] is not None)
    for record in records:
        for record_of in (record, wanted):  # a folder's name is another from elsewhere
            record_of["model"]["name"] = Path(record_of["model"]["name"]).name
        for name in ("task", "model", "training", "seed", "data_seed", "data"):
            assert record[name] == wanted[name], name
    assert ("--device cpu" in printed["command"]) == ("--device cpu" in options)


def test_the_command_after_an_audit_of_a_run_names_its_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"text": "the text", "label": "the label"}
    eh.fit(eh.ERM(), eh.OwnData(data="splits", **own), "a model", epochs=1, fresh=True, output_dir="run", seed=2)
    found = eh.audit("run", places={"data": "splits"})
    words = shlex.split(found.advice.command)
    assert words[words.index("--data") + 1] == str(here / "splits")
    assert words[words.index("--model") + 1] == str(here / "a model")
    assert "--fresh" in words
    assert words[words.index("--seed") + 1] == "2"


def python(asked: Configuration, **options: Any) -> Callable[[str], Any]:
    """What evaluates a line of Python with `fit` caught."""
    del asked

    class Caught:
        def __getattr__(self, name: str) -> Any:
            return getattr(eh, name)

        def fit(self, *arguments: Any, **given: Any) -> tuple[Any, ...]:
            return arguments, given

    return lambda line: eval(line, {"eh": Caught(), "task": options["task"]})


def test_data_of_ones_own_are_trained_in_python_with_every_option(here: Path, tmp_path: Path) -> None:
    task = text_task(["a"] * 30, np.arange(30) % 3, CLASSES)
    peft = eh.Adapters(kind="dora", r=2, targets="query")
    asked = Asked(model="a model", data_seed=5, epochs=2, lr=0.5, batch_size=4, bf16=True, adapters=peft)
    configuration = subject_of_data(task, tmp_path, asked, (7,)).configuration
    arguments, given = python(configuration, task=task)(command(eh.Even(q=0.5), configuration, "cpu"))
    assert arguments == (eh.Even(q=0.5), task)
    assert given == {
        "model": str(here / "a model"),
        "seed": 7,
        "data_seed": 5,
        "epochs": 2,
        "lr": 0.5,
        "batch_size": 4,
        "bf16": True,
        "peft": peft,
        "device": "cpu",
    }
    fresh = subject_of_data(task, tmp_path, Asked(model="a model", fresh=True), None).configuration
    assert python(fresh, task=task)(command(eh.ERM(), fresh))[1]["fresh"] is True


def test_settings_without_an_option_are_said() -> None:
    training = Training(epochs=3, lr=0.1, batch_size=8, max_length=40)
    asked = Configuration(
        method=eh.GCE(), task=eh.MarkedNotes(), model="tiny-bert", training=training, seed=0, data_seed=0
    )
    line = command(eh.ERM(), asked)
    assert shlex.split(line, comments=True) == shlex.split(line.split("  #")[0])
    assert "max_length=40" in line.split("  # a study file alone can set ")[1]
    assert asked.command() is None  # a record has no line that would give something else
