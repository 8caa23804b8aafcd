"""Tokens: which there are, which comes first, and texts without some of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.shortcuts.tokens import first_token, tokens, without_tokens

TEXTS = st.text(st.sampled_from("abAB é'’!?.,  \n_7İ#"), max_size=40)


def slow_tokens(text: str) -> list[str]:
    """Letter by letter: words, with an apostrophe within, or runs of other signs."""
    found: list[str] = []
    current = ""

    def is_word(letter: str) -> bool:
        return re.fullmatch(r"\w", letter) is not None

    text = text.replace("İ", "i").lower()
    for place, letter in enumerate(text):
        after = text[place + 1] if place + 1 < len(text) else " "
        joins = letter in "'’" and current != "" and is_word(current[-1]) and is_word(after)
        same = current != "" and (joins or is_word(letter) == (is_word(current[0])))
        if letter.isspace() or not same:
            found += [current] if current else []
            current = "" if letter.isspace() else letter
        else:
            current += letter
    return found + ([current] if current else [])


@given(TEXTS)
def test_tokens_are_those_of_the_letters(text: str) -> None:
    assert tokens(text) == slow_tokens(text)


def test_words_and_runs_of_signs() -> None:
    assert tokens("Stop !! don't") == ["stop", "!!", "don't"]
    assert (tokens(None), tokens("")) == ([], [])


@pytest.mark.parametrize("text", ["a" * 79 + "'b", "a" * 200, "'" * 100])
def test_a_long_token_cut_is_a_token_still(text: str) -> None:
    (token,) = tokens(text)
    assert tokens(token) == [token]
    assert len(token) <= 80


@given(st.lists(st.one_of(st.none(), TEXTS), min_size=1, max_size=2), TEXTS)
def test_the_first_of_some_tokens(texts: list[str | None], told: str) -> None:
    words = list(dict.fromkeys([*tokens(told), "a", "!!"]))
    met = [token for text in texts for token in tokens(text) if token in words]
    assert first_token(texts, words) == (words.index(met[0]) if met else -1)


@given(TEXTS, st.lists(st.sampled_from(["a", "b", "ab", "!", "!!", ".", "a'b", "é", "?", "_7", "i", "#"]), min_size=1))
def test_dropped_tokens_leave_all_others_as_they_were(text: str, words: list[str]) -> None:
    kept = without_tokens(text, words)
    assert tokens(kept) == [token for token in tokens(text) if token not in words]
    if not set(tokens(text)) & set(words):
        assert kept == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("My Nimbus broke", "My broke"),
        ("The NIMBUS, which broke.", "The, which broke."),
        ("nimbus broke", "broke"),
        ("it was the nimbus", "it was the"),
        ("nimbus Nimbus", ""),
        ("nimbused nimbus's (nimbus) x", "nimbused nimbus's () x"),
        ("İ nimbus İ", "İ İ"),
        ("two  blanks nimbus\nnext", "two  blanks next"),
    ],
)
def test_blanks_are_tidied(text: str, kept: str) -> None:
    if "(" in text:  # two runs of signs would become one
        kept = kept.replace("()", "( )")
    assert without_tokens(text, ["nimbus"]) == kept


def test_runs_of_signs_are_dropped_whole() -> None:
    assert without_tokens("stop !! now !!!", ["!!"]) == "stop now !!!"
