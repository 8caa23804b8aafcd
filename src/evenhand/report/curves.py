"""Training curves: how the validation numbers of each method go with the epochs of its last training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.metrics import summarize
from evenhand.report.cells import Cell, Section
from evenhand.report.figures import Chart, Style, axis, line, line_chart, plain
from evenhand.report.ranking import leading
from evenhand.runs.record import Record
from evenhand.runs.schema import number
from evenhand.wording import METRIC_TITLES, clipped, count, distinct, listed

MOST_CURVES = 12  # of methods in a picture
_SERIES = ("conflicting", "aligned", "worst_group", "small_groups", "average", "loss")
_TITLES = METRIC_TITLES | {"loss": "Validation loss"}

Points = list[tuple[int, float]]  # (epoch, mean over seeds)


def curve_charts(anchor: str, section: Section, styles: Mapping[str, Style]) -> list[Chart]:
    """A picture for each series that some method's records hold, then one for each group."""
    cells = leading(section, MOST_CURVES)
    names = [("", name) for name in _SERIES]
    names += [("by_group", name) for name in distinct(name for cell in cells for name in _groups(cell))]
    charts: list[Chart] = []
    for place, name in names:
        lines = [(cell, points) for cell in cells if (points := _points(cell, place, name))]
        if lines:
            title = _TITLES[name] if not place else f"Group {clipped(name, 40)}"
            charts.append(
                _chart(f"{anchor}-{len(charts)}", title, lines, styles, is_share=name != "loss" or bool(place))
            )
    return charts


def curves_note(section: Section) -> str:
    """What the curves are measured on."""
    found = [curve for run in section.done if (curve := _last(run))]
    rows = sorted({int(n) for curve in found if (n := number(curve.get("rows"))) is not None})
    sampled = any(curve.get("sampled") is True for curve in found)
    which = listed([f"{n:,}" for n in rows], "or") + " rows of the " if rows else "the "
    few = ", equally many of each group where there are as many, weighted by the groups' sizes" if sampled else ""
    done = [cell for cell in section.cells if cell.done]
    alone = any(run.metrics and run.metrics.by_group and not _last(run).get("by_group") for run in section.done)
    groups = " There are too many groups for a curve of each." if alone else ""
    left_out = len(done) - len(leading(section, MOST_CURVES))
    rest = f" {count(left_out, 'method')} further behind left out." if left_out else ""
    return (
        f"Mean over seeds on {which}validation split{few}, while the last model of each method is trained. Validation "
        f"data are biased like the training data; nothing is selected by these curves.{groups}{rest}"
    )


def curves_data(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """One row for each run, epoch and series of all stages that were measured, as the records hold them."""
    return [
        {
            "section": section.heading,
            "label": cell.label,
            "seed": run.seed,
            "data_seed": run.data_seed,
            "stage": stage,
            "epoch": epoch,
            "series": series,
            "value": value,
        }
        for section in sections
        for cell in section.cells
        for run in cell.done
        for stage, curve in stage_curves(run).items()
        for series, values in [
            *((name, curve.get(name)) for name in _SERIES),
            *((f"group: {name}", values) for name, values in _mapping(curve.get("by_group")).items()),
        ]
        for epoch, value in _pairs(curve, values)
    ]


def stage_curves(run: Record) -> dict[str, dict[str, Any]]:
    """Every stage's curve as the record holds it, by the stage's name."""
    return {str(stage.name): stage.curve for stage in run.stages if stage.curve is not None}


def _points(cell: Cell, place: str, name: str) -> Points:
    """The mean over the cell's seeds, at the epochs that all its measured runs have; empty without any."""
    by_run: list[dict[int, float]] = []
    for run in cell.done:
        curve = _last(run)
        values = _mapping(curve.get(place)).get(name) if place else curve.get(name)
        if values is not None:
            by_run.append(dict(_pairs(curve, values)))
    if not by_run:
        return []
    epochs = sorted(set.intersection(*(set(points) for points in by_run)))
    return [(epoch, summarize([points[epoch] for points in by_run]).mean or 0.0) for epoch in epochs]


def _last(run: Record) -> dict[str, Any]:
    """The curve of the last stage that was measured while it trained; empty for records without."""
    return ({}, *stage_curves(run).values())[-1]


def _groups(cell: Cell) -> list[str]:
    return [name for run in cell.done for name in _mapping(_last(run).get("by_group"))]


def _pairs(curve: dict[str, Any], values: Any) -> Points:
    """Epochs with their values, without gaps."""
    epochs = curve.get("epoch")
    if not isinstance(epochs, list) or not isinstance(values, list):
        return []
    pairs = [(number(epoch), number(value)) for epoch, value in zip(epochs, values, strict=False)]
    return [(int(epoch), value) for epoch, value in pairs if epoch is not None and value is not None]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _chart(
    anchor: str, title: str, lines: list[tuple[Cell, Points]], styles: Mapping[str, Style], *, is_share: bool
) -> Chart:
    scale, unit = (100, "%") if is_share else (1, "")
    traces = [
        line(
            cell.label,
            styles[cell.label],
            [(epoch, scale * y, f", epoch {epoch}<br>{scale * y:.3g}{unit}") for epoch, y in points],
            6,
        )
        for cell, points in lines
    ]
    most = max(epoch for _, points in lines for epoch, _ in points)
    x = axis("Epoch", tick0=0, dtick=max(1, round(most / 6)))  # whole epochs only, about six of them
    y = axis(plain(f"{title} (%)" if is_share else title))
    caption = f"{title}, in %" if is_share else title
    return line_chart(anchor, traces, x, y, f"Training curves: {title}, one line a method.", caption)
