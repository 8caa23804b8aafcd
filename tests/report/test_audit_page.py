"""The page of an audit: its numbers are the data's, hostile data do nothing, and it works in a browser at once."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import evenhand as eh
from audit_data import audit_of, image_task, labels, scores, sentences, text_task
from browser import run_axe
from evenhand.auditing import Audit
from evenhand.report import write_audit
from evenhand.report.audit_wording import probability, share, times, visible
from evenhand.tasks import Task
from evenhand.validation import UserError

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked=2'>",
    '"><svg onload="window.hacked=3">',
    "' onmouseover='window.hacked=4",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "\u202egnirts \u2066 \u200f mixed עברית English",
    "a\0b\x07c\ud7ff",
    "x" * 100_000,
    "| pipe `tick` [link](javascript:alert(1)) <b>",
    "",
    None,
]


class Cells(HTMLParser):
    """Texts of the cells of every table, [table][row][cell], and of each `dd`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.answers: list[str] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "dd":
            self.answers.append("")
        if tag not in ("br", "img", "meta"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data
        if "dd" in self._open:
            self.answers[-1] += data


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    rng = np.random.default_rng(0)
    task = image_task(rng, 800)
    conflicting_N = np.asarray(task.train["alignment"]) == 1
    predicted_N = np.asarray(task.train["attribute"]).copy()
    predicted_N[:3] = (predicted_N[:3] + 5) % 10  # no colour says so
    score_N = scores(rng, conflicting_N)
    score_N[:3] = 1000.0
    return audit_of(task, score_N, tmp_path_factory.mktemp("audit"), predicted_N, seeds=(0, 1, 2))


def hostile_task() -> Task:
    texts = HOSTILE * 6
    label_N = np.arange(len(texts)) % 3
    return text_task(
        texts,
        label_N,
        ("<b>yes</b>", "</title><script>window.hacked=5</script>", "no\u202e"),
        id=[f"{text}"[:50] + f"#{i}" for i, text in enumerate(texts)],
        **{"<i>column": [f"<u>{i % 2}</u>" for i in range(len(texts))]},
    )


def broken_images() -> Task:
    """A task whose pictures are files as users have them: of different sizes, one broken, one empty."""
    rng = np.random.default_rng(0)
    entries: list[dict[str, Any]] = []
    for i in range(40):
        buffer = io.BytesIO()
        side = 20 + i
        Image.fromarray(rng.integers(0, 256, (side, side + 3, 3), dtype=np.uint8)).save(buffer, format="PNG")
        entries.append({"bytes": buffer.getvalue(), "path": None})
    entries[3] = {"bytes": b"no picture", "path": "<script>.png"}
    entries[4] = {"bytes": entries[4]["bytes"][:60], "path": None}
    entries[5] = {"bytes": None, "path": "/none/<img>.png"}
    split = datasets.Dataset.from_dict(
        {
            "image": entries,
            "pixel_values": np.zeros((40, 1, 2, 2), dtype=np.uint8).tolist(),
            "labels": [i % 2 for i in range(40)],
            "index": list(range(40)),
            "id": [f'"><img src=x onerror=window.hacked=6>{i}.png' for i in range(40)],
        }
    ).cast_column("image", datasets.Image(decode=False))
    split = split.cast_column("labels", datasets.ClassLabel(names=["cat", "dog"]))
    return Task("broken", "image", split, split, {"test": split}, "test")


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_numbers_on_the_page_equal_the_data(found: Audit, tmp_path: Path) -> None:
    page = eh.report(found, tmp_path / "a.html").read_text(encoding="utf-8")
    cells, content, frame = Cells(page), found.as_dict(), found.to_frame()
    shortcut, colours, _associations, tenths, agreement, known, classes = cells.tables
    finding = found.hint.findings[0]
    assert shortcut[1] == [
        "colour",
        "colour",  # its spelling
        "likely shortcut",
        "10 values, each to a class",
        share(finding.covered),
        share(finding.gain),
        f"{finding.aligned:,}",
        f"{finding.conflicting:,}",
        share(finding.auroc_conflicting),
        share(finding.auroc_aligned),
        probability(finding.p),
    ]
    assert [row[:3] for row in colours[1:]] == [[v.name, v.points_to, f"{v.count:,}"] for v in finding.values]
    by_score = frame.sort_values("rank")["score"].to_numpy()
    assert [row[1] for row in tenths[1:]] == [share(float(part.sum())) for part in np.array_split(by_score, 10)]
    assert found.agreement is not None
    assert agreement[1][1:3] == [
        f"{found.agreement.rank_correlation:.3f}",
        f"{found.agreement.lowest_rank_correlation:.3f}",
    ]
    conflicting_N = (frame.sort_values("rank")["alignment"] == "conflicting").to_numpy()
    assert known[1][4:] == [share(float(conflicting_N[:k].mean())) for k in (8, 10, int(conflicting_N.sum()), 100)]
    mass = frame.groupby("label")["score"].sum()
    assert {row[0]: row[2] for row in classes[1:]} == {name: share(float(mass[name])) for name in mass.index}
    shown = [answer for answer in cells.answers if answer.endswith("×")]
    highest = frame.sort_values("rank").iloc[:48]
    assert shown[:48] == [f"{times(value)}×" for value in highest["times_uniform"]]
    assert [s["id"] for s in content["highest"]] == highest["id"].tolist()
    assert {s["id"] for s in content["suspects"]["shown"]} == {0, 1, 2}


def test_the_shown_pictures_are_those_of_the_samples(found: Audit) -> None:
    task, shown = found.task, found.as_dict()["highest"][5]
    row = int(shown["index"])
    pixels = np.asarray(Image.open(io.BytesIO(__import__("base64").b64decode(shown["png"]))))
    assert np.array_equal(pixels.transpose(2, 0, 1), np.asarray(task.train.with_format("numpy")[row]["pixel_values"]))


def test_the_same_content_is_there_as_data(found: Audit, tmp_path: Path) -> None:
    written = write_audit(found, tmp_path / "out")
    assert [path.name for path in written] == ["audit.html", "audit.md", "audit.json", "scores.parquet", "scores.csv"]
    saved = json.loads((tmp_path / "out" / "audit.json").read_text())
    expected = json.loads(json.dumps(found.as_dict()))
    assert saved | {"made": ""} == expected | {"made": ""}
    again = eh.report(tmp_path / "out", tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    for mass in saved["decile_masses"]:
        assert f"| {share(mass)} |" in text
    assert "The audit found a likely shortcut: the colour." in text


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (times, 1234.5, "1,234"),
        (times, 12.34, "12.3"),
        (times, 0.0123, "0.012"),
        (times, 99.96, "100"),
        (share, 0.1234, "12.3 %"),
        (share, 0.00123, "0.12 %"),
        (share, 0.0, "0.0 %"),
        (share, None, "–"),
        (probability, 0.0, "< 1e-300"),
        (probability, 0.00123, "0.0012"),
        (visible, "a\0b\u202e\ud800c\nd", "a␀b⟨U+202E⟩⟨U+D800⟩c d"),
    ],
)
def test_how_numbers_and_texts_are_written(write: Any, value: Any, expected: str) -> None:
    assert write(value) == expected


# ---- calling the package --------------------------------------------------------------------------------------------


def test_functions_stay_callable_when_rooms_of_their_names_are_imported(tmp_path: Path) -> None:
    assert eh.report is sys.modules["evenhand.report"]  # hidden by the package, which this file has imported
    assert eh.report.write_audit is write_audit  # type: ignore[attr-defined]
    function = eh.__getattr__("report")  # what it is before anything imports the package
    for call, said in ((eh.report, "no folder"), (function, "no folder"), (eh.audit, "no folder")):
        with pytest.raises(UserError, match=said):
            call(tmp_path / "none")


def test_report_renders_runs_too(tiny_task: Task, tmp_path: Path) -> None:
    result = eh.fit(eh.ERM(), tiny_task, "mlp", output_dir=tmp_path / "run", epochs=1)
    page = eh.report(result, tmp_path / "pages")
    assert page == tmp_path / "pages" / "report.html"
    assert "Shortcuts on noise" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "run" / "report.html").exists()
    assert eh.report(tmp_path / "run") == tmp_path / "run" / "report.html"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        eh.report(result, tmp_path / "file" / "x.html")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "can't be read"),
        ("[]", "has format None, but"),
        ('{"format": 9}', "has format 9, but this version of evenhand reads format 2"),
        ('{"format": 2}', "isn't whole (KeyError: 'histogram')"),
    ],
)
def test_an_audit_that_can_not_be_read(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(said)):
        eh.report(tmp_path)
    assert not (tmp_path / "audit.html").exists()


# ---- hostile data ---------------------------------------------------------------------------------------------------


def hostile_pages(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    text, pictures = hostile_task(), broken_images()
    return [
        write_audit(audit_of(task, rng.random(len(task.train)) + 0.1, tmp_path / task.name))[0]
        for task in (text, pictures)
    ]


def test_hostile_data_are_shown_as_text(tmp_path: Path) -> None:
    text, pictures = hostile_pages(tmp_path)
    page = text.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;window.hacked = 1&lt;/script&gt;" in page
    assert "⟨U+202E⟩" in page
    assert "\u202e" not in page
    assert "a␀b" in page
    assert "(100,000 characters)" in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert pictures.read_text(encoding="utf-8").count("can’t be read") == 3
    text_md = text.with_name("audit.md").read_text(encoding="utf-8")
    assert "<script" not in text_md
    assert re.search(r"(?<!\\)\]\(", text_md) is None  # no link
    for line in (line for line in text_md.splitlines() if line.startswith("| ")):
        assert len(re.findall(r"(?<!\\)\|", line)) in (3, 7, 8, 11)  # no cell breaks its table


def test_hostile_entries_come_back_from_the_exports(tmp_path: Path) -> None:
    import pandas as pd

    task = hostile_task()
    found = audit_of(task, np.arange(1.0, len(task.train) + 1), tmp_path)
    kept = pd.read_parquet(found.export(tmp_path / "s.parquet"))
    assert kept["id"].tolist() == task.train["id"]


# ---- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield started
    started.quit()


def opened(driver: Any, page: Path, width: int) -> list[str]:
    """Open a page; the addresses it asked for."""
    driver.get_log("performance")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get(page.as_uri())
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [address for address in asked if not address.startswith("data:")]


def test_hostile_data_do_nothing_in_a_browser(driver: Any, tmp_path: Path) -> None:
    for page in hostile_pages(tmp_path):
        for width in (1280, 400):
            assert opened(driver, page, width) == [page.as_uri()]
            assert driver.execute_script("return window.hacked === undefined")
            assert driver.execute_script("return document.querySelectorAll('script, svg, iframe, object').length") == 0
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert driver.get_log("browser") == []


def test_the_page_fits_in_light_and_dark_at_any_width(driver: Any, found: Audit, tmp_path: Path) -> None:
    page = eh.report(found, tmp_path)
    inks = set()
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        for width in (1280, 400):
            opened(driver, page, width)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert driver.get_log("browser") == []
        inks.add(driver.execute_script("return getComputedStyle(document.body).color"))
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(inks) == 2
    loaded = "return Array.from(document.querySelectorAll('.cards img')).filter(i => i.complete && !i.naturalWidth)"
    assert driver.execute_script(loaded + ".length") == 0


def test_an_audit_of_60000_samples_is_small_and_opens(driver: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = text_task(sentences(rng, 60_000), rng.integers(0, 3, 60_000))
    found = audit_of(task, rng.lognormal(0, 2, 60_000), tmp_path, seeds=(0, 1))
    assert found.verdict.startswith("finds no shortcut")
    page = write_audit(found)[0]
    assert page.stat().st_size < 8_000_000
    opened(driver, page, 1280)
    assert labels(task).shape == (60_000,)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(driver: Any, found: Audit, tmp_path: Path, scheme: str) -> None:
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    try:
        opened(driver, eh.report(found, tmp_path), 1280)
        driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert run_axe(driver) == []
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_users_rows_are_told_by_file_row_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    texts = [f'"one\nand {i}",{"ab"[i % 2]},<b>{i}' for i in range(80)]
    name = "<i>tickets.csv"
    (tmp_path / name).write_text("\n".join(["text,label,ref", *texts]) + "\n", encoding="utf-8")
    task = eh.OwnData(data=tmp_path / name, text="text", label="label", id="ref").build(0)
    audit = audit_of(task, np.arange(1.0, 1 + len(task.train)), tmp_path / "audit")
    files = {path.name: path for path in write_audit(audit)}
    shown = json.loads(files["audit.json"].read_text())["highest"][0]
    number = int(shown["id"].removeprefix("<b>"))
    assert (shown["file"], shown["row"], shown["line"]) == (name, number + 1, 2 * number + 2)
    place = f"&lt;i&gt;tickets.csv row {number + 1} (line {2 * number + 2})"
    assert f"<dt>lies in</dt><dd><bdi>{place}</bdi></dd>" in files["audit.html"].read_text(encoding="utf-8")
    assert f"| {place} |" in files["audit.md"].read_text(encoding="utf-8")
    for table in (pd.read_csv(files["scores.csv"]), pd.read_parquet(files["scores.parquet"])):
        numbers = table["id"].str.removeprefix("<b>").astype(int)
        assert table["row"].tolist() == (numbers + 1).tolist()
        assert table["line"].tolist() == (2 * numbers + 2).tolist()
