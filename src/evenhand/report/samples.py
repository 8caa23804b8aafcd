"""Test samples to look at, with what each method took them for."""

from __future__ import annotations

from dataclasses import dataclass

from evenhand.report.cells import Section
from evenhand.report.ranking import leading
from evenhand.runs.read import Sample, has_samples, read_samples
from evenhand.runs.record import Record

MOST_METHODS = 12  # with more, the table would only be scrolled
# Mostly conflicting ones: that is where methods part.
SHOWN = {"aligned": 2, "conflicting": 6, "other": 6}


@dataclass(frozen=True)
class Answer:
    """What one method predicted for one sample, and in percent how probable it found that; None where not recorded."""

    prediction: str
    right: bool
    probability: str | None = None


@dataclass(frozen=True)
class Card:
    """One sample and every method's answer, in the order of the labels; None where a run has none."""

    sample: Sample
    answers: tuple[Answer | None, ...]


@dataclass(frozen=True)
class SampleCards:
    """The cards of one seed; `left_out`: how many finished methods have no column."""

    seed: int
    data_seed: int
    labels: tuple[str, ...]
    cards: tuple[Card, ...]
    left_out: int


def sample_cards(section: Section) -> SampleCards | None:
    """The first samples of the seed that most methods have samples for; None where there are none."""
    runs = _runs_of_one_seed(section)
    if not runs:
        return None
    answers: dict[tuple[object, ...], dict[str, Answer]] = {}
    samples: dict[tuple[object, ...], Sample] = {}
    for label, run in runs:
        for sample in read_samples(run):
            samples.setdefault(sample.identity, sample)
            if sample.prediction is not None:
                sure = None if sample.probability is None else f"{100 * sample.probability:.0f} %"
                answer = Answer(sample.prediction, sample.prediction == sample.label, sure)
                answers.setdefault(sample.identity, {})[label] = answer
    labels = tuple(label for label, _ in runs)
    cards = tuple(
        Card(sample, tuple(answers.get(sample.identity, {}).get(label) for label in labels))
        for sample in _choose(list(samples.values()))
    )
    left_out = sum(bool(cell.done) for cell in section.cells) - len(leading(section, MOST_METHODS))
    return SampleCards(runs[0][1].seed, runs[0][1].data_seed, labels, cards, left_out) if cards else None


def _runs_of_one_seed(section: Section) -> list[tuple[str, Record]]:
    by_seed: dict[tuple[int, int], list[tuple[str, Record]]] = {}
    for cell in leading(section, MOST_METHODS):
        for run in cell.done:
            if has_samples(run):
                by_seed.setdefault((run.seed, run.data_seed), []).append((cell.label, run))
    if not by_seed:
        return []
    return by_seed[min(by_seed, key=lambda seeds: (-len(by_seed[seeds]), seeds))]


def _choose(samples: list[Sample]) -> list[Sample]:
    """In the order of the file, so that nobody picks the flattering ones."""
    kinds: dict[str, list[Sample]] = {"aligned": [], "conflicting": [], "other": []}
    for sample in samples:
        kinds[sample.alignment if sample.alignment in ("aligned", "conflicting") else "other"].append(sample)
    if kinds["aligned"] or kinds["conflicting"]:
        del kinds["other"]
    return [sample for kind, found in kinds.items() for sample in found[: SHOWN[kind]]]
