"""What is said of options that can't be read: one sentence, in place of tyro's box of several."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from evenhand.validation import UserError, did_you_mean


class OptionError(UserError):
    """An option of the command line can't be read."""


def in_sentences(words: Sequence[str]) -> AbstractContextManager[None]:
    """While it lasts, tyro's refusal of a value is a `OptionError`; what tyro says of unknown options stays its own.

    Args:
        words: The command line.
    """
    try:
        on_parse_error: Any = importlib.import_module("tyro._errors").on_parse_error
    except (ImportError, AttributeError):  # its place isn't promised: without it there are boxes
        return nullcontext()
    return on_parse_error(_hook(list(words)))


def _hook(words: list[str]) -> Callable[[Any], None]:
    def refuse(event: Any) -> None:
        argument, kind = getattr(event, "argument", None), type(event).__name__
        if argument is None or kind not in ("BadValue", "InvalidChoice", "InstantiationFailure"):
            return
        lowered = argument.lowered
        flags = tuple(lowered.name_or_flags)
        option = flags[-1] if flags and flags[-1].startswith("-") else ""
        what = f"The option {option}" if option else f"The argument {lowered.metavar}"
        value = _given(words, flags)
        if kind == "BadValue":
            example = f": one that begins with '-' is written {option}={value}" if value is not None else ""
            raise OptionError(f"{what} needs a value{example}.")
        choices = _choices(str(lowered.metavar))
        shown = "" if value is None else f" Got {value!r}{did_you_mean(value, choices)}."
        raise OptionError(f"{what} must be {_wanted(str(lowered.metavar), choices)}.{shown}")

    return refuse


def _given(words: list[str], flags: Sequence[str]) -> str | None:
    """The value that follows an option, as it was written; None where there is none."""
    names = {flag.replace("_", "-") for flag in flags}
    for i, word in reversed(list(enumerate(words))):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") in names and name.startswith("-"):
            return value if equals else words[i + 1] if i + 1 < len(words) else None
    return None


def _choices(metavar: str) -> list[str]:
    inner = re.search(r"\{(.*?)\}", metavar)
    return [] if inner is None else [name for name in re.split(r"[,|]", inner[1]) if name != "None"]


def _wanted(metavar: str, choices: Sequence[str]) -> str:
    kinds = [words for name, words in (("INT", "an integer"), ("FLOAT", "a number")) if name in metavar]
    listed = [f"one of {', '.join(choices)}" if choices[1:] else repr(choices[0])] if choices else []
    return " or ".join([*listed, *kinds]) or f"of the form {metavar}"
