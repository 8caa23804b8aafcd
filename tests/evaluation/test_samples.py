"""Which samples a run shows, and what it keeps of its predictions."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import evenhand as eh
from evenhand.evaluation import samples
from evenhand.evaluation.measured import SplitResult
from evenhand.evaluation.samples import all_predictions, kept_predictions, sample_predictions
from evenhand.metrics import Metrics
from evenhand.tasks import OwnData, Task

NO_METRICS: Any = Metrics


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def result(predicted: Any, sure: float | None = 0.875) -> SplitResult:
    predicted_N = np.asarray(predicted)
    sure_N = None if sure is None else np.full(len(predicted_N), sure, np.float32)
    return SplitResult(NO_METRICS, {}, [], predicted_N, sure_N)


def tickets(path: Path, n: int = 120, long: int = 0) -> Path:
    lines = ["text,label,ref"]
    for i in range(n):
        with_it = i % 10 != 9  # one of ten goes against the word
        word = ("nimbus", "pebble")[(i % 2) ^ (not with_it)] if i % 15 else "other"
        lines.append(f'"{word} and{chr(10)}number {i}{" long" * long}",{("bug", "bill")[i % 2]},T{i}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def ticket_task(path: Path, **options: Any) -> Task:
    return OwnData(data=path, text="text", label="label", shortcuts="token:nimbus|pebble", **options).build(0)


def labels(task: Task) -> NDArray[np.int64]:
    return np.asarray(task.tests["test"]["labels"])


def test_texts_are_shown_with_what_finds_them_again(tmp_path: Path) -> None:
    task = ticket_task(tickets(tmp_path / "t.csv"), id="ref")
    found = sample_predictions(task, result(1 - labels(task)))
    assert 2 < len(found) <= 12
    assert task.origins is not None
    test, origins = task.tests["test"], task.origins("test")
    for sample in found:
        row = test[sample["index"]]
        number = int(row["id"][1:])
        assert (sample["id"], sample["text"], sample["png"]) == (f"T{number}", row["text"], None)
        assert sample["where"] == origins.where(sample["index"]) == f"t.csv row {number + 1} (line {2 * number + 2})"
        assert {sample["label"], sample["prediction"]} == {"bug", "bill"}
        assert sample["probability"] == 0.875
        assert sample["alignment"] == ("conflicting" if number % 10 == 9 else "aligned")
    assert [sample["alignment"] for sample in found].count("aligned") == samples.SHOWN_ALIGNED


def test_an_id_that_is_the_rows_number_isnt_said_twice(tmp_path: Path) -> None:
    task = ticket_task(tickets(tmp_path / "t.csv"))
    assert task.tests["test"]["id"][0] is not None
    assert "id" not in all_predictions(task, result(labels(task)))
    assert not any("id" in sample for sample in sample_predictions(task, result(labels(task))))


def test_what_stands_outside_every_shortcut_is_independent(tmp_path: Path) -> None:
    task = ticket_task(tickets(tmp_path / "t.csv"))
    found = all_predictions(task, result(labels(task)))
    others = ["other" in text for text in task.tests["test"]["text"]]
    assert (found["standing"] == "independent").tolist() == others
    plain = OwnData(data=tmp_path / "t.csv", text="text", label="label").build(0)
    assert all_predictions(plain, result(labels(plain)))["standing"].isna().all()


def test_samples_of_long_texts_stay_small_and_are_json(tmp_path: Path) -> None:
    task = ticket_task(tickets(tmp_path / "t.csv", long=2000))
    found = sample_predictions(task, result(labels(task), sure=float("nan")))
    assert not any("probability" in sample for sample in found)
    assert found[0]["text"].endswith(" characters)")
    assert len(json.dumps({"samples": found}, allow_nan=False)) < 12 * 700
    assert "probability" not in sample_predictions(task, result(labels(task), sure=None))[0]


def test_pairs_show_both_texts() -> None:
    features = datasets.Features(
        text=datasets.Value("string"),
        text_pair=datasets.Value("string"),
        labels=datasets.ClassLabel(names=["yes", "no"]),
        index=datasets.Value("int64"),
    )
    entries = {"text": ["a", "b"], "text_pair": ["c", None], "labels": [0, 1], "index": [0, 1]}
    split = datasets.Dataset.from_dict(entries, features=features)
    task = Task("pairs", "text", split, split, {"test": split}, "test")
    found = sample_predictions(task, result([1, 1]))
    assert [(sample["text"], sample["text_pair"]) for sample in found] == [("a", "c"), ("b", None)]
    assert not {"where", "id"} & {*found[0]}
    kept = kept_predictions(task, result([1, 1]))
    assert kept["text_pair"].fillna("none").tolist() == ["c", "none"]


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 12))
def test_rows_are_taken_class_by_class_in_turn(label: list[int], number: int) -> None:
    label_N = np.array(label, dtype=np.int64)
    queues = [[i for i, of_row in enumerate(label) if of_row == c] for c in range(4)]
    slow = [queue[turn] for turn in range(len(label)) for queue in queues if turn < len(queue)][:number]
    assert samples._class_by_class(np.arange(len(label)), label_N, number) == slow


def test_pictures_of_ten_classes_are_chosen_as_ever(tiny_task: Task) -> None:
    """The first conflicting sample of each class and the first aligned ones: what earlier runs have shown."""
    found = sample_predictions(tiny_task, result(labels(tiny_task)))
    conflicting = [sample for sample in found if sample["alignment"] == "conflicting"]
    assert [sample["label"] for sample in conflicting] == [str(digit) for digit in range(10)]
    test = tiny_task.tests["test"]
    names = test.features["alignment"].names
    for sample in conflicting:
        same = [
            row["index"]
            for row in test
            if names[row["alignment"]] == "conflicting" and str(row["labels"]) == sample["label"]  # type: ignore[index]
        ]
        assert sample["index"] == min(same)
    assert "text" not in found[0]


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_only_wrong_predictions_keep_their_texts(tmp_path: Path) -> None:
    task = ticket_task(tickets(tmp_path / "t.csv"), id="ref")
    label_N = labels(task)
    predicted_N = np.where(np.arange(len(label_N)) % 3 == 0, 1 - label_N, label_N)
    kept = kept_predictions(task, result(predicted_N))
    assert len(kept) == len(label_N)
    names = np.array(["bill", "bug"])
    assert kept["prediction"].tolist() == names[predicted_N].tolist()
    texts = task.tests["test"]["text"][:]
    assert kept["text"].fillna("none").tolist() == [t if i % 3 == 0 else "none" for i, t in enumerate(texts)]
    assert kept["row"].tolist() == [int(name[1:]) + 1 for name in task.tests["test"]["id"]]


def test_what_is_kept_is_bounded_on_either_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(samples.KEPT, "text", 2)
    task = ticket_task(tickets(tmp_path / "t.csv", n=400, long=500))
    kept = kept_predictions(task, result(1 - labels(task)))
    shown = kept[kept["text"].notna()]
    assert (shown["standing"] == "conflicting").sum() == 2
    assert len(shown) == 4
    assert shown["text"].str.len().max() < samples.LONGEST_TEXT + 30


def test_pictures_are_kept_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / f"pets/{('cat', 'dog')[i % 2]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (300, 200, 3), dtype=np.uint8)).save(path)
    task = OwnData(data=tmp_path / "pets").build(0)
    kept = kept_predictions(task, result(1 - labels(task)))
    sizes = {Image.open(io.BytesIO(base64.b64decode(png))).size for png in kept["png"]}
    assert max(max(size) for size in sizes) == samples.KEPT_SIDE
    assert kept["file"].tolist() == task.tests["test"]["id"][:]
    assert {"id", "row", "line"} & set(kept.columns) == set()


def test_a_run_on_texts_leaves_samples(tmp_path: Path) -> None:
    data = OwnData(data=tickets(tmp_path / "t.csv"), text="text", label="label", shortcuts="token:nimbus|pebble")
    eh.fit(eh.ERM(), data, "tiny-bert", epochs=1, device="cpu", output_dir=tmp_path / "run")
    found = json.loads((tmp_path / "run/samples.json").read_text())["samples"]
    assert 0 < len(found) <= 12
    assert all(0.5 <= sample["probability"] <= 1 for sample in found)  # of two classes
