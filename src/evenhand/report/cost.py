"""What a method costs: time and memory of a run, and how many times ERM's that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from evenhand.metrics import Summary, summarize
from evenhand.report.cells import Cell, Section
from evenhand.runs.read import Record, number
from evenhand.wording import NOTHING, distinct, duration, listed, megabytes, ratio

_HEAD = ("Method", "Time a run", "± std", "Time vs. ERM")
_MEMORY_HEAD = ("Peak memory", "Memory vs. ERM")


@dataclass(frozen=True)
class CostRow:
    """One method.

    Attributes:
        seconds: Of whole runs.
        times_erm: Time by ERM's, the median of the seeds that both have run: one run beside other work moves a mean.
        memory: The most memory that a run took, in bytes; None where unknown.
        memory_exact: Whether it took that much, or at most that much.
        memory_erm: By ERM's; None unless both are known exactly and of the same kind.
    """

    label: str
    seconds: Summary
    times_erm: float | None
    memory: int | None
    memory_exact: bool
    memory_erm: float | None

    @property
    def texts(self) -> list[str]:
        """The row as it is printed."""
        mean, std = self.seconds.mean, self.seconds.std
        memory = NOTHING if self.memory is None else megabytes(self.memory)
        return [
            self.label,
            NOTHING if mean is None else duration(mean),
            NOTHING if std is None else duration(std),
            ratio(self.times_erm),
            memory if self.memory_exact or self.memory is None else f"≤ {memory}",
            ratio(self.memory_erm),
        ]

    @property
    def sort_keys(self) -> list[float | str | None]:
        """What each text is sorted by."""
        return [self.label, self.seconds.mean, self.seconds.std, self.times_erm, self.memory, self.memory_erm]


def cost_rows(section: Section) -> list[CostRow]:
    """One row a cell with finished runs that recorded their time."""
    erm = section.erm
    rows = [_row(cell, erm) for cell in section.cells if cell.done]
    return [row for row in rows if row.seconds.n]


def cost_head(section: Section) -> tuple[str, ...]:
    """The table's columns: older records hold no memory."""
    return _HEAD + (_MEMORY_HEAD if any(row.memory is not None for row in cost_rows(section)) else ())


def cost_note(section: Section) -> str:
    """What the table of costs holds."""
    kinds = {kind for run in section.done if (kind := _peak(run)[1]) is not None}
    what = {
        "gpu": "what torch allocated on the GPU",
        "process": "the resident memory of the whole process, with what else it holds; “≤” where something before this "
        "run took as much",
    }
    peak = f" Peak memory is {listed([what[kind] for kind in sorted(kinds) if kind in what], 'or')}." if kinds else ""
    machines = distinct(str(sorted(run.part("machine").items(), key=str)) for run in section.done)
    mixed = " These runs are from different machines, so their times compare badly." if len(machines) > 1 else ""
    return (
        "Mean time of a whole run with its evaluation; a stage that was taken over from another run counts with the "
        f"time it took there. “vs. ERM” is the median over the seeds that both have run.{peak}{mixed}"
    )


def cost_sentence(section: Section, cell: Cell | None) -> str:
    """As in "A run of PGD takes 2.8 times as long as one of ERM."; empty where that isn't known."""
    erm = section.erm
    if cell is None or erm is None or cell is erm:
        return ""
    times = _row(cell, erm).times_erm
    if times is None:
        return ""
    return f"A run of {cell.label} takes {ratio(times)[:-1]} times as long as one of {erm.label}."


def cost_data(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """The rows of all sections at full precision."""
    return [
        {
            "section": section.heading,
            "label": row.label,
            "seconds_mean": row.seconds.mean,
            "seconds_std": row.seconds.std,
            "seconds_n": row.seconds.n,
            "times_erm": row.times_erm,
            "peak_memory_bytes": row.memory,
            "peak_memory_exact": row.memory_exact,
            "peak_memory_vs_erm": row.memory_erm,
        }
        for section in sections
        for row in cost_rows(section)
    ]


def _row(cell: Cell, erm: Cell | None) -> CostRow:
    memory, exact, kind = _cell_peak(cell)
    erm_memory, erm_exact, erm_kind = _cell_peak(erm) if erm is not None else (None, False, None)
    comparable = memory and erm_memory and exact and erm_exact and kind == erm_kind
    return CostRow(
        label=cell.label,
        seconds=summarize(list(_seconds(cell).values())),
        times_erm=_times(cell, erm),
        memory=memory,
        memory_exact=exact,
        memory_erm=memory / erm_memory if comparable and memory and erm_memory else None,
    )


def _seconds(cell: Cell) -> dict[tuple[int, int], float | None]:
    return {(run.seed, run.data_seed): number(run.part("durations").get("total_s")) for run in cell.done}


def _times(cell: Cell, erm: Cell | None) -> float | None:
    if erm is None:
        return None
    ours, theirs = _seconds(cell), _seconds(erm)
    ratios = [mine / base for key, mine in ours.items() if mine is not None and (base := theirs.get(key))]
    return median(ratios) if ratios else None


def _cell_peak(cell: Cell) -> tuple[int | None, bool, str | None]:
    """The highest peak of the cell's runs that is exact, else the lowest bound; whether exact; its kind."""
    peaks = [(peak, exact, kind) for run in cell.done for peak, kind, exact in [_peak(run)] if peak is not None]
    certain = [entry for entry in peaks if entry[1]]
    if certain:
        return max(certain, key=lambda entry: entry[0])
    return min(peaks, key=lambda entry: entry[0]) if peaks else (None, False, None)


def _peak(run: Record) -> tuple[int | None, str | None, bool]:
    """The highest peak of a run's stages, its kind, and whether a stage of this run reached it."""
    found = [
        (int(size), str(stage.get("of")), stage.get("exact") is True)
        for stage in run.part("memory").values()
        if isinstance(stage, dict) and (size := number(stage.get("bytes"))) is not None
    ]
    return max(found, key=lambda entry: (entry[0], entry[2])) if found else (None, None, False)
