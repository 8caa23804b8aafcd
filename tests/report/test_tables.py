"""The report: its numbers are the records' numbers, nothing planned vanishes, and the page works in a browser."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from browser import driver, load, requests
from evenhand.metrics import paired_difference, summarize
from evenhand.report import write_report
from evenhand.validation import UserError
from report_reading import Cells, lede
from report_records import metrics, record, samples, write_run, write_study

__all__ = ["driver"]  # a fixture


def report(folder: Path, title: str | None = None) -> tuple[str, Cells]:
    page = write_report(folder, title).html.read_text(encoding="utf-8")
    return page, Cells(page)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


# ---------------------------------------------------------------- numbers


def test_numbers_on_the_page_equal_the_records(tmp_path: Path) -> None:
    made = write_study(tmp_path)
    _, cells = report(tmp_path)
    rows = {row[0]: row[1:] for row in cells.tables[0][1:]}
    assert list(rows) == ["ERM", "EDGE (biased signal)", "GCE", "PGD"]
    erm = {m["seed"]: m["metrics"]["conflicting"] for m in made if m["method"]["name"] == "erm"}
    for label, row in rows.items():
        mine = [m for m in made if m["method"]["title"] == label]
        for column, metric in enumerate(("average", "worst_group", "aligned", "conflicting")):
            expected = summarize([m["metrics"][metric] for m in mine])
            assert expected.mean is not None
            assert expected.std is not None
            assert row[column] == f"{percent(expected.mean)} ± {percent(expected.std)}"
        assert row[4] == "3"
        if label == "ERM":
            assert row[5] == "baseline"
            continue
        change = paired_difference({m["seed"]: m["metrics"]["conflicting"] for m in mine}, erm).summary
        numbers = [f"{v:+.1f}" for v in (100 * (x or 0.0) for x in (change.mean, change.low, change.high))]
        assert row[5].replace("−", "-") == "{} ({} to {})".format(*numbers)


def test_headline_names_shortcut_method_seeds_and_interval(tmp_path: Path) -> None:
    write_study(tmp_path)
    text = lede(report(tmp_path)[1])
    assert text.startswith("ERM took the shortcut: it gets 99.0% of the aligned test samples right, but only 44.1%")
    assert "mean of 3 seeds" in text
    assert "PGD avoids it best, with 88.2% of the conflicting ones right: 44.1 points more than ERM" in text
    assert "95% interval of the difference: +44.1 to +44.1" in text


def test_tables_hold_full_precision(tmp_path: Path) -> None:
    made = write_study(tmp_path)
    files = write_report(tmp_path)
    with files.runs_csv.open(newline="", encoding="utf-8") as stream:
        runs = list(csv.DictReader(stream))
    assert len(runs) == len(made)
    for row, entry in zip(runs, made, strict=True):
        assert row["seed"] == str(entry["seed"])
        for metric in ("average", "average_train_weighted", "worst_group", "aligned", "conflicting"):
            assert float(row[metric]) == entry["metrics"][metric]
            assert float(row[f"validation/{metric}"]) == entry["tests"]["validation"][metric]
        assert float(row["group: 1 conflicting"]) == entry["metrics"]["by_group"]["1 conflicting"]
    with files.csv.open(newline="", encoding="utf-8") as stream:
        methods = {row["label"]: row for row in csv.DictReader(stream)}
    pgd = summarize([m["metrics"]["conflicting"] for m in made if m["method"]["name"] == "pgd"])
    assert float(methods["PGD"]["conflicting_mean"]) == pgd.mean
    assert float(methods["PGD"]["conflicting_std"]) == pgd.std
    assert methods["PGD"]["done"] == "3"
    assert "| PGD | 88.2 ± 0.7 |" in files.markdown.read_text(encoding="utf-8")


def test_group_and_test_set_tables(tmp_path: Path) -> None:
    write_run(tmp_path, record())
    _, cells = report(tmp_path)
    groups, worst, tests = cells.tables[2:5]
    names = ["0 aligned\xa0* 5", "0 conflicting 230", "1 aligned 22", "1 conflicting 240"]
    assert groups == [["Method", *names], ["ERM", "99.0", "44.0", "99.0", "44.0"]]
    assert worst[1:] == [
        ["ERM", "1 conflicting", "240", "44.0", "38.0 to 50.5"],
        ["ERM", "1 small group: 0 aligned", "5", "99.0", "56.6 to 100.0"],
    ]
    assert [row[:2] for row in tests[1:]] == [["test", "ERM"], ["validation", "ERM"]]


def test_undefined_numbers_are_not_zero(tmp_path: Path) -> None:
    empty = metrics(None, None, 0.8)
    write_run(tmp_path, record(metrics=empty, tests={"test": empty}))
    page, cells = report(tmp_path)
    assert cells.tables[0][1] == ["ERM", "80.0", "–", "–", "–", "1", "baseline"]
    assert "can't say who took a shortcut; the highest average accuracy is 80.0% (ERM, 1 seed)" in lede(cells)
    assert 'id="section-1-plot"' not in page  # aligned against conflicting


def test_a_metric_that_few_seeds_define_says_so(tmp_path: Path) -> None:
    for seed, value in enumerate((0.5, 0.6, None)):
        write_run(tmp_path, record(seed=seed, conflicting=value) | {"metrics": metrics(0.9, value, 0.7)})
    assert report(tmp_path)[1].tables[0][1][5] == "55.0 ± 7.1 (n = 2)"  # behind the small groups


# ---------------------------------------------------------------- wording


def test_one_seed_has_no_spread_and_says_so(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=1)
    _, cells = report(tmp_path)
    assert cells.tables[0][4][4:] == ["87.5", "1", "+44.1 (one seed, no interval)"]
    assert "on the one seed they share, so there is no interval and this may be chance" in lede(cells)
    assert "There is one seed only" in cells.texts["caption"][0]


def test_without_erm_no_difference_is_claimed(tmp_path: Path) -> None:
    for method, conflicting in (("edge", 0.6), ("pgd", 0.8)):
        for seed in range(2):
            write_run(tmp_path, record(method, seed, conflicting=conflicting + seed / 100))
    _, cells = report(tmp_path)
    assert "There is no finished ERM run here, so no difference to ERM can be given" in lede(cells)
    best = "PGD does best by the mean of aligned and conflicting accuracy, with 99.0% of the aligned and 80.5% of the"
    assert f"{best} conflicting ones right (2 seeds)" in lede(cells)
    assert [row[6] for row in cells.tables[0][1:]] == ["–", "–"]


@pytest.mark.parametrize(
    ("erm", "other", "expected"),
    [
        ((0.40, 0.44, 0.48), (0.46, 0.41, 0.52), "the interval contains 0, so this may be chance"),
        ((0.40, 0.44, 0.48), (0.30, 0.34, 0.39), "No other method does better"),
        ((0.40, 0.44, 0.48), (0.60, 0.64, 0.69), "PGD takes it less, but still takes it"),
        ((0.95, 0.96, 0.97), (0.97, 0.975, 0.985), "ERM shows no clear shortcut"),
    ],
)
def test_headline_is_honest(tmp_path: Path, erm: tuple[float, ...], other: tuple[float, ...], expected: str) -> None:
    for method, values in (("erm", erm), ("pgd", other)):
        for seed, value in enumerate(values):
            write_run(tmp_path, record(method, seed, conflicting=value))
    assert expected in lede(report(tmp_path)[1])


def test_only_runs_that_share_both_seeds_are_paired(tmp_path: Path) -> None:
    write_run(tmp_path, record("erm", 0, data_seed=0))
    write_run(tmp_path, record("pgd", 0, conflicting=0.9, data_seed=1))
    _, cells = report(tmp_path)
    assert "shares no seed with ERM" in lede(cells)
    assert cells.tables[0][2][6] == "–"


@pytest.mark.parametrize(
    ("data_seeds", "expected"),
    [
        ((0, 1), "Each seed has its own data, initialisation and order of training."),
        ((5, 5), "All seeds share the same data (data seed 5)"),
        ((1, 2), "Some seeds share their data and others do not"),
    ],
)
def test_caption_says_what_a_seed_changes(tmp_path: Path, data_seeds: tuple[int, int], expected: str) -> None:
    for seed, data_seed in enumerate(data_seeds):
        write_run(tmp_path, record(seed=seed, data_seed=data_seed))
    assert expected in report(tmp_path)[1].texts["caption"][0]


def test_caption_names_test_set_selection_and_small_groups(tmp_path: Path) -> None:
    write_run(tmp_path, record())
    caption = report(tmp_path)[1].texts["caption"][0]
    for words in ("standard deviation over seeds", "“test” (497 samples)", "last epoch", "1 of 4 groups (0 aligned)"):
        assert words in caption


# ---------------------------------------------------------------- what must not vanish or mix


def test_failed_and_running_runs_appear(tmp_path: Path) -> None:
    write_run(tmp_path, record("pgd", 0))
    write_run(tmp_path, record("pgd", 1, status="failed", error="loss became nan"))
    write_run(tmp_path, record("lff", 0, status="running", command=None, selection=None, primary_test=None))
    page, cells = report(tmp_path)
    rows = cells.tables[0][1:]
    assert rows[0] == ["LFF", "running (1 of 1 run)"]
    assert rows[1][0] == "PGD"
    assert rows[1][5] == "1"
    assert rows[2] == ["PGD", "failed (1 of 2 runs): loss became nan"]
    assert "1 run failed and 1 run is still running; the table shows them." in page
    runs = (tmp_path / "tables" / "runs.csv").read_text(encoding="utf-8").splitlines()
    assert len(runs) == 4
    assert "loss became nan" in runs[2]


def test_nothing_finished(tmp_path: Path) -> None:
    write_run(tmp_path, record(status="failed", error="out of memory", stages=None, tests=None, durations=None))
    page, cells = report(tmp_path)
    assert lede(cells) == "No run is finished yet. 1 run failed; the table shows it."
    assert "failed (1 of 1 run): out of memory" in page


def test_different_data_never_share_a_table(tmp_path: Path) -> None:
    write_run(tmp_path, record("erm", 0))
    write_run(tmp_path, record("pgd", 0, conflicting=0.9, task_settings={"conflict": 0.05}))
    write_run(tmp_path, record("edge", 0, training={"epochs": 5}))
    write_run(tmp_path, record("gce", 0, model={"name": "digits-cnn", "parameters": None}))
    _, cells = report(tmp_path)
    assert cells.texts["h2"] == [
        "colored-digits, digits-cnn, conflict=0.02, epochs=5",
        "colored-digits, digits-cnn, conflict=0.02, epochs=30, lr=0.001, batch_size=64, optimizer=adam",
        "colored-digits, digits-cnn, conflict=0.05, epochs=30, lr=0.001, batch_size=64, optimizer=adam",
    ]
    methods = [[row[0] for row in table[1:]] for table in cells.tables if table[0][-1] == "Conflicting vs. ERM"]
    assert methods == [["EDGE"], ["ERM", "GCE"], ["PGD"]]


def test_equal_titles_are_told_apart(tmp_path: Path) -> None:
    for alpha in (1.0, 1.4):
        write_run(tmp_path, record("edge", 0, title="EDGE (biased signal)", settings={"alpha": alpha, "q": 0.7}))
    write_run(tmp_path, record("pgd", 0, cell="a"))
    write_run(tmp_path, record("pgd", 0, cell="b"))
    assert [row[0] for row in report(tmp_path)[1].tables[0][1:]] == [
        "EDGE (biased signal), alpha=1.0",
        "EDGE (biased signal), alpha=1.4",
        "PGD (variant 1)",
        "PGD (variant 2)",
    ]


def test_a_repeated_run_counts_once_and_is_named(tmp_path: Path) -> None:
    for status in ("failed", "done", "done"):
        write_run(tmp_path, record(status=status, error="stopped" if status == "failed" else None))
    page, cells = report(tmp_path)
    assert cells.tables[0][1][5] == "1"
    assert "run-02/record.json (done), run-00/record.json (failed)" in page


def test_settings_commands_and_machine_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path, record("pgd", settings={"q": 0.7, "source": "head"}))
    page, cells = report(tmp_path)
    assert cells.texts["code"] == ["evenhand train pgd --task colored-digits --conflict 0.02 --seed 0"]
    for words in ("q=0.7, source=head", "torch 2.13.0+cpu", "0123456789abcdef with uncommitted changes", "12.3 s"):
        assert words in page
    for words in ("none (groups are used for evaluation only)", "123,456 parameters", "train: 1,100 samples"):
        assert words in page


# ---------------------------------------------------------------- samples


def test_samples_are_mostly_conflicting_with_every_answer(tmp_path: Path) -> None:
    write_study(tmp_path)
    page, cells = report(tmp_path)
    table = next(t for t in cells.tables if t[0][0] == "Sample")
    assert table[0][1:] == ["ERM", "EDGE (biased signal)", "GCE", "PGD"]
    assert [row[0].split()[-1] for row in table[1:]] == ["aligned"] * 2 + ["conflicting"] * 6
    assert [cell.split() for cell in table[1][1:]] == [["1", "✗", "wrong"]] * 3 + [["3", "✓", "right"]]
    assert page.count('<img src="data:image/png;base64,') == 8


def test_text_samples_and_runs_without_samples(tmp_path: Path) -> None:
    write_run(tmp_path, record("erm"))
    write_run(tmp_path, record("pgd"), samples(png=None, text="A <b>dog</b> sleeps."))
    page, cells = report(tmp_path)
    table = next(t for t in cells.tables if t[0][0] == "Sample")
    assert table[0] == ["Sample", "PGD"]
    assert "A &lt;b&gt;dog&lt;/b&gt; sleeps." in page


def test_missing_samples_leave_the_rest(tmp_path: Path) -> None:
    write_run(tmp_path, record())
    page, _ = report(tmp_path)
    assert "Test samples and answers" not in page
    assert 'class="plot"' in page


# ---------------------------------------------------------------- hostile and bad input

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>|`%{x}`<b>&amp;"


def write_hostile(folder: Path) -> None:
    for seed in range(2):
        entry = record("erm", seed, title=HOSTILE, settings={HOSTILE: HOSTILE}, command=HOSTILE)
        by_group = {HOSTILE: 0.5}
        entry["metrics"] = metrics(0.9, 0.4) | {"by_group": by_group}
        entry["tests"] = {HOSTILE: metrics(0.9, 0.4) | {"by_group": by_group}}
        entry |= {"versions": {HOSTILE: HOSTILE}, "primary_test": HOSTILE, "selection": HOSTILE}
        entry |= {"groups_not_counted": {HOSTILE: [HOSTILE]}, "group_sizes": {HOSTILE: {HOSTILE: 3}}}
        write_run(folder, entry, samples(HOSTILE, label=HOSTILE, attribute=HOSTILE, alignment="conflicting"))
    write_run(folder, record("pgd", title=HOSTILE + "\ud800", status="failed", error=HOSTILE))


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    write_hostile(tmp_path)
    page, cells = report(tmp_path, HOSTILE)
    assert "<script>window" not in page
    assert "<img src=x" not in page
    assert cells.texts["h1"] == [HOSTILE]
    assert "<script>" not in (tmp_path / "tables" / "methods.md").read_text(encoding="utf-8")


def drop(entry: dict[str, Any], key: str) -> dict[str, Any]:
    *parents, last = key.split(".")
    inner = entry
    for parent in parents:
        inner = inner[parent]
    del inner[last]
    return entry


def put(entry: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    *parents, last = key.split(".")
    inner = entry
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return entry


def refused(folder: Path) -> str:
    """The one sentence with which a folder is refused; nothing may have been written."""
    with pytest.raises(UserError) as caught:
        write_report(folder)
    assert not (folder / "report.html").exists()
    assert not (folder / "tables").exists()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_missing_folder_and_empty_folder(tmp_path: Path) -> None:
    assert "There is no folder" in refused(tmp_path / "nowhere")
    assert "holds no record.json; run 'evenhand train' or 'evenhand demo' first." in refused(tmp_path)


@pytest.mark.parametrize("text", ["{", "", "[1]", '"x"', "\ufeff{}"])
def test_a_record_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    path = write_run(tmp_path, record())
    path.write_text(text, encoding="utf-8")
    assert str(path) in refused(tmp_path)


def test_a_record_that_is_no_text(tmp_path: Path) -> None:
    path = write_run(tmp_path, record())
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not valid JSON" in refused(tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        "format",
        "status",
        "method.title",
        "task.settings",
        "model",
        "training",
        "seed",
        "data_seed",
        "cell",
        "command",
        "primary_test",
        "metrics",
        "metrics.conflicting",
        "metrics.by_group",
        "tests.validation.average",
    ],
)
def test_a_record_that_lacks_a_key(tmp_path: Path, key: str) -> None:
    path = write_run(tmp_path, drop(record(), key))
    message = refused(tmp_path)
    assert f"'{key}'" in message or f"'{key}." in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "0"),
        ("seed", True),
        ("status", "finished"),
        ("method.name", None),
        ("metrics.average", 48.0),
        ("metrics.average", "0.5"),
        ("metrics.aligned", float("nan")),
        ("metrics.by_group.0 aligned", -0.1),
        ("metrics", None),
    ],
)
def test_a_record_with_a_wrong_value(tmp_path: Path, key: str, value: object) -> None:
    path = write_run(tmp_path, put(record(), key, value))
    message = refused(tmp_path)
    assert f"'{key}" in message
    assert str(path) in message


def test_a_record_of_another_format(tmp_path: Path) -> None:
    write_run(tmp_path, record(format=2))
    assert "has record format 2 but this version of evenhand reads format 1" in refused(tmp_path)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, "'samples'"),
        ({"samples": 3}, "'samples'"),
        ({"samples": [3]}, "'samples.0'"),
        ({"samples": [{"index": 0, "png": None}]}, "'samples.0.prediction'"),
    ],
)
def test_bad_samples(tmp_path: Path, shown: dict[str, Any], expected: str) -> None:
    write_run(tmp_path, record(), shown)
    message = refused(tmp_path)
    assert expected in message
    assert "samples.json" in message


def test_a_bad_record_leaves_the_last_report_and_no_litter(tmp_path: Path) -> None:
    write_run(tmp_path, record())
    page, _ = report(tmp_path)
    path = write_run(tmp_path, record(seed=1))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json", "run-00", "run-01", "tables"]
    names = ["cost", "curves", "detection", "groups", "methods", "runs", "sweeps", "tests"]
    assert sorted(p.stem for p in (tmp_path / "tables").glob("*.csv")) == names


def test_a_write_that_fails_leaves_the_last_report_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, record())
    page, _ = report(tmp_path)
    write_run(tmp_path, record("pgd"))

    def fail(self: Path, target: Path) -> Path:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UserError, match="the disk is full"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json", "run-00", "run-01", "tables"]


def test_every_method_has_a_colour_and_a_symbol_of_its_own(tmp_path: Path) -> None:
    for i in range(12):
        write_run(tmp_path, record("erm" if i == 0 else f"m{i}"))
    page, _ = report(tmp_path)
    marks = set(re.findall(r'data-glyph="(.)" style="--method: (#\w{6})"', page))
    assert len(marks) == 12


# ---------------------------------------------------------------- in a browser


@pytest.mark.parametrize("width", [1280, 400])
def test_page_in_a_browser(driver: Any, tmp_path: Path, width: int) -> None:
    made = write_study(tmp_path)
    write_run(tmp_path, record("pgd", 7, status="failed", error="a-word-without-a-break-" * 20))
    page = write_report(tmp_path).html
    load(driver, page, width)
    driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert driver.get_log("browser") == []
    assert requests(driver) == [page.as_uri()]
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    # One small mark a run, one large mark a method, all with a shape that has an extent.
    counted = """return [...document.querySelectorAll('.scatterlayer .point')]
        .filter(p => p.getBoundingClientRect().width > 2).length"""
    assert driver.execute_script(counted) == 2 * (len(made) + 4)
    assert driver.execute_script("return document.querySelector('.plot svg').getBoundingClientRect().right") <= width
    images = "return [...document.images].map(i => [i.naturalWidth, i.width, i.alt != ''])"
    assert driver.execute_script(images) == [[8, 64, True]] * 8
    assert driver.execute_script("return document.querySelectorAll('h1').length") == 1


def test_the_figure_takes_the_ink_of_light_and_dark(driver: Any, tmp_path: Path) -> None:
    write_run(tmp_path, record())
    page = write_report(tmp_path).html
    inks: list[str] = []
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        load(driver, page, 1280)
        read = "return [document.querySelector('.xtick text').style.fill, getComputedStyle(document.body).color]"
        tick, text = driver.execute_script(read)
        assert tick == text
        inks.append(text)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert inks[0] != inks[1]


def test_every_section_has_its_figure(driver: Any, tmp_path: Path) -> None:
    for conflict in (0.01, 0.02):
        for method in ("erm", "pgd"):
            write_run(tmp_path, record(method, task_settings={"conflict": conflict}))
    page = write_report(tmp_path).html
    load(driver, page, 400)
    assert driver.execute_script("return document.querySelectorAll('.plot .scatterlayer .point').length") == 16
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
    assert page.read_text(encoding="utf-8").count("plotly.js v") == 1
    assert driver.get_log("browser") == []


def test_hostile_names_do_nothing_in_a_browser(driver: Any, tmp_path: Path) -> None:
    write_hostile(tmp_path)
    page = write_report(tmp_path, HOSTILE).html
    load(driver, page, 400)
    assert driver.execute_script("return window.hacked === undefined")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
    assert requests(driver) == [page.as_uri()]
    assert driver.get_log("browser") == []
    legend = driver.execute_script("return document.querySelector('.legendtext').textContent")
    assert "<script>" in legend
    assert "%{x}`<b>&amp;" in legend.replace("\xa0", " ")  # shown as the text that it is
