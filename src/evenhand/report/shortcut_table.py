"""The table by shortcut: what each method gets of the samples that go along and against, and how much it relies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evenhand.metrics import GroupShare, Summary, summarize, wilson
from evenhand.report.cells import Cell, Section, sizes
from evenhand.report.table import METHOD, Column, Row, Table, Value
from evenhand.runs.by_shortcut import TOGETHER, by_shortcut, share_of
from evenhand.runs.record import Record
from evenhand.runs.told import ShareTold, ShortcutTold
from evenhand.wording import NOTHING, clipped, distinct, mean_std, percent, points

# name in the data → heading, what stands below it on the page, and where a record has it
_SHARES: Mapping[str, tuple[str, str, Callable[[ShortcutTold], ShareTold | Any]]] = {
    "aligned": ("Aligned", "", lambda told: told.aligned),
    "conflicting": ("Conflicting", "", lambda told: told.conflicting),
    "independent": ("Independent", "", lambda told: told.independent),
    "taken": ("Follows it", "of the conflicting", lambda told: told.taken),
    "reliance": ("Reliance", "answers that change without it", lambda told: told.reliance),
}
_SHOWN = ("aligned", "conflicting", "gap", "taken", "reliance")

_NOTE = (
    "On the primary test set, in %, mean ± standard deviation over seeds; then samples and 95% interval. Aligned "
    "samples go along with the shortcut, conflicting ones against it. The gap is aligned minus conflicting accuracy, "
    "in points. “Follows it” is the share of conflicting samples that get the class that the shortcut points to. "
    "“Reliance” is the share of answers that change where the shortcut is taken out of the inputs, of the samples "
    "whose inputs change. Intervals are Wilson’s, of the mean on as many samples as one seed has; that of the gap is "
    "Newcombe’s with one seed, else the t-interval over seeds."
)


def shortcuts_table(section: Section) -> Table:
    """A row a method and shortcut, and one for all together where there are several; none where none is named."""
    heads = {"gap": ("Gap", "points"), **{name: found[:2] for name, found in _SHARES.items()}}
    columns = [
        column
        for name in _SHOWN
        for column in (Column(heads[name][0], small=heads[name][1], only="page"), Column(heads[name][0], only="text"))
    ]
    return Table(
        name="Table by shortcut",
        head=(METHOD, Column("Shortcut", "foreign"), *columns, Column("Labels needed beyond the class", "")),
        rows=tuple(row for cell in section.cells for row in _rows(section, cell)),
        note=_NOTE,
        sortable=True,
    )


def measures_of(cell: Cell) -> dict[str | None, list[ShortcutTold]]:
    """What the runs that count measured by each shortcut, by name, and under None all together; of records with it."""
    runs = [by_shortcut(run.raw.get("metrics")) for run in cell.counted]
    names = sorted({name: None for run in runs for name in run}, key=lambda name: name is None)  # stable
    return {name: [run[name] for run in runs if name in run] for name in names}


def pooled(told: Sequence[ShortcutTold], name: str) -> tuple[Summary, GroupShare | None]:
    """One of `aligned`, `conflicting`, `independent`, `taken` and `reliance` over runs.

    Returns:
        Mean and spread over seeds, and the mean as a share of as many samples as the run with the fewest has, with
        Wilson's interval; None where no run has any.
    """
    shares = [share for one in told if (share := share_of(_SHARES[name][2](one))) is not None]
    summary = summarize([share.accuracy for share in shares])
    n = min((share.n or 0 for share in shares), default=0)
    return summary, None if not n else GroupShare((), summary.mean, n, wilson(summary.mean, n))


def run_columns(run: Mapping[str, Any] | None) -> dict[str, Any]:
    """A run's measures on one test set as columns of its row: each share with its samples, and the gap."""
    columns: dict[str, Any] = {}
    for name, told in by_shortcut(run).items():
        which = TOGETHER if name is None else f"shortcut {name}"
        for measure, (*_, read) in _SHARES.items():
            share = share_of(read(told))
            columns[f"{which}: {measure}"] = share and share.accuracy
            columns[f"{which}: {measure}_samples"] = getattr(read(told), "n", None)
        columns[f"{which}: gap"] = told.gap.value
    return columns


def run_data(record: Record, test: str) -> dict[str, Any]:
    """A run's measures on one test set as report.json has them; nothing where no shortcut is named."""
    found = by_shortcut(record.raw.get("tests", {}).get(test))
    shortcuts = [{"shortcut": name, **told.model_dump()} for name, told in found.items()]
    return {"by_shortcut": shortcuts} if shortcuts else {}


def _rows(section: Section, cell: Cell) -> list[Row]:
    access = distinct(run.label_access for run in cell.done)
    rows: list[Row] = []
    for name, told in measures_of(cell).items():
        independent = _share(told, "independent", len(cell.counted))[1].data
        places = [
            place
            for measure in _SHOWN
            for place in (_gap if measure == "gap" else _share)(told, measure, len(cell.counted))
        ]
        values = (
            Value(cell.label, {"section": section.heading, "label": cell.label}),
            Value(TOGETHER if name is None else clipped(name), {"shortcut": name, "seeds": len(told), **independent}),
            *places,
            Value("; ".join(text.split(" (")[0] for text in access) or NOTHING, {"label_access": "; ".join(access)}),
        )
        rows.append(Row(values))
    return rows


def _share(told: Sequence[ShortcutTold], measure: str, seeds: int) -> tuple[Value, Value]:
    """The place of one share on the page, and in text."""
    read = _SHARES[measure][2]
    summary, whole = pooled(told, measure)
    counted = sizes(n for one in told if (n := getattr(read(one), "n", None)) is not None)
    low, high = (whole and whole.interval) or (None, None)
    beside = [] if low is None else [f"{percent(low)} to {percent(high)}"]
    why = distinct(one.why_no_reliance for one in told) if measure == "reliance" and not summary.n else []
    data = {"samples": None if whole is None else whole.n, "low": low, "high": high}
    return _places(measure, summary, mean_std(summary, seeds), [*([counted] if counted else []), *beside, *why], data)


def _gap(told: Sequence[ShortcutTold], measure: str, seeds: int) -> tuple[Value, Value]:
    summary = summarize([one.gap.value for one in told])
    low, high = summary.low, summary.high
    if summary.n == 1:  # within the one test set
        low, high = next((tuple(one.gap.interval) for one in told if one.gap.interval), (None, None))
    spread = "" if summary.std is None else f" ± {percent(summary.std)}"
    few = f" (n = {summary.n})" if 0 < summary.n < seeds else ""
    beside = [] if low is None else [f"{points(low)} to {points(high)}"]
    return _places(measure, summary, f"{points(summary.mean)}{spread}{few}", beside, {"low": low, "high": high})


def _places(
    measure: str, summary: Summary, text: str, beside: Sequence[str], more: Mapping[str, Any]
) -> tuple[Value, Value]:
    parts = {part: value for part, value in asdict(summary).items() if part in ("mean", "std", "n")}
    data = {f"{measure}_{part}": value for part, value in (parts | dict(more)).items()}
    words = "; ".join(beside)
    return (
        Value(text, data, sort=summary.mean, below=words),
        Value(f"{text} ({words})" if words else text),
    )
