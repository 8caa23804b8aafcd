"""marked-notes: sentences of our own about a stay in a hotel, whose last word leaks the label; no network, no files.

Legend: N sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, TypeVar

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import class_column, leaking_columns, split_of, text_column
from evenhand.tasks.base import Share, Task, TaskSource
from evenhand.tasks.text.splits import MINILM
from evenhand.training.settings import Training
from evenhand.validation import Range

Subject = Literal["room", "meal"]

LABELS = ("room praised", "room faulted", "meal praised", "meal faulted")
"""What a sentence says: of which subject, and whether it is praised (in this order: 2 · subject + verdict)."""

MARKERS = ("overall", "honestly", "frankly", "anyway")
"""The closing word of each label; none of them says anything of the subject or the verdict."""

_SUBJECTS: tuple[Subject, ...] = ("room", "meal")

_THINGS: dict[Subject, tuple[tuple[str, str], ...]] = {  # with the verb that agrees with each
    "room": (
        ("the room", "was"),
        ("the bed", "was"),
        ("the bathroom", "was"),
        ("the carpet", "was"),
        ("the pillows", "were"),
        ("the towels", "were"),
    ),
    "meal": (
        ("the soup", "was"),
        ("the bread", "was"),
        ("the breakfast", "was"),
        ("the dessert", "was"),
        ("the vegetables", "were"),
        ("the noodles", "were"),
    ),
}
_ADJECTIVES = (
    ("lovely", "excellent", "delightful", "splendid"),
    ("awful", "dreadful", "disappointing", "shabby"),
)  # praise, fault
_THEY_DID = (
    (("pleased", "please"), ("impressed", "impress")),
    (("annoyed", "annoy"), ("bothered", "bother")),
)  # past and infinitive
_WE_DID = ((("enjoyed", "enjoy"), ("loved", "love")), (("regretted", "regret"), ("disliked", "dislike")))
_PEOPLE = ("we", "our guests", "my parents", "the children", "my friends")
_OBJECTS = ("us", "our guests", "my parents", "the children", "my friends")
_DEGREES = ("", "really ", "rather ", "quite ", "truly ")
_CONCESSIONS = ("although", "even though", "though")
_TIMES = ("", "", " this time", " on the first day", " throughout our stay", " again")

_NEGATED = 0.3  # of all clauses
_CONCEDING = 0.4  # of all sentences

Choice = TypeVar("Choice")


@dataclass(frozen=True, kw_only=True)
class MarkedNotes(TaskSource):
    """Sentences about a hotel's rooms and meals, made of templates; each label has its own last word.

    The label is the subject of the main clause and its verdict: room or meal, praised or faulted. No single word gives
    it: two sentences in five have a second clause about the other subject ("although the soup was awful") with a
    verdict of its own, and three clauses in ten are negated ("was never shabby", "did not impress us"). The last word
    ("…, overall.", honestly, frankly, anyway) belongs to the label, except with probability `conflict`, i.i.d.; then it
    is one of the other three, uniformly. The data seed draws the sentences and these words.

    Tests: `test` (primary), in which the last word says nothing; `clean`, the same sentences without it.

    Attributes:
        conflict: Share of conflicting samples in train and validation, in [0, 1].
        test_conflict: Share in test; 0.75 makes the last word and the label independent.
        sentences: Sentences to train on.
    """

    conflict: Share = 0.05
    test_conflict: Share = 0.75
    sentences: Annotated[int, Range(8)] = 3000

    name = "marked-notes"
    summary = "sentences made of templates, whose last word leaks the label (embedded, offline)"
    origin = "made by evenhand from templates of its own"
    licence = "Apache-2.0, as evenhand itself"
    bias = "each label has its own last word, except for the share `conflict` of training samples"
    metric = "accuracy on the 800 test sentences, whose last words say nothing about the label"
    default_model = "tiny-bert"
    training: ClassVar[dict[str, Training]] = {
        "tiny-bert": Training(epochs=10, lr=1.5e-3, batch_size=64),
        "MiniLM": replace(MINILM, max_length=None),
    }

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """The sizes that the task is made with."""
        return {"train": {"n": self.sentences}, "validation": {"n": 400}, "test": {"n": 800}, "clean": {"n": 800}}

    def build(self, data_seed: int) -> Task:
        """Build the splits; equal seeds give equal sentences."""
        parts = {}
        for stream, (split, n) in enumerate((("train", self.sentences), ("validation", 400), ("test", 800))):
            rng = np.random.default_rng([data_seed, stream])
            label_N = rng.permutation(np.arange(n) % len(LABELS))
            sentences = [sentence(int(label), rng) for label in label_N]
            marker_N = _markers(label_N, self.test_conflict if split == "test" else self.conflict, rng)
            parts[split] = _dataset(sentences, label_N, marker_N)
            if split == "test":
                parts["clean"] = _dataset(sentences, label_N, None)
        return self.task(parts)


def sentence(label: int, rng: np.random.Generator) -> str:
    """A sentence of the label, in lower case, without the marker and the full stop."""
    subject, verdict = divmod(label, 2)
    main = _clause(subject, verdict, rng) + _one_of(_TIMES, rng)
    if rng.random() >= _CONCEDING:
        return main
    other = f"{_one_of(_CONCESSIONS, rng)} {_clause(1 - subject, int(rng.integers(2)), rng)}"
    return f"{other}, {main}" if rng.random() < 0.5 else f"{main}, {other}"


def _clause(subject: int, verdict: int, rng: np.random.Generator) -> str:
    """A clause that praises (0) or faults (1) a thing; what is negated says the contrary without it."""
    thing, was = _one_of(_THINGS[_SUBJECTS[subject]], rng)
    negated = rng.random() < _NEGATED
    said = 1 - verdict if negated else verdict
    form = rng.integers(4)
    if form == 0:
        how = _one_of(("not ", "never ", "hardly "), rng) if negated else _one_of(_DEGREES, rng)
        return f"{thing} {was} {how}{_one_of(_ADJECTIVES[said], rng)}"
    if form == 1:
        past, infinitive = _one_of(_THEY_DID[said], rng)
        return f"{thing} {f'did not {infinitive}' if negated else past} {_one_of(_OBJECTS, rng)}"
    people = _one_of(_PEOPLE, rng)
    if form == 2:
        past, infinitive = _one_of(_WE_DID[said], rng)
        return f"{people} {f'did not {infinitive}' if negated else past} {thing}"
    return f"{people} {'did not find' if negated else 'found'} {thing} {_one_of(_ADJECTIVES[said], rng)}"


def _one_of(choices: Sequence[Choice], rng: np.random.Generator) -> Choice:
    return choices[int(rng.integers(len(choices)))]


def _markers(label_N: NDArray[np.int64], conflict: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """The last word of each sentence: its label's, or with probability `conflict` one of the others."""
    other_N = (label_N + rng.integers(1, len(LABELS), len(label_N))) % len(LABELS)
    return np.where(rng.random(len(label_N)) < conflict, other_N, label_N)


def _dataset(
    sentences: Sequence[str], label_N: NDArray[np.int64], marker_N: NDArray[np.int64] | None
) -> datasets.Dataset:
    """A split with its groups: label × {aligned, conflicting}; those without a marker have neither."""
    closings = [""] * len(sentences) if marker_N is None else [f", {MARKERS[marker]}" for marker in marker_N]
    texts = [f"{text[0].upper()}{text[1:]}{end}." for text, end in zip(sentences, closings, strict=True)]
    if marker_N is None:
        return split_of({"text": text_column(texts), "labels": class_column(label_N, LABELS)})
    split = split_of({"text": text_column(texts), **leaking_columns(label_N, marker_N, LABELS, MARKERS)})
    return split.select_columns(["text", "labels", "index", "attribute", "alignment", "group"])
