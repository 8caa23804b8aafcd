"""The page as a person meets it: costs, groups, curves, sweeps, sorting, hostile data, many cells, accessibility."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from browser import driver, load, requests, run_axe
from evenhand.metrics import summarize
from evenhand.report import write_report
from report_reading import Cells, lede
from report_records import curve, metrics, record, samples, write_many, write_run, write_study

__all__ = ["driver"]  # a fixture


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def figure(page: str, anchor: str) -> dict[str, Any]:
    """The JSON of a picture on the page."""
    found = re.search(rf'id="{anchor}-data">(.*?)</script>', page)
    assert found is not None, anchor
    return json.loads(found[1])


def write_costs(folder: Path) -> None:
    for method, seconds, size in (("erm", (10.0, 12.0), 400), ("pgd", (25.0, 30.0), 500)):
        for seed in range(2):
            entry = record(method, seed, 0.95, 0.4 if method == "erm" else 0.8 + seed / 50)
            entry["durations"]["total_s"] = seconds[seed]
            entry["memory"] = {"only": {"bytes": size * 10**6, "of": "process", "exact": True}}
            entry["stages"] = [{"name": "biased"}, {"name": "debiased", "curve": curve(0.4 + seed / 10)}]
            write_run(folder, entry)


def test_costs_are_those_of_the_records_and_the_headline_says_them(tmp_path: Path) -> None:
    write_costs(tmp_path)
    files = write_report(tmp_path)
    cells = Cells(files.html.read_text(encoding="utf-8"))
    assert cells.tables[1][0][1:] == ["Time a run", "± std", "Time vs. ERM", "Peak memory", "Memory vs. ERM"]
    assert cells.tables[1][1] == ["ERM", "11.0 s", "1.4 s", "1.0×", "400 MB", "1.0×"]
    assert cells.tables[1][2] == ["PGD", "27.5 s", "3.5 s", "2.5×", "500 MB", "1.2×"]
    assert lede(cells).endswith("A run of PGD takes 2.5 times as long as one of ERM.")
    assert float(rows_of(files.cost_csv)[1]["times_erm"]) == 27.5 / 11


def test_a_run_that_waited_for_other_programs_does_not_make_a_method_look_cheap(tmp_path: Path) -> None:
    for method, seconds in (("erm", (300.0, 10.0, 12.0)), ("pgd", (20.0, 21.0, 24.0))):
        for seed in range(3):
            entry = record(method, seed, 0.95, 0.4)
            entry["durations"]["total_s"] = seconds[seed]
            write_run(tmp_path, entry)
    assert lede(Cells(write_report(tmp_path).html.read_text(encoding="utf-8"))).endswith(
        "takes 2.0 times as long as one of ERM."
    )


def test_a_peak_that_is_only_a_bound_says_so_and_gives_no_ratio(tmp_path: Path) -> None:
    write_run(tmp_path, record("erm"))
    bound = {"bytes": 700_000_000, "of": "process", "exact": False}
    write_run(tmp_path, record("pgd", memory={"biased": None, "debiased": bound}))
    assert Cells(write_report(tmp_path).html.read_text(encoding="utf-8")).tables[1][2][4:] == ["≤ 700 MB", "–"]


def test_records_without_the_newer_keys_are_shown(tmp_path: Path) -> None:
    old = record()
    del old["memory"], old["durations"], old["stages"]
    write_run(tmp_path, old)
    page = write_report(tmp_path).html.read_text(encoding="utf-8")
    assert "99.0" in page
    assert "Peak memory" not in page
    assert "Training curves" not in page


@pytest.mark.parametrize(
    "damaged", [3, [3], {"epoch": 3}, {"epoch": [1], "conflicting": ["x"]}, {"epoch": [float("nan")]}]
)
def test_damaged_optional_parts_are_left_out(damaged: Any, tmp_path: Path) -> None:
    stages = [{"name": "only", "curve": damaged}]
    write_run(tmp_path, record(stages=stages, memory=damaged, durations={"total_s": "long"}))
    files = write_report(tmp_path)
    assert "section-1-curves" not in files.html.read_text(encoding="utf-8")
    assert rows_of(files.curves_csv) == []


def test_curves_are_means_over_seeds_of_the_last_stage(tmp_path: Path) -> None:
    write_costs(tmp_path)
    files = write_report(tmp_path)
    page = files.html.read_text(encoding="utf-8")
    conflicting = figure(page, "section-1-curves-0")
    assert [line["name"] for line in conflicting["data"]] == ["ERM", "PGD"]
    assert conflicting["data"][0]["x"] == [1, 2, 3, 4]
    expected = [100 * (a + b) / 2 for a, b in zip(curve(0.4)["conflicting"], curve(0.5)["conflicting"], strict=True)]
    assert conflicting["data"][0]["y"] == pytest.approx(expected)
    assert figure(page, "section-1-curves-2")["data"][0]["y"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])  # loss
    assert "200 rows of the validation split" in page
    last = [row for row in rows_of(files.curves_csv) if row["series"] == "group: 1 conflicting" and row["epoch"] == "4"]
    assert [(row["label"], row["seed"], float(row["value"])) for row in last[:2]] == [
        ("ERM", "0", 0.4),
        ("ERM", "1", 0.5),
    ]


def test_sweeps_along_settings_of_methods_and_tasks(tmp_path: Path) -> None:
    shares = (0.005, 0.01, 0.05)
    for share in shares:
        for seed in range(2):
            for alpha in (0.0, 0.5, 1.0):
                entry = record("edge", seed, 0.9, 0.3 + share + alpha / 10 + seed / 50, settings={"alpha": alpha})
                entry["task"]["settings"] = {"conflict": share}
                write_run(tmp_path, entry | {"cell": f"{share} {alpha}"})
            write_run(tmp_path, record("erm", seed, 0.9, 0.2 + share, task_settings={"conflict": share}))
    files = write_report(tmp_path)
    page = files.html.read_text(encoding="utf-8")
    found = {
        chart["layout"]["xaxis"]["title"]["text"]: chart
        for chart in (figure(page, f"sweep-{i}") for i in range(page.count('id="sweep-') // 2))
    }
    assert set(found) == {"alpha (method)", "conflict (task)"}
    along = found["conflict (task)"]
    assert along["layout"]["xaxis"]["type"] == "log"
    assert "type" not in found["alpha (method)"]["layout"]["xaxis"]  # 0 has no logarithm
    erm = next(line for line in along["data"] if line["name"] == "ERM")
    assert erm["x"] == list(shares)
    assert erm["y"] == pytest.approx([20.5, 21.0, 25.0])
    assert len(along["data"]) == 4
    assert len(found["alpha (method)"]["data"]) == 3
    rows = [row for row in rows_of(files.sweeps_csv) if row["setting"] == "method.alpha"]
    assert len(rows) == 9
    values = [0.3 + 0.005 + 0.05 + seed / 50 for seed in range(2)]
    first = next(row for row in rows if row["value"] == "0.5" and "0.005" in row["line"])
    assert float(first["mean"]) == pytest.approx(summarize(values).mean)


def test_two_values_make_no_sweep(tmp_path: Path) -> None:
    for alpha in (0.5, 1.0):
        write_run(tmp_path, record("edge", settings={"alpha": alpha}))
    assert "Along a setting" not in write_report(tmp_path).html.read_text(encoding="utf-8")


def test_json_holds_the_numbers_of_the_page_at_full_precision(tmp_path: Path) -> None:
    made = write_study(tmp_path)
    write_run(tmp_path, record("lff", status="failed", error="out of memory"))
    files = write_report(tmp_path)
    (section,) = json.loads(files.json.read_text(encoding="utf-8"))["sections"]
    page = Cells(files.html.read_text(encoding="utf-8"))
    assert section["headline"] == lede(page)
    printed = {row[0]: row for row in page.tables[0][1:]}
    for method in section["methods"]:
        mine = [m for m in made if m["method"]["title"] == method["label"]]
        if not mine:
            assert (method["label"], method["runs"][0]["error"]) == ("LFF", "out of memory")
            continue
        found = method["metrics"]["conflicting"]
        assert found["mean"] == summarize([m["metrics"]["conflicting"] for m in mine]).mean
        assert printed[method["label"]][4] == f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f}"
        assert [run["tests"]["test"]["aligned"] for run in method["runs"]] == [m["metrics"]["aligned"] for m in mine]
    assert section["settings"]["Seeds"] == ["0, 1, 2; the data are drawn by the same seed"]


def test_only_what_is_the_same_on_every_repeat_goes_beside_the_results(tmp_path: Path) -> None:
    write_costs(tmp_path)
    files = write_report(tmp_path, page=False)
    assert not files.html.exists()
    assert not files.json.exists()
    assert not files.cost_csv.exists()
    assert files.groups_csv.exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (((0.99, 0.30),), "ERM took the shortcut: it gets 99.0% of the aligned test samples right, but only 30.0%"),
        (((0.99, 0.30),), "(one seed, so there is no interval)"),
        (((0.99, 0.30), (0.95, 0.80)), "ERM seems to take the shortcut, but 2 seeds can't settle it"),
        (((0.99, 0.95), (0.97, 0.96)), "no clear shortcut, though one can't be ruled out"),
        (((0.97, 0.95),), "shows no clear shortcut: it gets 97.0% of the aligned and 95.0% of the conflicting"),
    ],
)
def test_headline_says_how_sure_it_is(values: Any, expected: str, tmp_path: Path) -> None:
    for seed, (aligned, conflicting) in enumerate(values):
        write_run(tmp_path, record(seed=seed, aligned=aligned, conflicting=conflicting))
    assert expected in lede(Cells(write_report(tmp_path).html.read_text(encoding="utf-8")))


# ---------------------------------------------------------------- in a browser

CORPUS = (
    "<script>window.hacked=1</script>",
    "</script></style></title><img src=x onerror=window.hacked=1>",
    '"><svg onload=window.hacked=1>',
    "' onmouseover='window.hacked=1",
    "{{ 7 * 7 }} {% raw %} ${window.hacked=1}",
    "javascript:window.hacked=1",
    "\u202eturned\u202c \u2066around\u2069 \u200fmark",
    "null \x00 and bell \x07 and half a pair \ud83d",
    "<!-- --!> ]]> &lt;b&gt; &amp;amp;",
    "x" * 100_000,
    "",
)


def test_a_corpus_of_hostile_texts_runs_nothing(driver: Any, tmp_path: Path) -> None:
    for i, text in enumerate(CORPUS):
        entry = record("erm" if i == 0 else f"m{i}", title=text, settings={"q": text, text: [text]}, command=text)
        entry["metrics"] = metrics(0.9, 0.4) | {"by_group": {text: 0.5}}
        entry["tests"] = {"test": entry["metrics"], text: entry["metrics"]}
        entry |= {"versions": {text: text}, "selection": text, "label_access": text, "notes": [text]}
        entry["stages"] = [{"name": text, "steps": 3, "curve": curve(0.4) | {"by_group": {text: [0.1, 0.2, 0.3, 0.4]}}}]
        shown = samples(text, text=text, label=text, attribute=text, alignment="conflicting")
        shown["samples"] = shown["samples"][:3]
        shown["samples"][0]["png"] = text
        shown["samples"][1]["png"] = shown["samples"][1]["png"][:40]  # cut off
        write_run(tmp_path, entry, shown)
        write_run(tmp_path, record(f"f{i}", title=text, status="failed", error=text))
    files = write_report(tmp_path, CORPUS[0])
    assert files.html.stat().st_size < 8_000_000
    load(driver, files.html, 400)
    driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    driver.execute_script("document.querySelectorAll('.sort').forEach(b => b.click())")
    assert driver.execute_script("return window.hacked === undefined")
    assert (
        driver.execute_script("return document.querySelectorAll('svg[onload], [onerror], [onmouseover]').length") == 0
    )
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
    assert requests(driver) == [files.html.as_uri()]
    assert driver.get_log("browser") == []
    driver.execute_script("document.querySelectorAll('script').forEach(s => s.remove())")
    text = driver.execute_script("return document.querySelector('main').textContent")
    assert CORPUS[1] in text
    assert "(100,000 characters)" in text
    assert not re.search("[\x00\x07\u202a-\u202e\u2066-\u2069]", text)
    broken = "return [...document.images].filter(i => !i.naturalWidth).length"
    assert driver.execute_script(broken) == 0
    assert driver.execute_script("return document.querySelectorAll('.placeholder').length") > 0


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    write_many(folder)
    return write_report(folder).html


def test_a_study_of_200_cells_is_small_and_opens(driver: Any, many: Path) -> None:
    assert many.stat().st_size < 8_000_000
    driver.get(many.as_uri())
    assert driver.get_log("browser") == []
    assert driver.execute_script("return document.querySelectorAll('table.methods > tbody').length") == 200


def test_tables_are_sorted_by_keyboard(driver: Any, many: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    driver.get(many.as_uri())
    heads = driver.find_elements("css selector", "table.methods .sort")
    read = """return [...document.querySelectorAll('table.methods > tbody')].map(
        b => b.rows[0].cells.length > 3 ? parseFloat(b.rows[0].cells[4].textContent) : null)"""
    heads[4].send_keys(Keys.ENTER)
    column = driver.execute_script(read)
    numbers = [value for value in column if value is not None]
    assert len(numbers) > 150
    assert numbers == sorted(numbers, reverse=True)
    assert None not in column[: len(numbers)]  # what is missing comes last
    assert heads[4].find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    heads[4].send_keys(Keys.SPACE)
    numbers = [value for value in driver.execute_script(read) if value is not None]
    assert numbers == sorted(numbers)
    assert driver.execute_script("return document.querySelectorAll('table.methods [aria-sort]').length") == 1


def test_durations_are_sorted_by_what_they_are(driver: Any, tmp_path: Path) -> None:
    for i, seconds in enumerate((90.0, 200.0, 5.0)):
        write_run(tmp_path, record(f"m{i}", durations={"total_s": seconds}))
    driver.get(write_report(tmp_path).html.as_uri())
    driver.execute_script("document.querySelectorAll('table')[1].querySelectorAll('.sort')[1].click()")
    read = "return [...document.querySelectorAll('table')[1].tBodies[0].rows].map(r => r.cells[1].textContent)"
    assert driver.execute_script(read) == ["3 min 20 s", "90.0 s", "5.0 s"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(driver: Any, tmp_path: Path, scheme: str) -> None:
    write_study(tmp_path)
    write_costs(tmp_path)
    for conflict in (0.05, 0.1, 0.2):
        write_run(tmp_path, record("erm", 5, task_settings={"conflict": conflict}))
    write_run(tmp_path, record("lff", status="failed", error="out of memory"))
    page = write_report(tmp_path).html
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    try:
        load(driver, page, 1280)
        driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert run_axe(driver) == []
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
