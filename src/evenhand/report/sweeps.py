"""Settings that take several numbers (α, q, the share of conflicting samples): accuracy along each of them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.report.cells import Cell, Section
from evenhand.report.figures import Chart, Style, axis, line, line_chart, method_styles, plain
from evenhand.runs.schema import number
from evenhand.wording import METRIC_TITLES, clipped, count, mean_std, settings_text

FEWEST_VALUES = 3  # fewer make no line
MOST_LINES = 12

_Settings = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One method along a setting: (value, cell) in ascending order."""

    label: str
    is_erm: bool
    points: tuple[tuple[float, Cell], ...]


@dataclass(frozen=True)
class Sweep:
    """All methods along one setting.

    Attributes:
        setting: Its name, as in "method.alpha" or "task.conflict".
        metric: What is drawn: accuracy on conflicting samples where all define it.
        lines: Those with at least three values.
    """

    setting: str
    metric: str
    lines: tuple[Line, ...]

    @property
    def is_logarithmic(self) -> bool:
        """Whether the values lie more evenly by their ratios than by their differences, and far enough apart."""
        values = sorted({value for line in self.lines for value, _ in line.points})
        if values[0] <= 0 or values[-1] / values[0] < 4:
            return False
        return _unevenness([math.log(v) for v in values]) < _unevenness(values)


def find_sweeps(sections: Sequence[Section]) -> list[Sweep]:
    """Every numeric setting with at least three values among finished cells that agree in all else."""
    cells = [(cell, _flat(cell)) for section in sections for cell in section.cells if cell.done]
    names = dict.fromkeys(
        name
        for _, settings in cells
        for name in settings
        if len({value for _, other in cells if (value := number(other.get(name))) is not None}) >= FEWEST_VALUES
    )
    return [sweep for name in names if (sweep := _sweep(name, cells)) is not None]


def sweep_charts(sweeps: Sequence[Sweep], styles: Mapping[str, Style]) -> list[Chart]:
    """A picture for each sweep; methods look as elsewhere on the page where they are called alike."""
    return [_chart(f"sweep-{i}", sweep, styles) for i, sweep in enumerate(sweeps)]


def sweeps_data(sweeps: Sequence[Sweep]) -> list[dict[str, Any]]:
    """One row for each point of each line, at full precision."""
    return [
        {"setting": sweep.setting, "line": line.label, "value": value, "metric": sweep.metric}
        | {part: getattr(cell.summary(sweep.metric), part) for part in ("mean", "std", "n")}
        for sweep in sweeps
        for line in sweep.lines
        for value, cell in line.points
    ]


def _flat(cell: Cell) -> _Settings:
    run = cell.first
    model = {key: value for key, value in run.model.items() if not key.endswith("parameters")}
    parts = {"method": run.method.settings, "task": run.task.settings, "training": run.training, "model": model}
    flat = {f"{part}.{name}": value for part, settings in parts.items() for name, value in settings.items()}
    return {"method": run.method.title, "task": run.task.name} | flat


def _sweep(name: str, cells: list[tuple[Cell, _Settings]]) -> Sweep | None:
    """The lines along one setting: cells that agree in everything else."""
    groups: dict[str, list[tuple[float, Cell, _Settings]]] = {}
    for cell, settings in cells:
        value = number(settings.get(name))
        if value is not None:
            rest = {key: other for key, other in settings.items() if key != name}
            groups.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append((value, cell, rest))
    kept = [group for group in groups.values() if len({value for value, *_ in group}) >= FEWEST_VALUES]
    if not kept:
        return None
    kept = kept[:MOST_LINES]
    metric = next(
        (
            metric
            for metric in ("conflicting", _worst_metric([cell for group in kept for _, cell, _ in group]))
            if all(cell.summary(metric).n for group in kept for _, cell, _ in group)
        ),
        "average",
    )
    common = [{cell.label for _, cell, _ in group} for group in kept]
    named = [labels.pop() for labels in common if len(labels) == 1]
    # the page's own names, where they are the same along the line
    distinct_names = len(set(named)) == len(kept)
    labels = named if distinct_names else _line_labels([group[0][2] for group in kept])
    lines = [
        Line(
            label,
            group[0][1].first.method.name == "erm",
            tuple(sorted(((v, c) for v, c, _ in group), key=lambda p: p[0])),
        )
        for label, group in zip(labels, kept, strict=True)
    ]
    return Sweep(name, metric, tuple(lines))


def _worst_metric(cells: Sequence[Cell]) -> str:
    """The worst group's accuracy, or that of the small groups together in runs where those are lower."""
    return "weakest" if any(cell.values("weakest") != cell.values("worst_group") for cell in cells) else "worst_group"


def _line_labels(rests: list[_Settings]) -> list[str]:
    """The method's title, with the settings in which lines of that method differ."""
    labels: list[str] = []
    for mine in rests:
        rivals = [other for other in rests if other["method"] == mine["method"]]
        differing = [key for key in mine if any(other.get(key) != mine[key] for other in rivals)]
        named = settings_text({key.partition(".")[2]: mine[key] for key in differing})
        labels.append(clipped(", ".join([clipped(mine["method"]), named]) if named else mine["method"]))
    return labels


def _unevenness(values: list[float]) -> float:
    """Largest gap between neighbours by the smallest."""
    gaps = [b - a for a, b in itertools.pairwise(values)]
    return max(gaps) / min(gaps)


def _chart(anchor: str, sweep: Sweep, known: Mapping[str, Style]) -> Chart:
    styles = known
    if any(line.label not in known for line in sweep.lines):
        styles = method_styles((line.label, line.is_erm) for line in sweep.lines)
    traces = [_trace(one, sweep.metric, styles[one.label]) for one in sweep.lines]
    part, _, name = sweep.setting.partition(".")
    setting = clipped(name, 40)
    scale = {"type": "log"} if sweep.is_logarithmic else {}
    values = sorted({value for line in sweep.lines for value, _ in line.points})
    ticks = {"tickvals": values, "ticktext": [f"{v:g}" for v in values]} if len(values) <= 8 else {}
    metric = METRIC_TITLES[sweep.metric].lower()
    logarithmic = " Logarithmic axis." if sweep.is_logarithmic else ""
    beside = (
        " A high conflicting accuracy alone may be an inverted shortcut: the table of methods has the aligned one."
        if sweep.metric == "conflicting"
        else ""
    )
    caption = (
        f"{METRIC_TITLES[sweep.metric]} accuracy along {setting}: mean over seeds, bars are ± one standard "
        f"deviation.{logarithmic}{beside}"
    )
    label = (
        f"Accuracy, {metric}, along {setting}: {count(len(sweep.lines), 'line')}; tables/sweeps.csv has the numbers."
    )
    x, y = axis(plain(f"{setting} ({part})"), **scale, **ticks), axis(f"Accuracy, {metric} (%)")
    return line_chart(anchor, traces, x, y, label, caption)


def _trace(found: Line, metric: str, style: Style) -> dict[str, Any]:
    summaries = [(value, cell.summary(metric), len(cell.counted)) for value, cell in found.points]
    points = [
        (value, None if summary.mean is None else 100 * summary.mean, f"<br>{value:g}: {mean_std(summary, seeds)}%")
        for value, summary, seeds in summaries
    ]
    spread = [100 * (summary.std or 0.0) for _, summary, _ in summaries]
    error = {"type": "data", "array": spread, "width": 4, "thickness": 1}
    return line(found.label, style, points, 8) | {"error_y": error}
