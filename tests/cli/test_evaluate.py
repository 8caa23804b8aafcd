from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.data.columns import column_values, membership
from evenhand.runs.evaluate import evaluate
from evenhand.tasks import Task
from evenhand.tasks.text.notes import LABELS
from made_data import review_table


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of tiny-bert on few sentences."""
    folder = tmp_path_factory.mktemp("runs") / "notes"
    eh.fit(eh.ERM(), eh.MarkedNotes(sentences=96), seed=2, epochs=1, output_dir=folder)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, tiny_task: Task) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    eh.fit(eh.ERM(), tiny_task, "digits-cnn", epochs=1, output_dir=folder)
    return folder


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def shown(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(shlex.split(command)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refusal(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(shlex.split(command)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("evenhand: error: ").rstrip("\n")


# ---- what is measured -----------------------------------------------------------------------------------------------


def test_a_run_on_its_own_task_has_the_metrics_of_its_record(notes: Path) -> None:
    found = evaluate(notes)
    assert list(found) == ["validation", "test", "clean"]
    for name, split in found.items():
        measured: Any = dict(split.result.metrics)
        recorded = dict(record(notes)["tests"][name])
        # probabilities differ in the last digit with the batch that a text is in
        assert measured.pop("quality") == pytest.approx(recorded.pop("quality"), abs=1e-4)
        by_group, known = measured.pop("quality_by_group"), recorded.pop("quality_by_group")
        assert by_group.keys() == known.keys()
        assert all(by_group[group] == pytest.approx(known[group], abs=1e-4) for group in known)
        assert measured == recorded
    test = found["test"]
    share = test.shares["conflicting"]
    assert share.accuracy == record(notes)["metrics"]["conflicting"]
    assert share.interval is not None
    assert share.interval[0] < share.accuracy < share.interval[1]  # type: ignore[operator]
    assert sum(group.n for group in test.groups.values()) == 800
    assert found["clean"].groups == {}


def test_a_run_on_images(digits: Path, tiny_task: Task) -> None:
    found = evaluate(digits, tiny_task, on="test")
    assert {name: split.result.metrics for name, split in found.items()} == {"test": record(digits)["metrics"]}


def test_predictions_are_those_of_plain_transformers(notes: Path) -> None:
    table = evaluate(notes, on="test")["test"].predictions
    task = eh.MarkedNotes(sentences=96).build(2)
    test = task.tests["test"]
    model = AutoModelForSequenceClassification.from_pretrained(notes / "model").eval()
    inputs = AutoTokenizer.from_pretrained(notes / "model")(test["text"][:], padding=True, return_tensors="pt")
    with torch.no_grad():
        probability_NC = model(**inputs).logits.softmax(1).numpy()
    np.testing.assert_allclose(table[[f"p({name})" for name in LABELS]].to_numpy(), probability_NC, atol=1e-5)
    assert table["prediction"].tolist() == [LABELS[i] for i in probability_NC.argmax(1)]
    assert table["label"].tolist() == [LABELS[i] for i in column_values(test, "labels")]
    groups = membership(test, "group")
    assert all(groups[name][row] for row, name in enumerate(table["group"]))
    assert set(table["alignment"]) == {"aligned", "conflicting"}


def own_data(names: list[str], texts: list[str], labels: list[int], **columns: Any) -> datasets.Dataset:
    features: dict[str, Any] = {"text": datasets.Value("string"), "labels": datasets.ClassLabel(names=names)}
    content: dict[str, Any] = {"text": texts, "labels": labels}
    for name, (values, feature) in columns.items():
        features[name], content[name] = feature, values
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def test_new_data_are_matched_by_the_names_of_their_classes(notes: Path) -> None:
    texts = ["The bed was lovely.", "The soup was awful.", "We loved the room."]
    groups = ([[0], [0, 1], []], datasets.List(datasets.ClassLabel(names=["short", "food"])))
    ids = (["a", "b", "c"], datasets.Value("string"))
    new = own_data(["meal faulted", "room praised"], texts, [1, 0, 1], group=groups, id=ids)
    found = evaluate(notes / "model", new)["data"]
    assert found.predictions["label"].tolist() == ["room praised", "meal faulted", "room praised"]
    assert found.predictions["id"].tolist() == ["a", "b", "c"]
    assert found.predictions["index"].tolist() == [0, 1, 2]
    assert found.predictions["group"].fillna("").tolist() == ["short", "short; food", ""]
    assert {name: share.n for name, share in found.groups.items()} == {"short": 2, "food": 1}
    correct = found.predictions["label"] == found.predictions["prediction"]
    assert found.shares["average"].accuracy == correct.mean()
    assert found.groups["short"].accuracy == correct[:2].mean()


def test_a_model_without_class_names_is_matched_by_number(notes: Path, tmp_path: Path) -> None:
    shutil.copytree(notes / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["id2label"] = {str(i): f"LABEL_{i}" for i in range(4)}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    new = own_data(["a", "b", "c", "d"], ["The bed was lovely."], [2])
    assert evaluate(tmp_path / "model", new)["data"].predictions["label"].tolist() == ["LABEL_2"]


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_models_and_data_that_do_not_fit_are_refused(notes: Path, digits: Path, tiny_task: Task) -> None:
    wrong = own_data(["yes", "no"], ["a"], [0])
    nameless = own_data(list(LABELS), ["a"], [0], group=(["x"], datasets.Value("string")))
    for model, data, message in (
        (notes, wrong, "but those of the split 'data' are yes, no."),
        (notes, nameless, "The column 'group' of the split 'data' must be a datasets.ClassLabel."),
        (notes, tiny_task, r"The model takes texts, but the split 'validation' has no such column"),
        (digits, wrong, r"The model takes images, but the split 'data' has no such column"),
        (digits, "colored-mnits", "Unknown task 'colored-mnits'"),
        (
            digits,
            None,
            f"The run in '{digits}' is of the task 'noise', whose data its record doesn't hold: give the data",
        ),
        (notes / "model", None, "is no run with a task of its own"),
    ):
        with pytest.raises(eh.UserError, match=message):
            evaluate(model, data)


def test_images_of_another_size_are_refused(digits: Path) -> None:
    features = datasets.Features(
        {
            "pixel_values": datasets.Array3D(shape=(3, 9, 8), dtype="uint8"),
            "labels": datasets.ClassLabel(names=[str(i) for i in range(10)]),
        }
    )
    image = np.zeros((1, 3, 9, 8), dtype=np.uint8)
    data = datasets.Dataset.from_dict({"pixel_values": image, "labels": [0]}, features=features)
    with pytest.raises(eh.UserError, match="The model takes images of 3×8×8, but those of the split 'data' are 3×9×8"):
        evaluate(digits, data)


def test_runs_and_folders_without_a_usable_model_are_refused(notes: Path, tmp_path: Path) -> None:
    for change, message in (("status", "its status is 'failed'"), ("model", "has no folder 'model'")):
        folder = tmp_path / change
        shutil.copytree(notes, folder)
        if change == "model":
            shutil.rmtree(folder / "model")
        else:
            (folder / "record.json").write_text(json.dumps(record(notes) | {"status": "failed"}))
        with pytest.raises(eh.UserError, match=message):
            evaluate(folder)
    bare = tmp_path / "bare"
    shutil.copytree(notes / "model", bare)
    for path in bare.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(eh.UserError, match="No tokenizer of the model"):
        evaluate(bare, "marked-notes")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    with pytest.raises(eh.UserError, match="holds adapters only"):
        evaluate(tmp_path / "adapter", "marked-notes")


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_predictions_are_written(kind: str, notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"out.{kind}"
    out = shown(f"evaluate {notes} --on test clean --predictions {path}", capsys)
    assert f"Predictions: {path}" in out
    table = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    assert table["split"].value_counts().to_dict() == {"test": 800, "clean": 800}
    expected = evaluate(notes, on="clean")["clean"].predictions["prediction"]
    assert table["prediction"][800:].tolist() == expected.tolist()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_table_and_json_say_the_same(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = json.loads(shown(f"evaluate {notes} --on test --json", capsys))["splits"]["test"]
    assert split["metrics"]["conflicting"] == record(notes)["metrics"]["conflicting"]
    out = shown(f"evaluate {notes} --on test", capsys)
    for name, share in split["groups"].items():
        (line,) = [line for line in out.splitlines() if f"group {name} " in line]
        low, high = share["interval"]
        words = [str(share["n"]), f"{100 * share['accuracy']:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]
        assert [word.strip() for word in line.strip("│ ").split("│")][1:] == words


def test_settings_change_those_of_the_runs_task(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(shown(f"evaluate {notes} --on test --test-conflict 1 --data-seed 9 --json", capsys))
    assert content["splits"]["test"]["shares"]["aligned"] == {"accuracy": None, "n": 0, "interval": None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--predictions x.txt", "The table of predictions must be a .csv or .parquet file. Got 'x.txt'."),
        ("--predictions no/such/x.csv", "The table of predictions can't be written to 'no/such/x.csv'"),
        ("--on tset", "Unknown split 'tset' (did you mean 'test'?)"),
        ("--batch-size 0", "The 'batch_size' parameter of evaluate must be an integer of at least 1. Got 0."),
        ("--recipe lff", "The task 'marked-notes' has no option '--recipe'."),
    ],
)
def test_mistakes(words: str, message: str, notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refusal(f"evaluate {notes} {words}", capsys)


def test_the_card_of_a_small_transformer_says_how_transformers_loads_it(notes: Path) -> None:
    card = (notes / "model" / "README.md").read_text(encoding="utf-8")
    assert "library_name: transformers" in card
    assert "from transformers import AutoModelForSequenceClassification, AutoTokenizer" in card


def test_own_data_of_a_run_are_its_splits_and_new_data_are_one(tmp_path: Path) -> None:

    def write(name: str, n: int) -> Path:
        rows = [f"{['dull', 'fine'][i % 2]} day {i},{['bad', 'good'][i % 2]}" for i in range(n)]
        (tmp_path / name).write_text("\n".join(["words,mark", *rows]) + "\n", encoding="utf-8")
        return tmp_path / name

    mine, new = write("my.csv", 60), write("new.csv", 24)
    data = eh.OwnData(data=mine, text="words", label="mark")
    eh.fit(eh.ERM(), data, "tiny-bert", epochs=1, output_dir=tmp_path / "run", device="cpu")
    own = eh.evaluate(tmp_path / "run", eh.OwnData(data=mine))
    assert {name: len(found.predictions) for name, found in own.items()} == {"validation": 6, "test": 12}
    whole = eh.evaluate(tmp_path / "run", eh.OwnData(data=new))
    assert {name: len(found.predictions) for name, found in whole.items()} == {"data": 24}
    with pytest.raises(eh.UserError, match=r"^The data were 'my\.csv': say where they are with --data\.$"):
        eh.evaluate(tmp_path / "run")


# ---- shortcuts that have a name -------------------------------------------------------------------------------------


def test_a_runs_shortcuts_are_measured_on_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("seen", 0), ("new", 1)):
        review_table(tmp_path / f"{name}.csv", "product", n=200, seed=seed, share=0.9)
    own = eh.OwnData(data=tmp_path / "seen.csv", text="review", label="label")
    given = ["token:nimbus", "column:channel"]
    eh.fit(eh.ERM(), own, "tiny-bert", epochs=1, output_dir=tmp_path / "run", shortcuts=given)
    for name, split in evaluate(tmp_path / "run", own).items():
        assert split.result.metrics["by_shortcut"] == record(tmp_path / "run")["tests"][name]["by_shortcut"]
        assert split.result.metrics["conflicting"] == record(tmp_path / "run")["tests"][name]["conflicting"]
    table = tmp_path / "p.csv"
    told = shown(f"evaluate {tmp_path / 'run'} --data {tmp_path / 'new.csv'} --json --predictions {table}", capsys)
    found = json.loads(told)["splits"]["data"]["metrics"]["by_shortcut"]
    read = pd.read_csv(table, keep_default_na=False)
    against = read[read["standing to token:nimbus"] == "conflicting"]
    assert found["token:nimbus"]["conflicting"]["n"] == len(against) > 0
    assert set(against["value of token:nimbus"]) == {"nimbus"}
    assert found["token:nimbus"]["conflicting"]["accuracy"] == pytest.approx(
        (against["label"] == against["prediction"]).mean(), abs=1e-6
    )
    assert set(read["value of column:channel"]) == {"shop", "web"}
    refused = refusal(f"evaluate {tmp_path / 'run'} --data {tmp_path / 'new.csv'} --shortcut length", capsys)
    assert "is learnt from training rows, but the data to measure have none" in refused
