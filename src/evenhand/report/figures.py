"""The picture of a section: aligned against conflicting accuracy, a dot for each seed."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping

import plotly.graph_objects as go

from evenhand.metrics import summarize
from evenhand.report.cells import Cell, Section
from evenhand.report.styles import Style
from evenhand.report.wording import count, percent

_GREY = "#808080"  # readable on white and on black; the page's script replaces it by its own ink
_GRID = "rgba(128, 128, 128, 0.22)"
_LEGEND_WIDTH = 34  # characters, so that a long label doesn't push the legend out of a telephone


def accuracy_figure(section: Section, styles: Mapping[str, Style]) -> go.Figure | None:
    """Aligned (x) against conflicting (y) accuracy in percent; None where no run defines both."""
    figure = go.Figure()
    everything: list[float] = []
    for cell in section.cells:
        seeds = _points(cell)
        if not seeds:
            continue
        everything += [100 * v for _, x, y in seeds for v in (x, y)]
        _draw(figure, cell, seeds, styles[cell.label])
    if not everything:
        return None
    # Both axes start at the same tenth, so that the diagonal is where a method without a shortcut stands.
    low = max(0.0, 10 * (min(everything) // 10) - 10)
    _lay_out(figure, low)
    return figure


def _points(cell: Cell) -> list[tuple[str, float, float]]:
    """(seed, aligned, conflicting) of every finished run that defines both."""
    found: list[tuple[str, float, float]] = []
    for run in cell.done:
        if run.metrics is None:
            continue
        aligned, conflicting = run.metrics.overall["aligned"], run.metrics.overall["conflicting"]
        if aligned is not None and conflicting is not None:
            seed = f"seed {run.seed}" + ("" if run.data_seed == run.seed else f", data seed {run.data_seed}")
            found.append((seed, aligned, conflicting))
    return found


def _draw(figure: go.Figure, cell: Cell, seeds: list[tuple[str, float, float]], style: Style) -> None:
    name = _plain(cell.label)
    figure.add_scatter(
        x=[100 * x for _, x, _ in seeds],
        y=[100 * y for _, _, y in seeds],
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol, "size": 6, "opacity": 0.75},
        text=[_hover(name, seed, x, y) for seed, x, y in seeds],
        hoverinfo="text",
        legendgroup=cell.label,
        showlegend=False,
    )
    n = len(seeds)
    mean_x, mean_y = summarize([x for _, x, _ in seeds]).mean or 0.0, summarize([y for _, _, y in seeds]).mean or 0.0
    figure.add_scatter(
        x=[100 * mean_x],
        y=[100 * mean_y],
        mode="markers",
        marker={
            "color": style.colour,
            "symbol": f"{style.symbol}-open",  # hollow, so that the seeds show within
            "size": 18,
            "line": {"width": 2.5},
        },
        name=name,
        text=[_hover(name, "one seed" if n == 1 else f"mean of {count(n, 'seed')}", mean_x, mean_y)],
        hoverinfo="text",
        legendgroup=cell.label,
    )


def _plain(label: str) -> str:
    """A label as plotly shall show it: it reads a subset of HTML, and knows no &quot;."""
    return "<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(label, _LEGEND_WIDTH)) or "–"


def _hover(name: str, seed: str, aligned: float, conflicting: float) -> str:
    return f"<b>{name}</b>, {seed}<br>aligned {percent(aligned)}%<br>conflicting {percent(conflicting)}%"


def _lay_out(figure: go.Figure, low: float) -> None:
    span = 100 - low
    ends = [low - 0.03 * span, 100 + 0.03 * span]
    axis = {
        "range": ends,
        "fixedrange": True,  # or a finger that scrolls the page would drag the picture
        "gridcolor": _GRID,
        "zeroline": False,
        "ticks": "",
        "nticks": 7,
    }
    figure.update_layout(
        template="none",
        autosize=True,  # the page's style sets the height
        margin={"l": 52, "r": 10, "t": 10, "b": 48},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": _GREY},
        hoverlabel={"align": "left"},
        dragmode=False,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top", "itemsizing": "trace"},
        xaxis=axis | {"title": {"text": "Accuracy on aligned samples (%)", "standoff": 8}, "constrain": "domain"},
        yaxis=axis
        | {
            "title": {"text": "Accuracy on conflicting samples (%)", "standoff": 6},
            "scaleanchor": "x",
            "constrain": "domain",
        },
    )
    figure.add_shape(
        type="line", x0=low, y0=low, x1=100, y1=100, line={"color": _GREY, "width": 1, "dash": "dot"}, layer="below"
    )
    figure.add_annotation(
        x=low + 0.3 * span,
        y=low + 0.3 * span,
        text="no shortcut: both alike",
        showarrow=False,
        textangle=-45,
        xshift=-11,
        yshift=11,
        font={"size": 12},
    )
