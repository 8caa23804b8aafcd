"""The page: all that the template shows, gathered and rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from evenhand.report.cells import Section
from evenhand.report.cost import CostRow, cost_head, cost_note, cost_rows, cost_sentence
from evenhand.report.curves import curve_charts, curves_note
from evenhand.report.details import Fact, MethodFacts, SetRow, method_facts, section_facts, set_metrics, set_rows
from evenhand.report.detection import (
    DETECTION_HEAD,
    DETECTION_NOTE,
    SCORING_HEAD,
    SCORING_NOTE,
    DetectionRow,
    detection_rows,
)
from evenhand.report.figures import Chart, scatter
from evenhand.report.headline import headline
from evenhand.report.heat import HEAT_NOTE, HeatMap, heat_map
from evenhand.report.notes import section_notes
from evenhand.report.paired import PAIRED_HEAD, PairedRow, paired_note, paired_rows
from evenhand.report.ranking import SHORTCUT_GAP, best_other
from evenhand.report.samples import SampleCards, sample_cards
from evenhand.report.styles import Style, method_styles
from evenhand.report.sweeps import Sweep, sweep_charts
from evenhand.report.tables import MethodRow, method_rows, shown_metrics
from evenhand.report.worst_table import WORST_HEAD, WORST_NOTE, WorstRow, worst_rows
from evenhand.wording import LONGEST_NAME, LONGEST_TEXT, METRIC_TITLES, clipped, visible

LONG_TABLE = 30  # rows from which on a table scrolls in a box of its own


@dataclass(frozen=True)
class SectionView:
    """A section as the template takes it."""

    anchor: str
    heading: str
    headline: str
    notes: list[str]
    shown_metrics: list[str]
    rows: list[MethodRow]
    worst: list[WorstRow]
    baseline_name: str
    paired: list[PairedRow]
    paired_note: str
    detection: list[DetectionRow]
    charts: list[Chart]
    heat: HeatMap
    curves: list[Chart]
    curves_note: str
    cost_head: tuple[str, ...]
    cost: list[CostRow]
    cost_note: str
    samples: SampleCards | None
    all_metrics: list[str]
    tests: list[SetRow]
    methods: list[MethodFacts]
    facts: list[Fact]
    repeats: list[str]


def render_page(title: str, sections: Sequence[Section], sweeps: Sequence[Sweep], folder: Path) -> str:
    """The whole page as one HTML text, with its styles, script and data inside it."""
    from plotly.offline import get_plotlyjs  # half a second to import, and most uses of this room draw nothing

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_harmless
    )
    environment.filters |= {
        "name": lambda text: clipped(text, LONGEST_NAME),
        "long": lambda text: clipped(text, LONGEST_TEXT),
    }
    room = files("evenhand.report")
    styles = method_styles((cell.label, cell.is_baseline) for section in sections for cell in section.cells)
    views = [_view(f"section-{i}", section, styles, folder) for i, section in enumerate(sections, start=1)]
    swept = sweep_charts(sweeps, styles)
    drawn = bool(swept) or any(view.charts or view.curves for view in views)
    return environment.from_string(room.joinpath("page.html.j2").read_text(encoding="utf-8")).render(
        title=title,
        sections=views,
        sweeps=swept,
        long_table=LONG_TABLE,
        styles=styles,
        paired_head=PAIRED_HEAD,
        detection_head=(*DETECTION_HEAD, SCORING_HEAD),
        detection_note=f"{DETECTION_NOTE} {SCORING_NOTE}",
        worst_head=WORST_HEAD,
        worst_note=WORST_NOTE,
        heat_note=HEAT_NOTE,
        shortcut_gap=f"{100 * SHORTCUT_GAP:.0f}",
        css=Markup(room.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(room.joinpath("page.js").read_text(encoding="utf-8")),
        # Once for all figures: it is most of the page's 5 MB.
        plotly=Markup(get_plotlyjs()) if drawn else None,
    )


def _harmless(value: object) -> object:
    """What the template prints, without characters that would change what is around them."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _view(anchor: str, section: Section, styles: Mapping[str, Style], folder: Path) -> SectionView:
    paired = paired_rows(section)
    curves = curve_charts(f"{anchor}-curves", section, styles)
    return SectionView(
        anchor=anchor,
        heading=section.heading,
        headline=headline(section, cost_sentence(section, best_other(section))),
        notes=section_notes(section),
        shown_metrics=[METRIC_TITLES[metric] for metric in shown_metrics(section)],
        rows=method_rows(section),
        worst=worst_rows(section),
        baseline_name=section.baseline_name,
        paired=paired,
        paired_note=paired_note(section) if paired else "",
        detection=detection_rows(section),
        charts=_charts(anchor, section, styles),
        heat=heat_map(section),
        curves=curves,
        curves_note=curves_note(section) if curves else "",
        cost_head=cost_head(section),
        cost=cost_rows(section),
        cost_note=cost_note(section),
        samples=sample_cards(section),
        all_metrics=[METRIC_TITLES[metric] for metric in set_metrics(section)],
        tests=set_rows(section),
        methods=[method_facts(cell) for cell in section.cells],
        facts=section_facts(section),
        repeats=[f"{run.path.relative_to(folder).as_posix()} ({run.status})" for run in section.repeats],
    )


def _charts(anchor: str, section: Section, styles: Mapping[str, Style]) -> list[Chart]:
    small = "small_groups" in shown_metrics(section)
    worst = "weakest" if small else "worst_group"
    what = "worst group, or the small groups together if those are lower, falls" if small else "worst group falls"
    marks = "A small mark is one seed, the large one a method’s mean."
    found = [
        scatter(
            f"{anchor}-plot",
            section,
            styles,
            "aligned",
            "conflicting",
            "no shortcut: both alike",
            f"{marks} The further below the dotted line, the stronger the shortcut: aligned samples are right, "
            "conflicting ones wrong.",
        ),
        scatter(
            f"{anchor}-worst",
            section,
            styles,
            "average",
            worst,
            "all groups alike",
            f"{marks} The further below the dotted line, the more the {what} behind the average.",
        ),
    ]
    return [chart for chart in found if chart is not None]
