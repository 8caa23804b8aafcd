"""One colour and one symbol for each method, the same in tables, figures and sample cards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Okabe and Ito's colour-blind-safe palette, without its yellow and black: those vanish on a light or a dark page.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_BASELINE_COLOUR = "#808080"
# plotly's name and the character that looks like it. Seven symbols and six colours: 42 different pairs.
_SYMBOLS = (
    ("square", "■"),
    ("diamond", "◆"),
    ("triangle-up", "▲"),
    ("triangle-down", "▼"),
    ("star", "★"),
    ("cross", "✚"),
    ("x", "✖"),
)
_BASELINE_SYMBOL = ("circle", "●")


@dataclass(frozen=True)
class Style:
    """How a method is drawn: colour, plotly's symbol name, and the same symbol as a character."""

    colour: str
    symbol: str
    glyph: str


def method_styles(labels: Iterable[tuple[str, bool]]) -> dict[str, Style]:
    """Styles by label, from (label, is it the baseline) in order of appearance. ERM is grey: the others stand out."""
    styles: dict[str, Style] = {}
    drawn = 0
    for label, is_baseline in labels:
        if label in styles:
            continue
        if is_baseline:
            styles[label] = Style(_BASELINE_COLOUR, *_BASELINE_SYMBOL)
            continue
        styles[label] = Style(_COLOURS[drawn % len(_COLOURS)], *_SYMBOLS[drawn % len(_SYMBOLS)])
        drawn += 1
    return styles
