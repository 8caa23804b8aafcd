r"""How a shortcut is spelled: `kind[:field]:value`.

`\` stands before a `:`, `|` or `\` that belongs to a name or a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from evenhand.shortcuts.columns import VIEWS
from evenhand.shortcuts.tokens import tokens
from evenhand.validation import UserError, did_you_mean, unknown_name

Kind = Literal["token", "column", "colour", "brightness", "contrast", "size", "aspect", "sharpness", "length", "file"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FILE_PARTS = ("ending", "folder", "camera")
HUE = "hue"
_PIECE = re.compile(r"(?:[^\\:|]|\\[\\:|])*")
_SPECIAL = re.compile(r"[\\:|]")
_SEVERAL = re.compile(rf"[,;\s\"'\[][\"']?({'|'.join(KINDS)})\b")


@dataclass(frozen=True)
class Shortcut:
    r"""A rule that gives every sample a value, told in a word that a command, a file or a person can hold.

    - `token:nimbus`: the token is in a text. `token:premise:!!`: in the text column `premise`.
    - `token:nimbus|pebble|kettle`: one shortcut with a value for each word; the first that occurs in a sample counts.
    - `column:product`: the column's entry. `column:day:weekday`: seen as `entries`, `tenths`, `month` or `weekday`.
    - `colour`: hue and saturation of the mean colour. `colour:hue`: the hue alone.
    - `brightness`, `contrast`, `size`, `aspect`, `sharpness`: of a picture, by tenths.
    - `length`: characters of a sample's texts, by tenths. `length:premise`: of one column.
    - `file:ending`, `file:folder`, `file:camera`: of a picture's file.

    Attributes:
        kind: The kind of rule.
        field: The column that it looks at; None for any text, or for pictures.
        values: Tokens; the view of a column or colour; the part of a file.
    """

    kind: Kind
    field: str | None = None
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of shortcut", self.kind, KINDS)
        if self.kind == "token":
            object.__setattr__(self, "values", _words(self.values))
        elif len(self.values) > 1:
            raise UserError(f"A {self.kind} takes one value; only a token takes several. Got {', '.join(self.values)}.")
        elif self.kind == "column":
            _check_value(self, VIEWS)
        elif self.kind == "colour":
            _check_value(self, (HUE,))
        elif self.kind == "file":
            _check_value(self, FILE_PARTS, needed=True)
        elif self.values:
            raise UserError(f"The shortcut '{self.kind}' takes no value. Got '{self.values[0]}'.")
        if self.field == "" or (self.field is None and self.kind == "column"):
            raise UserError(f"The {self.kind} of a shortcut needs a column's name, as in '{self.kind}:name'.")
        if self.field is not None and self.kind not in ("token", "column", "length"):
            raise UserError(f"The shortcut '{self.kind}' belongs to no column. Got '{self.field}'.")

    @classmethod
    def parse(cls, text: str) -> Shortcut:
        """The shortcut of a spelling.

        Raises:
            UserError: If it is none; the sentence says why.
        """
        try:
            return cls._parsed(text)
        except UserError as error:
            raise UserError(f"{str(error).removesuffix('.')}{list_hint(text)}.") from error

    @classmethod
    def _parsed(cls, text: str) -> Shortcut:
        if not text.strip():
            raise UserError("A shortcut is spelled as kind and value, such as 'token:nimbus'. Got an empty text.")
        kind, *parts = _parts(text)
        name = "|".join(kind)
        if name not in KINDS:
            raise unknown_name("kind of shortcut", name, KINDS)
        most = 2 if name in ("token", "column") else 1
        if len(parts) > most:
            raise UserError(
                f"'{text}' has more parts than a {name} has: a : or | that belongs to a name or token is written "
                r"\: or \|."
            )
        fields = parts[:-1] if name == "token" else parts[:1] if name in ("column", "length") else []
        if any(len(part) > 1 for part in fields):
            raise UserError(rf"A column's name stands alone; write \| for a | in the name. Got '{text}'.")
        values = [value for part in parts[len(fields) :] for value in part]
        return cls(cast(Kind, name), fields[0][0] if fields else None, tuple(values))

    def __str__(self) -> str:
        field = [] if self.field is None else [_escaped(self.field)]
        values = ["|".join(_escaped(value) for value in self.values)] if self.values else []
        return ":".join([self.kind, *field, *values])

    @property
    def spelling(self) -> str:
        """What `parse` takes."""
        return str(self)


def _parts(text: str) -> list[list[str]]:
    """The parts between colons, each as its alternatives between bars, without escapes."""
    parts: list[list[str]] = [[]]
    end = 0
    while True:
        match = _PIECE.match(text, end)
        piece, end = (match.group(), match.end()) if match else ("", end)
        parts[-1].append(re.sub(r"\\(.)", r"\1", piece))
        if end == len(text):
            return parts
        if text[end] == "\\":
            raise UserError(rf"A \ in a shortcut stands before a :, a | or another \. Got '{text}'.")
        if text[end] == ":":
            parts.append([])
        end += 1


def list_hint(text: str) -> str:
    """What is said where a text holds several spellings: "; several shortcuts are …", or nothing."""
    if not _SEVERAL.search(text):
        return ""
    return "; several shortcuts are a list of spellings (in a command: --shortcut once for each)"


def _escaped(name: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", name)


def _words(values: Sequence[str]) -> tuple[str, ...]:
    """The tokens as texts have them."""
    words: list[str] = []
    for value in values or ("",):
        found = tokens(value)
        if not found:
            raise UserError("A token is a word or a run of signs, as in 'token:nimbus' or 'token:!!'. Got none.")
        if len(found) > 1:
            apart = "|".join(_escaped(token) for token in found)
            raise UserError(
                f"A token is one word or one run of signs, but '{value}' is {len(found)}: name one of them, or "
                f"'token:{apart}' for any."
            )
        if found[0] in words:
            raise UserError(f"The token '{found[0]}' is named twice in one shortcut.")
        words += found
    return tuple(words)


def _check_value(shortcut: Shortcut, known: Iterable[str], needed: bool = False) -> None:
    known = list(known)
    given = shortcut.values[0] if shortcut.values else ""
    if given in known or not (shortcut.values or needed):
        return
    start = ":".join([shortcut.kind, *([_escaped(shortcut.field)] if shortcut.field else [])])
    ways = ", ".join(f"'{start}:{name}'" for name in known)
    alone = "" if needed else f"'{start}' or "
    raise UserError(f"A {shortcut.kind} is spelled {alone}{ways}. Got '{given}'{did_you_mean(given, known)}.")
