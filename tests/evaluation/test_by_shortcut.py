"""What a model relies on: it is asked once more about rows without the shortcut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

import evenhand as eh
from evenhand.data.rows import Rows as ReadRows
from evenhand.evaluation.by_shortcut import measured_by_shortcut
from evenhand.runs.record import Record
from evenhand.shortcuts import OwnShortcut, Samples
from evenhand.shortcuts.named import NamedShortcuts, Rows
from evenhand.tasks import Task
from made_shortcuts import CLASSES, PRODUCTS, tickets


def named(given: list[Any], counts_as_C: Any = None) -> tuple[NamedShortcuts, np.ndarray]:
    train, label_N = tickets()
    test, test_N = tickets(200, 0.5, seed=1)
    test = Samples(test.split, "test", called=test.called, reserved=test.reserved)
    own_N = test_N if counts_as_C is None else counts_as_C[test_N]
    return NamedShortcuts.fit(
        given, {"train": Rows(train, label_N), "test": Rows(test, own_N, counts_as_C)}, CLASSES
    ), own_N


def by_product(split: datasets.Dataset) -> np.ndarray:
    """A model that knows nothing but the product's name; without it, it says "praise"."""
    place = {name: row for row, name in enumerate(PRODUCTS)}
    words = [[word.strip(",") for word in text.split()] for text in split["text"][:]]
    return np.array([next((place[word] for word in text if word in place), 2) for text in words])


def test_a_model_that_reads_the_shortcut_alone_relies_on_it() -> None:
    shortcuts, _ = named(["token:nimbus|pebble|kettle"])
    samples = shortcuts.rows["test"].samples
    asked = []

    def predict(split: datasets.Dataset) -> np.ndarray:
        asked.append(len(split))
        return by_product(split)

    before_N = by_product(samples.split)
    told = measured_by_shortcut(shortcuts, "test", before_N, predict)["by_shortcut"]["token:nimbus|pebble|kettle"]
    has = [any(name in text for name in PRODUCTS) for text in samples.read_texts("text") if text]
    assert asked == [sum(has)]  # rows that stay as they are aren't asked about again
    assert told["reliance"] is not None
    assert (told["reliance"]["n"], told["reliance"]["changed"]) == (sum(has), int((before_N != 2)[has].sum()))
    assert told["taken"]["accuracy"] == 1.0
    assert told["taken"]["n"] == told["conflicting"]["n"] > 50
    assert told["gap"]["value"] == 1.0


def test_a_model_that_ignores_it_does_not() -> None:
    shortcuts, label_N = named(["token:nimbus|pebble|kettle"])
    told = measured_by_shortcut(shortcuts, "test", label_N, lambda split: np.zeros(len(split), dtype=int))
    kept = measured_by_shortcut(
        shortcuts, "test", np.zeros(200, dtype=int), lambda split: np.zeros(len(split), dtype=int)
    )
    assert told["by_shortcut"]["token:nimbus|pebble|kettle"]["gap"]["value"] == 0.0
    found = kept["by_shortcut"]["token:nimbus|pebble|kettle"]["reliance"]
    assert found is not None
    assert found["changed"] == 0


def test_several_are_taken_out_one_after_another_and_what_stays_says_why() -> None:
    own = OwnShortcut("first", lambda row: "nimbus" in (row["text"] or ""))
    shortcuts, label_N = named(["token:nimbus", "token:pebble|kettle", "column:product", own])
    texts: list[list[str]] = []

    def predict(split: datasets.Dataset) -> np.ndarray:
        texts.append(split["text"][:])
        return np.zeros(len(split), dtype=int)

    told = measured_by_shortcut(shortcuts, "test", label_N, predict)
    assert [any(name in text for text in texts[-1]) for name in PRODUCTS] == [False, False, False]
    assert len(texts[2]) == len(texts[0]) + len(texts[1])  # a row holds one product; each was asked about by itself
    assert told["by_shortcut"]["column:product"]["reliance"] is None
    assert told["by_shortcut"]["column:product"]["why_no_reliance"] == "no model receives this column"
    assert "own function" in told["by_shortcut"]["first"]["why_no_reliance"]
    assert told["all_shortcuts"]["reliance"] is not None
    none = measured_by_shortcut(named(["column:product", own])[0], "test", label_N, predict)["all_shortcuts"]
    assert none["reliance"] is None
    assert none["why_no_reliance"].startswith("no model receives this column; ")


def test_merged_classes_are_pointed_to_in_the_splits_own_numbers() -> None:
    merged_C = np.array([0, 1, 1])
    shortcuts, own_N = named(["token:nimbus|pebble|kettle"], merged_C)
    samples = shortcuts.rows["test"].samples
    predicted_N = merged_C[by_product(samples.split)]
    told = measured_by_shortcut(shortcuts, "test", predicted_N, lambda split: merged_C[by_product(split)])
    found = told["by_shortcut"]["token:nimbus|pebble|kettle"]
    points_N = shortcuts.points("test")[0]
    assert found["conflicting"]["n"] == int(((points_N >= 0) & (points_N != own_N)).sum()) > 0
    assert found["taken"]["accuracy"] == 1.0


def test_a_row_of_which_nothing_is_left_is_not_asked_about() -> None:
    train = Samples.of(texts=["nimbus broke", "it works"] * 40)
    test = Samples.of(texts=["nimbus", "nimbus works", "works"], name="test")
    rows = {"train": Rows(train, np.array([0, 1] * 40)), "test": Rows(test, np.array([0, 1, 1]))}
    shortcuts = NamedShortcuts.fit(["token:nimbus"], rows, ["refund", "praise"])

    def predict(split: datasets.Dataset) -> np.ndarray:
        assert split["text"][:] == ["works"]
        return np.array([0])

    found = measured_by_shortcut(shortcuts, "test", np.array([0, 0, 1]), predict)["by_shortcut"]["token:nimbus"]
    assert found["reliance"] is not None
    assert found["reliance"]["n"] == 1


def test_picture_files_lose_one_shortcut_after_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for row in range(40):
        label = row % 2
        color = np.array([200, 40, 40] if label else [20, 60, 120])
        pixel_HWC = (color * rng.uniform(0.6, 1, (8, 8, 1))).astype(np.uint8)
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray(pixel_HWC).save(paths[-1])
        labels.append(label)
    samples = Samples.of(images=paths)
    shortcuts = NamedShortcuts.fit(["colour", "contrast"], {"train": Rows(samples, np.array(labels))}, ["a", "b"])
    spread = {}

    def predict(split: datasets.Dataset) -> np.ndarray:
        pictures = ReadRows(split, ["image"]).__getitems__(range(40))["image"]
        pixels = np.stack([np.asarray(picture, dtype=float) for picture in pictures])
        grey = bool((pixels.max(axis=3) - pixels.min(axis=3)).max() < 1)
        spread[len(spread)] = (grey, np.ptp(pixels.mean(axis=3).std(axis=(1, 2))))
        return np.zeros(40, dtype=int)

    measured_by_shortcut(shortcuts, "train", np.zeros(40, dtype=int), predict)
    assert [grey for grey, _ in spread.values()] == [True, False, True]  # colour, contrast, both
    assert spread[2][1] < spread[0][1] / 3


def test_a_run_measures_by_its_shortcuts_and_its_record_is_read_back(tiny_task: Task, tmp_path: Path) -> None:
    bare = Task(
        name="bare",
        kind="image",
        train=tiny_task.train.remove_columns(["group", "alignment", "attribute"]),
        validation=tiny_task.validation.remove_columns(["group", "alignment", "attribute"]),
        tests={"test": tiny_task.tests["test"].remove_columns(["group", "alignment", "attribute"])},
        primary_test="test",
    )
    run = eh.fit(eh.ERM(), bare, "digits-cnn", epochs=1, output_dir=tmp_path / "run", shortcuts=["colour"])
    metrics = Record.load(tmp_path / "run" / "record.json").tests["test"]
    told = metrics.by_shortcut["colour"]
    assert told.conflicting.accuracy == pytest.approx(metrics.conflicting, abs=1e-6)
    assert told.aligned.accuracy == pytest.approx(metrics.aligned, abs=1e-6)
    assert told.reliance is not None
    assert told.reliance.n == 60
    assert metrics.quality is not None
    assert metrics.quality.n == 60
    assert set(run.metrics["quality_by_group"]) == set(run.metrics["by_group"])
    assert metrics.all_shortcuts is None
