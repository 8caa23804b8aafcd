"""From rows to a fitted shortcut, and one sentence for each that is none."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from evenhand.shortcuts import FittedShortcut, OwnShortcut, Samples, fit_shortcut
from evenhand.shortcuts.tokens import tokens
from evenhand.validation import UserError
from made_shortcuts import CLASSES, PRODUCTS, colored, tickets


def pointed(fitted: FittedShortcut) -> dict[str, str]:
    """Value → the class that it points to."""
    pairs = zip(fitted.names, fitted.points_to, strict=True)
    return {name: fitted.classes[place] for name, place in pairs if place >= 0}


@pytest.mark.parametrize(
    "spelling",
    ["token:nimbus|pebble|kettle", "token:text:nimbus|pebble|kettle", "column:product", "column:product:entries"],
)
def test_each_product_points_to_its_class(spelling: str) -> None:
    samples, label_N = tickets()
    assert pointed(fit_shortcut(spelling, samples, label_N, CLASSES)) == dict(zip(PRODUCTS, CLASSES, strict=True))


def test_counts_are_those_of_a_loop() -> None:
    samples, label_N = tickets()
    fitted = fit_shortcut("token:nimbus|pebble|kettle", samples, label_N, CLASSES)
    counted: Counter[tuple[int, int]] = Counter()
    for text, label in zip(samples.read_texts("text"), label_N, strict=True):
        met = [PRODUCTS.index(token) for token in tokens(text) if token in PRODUCTS]
        counted[(met[0] if met else 3, int(label))] += 1
    assert {(v, c): n for v, row in enumerate(fitted.counts) for c, n in enumerate(row) if n} == dict(counted)
    total_C = fitted.table.sum(axis=0)
    assert fitted.prior == pytest.approx((total_C + 1) / (len(label_N) + 3))
    assert fitted.shares[0] == pytest.approx((fitted.table[0] + 1) / (fitted.table[0].sum() + 3))


def test_numbers_and_dates_are_cut_into_tenths_unless_a_view_is_named() -> None:
    samples, label_N = tickets()
    price = fit_shortcut("column:price", samples, label_N, CLASSES)
    assert len(price.names) == 10
    assert set(pointed(price).values()) == set(CLASSES)
    day = fit_shortcut("column:day", samples, label_N, CLASSES)
    assert all("2024-0" in name for name in day.names)
    assert pointed(fit_shortcut("column:day:month", samples, label_N, CLASSES)) == dict(
        zip(("January", "February", "March"), CLASSES, strict=True)
    )
    assert "Monday" in fit_shortcut("column:day:weekday", samples, label_N, CLASSES).names


def test_a_missing_entry_is_a_value() -> None:
    samples, label_N = tickets()
    assert set(fit_shortcut("column:noise", samples, label_N, CLASSES).names) == {"a", "b", "(missing)"}


@pytest.mark.parametrize("spelling", ["colour", "colour:hue"])
def test_colours_point_to_classes(spelling: str) -> None:
    samples, label_N = colored()
    fitted = fit_shortcut(spelling, samples, label_N, CLASSES)
    assert sorted(pointed(fitted).values()) == sorted(CLASSES)
    applied = fitted.apply(colored(seed=1)[0])
    assert (applied.points_N == colored(seed=1)[1]).mean() == pytest.approx(0.9, abs=0.05)


def test_brightness_points_to_classes() -> None:
    samples, label_N = colored(kind="brightness")
    fitted = fit_shortcut("brightness", samples, label_N, CLASSES)
    assert set(pointed(fitted).values()) == set(CLASSES)
    assert fitted.usual == pytest.approx(np.median(samples.looks.measures["brightness"]))


def test_nothing_points_anywhere_in_what_is_no_shortcut() -> None:
    samples, label_N = tickets()
    fitted = fit_shortcut("column:noise", samples, label_N, CLASSES)
    assert not fitted.points_anywhere
    assert set(fitted.apply(samples).standing(label_N).tolist()) == {2}


def test_a_perfect_leak_is_a_shortcut_that_nobody_goes_against() -> None:
    samples, label_N = tickets(conflict=0.0)
    fitted = fit_shortcut("column:product", samples, label_N, CLASSES)
    assert fitted.is_perfect
    assert not fit_shortcut("column:product", *tickets(), CLASSES).is_perfect
    assert not fit_shortcut("column:noise", samples, label_N, CLASSES).is_perfect


@pytest.mark.parametrize(
    ("spelling", "sentence"),
    [
        ("token:nimbs", "No training row has the token 'nimbs' of 'token:nimbs' (did you mean 'nimbus'?)."),
        ("token:nimbus|zzz", "No training row has the token 'zzz' of 'token:nimbus|zzz'"),
        ("token:premise:nimbus", "no text column 'premise'; its text columns are text"),
        ("length:txt", "no text column 'txt' (did you mean 'text'?)"),
        ("column:produkt", "no column 'produkt' (did you mean 'product'?); it has product, price"),
        ("column:same", "All training rows have the same value of 'column:same' ('x')"),
        ("column:row", "Each training row has its own value of 'column:row', as an id has"),
        ("column:ticket_id", "Each training row has its own value of 'column:ticket_id', as an id has"),
        ("column:product:tenths", "holds words, which have no 'tenths'; it may be seen as entries"),
        ("column:price:month", "holds numbers, which have no 'month'; it may be seen as entries or tenths"),
        ("colour", "The split 'train' holds no pictures"),
        ("file:ending", "The split 'train' holds no picture files"),
        ("column:label", "'column:label' is the label"),
        ("column:label number", "'column:label number' is the label"),
    ],
)
def test_what_is_no_shortcut_of_the_rows(spelling: str, sentence: str) -> None:
    samples, label_N = tickets()
    columns = {name: samples.read_column(name) for name in samples.columns}
    own = {
        "label": [CLASSES[label].title() for label in label_N],
        "label number": label_N,
        "ticket_id": np.arange(600) * 1000,
    }
    samples = Samples.of(texts=samples.read_texts("text"), columns={**columns, **own})
    with pytest.raises(UserError) as caught:
        fit_shortcut(spelling, samples, label_N, CLASSES)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("column", ["labels", "index", "group", "alignment"])
def test_what_tasks_know_of_rows_is_no_shortcut(column: str) -> None:
    samples, label_N = tickets()
    held = samples.split.add_column(column, [int(row) % 7 for row in range(len(samples))])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"The column '{column}' is the .*, which can't be a shortcut"):
        fit_shortcut(f"column:{column}", Samples(held), label_N, CLASSES)


def test_a_token_on_every_row_tells_nothing() -> None:
    samples = Samples.of(texts=["a b", "a c"] * 10)
    with pytest.raises(UserError, match="The token 'a' is on every training row"):
        fit_shortcut("token:a", samples, np.arange(20) % 2, ("x", "y"))
    with pytest.raises(UserError, match="The token 'a' is on every training row"):
        fit_shortcut("token:a|b", samples, np.arange(20) % 2, ("x", "y"))


def test_a_token_that_never_comes_first_is_there_still() -> None:
    samples = Samples.of(texts=["a b", "c"] * 10)
    assert fit_shortcut("token:a|b", samples, np.arange(20) % 2, ("x", "y")).counts[1] == (0, 0)


def test_grey_pictures_have_no_colour() -> None:
    samples, label_N = colored(kind="brightness")
    with pytest.raises(UserError, match="have no colour that differs"):
        fit_shortcut("colour", samples, label_N, CLASSES)


@pytest.mark.parametrize(
    ("label_N", "sentence"),
    [
        (np.zeros(3, int), "needs a label for each training row: 4. Got 3"),
        (np.array([0, 1, 2, 0]), "A label is a number from 0 to 1. Got 2 in training row 2"),
        (np.array([0, -100, 1, 0]), "Got -100 in training row 1"),
        (np.array([0.0, 0.5, 1, 0]), "Got 0.0 in training row 0"),
    ],
)
def test_labels_that_are_none(label_N: np.ndarray, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        fit_shortcut("token:a", Samples.of(texts=["a", "b", "a", "c"]), label_N, ("x", "y"))
    assert sentence in str(caught.value)


def test_a_hundred_thousand_rows_and_three_shortcuts_take_seconds() -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    label_N = rng.integers(0, 3, n)
    words = rng.choice(["it", "broke", "works", "again", "today", "nimbus"], (500, 12))
    texts = [" ".join(row) for row in words] * 200
    samples = Samples.of(texts=texts, columns={"price": rng.random(n), "site": rng.integers(0, 40, n)})
    start = time.process_time()
    for spelling in ("token:nimbus|today", "column:price", "column:site"):
        fit_shortcut(spelling, samples, label_N, CLASSES).apply(samples)
    assert time.process_time() - start < 15


def test_a_shortcut_from_python_is_fitted_as_a_column_is() -> None:
    samples, label_N = tickets()
    own = OwnShortcut("product name", lambda row: row["product"])
    fitted = fit_shortcut(own, samples, label_N, CLASSES)
    assert pointed(fitted) == dict(zip(PRODUCTS, CLASSES, strict=True))
    with pytest.raises(UserError, match="'own' is the label"):
        fit_shortcut(OwnShortcut("own", {"train": label_N}), samples, label_N, CLASSES)
    with pytest.raises(UserError, match="All training rows have the same value of 'own'"):
        fit_shortcut(OwnShortcut("own", lambda row: True), samples, label_N, CLASSES)
