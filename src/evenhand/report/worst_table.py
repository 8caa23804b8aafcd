"""The table of worst groups: which group each method is worst on, and what it gets of the small ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from evenhand.metrics import SMALLEST_COUNTED_GROUP, GroupShare, summarize, wilson
from evenhand.report.cells import Cell, Section
from evenhand.report.table import METHOD, Column, Row, Table, Value
from evenhand.runs.record import Metrics
from evenhand.runs.worst_groups import MOST_NAMED, group_texts, interval_text, is_lower
from evenhand.validation import named
from evenhand.wording import NOTHING, clipped, count, distinct, mean_std

_NOTE = (
    f"For each method the group of at least {SMALLEST_COUNTED_GROUP} test samples with the lowest accuracy, and all "
    "smaller groups together, each sample counted once: accuracy in %, mean ± standard deviation over seeds. The "
    "interval is Wilson’s, of the mean on as many samples as one seed has."
)


def worst_table(section: Section) -> Table:
    """Up to two rows a method: the worst group of each run, and the small ones; none where no groups are known."""
    return Table(
        name="Table of worst groups",
        head=(METHOD, Column("Group", ""), *(Column(name) for name in ("Samples", "Accuracy", "95% interval"))),
        rows=tuple(
            Row((Value(cell.label), Value(_names(kind, shares)), *map(Value, _numbers(shares, len(cell.done)))))
            for cell in section.cells
            for kind, shares in zip(("worst", "small"), _shares(cell), strict=True)
            if shares
        ),
        note=_NOTE,
        sortable=True,
    )


def worst_data(cell: Cell) -> dict[str, Any]:
    """An object for the worst group and one for the small ones: names, samples, accuracy and its interval."""
    return {
        kind: {
            "names": list(whole.names),
            "samples": whole.n,
            "accuracy": whole.accuracy,
            "interval": whole.interval and list(whole.interval),
        }
        for kind, shares in zip(("worst_group", "small_groups"), _shares(cell), strict=True)
        if shares
        for whole in [_together(shares)]
    }


def worst_columns(cell: Cell) -> dict[str, Any]:
    """The same as columns of a cell's row."""
    columns: dict[str, Any] = {}
    for kind, found in worst_data(cell).items():
        low, high = found["interval"] or (None, None)
        columns[f"{kind}_names"] = named(found["names"])
        if kind == "small_groups":  # the worst one's mean has a column already
            columns[f"{kind}_mean"] = found["accuracy"]
        columns |= {f"{kind}_samples": found["samples"], f"{kind}_low": low, f"{kind}_high": high}
    return columns


def run_columns(measured: Metrics) -> dict[str, Any]:
    """The worst group and the small ones as columns of one run's row; empty where it has none."""
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
