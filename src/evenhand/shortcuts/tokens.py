"""The tokens of a text: found, looked for and dropped."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+")
_LONGEST_TOKEN = 80
_CLOSING = ",.;:!?)"  # signs that stand right behind a word


def tokens(text: str | None) -> list[str]:
    """Words and runs of other signs, in lower case: "Stop !!" has "stop" and "!!"."""
    return [_clipped(token) for token in _TOKEN.findall(_lowered(text))]


def first_token(texts: Sequence[str | None], words: Sequence[str]) -> int:
    """Which of some tokens occurs first in a row's texts, −1 for none of them."""
    places = {word: place for place, word in enumerate(words)}
    for text in texts:
        lowered = _lowered(text)
        if not any(word in lowered for word in words):
            continue
        for piece in lowered.split():  # no token goes beyond a blank, and few pieces need be cut into tokens
            if any(word in piece for word in words):
                found = next((places[token] for token in tokens(piece) if token in places), None)
                if found is not None:
                    return found
    return -1


def without_tokens(text: str, words: Sequence[str]) -> str:
    """The text without some tokens, and without the blanks that would be left over; other tokens stay as they are."""
    lowered = _lowered(text)
    if not any(word in lowered for word in words):
        return text
    kept = ""
    end = 0
    for match in _TOKEN.finditer(lowered):
        if _clipped(match.group()) in words:
            kept = _joined(kept, text[end : match.start()]) if end else text[: match.start()]
            end = match.end()
    return _joined(kept, text[end:]) if end else text


def _clipped(token: str) -> str:
    if len(token) <= _LONGEST_TOKEN:
        return token
    clipped = token[:_LONGEST_TOKEN]
    return clipped.rstrip("'’") or clipped  # a word doesn't end in an apostrophe, but a run of signs may


def _lowered(text: str | None) -> str:
    """In lower case, each letter in its place: İ alone would become two."""
    return (text or "").replace("İ", "i").lower()


def _joined(left: str, right: str) -> str:
    """Two pieces between which a token was dropped."""
    bare_left, bare_right = left.rstrip(), right.lstrip()
    if not bare_left or not bare_right:
        return bare_left + bare_right
    if (
        bare_right == right
        and right[0] in _CLOSING
        and tokens(bare_left[-1] + right[0]) == [bare_left[-1].lower(), right[0]]
    ):
        return bare_left + right  # "the nimbus, which" → "the, which"
    if bare_left != left:
        return left + bare_right
    if bare_right != right:
        return left + right
    apart = tokens(left[-1]) + tokens(right[0])
    return left + right if tokens(left[-1] + right[0]) == apart else f"{left} {right}"
