"""Which tokens, colours, measures or column entries are likely shortcuts.

Legend: N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.auditing.association import LEAST_COUNT, Ranked, ranked, tabulate
from evenhand.auditing.attributes import Attribute, Views, by_tenths, colours, column_attributes
from evenhand.auditing.findings import (
    Candidate,
    Finding,
    Kind,
    Seen,
    attribute_candidate,
    corrected,
    first_that_separates,
    value_candidates,
)
from evenhand.auditing.inputs import text_measures, token_members
from evenhand.data.columns import PICTURE_COLUMNS, TEXT_COLUMNS, column_values, entries
from evenhand.data.looks import looks
from evenhand.tasks import Task
from evenhand.wording import listed

_KNOWN = frozenset((*TEXT_COLUMNS, *PICTURE_COLUMNS, "labels", "index", "id", "group", "attribute", "alignment"))
_NAMED = 8  # columns that weren't tested, in a note


@dataclass(frozen=True)
class Hint:
    """What looks like a shortcut.

    Attributes:
        findings: Leaks first, then strong shortcuts, weak ones, and mere associations; each by its gain.
        tested: How many tokens and columns were tested; the colour and each measure by its name.
        notes: What couldn't be tested.
    """

    findings: tuple[Finding, ...]
    tested: dict[str, int]
    notes: tuple[str, ...]

    @property
    def leaks(self) -> list[Finding]:
        """What tells the class of nearly every sample that has it."""
        return [finding for finding in self.findings if finding.verdict == "leak"]

    @property
    def strong(self) -> list[Finding]:
        """The findings that are called a likely shortcut."""
        return [finding for finding in self.findings if finding.verdict == "strong"]

    @property
    def weak(self) -> list[Finding]:
        """Shortcuts that tell the class of few samples only."""
        return [finding for finding in self.findings if finding.verdict == "weak"]

    @property
    def large(self) -> list[Finding]:
        """Associations that tell the class of many samples."""
        return [finding for finding in self.findings if finding.verdict == "association" and finding.is_large]

    def pointed(self, samples: int) -> NDArray[np.int64]:
        """The class that the strongest leak or shortcut on each sample points to, −1 for none, shape (N,)."""
        pointed_N = np.full(samples, -1)
        for finding in reversed([*self.leaks, *self.strong]):
            pointed_N = np.where(finding.match_N >= 0, finding.match_N, pointed_N)
        return pointed_N

    def explained(self, label_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which samples go against a shortcut, or against an association that points to what they are taken for."""
        explained_N = np.zeros(len(label_N), dtype=bool)
        for finding in self.findings:
            against_N = (finding.match_N >= 0) & (finding.match_N != label_N)
            if finding.verdict == "association":
                against_N &= finding.match_N == predicted_N
            explained_N |= against_N
        return explained_N


def find_hints(task: Task, score_N: NDArray[np.float64], predicted_N: NDArray[np.int64]) -> Hint:
    """Test every token, the colour, what is measured and every other column of the training split.

    Args:
        task: The task.
        score_N: Each training sample's score, shape (N,).
        predicted_N: The class that the biased model takes it for, shape (N,).
    """
    label_N = column_values(task.train, "labels")
    tests = _Tests(ranked(score_N, label_N, len(task.label_names)), Seen(task.label_names, label_N, predicted_N))
    if task.kind == "text":
        _test_texts(tests, task.train)
    elif any(column in task.train.column_names for column in PICTURE_COLUMNS):
        _test_pictures(tests, task.train)
    _test_columns(tests, task)
    return Hint(tuple(corrected(tests.candidates, tests.scores)), tests.counts, tuple(tests.notes))


@dataclass
class _Tests:
    """What was tested so far."""

    scores: Ranked
    seen: Seen
    candidates: list[Candidate] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def add(self, kind: Kind, views: Views, place: str | None = None) -> None:
        """Test an attribute, in one of its views."""
        found = [attribute_candidate(kind, place, _frequent(view), self.scores, self.seen) for view in views]
        self.candidates.append(first_that_separates(found))


def _test_texts(tests: _Tests, split: datasets.Dataset) -> None:
    for column in TEXT_COLUMNS:
        if column not in split.column_names:
            continue
        names, member_NV = token_members(split, column)
        if names:
            places: list[tuple[str, str | None]] = [(name, column) for name in names]
            found = value_candidates("token", places, member_NV, tabulate(member_NV, tests.scores), tests.seen)
            tests.candidates.extend(found)
            tests.count("token", len(found))
        else:
            tests.notes.append(f"No token of '{column}' is on {LEAST_COUNT} samples, so none was tested.")
        _test_measures(tests, text_measures(split, column), column)


def _test_pictures(tests: _Tests, split: datasets.Dataset) -> None:
    seen = looks(split)
    views = colours(seen.color_N3)
    if views:
        tests.add("colour", views)
        tests.count("colour")
    else:
        tests.notes.append("The images have no colour, so it was not tested.")
    _test_measures(tests, seen.measures, None)


def _test_measures(tests: _Tests, measures: dict[str, NDArray[np.float64]], place: str | None) -> None:
    constant = []
    for name, number_N in measures.items():
        attribute = by_tenths(name, number_N)
        if attribute is None:
            constant.append(name)
        else:
            tests.add("measure", [attribute], place)
            tests.count(name)
    if constant:
        tests.notes.append(f"Not tested, since all inputs have the same: {listed(constant)}.")


def _test_columns(tests: _Tests, task: Task) -> None:
    left_out: dict[str, list[str]] = {}
    for name, held in _columns(task):
        found = column_attributes(name, held, task.label_names) if held is not None else "lists, objects or bytes"
        if isinstance(found, str):
            left_out.setdefault(found, []).append(name)
            continue
        for views in found:
            tests.add("column", views)
        tests.count("column")
    for why, names in left_out.items():
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        tests.notes.append(f"Columns not tested, as they hold {why}: {', '.join(names[:_NAMED])}{more}.")


def _columns(task: Task) -> Iterator[tuple[str, pa.ChunkedArray | None]]:
    """What the rows hold beside inputs, labels and known groups, and what the user's files hold beside the rows."""
    split = task.train
    for name in split.column_names:
        if name not in _KNOWN:
            yield name, entries(split, name)
    if task.beside is not None:
        beside = task.beside("train")
        for name in beside.names:
            yield name, beside.column(name)
        for name in beside.nested:
            yield name, None


def _frequent(attribute: Attribute) -> Attribute:
    """The attribute without values on too few samples."""
    present_N = attribute.value_N >= 0
    count_V = np.bincount(attribute.value_N[present_N], minlength=len(attribute.names))
    kept = np.flatnonzero(count_V >= LEAST_COUNT)
    place_V = np.full(len(attribute.names) + 1, -1)  # the last one is that of samples without a value
    place_V[kept] = np.arange(len(kept))
    return replace(attribute, value_N=place_V[attribute.value_N], names=[attribute.names[v] for v in kept])
