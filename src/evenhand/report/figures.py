"""How pictures look: one colour and one symbol a method, and one accuracy against another, a dot for each seed."""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evenhand.metrics import summarize
from evenhand.report.cells import Cell, Section
from evenhand.wording import METRIC_TITLES, count, percent, visible

GREY = "#808080"  # readable on white and on black; the page's script replaces it by its own ink
_GRID = "rgba(128, 128, 128, 0.22)"
_LEGEND_WIDTH = 34  # characters, so that a long label doesn't push the legend out of a telephone
MOST_IN_LEGEND = 16  # with more methods a legend would be longer than the picture

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
    """How a method is drawn, everywhere alike: colour, plotly's symbol name, and the same symbol as a character."""

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


@dataclass(frozen=True)
class Chart:
    """A picture as the template takes it.

    Attributes:
        anchor: Its id on the page.
        data: plotly's JSON.
        label: A description for readers who can't see it.
        caption: What it shows.
        legend: How many entries its legend has.
    """

    anchor: str
    data: Markup
    label: str
    caption: str
    legend: int


@dataclass(frozen=True)
class _Dots:
    """The runs of one method: what hovering says, x and y in percent."""

    cell: Cell
    seeds: list[tuple[str, float, float]]
    style: Style

    @property
    def mean(self) -> tuple[str, float, float]:
        n = len(self.seeds)
        name = "one seed" if n == 1 else f"mean of {count(n, 'seed')}"
        return (
            name,
            summarize([x for _, x, _ in self.seeds]).mean or 0.0,
            summarize([y for _, _, y in self.seeds]).mean or 0.0,
        )


def scatter(
    anchor: str, section: Section, styles: Mapping[str, Style], x: str, y: str, diagonal: str, caption: str
) -> Chart | None:
    """One metric against another in percent; None where no run defines both.

    Args:
        anchor: Its id on the page.
        section: The runs.
        styles: By label.
        x: The metric along the horizontal axis.
        y: The metric along the vertical axis.
        diagonal: What the diagonal means.
        caption: What the picture shows.
    """
    dots = [_Dots(cell, seeds, styles[cell.label]) for cell in section.cells if (seeds := _points(cell, x, y))]
    if not dots:
        return None
    traces: list[dict[str, Any]] = []
    legend = len(dots) if len(dots) <= MOST_IN_LEGEND else 0
    titles = METRIC_TITLES[x].lower(), METRIC_TITLES[y].lower()
    # without a legend all methods share two traces: plotly takes seconds for hundreds of them
    for group in [[one] for one in dots] if legend else [dots]:
        traces += _draw(group, titles, named=bool(legend))
    # Both axes start at the same tenth, so that the diagonal is where both are alike.
    lowest = min(min(seed[1:]) for one in dots for seed in one.seeds)
    frame = _layout(max(0.0, 10 * (100 * lowest // 10) - 10), titles, diagonal)
    if not legend:
        caption += " Point at a mark to see its method."
    label = f"Accuracy of every run, {titles[0]} against {titles[1]}; the table above has the numbers."
    return Chart(anchor, script_json(traces, frame), label, caption, legend)


def line(label: str, style: Style, points: Sequence[tuple[float, float | None, str]], size: int) -> dict[str, Any]:
    """A method's trace of (x, y, what hovering says of both)."""
    name = plain(label)
    return {
        "x": [x for x, _, _ in points],
        "y": [y for _, y, _ in points],
        "mode": "lines+markers",
        "line": {"color": style.colour, "width": 1.5},
        "marker": {"symbol": style.symbol, "size": size},
        "name": name,
        "text": [f"<b>{name}</b>{text}" for _, _, text in points],
        "hoverinfo": "text",
    }


def line_chart(
    anchor: str, traces: list[dict[str, Any]], x: dict[str, Any], y: dict[str, Any], label: str, caption: str
) -> Chart:
    """Lines along an axis, with the legend below it."""
    frame = layout(xaxis=x, yaxis=y, showlegend=True, legend=layout()["legend"] | {"y": -0.24})
    return Chart(anchor, script_json(traces, frame), label, caption, len(traces))


def script_json(traces: list[dict[str, Any]], frame: dict[str, Any]) -> Markup:
    """A figure for plotly.js as JSON that may stand in a <script>: no name in it can close the element."""
    # plain objects: plotly's own in Python check every property, which takes seconds for a page
    text = json.dumps({"data": [{"type": "scatter"} | trace for trace in traces], "layout": frame}, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def layout(**changes: Any) -> dict[str, Any]:
    """What all pictures have in common."""
    return {
        "autosize": True,  # the page's style sets the height
        "margin": {"l": 52, "r": 10, "t": 10, "b": 48},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        "hoverlabel": {"align": "left"},
        "dragmode": False,
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top", "itemsizing": "trace"},
    } | changes


def axis(title: str, **changes: Any) -> dict[str, Any]:
    """An axis with grid lines; a user's text in its title must be `plain`."""
    return {
        "title": {"text": title, "standoff": 8},
        "fixedrange": True,  # or a finger that scrolls the page would drag the picture
        "gridcolor": _GRID,
        "zeroline": False,
        "ticks": "",
        "nticks": 7,
    } | changes


def plain(label: str) -> str:
    """A label for plotly, which reads a subset of HTML and doesn't know &quot;."""
    lines = textwrap.wrap(visible(label), _LEGEND_WIDTH)
    return "<br>".join(html.escape(line, quote=False) for line in lines) or "–"


def _points(cell: Cell, x: str, y: str) -> list[tuple[str, float, float]]:
    """(seed, x, y) of every run of a method that did something and defines both."""
    found: list[tuple[str, float, float]] = []
    for run in cell.counted if cell.is_tried else []:
        if run.metrics is None:
            continue
        across, up = run.metrics.value(x), run.metrics.value(y)
        if across is not None and up is not None:
            seed = f"seed {run.seed}" + ("" if run.data_seed == run.seed else f", data seed {run.data_seed}")
            found.append((seed, across, up))
    return found


def _draw(group: list[_Dots], titles: tuple[str, str], *, named: bool) -> list[dict[str, Any]]:
    """The seeds of some methods as one trace and their means as another."""
    seeds = [(one, *seed) for one in group for seed in one.seeds]
    means = [(one, *one.mean) for one in group]
    name = plain(group[0].cell.label)
    shared = {"mode": "markers", "hoverinfo": "text", "legendgroup": name, "name": name}
    small = _marker([one.style for one, *_ in seeds], "")
    large = _marker([one.style for one in group], "-open")  # hollow, so that the seeds show within
    return [
        shared | _marks(seeds, titles) | {"marker": small, "showlegend": False},
        shared | _marks(means, titles) | {"marker": large, "showlegend": named},
    ]


def _marks(points: list[tuple[_Dots, str, float, float]], titles: tuple[str, str]) -> dict[str, Any]:
    return {
        "x": [100 * x for _, _, x, _ in points],
        "y": [100 * y for _, _, _, y in points],
        "text": [
            f"<b>{plain(one.cell.label)}</b>, {seed}<br>{titles[0]} {percent(x)}%<br>{titles[1]} {percent(y)}%"
            for one, seed, x, y in points
        ],
    }


def _marker(styles: list[Style], kind: str) -> dict[str, Any]:
    size = {"size": 18, "line": {"width": 2.5}} if kind else {"size": 6, "opacity": 0.75}
    if len(set(styles)) == 1:
        return {"color": styles[0].colour, "symbol": styles[0].symbol + kind} | size
    return {"color": [style.colour for style in styles], "symbol": [style.symbol + kind for style in styles]} | size


def _layout(low: float, titles: tuple[str, str], diagonal: str) -> dict[str, Any]:
    span = 100 - low
    ends = [low - 0.03 * span, 100 + 0.03 * span]
    line = {"color": GREY, "width": 1, "dash": "dot"}
    words = {"text": diagonal, "showarrow": False, "textangle": -45, "xshift": -11, "yshift": 11, "font": {"size": 12}}
    place = low + 0.3 * span
    return layout(
        xaxis=axis(f"Accuracy, {titles[0]} (%)", range=ends, constrain="domain"),
        yaxis=axis(f"Accuracy, {titles[1]} (%)", range=ends, constrain="domain", scaleanchor="x"),
        shapes=[{"type": "line", "x0": low, "y0": low, "x1": 100, "y1": 100, "line": line, "layer": "below"}],
        annotations=[words | {"x": place, "y": place}],
    )
