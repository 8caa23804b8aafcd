"""An audit's page: one HTML file without scripts, from the audit's plain data alone."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from evenhand.report import audit_wording as wording
from evenhand.wording import count

_COLOUR = re.compile(r"#[0-9a-f]{6}")


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
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "share": wording.share,
        "times": wording.times,
        "number": wording.number,
        "probability": wording.probability,
        "visible": wording.visible,
        "count": count,
    }
    room = files("evenhand.report")
    bars, ticks = _distribution(content["histogram"])
    css = [room.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "audit.css")]
    return environment.from_string(room.joinpath("audit.html.j2").read_text(encoding="utf-8")).render(
        content=content,
        title=f"Audit of {wording.visible(content['task'])}",
        lede=_sentence(wording.visible(content["verdict"])),
        source=wording.source_text(content),
        bars=bars,
        ticks=ticks,
        largest_mass=max(content["decile_masses"]),
        levels=wording.LEVELS,
        finding_name=wording.finding_name,
        points_to=wording.points_to,
        is_png=_is_png,
        is_colour=lambda name: _COLOUR.fullmatch(name) is not None,
        findings_note=wording.FINDINGS_NOTE,
        others_note=wording.ASSOCIATIONS_NOTE,
        called=[finding for finding in content["findings"] if wording.is_called(finding)],
        others=[finding for finding in content["findings"] if not wording.is_called(finding)],
        wrong_labels=wording.wrong_labels(content["unnamed"]),
        scores_note=wording.SCORES_NOTE,
        limits_note=wording.LIMITS_NOTE,
        css=Markup("\n".join(css)),
    )


def _sentence(text: str) -> str:
    return f"The audit {text}" if text else text


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
            title=f"{count(n, 'sample')} at {wording.times(left)} to {wording.times(right)} times the mean",
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
