"""A fitted shortcut on any rows, and as plain data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evenhand.shortcuts import STANDINGS, FittedShortcut, OwnShortcut, Samples, fit_shortcut
from evenhand.validation import UserError
from made_shortcuts import CLASSES, PRODUCTS, colored, tickets


def test_rows_stand_as_a_loop_says() -> None:
    fitted = fit_shortcut("column:product", *tickets(), CLASSES)
    samples, label_N = tickets(seed=1)
    applied = fitted.apply(samples)
    products = samples.read_column("product").to_pylist()
    expected = ["aligned" if PRODUCTS.index(p) == y else "conflicting" for p, y in zip(products, label_N, strict=True)]
    assert [STANDINGS[place] for place in applied.standing(label_N)] == expected
    assert applied.notes == ()


def test_absent_tokens_point_nowhere_however_rare_they_are_in_a_class() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 2, 1000)
    has_N = (label_N == 0) & (rng.random(1000) < 0.9)
    samples = Samples.of(texts=["x nimbus" if has else "x" for has in has_N])
    fitted = fit_shortcut("token:nimbus", samples, label_N, ("a", "b"))
    applied = fitted.apply(samples)
    assert fitted.points_to == (0,)
    assert set(applied.standing(label_N)[~has_N].tolist()) == {2}
    assert fitted.counts[1] == (int((~has_N & (label_N == 0)).sum()), int((label_N == 1).sum()))


def test_a_value_that_no_training_row_has_points_nowhere_and_is_counted() -> None:
    fitted = fit_shortcut("column:product", *tickets(), CLASSES)
    samples = Samples.of(texts=["a", "b", "c"], columns={"product": ["nimbus", "lumen", None]}, name="test")
    applied = fitted.apply(samples)
    assert applied.value_N.tolist() == [fitted.names.index("nimbus"), -1, -1]
    assert applied.standing(np.array([0, 1, 2])).tolist() == [0, 2, 2]
    (note,) = applied.notes
    assert note.startswith(
        "2 rows of the split 'test' (of 3) with a value of 'column:product' that no training row has"
    )
    assert fitted.shares[-1] == pytest.approx(fitted.prior)


def test_a_split_without_any_known_value_is_an_error() -> None:
    fitted = fit_shortcut("column:product", *tickets(), CLASSES)
    with pytest.raises(
        UserError, match="No row of the split 'test' has a value of 'column:product' that a training row"
    ):
        fitted.apply(Samples.of(texts=["a"], columns={"product": ["lumen"]}, name="test"))
    with pytest.raises(UserError, match="The split 'test' has no column 'product'"):
        fitted.apply(Samples.of(texts=["a"], name="test"))
    absent = fit_shortcut("token:nimbus", *tickets(), CLASSES).apply(Samples.of(texts=["a"], name="test"))
    assert (absent.value_N.tolist(), absent.notes) == ([-1], ())


@pytest.mark.parametrize(
    "spelling",
    [
        "token:nimbus|kettle",
        "column:product",
        "column:price",
        "column:day",
        "column:day:weekday",
        "column:noise",
        "length",
    ],
)
def test_plain_data_hold_all_of_it(spelling: str) -> None:
    fitted = fit_shortcut(spelling, *tickets(), CLASSES)
    told = json.loads(json.dumps(fitted.as_dict(), allow_nan=False))
    assert FittedShortcut.from_dict(told) == fitted
    assert told["spelling"] == spelling
    samples = tickets(seed=2)[0]
    assert (FittedShortcut.from_dict(told).apply(samples).value_N == fitted.apply(samples).value_N).all()


@pytest.mark.parametrize("spelling", ["colour", "colour:hue", "brightness"])
def test_plain_data_of_pictures(spelling: str) -> None:
    samples, label_N = colored(kind="brightness" if spelling == "brightness" else "colour")
    fitted = fit_shortcut(spelling, samples, label_N, CLASSES)
    told = json.loads(json.dumps(fitted.as_dict(), allow_nan=False))
    assert FittedShortcut.from_dict(told) == fitted
    assert (FittedShortcut.from_dict(told).apply(samples).value_N == fitted.apply(samples).value_N).all()


def test_a_rule_from_python_must_be_given_again() -> None:
    samples, label_N = tickets()
    own = OwnShortcut("mine", lambda row: row["product"])
    fitted = fit_shortcut(own, samples, label_N, CLASSES)
    told = json.loads(json.dumps(fitted.as_dict()))
    assert (told["name"], told["spelling"]) == ("mine", None)
    with pytest.raises(UserError, match="'mine' comes from Python: give its function or arrays once more"):
        FittedShortcut.from_dict(told).apply(samples)
    again = FittedShortcut.from_dict(told, own)
    assert (again.apply(samples).value_N == fitted.apply(samples).value_N).all()


def test_labels_of_other_rows_are_refused() -> None:
    samples, label_N = tickets()
    with pytest.raises(UserError, match="Got 599 labels for 600 rows"):
        fit_shortcut("column:product", samples, label_N, CLASSES).apply(samples).standing(label_N[1:])
