"""What sentences say of shortcuts that have a name: which one is spoken of, and what the data can't teach."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.report.cells import Cell, Section
from evenhand.report.shortcut_table import measures_of, pooled
from evenhand.runs.by_shortcut import fitted_shortcuts, overall_measures, quoted, share_of, shortcut_names
from evenhand.runs.record import Record
from evenhand.tasks import TASKS, OwnData
from evenhand.wording import clipped, distinct, listed, one_line, percent

_MOST = 3  # shortcuts or methods that a sentence names with their numbers
_ROUNDING = 1e-5  # measures by shortcut are rounded, metrics aren't


def spoken_of(cell: Cell) -> str:
    """As in "the shortcut 'token:nimbus'", or "the shortcut" where its aligned and conflicting samples have no name."""
    names = _names(cell)
    if not names:
        return "the shortcut"
    return f"the shortcut {names[0]}" if len(names) == 1 else f"a shortcut ({_either(names)})"


def nowhere_clear(cell: Cell) -> str:
    """The same behind "shows"."""
    names = _names(cell)
    return f"no clear use of {_either(names)}" if names else "no clear shortcut"


def label_access(cell: Cell) -> str:
    """What a method needs beyond the class, as in " (needs the shortcut's name)"; empty where that is nothing.

    It stands beside methods on data whose shortcuts have a name: there methods that need it and others compete.
    """
    access = cell.first.label_access or "none"
    return f" (needs {one_line(clipped(access))})" if _names(cell) and not access.startswith("none") else ""


def sides_note(section: Section) -> str:
    """Who is aligned and who conflicts; empty where no shortcut is named."""
    names = [quoted(name) for name in section.shortcuts]
    if not names:
        return ""
    if not all(_is_by_named(run) for run in section.done):
        return (
            f"Who is aligned and who conflicts is the task’s own; the table by shortcut tells it for {listed(names)}."
        )
    if len(names) == 1:
        return (
            f"Aligned samples go along with {names[0]}, conflicting ones against it; the others are independent of it."
        )
    return (
        f"Conflicting samples go against {_either(names)}, aligned ones along with one of these and against none; the "
        "others are independent of all."
    )


def by_each(section: Section, cells: Sequence[Cell]) -> str:
    """What methods get by each shortcut, where the main table doesn't tell; empty otherwise."""
    names = section.shortcuts
    if not names or (len(names) == 1 and all(_is_by_named(run) for run in section.done)):
        return ""
    told = [f"{cell.label} {'; '.join(parts)}" for cell in cells if (parts := _sides(cell, names[:_MOST]))]
    more = f" (of {len(names)} shortcuts, the table has all)" if len(names) > _MOST else ""
    return f"Accuracy on aligned and on conflicting samples by shortcut{more}: {', and '.join(told)}." if told else ""


# ---- what the data can't teach --------------------------------------------------------------------------------------


def is_unlearnable(section: Section) -> bool:
    """Whether no training sample goes against any of the named shortcuts: then no method is advised."""
    names = set(section.shortcuts)
    return bool(names) and names == set(_perfect(section))


def unlearnable(section: Section, cells: Sequence[Cell], *, also_test: bool = False) -> str:
    """What is said then.

    Args:
        section: The runs.
        cells: Whose reliance is told.
        also_test: Whether it was just said that no test sample goes against them.
    """
    names, it = _called(section)
    first = "No training sample does either" if also_test else f"No training sample goes against {_either(names)}"
    return (
        f"{first}, so no method can learn to do without {it} from these data, and none is advised. "
        f"{_reliance(cells, it)} Collect samples that go against {it}."
    )


def partly_unlearnable(section: Section) -> str:
    """The same of some of several shortcuts; empty where there is none such."""
    perfect = [quoted(name) for name in _perfect(section)]
    if not perfect or is_unlearnable(section):
        return ""
    return (
        f"No training sample goes against {_either(perfect)}, so no method can learn to do without "
        f"{'it' if len(perfect) == 1 else 'them'} from these data: collect samples that do."
    )


def nobody_against(section: Section, cells: Sequence[Cell]) -> str:
    """What is said where shortcuts have names but no test sample is known to go against them."""
    names, it = _called(section)
    fitted = [one for run in section.done for one in fitted_shortcuts(run.raw)]
    if fitted and not any(one.points_anywhere for one in fitted):
        return f"No value of {_either(names)} points to a class in the training data, so no sample goes against {it}."
    first = f"No test sample goes against {_either(names)}, so accuracy can't say who took {it}."
    if is_unlearnable(section):
        return f"{first} {unlearnable(section, cells, also_test=True)}"
    return f"{first} {_reliance(cells, it)} Test on samples that go against {it}."


def how_to_name(section: Section) -> str:
    """How data whose shortcuts nobody built get a name for them; empty for built tasks."""
    name = section.cells[0].first.task.name
    if name in TASKS and name != OwnData.name:
        return ""
    return (
        " To find out, let “evenhand audit” look for shortcuts, and train again with --shortcut and a name that it "
        "gives, such as --shortcut token:nimbus."
    )


def _reliance(cells: Sequence[Cell], it: str) -> str:
    shares: list[str] = []
    reasons: list[str | None] = []
    for cell in cells:
        told = [one for run in cell.counted if (one := overall_measures(run.raw.get("metrics"))) is not None]
        mean = pooled(told, "reliance")[0].mean
        shares += [] if mean is None else [f"{percent(mean)}% ({cell.label})"]
        reasons += [one.why_no_reliance for one in told]
    if shares:
        return f"Reliance, the share of answers that change without {it}, is {listed(shares[:_MOST])}."
    why = [one_line(clipped(reason)).rstrip(".") for reason in distinct(reasons)]
    return f"How far a model relies on {it} isn't measured{f': {why[0]}' if why else ''}."


def _perfect(section: Section) -> list[str]:
    """The shortcuts that no training sample of any run goes against."""
    runs = [{one.name: one.is_perfect for one in fitted_shortcuts(run.raw)} for run in section.done]
    return [name for name in section.shortcuts if runs and all(run.get(name) for run in runs)]


def _called(section: Section) -> tuple[list[str], str]:
    names = [quoted(name) for name in section.shortcuts]
    return names, "it" if len(names) == 1 else "them"


def gap_of_one_seed(cell: Cell) -> tuple[float, float] | None:
    """Newcombe's interval of aligned minus conflicting accuracy in a method's only run, where they have a name."""
    runs = cell.counted
    if len(runs) != 1 or not _names(cell):
        return None
    told = overall_measures(runs[0].raw.get("metrics"))
    ends = told and told.gap.interval
    return (ends[0], ends[1]) if ends else None


# ---- which one ------------------------------------------------------------------------------------------------------


def _names(cell: Cell) -> list[str]:
    """The named shortcuts, where aligned and conflicting samples are so by these."""
    names, runs = shortcut_names(cell.first.raw), cell.counted
    return [quoted(name) for name in names] if names and runs and all(map(_is_by_named, runs)) else []


def _is_by_named(run: Record) -> bool:
    """Whether the run's aligned and conflicting accuracies are those by its named shortcuts, and not a task's own."""
    told = overall_measures(run.raw.get("metrics"))
    if told is None or run.metrics is None:
        return False
    pairs = ((run.metrics.aligned, told.aligned), (run.metrics.conflicting, told.conflicting))
    values = [(own, (share := share_of(part)) and share.accuracy) for own, part in pairs]
    return all(
        own == named or (own is not None and named is not None and abs(own - named) < _ROUNDING)
        for own, named in values
    )


def _sides(cell: Cell, names: Sequence[str]) -> list[str]:
    found = measures_of(cell)
    means = {
        name: [pooled(found[name], side)[0].mean for side in ("aligned", "conflicting")]
        for name in names
        if name in found
    }
    return [f"{' and '.join(f'{percent(mean)}%' for mean in both)} by {quoted(n)}" for n, both in means.items()]


def _either(names: Sequence[str]) -> str:
    most = [*names[:_MOST], *([f"{len(names) - _MOST} more"] if len(names) > _MOST else [])]
    return listed(most, "or")
