"""Accuracy by class, where no groups are known, and a note where validation and test are far apart."""

from __future__ import annotations

from collections.abc import Callable

from evenhand.metrics import GroupShare, summarize, wilson
from evenhand.report.cells import Cell, Section
from evenhand.report.table import METHOD, Column, Table, Value, table_of
from evenhand.runs.by_class import apart_text, class_shares
from evenhand.wording import clipped, count, distinct, mean_std

_MOST = 3  # notes of runs that are far apart


def classes_table(section: Section) -> Table:
    """A row a method, a column a class of the primary test set; no rows where groups are known."""
    shares = {cell.label: [class_shares(run.raw["metrics"] or {}) for run in cell.counted] for cell in section.cells}
    names = distinct(name for runs in shares.values() for found in runs for name in found)

    def reached(name: str) -> Callable[[Cell], Value]:
        return lambda cell: _class(name, [found[name] for found in shares[cell.label] if name in found])

    def head(name: str) -> Column:
        sizes = sorted({found[name].n or 0 for runs in shares.values() for found in runs if name in found})
        return Column(clipped(name), small=f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}")

    return table_of(
        "Table of classes",
        [cell for cell in section.cells if cell.done and names],
        [
            (METHOD, lambda cell: Value(cell.label, {"section": section.heading, "label": cell.label})),
            *((head(name), reached(name)) for name in names),
        ],
        note="Accuracy in % on the samples of each class of the primary test set (its recall), mean ± standard "
        "deviation over seeds. No groups are known.",
        more="Below each class how many samples it has. Blue is high, orange low.",
        kind="heat",
        sortable=True,
        is_long=True,
    )


def _class(name: str, shares: list[GroupShare]) -> Value:
    summary = summarize([share.accuracy for share in shares])
    n = min((share.n or 0 for share in shares), default=0)
    low, high = (wilson(summary.mean, n) if n else None) or (None, None)
    numbers = {"mean": summary.mean, "std": summary.std, "n": summary.n, "samples": n, "low": low, "high": high}
    style = "" if summary.mean is None else f"--share: {100 * summary.mean:.1f}%"
    return Value(mean_std(summary, len(shares)), {"class": name, **numbers}, style=style)


def apart_notes(section: Section) -> list[str]:
    """A sentence for each finished run whose validation and test are far apart, of many the first ones."""
    found = [
        (run.seed, cell.label, text) for cell in section.cells for run in cell.done if (text := apart_text(run.raw))
    ]
    notes = [f"{label}, seed {seed}: {text}" for seed, label, text in found[:_MOST]]
    rest = len(found) - len(notes)
    return [*notes, f"The same holds for {count(rest, 'more run')}."] if rest else notes
