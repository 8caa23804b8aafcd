"""The tables as LaTeX, with the rules of booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.report.cells import Section
from evenhand.report.paired import PAIRED_HEAD, paired_note, paired_rows
from evenhand.report.tables import main_head, main_rows
from evenhand.report.worst_table import WORST_HEAD, WORST_NOTE, worst_rows
from evenhand.wording import visible

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "<": r"$<$",
    ">": r"$>$",
    "“": "``",
    "”": "''",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "×": r"$\times$",
}


def methods_latex(sections: Sequence[tuple[Section, Sequence[str]]]) -> str:
    """For each section its main table and its tests, each in a `table` with its notes as caption."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for section, notes in sections:
        caption = " ".join([f"{section.heading}.", *notes])
        parts.append(_table(caption, main_head(section), main_rows(section), 1, 1))
        worst = worst_rows(section)
        if worst:
            rows = [row.texts for row in worst]
            parts.append(_table(f"{section.heading}. {WORST_NOTE}", WORST_HEAD, rows, 2, 0))
        tests = paired_rows(section)
        if tests:
            caption = f"{section.heading}. {paired_note(section)}"
            parts.append(_table(caption, PAIRED_HEAD, [row.texts for row in tests], 2, 0))
    return "\n".join(parts)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int, last: int) -> str:
    """One table, with so many columns of text to the left, and so many at the end."""
    columns = "l" * left + "r" * (len(head) - left - last) + "l" * last
    body = [f"{' & '.join(_escaped(value) for value in row)} \\\\" for row in rows]
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escaped(caption)}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        f"{' & '.join(_escaped(name) for name in head)} \\\\",
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
        "",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "&%$#_{}" else _ESCAPES.get(c, c) for c in " ".join(visible(text).split()))
