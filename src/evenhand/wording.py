"""How numbers and settings are written, the same in every table, sentence and picture."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evenhand.metrics import Summary
from evenhand.validation import count as count  # the same words as in messages

NOTHING = "–"  # where a number is undefined
METRIC_TITLES = {
    "average": "Average",
    "worst_group": "Worst group",
    "small_groups": "Small groups",
    "weakest": "Worst group or small groups",
    "aligned": "Aligned",
    "conflicting": "Conflicting",
    "average_train_weighted": "Average, train-weighted",
}


LONGEST_NAME = 120  # characters of a label, a group's name or the like that a page or a table shows
LONGEST_TEXT = 2000  # and of a text or an error


def visible(text: str) -> str:
    """A text with a mark in place of each character that shows nothing but may change what is around it.

    Those are control characters other than tab and newline, halves of surrogate pairs, separators of lines, and the
    marks that turn the direction of writing for what follows them.
    """
    return "".join("\ufffd" if _is_hidden(c) else c for c in text)


def one_line(text: str) -> str:
    """The text as `visible` leaves it, without a new line or a tab, which would break a sentence or a table."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def _is_hidden(character: str) -> bool:
    code = ord(character)
    if code < 0x20:
        return character not in "\t\n"
    return (
        0x7F <= code < 0xA0
        or 0xD800 <= code < 0xE000
        or code in (0x061C, 0x200E, 0x200F)
        or 0x2028 <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
    )


FORMULA = ("=", "+", "-", "−", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""What a text begins with that a spreadsheet computes."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_value(value: Any) -> Any:
    """What a CSV file holds of a value: a text that a spreadsheet would compute begins with an apostrophe there.

    Numbers stay numbers, also where they are written as text.
    """
    if isinstance(value, str) and value.startswith(FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def clipped(text: str, most: int = LONGEST_NAME) -> str:
    """The text, or its beginning with how long it is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def percent(value: float | None) -> str:
    """A fraction of 1 in percent, one decimal: 0.4834 → "48.3"."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A signed difference of fractions in percentage points: 0.341 → "+34.1"."""
    if value is None:
        return NOTHING
    text = f"{100 * abs(value):.1f}"
    if text == "0.0":
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def mean_std(summary: Summary, planned: int) -> str:
    """As in "78.1 ± 2.0"; the number of seeds is added where fewer than `planned` define the number."""
    text = percent(summary.mean)
    if summary.std is not None:
        text += f" ± {percent(summary.std)}"
    if 0 < summary.n < planned:
        text += f" (n = {summary.n})"
    return text


def interval(summary: Summary) -> str:
    """As in "+30.2 to +38.0", or nothing where there are fewer than two differences."""
    return f"{points(summary.low)} to {points(summary.high)}" if summary.low is not None else ""


def p_text(p: float | None) -> str:
    """As in "0.013"; what is smaller than 0.001 is given as such."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def setting_value(value: Any) -> str:
    """A setting as text: texts as they are, all else as compact JSON."""
    return clipped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def settings_text(settings: Mapping[str, Any]) -> str:
    """As in "q=0.7, source=head"."""
    return ", ".join(f"{clipped(key)}={setting_value(value)}" for key, value in settings.items())


def listed(names: Iterable[str], last: str = "and") -> str:
    """As in "a, b and c"."""
    names = list(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else "".join(names)


def duration(seconds: float) -> str:
    """As in "12.3 s", "4 min 10 s", "2 h 5 min"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def distinct(texts: Iterable[str | None]) -> list[str]:
    """The different texts in order of appearance, without empty ones."""
    return list(dict.fromkeys(text for text in texts if text))


def ratio(value: float | None) -> str:
    """As in "2.8×"."""
    return NOTHING if value is None else f"{value:.1f}×" if value < 10 else f"{value:.0f}×"


def megabytes(count_of_bytes: float) -> str:
    """As in "576 MB" (a million bytes)."""
    return f"{count_of_bytes / 1e6:,.0f} MB"


def markdown_text(text: str) -> str:
    """Escape what Markdown or the HTML within it would read as markup, and keep to one line."""
    escaped = html.escape(" ".join(visible(clipped(text, LONGEST_TEXT)).split()), quote=False)
    inline = "".join(f"\\{c}" if c in "\\`*_[]|~$#" else c for c in escaped)
    return re.sub(r"^(\d{0,9})([-+=.)])(?=[\s=-]|$)", r"\1\\\2", inline)  # a list, or the line below a heading


def markdown_table(
    note: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int, last: int = 0
) -> list[str]:
    """A note and a table below it; `left` columns at the beginning and `last` ones at the end are words."""
    lines = [markdown_text(note), ""] if note else []
    lines += [f"| {' | '.join(markdown_text(name) for name in head)} |"]
    lines.append(f"|{' --- |' * left}{' ---: |' * (len(head) - left - last)}{' --- |' * last}")
    return [*lines, *(f"| {' | '.join(markdown_text(value) for value in row)} |" for row in rows), ""]
