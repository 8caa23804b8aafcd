"""The tables of docs/ and of the README, made of the records in results/: each stands between two comments.

    python benchmarks/evidence.py             # rewrite the tables of every page in docs/, and the README's
    python benchmarks/evidence.py --check     # change nothing; exit with 1 where a page differs from the records

A page asks for a table by `<!-- evidence: STUDY | section=PART | against=CELL; CELL | tests=NAME | cells=GLOB -->`
and ends it by `<!-- /evidence -->`. `section` picks the sections whose heading holds PART (`$` is a heading's
end; all of them without it), `against` the cells that the others are compared with (paired by seed, Holm-corrected
over the table's methods) in conflicting accuracy, or as CELL:METRIC in another, `tests` further test sets whose average
accuracy is shown, `cells` the rows.

`<!-- gains: STUDY; STUDY | against=CELL:METRIC | cells=CELL; CELL -->` asks for one table of what those cells gain over
that one, with a row for each section of the studies. Its columns are headed by what follows `evenhand train` to get the
method: settings that aren't at their defaults stand there. A method that did nothing has no comparison in either.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evenhand.methods import METHODS
from evenhand.metrics import holm, summarize
from evenhand.report.cells import DID_NOTHING, Cell, Section, difference, group_records
from evenhand.runs.configuration import changed_fields
from evenhand.runs.read import find_plans, find_records, with_planned
from evenhand.wording import NOTHING, interval, mean_std, p_text, points

ROOT = Path(__file__).resolve().parent.parent
METRICS = {
    "average": "average",
    "worst_group": "worst group",
    "aligned": "aligned",
    "conflicting": "conflicting",
}
BLOCK = re.compile(r"(<!-- (evidence|gains): (.*?) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


@dataclass(frozen=True)
class Wanted:
    """One table that a page asks for; `against` holds cells and metrics."""

    study: str
    section: str = ""
    against: tuple[tuple[str, str], ...] = ()
    tests: tuple[str, ...] = ()
    cells: str = "*"


def parsed(text: str) -> Wanted:
    """What a comment asks for."""
    study, *options = [part.strip() for part in text.split("|")]
    given = dict(option.split("=", 1) for option in options)  # a section may hold "=" itself
    against = [name.partition(":") for name in listed(given.pop("against", ""))]
    return Wanted(
        study,
        given.pop("section", ""),
        tuple((name, metric or "conflicting") for name, _, metric in against),
        listed(given.pop("tests", "")),
        given.pop("cells", "*"),
        **given,
    )


def listed(text: str) -> tuple[str, ...]:
    """The parts between semicolons."""
    return tuple(filter(None, map(str.strip, text.split(";"))))


def sections_of(study: str) -> list[Section]:
    """A study's records as the report compares them."""
    folder = ROOT / "results" / study
    plans = find_plans(folder)
    return group_records(with_planned(find_records(folder), plans), plans)


def block(wanted: Wanted) -> str:
    """The tables that a comment asks for, each with what was run."""
    chosen = [s for s in sections_of(wanted.study) if wanted.section in f"{s.heading}$"]
    if not chosen:
        raise SystemExit(f"results/{wanted.study} has no section with '{wanted.section}' in its heading.")
    return "\n".join(table(section, wanted) for section in chosen)


def table(section: Section, wanted: Wanted) -> str:
    """One section: a sentence on what was run, and a row for every cell."""
    baselines = [(one_named(name, section, wanted.study), metric) for name, metric in wanted.against]
    named = [baseline for baseline, _ in baselines]
    cells = [c for c in section.cells if fnmatch.fnmatchcase(name_of(c), wanted.cells) or c in named]
    head = ["method", "n", *METRICS.values(), *wanted.tests]
    head += [f"{METRICS[metric]} vs. {cell.label} (95 %; p)" for cell, metric in baselines]
    lines = [what_was_run(section, wanted), "", f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    comparisons = [compared(cells, baseline, metric) for baseline, metric in baselines]
    for i, cell in enumerate(cells):
        done = len(cell.counted)
        row = [cell.label, str(done)]
        row += [mean_std(cell.summary(metric), done) if done else NOTHING for metric in METRICS]
        row += [mean_std(summarize(list(cell.values("average", t).values())), done) for t in wanted.tests]
        row += [column[i] for column in comparisons]
        if len(cell.done) < len(cell.runs):
            row[1] += f" of {len(cell.runs)}"
        if cell.is_tried and cell.idle:
            row[1] += f" ({len(cell.idle)} more did nothing)"
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, ""])


def compared(cells: list[Cell], baseline: Cell, metric: str) -> list[str]:
    """Each cell's paired difference to the baseline in that metric."""
    pairs = [difference(cell.values(metric), baseline.values(metric)) for cell in cells]
    left_out = [cell is baseline or not cell.is_tried for cell in cells]
    corrected = holm([None if out else pair.p for out, pair in zip(left_out, pairs, strict=True)])
    texts = []
    for out, pair, p in zip(left_out, pairs, corrected, strict=True):
        if out or not pair.summary.n:
            texts.append(NOTHING)
            continue
        spread = interval(pair.summary)
        texts.append(points(pair.summary.mean) + (f" ({spread}; {p_text(p)})" if spread else " (one seed)"))
    return texts


def span(numbers: Iterable[object]) -> str:
    """Their smallest and largest: "3", or "3 to 5"."""
    ordered = sorted(set(map(str, numbers)), key=lambda text: (len(text), text))  # numbers by size, dates as text
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def gains(text: str) -> str:
    """What some cells gain over one, a row for each section of the studies; intervals are of each difference alone."""
    studies, *options = [part.strip() for part in text.split("|")]
    given = dict(option.split("=", 1) for option in options)
    base_name, _, metric = given["against"].partition(":")
    names = listed(given["cells"])
    lines: list[str] = []
    columns: list[str] | None = None
    for study in listed(studies):
        sections = sections_of(study)
        shared = set.intersection(*(set(section.heading.split(", ")) for section in sections))
        title = json.loads((ROOT / "results" / study / "study.json").read_text(encoding="utf-8"))["title"]
        for section in sections:
            base = one_named(base_name, section, study)
            cells = [one_named(name, section, study) for name in names]
            columns = columns or [as_typed(cell) for cell in cells]
            if columns != [as_typed(cell) for cell in cells]:
                raise SystemExit(f"The methods of '{text}' have other settings in results/{study} than before.")
            pairs = [difference(cell.values(metric), base.values(metric)).summary for cell in cells]
            of_its_own = [part for part in section.heading.split(", ") if part not in shared]
            row = [", ".join([title, *of_its_own]), span([len(base.done), *(pair.n for pair in pairs)])]
            row += [mean_std(base.summary(metric), len(base.done))]
            row += [
                f"{points(pair.mean)} ({interval(pair)})" if pair.n > 1 and cell.is_tried else NOTHING
                for cell, pair in zip(cells, pairs, strict=True)
            ]
            lines.append(f"| {' | '.join(row)} |")
    head = ["study", "seeds", f"{base_name}, {METRICS[metric]}", *(columns or names)]
    return "\n".join([f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1), *lines, ""])


def name_of(cell: Cell) -> str:
    """Its label, without the mark of a method that did nothing."""
    return cell.label.removesuffix(DID_NOTHING)


def as_typed(cell: Cell) -> str:
    """What follows `evenhand train` to get the method: its name, and each setting that isn't at its default."""
    method = METHODS[cell.first.method.name](**cell.first.method.settings)
    return f"`{shlex.join([method.name, *changed_fields(method)])}`"


def one_named(name: str, section: Section, study: str) -> Cell:
    """The cell of that name."""
    for cell in section.cells:
        if name_of(cell) == name:
            return cell
    raise SystemExit(f"results/{study} has no cell '{name}' in '{section.heading}': {[c.label for c in section.cells]}")


def what_was_run(section: Section, wanted: Wanted) -> str:
    """Model, test set, selection, labels, cost, date and the command."""
    done = section.done
    if not done:
        return f"*{section.heading}: nothing has run yet. `evenhand study recipes/{wanted.study}.yaml`*"
    first = done[0]
    seeds = span(len(cell.done) for cell in section.cells if cell.done)
    dates = span(str(run.durations.finished)[:10] for run in done)
    minutes = sum((run.durations.total_s or 0) for run in done) / 60
    access = sorted({str(run.label_access) for run in done})
    return (
        f"*{section.heading}: accuracy in % on “{first.primary_test}”, mean ± standard deviation over {seeds} "
        f"seed{'' if seeds == '1' else 's'}; p is the paired t-test's, Holm-corrected. Selection: {first.selection}. "
        f"Labels beyond the class: {'; '.join(access)}. "
        f"{minutes:.0f} minutes in all, {dates}. `evenhand study recipes/{wanted.study}.yaml`*"
    )


def filled(page: str) -> str:
    """A page with its tables made anew."""

    def anew(found: re.Match[str]) -> str:
        made = gains(found[3]) if found[2] == "gains" else block(parsed(found[3]))
        return f"{found[1]}{made}{found[4]}"

    return BLOCK.sub(anew, page)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> int:
    """Rewrite or check every page."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path in pages():
        old = path.read_text(encoding="utf-8")
        new = filled(old)
        if new != old:
            stale.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'differ from the records' if check else 'rewritten'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
