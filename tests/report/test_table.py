"""The report's table: one object from which page, Markdown, LaTeX, CSV and JSON are made."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_data import audit_of, image_task, scores
from evenhand.report import write_audit, write_report
from evenhand.report.table import Column, Row, Table, Value, csv_text, row, table_of
from report_reading import Cells
from report_records import record, write_run, write_study

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


def made(*texts: str, name: str = "A") -> Table:
    return Table("Table of x", (Column("Method", "method"), Column(name)), tuple(row("m", text) for text in texts))


def unescaped_bars(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def test_columns_of_one_place_are_left_out_of_the_other() -> None:
    table = Table(
        "x",
        (Column("Method", "method"), Column("n"), Column("Time", only="page"), Column("Status", "", only="text")),
        (row("m", "1", "2 s", "done"),),
    )
    assert [column.name for column in table.shown("page").head] == ["Method", "n", "Time"]
    assert table.markdown() == ["| Method | n | Status |", "| --- | ---: | --- |", "| m | 1 | done |", ""]
    assert "\\begin{tabular}{lrl}" in table.latex("c")
    assert "2 s" not in table.latex("c")


def test_data_are_the_values_of_a_row_or_one_row_a_value() -> None:
    values = (Value("m", {"label": "m"}), Value("1.0", {"mean": 0.01234567}), Value("2.0", {"mean": 0.02}))
    head = (Column("Method", "method"), Column("a"), Column("b"))
    assert Table("x", head, (Row(values[:2]),)).data == [{"label": "m", "mean": 0.01234567}]
    long = Table("x", head, (Row(values),), is_long=True)
    assert long.data == [{"label": "m", "mean": 0.01234567}, {"label": "m", "mean": 0.02}]


def test_a_table_of_items_reads_each_column_of_each_item() -> None:
    table = table_of("x", [1, 2], [(Column("Item", "label"), str), ("Twice", lambda n: Value(str(2 * n), {"n": n}))])
    assert [[value.text for value in found.values] for found in table.rows] == [["1", "2"], ["2", "4"]]
    assert table.data == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & more_α {x}", r"50\% \& more\_$\alpha$ \{x\}"),
        ("\\ ~ ^ # $", r"\textbackslash{} \textasciitilde{} \textasciicircum{} \# \$"),
        ("78.1 ± 2.0, −3, 2.8×, λ", r"78.1 $\pm$ 2.0, $-$3, 2.8$\times$, $\lambda$"),
        ("“a” – b\nc", "``a'' -- b c"),
    ],
)
def test_latex_escapes_text_wherever_it_stands(text: str, expected: str) -> None:
    printed = made(text, name=text).latex(text)
    assert f"\\caption{{{expected}}}" in printed
    assert f"Method & {expected} \\\\" in printed
    assert f"m & {expected} \\\\" in printed
    assert "\\toprule" in printed


@given(st.lists(TEXTS, min_size=1, max_size=3), TEXTS)
@settings(max_examples=30, deadline=None)
def test_no_text_breaks_a_table(texts: list[str], name: str) -> None:
    table = made(*texts, name=name)
    lines = table.markdown()
    assert len(lines) == len(texts) + 3
    assert {unescaped_bars(line) for line in lines[:-1]} == {3}
    body = table.latex(name).split("\\midrule\n")[1].split("\\bottomrule")[0]
    assert len(re.findall(r"(?<!\\)&", body)) == len(texts)
    assert [line.endswith("\\\\") for line in body.splitlines()] == [True] * len(texts)


@pytest.mark.parametrize("text", ["", "a,b", 'say "x"', "two\nlines", "two\rlines", "  ", "ünï", "1=1"])
def test_csv_gives_back_what_rows_hold(text: str) -> None:
    rows = [{"label": "m", text + "!": text}, {"label": text, "mean": 0.1234567890123}]
    first, second = csv.DictReader(io.StringIO(csv_text(rows), newline=""))
    assert (first[text + "!"], first["mean"]) == (text, "")
    assert (second["label"], float(second["mean"])) == (text, 0.1234567890123)


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "−x", "@sum", "\tx", "\rx"])
def test_csv_holds_no_formula(text: str) -> None:
    (found,) = csv.DictReader(io.StringIO(csv_text([{text: text, "value": -0.5}]), newline=""))
    assert found == {f"'{text}": f"'{text}", "value": "-0.5"}


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, without the lines below the headings."""
    parts = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    lines = [[line for line in part.splitlines() if not line.startswith("| ---")] for part in parts]
    return [[[re.sub(r"\\(.)", r"\1", text) for text in line[2:-2].split(" | ")] for line in part] for part in lines]


def test_a_reports_markdown_and_its_page_hold_the_same_tables(tmp_path: Path) -> None:
    write_study(tmp_path)
    files = write_report(tmp_path)
    page = Cells(files.html.read_text(encoding="utf-8")).tables
    methods, *others = markdown_tables(files.markdown.read_text(encoding="utf-8"))
    assert [line[:6] for line in methods] == [line[:6] for line in page[0]]
    found = [table for table in others if table[0][1] != "0 aligned *"]  # the page adds sizes to the groups' names
    assert len(found) == 2
    assert all(table in page for table in found)


def test_an_audits_markdown_and_its_page_hold_the_same_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = image_task(rng, 300)
    found = audit_of(task, scores(rng, np.asarray(task.train["alignment"]) == 1), tmp_path, seeds=(0, 1))
    written = {
        path.name: path.read_text(encoding="utf-8") for path in write_audit(found) if path.suffix in (".html", ".md")
    }
    page = [[[text for text in line if text] for line in table] for table in Cells(written["audit.html"]).tables]
    tables = [table for table in markdown_tables(written["audit.md"]) if table[0][0] != "Id"]
    assert len(tables) >= 6
    assert tables == page


def test_every_duration_is_sorted_by_its_seconds(tmp_path: Path) -> None:
    for i, seconds in enumerate((90.0, 200.0)):
        write_run(tmp_path, record(f"m{i}", durations={"total_s": seconds}))
    page = write_report(tmp_path).html.read_text(encoding="utf-8")
    # in the table of costs and in that of settings
    assert page.count('data-sort="200.0">3 min 20 s<') == page.count('data-sort="90.0">90.0 s<') == 2
