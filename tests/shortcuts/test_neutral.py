"""Inputs without a shortcut, and the given ones as they were."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from evenhand.data.columns import class_column, dataset_of, text_column
from evenhand.data.rows import Rows
from evenhand.shortcuts import FittedShortcut, OwnShortcut, Samples, fit_shortcut, neutralised
from evenhand.shortcuts.neutral import WHY_NOT, PictureChange
from evenhand.shortcuts.tokens import tokens
from evenhand.validation import UserError
from made_shortcuts import CLASSES, PRODUCTS, colored, tickets


def pixels(split: datasets.Dataset) -> np.ndarray:
    return np.asarray(Rows(split, ["pixel_values"]).views["pixel_values"])


def test_tokens_are_gone_and_the_given_texts_stay() -> None:
    samples, label_N = tickets()
    before = samples.read_texts("text")
    fitted = fit_shortcut("token:nimbus|pebble|kettle", samples, label_N, CLASSES)
    neutral = neutralised(fitted, samples)
    assert neutral.split is not None
    assert neutral.split.features == samples.split.features
    after = neutral.split["text"]
    assert [tokens(text) for text in after] == [[t for t in tokens(x) if t not in PRODUCTS] for x in before]
    assert samples.read_texts("text") == before
    assert neutral.changed_N.tolist() == [bool(set(tokens(text)) & set(PRODUCTS)) for text in before]
    assert (fitted.apply(samples.with_split(neutral.split)).value_N == -1).all()


def test_a_named_text_alone_is_changed() -> None:
    samples = Samples.of(texts={"premise": ["a nimbus", "b"] * 4, "hypothesis": ["nimbus a", "nimbus b"] * 4})
    neutral = neutralised(fit_shortcut("token:premise:nimbus", samples, np.arange(8) % 2, ("x", "y")), samples)
    assert neutral.split is not None
    assert neutral.split[:2] == {"text": ["a", "b"], "text_pair": ["nimbus a", "nimbus b"]}
    assert neutral.changed_N.tolist() == [True, False] * 4


def test_a_missing_text_stays_missing_and_long_strings_stay_long() -> None:
    samples = Samples.of(texts=["a nimbus", None, "b", "nimbus"])
    held = samples.split.cast_column("text", datasets.Value("large_string"))
    neutral = neutralised(fit_shortcut("token:nimbus", samples, np.arange(4) % 2, ("x", "y")), Samples(held))
    assert neutral.split is not None
    assert neutral.split.features == held.features
    assert list(neutral.split["text"]) == ["a", None, "b", ""]
    assert neutral.changed_N.tolist() == [True, False, False, True]


def test_rows_that_were_selected_stay_in_order() -> None:
    samples, label_N = tickets()
    fitted = fit_shortcut("token:nimbus", samples, label_N, CLASSES)
    chosen = samples.split.select([5, 3, 8])
    neutral = neutralised(fitted, samples.with_split(chosen))
    assert neutral.split is not None
    assert list(neutral.split["row"]) == ["ticket 5", "ticket 3", "ticket 8"]


@pytest.mark.parametrize("spelling", ["colour", "colour:hue"])
def test_pictures_become_grey_and_as_bright_as_before(spelling: str) -> None:
    samples, label_N = colored()
    before = pixels(samples.split).copy()
    neutral = neutralised(fit_shortcut(spelling, samples, label_N, CLASSES), samples)
    assert neutral.split is not None
    after = pixels(neutral.split)
    assert (after[:, :1] == after).all()
    found = samples.with_split(neutral.split).looks.measures["brightness"]
    assert found == pytest.approx(samples.looks.measures["brightness"], abs=0.5)
    assert (pixels(samples.split) == before).all()
    assert neutral.changed_N.all()


@pytest.mark.parametrize("measure", ["brightness", "contrast"])
def test_pictures_are_brought_to_the_training_rows_median(measure: str) -> None:
    samples, label_N = colored(kind="brightness")
    fitted = fit_shortcut(measure, samples, label_N, CLASSES)
    neutral = neutralised(fitted, samples)
    assert neutral.split is not None
    found = samples.with_split(neutral.split).looks.measures[measure]
    assert found == pytest.approx(np.full(len(samples), fitted.usual), abs=1.0)
    shades = np.unique(fitted.apply(samples.with_split(neutral.split)).points_N)
    assert len(np.unique(fitted.apply(samples).points_N)) > len(shades) or measure == "contrast"


@pytest.mark.parametrize("level", [0, 3, 128, 250, 255])
@pytest.mark.parametrize("usual", [0.0, 20.0, 200.0, 255.0])
def test_any_brightness_is_reached_from_any(level: int, usual: float) -> None:
    stroke = np.zeros((1, 1, 8, 8), np.uint8)
    stroke[0, 0, 2] = level
    flat = np.full((1, 3, 4, 4), level, np.uint8)
    for pixel_BCHW in (stroke, flat):
        changed = PictureChange("brightness", usual).of_pixels(pixel_BCHW)
        assert changed.mean() == pytest.approx(usual, abs=1.0)
        assert all(len(np.unique(changed[pixel_BCHW == one])) == 1 for one in np.unique(pixel_BCHW))


def test_a_picture_of_one_level_has_no_contrast_to_raise() -> None:
    flat = np.full((1, 3, 4, 4), 77, np.uint8)
    assert (PictureChange("contrast", 50.0).of_pixels(flat) == flat).all()
    assert PictureChange("contrast", 0.0).of_pixels(np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)).std() == 0


def test_files_are_changed_when_they_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_N = np.arange(40) % 2
    paths = []
    for row, label in enumerate(label_N):
        paths.append(tmp_path / f"{row}.png")
        color = np.array([[200, 20, 20], [20, 200, 20]])[label]
        Image.fromarray((color * rng.uniform(0.5, 1, (9, 7, 1))).astype(np.uint8)).save(paths[-1])
    samples = Samples.of(images=paths)
    neutral = neutralised(fit_shortcut("colour", samples, label_N, ("x", "y")), samples)
    assert neutral.split is not None
    (picture,) = Rows(neutral.split, ["image"]).__getitems__([3])["image"]
    grey = np.asarray(picture)
    assert grey.shape == (9, 7, 3)
    assert (grey[..., :1] == grey).all()
    (given,) = Rows(samples.split, ["image"]).__getitems__([3])["image"]
    assert (np.asarray(given)[..., 0] < np.asarray(given)[..., 1]).all()


@pytest.mark.parametrize(("column", "usual"), [("price", 3), ("site", "b"), ("when", "2024-01-02"), ("kind", "big")])
def test_a_column_among_the_rows_is_at_its_most_frequent_entry(column: str, usual: object) -> None:
    split = dataset_of(
        {
            "text": text_column(list("abcdef")),
            "kind": class_column(np.array([1, 1, 0, 1, 0, 1]), ["small", "big"]),
        }
    )
    split = split.add_column("price", [3, 3, 1, 3, 2, 1]).add_column("site", list("bbcbca"))  # type: ignore[arg-type]
    split = split.add_column("when", ["2024-01-02"] * 4 + ["2024-01-03"] * 2)  # type: ignore[arg-type]
    samples = Samples(split)
    fitted = fit_shortcut(f"column:{column}:entries", samples, np.array([0, 0, 1, 0, 1, 1]), ("x", "y"))
    neutral = neutralised(fitted, samples)
    assert neutral.split is not None
    assert neutral.split.features == split.features
    assert set(samples.with_split(neutral.split).read_column(column).to_pylist()) == {usual}
    assert neutral.changed_N.tolist() == [entry != usual for entry in samples.read_column(column).to_pylist()]


def test_what_cannot_be_neutralised_says_why(tmp_path: Path) -> None:
    samples, label_N = tickets()
    for rule in ("length", OwnShortcut("mine", lambda row: row["product"])):
        neutral = neutralised(fit_shortcut(rule, samples, label_N, CLASSES), samples)
        assert neutral.split is None
        assert neutral.why_not
        assert not neutral.changed_N.any()
    pictures, made_N = colored()
    sharp = neutralised(fit_shortcut("sharpness", pictures, made_N, CLASSES), pictures)
    assert (sharp.split, sharp.why_not) == (None, WHY_NOT["sharpness"])


def test_a_column_beside_the_rows_reaches_no_model() -> None:
    samples, label_N = tickets()
    fitted: FittedShortcut = fit_shortcut("column:product", samples, label_N, CLASSES)
    table = {"product": samples.read_column("product")}

    class Beside:
        names = ("product",)
        column = table.__getitem__

    beside = Samples(samples.split.select_columns(["text"]), beside=Beside())
    assert neutralised(fitted, beside).why_not == "no model receives this column"
    assert (fitted.apply(beside).value_N == fitted.apply(samples).value_N).all()


def test_pictures_are_needed() -> None:
    samples, label_N = colored()
    with pytest.raises(UserError, match="holds no pictures"):
        neutralised(fit_shortcut("colour", samples, label_N, CLASSES), tickets()[0])
