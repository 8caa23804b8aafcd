from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.shortcuts import STANDINGS, FittedShortcut, OwnShortcut, Samples, Shortcut, fit_shortcut
from evenhand.shortcuts.named import ALL, NamedShortcuts, Rows
from evenhand.shortcuts.several import given_rules, identities, parse_all, shortcuts_text
from evenhand.validation import UserError
from made_shortcuts import CLASSES, tickets


def rows(seed: int, n: int = 200, **changed: Any) -> Rows:
    samples, label_N = tickets(n, seed=seed)
    return Rows(Samples(samples.split, **({"name": f"split {seed}", "called": {}, "reserved": {}} | changed)), label_N)


@pytest.fixture(scope="module")
def three() -> dict[str, Rows]:
    return {"train": rows(0, 600, name="train"), "validation": rows(1, name="validation"), "test": rows(2, name="test")}


def slow_standing(points: list[int], label: int) -> str:
    against = [point for point in points if point not in (-1, label)]
    return "conflicting" if against else "aligned" if label in points else "independent"


@pytest.mark.parametrize("given", [["token:nimbus"], ["token:nimbus|pebble", "column:product"], ["column:price"]])
def test_every_split_stands_as_each_row_by_itself(given: list[str], three: dict[str, Rows]) -> None:
    named = NamedShortcuts.fit(given, three, CLASSES)
    fitted = [fit_shortcut(one, three["train"].samples, three["train"].label_N, CLASSES) for one in given]
    assert [one.as_dict() for one in named.fitted] == [one.as_dict() for one in fitted]
    for name, of in three.items():
        points = [one.apply(of.samples).points_N.tolist() for one in fitted]
        expected = [
            slow_standing(list(own), label) for own, label in zip(zip(*points, strict=True), of.label_N, strict=True)
        ]
        assert [STANDINGS[side] for side in named.standing(name)] == expected
        told = named.sizes(name)[ALL if len(given) > 1 else given[0]]
        assert told == {side: expected.count(side) for side in STANDINGS}


def test_of_merged_classes_the_class_pointed_to_counts_as_the_splits(three: dict[str, Rows]) -> None:
    label_N = (three["test"].label_N > 0).astype(np.int64)  # "refund" against all else
    merged = Rows(three["test"].samples, label_N, np.array([0, 1, 1]))
    named = NamedShortcuts.fit(["column:product"], {**three, "test": merged}, CLASSES)
    (whole_N,) = NamedShortcuts.fit(["column:product"], three, CLASSES).points("test")
    assert named.points("test")[0].tolist() == [(-1, 0, 1, 1)[point + 1] for point in whole_N]
    assert named.standings("test")[0].tolist() == [
        int(p != y) for p, y in zip(named.points("test")[0], label_N, strict=True)
    ]


def test_a_split_that_lacks_the_column_is_refused_unless_it_is_optional(three: dict[str, Rows]) -> None:
    plain = three["test"].samples.with_split(three["test"].samples.split.remove_columns("product"))
    lacking = {**three, "test": Rows(plain, three["test"].label_N)}
    with pytest.raises(UserError, match=r"The split 'test' has no column 'product'"):
        NamedShortcuts.fit(["column:product"], lacking, CLASSES)
    named = NamedShortcuts.fit(["column:product"], lacking, CLASSES, optional=["test"])
    assert set(named.standing("test")) == {STANDINGS.index("independent")}
    assert [note for note in named.notes if "'test' has no column 'product'" in note and "independent" in note]


def test_a_function_that_fails_is_refused_on_optional_splits_too(three: dict[str, Rows]) -> None:
    broken = OwnShortcut("broken", lambda row: 1 / (row["product"] != "nimbus") and row["product"])
    with pytest.raises(UserError, match="ZeroDivisionError"):
        NamedShortcuts.fit([broken], three, CLASSES, optional=["test"])


def test_what_a_function_said_once_is_kept_as_arrays(three: dict[str, Rows]) -> None:
    called: list[str] = []

    def product(row: dict[str, Any]) -> str:
        called.append(row["product"])
        return row["product"]

    named = NamedShortcuts.fit([OwnShortcut("mine", product)], three, CLASSES)
    assert len(called) == sum(len(of.label_N) for of in three.values())
    (kept,) = named.rules
    arrays = {name: of.samples.read_column("product").to_pylist() for name, of in three.items()}
    assert isinstance(kept, OwnShortcut)
    assert kept.values == arrays
    assert kept.sha256 == OwnShortcut("mine", arrays).sha256 != OwnShortcut("mine", {**arrays, "test": ["x"]}).sha256
    again = NamedShortcuts.fit([OwnShortcut("mine", arrays)], three, CLASSES)
    assert again.sizes("test") == named.sizes("test")


def test_a_split_without_the_token_is_told(three: dict[str, Rows]) -> None:
    chosen = [row for row, text in enumerate(three["test"].samples.read_texts("text")) if "nimbus" not in str(text)]
    bare = Rows(
        three["test"].samples.with_split(three["test"].samples.split.select(chosen)), three["test"].label_N[chosen]
    )
    named = NamedShortcuts.fit(["token:nimbus"], {**three, "test": bare}, CLASSES)
    assert "No row of the split 'test' has a value of 'token:nimbus' that points to a class" in named.notes[0]


# ---- what names shortcuts -------------------------------------------------------------------------------------------


def test_whatever_names_shortcuts_is_taken(three: dict[str, Rows]) -> None:
    named = NamedShortcuts.fit(["token:nimbus", "column:product"], three, CLASSES)
    rule = Shortcut.parse("token:nimbus")
    assert given_rules(None) == given_rules([]) == ()
    assert given_rules("token:nimbus") == ("token:nimbus",)
    assert given_rules(rule) == given_rules(named.fitted[0]) == (rule,)
    assert given_rules(one for one in ["a", "b"]) == ("a", "b")
    assert given_rules(named) == named.rules
    assert isinstance(named.fitted[0], FittedShortcut)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "a list of spellings such as 'token:nimbus'. Got 5"),
        ({"token:a": 1}, "Got {'token:a': 1}"),
        (b"token:a", "Got b'token:a'"),
        ([5], "Got 5"),
        ([["token:a", "token:b"]], "Got ['token:a', 'token:b']"),
        (["token:a,token:"], "several shortcuts are a list of spellings"),
        ("token:a token:b:c:d", "several shortcuts are a list of spellings"),
        (["token:a|b", "token:b|a"], "'token:a|b' and 'token:b|a' are one shortcut"),
        (["token:a", "token:c|A"], "The token 'a' is in 'token:a' and in 'token:c|a', which contradict each other"),
        (["colour", "colour:hue"], "The hue is a part of the colour"),
        (["length", "length"], "The shortcut 'length' is given 2 times"),
    ],
)
def test_what_names_none_or_the_same_twice_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_all(given)
    assert message in str(caught.value)


def test_tokens_of_other_columns_and_views_of_one_column_stand_side_by_side() -> None:
    given = ["token:premise:a", "token:hypothesis:a", "column:day:month", "column:day:weekday", "brightness"]
    assert [str(rule) for rule in parse_all(given)] == given


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True), st.randoms())
@settings(max_examples=30, deadline=None)
def test_neither_shortcuts_nor_their_tokens_have_an_order(words: list[str], random: Any) -> None:
    shuffled = random.sample(words, len(words))
    first = [f"token:{'|'.join(words)}", "column:x", {"name": "mine", "sha256": "0" * 64}]
    second = [first[2], f"token:{'|'.join(shuffled)}".upper().replace("TOKEN", "token"), first[1]]
    assert identities(first) == identities(second)
    assert shortcuts_text(first) == shortcuts_text(second)
    assert identities(first) != identities(["token:z", *first[1:]])


def test_a_damaged_record_still_says_its_shortcuts() -> None:
    assert shortcuts_text(["nonsense:", {}, 3]) == "nonsense: + 3 + None (None)"
    assert shortcuts_text([]) == "none"
