"""Which tokens, colours, measures or column entries are likely shortcuts.

Legend: N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.auditing.association import LEAST_COUNT, Ranked, ranked, tabulate
from evenhand.auditing.attributes import Views, by_tenths, colours, column_attributes, file_attribute
from evenhand.auditing.findings import (
    Candidate,
    Finding,
    Kind,
    Seen,
    attribute_candidate,
    corrected,
    first_that_separates,
    token_candidates,
)
from evenhand.auditing.inputs import text_measures, token_members
from evenhand.data.columns import PICTURE_COLUMNS, TEXT_COLUMNS, column_values, entries
from evenhand.shortcuts import Samples, Shortcut
from evenhand.shortcuts.coding import is_label, read
from evenhand.shortcuts.columns import NESTED
from evenhand.shortcuts.spelling import FILE_PARTS
from evenhand.shortcuts.spelling import Kind as Spelled
from evenhand.tasks import Task
from evenhand.tasks.shortcuts import samples_of
from evenhand.wording import listed

_KNOWN = frozenset((*TEXT_COLUMNS, *PICTURE_COLUMNS, "labels", "index", "id", "group", "attribute", "alignment"))
_NAMED = 8  # columns that weren't tested, in a note


@dataclass(frozen=True)
class Hint:
    """What looks like a shortcut.

    Attributes:
        findings: Leaks first, then strong shortcuts, weak ones, and mere associations; each by its gain.
        tested: How many tokens and columns were tested; the colour, each measure and each part of files by its name.
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
    samples = samples_of(task, "train")
    tests = _Tests(ranked(score_N, label_N, len(task.label_names)), Seen(task.label_names, label_N, predicted_N))
    if task.kind == "text":
        _test_texts(tests, samples)
    elif samples.picture is not None:
        _test_pictures(tests, samples)
    _test_columns(tests, samples)
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
        found = [attribute_candidate(kind, place, view, self.scores, self.seen) for view in views]
        self.candidates.append(first_that_separates(found))


def _test_texts(tests: _Tests, samples: Samples) -> None:
    places = samples.texts
    for own, column in places.items():
        field = own if len(places) > 1 else None
        names, member_NV = token_members(samples.split, column)
        if names:
            rules = [Shortcut("token", field, (name,)) for name in names]
            table = tabulate(member_NV, tests.scores)
            tests.candidates.extend(token_candidates(rules, own, member_NV, table, tests.seen))
            tests.count("token", len(rules))
        else:
            tests.notes.append(f"No token of '{own}' is on {LEAST_COUNT} samples, so none was tested.")
        measured = {Shortcut("length", field): text_measures(samples.split, column)["length"]}
        _test_measures(tests, measured, own)


def _test_pictures(tests: _Tests, samples: Samples) -> None:
    views = colours(samples.looks.color_N3)
    if views:
        tests.add("colour", views)
        tests.count("colour")
    else:
        tests.notes.append("The images have no colour, so it was not tested.")
    measured = {Shortcut(cast(Spelled, name)): number_N for name, number_N in samples.looks.measures.items()}
    _test_measures(tests, measured, None)
    if samples.picture == "image":
        _test_files(tests, samples)


def _test_measures(tests: _Tests, measured: dict[Shortcut, NDArray[np.float64]], place: str | None) -> None:
    constant = []
    for rule, number_N in measured.items():
        attribute = by_tenths(rule, number_N)
        if attribute is None:
            constant.append(rule.kind)
        else:
            tests.add("measure", [attribute], place)
            tests.count(rule.kind)
    if constant:
        tests.notes.append(f"Not tested, since all inputs have the same: {listed(constant)}.")


def _test_files(tests: _Tests, samples: Samples) -> None:
    left_out: dict[str, list[str]] = {}
    for part in FILE_PARTS:
        rule = Shortcut("file", values=(part,))
        column = read(rule, samples, tests.seen.classes)
        is_the_label = is_label(column, tests.seen.label_N, tests.seen.classes)
        attribute = "the label" if is_the_label else file_attribute(rule, column)
        if isinstance(attribute, str):
            left_out.setdefault(attribute, []).append(part)
        else:
            tests.add("file", [attribute])
            tests.count(f"file's {part}")
    for why, parts in left_out.items():
        tests.notes.append(f"Not tested of the pictures' files, as it holds {why}: {listed(parts)}.")


def _test_columns(tests: _Tests, samples: Samples) -> None:
    left_out: dict[str, list[str]] = {}
    for name, held in _columns(samples):
        found = NESTED if held is None else column_attributes(name, held, tuple(tests.seen.classes))
        if held is not None and not isinstance(found, str) and is_label(held, tests.seen.label_N, tests.seen.classes):
            found = "the label"
        if isinstance(found, str):
            left_out.setdefault(found, []).append(name)
            continue
        for views in found:
            # a column that may not be named, such as the group, is tested all the same
            known = views if name in samples.columns else [replace(view, shortcut=None) for view in views]
            tests.add("column", known)
        tests.count("column")
    for why, names in left_out.items():
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        tests.notes.append(f"Columns not tested, as they hold {why}: {', '.join(names[:_NAMED])}{more}.")


def _columns(samples: Samples) -> Iterator[tuple[str, pa.ChunkedArray | None]]:
    """What the rows hold beside inputs, labels and known groups, and what the user's files hold beside the rows."""
    split, beside = samples.split, samples.beside
    own = [name for name in split.column_names if name not in _KNOWN]
    for name in own:
        yield name, entries(split, name)
    if beside is not None:
        for name in beside.names:
            if name not in own:
                yield name, beside.column(name)
        for name in beside.nested:
            yield name, None
