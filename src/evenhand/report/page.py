"""The page: all that the template shows, gathered and rendered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evenhand.report.cells import Section
from evenhand.report.changed import MOST_SHOWN, changed, changed_table
from evenhand.report.chosen import Chosen
from evenhand.report.cost import cost_sentence
from evenhand.report.curves import curve_charts, curves_note
from evenhand.report.facts import commands
from evenhand.report.figures import Chart, Style, method_styles, scatter
from evenhand.report.headline import headline
from evenhand.report.ranking import SHORTCUT_GAP, best_other
from evenhand.report.samples import sample_cards
from evenhand.report.sweeps import Sweep, sweep_charts
from evenhand.report.tables import Tables, Told, shown_metrics
from evenhand.wording import LONGEST_TEXT, clipped, count, markdown_text, visible

LONG_TABLE = 30  # rows from which on a table scrolls in a box of its own


def render_page(title: str, told: Told, sweeps: Sequence[Sweep], folder: Path, chosen: Chosen | None = None) -> str:
    """The whole page as one HTML text, with its styles, script and data inside it."""
    from plotly.offline import get_plotlyjs  # half a second to import, and most uses of this room draw nothing

    styles = method_styles((cell.label, cell.is_baseline) for section, _ in told for cell in section.cells)
    views = [
        _view(f"section-{i}", section, tables, styles, folder) for i, (section, tables) in enumerate(told, start=1)
    ]
    swept = sweep_charts(sweeps, styles)
    drawn = bool(swept) or any(view["charts"] or view["curves"] for view in views)
    return render(
        "page.html.j2",
        visible,
        title=title,
        chosen=chosen,
        sections=views,
        sweeps=swept,
        styles=styles,
        most_changed=MOST_SHOWN,
        shortcut_gap=f"{100 * SHORTCUT_GAP:.0f}",
        # Once for all figures: it is most of the page's 5 MB.
        plotly=Markup(get_plotlyjs()) if drawn else None,
    )


def render(template: str, harmless: Callable[[str], str], **content: Any) -> str:
    """One of this room's templates, `*.html.j2` or `*.md.j2`.

    Args:
        template: Its file's name.
        harmless: What leaves every text that isn't markup without characters that would change what is around it;
            a page prints all through it, Markdown what goes through the filter `md`.
        content: What the template names.
    """
    is_page = template.endswith(".html.j2")

    def finalized(value: object) -> object:
        return harmless(value) if is_page and isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("evenhand.report", "."),
        autoescape=is_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalized,
    )
    environment.filters |= {
        "name": clipped,
        "long": lambda text: clipped(text, LONGEST_TEXT),
        "count": count,
        "visible": harmless,
        "md": lambda text: markdown_text(harmless(text)),
    }
    environment.globals["long_table"] = LONG_TABLE
    return environment.get_template(template).render(content)


def _view(anchor: str, section: Section, tables: Tables, styles: Mapping[str, Style], folder: Path) -> dict[str, Any]:
    """A section as the template takes it."""
    curves, against = curve_charts(f"{anchor}-curves", section, styles), changed(section)
    return {
        "anchor": anchor,
        "heading": section.heading,
        "headline": headline(section, cost_sentence(section, best_other(section))),
        "tables": tables,
        "charts": _charts(anchor, section, styles),
        "curves": curves,
        "curves_note": curves_note(section) if curves else "",
        "samples": sample_cards(section),
        "changed": against,
        "changed_counts": None if against is None else changed_table(against),
        "commands": {cell.label: found for cell in section.cells if (found := commands(cell))},
        "repeats": [f"{run.path.relative_to(folder).as_posix()} ({run.status})" for run in section.repeats],
    }


def _charts(anchor: str, section: Section, styles: Mapping[str, Style]) -> list[Chart]:
    small = "small_groups" in shown_metrics(section)
    worst = "weakest" if small else "worst_group"
    what = "worst group, or the small groups together if those are lower, falls" if small else "worst group falls"
    kinds = [
        (
            "plot",
            ("aligned", "conflicting"),
            "no shortcut: both alike",
            "the stronger the shortcut: aligned samples are right, conflicting ones wrong.",
        ),
        ("worst", ("average", worst), "all groups alike", f"the more the {what} behind the average."),
    ]
    marks = "A small mark is one seed, the large one a method’s mean. The further below the dotted line,"
    found = [
        scatter(f"{anchor}-{name}", section, styles, *axes, diagonal, f"{marks} {caption}")
        for name, axes, diagonal, caption in kinds
    ]
    return [chart for chart in found if chart is not None]
