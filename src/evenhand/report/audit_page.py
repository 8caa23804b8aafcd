"""An audit's page, one HTML file without scripts, and the same as Markdown, from the audit's plain data alone."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.report.audit_tables import audit_tables
from evenhand.report.audit_wording import (
    LIMITS_NOTE,
    SCORES_NOTE,
    share,
    source_text,
    suspects_text,
    times,
    visible,
    wrong_labels,
)
from evenhand.report.page import render
from evenhand.wording import count


@dataclass(frozen=True)
class Bar:
    """A bar of the distribution: where it stands in percent of the width, how high in percent, and what it says."""

    left: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Tick:
    """A label below the distribution, at so many percent of the width."""

    left: float
    text: str


def render_audit_page(content: Mapping[str, Any]) -> str:
    """The page as one HTML text.

    Args:
        content: What `Audit.as_dict()` gives, or `audit.json` holds.
    """
    return render("audit.html.j2", visible, **_view(content))


def audit_markdown(content: Mapping[str, Any]) -> str:
    """The same as Markdown: all that the page has but its pictures."""
    return render("audit.md.j2", visible, **_view(content))


def _view(content: Mapping[str, Any]) -> dict[str, Any]:
    """An audit as both templates take it."""
    bars, ticks = _distribution(content["histogram"])
    tables = audit_tables(content)
    tested = content["tested"] != "nothing"
    left = content["findings_in_all"] - len(tables["called"].rows)
    return {
        "content": content,
        "tables": tables,
        "title": f"Audit of {content['task']}",
        "lede": f"The audit {content['verdict']}",
        "source": source_text(content),
        "bars": bars,
        "ticks": ticks,
        "is_png": _is_png,
        "times": times,
        "share": share,
        "nothing": "Nothing that was tested points to a class in labels and scores."
        if tested
        else "Nothing could be tested.",
        "others": f"{count(left, 'association')} that the scores don’t show to be used",
        "wrong": wrong_labels(content["unnamed"]),
        "suspects": suspects_text(content["suspects"]),
        "scores_note": SCORES_NOTE,
        "limits_note": LIMITS_NOTE,
    }


def _distribution(histogram: Mapping[str, Any]) -> tuple[list[Bar], list[Tick]]:
    """The bars of the scores' distribution, on a logarithmic axis with a tick at each power of ten."""
    edges, counts = histogram["edges"], histogram["counts"]
    low, high = math.log10(edges[0]), math.log10(edges[-1])

    def place(value: float) -> float:
        return 100 * (math.log10(value) - low) / (high - low)

    tallest = max(max(counts), 1)
    bars = [
        Bar(
            left=place(left),
            width=place(right) - place(left),
            height=100 * n / tallest,
            title=f"{count(n, 'sample')} at {times(left)} to {times(right)} times the mean",
        )
        for left, right, n in zip(edges, edges[1:], counts, strict=False)
    ]
    powers = range(math.ceil(low), math.floor(high) + 1)
    step = max(1, math.ceil(len(powers) / 6))  # no more than six, that they stand apart on a telephone
    ticks = [Tick(place(10.0**power), f"{10.0**power:g}") for power in powers if power % step == 0]
    return bars, ticks


def _is_png(encoded: object) -> bool:
    if not isinstance(encoded, str):
        return False
    try:
        return base64.b64decode(encoded, validate=True).startswith(b"\x89PNG\r\n\x1a\n")
    except (binascii.Error, ValueError):
        return False
