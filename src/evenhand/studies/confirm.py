"""Likely shortcuts as questions to a person: in plain words, with three samples to look at.

Legend: N training rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evenhand.auditing import Audit
from evenhand.auditing.confirmed import nameable
from evenhand.auditing.findings import Finding
from evenhand.auditing.verdict import named
from evenhand.data.columns import TEXT_COLUMNS
from evenhand.shortcuts.fitted import ALIGNED, CONFLICTING, FittedShortcut
from evenhand.shortcuts.named import TRAIN, NamedShortcuts
from evenhand.tasks import Task
from evenhand.validation import count
from evenhand.wording import clipped, listed, one_line

LONGEST = 160  # characters of a text that is shown
_ALONG = 2  # samples shown that go along; a third one goes against, where there is one
_VALUES = 4


@dataclass(frozen=True)
class Example:
    """A training row to look at.

    Attributes:
        name: The user's id of the row, or its number among the training rows.
        text: Its texts, cut; None for a picture.
        value: The shortcut's value.
        label: Its label.
        against: Whether it goes against the shortcut.
    """

    name: str
    text: str | None
    value: str
    label: str
    against: bool

    def __str__(self) -> str:
        text = "" if self.text is None else f" “{self.text}”"
        side = "goes against it" if self.against else "goes along with it"
        return one_line(f"row {self.name}:{text} ({self.value}), labelled '{self.label}': {side}")


@dataclass(frozen=True)
class Question:
    """A likely shortcut: must the model not rely on it?

    Attributes:
        shortcut: Its spelling.
        place: Which of the questions it is, as in "1 of 3".
        text: What was found, in plain words.
        examples: Training rows to look at: two that go along with it, and one that goes against it if there is one.
        finding: The audit's finding.
    """

    shortcut: str
    place: str
    text: str
    examples: tuple[Example, ...]
    finding: Finding


def questions(found: Audit) -> list[Question]:
    """The likely shortcuts that an audit found, as questions, those that tell most first; those that can be named."""
    asked: list[Question] = []
    for finding, named_ones in nameable(found.task, (*found.hint.leaks, *found.hint.strong)):
        assert finding.shortcut is not None
        fitted = named_ones.fitted[-1]
        examples = tuple(_examples(found, fitted, named_ones))
        asked.append(Question(finding.shortcut.spelling, "", _text(finding, fitted), examples, finding))
    return [replace(one, place=f"{i} of {len(asked)}") for i, one in enumerate(asked, start=1)]


def _text(finding: Finding, fitted: FittedShortcut) -> str:
    """As in "The column 'product' tells the label: 'nimbus' goes with 'complaint' in 95 of 100 rows. In all …"."""
    pairs = [(v, c) for v, c in enumerate(fitted.points_to) if c >= 0]
    pairs.sort(key=lambda pair: -int(fitted.table[pair[0]].sum()))
    told = [
        f"'{clipped(fitted.names[v], 40)}' goes with '{fitted.classes[c]}' in {fitted.table[v, c]:,} of "
        f"{count(int(fitted.table[v].sum()), 'row')}"
        for v, c in pairs[:_VALUES]
    ]
    more = len(pairs) - len(told)
    told += [f"{more} more like that"] if more else []
    against = fitted.conflicting
    text = named(finding)
    sides = (
        f"{against:,} training {'row goes' if against == 1 else 'rows go'} against it"
        if against
        else ("no training row goes against it")
    )
    return one_line(f"{text[0].upper()}{text[1:]} tells the label: {listed(told)}; {sides}.")


def _examples(found: Audit, fitted: FittedShortcut, named_ones: NamedShortcuts) -> Iterator[Example]:
    """Rows that biased models are surest of first; of those against it the ones with the highest scores."""
    value_N, standing_N = named_ones.applied[TRAIN][-1].value_N, named_ones.standings(TRAIN)[-1]
    label_N, score_N = named_ones.train_labels, found.training["score"].to_numpy()
    rising_N = np.argsort(score_N, kind="stable")
    along = [int(row) for row in rising_N if standing_N[row] == ALIGNED]
    # one of each class, where the shortcut points to several
    first = [along[k] for k in sorted(np.unique(label_N[along], return_index=True)[1])]
    chosen = list(dict.fromkeys([*first, *along]))[:_ALONG]
    chosen += [int(row) for row in rising_N[::-1] if standing_N[row] == CONFLICTING][:1]
    texts = _texts(found.task, chosen)
    for row, text in zip(chosen, texts, strict=True):
        yield Example(
            name=clipped(str(found.training["id"].iloc[row]), 40),
            text=text,
            value=_value(fitted, value_N, row),
            label=found.task.label_names[label_N[row]],
            against=bool(standing_N[row] == CONFLICTING),
        )


def _value(fitted: FittedShortcut, value_N: NDArray[np.int64], row: int) -> str:
    return clipped(f"{fitted.name} = {fitted.names[value_N[row]]}", 80)


def _texts(task: Task, rows: Sequence[int]) -> list[str | None]:
    columns = [name for name in TEXT_COLUMNS if name in task.train.column_names]
    if not columns:
        return [None] * len(rows)
    shown = task.train.select_columns(columns).select(rows).to_list()
    return [_cut(" / ".join(text or "" for text in row.values())) for row in shown]


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
