"""The page: all that the template shows, gathered and rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from evenhand.report.cells import Section
from evenhand.report.details import (
    Fact,
    GroupRow,
    MethodFacts,
    SetRow,
    group_rows,
    method_facts,
    section_facts,
    set_rows,
)
from evenhand.report.detection import (
    DETECTION_HEAD,
    DETECTION_NOTE,
    SCORING_HEAD,
    SCORING_NOTE,
    DetectionRow,
    detection_rows,
)
from evenhand.report.figures import accuracy_figure
from evenhand.report.headline import SHORTCUT_GAP, headline
from evenhand.report.notes import section_notes
from evenhand.report.paired import PAIRED_HEAD, PairedRow, paired_note, paired_rows
from evenhand.report.records import METRICS
from evenhand.report.samples import SampleCards, sample_cards
from evenhand.report.styles import Style, method_styles
from evenhand.report.tables import SHOWN_METRICS, MethodRow, method_rows
from evenhand.report.wording import METRIC_TITLES


@dataclass(frozen=True)
class SectionView:
    """A section as the template takes it."""

    anchor: str
    heading: str
    headline: str
    notes: list[str]
    rows: list[MethodRow]
    baseline_name: str
    paired: list[PairedRow]
    paired_note: str
    detection: list[DetectionRow]
    figure: Markup | None
    samples: SampleCards | None
    tests: list[SetRow]
    groups: list[GroupRow]
    finished: list[str]
    methods: list[MethodFacts]
    facts: list[Fact]
    repeats: list[str]


def render_page(title: str, sections: Sequence[Section], folder: Path) -> str:
    """The whole page as one HTML text, with its styles, script and data inside it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    room = files("evenhand.report")
    styles = method_styles((cell.label, cell.is_baseline) for section in sections for cell in section.cells)
    views = [_view(f"section-{i}", section, styles, folder) for i, section in enumerate(sections, start=1)]
    return environment.from_string(room.joinpath("page.html.j2").read_text(encoding="utf-8")).render(
        title=title,
        sections=views,
        styles=styles,
        paired_head=PAIRED_HEAD,
        detection_head=(*DETECTION_HEAD, SCORING_HEAD),
        detection_note=f"{DETECTION_NOTE} {SCORING_NOTE}",
        shown_metrics=[METRIC_TITLES[metric] for metric in SHOWN_METRICS],
        all_metrics=[METRIC_TITLES[metric] for metric in METRICS],
        shortcut_gap=f"{100 * SHORTCUT_GAP:.0f}",
        css=Markup(room.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(room.joinpath("page.js").read_text(encoding="utf-8")),
        # Once for all figures: it is most of the page's 5 MB.
        plotly=Markup(get_plotlyjs()) if any(view.figure for view in views) else None,
    )


def _view(anchor: str, section: Section, styles: Mapping[str, Style], folder: Path) -> SectionView:
    figure = accuracy_figure(section, styles)
    paired = paired_rows(section)
    return SectionView(
        anchor=anchor,
        heading=section.heading,
        headline=headline(section),
        notes=section_notes(section),
        rows=method_rows(section),
        baseline_name=section.baseline_name,
        paired=paired,
        paired_note=paired_note(section) if paired else "",
        detection=detection_rows(section),
        figure=None if figure is None else _script_json(figure.to_json() or "null"),
        samples=sample_cards(section),
        tests=set_rows(section),
        groups=group_rows(section),
        finished=[cell.label for cell in section.cells if cell.done],
        methods=[method_facts(cell) for cell in section.cells],
        facts=section_facts(section),
        repeats=[f"{run.path.relative_to(folder).as_posix()} ({run.status})" for run in section.repeats],
    )


def _script_json(text: str) -> Markup:
    """JSON that may stand in a <script>: no name within it can close the element or open a comment."""
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
