"""Which tokens, colours or column entries are likely shortcuts.

Legend: N samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from evenhand.auditing.association import LEAST_COUNT, Ranked, ranked, tabulate
from evenhand.auditing.findings import (
    Candidate,
    Finding,
    attribute_candidate,
    corrected,
    first_that_separates,
    value_candidates,
)
from evenhand.auditing.inputs import TEXT_COLUMNS, Attribute, colours, columns, token_members
from evenhand.tasks import Task
from evenhand.tasks.base import column_values


@dataclass(frozen=True)
class Hint:
    """What looks like a shortcut.

    Attributes:
        findings: Strong shortcuts first, then weak ones, then mere associations; each by its gain.
        tested: How many tokens and attributes were tested, by kind.
        notes: What couldn't be tested.
    """

    findings: tuple[Finding, ...]
    tested: dict[str, int]
    notes: tuple[str, ...]

    @property
    def strong(self) -> list[Finding]:
        """The findings that are called a likely shortcut."""
        return [finding for finding in self.findings if finding.verdict == "strong"]

    @property
    def weak(self) -> list[Finding]:
        """Shortcuts that tell the class of few samples only."""
        return [finding for finding in self.findings if finding.verdict == "weak"]

    def pointed(self, samples: int) -> NDArray[np.int64]:
        """The class that the strongest shortcut on each sample points to, −1 for none, shape (N,)."""
        pointed_N = np.full(samples, -1)
        for finding in reversed(self.strong):
            pointed_N = np.where(finding.match_N >= 0, finding.match_N, pointed_N)
        return pointed_N


def find_hints(task: Task, score_N: NDArray[np.float64]) -> Hint:
    """Test every token, the colour and every other column of the training split.

    Args:
        task: The task.
        score_N: Each training sample's score, shape (N,).
    """
    split = task.train
    label_N = column_values(split, "labels")
    scores = ranked(score_N, label_N, len(task.label_names))
    notes: list[str] = []
    candidates: list[Candidate] = []
    tested: dict[str, int] = {}

    def add(kind: str, found: list[Candidate]) -> None:
        candidates.extend(found)
        tested[kind] = tested.get(kind, 0) + len(found)

    for column in TEXT_COLUMNS:
        if task.kind == "text" and column in split.column_names:
            names, member_NV = token_members(split, column)
            if names:
                places: list[tuple[str, str | None]] = [(name, column) for name in names]
                table = tabulate(member_NV, scores)
                add("token", value_candidates("token", places, member_NV, table, task.label_names))
            else:
                notes.append(f"No token of '{column}' is on {LEAST_COUNT} samples, so none was tested.")
    if task.kind == "image":
        views = colours(split)
        if not views:
            notes.append("The images have no colour, so it was not tested.")
        else:
            add("colour", [first_that_separates([_tested("colour", view, scores, task) for view in views])])
    others, left_out = columns(split)
    add("column", [_tested("column", attribute, scores, task) for attribute in others])
    if left_out:
        notes.append(f"Not tested, since they have one value, too many, or no plain ones: {', '.join(left_out)}.")
    return Hint(tuple(corrected(candidates)), {kind: n for kind, n in tested.items() if n}, tuple(notes))


def _tested(kind: Any, attribute: Attribute, scores: Ranked, task: Task) -> Candidate:
    value_N, names = _frequent(attribute)
    present = np.flatnonzero(value_N >= 0)
    member_NV = sparse.csr_array(
        (np.ones(len(present)), (present, value_N[present])), shape=(len(value_N), max(1, len(names)))
    )
    return attribute_candidate(kind, attribute.name, names, value_N, tabulate(member_NV, scores), task.label_names)


def _frequent(attribute: Attribute) -> tuple[NDArray[np.int64], list[str]]:
    """The attribute without values on too few samples."""
    present_N = attribute.value_N >= 0
    count_V = np.bincount(attribute.value_N[present_N], minlength=len(attribute.names))
    kept = np.flatnonzero(count_V >= LEAST_COUNT)
    place_V = np.full(len(attribute.names) + 1, -1)  # the last one is that of samples without a value
    place_V[kept] = np.arange(len(kept))
    return place_V[attribute.value_N], [attribute.names[v] for v in kept]
