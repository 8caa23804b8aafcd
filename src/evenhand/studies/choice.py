"""Which of several runs is kept, judged by validation rows alone, and the sentence that says what it gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evenhand.methods import ERM
from evenhand.metrics import wilson
from evenhand.runs.record import Record
from evenhand.validation import count
from evenhand.wording import listed, one_line, percent

FEW = 20
"""Below so many rows a side is called small: one row more or less is 5 points."""
_NAMED = 3


@dataclass(frozen=True)
class Share:
    """The share of some rows that are right."""

    n: int
    accuracy: float | None

    @property
    def error(self) -> float:
        """Its standard error; with two right and two wrong rows added, so that few rows are never sure."""
        rate = ((self.accuracy or 0.0) * self.n + 2) / (self.n + 4)
        return math.sqrt(rate * (1 - rate) / (self.n + 4))

    @property
    def text(self) -> str:
        """As in "71.2 % (95 % interval 62.4 to 78.6)"."""
        ends = wilson(self.accuracy, self.n)
        between = "" if ends is None else f" (95 % interval {percent(ends[0])} to {percent(ends[1])})"
        return f"{percent(self.accuracy)} %{between}"


@dataclass(frozen=True)
class Measured:
    """A run on one split.

    Attributes:
        average: Accuracy on all rows.
        sides: The rows that go along with the named shortcuts, and those that go against them; without names the
            classes.
        reliance: Shortcut → rows whose input changes without it, and the share whose prediction changes then.
    """

    average: Share
    sides: Mapping[str, Share]
    reliance: Mapping[str, Share]

    @classmethod
    def of(cls, record: Record, split: str) -> Measured:
        """As a finished run's record tells it."""
        found = record.raw["tests"][split]
        by_shortcut = found.get("by_shortcut") or {}
        together = found.get("all_shortcuts") or next(iter(by_shortcut.values()), None)
        sides = found.get("by_class") or {}
        if together is not None:
            sides = {side: together[side] for side in ("aligned", "conflicting")}
        relied = {name: of.get("reliance") for name, of in by_shortcut.items()}
        return cls(
            Share(record.split(split).n or 0, found["average"]),
            {name: Share(of["n"], of["accuracy"]) for name, of in sides.items()},
            {name: Share(of["n"], of["share"]) for name, of in relied.items() if of},
        )

    @property
    def weakest(self) -> Share | None:
        """The side with the lowest accuracy; None where a side has no row, so that nothing can be told of it."""
        if not self.sides or not all(side.n for side in self.sides.values()):
            return None
        return min(self.sides.values(), key=lambda side: side.accuracy or 0.0)


@dataclass(frozen=True)
class Choice:
    """The run that is kept.

    Attributes:
        method: Its method's name.
        title: How reports call the method.
        rule: How it was chosen, in sentences.
        sentence: What it gives, in one sentence.
        counted: On which rows, with intervals.
        remarks: What a reader must know besides, a sentence each.
    """

    method: str
    title: str
    rule: str
    sentence: str
    counted: str
    remarks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def choose(records: Mapping[str, Record], names: Sequence[str]) -> Choice:
    """Choose a run, and say what it gives.

    The runs whose weakest side is within one standard error (the larger of the two) of the best one's are taken for
    equally good; of these the one with the highest average is chosen, and of equal ones the first. A run whose method
    did nothing is ERM and so isn't chosen in its place. Where nothing can be told of a side, the average alone decides.

    Args:
        records: Method → its finished run, ERM first.
        names: The shortcuts that the model must not rely on.
    """
    found = {name: Measured.of(record, "validation") for name, record in records.items()}
    able = {name: of for name, of in found.items() if name == ERM.name or records[name].did_nothing is None}
    weakest = {name: side for name, of in able.items() if (side := of.weakest) is not None}
    close = list(able)
    if weakest:
        best = max(weakest.values(), key=lambda side: side.accuracy or 0.0)
        close = [
            name
            for name, side in weakest.items()
            if (best.accuracy or 0.0) - (side.accuracy or 0.0) <= max(best.error, side.error)
        ]
    chosen = max(close, key=lambda name: able[name].average.accuracy or 0.0)
    record = records[chosen]
    sentence, counted = _told(record, records[ERM.name], names)
    rule = "ERM is the only one." if len(able) == 1 else _rule(able, bool(weakest), names)
    return Choice(chosen, record.method.title, rule, sentence, counted, _remarks(found[chosen], records, names))


def _rule(able: Mapping[str, Measured], judged: bool, names: Sequence[str]) -> str:
    sides = next(iter(able.values())).sides
    against = sides.get("conflicting")
    if not judged:
        missing = f"no validation row goes {_against(names)}" if names else "nothing without a name tells them apart"
        return f"Rule: the highest accuracy on validation rows, since {missing}."
    if against is None:
        score = "accuracy on the worst class"
    else:
        score = (
            f"lower accuracy of the two sides ({count(sides['aligned'].n, 'validation row')} along with "
            f"{called(names)}, {against.n:,} against)"
        )
    return (
        f"Rule: of the models whose {score} is within one standard error of the best, the one with the highest "
        "accuracy on all validation rows."
    )


def _remarks(chosen: Measured, records: Mapping[str, Record], names: Sequence[str]) -> tuple[str, ...]:
    against = chosen.sides.get("conflicting") if names else None
    remarks = []
    if against is not None and 0 < against.n < FEW and len(records) > 1:
        remarks.append(
            f"Only {count(against.n, 'validation row')} {'goes' if against.n == 1 else 'go'} {_against(names)}, so the "
            "choice may be chance: more such rows make it surer."
        )
    return tuple(remarks)


# ---- the sentence ---------------------------------------------------------------------------------------------------


def _told(record: Record, plain: Record, names: Sequence[str]) -> tuple[str, str]:
    """What the chosen run gives on the test split, beside ERM; and on how many rows, with intervals."""
    split = record.primary_test or "test"
    ours, theirs = Measured.of(record, split), Measured.of(plain, split)
    where = "validation" if split == "validation" else f"'{split}'"
    overall = f"all {count(ours.average.n, 'row')} of {where}: {ours.average.text}"
    is_plain = record.method.name == ERM.name
    if not is_plain:
        overall += f", ERM {percent(theirs.average.accuracy)} %"
    side = ours.sides.get("conflicting") if names else None
    if side is None or not side.n:
        missing = f", but no row of {where} goes {_against(names)}" if names else ""
        kept = "The model is plain training's (ERM)" if is_plain else f"*{record.method.title}* is kept"
        beside = "" if is_plain else f" ({_beside(ours.average, theirs.average)})"
        return f"{kept}: it gets {percent(ours.average.accuracy)} % of the rows right{beside}{missing}.", _line(overall)
    told = f"gets {_whole(side)} % of the rows right that go {_against(names)}"
    counted = f"{count(side.n, 'row')} of {where} against it: {side.text}"
    if is_plain:
        sentence = f"No other model is kept: plain training (ERM) {told}, and {_whole(ours.average)} % of all."
        return sentence, _line(counted, overall)
    plainly = theirs.sides["conflicting"]
    sentence = f"*{record.method.title}* {told} (ERM {_whole(plainly)} %), and {_beside(ours.average, theirs.average)}."
    return sentence, _line(f"{counted}, ERM {plainly.text}", overall)


def _line(*parts: str) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _whole(share: Share) -> str:
    return f"{100 * (share.accuracy or 0.0):.0f}"


def _beside(ours: Share, theirs: Share) -> str:
    """As in "0.4 points less overall"."""
    difference = 100 * ((ours.accuracy or 0.0) - (theirs.accuracy or 0.0))
    if abs(difference) < 0.05:
        return "as much overall"
    return f"{abs(difference):.1f} points {'more' if difference > 0 else 'less'} overall"


def perfect_leak(record: Record, names: Sequence[str]) -> str:
    """What is said of shortcuts that no training row goes against: how much ERM relies on them, and what to collect."""
    measured = Measured.of(record, record.primary_test or "test")
    relied = [
        f"{percent(of.accuracy)} % of ERM's answers change when '{one_line(name)}' is taken out of the inputs "
        f"({count(of.n, 'row')})"
        for name in names
        if (of := measured.reliance.get(name)) is not None and of.n
    ]
    told = f" {listed(relied)}." if relied else ""
    return (
        f"No training row goes {_against(names)}, so no method can learn to do without it and none was trained for "
        f"it.{told} Collect rows that go against it, from a hundred on: rows with the same value and another label."
    )


def called(names: Sequence[str]) -> str:
    """The shortcuts by name, the first ones of many."""
    shown = [f"'{one_line(name)}'" for name in names[:_NAMED]]
    rest = len(names) - len(shown)
    return listed([*shown, *([f"{rest} more"] if rest else [])], last="or")


def _against(names: Sequence[str]) -> str:
    return f"against {called(names)}"
