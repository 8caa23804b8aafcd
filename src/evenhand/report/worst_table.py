"""The table of worst groups: which group each method is worst on, and what it gets of the small ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.metrics import SMALLEST_COUNTED_GROUP, GroupShare, summarize, wilson
from evenhand.report.cells import Cell, Section
from evenhand.runs.read import Measured
from evenhand.runs.worst_groups import MOST_NAMED, group_texts, interval_text, is_lower
from evenhand.validation import named
from evenhand.wording import NOTHING, clipped, count, distinct, mean_std

WORST_HEAD = ("Method", "Group", "Samples", "Accuracy", "95% interval")
WORST_NOTE = (
    f"For each method the group of at least {SMALLEST_COUNTED_GROUP} test samples with the lowest accuracy, and all "
    "smaller groups together, each sample counted once: accuracy in %, mean ± standard deviation over seeds. The "
    "interval is Wilson’s, of the mean on as many samples as one seed has."
)


@dataclass(frozen=True)
class WorstRow:
    """A method's worst group, or its small groups together, as text for each of WORST_HEAD."""

    label: str
    texts: tuple[str, ...]


def worst_rows(section: Section) -> list[WorstRow]:
    """Up to two rows a method: the worst group of each run, and the small ones; none where no groups are known."""
    rows: list[WorstRow] = []
    for cell in section.cells:
        for kind, shares in zip(("worst", "small"), _shares(cell), strict=True):
            if shares:
                rows.append(WorstRow(cell.label, (cell.label, _names(kind, shares), *_numbers(shares, len(cell.done)))))
    return rows


def worst_columns(cell: Cell) -> list[tuple[str, str, Any]]:
    """(kind, part, value) for each column of a cell's row: names, samples and the ends of the interval."""
    columns: list[tuple[str, str, Any]] = []
    for kind, shares in zip(("worst_group", "small_groups"), _shares(cell), strict=True):
        if shares:
            whole = _together(shares)
            low, high = whole.interval or (None, None)
            accuracy = {} if kind == "worst_group" else {"mean": whole.accuracy}  # the former's has columns already
            parts = {"names": named(whole.names), **accuracy, "samples": whole.n, "low": low, "high": high}
            columns += [(kind, part, value) for part, value in parts.items()]
    return columns


def worst_data(cell: Cell) -> dict[str, Any]:
    """The same as an object for the worst group and one for the small ones."""
    found: dict[str, Any] = {}
    for kind, shares in zip(("worst_group", "small_groups"), _shares(cell), strict=True):
        if shares:
            whole = _together(shares)
            found[kind] = {
                "names": list(whole.names),
                "samples": whole.n,
                "accuracy": whole.accuracy,
                "interval": whole.interval and list(whole.interval),
            }
    return found


def run_columns(measured: Measured) -> dict[str, Any]:
    """What one run's row tells of its worst group and its small ones; empty where it has none."""
    worst, small = measured.groups
    columns: dict[str, Any] = {}
    if worst is not None:
        columns["worst_group_name"] = named(worst.names) or None
        columns |= _size_and_ends("worst_group", worst)
    if small is not None:
        columns |= {"small_groups": small.accuracy, "small_groups_names": named(small.names)}
        columns |= _size_and_ends("small_groups", small)
    return columns


def worst_sentence(cells: Sequence[Cell]) -> str:
    """What the headline says of the worst group and the small ones.

    It is empty for methods whose conflicting accuracy is known, unless the small groups are the worst ones.

    Args:
        cells: The methods that the headline speaks of.
    """
    sentences: list[str] = []
    for found in cells:
        worst, small = (_together(shares) if shares else None for shares in _shares(found))
        if found.summary("conflicting").n and not is_lower((worst, small)):
            continue
        texts = group_texts((worst, small), "%")
        if texts:
            seeds = f" (mean of {count(len(found.done), 'seed')})" if len(found.done) > 1 else ""
            sentences.append(f"By group, {found.label}{seeds}: {'; '.join(texts)}.")
    return " ".join(sentences)


def _shares(cell: Cell) -> tuple[list[GroupShare], list[GroupShare]]:
    """The worst group of every finished run, and the small ones of every finished run."""
    found = [run.metrics.groups for run in cell.done if run.metrics is not None]
    return [worst for worst, _ in found if worst is not None], [small for _, small in found if small is not None]


def _together(shares: Sequence[GroupShare]) -> GroupShare:
    """Several runs as one: the mean accuracy, on as many samples as the run with the fewest has."""
    mean = summarize([share.accuracy for share in shares]).mean
    sizes = [share.n for share in shares if share.n is not None]
    n = min(sizes) if len(sizes) == len(shares) else None
    names = distinct(name for share in shares for name in share.names)
    return GroupShare(tuple(names), mean, n, None if n is None else wilson(mean, n))


def _names(kind: str, shares: Sequence[GroupShare]) -> str:
    if kind == "small":
        names = [clipped(name) for name in _together(shares).names]
        return f"{count(len(names), 'small group')}: {named(names, MOST_NAMED)}"
    counted = Counter(name for share in shares for name in share.names)
    if not counted:
        return "name not recorded"
    if len(counted) == 1:
        return clipped(next(iter(counted)))
    return named([f"{clipped(name)} ({count(seeds, 'seed')})" for name, seeds in counted.most_common()], MOST_NAMED)


def _numbers(shares: Sequence[GroupShare], planned: int) -> tuple[str, str, str]:
    sizes = sorted({share.n for share in shares if share.n is not None})
    samples = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}" if sizes else "not recorded"
    accuracy = mean_std(summarize([share.accuracy for share in shares]), planned)
    return samples, accuracy, interval_text(_together(shares)) or NOTHING


def _size_and_ends(name: str, share: GroupShare) -> dict[str, Any]:
    low, high = share.interval or (None, None)
    return {f"{name}_n": share.n, f"{name}_low": low, f"{name}_high": high}
