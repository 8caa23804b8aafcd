"""Fixed and broken samples: counts, order, what is shown of them, and predictions that can't be trusted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import evenhand as eh
from evenhand.report import write_report
from evenhand.report.cells import group_records
from evenhand.report.changed import MOST_SHOWN, Changed, changed, counts_data
from evenhand.runs.predictions import FILE, read_predictions, write_predictions
from evenhand.runs.read import find_records
from evenhand.runs.record import Record
from evenhand.validation import UserError
from report_reading import Cells
from report_records import png, record, samples, write_run

HOSTILE = "<script>alert(1)</script> \u202e=1+1|*x*"


def frame(predictions: list[str], **columns: Any) -> pd.DataFrame:
    """Rows of the class a, in turn conflicting, aligned and independent, each with a text where it is wrong."""
    n = len(predictions)
    made = {
        "index": range(n),
        "id": [f"T{i}" for i in range(n)],
        "file": ["t.csv"] * n,
        "row": [i + 10 for i in range(n)],
        "line": [2 * i + 20 for i in range(n)],
        "label": ["a"] * n,
        "prediction": predictions,
        "probability": [0.75] * n,
        "standing": [("aligned", "conflicting", "independent")[i % 3] for i in range(n)],
        "text": [None if p == "a" else f"text {i}" for i, p in enumerate(predictions)],
    }
    return pd.DataFrame(made | columns)


def run(folder: Path, method: str, found: pd.DataFrame | None, seed: int = 0, **changes: Any) -> Path:
    entry = record(method, seed, **changes)
    path = write_run(folder, entry)
    if found is not None:
        write_predictions(path.parent, entry["configuration"], found)
    return path


def found_in(folder: Path) -> Changed | None:
    (section,) = group_records(find_records(folder))
    return changed(section)


ANSWERS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=ANSWERS)
def test_lists_and_counts_are_those_of_each_row(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    run(folder, "erm", frame([before for before, _ in answers]))
    run(folder, "pgd", frame([after for _, after in answers]))
    found = found_in(folder)
    assert found is not None
    (method,) = found.methods
    order = [i for standing in (1, 0) for i in range(len(answers)) if (i % 3 == 1) == (standing == 1)]
    for name, (before, after) in {"fixed": ("b", "a"), "broken": ("a", "b")}.items():
        rows = [i for i in order if answers[i] == (before, after)]
        listed = getattr(method, name)
        assert [sample.index for sample in listed] == rows
        assert [sample.where for sample in listed] == [f"t.csv row {i + 10} (line {2 * i + 20})" for i in rows]
        assert [sample.texts for sample in listed] == [(f"text {i}",) for i in rows]  # of the run that got it wrong
        assert method.counts["all"][name] == len(rows)
        for place, standing in enumerate(("aligned", "conflicting", "independent")):
            of_standing = [i for i in range(len(answers)) if i % 3 == place]
            if of_standing:
                assert method.counts[standing]["samples"] == len(of_standing)
                assert method.counts[standing][name] == len({*of_standing} & {*rows})
    assert method.counts["all"]["samples"] == len(answers)


def test_the_page_the_json_and_the_csv_tell_the_same(tmp_path: Path) -> None:
    n = 60
    run(tmp_path, "erm", frame(["b" if i % 3 == 1 else "a" for i in range(n)]))
    run(tmp_path, "pgd", frame(["b" if i % 3 == 0 else "a" for i in range(n)]))
    files = write_report(tmp_path)
    page = files.html.read_text(encoding="utf-8")
    assert "<h3>Fixed and broken against ERM</h3>" in page
    assert "PGD: 20 fixed, 20 broken" in page
    cells = Cells(page)
    counted = next(table for table in cells.tables if table[0][1:3] == ["Fixed", "Broken"])
    assert counted[1][1:] == ["20", "20", "60", "20", "0", "20", "0", "20", "20", "0", "0", "20"]
    lists = [table for table in cells.tables if table[0] == ["Sample", "Label", "ERM", "PGD"]]
    assert [len(table) - 1 for table in lists] == [MOST_SHOWN, MOST_SHOWN]
    assert "The first 12 of 20, in the order of the file, those against the shortcut first." in page
    assert "t.csv row 11 (line 22)" in lists[0][1][0]
    assert "id T1" in lists[0][1][0]
    assert "text 1" in lists[0][1][0]
    told = json.loads(files.json.read_text())["sections"][0]["changed"]
    assert told["methods"]["PGD"]["conflicting"] == {"samples": 20, "fixed": 20, "broken": 0}
    assert files.changed_csv is not None
    with files.changed_csv.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 40
    first = {"change": "fixed", "file": "t.csv", "row": "11", "line": "22", "id": "T1", "baseline": "b"}
    assert rows[0].items() >= first.items()


def test_hostile_texts_ids_and_files_are_only_text(tmp_path: Path) -> None:
    for method, answer in (("erm", "b"), ("pgd", "a")):
        found = frame([answer] * 3, id=[HOSTILE] * 3, file=["=x.csv"] * 3, text=[HOSTILE * 30] * 3)
        run(tmp_path, method, found)
    files = write_report(tmp_path)
    page = files.html.read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\u202e" not in page
    assert files.changed_csv is not None
    with files.changed_csv.open(encoding="utf-8", newline="") as stream:
        assert next(csv.DictReader(stream))["file"] == "'=x.csv"


def test_samples_of_texts_are_only_text_too(tmp_path: Path) -> None:
    shown = samples("3", png=None, text=HOSTILE, text_pair=HOSTILE, id=HOSTILE, where=HOSTILE, probability=0.5)
    write_run(tmp_path, record("erm"), shown)
    page = write_report(tmp_path).html.read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") == 4 * 8  # of eight samples
    assert "\u202e" not in page
    assert "(50 %)" in page


def test_pictures_are_shown_and_broken_ones_are_not(tmp_path: Path) -> None:
    image = png([[(200, 30, 60)] * 4] * 4)
    run(tmp_path, "erm", frame(["b", "b"]).drop(columns="text").assign(png=[image, "no picture"]))
    run(tmp_path, "pgd", frame(["a", "a"]).drop(columns="text"))
    found = found_in(tmp_path)
    assert found is not None
    assert [sample.png for sample in found.methods[0].fixed] == [None, image]  # the conflicting one first
    page = write_report(tmp_path).html.read_text(encoding="utf-8")
    assert page.count(image) == 1
    assert "no picture" not in page


def test_the_seed_that_most_methods_have_is_shown_and_idle_methods_arent(tmp_path: Path) -> None:
    for method, seeds in (("erm", (0, 1)), ("pgd", (1,)), ("gce", (0, 1))):
        for seed in seeds:
            run(tmp_path, method, frame(["b" if method == "erm" else "a"]), seed)
    run(tmp_path, "even", frame(["a"]), 1, did_nothing="its α is 0")
    found = found_in(tmp_path)
    assert found is not None
    assert found.seed == 1
    assert {changes.label for changes in found.methods} == {"PGD", "GCE"}


@pytest.mark.parametrize("changes", [{"label": ["b"] * 3}, {"id": ["x", "y", "z"]}, {"line": [5, 6, 7]}])
def test_runs_on_other_rows_arent_compared(tmp_path: Path, changes: dict[str, Any]) -> None:
    run(tmp_path, "erm", frame(["b"] * 3))
    run(tmp_path, "pgd", frame(["a"] * 3, **changes))
    assert found_in(tmp_path) is None


def test_without_predictions_the_page_is_silent(tmp_path: Path) -> None:
    run(tmp_path, "erm", None)
    run(tmp_path, "pgd", frame(["a"] * 3))
    (section,) = group_records(find_records(tmp_path))
    assert changed(section) is None
    assert counts_data(section) is None
    files = write_report(tmp_path)
    assert "Fixed and broken" not in files.html.read_text(encoding="utf-8")
    assert files.changed_csv is None
    assert not (tmp_path / "tables/changed.csv").exists()


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_predictions(Record.load(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_predictions_are_those_of_their_record(tmp_path: Path) -> None:
    erm, pgd = run(tmp_path, "erm", frame(["b"])), run(tmp_path, "pgd", frame(["a"]))
    pgd.with_name(FILE).replace(erm.with_name(FILE))
    assert "of another run" in refused(erm)
    run(tmp_path, "gce", frame(["a"]))
    with pytest.raises(UserError, match="another run"):
        write_report(tmp_path)


def test_predictions_that_cant_be_read_are_named(tmp_path: Path) -> None:
    path = run(tmp_path, "erm", frame(["b"]))
    kept = path.with_name(FILE)
    whole = kept.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        kept.write_bytes(damaged)
        assert str(kept) in refused(path)
    table = pa.table({"index": [0]}).replace_schema_metadata({"configuration": Record.load(path).configuration})
    pq.write_table(table, kept)
    assert "lack the column 'label'" in refused(path)


def test_a_report_of_real_runs_lists_what_changed(tmp_path: Path) -> None:
    lines = ["text,label,ref"]
    for i in range(160):
        word = ("nimbus", "pebble")[(i % 2) ^ (i % 10 == 9)]
        lines.append(f'"{word} and\nnumber {i}",{("bug", "bill")[i % 2]},T{i}')
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = eh.OwnData(data=tmp_path / "t.csv", text="text", label="label", id="ref", shortcuts="token:nimbus|pebble")
    for method in (eh.ERM(), eh.Balance()):
        folder = tmp_path / f"runs/{method.name}"
        eh.fit(method, data, "tiny-bert", epochs=3, lr=1e-3, device="cpu", output_dir=folder)
    found = found_in(tmp_path / "runs")
    assert found is not None
    counts = found.methods[0].counts
    tests = [json.loads((tmp_path / f"runs/{m}/record.json").read_text())["metrics"] for m in ("erm", "balance")]
    for name, key in (("all", "average"), ("conflicting", "conflicting"), ("aligned", "aligned")):
        gained = counts[name]["fixed"] - counts[name]["broken"]
        assert gained / counts[name]["samples"] == pytest.approx(tests[1][key] - tests[0][key])
    for sample in (*found.methods[0].fixed, *found.methods[0].broken):
        assert sample.id is not None
        number = int(sample.id[1:])
        assert sample.where == f"t.csv row {number + 1} (line {2 * number + 2})"
        assert sample.texts[0].endswith(f"number {number}")
