"""A section in words: who took the shortcut, which method avoids it, how sure that is, and what the numbers are."""

from __future__ import annotations

from evenhand.metrics import SMALLEST_COUNTED_GROUP, Summary
from evenhand.report.cells import DID_NOTHING, Cell, Section, difference, sizes
from evenhand.report.class_table import apart_notes
from evenhand.report.ranking import (
    SHORTCUT_GAP,
    best_other,
    chance,
    fault,
    inverts_shortcut,
    is_above,
    ranked,
    scores,
    took_shortcut,
)
from evenhand.report.ranking import gap as gap_of
from evenhand.report.shortcut_words import (
    by_each,
    how_to_name,
    is_unlearnable,
    label_access,
    nobody_against,
    nowhere_clear,
    partly_unlearnable,
    sides_note,
    spoken_of,
    unlearnable,
)
from evenhand.report.worst_table import worst_sentence
from evenhand.runs.record import Record
from evenhand.runs.worst_groups import MOST_NAMED, empty_groups
from evenhand.validation import named
from evenhand.wording import count, distinct, interval, listed, percent, points

_MOST_NAMED = 3  # methods that a sentence names with their numbers


def headline(section: Section, cost: str = "") -> str:
    """Two or three sentences that hold for these runs alone, and say what they can't tell.

    Args:
        section: The runs.
        cost: A sentence on what the best method costs, if that is to be said.
    """
    spoken = _spoken(section)
    named = (by_each(section, spoken), partly_unlearnable(section))
    sentences = (*_findings(section), *named, worst_sentence(spoken), cost, _unfinished(section))
    return " ".join(sentence for sentence in sentences if sentence)


def _spoken(section: Section) -> list[Cell]:
    """The baseline, or the first method without one, and the best other method."""
    done = [cell for cell in section.cells if cell.done]
    spoken = [section.baseline or done[0], best_other(section)] if done else []
    return [cell for cell in spoken if cell is not None]


def _findings(section: Section) -> tuple[str, ...]:
    finished = [cell for cell in section.cells if cell.done]
    if not finished:
        return ("No run is finished yet.",)
    tried = [cell for cell in finished if cell.is_tried]
    measured = [cell for cell in tried if cell.summary("conflicting").n]
    if not measured:
        return (_average_only(section, tried), *_did_nothing(finished))
    baseline = section.baseline if section.baseline in measured else None
    others = [cell for cell in measured if not cell.is_baseline]
    if is_unlearnable(section):
        return (_behaviour(baseline or measured[0]), unlearnable(section, measured), *_did_nothing(finished))
    if baseline is None:
        if not others:
            return ("No ERM run here defines an accuracy on conflicting samples.", *_did_nothing(finished))
        return (*_without_baseline(others), *_did_nothing(finished))
    if not others:
        return (_behaviour(baseline), "No other method is finished here to compare it with.", *_did_nothing(finished))
    return (_behaviour(baseline), *_against(others, baseline), *_did_nothing(finished))


def _against(others: list[Cell], baseline: Cell) -> tuple[str, ...]:
    """The best of the eligible methods against the baseline, and what the others are that seem better."""
    found = ranked(others)
    if not found:
        verdict = "No method here avoids it" if took_shortcut(baseline) else "No other method here can be called better"
        return (f"{verdict}: {_faults(others)}.",)
    best = found[0]
    reached = best.summary("conflicting").mean or 0.0
    passed_over = [
        cell
        for cell in others
        if cell not in found and (inverts_shortcut(cell) or (cell.summary("conflicting").mean or 0.0) >= reached)
    ]
    return (_comparison(best, baseline), f"Passed over: {_faults(passed_over)}." if passed_over else "")


def _faults(cells: list[Cell]) -> str:
    """Why methods aren't eligible, as in "PGD inverts the shortcut (5.0% aligned, 76.0% conflicting)"."""
    ordered = sorted(cells, key=lambda cell: -(cell.summary("conflicting").mean or 0.0))
    texts = [f"{cell.label} {fault(cell)}, with {_both(cell)}" for cell in ordered[:_MOST_NAMED]]
    rest = len(ordered) - len(texts)
    return "; ".join([*texts, *([f"and {rest} more, which the table marks"] if rest else [])])


def _both(cell: Cell) -> str:
    aligned, conflicting = cell.summary("aligned").mean, cell.summary("conflicting").mean
    shown = f"{percent(conflicting)}% of the conflicting ones right"
    return shown if aligned is None else f"{percent(aligned)}% of the aligned and {shown}"


def _did_nothing(finished: list[Cell]) -> tuple[str, ...]:
    """One sentence on each method whose runs, or some of them, are ERM's."""
    sentences: list[str] = []
    for cell in finished:
        reasons = distinct(run.did_nothing for run in cell.idle)
        if reasons:
            name = cell.label.removesuffix(DID_NOTHING)
            runs = f" in {len(cell.idle)} of {count(len(cell.done), 'run')}" if cell.is_tried else ""
            sentences.append(f"{name} did nothing here{runs}, so it trained as ERM does: {reasons[0]}.")
    return tuple(sentences)


def _average_only(section: Section, finished: list[Cell]) -> str:
    if section.shortcuts:
        return nobody_against(section, finished)
    unknown = "No test sample here is known to be aligned or conflicting, so this report can't say who took a shortcut"
    above = [cell for cell in finished if is_above(cell, "average", chance(cell, "average") or 0.0)]
    if not above:
        return f"{unknown}; no method's average accuracy is above chance for sure.{how_to_name(section)}"
    best = max(above, key=lambda cell: cell.summary("average").mean or 0.0)
    summary = best.summary("average")
    highest = f"the highest average accuracy is {percent(summary.mean)}% ({best.label}, {count(summary.n, 'seed')})"
    return f"{unknown}; {highest}.{how_to_name(section)}"


def _behaviour(cell: Cell) -> str:
    """What one method does with aligned and with conflicting samples, and how sure that is."""
    aligned, conflicting = cell.summary("aligned"), cell.summary("conflicting")
    seeds = "one seed" if conflicting.n == 1 else f"mean of {conflicting.n} seeds"
    if aligned.mean is None:
        return f"{cell.label} gets {percent(conflicting.mean)}% of the conflicting test samples right ({seeds})."
    if inverts_shortcut(cell):
        return (
            f"{cell.label} inverts {spoken_of(cell)}: it gets only {percent(aligned.mean)}% of the aligned test "
            f"samples right, but {percent(conflicting.mean)}% of the conflicting ones ({seeds})."
        )
    gap = gap_of(cell)
    if took_shortcut(cell):
        alone = ", so there is no interval" if gap.low is None else ""
        return (
            f"{cell.label} took {spoken_of(cell)}: it gets {percent(aligned.mean)}% of the aligned test samples right, "
            f"but only {percent(conflicting.mean)}% of the conflicting ones ({seeds}{alone})."
        )
    shares = (
        f"it gets {percent(aligned.mean)}% of the aligned and {percent(conflicting.mean)}% of the conflicting test "
        "samples right"
    )
    evidence = f"{seeds}, so there is no interval"
    if gap.low is not None:
        evidence = f"{seeds}; 95% interval of the difference: {interval(gap)} points"
        if gap.mean is not None and gap.mean >= SHORTCUT_GAP:
            return (
                f"{cell.label} seems to take {spoken_of(cell)}, but {count(gap.n, 'seed')} can't settle it: {shares} "
                f"({evidence}, which contains 0)."
            )
    unclear = fault(cell)
    if unclear is not None:
        return f"{cell.label} {unclear}, so whether it takes {spoken_of(cell)} can't be told: {shares} ({evidence})."
    if gap.high is not None and gap.high >= SHORTCUT_GAP:
        return f"{cell.label} shows {nowhere_clear(cell)}, though one can't be ruled out: {shares} ({evidence})."
    return f"{cell.label} shows {nowhere_clear(cell)}: {shares} ({evidence})."


def _without_baseline(others: list[Cell]) -> tuple[str, ...]:
    """No ERM: the worst and the best are described, and no difference is claimed."""
    found = ranked(others)
    worst = min(others, key=lambda cell: (cell in found, cell.summary("conflicting").mean or 0.0))
    missing = "There is no finished ERM run here, so no difference to ERM can be given"
    alone = all(cell.summary("conflicting").n == 1 for cell in others)
    one_seed = ", and with one seed each, differences between methods may be chance" if alone else ""
    first = _behaviour(worst)
    if not found:
        return (first, f"No method here can be called good: {_faults(others)}.", f"{missing}.")
    best = found[0]
    if best is worst:
        return (first, f"{missing}.")
    name = f"{best.label}{label_access(best)}"
    highest = f"{name} does best by the mean of aligned and conflicting accuracy, with {_both(best)}"
    return (first, f"{highest} ({count(best.summary('conflicting').n, 'seed')}).", f"{missing}{one_seed}.")


def _comparison(best: Cell, baseline: Cell) -> str:
    """The best of the eligible methods against ERM on the same seeds, with the interval's verdict."""
    change = difference(best.values("conflicting"), baseline.values("conflicting")).summary
    reached = f"{percent(best.summary('conflicting').mean)}% of the conflicting ones right"
    name = f"{best.label}{label_access(best)}"
    best_of = f"Of the other methods, {name} does best, with {reached}"
    beside = _beside(best, baseline, "aligned", "of the aligned ones")
    if spoken_of(baseline) != "the shortcut":
        beside += _beside(best, baseline, "average", "of all samples")
    if change.mean is None:
        return f"{best_of}{beside}, but it shares no seed with {baseline.label}, so no difference is given."
    amount = _amount(change, baseline.label)
    gain = _gain(best, baseline)
    none_better = f"No other method does better; the best of them, {name}, gets {reached}"
    if change.low is None or change.high is None:
        first = best_of if (gain.mean or 0.0) > 0 else none_better
        return f"{first}: {amount} on the one seed they share, so there is no interval and this may be chance{beside}."
    evidence = f"{amount} on the same {change.n} seeds (95% interval of the difference: {interval(change)}){beside}"
    if gain.high is not None and gain.high < 0:
        return f"{none_better}: {evidence}."
    if change.low <= 0 <= change.high:
        return f"{best_of}: {evidence}; the interval contains 0, so this may be chance."
    both = f"that is {points(gain.mean)} points on the mean of both ({interval(gain)})"
    if gain.low is not None and gain.low <= 0:
        return f"{best_of}: {evidence}; {both}, whose interval contains 0, so it may be no gain."
    if change.high < 0:
        return f"{best_of}: {evidence}; {both}."
    if not took_shortcut(baseline):
        return f"{best_of}: {evidence}."
    if took_shortcut(best):
        return f"{name} takes it less, but still takes it, with {reached}: {evidence}."
    return f"{name} avoids it best, with {reached}: {evidence}."


def _gain(best: Cell, baseline: Cell) -> Summary:
    """The difference that decides whether the method is better: in the mean of both accuracies.

    A baseline that isn't eligible itself has no mean to be held against: there the side counts that it gets wrong.
    """
    if fault(baseline) is None:
        return difference(scores(best), scores(baseline)).summary
    side = "aligned" if inverts_shortcut(baseline) else "conflicting"
    return difference(best.values(side), baseline.values(side)).summary


def _beside(best: Cell, baseline: Cell, metric: str, of: str) -> str:
    """What the method gets of the aligned samples, or of all, as a clause; empty where that is undefined."""
    mean = best.summary(metric).mean
    if mean is None:
        return ""
    change = difference(best.values(metric), baseline.values(metric)).summary
    amount = "" if change.mean is None else f", {_amount(change, baseline.label)}"
    return f"; {of} {percent(mean)}%{amount}"


def _amount(change: Summary, baseline: str) -> str:
    mean = change.mean or 0.0
    number = percent(abs(mean))
    return (
        f"as many as {baseline}"
        if number == "0.0"
        else f"{number} points {'more' if mean > 0 else 'fewer'} than {baseline}"
    )


def _unfinished(section: Section) -> str:
    verbs = {
        "failed": ("failed", "failed"),
        "running": ("is still running", "are still running"),
        "planned": ("is planned", "are planned"),
        "skipped": ("was skipped", "were skipped"),
    }
    counts = {status: sum(run.status == status for run in section.runs) for status in verbs}
    parts = [f"{count(number, 'run')} {verbs[status][number > 1]}" for status, number in counts.items() if number]
    if not parts:
        return ""
    text = listed(parts)
    return f"{text}; the table shows {'it' if sum(counts.values()) == 1 else 'them'}."


# ---- the caption of the main table --------------------------------------------------------------------------------


def section_notes(section: Section) -> list[str]:
    """Sentences on test set, spread, comparison, selection and uncounted groups."""
    done = section.done
    if not done:
        return ["No run is finished, so there are no numbers yet."]
    return [
        f"Accuracy in % on the primary test set, {_tests(done)}: mean ± standard deviation over seeds.",
        _what_a_seed_changes(done),
        _what_is_compared(section),
        *distinct([sides_note(section)]),
        f"Model selection: {listed(distinct(run.selection for run in done), 'or')}.",
        _uncounted(section),
        *apart_notes(section),
        *_files(done),
    ]


def _files(done: list[Record]) -> list[str]:
    """Which files were read, where runs tell; how many don't."""
    told = distinct(
        f"{option} {digest[:12]}" for run in done if not run.files_unknown for option, digest in run.digests.items()
    )
    unknown = sum(run.files_unknown for run in done)
    notes = [f"Files read (SHA-256): {listed(told)}."] if told else []
    if unknown:
        notes.append(f"Files unknown: {unknown} of {count(len(done), 'run')}, made before records told of files.")
    return notes


def _tests(done: list[Record]) -> str:
    texts: list[str] = []
    for name in distinct(run.primary_test for run in done):
        size = sizes(run.split(name).n for run in done if run.primary_test == name)
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


def _what_is_compared(section: Section) -> str:
    if section.baseline is None:
        return f"There is no finished {section.baseline_name} run to compare with."
    others = [c.label for c in section.cells if c.is_baseline and c.done and c is not section.baseline]
    which = f" (to {section.baseline.label}, not to {listed(others, 'or')})" if others else ""
    return (
        f"“Conflicting vs. {section.baseline_name}” is the difference in conflicting accuracy on the same "
        f"seeds{which}, in points, with its 95% t-interval, which is not corrected for comparing several methods."
    )


def _uncounted(section: Section) -> str:
    done = section.done
    rule = (
        f"A group of fewer than {SMALLEST_COUNTED_GROUP} test samples never counts as the worst group; all of these "
        "together are “Small groups”, each sample counted once"
    )
    names = section.groups_not_counted
    groups = {name for run in done if run.metrics for name in run.metrics.by_group}
    if not names:
        return f"{rule}; here all groups count." if groups else f"{rule}."
    few = f"here {len(names)} of {count(len(groups | set(names)), 'group')} ({named(names, MOST_NAMED)})"
    empty = distinct(name for run in done if run.metrics for name in empty_groups(run.metrics.by_group))
    none = f" Without a sample, so that nothing is known of them: {named(empty, MOST_NAMED)}." if empty else ""
    return f"{rule}: {few}.{none}"
