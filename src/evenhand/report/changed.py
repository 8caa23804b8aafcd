"""Test samples that a method gets right and ERM wrong ("fixed"), and the reverse ("broken")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.data.origins import where_text
from evenhand.report.cells import Cell, Section
from evenhand.report.ranking import best_other, leading
from evenhand.report.table import METHOD, Table, table_of
from evenhand.runs.predictions import Predictions, has_predictions, read_predictions
from evenhand.runs.read import is_png
from evenhand.runs.record import Record
from evenhand.wording import NOTHING

MOST_METHODS = 12  # beside the baseline
MOST_SHOWN = 12  # rows of a list on the page
_SAME = ("index", "id", "file", "row", "line", "label")  # what two runs on equal data agree on
_CHANGES = ("fixed", "broken")
_STANDINGS = ("conflicting", "aligned", "independent")
_IN_CSV = ("change", "file", "row", "line", "id", "index", "standing", "label", "baseline", "prediction")


@dataclass(frozen=True)
class ChangedSample:
    """One sample: where it lies, what it is, and both predictions.

    Where no run kept its text or picture, `texts` is empty and `png` None.
    """

    change: str
    file: str | None
    row: int | None
    line: int | None
    id: str | None
    index: int
    label: str
    baseline: str
    prediction: str
    standing: str
    texts: tuple[str, ...]
    png: str | None

    @property
    def where(self) -> str:
        """As in "tickets.csv row 118 (line 131)"; its number in the test set where no file is known."""
        return f"test sample {self.index}" if self.file is None else where_text(self.file, self.row, self.line)

    @property
    def data(self) -> dict[str, Any]:
        """The sample as CSV has it, without text and picture."""
        return {name: getattr(self, name) for name in _IN_CSV}


@dataclass(frozen=True)
class Changes:
    """What one method changes.

    Attributes:
        label: The method.
        counts: "all", and where that is known the samples of each standing → "samples", "fixed" and "broken".
        fixed: The samples that it gets right and the other wrong, those against the shortcut before the others.
        broken: The reverse, in the same order.
    """

    label: str
    counts: Mapping[str, Mapping[str, int]]
    fixed: tuple[ChangedSample, ...]
    broken: tuple[ChangedSample, ...]


@dataclass(frozen=True)
class Changed:
    """What the methods of one seed change against the baseline, the best one first."""

    baseline: str
    seed: int
    data_seed: int
    methods: tuple[Changes, ...]


def changed(section: Section) -> Changed | None:
    """What methods change against ERM, on the seed that most of them have predictions for; None without any."""
    erm = section.erm or section.baseline
    if erm is None:
        return None
    pairs: dict[tuple[int, int], list[tuple[Cell, Record, Record]]] = {}
    ours = {(run.seed, run.data_seed): run for run in erm.done if has_predictions(run)}
    for cell in leading(section, MOST_METHODS + 1):
        for run in cell.counted if cell is not erm and cell.is_tried else ():
            key = run.seed, run.data_seed
            if key in ours and run.primary_test == ours[key].primary_test and has_predictions(run):
                pairs.setdefault(key, []).append((cell, ours[key], run))
    if not pairs:
        return None
    key = min(pairs, key=lambda seeds: (-len(pairs[seeds]), seeds))
    first = best_other(section)
    chosen = sorted(pairs[key], key=lambda pair: pair[0] is not first)
    before = read_predictions(ours[key])
    found = [changes for cell, _, run in chosen if (changes := _changes(cell.label, before, read_predictions(run)))]
    return Changed(erm.label, *key, tuple(found)) if found else None


def changed_data(section: Section) -> list[dict[str, Any]]:
    """Every changed sample of every method, as CSV has them."""
    found = changed(section)
    named = {} if found is None else {"section": section.heading, "seed": found.seed, "data_seed": found.data_seed}
    methods = () if found is None else found.methods
    return [named | {"method": m.label} | sample.data for m in methods for sample in (*m.fixed, *m.broken)]


def counts_data(section: Section) -> dict[str, Any] | None:
    """How many samples each method fixes and breaks, as JSON has it."""
    found = changed(section)
    if found is None:
        return None
    named = {"baseline": found.baseline, "seed": found.seed, "data_seed": found.data_seed}
    return named | {"methods": {changes.label: changes.counts for changes in found.methods}}


def changed_table(found: Changed) -> Table:
    """How many samples each method fixes and breaks, in all and among those of each standing."""
    sides = list(dict.fromkeys(side for changes in found.methods for side in changes.counts))

    def counted(side: str, what: str) -> tuple[str, Callable[[Changes], str]]:
        return (
            f"{side.capitalize()}: {what}" if side != "all" else what.capitalize(),
            lambda changes: f"{changes.counts[side][what]:,}" if side in changes.counts else NOTHING,
        )

    return table_of(
        "Table of fixed and broken samples",
        found.methods,
        [
            (METHOD, lambda changes: changes.label),
            *(counted(side, what) for side in sides for what in ("fixed", "broken", "samples")),
        ],
        note=f"Test samples that {found.baseline} gets wrong and the method right (fixed), and the reverse (broken), "
        f"with how many samples there are. Seed {found.seed}"
        + (f", data seed {found.data_seed}." if found.data_seed != found.seed else "."),
    )


def _changes(label: str, before: Predictions, after: Predictions) -> Changes | None:
    """None where the two aren't of the same rows."""
    if any(before.get(name) != after.get(name) for name in _SAME):
        return None
    samples = [
        _change(before, after, i, true)
        for i, true in enumerate(after["label"])
        if (before["prediction"][i] == true) != (after["prediction"][i] == true)
    ]
    standing_N = [_standing(before, after, i) for i in range(len(after["label"]))]
    counts = {"all": _counted(samples, len(standing_N))}
    for standing in sorted({*standing_N} - {""}, key=_STANDINGS.index):
        counts[standing] = _counted([s for s in samples if s.standing == standing], standing_N.count(standing))
    ordered = sorted(samples, key=lambda sample: sample.standing != "conflicting")
    lists = {change: tuple(sample for sample in ordered if sample.change == change) for change in _CHANGES}
    return Changes(label, counts, **lists)


def _counted(samples: Sequence[ChangedSample], n: int) -> dict[str, int]:
    return {"samples": n} | {change: sum(sample.change == change for sample in samples) for change in _CHANGES}


def _standing(before: Predictions, after: Predictions, i: int) -> str:
    """How a sample stands to the shortcut; where the method's run doesn't know it, as the other one does."""
    known = (of["standing"][i] for of in (after, before))
    return next((standing for standing in known if standing in _STANDINGS), "")


def _change(before: Predictions, after: Predictions, i: int, true: Any) -> ChangedSample:
    wrong = before if after["prediction"][i] == true else after  # a run keeps what it gets wrong
    file, row, line, name = (after[n][i] if n in after else None for n in ("file", "row", "line", "id"))
    texts = [str(text) for n in ("text", "text_pair") if n in wrong and (text := wrong[n][i]) is not None]
    png = wrong["png"][i] if "png" in wrong else None
    return ChangedSample(
        change="fixed" if wrong is before else "broken",
        file=file or None,
        row=row or None,
        line=line or None,
        id=str(name) if name else None,
        index=after["index"][i],
        label=str(true),
        baseline=str(before["prediction"][i]),
        prediction=str(after["prediction"][i]),
        standing=_standing(before, after, i),
        texts=tuple(texts),
        png=png if png is not None and is_png(str(png)) else None,
    )
