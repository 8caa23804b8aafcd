"""What a reader sees of shortcuts that have a name: numbers, sentences, and names that are the user's own text."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import driver, load, requests
from evenhand.metrics import wilson
from evenhand.report import write_report
from evenhand.report.write import ReportFiles
from report_reading import Cells, lede
from report_records import counted, measured_by, metrics, named_record, quality, record, write_run

__all__ = ["driver"]  # a fixture

NAME = "the shortcut's name"


def written(folder: Path, *entries: Mapping[str, Any]) -> ReportFiles:
    for entry in entries:
        write_run(folder, dict(entry))
    return write_report(folder)


def cells_of(files: ReportFiles) -> Cells:
    return Cells(files.html.read_text(encoding="utf-8"))


def shortcut_rows(cells: Cells) -> list[list[str]]:
    return next(table for table in cells.tables if table[0][1:2] == ["Shortcut"])[1:]


def two_methods(seeds: int = 3) -> list[dict[str, Any]]:
    made = [
        named_record("erm", seed, {"token:nimbus": measured_by(0.97, 0.4 + seed / 30)}, average=0.9)
        for seed in range(seeds)
    ]
    for seed in range(seeds):
        whole = measured_by(0.95, 0.9 + seed / 30, taken=0.1, reliance=0.1)
        made.append(
            named_record("balance", seed, {"token:nimbus": whole}, average=0.896, title="Balance", label_access=NAME)
        )
    return made


# ---------------------------------------------------------------- numbers


def test_numbers_are_the_records_over_seeds(tmp_path: Path) -> None:
    made = two_methods()
    files = written(tmp_path, *made)
    erm = [entry["metrics"]["by_shortcut"]["token:nimbus"] for entry in made if entry["method"]["name"] == "erm"]
    conflicting = [one["conflicting"]["accuracy"] for one in erm]
    mean, std = float(np.mean(conflicting)), float(np.std(conflicting, ddof=1))
    low, high = wilson(mean, 30) or (0.0, 0.0)
    row = shortcut_rows(cells_of(files))[0]
    assert row[:3] == ["ERM", "token:nimbus", "97.0 ± 0.0" + "430; 94.9 to 98.2"]
    assert row[3] == f"{100 * mean:.1f} ± {100 * std:.1f}30; {100 * low:.1f} to {100 * high:.1f}"
    assert row[-1] == "none"
    assert shortcut_rows(cells_of(files))[1][-1] == NAME
    assert files.shortcuts_csv is not None
    with files.shortcuts_csv.open(newline="", encoding="utf-8") as stream:
        told = next(csv.DictReader(stream))
    assert float(told["conflicting_mean"]) == pytest.approx(mean)
    assert [float(told[f"conflicting_{end}"]) for end in ("low", "high")] == pytest.approx([low, high])
    assert told["conflicting_samples"] == "30"
    gaps = [one["gap"]["value"] for one in erm]
    half = 4.302653 * np.std(gaps, ddof=1) / np.sqrt(3)
    assert float(told["gap_low"]) == pytest.approx(np.mean(gaps) - half, rel=1e-5)  # Student's t, two degrees
    assert told["label_access"] == "none (groups are used for evaluation only)"
    for text in (files.markdown.read_text(encoding="utf-8"), files.latex.read_text(encoding="utf-8")):
        assert f"(30; {100 * low:.1f} to {100 * high:.1f})" in text
    section = json.loads(files.json.read_text(encoding="utf-8"))["sections"][0]
    assert section["shortcuts"][0]["reliance_mean"] == pytest.approx(0.62)
    run = next(run for method in section["methods"] for run in method["runs"])
    assert run["tests"]["test"]["by_shortcut"][0]["taken"]["n"] == 30
    with files.runs_csv.open(newline="", encoding="utf-8") as stream:
        first = next(csv.DictReader(stream))
    assert float(first["shortcut token:nimbus: reliance"]) == pytest.approx(0.62)
    assert float(first["test/shortcut token:nimbus: gap"]) == pytest.approx(0.57)


def test_one_seed_has_the_interval_of_its_test_set(tmp_path: Path) -> None:
    row = shortcut_rows(cells_of(written(tmp_path, named_record())))[0]
    assert row[4] == "+54.0+44.0 to +64.0"
    assert row[5] == "50.030; 33.2 to 66.8"


def test_several_shortcuts_have_a_row_each_and_one_together(tmp_path: Path) -> None:
    each = {
        "token:nimbus": measured_by(0.95, 0.4),
        "token:kettle": measured_by(0.9, 0.88, reliance=None, why="it is so"),
    }
    files = written(tmp_path, named_record(shortcuts=each, together=measured_by(0.93, 0.5)))
    rows = shortcut_rows(cells_of(files))
    assert [row[1] for row in rows] == ["token:nimbus", "token:kettle", "all together"]
    assert rows[1][6] == "–it is so"
    text = lede(cells_of(files))
    assert text.startswith(
        "ERM took a shortcut ('token:nimbus' or 'token:kettle'): it gets 93.0% of the aligned test samples right, but "
        "only 50.0% of the conflicting ones"
    )
    assert "ERM 95.0% and 40.0% by 'token:nimbus'; 90.0% and 88.0% by 'token:kettle'." in text


def test_parts_that_are_missing_or_damaged_are_left_out(tmp_path: Path) -> None:
    damaged = measured_by() | {"aligned": {"n": "many"}, "taken": None, "gap": 3, "reliance": [1]}
    entry = named_record(shortcuts={"token:nimbus": measured_by(), "token:kettle": measured_by()})
    for measured in (entry["metrics"], entry["tests"]["test"]):
        measured |= {"by_shortcut": {"token:nimbus": damaged, "token:kettle": 7}, "all_shortcuts": "?"}
    entry |= {"shortcuts": ["token:nimbus", 5, {"sha256": "x"}], "shortcuts_fitted": [{"name": "token:nimbus"}, None]}
    rows = shortcut_rows(cells_of(written(tmp_path, entry)))
    assert [row[:2] for row in rows] == [["ERM", "token:nimbus"]]
    assert rows[0][2:7] == ["–", "43.030; 27.4 to 60.8", "–", "–", "–"]


def test_records_without_shortcuts_write_no_further_file(tmp_path: Path) -> None:
    files = written(tmp_path, *two_methods(1))
    assert files.shortcuts_csv is not None
    assert files.shortcuts_csv.exists()
    for folder in tmp_path.glob("run-*"):
        (folder / "record.json").write_text(json.dumps(record()), encoding="utf-8")
    again = write_report(tmp_path)
    assert again.shortcuts_csv is None
    assert again.quality_csv is None
    assert not list(tmp_path.glob("tables/shortcuts.csv"))
    assert "hortcut" not in again.markdown.read_text(encoding="utf-8").split("\n\n", 2)[2].replace("the shortcut", "")


def test_runs_on_other_shortcuts_never_share_a_table(tmp_path: Path) -> None:
    one = named_record("erm")
    other = named_record("balance", shortcuts={"token:kettle": measured_by()})
    cells = cells_of(written(tmp_path, one, other, named_record("even", shortcuts={"token:nimbus": measured_by()})))
    assert cells.texts["h2"] == [
        "own-data, digits-cnn, shortcuts=token:kettle",
        "own-data, digits-cnn, shortcuts=token:nimbus",
    ]


def test_recall_f1_auroc_and_calibration_by_group(tmp_path: Path) -> None:
    entries = []
    for seed in range(2):
        entry = record(seed=seed)
        entry["metrics"] |= {
            "quality": quality(0.8 + seed / 10),
            "quality_by_group": {
                "none": quality(None, None, 0),
                "0 aligned": quality(0.6, None, 5),
                "1 conflicting": quality(n=240) | {"f1": "high"},
            },
        }
        entry["tests"]["test"] = entry["metrics"]
        entries.append(entry)
    files = written(tmp_path, *entries)
    table = next(table for table in cells_of(files).tables if "AUROC" in table[0])
    assert table[0] == ["Method", "Group", "Samples", "Accuracy", "Recall", "F1", "AUROC", "ECE"]
    assert table[1][1:5] == ["all samples", "497", "44.0 ± 0.0", "85.0 ± 7.1"]
    assert table[2][1:] == ["0 aligned", "5", "99.0 ± 0.0", "60.0 ± 0.0", "70.0 ± 0.0", "–", "5.0 ± 0.0"]
    assert table[3][1:6] == ["1 conflicting", "240", "44.0 ± 0.0", "80.0 ± 0.0", "–"]
    assert files.quality_csv is not None
    with files.quality_csv.open(newline="", encoding="utf-8") as stream:
        assert [row["group"] for row in csv.DictReader(stream)] == ["", "0 aligned", "1 conflicting"]
    with files.runs_csv.open(newline="", encoding="utf-8") as stream:
        assert next(csv.DictReader(stream))["recall of group: 0 aligned"] == "0.6"


# ---------------------------------------------------------------- sentences


def test_the_headline_names_the_shortcut_the_gain_its_price_and_what_it_needs(tmp_path: Path) -> None:
    files = written(tmp_path, *two_methods())
    text = lede(cells_of(files))
    assert text.startswith(
        "ERM took the shortcut 'token:nimbus': it gets 97.0% of the aligned test samples right, but only"
    )
    assert "Balance (needs the shortcut's name) avoids it best, with 93.3% of the conflicting ones right" in text
    assert "; of all samples 89.6%, 0.4 points fewer than ERM." in text
    assert "can't say" not in text
    caption = cells_of(files).texts["caption"][0]
    assert "Aligned samples go along with 'token:nimbus', conflicting ones against it" in caption
    facts = files.html.read_text(encoding="utf-8")
    assert "“nimbus” points to yes; 95 training samples go along with it, 5 against it" in facts


def test_a_task_of_its_own_sides_keeps_its_words_and_the_named_one_stands_beside(tmp_path: Path) -> None:
    entry = named_record()
    for measured in (entry["metrics"], entry["tests"]["test"]):
        measured |= metrics(0.99, 0.3, 0.9)
    text = lede(cells_of(written(tmp_path, entry)))
    assert text.startswith("ERM took the shortcut: it gets 99.0%")
    assert "ERM 97.0% and 43.0% by 'token:nimbus'." in text
    assert "is the task’s own; the table by shortcut" in cells_of(write_report(tmp_path)).texts["caption"][0]


@pytest.mark.parametrize("in_test", [False, True])
def test_a_shortcut_that_nobody_goes_against_advises_no_method(in_test: bool, tmp_path: Path) -> None:
    made = [
        named_record(
            name, seed, {"token:nimbus": measured_by(0.97, low if in_test else None)}, perfect=["token:nimbus"]
        )
        for name, low in (("erm", 0.3), ("even", 0.9))
        for seed in range(2)
    ]
    files = written(tmp_path, *made)
    text = lede(cells_of(files))
    said = "No training sample goes against 'token:nimbus'" if in_test else "No training sample does either"
    assert f"{said}, so no method can learn to do without it from these data, and none is advised." in text
    assert "Reliance, the share of answers that change without it, is 62.0% (ERM) and 62.0% (EVEN)." in text
    assert "Collect samples that go against it." in text
    assert "EVEN avoids" not in text
    assert "does best" not in text
    assert "highest" not in text
    assert "costs" not in text
    assert ("ERM took the shortcut 'token:nimbus'" in text) == in_test


def test_one_perfect_shortcut_of_two_is_named_and_the_other_still_compared(tmp_path: Path) -> None:
    made = [
        named_record(
            name,
            seed,
            {"token:nimbus": measured_by(), "token:kettle": measured_by(0.9, None)},
            measured_by(0.9, low + seed / 50),
            perfect=["token:kettle"],
        )
        for name, low in (("erm", 0.3), ("even", 0.8))
        for seed in range(2)
    ]
    text = lede(cells_of(written(tmp_path, *made)))
    assert "EVEN avoids it best" in text
    assert "No training sample goes against 'token:kettle', so no method can learn to do without it" in text


def test_a_test_set_without_conflicting_samples_says_so(tmp_path: Path) -> None:
    whole = measured_by(0.97, None, reliance=None, why="lengths can't be taken out")
    text = lede(cells_of(written(tmp_path, named_record(shortcuts={"token:nimbus": whole}))))
    assert text.startswith(
        "No test sample goes against 'token:nimbus', so accuracy can't say who took it. How far a model relies on it "
        "isn't measured: lengths can't be taken out. Test on samples that go against it."
    )


def test_own_data_without_a_named_shortcut_say_how_to_name_one(tmp_path: Path) -> None:
    empty = metrics(None, None, 0.8)
    own = {"name": "own-data", "settings": {"data": "tickets.csv"}}
    text = lede(cells_of(written(tmp_path, record(task=own, metrics=empty, tests={"test": empty}))))
    assert (
        "can't say who took a shortcut; the highest average accuracy is 80.0% (ERM, 1 seed). To find out, let" in text
    )
    assert "“evenhand audit” look for shortcuts, and train again with --shortcut" in text


@pytest.mark.parametrize(
    ("half", "expected"),
    [
        (0.1, "ERM took the shortcut 'token:nimbus': it gets 80.0% of the aligned test samples right, but only 60.0%"),
        (0.3, "ERM seems to take the shortcut 'token:nimbus', but 1 seed can't settle it"),
    ],
)
def test_with_one_seed_the_test_samples_settle_it(half: float, expected: str, tmp_path: Path) -> None:
    whole = measured_by(0.8, 0.6)
    whole["gap"]["interval"] = [0.2 - half, 0.2 + half]
    text = lede(cells_of(written(tmp_path, named_record(shortcuts={"token:nimbus": whole}))))
    assert text.startswith(expected)
    if half > 0.2:
        assert "95% interval of the difference: −10.0 to +50.0 points, which contains 0" in text
    else:
        assert "no interval" not in text


# ---------------------------------------------------------------- names are the user's text

HOSTILE = [
    "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>",
    "token:nimbus|peb\\|ble|a\\:b",
    "=1+1",
    "token:\u202egnp.exe\u2066\nnext",
    "x" * 400,
    "`$x_1$` [a](b) **c** ~~d~~ {e} & %f #g ^h",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_every_output(name: str, tmp_path: Path) -> None:
    made = [named_record("erm", seed, {name: measured_by(0.97, 0.4)}, label_access=name) for seed in range(2)]
    files = written(tmp_path, *made)
    page = files.html.read_text(encoding="utf-8").split("<footer>")[0]
    text = files.markdown.read_text(encoding="utf-8")
    latex = files.latex.read_text(encoding="utf-8")
    for output in (page, text, latex):
        assert "\u202e" not in output
        assert "\u2066" not in output
    for output in (page, text):
        assert "<script>window" not in output
        assert "<img src=x" not in output
    lines = [line for line in text.splitlines() if line.startswith("| ERM |")]
    columns = {line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines if "(430; " in line}
    assert columns == {9}  # eight columns, whatever the name holds
    row = next(line for line in latex.splitlines() if "(430; " in line)
    assert row.replace("\\&", "").count("&") == 7
    assert "|" not in row
    assert files.shortcuts_csv is not None
    with files.shortcuts_csv.open(newline="", encoding="utf-8") as stream:
        assert next(csv.DictReader(stream))["shortcut"] == (f"'{name}" if name.startswith("=") else name)
    assert json.loads(files.json.read_text(encoding="utf-8"))["sections"][0]["shortcuts"][0]["shortcut"] == name
    assert len(lede(cells_of(files))) < 1500


# ---------------------------------------------------------------- in a browser


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_holds_long_and_hostile_names(driver: Any, width: int, tmp_path: Path) -> None:
    each = {name: measured_by(0.97, 0.4) for name in HOSTILE}
    made = [
        named_record(m, 0, each, {**measured_by(0.9, 0.5), "aligned": counted(0.9, 430)}, title=m)
        for m in ("erm", "balance")
    ]
    page = written(tmp_path, *made).html
    load(driver, page, width)
    driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert driver.execute_script("return window.hacked === undefined")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert requests(driver) == [page.as_uri()]
    assert driver.get_log("browser") == []
