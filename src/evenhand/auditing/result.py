"""`Audit`: what was found, as a table of samples and as plain data, with the samples to look at.

Legend: N training samples.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from evenhand.auditing.advice import Advice
from evenhand.auditing.confirmed import nameable
from evenhand.auditing.detection import Agreement, ClassView, Detection, decile_masses, histogram
from evenhand.auditing.hints import Hint
from evenhand.auditing.labels import CONFIDENT, Opposites, Suspects
from evenhand.auditing.verdict import line, tested_text, verdict
from evenhand.data.columns import PICTURE_COLUMNS, TEXT_COLUMNS
from evenhand.data.looks import pictures
from evenhand.data.measures import Picture
from evenhand.evaluation.exports import write_csv
from evenhand.files import whole_file
from evenhand.runs.record import versions, write_json
from evenhand.shortcuts import Shortcut
from evenhand.tasks import Task
from evenhand.validation import UserError

FORMAT = 2  # of audit.json
SHOWN = {"image": (48, 24), "text": (20, 10)}
"""How many of the highest and of the lowest scores are shown."""
SHOWN_SUSPECTS = 24
SHOWN_FINDINGS = 30
LONGEST_TEXT = 400  # characters of a text that is shown
LONGEST_NAME = 80  # and of an id
SIDE = 96  # pixels of a shown picture's longer side


@dataclass(frozen=True)
class Audit:
    """Whether data hold a shortcut, which samples go against it, and what to do.

    Attributes:
        task: The task.
        model: The biased models' name.
        described: Where they come from.
        seeds: Their seeds; None for a model given as it is.
        data_seed: The seed of the data.
        scored_by: Which gradient's norm scores.
        frame: The rows, as `to_frame` gives them.
        hint: What looks like a shortcut.
        agreement: How alike the models' scores are; None for one model.
        detection: How well scores find the samples known to conflict; None where that isn't known.
        classes: The classes.
        opposites: Samples that the biased model surely takes for another class, and that nothing found explains.
        suspects: Samples whose label looks wrong.
        advice: What to do.
        notes: What a reader must know, a sentence each.
        folder: The audit's folder.
        made: When it was made, in UTC.
        data: What the data are known again by, as of `data_identity`.
        confirmed: Spelling → whether a person said that the model must not rely on it.
    """

    task: Task
    model: str
    described: str
    seeds: tuple[int | None, ...]
    data_seed: int
    scored_by: str
    frame: pd.DataFrame
    hint: Hint
    agreement: Agreement | None
    detection: Detection | None
    classes: list[ClassView]
    opposites: Opposites
    suspects: Suspects
    advice: Advice
    notes: tuple[str, ...]
    folder: Path
    made: str
    data: Mapping[str, Any] = field(default_factory=dict)
    confirmed: Mapping[str, bool] = field(default_factory=dict)

    @property
    def shortcuts(self) -> tuple[Shortcut, ...]:
        """The likely shortcuts, leaks first, each a rule of its own, to be passed on to `fit`."""
        found = nameable(self.task, (*self.hint.leaks, *self.hint.strong))
        return tuple(finding.shortcut for finding, _ in found if finding.shortcut is not None)

    def to_frame(self) -> pd.DataFrame:
        """One row a sample: the training samples in the data's order, and after them those of the other splits.

        `id` is the data's own name of the row, or the index in its `split`; of your own data `file`, `row` (counted
        from 1, without a header line) and `line` say where it lies; `score` is the sample's sampling
        probability (those of the training samples sum to 1, the others are on the same scale) and `times_uniform` the
        same as a multiple of the training samples' mean; `rank` 1 has the highest score of its split; `prediction`,
        `confidence` and `probability_of_label` are the biased models'. `shortcut_points_to` is the class that the
        strongest found shortcut points to, if the sample has one, and `suspect_label` marks labels that look wrong;
        both are known of training samples only. With several seeds their own scores follow. What the data know of
        groups comes last.
        """
        return self.frame.copy()

    @property
    def training(self) -> pd.DataFrame:
        """The rows on which all findings rest: the training samples, or those that a classifier was asked about."""
        return self.frame.loc[(self.frame["split"] == self.frame["split"].iloc[0]).to_numpy()]

    def summary(self) -> str:
        """The result in a few lines."""
        lines = [f"{self.task.name}: {self.verdict}"]
        lines += [f"  {line}" for line in self.finding_lines()]
        masses = self.masses
        lines.append(f"The tenth with the highest scores has {100 * masses[0]:.1f} % of the sampling mass.")
        if self.agreement is not None and self.agreement.rank_correlation is not None:
            lines.append(
                f"{self.agreement.seeds} models agree on the scores with a rank correlation of "
                f"{self.agreement.rank_correlation:.2f} and share {100 * self.agreement.overlap:.0f} % of their "
                f"{self.agreement.first} first samples."
            )
        if self.detection is not None:
            known = self.detection
            at = ", ".join(f"{100 * share:.1f} % of the first {k:,}" for k, share in known.precision)
            lines.append(
                f"Known to conflict: {known.conflicting:,} of {known.samples:,}. AUROC {known.auroc:.3f}, average "
                f"precision {known.average_precision:.3f}; {at} conflict."
            )
        if len(self.suspects.rows):
            what = (
                "go against the rest or have wrong labels (look before you delete any: if a shortcut is behind it, "
                "they are its cure)"
                if self.opposites.unnamed
                else "look like wrong labels (a suspicion: look at them)"
            )
            lines.append(f"{len(self.suspects.rows):,} of the {self.suspects.looked_at:,} highest scores {what}.")
        lines.append(f"Advice: {self.advice.text}")
        lines.append(f"  {self.advice.command}")
        if self.advice.by_name is not None:
            lines += ["Or by the shortcut's name, if the model must not rely on it:", f"  {self.advice.by_name}"]
        return "\n".join(lines)

    @property
    def masses(self) -> list[float]:
        """Share of the scores' sum of each tenth of the samples, from the highest scores down."""
        return decile_masses(self.training["score"].to_numpy())

    @property
    def verdict(self) -> str:
        """The findings in a few sentences."""
        return verdict(self.hint, self.opposites, self.task.kind, len(self.training))

    def finding_lines(self) -> list[str]:
        """A line a finding that must be looked at."""
        called = (*self.hint.leaks, *self.hint.strong, *self.hint.weak, *self.hint.large)
        return [line(finding) for finding in called[:SHOWN_FINDINGS]]

    def as_dict(self) -> dict[str, Any]:
        """All that the page shows, as plain data; equal to `audit.json`."""
        training = self.training
        scores = training["score"].to_numpy()
        order = np.argsort(training["rank"].to_numpy(), kind="stable")
        high, low = SHOWN[self.task.kind]
        findings = [finding.as_dict() for finding in self.hint.findings[:SHOWN_FINDINGS]]
        findings = [{**one, "confirmed": self.confirmed.get(one["shortcut"])} for one in findings]
        samples = len(order)
        return {
            "format": FORMAT,
            "kind": "audit",
            "task": self.task.name,
            "data": dict(self.data),
            "inputs": self.task.kind,
            "samples": samples,
            "split": str(self.frame["split"].iloc[0]),
            "classes": [dataclasses.asdict(view) for view in self.classes],
            "model": self.model,
            "models": self.described,
            "seeds": list(self.seeds),
            "data_seed": self.data_seed,
            "scored_by": self.scored_by,
            "verdict": self.verdict,
            "shortcut": bool(self.hint.leaks or self.hint.strong),
            "unnamed": self.opposites.unnamed,
            "findings": findings,
            "findings_in_all": len(self.hint.findings),
            "tested": tested_text(self.hint.tested) or "nothing",
            "decile_masses": self.masses,
            "histogram": histogram(scores),
            "agreement": None if self.agreement is None else dataclasses.asdict(self.agreement),
            "detection": None if self.detection is None else dataclasses.asdict(self.detection),
            "suspects": {
                "count": len(self.suspects.rows),
                "looked_at": self.suspects.looked_at,
                "explained": self.suspects.explained,
                "confident": CONFIDENT,
                "right_when_confident": self.suspects.right_when_confident,
                "shown": _shown_samples(self.task, training, self.suspects.rows[:SHOWN_SUSPECTS]),
            },
            "highest": _shown_samples(self.task, training, order[:high]),
            "lowest": _shown_samples(self.task, training, order[::-1][: min(low, max(0, samples - high))]),
            "advice": dataclasses.asdict(self.advice),
            "notes": [*self.notes, *self.hint.notes],
            "made": self.made,
            "versions": versions(),
        }

    def export(self, path: Path | str) -> Path:
        """Write `to_frame` as Parquet or CSV, by the file's ending.

        Raises:
            UserError: If the ending is another one or the file can't be written.
        """
        path = Path(path)
        if path.suffix not in (".parquet", ".csv"):
            raise UserError(f"Scores are written as .parquet or .csv. Got '{path}'.")
        with whole_file(path) as partial:
            if path.suffix == ".csv":
                write_csv(self.frame, partial)
            else:
                self.frame.to_parquet(partial, index=False)
        return path

    def save(self, folder: Path | str) -> list[Path]:
        """Write `audit.json`, `scores.parquet` and `scores.csv` into a folder; each appears whole or not at all."""
        folder = Path(folder)
        scores = [self.export(folder / "scores.parquet"), self.export(folder / "scores.csv")]
        write_json(folder / "audit.json", self.as_dict())
        return [folder / "audit.json", *scores]


def _shown_samples(task: Task, frame: pd.DataFrame, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """What a page shows of some training samples.

    Args:
        task: The task.
        frame: The audit's table, a row a training sample.
        rows: The samples, in the order to show them.

    Returns:
        For each sample its entries of the table, and `png` (base64; None where the picture can't be read) or `texts`
        (column → text, cut, with its whole length under `lengths`).
    """
    entries = [_plain(record) for record in frame.iloc[rows].to_dict("records")]
    if task.kind == "image":
        if any(name in task.train.column_names for name in PICTURE_COLUMNS):
            found = [picture for batch in pictures(task.train, rows) for picture in batch]
            for entry, picture in zip(entries, found, strict=True):
                entry["png"] = None if picture is None else _png(picture)
        return entries
    split = task.train.select_columns([name for name in TEXT_COLUMNS if name in task.train.column_names])
    for entry, texts in zip(entries, split.select(rows).to_list(), strict=True):
        whole = {name: text or "" for name, text in texts.items()}
        entry["texts"] = {name: text[:LONGEST_TEXT] for name, text in whole.items()}
        entry["lengths"] = {name: len(text) for name, text in whole.items()}
    return entries


def _plain(record: dict[Any, Any]) -> dict[str, Any]:
    """Entries as JSON has them."""
    plain: dict[str, Any] = {}
    for name, value in record.items():
        if hasattr(value, "item"):
            value = value.item()
        plain[str(name)] = None if value is pd.NA or (isinstance(value, float) and np.isnan(value)) else value
    if isinstance(plain.get("id"), str):
        plain["id"] = plain["id"][:LONGEST_NAME]
    return plain


def _png(picture: Picture) -> str:
    array_HWC = np.clip(picture.pixels_CHW, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(array_HWC[:, :, 0] if array_HWC.shape[2] < 3 else array_HWC[:, :, :3])
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
