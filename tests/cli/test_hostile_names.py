"""Nothing of the user's is markup, on the terminal or in what is written."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table

import evenhand
from evenhand.cli.console import PlainConsole
from evenhand.cli.parser import main
from evenhand.cli.terminal import RunDisplay
from evenhand.evaluation.exports import has_escaped, write_csv
from evenhand.wording import csv_value, markdown_text, one_line

LABELS = ("[/x]", "[spam]", "=1+1", "\x1b[31mred", ":smile: $x$ | </script>", "a\nb\u202ec")
SHOWN = ("[/x]", "[spam]", "=1+1", "\ufffd[31mred", ":smile: $x$ | </script>", "a b\ufffdc")


@pytest.mark.parametrize(("name", "shown"), list(zip(LABELS, SHOWN, strict=True)))
def test_a_console_shows_names_as_they_stand(name: str, shown: str) -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, width=100, force_terminal=True)
    table = Table("[head]", title=one_line(name))
    table.add_row(one_line(name))
    console.print(one_line(name))
    console.print(table)
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert text.splitlines()[0] == shown
    assert text.count(shown) == 3
    assert "[head]" in text


@pytest.mark.parametrize(("name", "shown"), list(zip(LABELS, SHOWN, strict=True)))
def test_progress_shows_names_as_they_stand_on_any_console(name: str, shown: str) -> None:
    stream = io.StringIO()
    with RunDisplay(console=Console(file=stream, force_terminal=True, width=160)) as display:
        display.begin(name)
        display.stage(name, 1, 2)
        display.say(name)
        display.progress.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert f"{shown} · {shown}" in text
    assert f"\n{shown}\n" in text.replace("\r", "\n")


def test_only_the_plain_console_prints() -> None:
    source = Path(evenhand.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "console.py":
            assert not re.search(r"(?<![A-Za-z])Console\(", text), f"{path}: a console of its own reads markup"
        for column in re.findall(r"(?<!class )(?:TextColumn)\(.*\)", text):
            assert "markup=False" in column or "fields[unit]" in column, f"{path}: {column}"


@pytest.mark.parametrize(
    ("text", "written"),
    [("=1", "'=1"), ("-x", "'-x"), ("-1.5e3", "-1.5e3"), ("+7", "+7"), ("-inf", "'-inf"), ("a=1", "a=1"), (-2, -2)],
)
def test_a_formula_gets_an_apostrophe(text: object, written: object) -> None:
    assert csv_value(text) == written


def test_exports_hold_no_formula(tmp_path: Path) -> None:
    table = pd.DataFrame({"label": ["=1+1", "plain"], "@score": [-0.5, 1.0], "name": [None, "é"]})
    write_csv(table, tmp_path / "x.csv")
    first, second = csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text(encoding="utf-8")))
    assert first == {"label": "'=1+1", "'@score": "-0.5", "name": ""}
    assert second == {"label": "plain", "'@score": "1.0", "name": "é"}
    assert has_escaped(tmp_path / "x.csv")
    write_csv(pd.DataFrame({"a": ["it's =1", -1]}), tmp_path / "y.csv")
    assert not has_escaped(tmp_path / "y.csv")


@pytest.mark.parametrize(
    ("text", "written"), [("- x", "\\- x"), ("1. x", "1\\. x"), ("===", "\\==="), ("-3.4", "-3.4")]
)
def test_no_text_begins_a_list_or_heading_in_markdown(text: str, written: str) -> None:
    assert markdown_text(text) == written


def test_train_evaluate_and_report_with_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"word{i % 6} and {i}", "[b]c": LABELS[i % 6]} for i in range(240)]
    data = tmp_path / "[i].csv"
    pd.DataFrame(rows).to_csv(data, index=False)
    run = tmp_path / "[run]"
    words = ["--data", str(data), "--text", "text", "--label", "[b]c"]
    trained = ["train", "erm", *words, "--model", "tiny-bert", "--epochs", "1", "--output-dir", str(run)]
    assert main(trained) == 0
    out, err = capsys.readouterr()
    assert all(name in out and name in err for name in SHOWN)
    assert "\x1b" not in out + err
    predictions = tmp_path / "p.csv"
    assert main(["evaluate", str(run), "--data", str(data), "--predictions", str(predictions)]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in SHOWN)
    assert f"begin with ' in {predictions}" in out
    table = pd.read_csv(predictions, keep_default_na=False)
    assert {"'=1+1", "[/x]"} <= set(table["label"])
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "[/x]" in page
    assert "$x$ | </script>" not in page
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "\\[/x\\]" in card
    assert "</script>" not in card
    assert json.loads((run / "record.json").read_text())["labels"] == sorted(LABELS)
