"""The caption of a section's main table: what a reader must know to take the numbers for what they are."""

from __future__ import annotations

from evenhand.metrics import SMALLEST_COUNTED_GROUP
from evenhand.report.cells import Section
from evenhand.runs.read import Record
from evenhand.runs.worst_groups import MOST_NAMED, empty_groups
from evenhand.validation import named
from evenhand.wording import count, distinct, listed


def section_notes(section: Section) -> list[str]:
    """Sentences on test set, spread, comparison, selection and uncounted groups."""
    done = section.done
    if not done:
        return ["No run is finished, so there are no numbers yet."]
    return [
        f"Accuracy in % on the primary test set, {_tests(done)}: mean ± standard deviation over seeds.",
        _what_a_seed_changes(done),
        _comparison(section),
        f"Model selection: {listed(distinct(run.selection for run in done), 'or')}.",
        _uncounted(done),
        *_files(done),
    ]


def groups_not_counted(runs: list[Record]) -> list[str]:
    """Groups of the primary test set that are too small to be the worst one, in any of the runs."""
    names: dict[str, None] = {}
    for run in runs:
        found = run.part("groups_not_counted").get(run.primary_test or "")
        names |= dict.fromkeys(str(name) for name in found) if isinstance(found, list) else {}
    return list(names)


def sizes(runs: list[Record], *keys: str) -> str:
    """The count that the runs' records hold under `keys`, or its range; empty where none does."""
    found = [run.part(*keys[:-1]).get(keys[-1]) for run in runs]
    numbers = sorted({n for n in found if isinstance(n, int)})
    if not numbers:
        return ""
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,}–{numbers[-1]:,}"


def _files(done: list[Record]) -> list[str]:
    """Which files were read, where runs tell; how many don't."""
    told = distinct(
        f"{option} {digest[:12]}" for run in done if not run.files_unknown for option, digest in run.files.items()
    )
    unknown = sum(run.files_unknown for run in done)
    notes = [f"Files read (SHA-256): {listed(told)}."] if told else []
    if unknown:
        notes.append(f"Files unknown: {unknown} of {count(len(done), 'run')}, made before records told of files.")
    return notes


def _tests(done: list[Record]) -> str:
    texts: list[str] = []
    for name in distinct(run.primary_test for run in done):
        size = sizes([run for run in done if run.primary_test == name], "data", name, "n")
        texts.append(f"“{name}”" + (f" ({size} samples)" if size else ""))
    return listed(texts, "or")


def _what_a_seed_changes(done: list[Record]) -> str:
    seeds = {(run.seed, run.data_seed) for run in done}
    data_seeds = {run.data_seed for run in done}
    if len(seeds) == 1:
        return "There is one seed only, so there is no spread, and a difference between methods may be chance."
    if len(data_seeds) == 1:
        return (
            f"All seeds share the same data (data seed {data_seeds.pop()}): a seed changes initialisation and order "
            "of training only."
        )
    if all(seed == data_seed for seed, data_seed in seeds):
        return "Each seed has its own data, initialisation and order of training."
    return "Some seeds share their data and others do not, so the spread mixes both; tables/runs.csv tells which."


def _comparison(section: Section) -> str:
    if section.baseline is None:
        return f"There is no finished {section.baseline_name} run to compare with."
    others = [c.label for c in section.cells if c.is_baseline and c.done and c is not section.baseline]
    which = f" (to {section.baseline.label}, not to {listed(others, 'or')})" if others else ""
    return (
        f"“Conflicting vs. {section.baseline_name}” is the difference in conflicting accuracy on the same "
        f"seeds{which}, in points, with its 95% t-interval, which is not corrected for comparing several methods."
    )


def _uncounted(done: list[Record]) -> str:
    rule = (
        f"A group of fewer than {SMALLEST_COUNTED_GROUP} test samples never counts as the worst group; all of these "
        "together are “Small groups”, each sample counted once"
    )
    names = groups_not_counted(done)
    groups = {name for run in done if run.metrics for name in run.metrics.by_group}
    if not names:
        return f"{rule}; here all groups count." if groups else f"{rule}."
    few = f"here {len(names)} of {count(len(groups | set(names)), 'group')} ({named(names, MOST_NAMED)})"
    empty = distinct(name for run in done if run.metrics for name in empty_groups(run.metrics.by_group))
    none = f" Without a sample, so that nothing is known of them: {named(empty, MOST_NAMED)}." if empty else ""
    return f"{rule}: {few}.{none}"
