from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, chi2_contingency

import evenhand as eh
from evenhand.data.columns import column_values, membership
from evenhand.tasks import MarkedNotes, Task
from evenhand.tasks.text.notes import LABELS, MARKERS

ROOM = {"room", "bed", "bathroom", "carpet", "pillows", "towels"}
MEAL = {"soup", "bread", "breakfast", "dessert", "vegetables", "noodles"}
GOOD = {"lovely", "excellent", "delightful", "splendid", "pleased", "please", "impressed", "impress"}
GOOD |= {"enjoyed", "enjoy", "loved", "love"}
BAD = {"awful", "dreadful", "disappointing", "shabby", "annoyed", "annoy", "bothered", "bother"}
BAD |= {"regretted", "regret", "disliked", "dislike"}
NEGATIONS = {"not", "never", "hardly"}
OTHER_CLAUSE = re.compile(r"^(?:even though|although|though) [^,]+, (.+)$|^(.+?), (?:even though|although|though) .+$")


@pytest.fixture(scope="module")
def task() -> Task:
    return MarkedNotes(sentences=1200).build(3)


def read_by_rule(text: str) -> str:
    """The label of a sentence without its marker, by the grammar alone: the main clause's subject and verdict."""
    found = OTHER_CLAUSE.match(text.lower().rstrip("."))
    words = set(((found[1] or found[2]) if found else text.lower().rstrip(".")).split())
    (subject,) = [name for name, things in (("room", ROOM), ("meal", MEAL)) if words & things]
    assert bool(words & GOOD) != bool(words & BAD), text
    praised = bool(words & GOOD) != bool(words & NEGATIONS)
    return f"{subject} {'praised' if praised else 'faulted'}"


def test_sentences_say_what_their_label_says(task: Task) -> None:
    clean = task.tests["clean"]
    labels = [LABELS[i] for i in column_values(clean, "labels")]
    assert [read_by_rule(text) for text in clean["text"]] == labels
    assert Counter(labels) == dict.fromkeys(LABELS, 200)


def test_sentences_are_grammatical(task: Task) -> None:
    for text in task.train["text"]:
        assert re.fullmatch(r"[A-Z][a-z]+(,? [a-z]+)*, (overall|honestly|frankly|anyway)\.", text), text
        assert not re.search(r"(pillows|towels|vegetables|noodles) was|(room|bed|carpet|soup|bread|dessert) were", text)
    assert len(set(task.train["text"])) > 0.95 * len(task.train)


def test_no_single_word_gives_the_label(task: Task) -> None:
    clean = task.tests["clean"]
    label_N = column_values(clean, "labels")
    seen: dict[str, Counter[int]] = {}
    for text, label in zip(clean["text"], label_N, strict=True):
        for word in set(text.lower().rstrip(".").replace(",", "").split()):
            seen.setdefault(word, Counter())[int(label)] += 1
    shares = {word: max(c.values()) / c.total() for word, c in seen.items() if c.total() >= 40}
    assert len(shares) > 30
    assert max(shares.values()) < 0.75


def test_the_marker_leaks_the_label_in_training_only(task: Task) -> None:
    for split, share in ((task.train, 0.05), (task.validation, 0.05), (task.tests["test"], 0.75)):
        marker_N = [MARKERS.index(text.rstrip(".").split(", ")[-1]) for text in split["text"]]
        assert marker_N == column_values(split, "attribute").tolist()
        conflicting_N = np.array(marker_N) != column_values(split, "labels")
        assert conflicting_N.tolist() == membership(split, "alignment")["conflicting"].tolist()
        low, high = binom.interval(1 - 1e-6, len(split), share)
        assert low <= conflicting_N.sum() <= high
    test = task.tests["test"]
    table = np.zeros((4, 4), dtype=int)
    np.add.at(table, (column_values(test, "labels"), column_values(test, "attribute")), 1)
    assert chi2_contingency(table).pvalue > 1e-4


def test_groups_are_label_by_alignment(task: Task) -> None:
    groups = membership(task.train, "group")
    assert list(groups) == [f"{label} {alignment}" for label in LABELS for alignment in ("aligned", "conflicting")]
    label_N = column_values(task.train, "labels")
    conflicting_N = membership(task.train, "alignment")["conflicting"]
    assert groups["meal praised conflicting"].tolist() == ((label_N == 2) & conflicting_N).tolist()


def test_clean_sentences_are_those_of_the_test_without_their_last_word(task: Task) -> None:
    clean, test = task.tests["clean"], task.tests["test"]
    assert clean.column_names == ["text", "labels", "index"]
    assert [text.rpartition(",")[0] + "." for text in test["text"]] == clean["text"][:]
    assert column_values(clean, "labels").tolist() == column_values(test, "labels").tolist()


def test_the_seed_draws_everything(task: Task) -> None:
    again, other = MarkedNotes(sentences=1200).build(3), MarkedNotes(sentences=1200).build(4)
    for name, split in task.splits.items():
        assert split[:] == again.splits[name][:]
        assert split["text"][:] != other.splits[name]["text"][:]


def test_sizes() -> None:
    source = MarkedNotes(sentences=40)
    counts = {name: {"n": len(split)} for name, split in source.build(0).splits.items()}
    assert counts == source.expected_counts() == {k: {"n": n} for k, n in zip(counts, (40, 400, 800, 800), strict=True)}


@pytest.mark.parametrize("settings", [{"conflict": 1.1}, {"test_conflict": -0.1}, {"sentences": 7}, {"sentences": 9.5}])
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(eh.UserError, match=f"^The '{next(iter(settings))}' parameter of marked-notes must be"):
        MarkedNotes(**settings)
