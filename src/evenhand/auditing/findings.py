"""What the tests of tokens, colours, measures and columns are made into: findings, with a verdict each.

Legend: N samples, V values, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from evenhand.auditing.association import (
    SIGNIFICANCE,
    Pointing,
    Ranked,
    Separation,
    Table,
    pointing,
    pooled_separations,
    separations,
    tabulate,
)
from evenhand.auditing.attributes import Attribute
from evenhand.metrics import holm
from evenhand.shortcuts import Shortcut
from evenhand.shortcuts.pointing import fisher_p, pointed_classes

LEAST_SEPARATION = 0.6
"""Conflicting samples must outscore their classmates this often, and aligned ones be outscored."""
STRONG_GAIN = 0.02
STRONG_SEPARATION = 0.75
"""From this gain and separation of conflicting samples on, a shortcut is called strong."""

FEW_AGAINST = 10
"""Where fewer samples than these go against a value, no method has anything to learn from."""
NEARLY_ALL = 0.95
"""And where it tells the class of this share of its samples, it is a leak."""
LARGE_GAIN = 0.05
TELLING = 0.8
"""From this gain on, and where it is right on this share of its samples, an association stands among the findings."""
FOLLOWED = 0.5
"""How bright or long inputs are often belongs to what they show: the model must follow it where it misleads."""
LEAST_REST = 0.25
"""Where fewer samples than this share are in parts of a number that point nowhere, the others are compared alone."""
CLEAR = 0.8
"""Of the parts that a number is cut into, only those are compared by their scores that point to a class at least this
much as clearly as the clearest."""
ALIKE = 0.9
"""Two findings that tell the same class of this share of the samples that either is on are one."""

Kind = Literal["token", "colour", "measure", "column", "file"]
Verdict = Literal["leak", "strong", "weak", "association"]


@dataclass(frozen=True)
class Seen:
    """The samples as the data and the biased model see them.

    Attributes:
        classes: Names of the classes.
        label_N: Their classes, shape (N,).
        predicted_N: What the model takes them for, shape (N,).
    """

    classes: Sequence[str]
    label_N: NDArray[np.int64]
    predicted_N: NDArray[np.int64]


@dataclass(frozen=True)
class Value:
    """One value that points to a class.

    Attributes:
        name: The token, the colour's code, or the column's entry.
        points_to: The class.
        count: Samples with the value.
        share: Share of the class among them.
        base: Its share among all samples.
        conflicting: Samples with the value that have another class.
    """

    name: str
    points_to: str
    count: int
    share: float
    base: float
    conflicting: int


@dataclass(frozen=True)
class Finding:
    """A token, the colour, a measure, or a column whose values point to classes.

    Attributes:
        kind: `token`, `colour`, `measure` (how bright, large, long, … inputs are), `column`, or `file` (a picture's).
        name: The token, "colour", the measure, the column's name, or the part of the file.
        place: The user's name of the column that a token stands in, or of a text that is measured.
        shortcut: The rule by which it was found, whose spelling can be passed on; None for a column that can't be
            named as a shortcut, such as the group.
        verdict: `leak`: nearly no sample goes against the values, so neither scores nor a method have anything to go
            by. `strong` and `weak` shortcuts: labels and scores say so. `association`: the values point to classes, but
            the scores don't show that the biased model uses them.
        values: The values that point to a class, those with the most samples first.
        covered: Share of samples with such a value.
        gain: Share of all samples whose class the values tell beyond what the classes' shares tell.
        aligned: Samples with a value and the class that it points to.
        conflicting: Samples with a value and another class.
        auroc_conflicting: Probability that a conflicting sample outscores a classmate that doesn't conflict.
        auroc_aligned: The same of aligned samples; low.
        p: Largest p of the three tests (association; scores of conflicting; of aligned samples), after Holm's
            correction for everything that was tested.
        followed: Share of the conflicting samples that the biased model takes for the class that their value points to;
            of a number's parts, those count that hold one class.
        also: What goes with it and says nothing beside it: kind, name and place of each.
        match_N: The class that a sample's value points to, −1 for none, shape (N,); not part of the data written.
    """

    kind: Kind
    name: str
    place: str | None
    shortcut: Shortcut | None
    verdict: Verdict
    values: tuple[Value, ...]
    covered: float
    gain: float
    aligned: int
    conflicting: int
    auroc_conflicting: float | None
    auroc_aligned: float | None
    p: float
    followed: float | None
    match_N: NDArray[np.int64]
    also: tuple[tuple[Kind, str, str | None], ...] = ()

    @property
    def right(self) -> float:
        """Share of the samples with a value that have the class it points to."""
        return self.aligned / max(1, self.aligned + self.conflicting)

    @property
    def is_large(self) -> bool:
        """Whether it tells so much that it must be looked at, whatever the scores say."""
        return self.gain >= LARGE_GAIN and self.right >= TELLING

    def as_dict(self) -> dict[str, Any]:
        """Plain data, without the samples."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("match_N", "values")}
        spelling = None if self.shortcut is None else self.shortcut.spelling
        values = [vars(value) for value in self.values]
        return kept | {"shortcut": spelling, "large": self.is_large, "values": values}


@dataclass(frozen=True)
class Candidate:
    """What was tested: its p before correction, and how to make a finding of it (None where nothing points)."""

    p_association: float
    p: float
    finding: Finding | None


def corrected(candidates: Sequence[Candidate], scores: Ranked) -> list[Finding]:
    """The findings that stand after Holm's correction for all candidates: leaks first, then by verdict and gain.

    One that says nothing beside another is named with that one: it is on the same samples, or its scores separate only
    because of the samples that go against the other.
    """
    p_all = holm([candidate.p for candidate in candidates])
    p_association = holm([candidate.p_association for candidate in candidates])
    found = []
    for candidate, p, p_points in zip(candidates, p_all, p_association, strict=True):
        finding = candidate.finding
        if finding is None or p is None or p_points is None or p_points > SIGNIFICANCE:
            continue
        found.append(replace(finding, verdict=_verdict(finding, p), p=p))
    order = {"leak": 0, "strong": 1, "weak": 2, "association": 3}
    # a colour changes brightness and contrast too, so measures come last
    found.sort(key=lambda f: (order[f.verdict], f.kind == "measure", -f.gain, f.name))
    return _joined(found, scores)


def _verdict(finding: Finding, p: float) -> Verdict:
    nearly_all = finding.conflicting < FEW_AGAINST and finding.right >= NEARLY_ALL
    if nearly_all and finding.gain >= LARGE_GAIN:
        return "leak"
    if p > SIGNIFICANCE or not _separates(finding):
        return "association"
    if finding.kind == "measure" and (finding.followed or 0.0) < FOLLOWED:
        return "association"
    return "strong" if _is_strong(finding) else "weak"


def _joined(findings: Sequence[Finding], scores: Ranked) -> list[Finding]:
    kept: list[Finding] = []
    for finding in findings:
        for i, first in enumerate(kept):
            if _is_same(first, finding, scores.label_N) or _is_carried(first, finding, scores):
                kept[i] = replace(first, also=(*first.also, (finding.kind, finding.name, finding.place)))
                break
        else:
            kept.append(finding)
    return kept


def _is_same(first: Finding, second: Finding, label_N: NDArray[np.int64]) -> bool:
    """Whether both are on the same samples, or nearly, and the same ones go against both."""
    either_N = (first.match_N >= 0) | (second.match_N >= 0)
    both_N = (first.match_N == second.match_N) & (first.match_N >= 0)
    if both_N.sum() < ALIKE * either_N.sum():
        return False
    against_N = either_N & ((first.match_N != label_N) | (second.match_N != label_N))
    return 2 * (both_N & against_N).sum() >= against_N.sum()


def _is_carried(first: Finding, second: Finding, scores: Ranked) -> bool:
    """Whether the scores separate the second only by the samples that go against the first."""
    if first.verdict == "association" or second.verdict not in ("strong", "weak"):
        return False
    against_N = (second.match_N >= 0) & (second.match_N != scores.label_N)
    rest_N = (first.match_N < 0) | (first.match_N == scores.label_N)
    if 2 * (against_N & ~rest_N).sum() < min(against_N.sum(), (~rest_N).sum()):
        return False  # they are misled by different samples
    apart = pooled_separations(second.match_N, rest_N, scores)[0]
    return not (apart.p_V[0] <= SIGNIFICANCE and apart.auroc_V[0] >= LEAST_SEPARATION)


def first_that_separates(candidates: Sequence[Candidate]) -> Candidate:
    """One of several views of the same attribute: the first whose scores separate, with p times their number.

    Where none does, it is the one that tells most.
    """
    found = [c for c in candidates if c.finding is not None]
    telling = max(found, key=lambda c: c.finding.gain if c.finding else 0.0, default=candidates[0])
    chosen = next((c for c in found if c.finding is not None and _separates(c.finding)), telling)
    views = len(candidates)
    return replace(chosen, p_association=min(1.0, views * chosen.p_association), p=min(1.0, views * chosen.p))


def token_candidates(
    rules: Sequence[Shortcut], place: str, member_NV: Any, table: Table, seen: Seen
) -> list[Candidate]:
    """Each token tested by itself.

    Args:
        rules: The tokens.
        place: The user's name of the column that they stand in.
        member_NV: Which samples have which token, a sparse CSC matrix.
        table: Their table.
        seen: The samples.
    """
    points = pointing(table)
    conflicting, aligned = separations(table, points.class_V)
    p_V = np.maximum.reduce([points.p_V, conflicting.p_V, aligned.p_V])
    # where a whole class has the value, no classmate is left to compare its aligned samples with
    whole_V = np.isnan(aligned.auroc_V)
    p_V = np.where(whole_V, np.maximum(points.p_V, conflicting.p_V), p_V)
    candidates = []
    for v, rule in enumerate(rules):
        finding = None
        if points.clear_V[v]:
            (name,) = rule.values
            match_N = np.full(member_NV.shape[0], -1)
            match_N[member_NV.indices[member_NV.indptr[v] : member_NV.indptr[v + 1]]] = points.class_V[v]
            value = _value(name, v, table, points, seen.classes)
            finding = _finding(("token", name, place, rule), (value,), match_N, (conflicting, aligned), v, seen)
        candidates.append(Candidate(float(points.p_V[v]), float(p_V[v]) if finding else 1.0, finding))
    return candidates


def attribute_candidate(kind: Kind, place: str | None, attribute: Attribute, scores: Ranked, seen: Seen) -> Candidate:
    """Several values that exclude each other, tested as one: the colour, a measure, a column, a part of files.

    Which values point to a class is decided by their labels alone, corrected for the number of values; scores are
    compared over all of these together, so that a few conflicting samples of each are enough.

    Args:
        kind: What it is.
        place: The text that is measured; None for all else.
        attribute: Its values.
        scores: The ranked scores.
        seen: The samples.
    """
    names = attribute.names
    present = np.flatnonzero(attribute.value_N >= 0)
    shape = (len(attribute.value_N), max(1, len(names)))
    table = tabulate(
        sparse.csr_array((np.ones(len(present)), (present, attribute.value_N[present])), shape=shape), scores
    )
    points, count_VC = pointing(table), table.count_VC.astype(np.int64)
    chosen: list[int] = np.flatnonzero(pointed_classes(count_VC, table.size_C) >= 0).tolist()
    p_association = min(1.0, count_VC.size * float(fisher_p(count_VC, table.size_C).min(initial=1.0)))  # Holm's first
    if not chosen:
        return Candidate(p_association, 1.0, None)
    class_of = np.full(len(names) + 1, -1)  # the last one is that of samples without a value
    class_of[chosen] = points.class_V[chosen]
    match_N = class_of[attribute.value_N]
    kept_N = _compared(attribute, match_N, chosen, points)
    conflicting, aligned = pooled_separations(match_N, kept_N, scores)
    p_scores = [conflicting.p_V[0]] + ([] if np.isnan(aligned.auroc_V[0]) else [aligned.p_V[0]])
    values = tuple(
        sorted((_value(names[v], v, table, points, seen.classes) for v in chosen), key=lambda v: (-v.count, v.name))
    )
    what = (kind, attribute.name, place, attribute.shortcut)
    finding = _finding(what, values, match_N, (conflicting, aligned), 0, seen)
    finding = replace(finding, followed=_followed(kept_N, match_N, seen))
    return Candidate(p_association, float(max(p_association, *p_scores)), finding)


def _compared(
    attribute: Attribute, match_N: NDArray[np.int64], chosen: Sequence[int], points: Pointing
) -> NDArray[np.bool_]:
    """The samples whose scores are compared: of a number's parts, those that hold one class, or point to none."""
    if not attribute.cut:
        return np.ones(len(match_N), dtype=bool)
    kept_N = ~np.isin(attribute.value_N, np.setdiff1d(chosen, _clear(chosen, points)))
    # a rest between two classes' ranges is nothing to compare with
    return kept_N if (match_N < 0).mean() >= LEAST_REST else kept_N & (match_N >= 0)


def _clear(chosen: Sequence[int], points: Pointing) -> list[int]:
    """The parts of a number that point to their class about as clearly as the clearest does.

    Where a class's range ends within a part, the part holds two classes: the samples of the other one in it don't go
    against anything.
    """
    excess_V = points.share_V - points.base_V
    best = {c: max(excess_V[v] for v in chosen if points.class_V[v] == c) for c in points.class_V[list(chosen)]}
    return [v for v in chosen if excess_V[v] >= CLEAR * best[points.class_V[v]]]


def _followed(kept_N: NDArray[np.bool_], match_N: NDArray[np.int64], seen: Seen) -> float | None:
    against_N = kept_N & (match_N >= 0) & (match_N != seen.label_N)
    return float((seen.predicted_N == match_N)[against_N].mean()) if against_N.any() else None


def _value(name: str, v: int, table: Table, points: Pointing, classes: Sequence[str]) -> Value:
    count = int(table.count_VC[v].sum())
    aligned = int(table.count_VC[v, points.class_V[v]])
    return Value(
        name=name,
        points_to=classes[int(points.class_V[v])],
        count=count,
        share=float(points.share_V[v]),
        base=float(points.base_V[v]),
        conflicting=count - aligned,
    )


def _finding(
    what: tuple[Kind, str, str | None, Shortcut | None],
    values: tuple[Value, ...],
    match_N: NDArray[np.int64],
    apart: tuple[Separation, Separation],
    v: int,
    seen: Seen,
) -> Finding:
    samples = len(match_N)
    count = sum(value.count for value in values)
    against = sum(value.conflicting for value in values)
    told = sum(value.count * (value.share - value.base) for value in values)
    return Finding(
        kind=what[0],
        name=what[1],
        place=what[2],
        shortcut=what[3],
        verdict="association",
        values=values,
        covered=count / samples,
        gain=told / samples,
        aligned=count - against,
        conflicting=against,
        auroc_conflicting=_defined(apart[0].auroc_V[v]),
        auroc_aligned=_defined(apart[1].auroc_V[v]),
        p=1.0,
        followed=_followed(np.ones(samples, dtype=bool), match_N, seen),
        match_N=match_N,
    )


def _defined(number: float) -> float | None:
    return None if math.isnan(number) else float(number)


def _is_strong(finding: Finding) -> bool:
    return finding.gain >= STRONG_GAIN and (finding.auroc_conflicting or 0.0) >= STRONG_SEPARATION


def _separates(finding: Finding) -> bool:
    high, low = finding.auroc_conflicting, finding.auroc_aligned
    return high is not None and high >= LEAST_SEPARATION and (low is None or low <= 1 - LEAST_SEPARATION)
