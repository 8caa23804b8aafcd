"""Reports of studies: what is planned, the chosen baseline, paired tests, LaTeX."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from evenhand.metrics import holm, paired_difference
from evenhand.report import write_report
from evenhand.validation import UserError
from report_records import record, write_run

MINE = {"erm": (0.40, 0.42, 0.41), "gce": (0.30, 0.33, 0.28), "pgd": (0.55, 0.61, 0.57)}


def write_study_plan(folder: Path, *, baseline: list[str] | None = None, skipped: int = 0) -> dict[str, str]:
    """Three finished cells and one that isn't begun; returns the cells' hashes by method."""
    hashes: dict[str, str] = {}
    cells: list[dict[str, Any]] = []
    for method in (*MINE, "edge"):
        entries = [record(method, seed, 0.95, value) for seed, value in enumerate(MINE.get(method, (0.5,) * 3))]
        hashes[method] = entries[0]["cell"]
        runs = [
            {
                "seed": e["seed"],
                "data_seed": e["data_seed"],
                "configuration": e["configuration"],
                "status": "skipped" if method == "edge" and i < skipped else "planned",
            }
            for i, e in enumerate(entries)
        ]
        described = {key: entries[0][key] for key in ("method", "task", "model", "training", "cell")}
        cells.append({"name": f"my {method}", **described, "runs": runs})
        if method in MINE:
            for entry in entries:
                write_run(folder, entry)
    plan = {
        "format": 1,
        "study": "s",
        "title": "My study",
        "file": "s.yaml",
        "baseline": [hashes[name] for name in baseline or []],
        "only": "my*" if skipped else None,
        "cells": cells,
    }
    (folder / "study.json").write_text(json.dumps(plan), encoding="utf-8")
    return hashes


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_planned_cell_is_in_the_tables_under_its_name(tmp_path: Path) -> None:
    write_study_plan(tmp_path, skipped=1)
    files = write_report(tmp_path)
    page = files.html.read_text(encoding="utf-8")
    assert "<h1>My study</h1>" in page
    assert "2 runs are planned and 1 run was skipped" in page
    assert [row["label"] for row in rows_of(files.csv)] == ["my erm", "my gce", "my pgd", "my edge"]
    edge = rows_of(files.csv)[-1]
    assert (edge["done"], edge["planned"], edge["skipped"]) == ("0", "2", "1")
    assert len(rows_of(files.runs_csv)) == 12
    text = files.markdown.read_text(encoding="utf-8")
    status = "planned (2 of 3 runs) and skipped (1 of 3 runs): left out by --only 'my\\*'"
    assert f"| my edge | – | – | – | – | 0 | – | – | {status} |" in text


@pytest.mark.parametrize("baseline", ["erm", "pgd"])
def test_tests_are_those_of_the_records_against_the_chosen_baseline(baseline: str, tmp_path: Path) -> None:
    write_study_plan(tmp_path, baseline=[baseline])
    files = write_report(tmp_path)
    rows = [row for row in rows_of(files.tests_csv) if row["metric"] == "conflicting"]
    others = [name for name in MINE if name != baseline]
    assert [row["label"] for row in rows] == [f"my {name}" for name in others]
    assert {row["baseline"] for row in rows} == {f"my {baseline}"}
    tests = [paired_difference(dict(enumerate(MINE[name])), dict(enumerate(MINE[baseline]))) for name in others]
    for row, test, corrected in zip(rows, tests, holm([test.p for test in tests]), strict=True):
        assert float(row["difference_mean"]) == pytest.approx(test.summary.mean)
        assert float(row["p"]) == pytest.approx(test.p)
        assert float(row["p_holm"]) == pytest.approx(corrected)
    name = "ERM" if baseline == "erm" else "my pgd"
    assert f"Conflicting vs. {name}" in files.markdown.read_text(encoding="utf-8")


def test_latex_is_escaped_and_whole(tmp_path: Path) -> None:
    write_study_plan(tmp_path)
    write_run(tmp_path, record("odd", title="50% & more_α {x}", status="failed", error="bad # \\ thing"))
    text = write_report(tmp_path).latex.read_text(encoding="utf-8")
    assert r"50\% \& more\_$\alpha$ \{x\}" in text
    assert r"bad \# \textbackslash{} thing" in text
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 3
    for table in text.split("\\midrule")[1:]:
        rows = table.split("\\bottomrule")[0].strip().splitlines()
        assert len({row.replace("\\&", "").count("&") for row in rows}) == 1
        assert all(row.endswith("\\\\") for row in rows)


def test_a_study_that_has_only_been_planned(tmp_path: Path) -> None:
    write_study_plan(tmp_path)
    for path in tmp_path.glob("run-*/record.json"):
        path.unlink()
    files = write_report(tmp_path)
    assert [row["planned"] for row in rows_of(files.csv)] == ["3"] * 4
    assert "No run is finished" in files.html.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 1, "title": "x", "baseline": [], "cells": [{}]}'])
def test_damaged_plans_are_refused(content: str, tmp_path: Path) -> None:
    write_run(tmp_path, record())
    (tmp_path / "study.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"study\.json"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_how_well_scores_find_the_conflicting_samples(tmp_path: Path) -> None:
    for seed, auroc in enumerate((0.9, 0.8, None)):
        entry = record("pgd", seed)
        found = None if auroc is None else {"auroc": auroc, "average_precision": 0.5, "sampling_mass": 0.25}
        entry["stages"] = [{"name": "biased"}, {"name": "scores", "detection": found}]
        entry["durations"]["stages"] = {"biased": 30.0, "scores": 1.0 + seed}
        write_run(tmp_path, entry)
        write_run(tmp_path, record("erm", seed))
    files = write_report(tmp_path)
    (row,) = rows_of(files.detection_csv)
    assert float(row["auroc_mean"]) == pytest.approx(0.85)
    assert float(row["auroc_std"]) == pytest.approx(0.1 / 2**0.5)
    assert (row["auroc_n"], float(row["sampling_mass_mean"])) == ("2", 0.25)
    printed = f"| {row['label']} | 85.0 ± 7.1 | 50.0 ± 0.0 | 25.0 ± 0.0 | 2 |"
    assert printed in files.markdown.read_text(encoding="utf-8")
    page = files.html.read_text(encoding="utf-8")
    assert "Scores and conflicting samples" in page
    assert "85.0 ± 7.1" in page
    assert ">1.5 s</td>" in page


def test_without_scores_there_is_no_table_of_detection(tmp_path: Path) -> None:
    write_run(tmp_path, record())
    files = write_report(tmp_path)
    assert rows_of(files.detection_csv) == []
    assert "AUROC" not in files.markdown.read_text(encoding="utf-8")
    assert "Scores and conflicting samples" not in files.html.read_text(encoding="utf-8")


def test_sections_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for conflict in (0.1, 0.02, 1e-05, 8, 32):
        write_run(tmp_path, record(task_settings={"conflict": conflict}))
    sections = dict.fromkeys(row["section"] for row in rows_of(write_report(tmp_path).groups_csv))
    assert [name.rpartition("=")[2] for name in sections] == ["1e-05", "0.02", "0.1", "8", "32"]


def test_settings_that_all_cells_of_a_section_share_are_left_to_its_heading(tmp_path: Path) -> None:
    write_study_plan(tmp_path)
    path = tmp_path / "study.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for cell, tail in zip(content["cells"], ("", ", q=0.5", "", ", x, y"), strict=True):
        cell["name"] += f", task=digits{tail}"
    path.write_text(json.dumps(content), encoding="utf-8")
    labels = [row["label"] for row in rows_of(write_report(tmp_path).csv)]
    assert labels == ["my erm", "my gce, q=0.5", "my pgd", "my edge, x, y"]
