"""The page's first words: who took the shortcut, which method avoids it, and how sure that is."""

from __future__ import annotations

from evenhand.metrics import Summary
from evenhand.report.cells import Cell, Section, difference
from evenhand.report.wording import count, interval, listed, percent
from evenhand.report.worst_table import worst_sentence

# A gap between aligned and conflicting accuracy from here on is called a shortcut taken.
SHORTCUT_GAP = 0.10


def headline(section: Section, cost: str = "") -> str:
    """Two or three sentences that hold for these runs alone, and say what they can't tell.

    Args:
        section: The runs.
        cost: A sentence on what the best method costs, if that is to be said.
    """
    sentences = (*_findings(section), _worst(section), cost, _unfinished(section))
    return " ".join(sentence for sentence in sentences if sentence)


def _worst(section: Section) -> str:
    """The worst groups of the baseline, or of the first method without one, and of the best other method."""
    done = [cell for cell in section.cells if cell.done]
    spoken = [section.baseline or done[0], best_other(section)] if done else []
    return worst_sentence([cell for cell in spoken if cell is not None])


def took_shortcut(cell: Cell) -> bool:
    """Whether aligned samples are right clearly more often than conflicting ones.

    That is: by 10 points or more on average, and, from two seeds on, with a 95% interval above 0.
    """
    gap = difference(cell.values("aligned"), cell.values("conflicting")).summary
    return gap.mean is not None and gap.mean >= SHORTCUT_GAP and (gap.low is None or gap.low > 0)


def best_other(section: Section) -> Cell | None:
    """The method that the headline compares with the baseline: the highest accuracy on conflicting samples."""
    found = [(cell, cell.summary("conflicting").mean) for cell in section.cells if cell.done and not cell.is_baseline]
    defined = [(cell, mean) for cell, mean in found if mean is not None]
    return max(defined, key=lambda entry: entry[1])[0] if defined and section.baseline else None


def _findings(section: Section) -> tuple[str, ...]:
    finished = [cell for cell in section.cells if cell.done]
    if not finished:
        return ("No run is finished yet.",)
    means = {cell.label: mean for cell in finished if (mean := cell.summary("conflicting").mean) is not None}
    measured = [cell for cell in finished if cell.label in means]
    if not measured:
        return (_average_only(finished),)
    baseline = section.baseline if section.baseline in measured else None
    others = sorted((c for c in measured if not c.is_baseline), key=lambda c: -means[c.label])
    if baseline is None:
        if not others:
            return ("No ERM run here defines an accuracy on conflicting samples.",)
        return _without_baseline(others)
    if not others:
        return (_behaviour(baseline), "No other method is finished here to compare it with.")
    return (_behaviour(baseline), _comparison(others[0], baseline))


def _average_only(finished: list[Cell]) -> str:
    best = max(finished, key=lambda cell: cell.summary("average").mean or 0.0)
    summary = best.summary("average")
    return (
        "No test sample here is known to be aligned or conflicting, so this report can't say who took a shortcut; "
        f"the highest average accuracy is {percent(summary.mean)}% ({best.label}, {count(summary.n, 'seed')})."
    )


def _behaviour(cell: Cell) -> str:
    """What one method does with aligned and with conflicting samples, and how sure that is."""
    aligned, conflicting = cell.summary("aligned"), cell.summary("conflicting")
    seeds = "one seed" if conflicting.n == 1 else f"mean of {conflicting.n} seeds"
    if aligned.mean is None:
        return f"{cell.label} gets {percent(conflicting.mean)}% of the conflicting test samples right ({seeds})."
    gap = difference(cell.values("aligned"), cell.values("conflicting")).summary
    if took_shortcut(cell):
        alone = ", so there is no interval" if gap.low is None else ""
        return (
            f"{cell.label} took the shortcut: it gets {percent(aligned.mean)}% of the aligned test samples right, "
            f"but only {percent(conflicting.mean)}% of the conflicting ones ({seeds}{alone})."
        )
    shares = (
        f"it gets {percent(aligned.mean)}% of the aligned and {percent(conflicting.mean)}% of the conflicting test "
        "samples right"
    )
    if gap.low is None or gap.high is None:
        return f"{cell.label} shows no clear shortcut: {shares} ({seeds}, so there is no interval)."
    evidence = f"{seeds}; 95% interval of the difference: {interval(gap)} points"
    if gap.mean is not None and gap.mean >= SHORTCUT_GAP:
        return (
            f"{cell.label} seems to take the shortcut, but {count(gap.n, 'seed')} can't settle it: {shares} "
            f"({evidence}, which contains 0)."
        )
    if gap.high >= SHORTCUT_GAP:
        return f"{cell.label} shows no clear shortcut, though one can't be ruled out: {shares} ({evidence})."
    return f"{cell.label} shows no clear shortcut: {shares} ({evidence})."


def _without_baseline(others: list[Cell]) -> tuple[str, ...]:
    """No ERM: the worst and the best are described, and no difference is claimed."""
    best, worst = others[0], others[-1]
    missing = "There is no finished ERM run here, so no difference to ERM can be given"
    one_seed = ", and with one seed each, differences between methods may be chance" if _all_one_seed(others) else ""
    first = _behaviour(worst)
    if best is worst:
        return (first, f"{missing}.")
    summary = best.summary("conflicting")
    highest = f"{best.label} has the highest accuracy on conflicting samples, {percent(summary.mean)}%"
    return (first, f"{highest} ({count(summary.n, 'seed')}).", f"{missing}{one_seed}.")


def _all_one_seed(cells: list[Cell]) -> bool:
    return all(cell.summary("conflicting").n == 1 for cell in cells)


def _comparison(best: Cell, baseline: Cell) -> str:
    """The best of the other methods against ERM on the same seeds, with the interval's verdict."""
    summary = best.summary("conflicting")
    change = difference(best.values("conflicting"), baseline.values("conflicting")).summary
    reached = f"{percent(summary.mean)}% of the conflicting ones right"
    best_of = f"Of the other methods, {best.label} does best, with {reached}"
    if change.mean is None:
        return f"{best_of}, but it shares no seed with {baseline.label}, so no difference is given."
    amount = _amount(change, baseline.label)
    if change.low is None or change.high is None:
        return f"{best_of}: {amount} on the one seed they share, so there is no interval and this may be chance."
    evidence = f"{amount} on the same {change.n} seeds (95% interval of the difference: {interval(change)})"
    if change.low <= 0 <= change.high:
        return f"{best_of}: {evidence}; the interval contains 0, so this may be chance."
    if change.high < 0:
        return f"No other method does better; the best of them, {best.label}, gets {reached}: {evidence}."
    if not took_shortcut(baseline):
        return f"{best_of}: {evidence}."
    if took_shortcut(best):
        return f"{best.label} takes it less, but still takes it, with {reached}: {evidence}."
    return f"{best.label} avoids it best, with {reached}: {evidence}."


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
