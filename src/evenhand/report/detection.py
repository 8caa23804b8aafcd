"""How well scores find the conflicting samples of the training set, and what computing them takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.metrics import Summary, summarize
from evenhand.report.cells import Cell, Section
from evenhand.runs.read import Record, number
from evenhand.wording import NOTHING, duration, mean_std

MEASURES = {"auroc": "AUROC", "average_precision": "Average precision", "sampling_mass": "Sampling mass"}
DETECTION_HEAD = ("Method", *MEASURES.values(), "Seeds")
SCORING_HEAD = "Scoring"  # on the page only: tables are the same whenever a study is run again, times are not
DETECTION_NOTE = (
    "How well the scores of the training samples find the conflicting ones, in %: area under the ROC curve, average "
    "precision, and the conflicting samples' share of the scores' sum, which is that of the draws."
)
SCORING_NOTE = (
    "“Scoring” is the mean time that computing the scores took; runs that took another's scores over carry that one's."
)


@dataclass(frozen=True)
class DetectionRow:
    """A method that scores training samples whose alignment is known."""

    label: str
    measures: dict[str, Summary]
    seconds: Summary

    @property
    def texts(self) -> list[str]:
        """The row as it is printed in tables."""
        n = max(summary.n for summary in self.measures.values())
        return [self.label, *(mean_std(summary, n) for summary in self.measures.values()), str(n)]

    @property
    def scoring(self) -> str:
        """The time that scoring took."""
        return NOTHING if self.seconds.mean is None else duration(self.seconds.mean)


def detection_rows(section: Section) -> list[DetectionRow]:
    """One row a cell with scores."""
    rows = [_row(cell) for cell in section.cells]
    return [row for row in rows if any(summary.n for summary in row.measures.values())]


def detection_data(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """The rows of all sections at full precision; fractions of 1."""
    return [
        {"section": section.heading, "label": row.label}
        | {f"{name}_{part}": getattr(row.measures[name], part) for name in MEASURES for part in ("mean", "std", "n")}
        for section in sections
        for row in detection_rows(section)
    ]


def _row(cell: Cell) -> DetectionRow:
    found = [(run, _detection(run)) for run in cell.done]
    measures = {name: summarize([number(detection.get(name)) for _, detection in found]) for name in MEASURES}
    seconds = [number(run.part("durations", "stages").get("scores")) for run, detection in found if detection]
    return DetectionRow(cell.label, measures, summarize(seconds))


def _detection(run: Record) -> dict[str, Any]:
    """What the stage `scores` says of it; empty where there is none or the alignment is unknown."""
    stages = run.raw.get("stages")
    for stage in stages if isinstance(stages, list) else []:
        if isinstance(stage, dict) and stage.get("name") == "scores" and isinstance(stage.get("detection"), dict):
            return stage["detection"]
    return {}
