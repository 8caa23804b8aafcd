"""What a method costs: time and memory of a run, and how many times ERM's that is."""

from __future__ import annotations

from statistics import median

from evenhand.metrics import summarize
from evenhand.report.cells import Cell, Section
from evenhand.report.table import METHOD, Column, Row, Table, Value
from evenhand.runs.record import Record
from evenhand.wording import NOTHING, distinct, duration, listed, megabytes, ratio

_KINDS = {
    "gpu": "what torch allocated on the GPU",
    "process": "the resident memory of the whole process, with everything else in it; “≤” where something before this "
    "run took as much",
}


def cost_table(section: Section) -> Table:
    """One row a cell with finished runs that recorded their time; older records hold no memory."""
    cells = [cell for cell in section.cells if summarize(list(_seconds(cell).values())).n]
    memory = "" if any(_cell_peak(cell)[0] is not None for cell in cells) else "no place"
    return Table(
        name="Table of costs",
        head=(
            METHOD,
            *(Column(name) for name in ("Time a run", "± std", "Time vs. ERM")),
            *(Column(name, only=memory) for name in ("Peak memory", "Memory vs. ERM")),
        ),
        rows=tuple(_row(section, cell) for cell in cells),
        note=_note(section),
        sortable=True,
    )


def cost_sentence(section: Section, cell: Cell | None) -> str:
    """As in "A run of PGD takes 2.8 times as long as one of ERM."; empty where that isn't known."""
    erm = section.erm
    times = None if cell is None or cell is erm else _times(cell, erm)
    if cell is None or erm is None or times is None:
        return ""
    return f"A run of {cell.label} takes {ratio(times)[:-1]} times as long as one of {erm.label}."


def timed(seconds: float | None, **data: float | int | None) -> Value:
    """A duration, sorted by its seconds."""
    return Value(NOTHING if seconds is None else duration(seconds), data, sort=seconds)


def _note(section: Section) -> str:
    kinds = {kind for run in section.done if (kind := _peak(run)[1]) is not None}
    named = listed([_KINDS[kind] for kind in sorted(kinds) if kind in _KINDS], "or")
    peak = f" Peak memory is {named}." if kinds else ""
    machines = distinct(str(sorted(run.machine.items(), key=str)) for run in section.done)
    mixed = " These runs are from different machines, so their times compare badly." if len(machines) > 1 else ""
    return (
        "Mean time of a whole run with its evaluation; a stage that was taken over from another run counts with the "
        f"time it took there. “vs. ERM” is the median over the seeds that both have run.{peak}{mixed}"
    )


def _row(section: Section, cell: Cell) -> Row:
    seconds = summarize(list(_seconds(cell).values()))
    times = _times(cell, section.erm)
    memory, exact, kind = _cell_peak(cell)
    erm_memory, erm_exact, erm_kind = _cell_peak(section.erm) if section.erm is not None else (None, False, None)
    comparable = memory and erm_memory and exact and erm_exact and kind == erm_kind
    share = memory / erm_memory if comparable and memory and erm_memory else None
    peak = NOTHING if memory is None else ("" if exact else "≤ ") + megabytes(memory)
    return Row(
        (
            Value(cell.label, {"section": section.heading, "label": cell.label}),
            timed(seconds.mean, seconds_mean=seconds.mean),
            timed(seconds.std, seconds_std=seconds.std, seconds_n=seconds.n),
            # the median of the seeds that both have run: one run beside other work moves a mean
            Value(ratio(times), {"times_erm": times}, sort=times),
            Value(peak, {"peak_memory_bytes": memory, "peak_memory_exact": exact}, sort=memory),
            Value(ratio(share), {"peak_memory_vs_erm": share}, sort=share),
        )
    )


def _seconds(cell: Cell) -> dict[tuple[int, int], float | None]:
    return {(run.seed, run.data_seed): run.durations.total_s for run in cell.done}


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
        (stage.bytes, str(stage.of), stage.exact is True) for stage in run.memory.values() if stage.bytes is not None
    ]
    return max(found, key=lambda entry: (entry[0], entry[2])) if found else (None, None, False)
