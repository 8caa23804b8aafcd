"""Who may be called best: above chance on aligned and conflicting samples, not inverted, by the mean of both."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.report import write_report
from evenhand.report.cells import DID_NOTHING, Section, group_records
from evenhand.report.headline import headline
from evenhand.report.ranking import best_other, fault, inverts_shortcut, leading, score
from evenhand.runs.read import find_plans, find_records, with_planned
from evenhand.runs.record import Record
from evenhand.wording import markdown_text
from report_records import metrics, record, write_run

RESULTS = Path(__file__).parents[2] / "results"
Values = dict[str, list[tuple[float | None, float | None]]]


def read(entry: dict[str, Any]) -> Record:
    return Record.read(entry, Path("record.json"))


def section_of(values: Values, **changes: Any) -> Section:
    """One section: method → (aligned, conflicting) of each seed."""
    runs = [
        read(record(name, seed, aligned, conflicting, **changes))
        for name, seeds in values.items()
        for seed, (aligned, conflicting) in enumerate(seeds)
    ]
    (section,) = group_records(runs)
    return section


def near(aligned: float, conflicting: float, seeds: int = 3) -> list[tuple[float | None, float | None]]:
    """Seeds half a point around these."""
    return [(aligned + 0.005 * (seed - 1), conflicting + 0.005 * (seed - 1)) for seed in range(seeds)]


ERM = near(0.99, 0.30)


def test_the_highest_conflicting_accuracy_is_not_the_best_method() -> None:
    section = section_of({"erm": ERM, "pgd": near(0.05, 0.76), "even": near(0.86, 0.80)})
    text = headline(section)
    assert "EVEN avoids it best, with 80.0% of the conflicting ones right: 50.0 points more than ERM" in text
    assert "of the aligned ones 86.0%, 13.0 points fewer than ERM" in text
    assert "Passed over: PGD inverts the shortcut, with 5.0% of the aligned and 76.0% of the conflicting ones" in text
    best = best_other(section)
    assert best is not None
    assert best.label == "EVEN"


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (near(0.05, 0.76), "No method here avoids it: PGD inverts the shortcut"),
        ([(0.99, 0.0)] * 3, "No method here avoids it: PGD is at chance or below on conflicting samples (10.0%)"),
        (near(0.09, 0.09), "PGD is at chance or below on aligned and conflicting samples (10.0%)"),
        ([(0.9, 0.05), (0.9, 0.30), (0.9, 0.10)], "PGD can't be told from chance on conflicting samples (10.0%)"),
    ],
)
def test_none_is_an_answer(other: Any, expected: str) -> None:
    section = section_of({"erm": ERM, "pgd": other})
    assert expected in headline(section)
    assert best_other(section) is None
    assert "best" not in headline(section)


def test_eligible_methods_rank_by_the_mean_of_both() -> None:
    section = section_of({"erm": ERM, "pgd": near(0.72, 0.70), "even": near(0.97, 0.66), "gce": near(0.98, 0.50)})
    found = best_other(section)
    assert found is not None
    assert found.label == "EVEN"
    assert score(found) == pytest.approx((0.97 + 0.66) / 2)
    # ERM's own mean is the higher one where the price is
    costly = section_of({"erm": near(0.99, 0.60), "pgd": near(0.70, 0.66)})
    assert "No other method does better; the best of them, PGD, gets 66.0% of the conflicting ones right" in headline(
        costly
    )


def test_with_one_seed_the_test_samples_give_the_interval() -> None:
    """15 % of 447 are above a tenth for sure, 15 % of 20 aren't; where no count is known the number itself counts."""
    data = {"test": {"n": 497, "aligned": 50, "conflicting": 447}}
    values: Values = {"erm": [(0.99, 0.11)], "pgd": [(0.9, 0.15)]}
    assert best_other(section_of(values, data=data)) is not None
    few = {"test": {"n": 40, "aligned": 20, "conflicting": 20}}
    section = section_of(values, data=few)
    assert best_other(section) is None
    assert "PGD can't be told from chance on conflicting samples (10.0%), with 90.0%" in headline(section)
    assert best_other(section_of(values, data={}, group_sizes={})) is not None


def test_chance_is_a_constant_answer_where_that_gets_more() -> None:
    counted = {"n": 400, "aligned": 200, "conflicting": 200, "classes": 2}
    values: Values = {"erm": near(0.99, 0.55), "pgd": near(0.86, 0.85)}
    assert best_other(section_of(values, data={"test": counted})) is not None
    uneven = {"test": counted | {"constant": {"average": 0.9, "both": 0.88}}}
    section = section_of(values, data=uneven)
    assert best_other(section) is None
    assert "(88.0%)" in headline(section)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"labels": ["a", "b"]}, 0.5),
        ({"labels": None}, 0.1),  # the task's own ten
        ({"labels": None, "task": {"name": "other", "settings": {}}}, 0.5),  # groups "0 aligned" to "1 conflicting"
    ],
)
def test_classes_of_older_records(changes: dict[str, Any], expected: float) -> None:
    section = section_of({"erm": ERM, "pgd": near(0.9, 0.45)}, **changes)
    cell = next(cell for cell in section.cells if cell.label == "PGD")
    assert (fault(cell) is None) == (expected < 0.4)


def test_unknown_classes_never_crown_what_gets_nothing_right() -> None:
    unknown = {"labels": None, "task": {"name": "other", "settings": {}}}
    entries = [record(m, s, 0.9, c, **unknown) for m, c in (("erm", 0.3), ("pgd", 0.0)) for s in range(3)]
    for entry in entries:
        entry["metrics"] = entry["metrics"] | {"by_group": {}}
    (section,) = group_records([read(entry) for entry in entries])
    assert "PGD gets nothing right on conflicting samples" in headline(section)


@pytest.mark.parametrize(
    ("erm", "expected"),
    [
        (near(0.05, 0.76), "ERM inverts the shortcut: it gets only 5.0% of the aligned test samples right"),
        (near(0.09, 0.09), "ERM is at chance or below on aligned and conflicting samples (10.0%), so whether"),
    ],
)
def test_a_baseline_that_inverts_or_learnt_nothing(erm: Any, expected: str) -> None:
    section = section_of({"erm": erm, "even": near(0.90, 0.70)})
    assert headline(section).startswith(expected)
    assert "Of the other methods, EVEN does best" in headline(section)
    assert "No method here avoids it" not in headline(section)


def test_without_a_baseline_no_inverted_method_is_called_best() -> None:
    text = headline(section_of({"pgd": near(0.05, 0.76), "even": near(0.86, 0.67)}))
    assert text.startswith("PGD inverts the shortcut")
    assert "EVEN does best by the mean of aligned and conflicting accuracy" in text
    none = headline(section_of({"pgd": near(0.05, 0.76), "jtt": near(0.9, 0.01)}))
    assert "No method here can be called good: PGD inverts the shortcut" in none


def test_where_aligned_is_undefined_the_conflicting_accuracy_decides() -> None:
    section = section_of(
        {"erm": [(None, 0.3 + s / 100) for s in range(3)], "pgd": [(None, 0.5 + s / 99) for s in range(3)]}
    )
    found = best_other(section)
    assert found is not None
    assert found.label == "PGD"
    assert "aligned ones" not in headline(section)


def test_an_average_at_chance_is_not_the_highest() -> None:
    def averages(*values: float) -> Section:
        runs = [record(seed=s, metrics=metrics(None, None, v), tests={}) for s, v in enumerate(values)]
        return group_records([read(run) for run in runs])[0]

    assert "the highest average accuracy is 80.0%" in headline(averages(0.79, 0.80, 0.81))
    assert "no method's average accuracy is above chance for sure" in headline(averages(0.02, 0.10, 0.16))


def test_pages_with_many_methods_show_the_best_ones() -> None:
    section = section_of({"erm": ERM, "pgd": near(0.05, 0.97), "even": near(0.9, 0.7), "jtt": near(0.9, 0.6)})
    assert [cell.label for cell in leading(section, 2)] == ["ERM", "EVEN"]
    assert [cell.label for cell in leading(section, 3)] == ["ERM", "EVEN", "JTT"]


def test_tables_call_an_inverted_shortcut_so(tmp_path: Path) -> None:
    for name, values in {"erm": ERM, "pgd": near(0.05, 0.76)}.items():
        for seed, (aligned, conflicting) in enumerate(values):
            write_run(tmp_path, record(name, seed, aligned, conflicting))
    files = write_report(tmp_path)
    assert "| done; inverts the shortcut |" in files.markdown.read_text(encoding="utf-8")
    assert "<small>inverts the shortcut</small>" in files.html.read_text(encoding="utf-8")
    with files.csv.open(newline="", encoding="utf-8") as stream:
        assert {row["label"]: row["fault"] for row in csv.DictReader(stream)}["PGD"] == "inverts the shortcut"


VALUES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(st.lists(VALUES, min_size=1, max_size=5))
def test_whoever_is_crowned_is_eligible(seeds: list[list[tuple[float, float]]]) -> None:
    names = ("pgd", "even", "jtt", "gce", "dpr")
    section = section_of({"erm": ERM} | {name: list(values) for name, values in zip(names, seeds, strict=False)})
    best, text = best_other(section), headline(section)
    if best is None:
        assert "does best" not in text
        assert "avoids it best" not in text
        return
    assert fault(best) is None
    assert not inverts_shortcut(best)
    for cell in section.cells:
        if not cell.is_baseline and fault(cell) is None:
            assert score(cell) <= score(best) + 1e-12


# ---------------------------------------------------------------- methods that did nothing


def idle(seed: int, reason: str = "its α is 0") -> dict[str, Any]:
    return record("even", seed, 0.99, 0.31 + seed / 100, did_nothing=reason)


def test_a_method_that_did_nothing_is_shown_and_never_compared(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, record("erm", seed, 0.99, 0.30))
        write_run(tmp_path, idle(seed))
        write_run(tmp_path, record("pgd", seed, 0.9, 0.2 + seed / 100))
    files = write_report(tmp_path)
    (section,) = group_records(find_records(tmp_path))
    text = headline(section)
    assert "EVEN did nothing here, so it trained as ERM does: its α is 0." in text
    assert "PGD" in text.split("EVEN did nothing")[0]
    lines = files.markdown.read_text(encoding="utf-8").splitlines()
    row = next(line for line in lines if line.startswith(f"| EVEN{DID_NOTHING} |"))
    assert "| – | – | done; did nothing, so it trained as ERM does: its α is 0 |" in row
    for path in (files.tests_csv, files.csv):
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [r for r in csv.DictReader(stream) if r["label"].startswith("EVEN")]
        assert path == files.csv or not rows
        assert all(r.get("conflicting_vs_baseline_mean", "") == "" for r in rows)


def test_runs_that_did_nothing_are_not_counted_beside_those_that_did_something() -> None:
    runs = [record("erm", s, 0.99, 0.30 + s / 100) for s in range(4)]
    runs += [record("even", s, 0.97, 0.80 + s / 100) for s in range(3)] + [idle(3)]
    (section,) = group_records([read(run) for run in runs])
    cell = next(cell for cell in section.cells if cell.first.method.name == "even")
    assert cell.label == "EVEN"
    assert cell.summary("conflicting").n == 3
    assert cell.summary("conflicting").mean == pytest.approx(0.81)
    assert "EVEN did nothing here in 1 of 4 runs, so it trained as ERM does" in headline(section)


@pytest.mark.parametrize(
    ("asked", "stage", "expected"),
    [
        ({"alpha": "balanced", "mix": 0.0}, 0.0, "its biased models are right about as often as wrong, so its α is 0"),
        ({"alpha": 0.0}, 0.0, "its α is 0"),
        ({"alpha": "balanced", "mix": 0.0}, 1.3, None),
        ({"alpha": 0.0, "mix": 0.8}, 0.0, None),  # draws by scores
    ],
)
def test_older_records_tell_it_by_their_alpha(asked: dict[str, Any], stage: float, expected: str | None) -> None:
    stages = [{"name": "debiased", "method": {"name": "balanced", "settings": {"alpha": stage}}}]
    assert read(record("even", settings=asked, stages=stages)).did_nothing == expected


# ---------------------------------------------------------------- what is committed


def committed(study: str) -> list[Section]:
    plans = find_plans(RESULTS / study)
    return group_records(with_planned(find_records(RESULTS / study), plans), plans)


def test_the_committed_studies_crown_no_inverted_method() -> None:
    (snli,) = committed("choosing-snli")
    best = best_other(snli)
    assert best is not None
    assert best.label == "Even"
    (text,) = committed("pgd-text")
    assert best_other(text) is None
    assert "No method here avoids it: head, inherit inverts the shortcut" in headline(text)


@pytest.mark.parametrize("study", ["choosing-snli", "pgd-text", "robustness", "even-digits"])
def test_tables_of_committed_results_say_what_the_rule_says(study: str, tmp_path: Path) -> None:
    for path in (RESULTS / study).glob("*.json*"):
        shutil.copy(path, tmp_path)
    page = write_report(tmp_path, page=False).markdown.read_text(encoding="utf-8")
    for section in committed(study):
        assert markdown_text(headline(section)) in page
