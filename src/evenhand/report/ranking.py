"""Which methods may be called good, and in which order: the rule that the headline and every other choice follow.

A method is eligible if its aligned and its conflicting accuracy are both above chance and it doesn't invert the
shortcut. Eligible methods rank by the mean of both accuracies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evenhand.metrics import Summary, wilson
from evenhand.report.cells import Cell, Section, SeedValues, difference
from evenhand.report.shortcut_words import gap_of_one_seed, is_unlearnable
from evenhand.runs.record import Record
from evenhand.wording import percent

# A gap between aligned and conflicting accuracy from here on is called a shortcut taken, or an inverted one.
SHORTCUT_GAP = 0.10

SIDES = ("aligned", "conflicting")

# Classes of the tasks whose first records don't name their labels.
_CLASSES = {"colored-digits": 10, "colored-mnist": 10, "biased-snli": 3}


def gap(cell: Cell) -> Summary:
    """Aligned minus conflicting accuracy, over the seeds that define both.

    With one seed the interval is that of the test samples, where a record tells it.
    """
    found = difference(cell.values("aligned"), cell.values("conflicting")).summary
    low, high = (gap_of_one_seed(cell) if found.n == 1 else None) or (found.low, found.high)
    return replace(found, low=low, high=high)


def took_shortcut(cell: Cell) -> bool:
    """Whether aligned samples are right clearly more often than conflicting ones.

    That is: by 10 points or more on average, and, from two seeds on, with a 95% interval above 0.
    """
    found = gap(cell)
    return found.mean is not None and found.mean >= SHORTCUT_GAP and (found.low is None or found.low > 0)


def inverts_shortcut(cell: Cell) -> bool:
    """Whether conflicting samples are right clearly more often than aligned ones, by the same measure."""
    found = gap(cell)
    return found.mean is not None and found.mean <= -SHORTCUT_GAP and (found.high is None or found.high < 0)


def chance(cell: Cell, metric: str = "conflicting") -> float | None:
    """The accuracy that takes no learning; None where a record tells neither classes nor labels.

    One in the number of classes, or more where one constant answer gets more: of the average the share of the largest
    class, of aligned and conflicting samples what one and the same answer gets on both.
    """
    run = cell.first
    classes = _number_of_classes(run)
    constant = run.split(run.primary_test).constant.get("average" if metric == "average" else "both")
    known = [*([1 / classes] if classes else []), *([] if constant is None else [constant])]
    return max(known, default=None)


def fault(cell: Cell) -> str | None:
    """Why a method can't be called good, as in "inverts the shortcut"; None where it is eligible."""
    if not cell.is_tried:
        return "did nothing"
    if inverts_shortcut(cell):
        return "inverts the shortcut"
    defined = [side for side in SIDES if cell.summary(side).n]
    unclear = [side for side in defined if not is_above(cell, side, chance(cell, side) or 0.0)]
    if not unclear:
        return None
    where = "on aligned and conflicting samples" if len(unclear) == 2 else f"on {unclear[0]} samples"
    level = chance(cell)
    if level is None:
        return f"gets nothing right {where}"
    below = all((cell.summary(side).mean or 0.0) <= level for side in unclear)
    verdict = "is at chance or below" if below else "can't be told from chance"
    return f"{verdict} {where} ({percent(level)}%)"


def scores(cell: Cell) -> SeedValues:
    """Each run's mean of aligned and conflicting accuracy; the conflicting one alone where no run defines the other."""
    conflicting, aligned = cell.values("conflicting"), cell.values("aligned")
    if not cell.summary("aligned").n:
        return conflicting
    return {key: _middle(aligned.get(key), value) for key, value in conflicting.items()}


def score(cell: Cell) -> float:
    """What eligible methods rank by: the mean of `scores`."""
    values = [value for value in scores(cell).values() if value is not None]
    return sum(values) / len(values) if values else 0.0


def ranked(cells: Sequence[Cell]) -> list[Cell]:
    """The eligible ones of some cells, the best first."""
    eligible = [cell for cell in cells if cell.summary("conflicting").n and fault(cell) is None]
    return sorted(eligible, key=lambda cell: -score(cell))


def best_other(section: Section) -> Cell | None:
    """The method that the headline compares with the baseline; None where no method is eligible, or may be advised."""
    if section.baseline is None or is_unlearnable(section):
        return None
    return next(iter(ranked([cell for cell in section.cells if cell.done and not cell.is_baseline])), None)


def leading(section: Section, most: int) -> list[Cell]:
    """The finished cells, or where there are many the baseline and the best, in the section's order.

    The best are the eligible ones by rank, then the others by their accuracy in the worst group or the small ones
    together, or on average where some cell doesn't define that.
    """
    done = [cell for cell in section.cells if cell.done]
    metric = "weakest" if all(cell.summary("weakest").n for cell in done) else "average"
    places = {cell.label: place for place, cell in enumerate(ranked(done))}
    best = sorted(
        done,
        key=lambda cell: (not cell.is_baseline, places.get(cell.label, len(done)), -(cell.summary(metric).mean or 0.0)),
    )[:most]
    return [cell for cell in done if cell in best]


def is_above(cell: Cell, metric: str, level: float) -> bool:
    """Whether an accuracy is above a level for sure: by its interval (with one seed that of its samples), if any."""
    summary = cell.summary(metric)
    low = summary.low if summary.n > 1 else _lowest_of_one(cell, metric, summary.mean)
    return low is not None and low > level


def _lowest_of_one(cell: Cell, metric: str, value: float | None) -> float | None:
    run = cell.counted[0]
    size = _samples(run, metric)
    interval = wilson(value, size) if size else None
    return value if interval is None else interval[0]


def _samples(run: Record, metric: str) -> int | None:
    """How many samples of the primary test set the metric is over; None where the record doesn't tell."""
    test = run.split(run.primary_test)
    size = getattr(test, "n" if metric == "average" else metric, None)
    if size is None and metric in SIDES:  # records before the aligned ones were counted name them in their groups
        groups = run.group_sizes.get(run.primary_test or "", {})
        apart = sum(groups.values()) <= (test.n or 0)  # groups may overlap
        size = sum(n for name, n in groups.items() if apart and name.endswith(f" {metric}"))
    return size if size is not None and size > 0 else None


def _number_of_classes(run: Record) -> int | None:
    counted = run.split(run.primary_test).classes  # a test set may have fewer than the model
    if counted is not None and counted > 1:
        return counted
    if run.labels is not None and len(run.labels) > 1:
        return len(run.labels)
    if run.task.name in _CLASSES:
        return _CLASSES[run.task.name]
    names = [name.rpartition(" ") for name in (run.metrics.by_group if run.metrics else ())]
    if names and all(kind in SIDES for *_, kind in names):  # groups named after label and alignment
        return max(len({label for label, *_ in names}), 2)
    return None


def _middle(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else (a + b) / 2
