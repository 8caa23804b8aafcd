"""Paired tests across seeds against the baseline, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.metrics import PairedDifference, holm
from evenhand.report.cells import Section, difference
from evenhand.runs.read import METRICS
from evenhand.wording import METRIC_TITLES, NOTHING, interval, points

PAIRED_HEAD = ("Method", "Metric", "Difference (points)", "95% interval", "Seeds", "p", "p, Holm")


@dataclass(frozen=True)
class PairedRow:
    """One method against the baseline in one metric.

    Attributes:
        label: The method.
        metric: One of METRICS, or `small_groups`.
        paired: The difference over the seeds that both have.
        p_holm: p of the paired t-test, corrected for all methods of the section in this metric.
    """

    label: str
    metric: str
    paired: PairedDifference
    p_holm: float | None

    @property
    def texts(self) -> list[str]:
        """The row as it is printed."""
        change = self.paired.summary
        numbers = [points(change.mean), interval(change) or NOTHING, str(change.n)]
        return [self.label, METRIC_TITLES[self.metric], *numbers, p_text(self.paired.p), p_text(self.p_holm)]


def paired_rows(section: Section) -> list[PairedRow]:
    """Every method that was tried against the baseline, in every metric that is defined; none without a baseline."""
    baseline = section.baseline
    if baseline is None:
        return []
    others = [cell for cell in section.cells if cell is not baseline and cell.is_tried]
    rows: list[PairedRow] = []
    for metric in section.metrics(METRICS):
        paired = [difference(cell.values(metric), baseline.values(metric)) for cell in others]
        corrected = holm([test.p for test in paired])
        rows += [
            PairedRow(cell.label, metric, test, p)
            for cell, test, p in zip(others, paired, corrected, strict=True)
            if test.summary.n
        ]
    return rows


def paired_note(section: Section) -> str:
    """What the table of tests holds."""
    baseline = section.baseline
    assert baseline is not None
    return (
        f"Paired t-tests against {baseline.label} over the seeds that both have run, two-sided; “p, Holm” is corrected "
        "for the number of methods compared in the same metric."
    )


def paired_data(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """The tests of all sections, one row each, at full precision; differences are fractions of 1."""
    rows: list[dict[str, Any]] = []
    for section in sections:
        for row in paired_rows(section):
            change = row.paired.summary
            assert section.baseline is not None
            rows.append(
                {
                    "section": section.heading,
                    "label": row.label,
                    "baseline": section.baseline.label,
                    "metric": row.metric,
                    "difference_mean": change.mean,
                    "difference_std": change.std,
                    "low": change.low,
                    "high": change.high,
                    "n": change.n,
                    "p": row.paired.p,
                    "p_holm": row.p_holm,
                }
            )
    return rows


def p_text(p: float | None) -> str:
    """As in "0.013"; what is smaller than 0.001 is given as such."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
