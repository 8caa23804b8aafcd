"""The grammar of shortcuts: there and back, and one sentence for each way to get it wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.shortcuts import Shortcut
from evenhand.shortcuts.columns import VIEWS
from evenhand.shortcuts.spelling import FILE_PARTS
from evenhand.shortcuts.tokens import tokens
from evenhand.validation import UserError

NAMES = st.text(st.one_of(st.sampled_from("\\:| a"), st.characters()), min_size=1, max_size=12)
TOKENS = NAMES.map(tokens).filter(bool).map(lambda found: found[0])
WORDS = st.lists(TOKENS, min_size=1, max_size=4, unique=True).map(tuple)
PLAIN: Any = st.sampled_from(["colour", "brightness", "contrast", "size", "aspect", "sharpness", "length"])
SHORTCUTS = st.one_of(
    st.builds(Shortcut, st.just("token"), st.one_of(st.none(), NAMES), WORDS),
    st.builds(Shortcut, st.just("column"), NAMES, st.one_of(st.just(()), st.sampled_from(VIEWS).map(lambda v: (v,)))),
    st.builds(Shortcut, st.just("length"), NAMES),
    st.builds(Shortcut, st.just("file"), st.none(), st.sampled_from(FILE_PARTS).map(lambda part: (part,))),
    st.builds(Shortcut, PLAIN),
)


@given(SHORTCUTS)
def test_a_spelling_is_read_back(shortcut: Shortcut) -> None:
    assert Shortcut.parse(str(shortcut)) == shortcut
    assert shortcut.spelling == str(shortcut)


@given(st.text(st.one_of(st.sampled_from("\\:|tokenclum "), st.characters()), max_size=30))
def test_any_text_is_a_shortcut_or_one_sentence(text: str) -> None:
    try:
        shortcut = Shortcut.parse(text)
    except UserError:
        return  # any other error fails the test
    assert Shortcut.parse(str(shortcut)) == shortcut


@pytest.mark.parametrize(
    ("text", "kind", "field", "values"),
    [
        ("token:nimbus", "token", None, ("nimbus",)),
        ("token:Nimbus", "token", None, ("nimbus",)),
        ("token:premise:!!", "token", "premise", ("!!",)),
        ("token:nimbus|pebble|kettle", "token", None, ("nimbus", "pebble", "kettle")),
        (r"token:\:)", "token", None, (":)",)),
        (r"token:\|\||\\", "token", None, ("||", "\\")),
        ("column:product", "column", "product", ()),
        (r"column:a\:b\|c", "column", "a:b|c", ()),
        ("column:day:weekday", "column", "day", ("weekday",)),
        ("colour", "colour", None, ()),
        ("colour:hue", "colour", None, ("hue",)),
        ("length", "length", None, ()),
        ("length:premise", "length", "premise", ()),
        ("file:ending", "file", None, ("ending",)),
    ],
)
def test_what_is_spelled(text: str, kind: Any, field: str | None, values: tuple[str, ...]) -> None:
    assert Shortcut.parse(text) == Shortcut(kind, field, values)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "such as 'token:nimbus'. Got an empty text"),
        ("tokn:nimbus", "Unknown kind of shortcut 'tokn' (did you mean 'token'?)"),
        ("nimbus", "known are token, column, colour"),
        ("token", "A token is a word or a run of signs"),
        ("token:", "Got none"),
        ("token: ", "Got none"),
        ("token:a|", "Got none"),
        ("token:nimbus pro", "'nimbus pro' is 2: name one of them, or 'token:nimbus|pro' for any."),
        ("token:wow!!", "'wow!!' is 2"),
        ("token:a|A", "The token 'a' is named twice"),
        ("token:x:y:z", r"a : or | that belongs to a name or token is written \: or \|."),
        ("token:a|b:c", r"A column's name stands alone; write \| for a | in the name"),
        ("token::x", "needs a column's name"),
        ("column", "needs a column's name, as in 'column:name'"),
        ("column:", "needs a column's name"),
        ("column:a|b", r"write \| for a | in the name"),
        ("column:a:weekdy", "Got 'weekdy' (did you mean 'weekday'?)"),
        ("column:a:month|tenths", "only a token takes several"),
        ("colour:red", "A colour is spelled 'colour' or 'colour:hue'. Got 'red'"),
        ("brightness:3", "The shortcut 'brightness' takes no value. Got '3'."),
        ("file", "A file is spelled 'file:ending', 'file:folder', 'file:camera'. Got ''"),
        ("file:endings", "(did you mean 'ending'?)"),
        ("token:a\\b", r"A \ in a shortcut stands before a :, a | or another \."),
        ("token:a\\", r"A \ in a shortcut"),
    ],
)
def test_what_is_spelled_wrongly(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Shortcut.parse(text)
    assert sentence in str(caught.value)


def test_pictures_belong_to_no_column() -> None:
    with pytest.raises(UserError, match="belongs to no column"):
        Shortcut("size", "text")
