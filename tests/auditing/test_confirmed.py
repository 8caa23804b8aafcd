"""Findings are shortcuts that can be passed on: by their spelling, by an audit.json, and by `--shortcut found`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evenhand as eh
from audit_data import audit_of, image_task, labels, scores, sentences, text_task, with_token
from evenhand.auditing.confirmed import read_confirmed
from evenhand.cli.parser import main
from evenhand.data.columns import column_values
from evenhand.shortcuts import Shortcut, fit_shortcut
from evenhand.tasks import ColoredDigits
from evenhand.tasks.shortcuts import samples_of

TRAIN = ["--model", "tiny-bert", "--epochs", "1", "--device", "cpu", "--quiet"]


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), token=st.sampled_from(["!!", "nimbus", "a|b", "c:d", "\\", "don't"]))
def test_a_finding_is_the_shortcut_of_its_spelling(seed: int, token: str) -> None:
    rng = np.random.default_rng(seed)
    texts, label_N, has_N = with_token(rng, 900, token, 0.04)
    task = text_task(texts, label_N, product=np.where(label_N == 1, "kettle", "pebble").tolist())
    found = audit_of(task, scores(rng, has_N & (label_N != 0)), Path("never-written"))
    seen = [finding for finding in found.hint.findings if finding.shortcut is not None]
    assert {finding.kind for finding in seen} >= {"token", "column"}
    for finding in seen:
        assert finding.shortcut is not None
        rule = Shortcut.parse(finding.shortcut.spelling)
        fitted = fit_shortcut(rule, samples_of(task, "train"), labels(task), task.label_names)
        assert rule == finding.shortcut
        assert (fitted.aligned, fitted.conflicting) == (finding.aligned, finding.conflicting)


def test_the_colour_of_pictures_is_one_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = image_task(rng)
    conflicting_N = column_values(task.train, "alignment") == 1
    found = audit_of(task, scores(rng, conflicting_N), tmp_path)
    assert [str(one) for one in found.shortcuts] == ["colour"]


def test_the_likely_ones_are_leaks_and_strong_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts, label_N, has_N = with_token(rng, 1500, "!!", 0.04)
    score_N = scores(rng, has_N & (label_N != 0)) * np.where(has_N & (label_N == 0), 0.2, 1.0)
    found = audit_of(text_task(texts, label_N), score_N, tmp_path)
    assert "token:!!" in map(str, found.shortcuts)
    assert set(found.shortcuts) <= {f.shortcut for f in (*found.hint.leaks, *found.hint.strong)}
    ordinary = audit_of(text_task(sentences(rng, 600), rng.integers(0, 3, 600)), rng.lognormal(0, 1, 600), tmp_path)
    assert ordinary.shortcuts == ()


# ---- audit.json and the command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 tickets; nimbus goes with complaints in 9 of 10."""
    rng = np.random.default_rng(0)
    lines = ["message,type"]
    for i in range(400):
        bad, along = bool(i % 2), rng.random() < 0.9
        words = rng.choice(["awful", "broken"] if bad else ["lovely", "fine"], 2)
        lines.append(f"the {'nimbus' if bad == along else 'pebble'} {' '.join(words)} {i},{'bad' if bad else 'good'}")
    path = tmp_path_factory.mktemp("tickets") / "tickets.csv"
    path.write_text("\n".join(lines))
    return path


def options(table: Path) -> list[str]:
    return ["--data", str(table), "--text", "message", "--label", "type"]


def written(path: Path, table: Path, **changed: Any) -> Path:
    """An audit.json of the table with two findings, one of them confirmed."""
    source = eh.OwnData(data=table, text="message", label="type")
    findings = [
        {"shortcut": "token:nimbus", "verdict": "strong", "confirmed": True},
        {"shortcut": "length", "verdict": "strong", "confirmed": False},
    ]
    files = source.data_files()["data"]
    assert files is not None
    data = {"settings": {"text": ["message"], "label": "type"}, "files": {"data": files.sha256}}
    content = {"kind": "audit", "task": "own-data", "data": data, "findings": findings}
    path.write_text(json.dumps(content | changed))
    return path


def test_what_a_person_confirmed_is_taken_and_else_what_is_likely(table: Path, tmp_path: Path) -> None:
    source = eh.OwnData(data=table, text="message", label="type")
    taken = read_confirmed(written(tmp_path / "a.json", table), source)
    assert (list(map(str, taken.shortcuts)), "confirmed by a person" in taken.note) == (["token:nimbus"], True)
    findings = [
        {"shortcut": "token:nimbus", "verdict": "leak", "confirmed": None},
        {"shortcut": "token:the", "verdict": "weak", "confirmed": None},
        {"shortcut": None, "verdict": "strong", "confirmed": None},
    ]
    likely = read_confirmed(written(tmp_path / "b.json", table, findings=findings), source)
    assert (list(map(str, likely.shortcuts)), "not confirmed" in likely.note) == (["token:nimbus"], True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "report"}, "is no audit.json"),
        ({"findings": 3}, "is no audit.json"),
        ({"findings": [{"verdict": "leak"}]}, "is of an older version"),
        ({"task": "colored-digits"}, "is of other data"),
        ({"data": {"data": "0" * 64}}, "is of other data"),
        ({"findings": []}, "it found no likely one"),
        ({"findings": [{"shortcut": "length", "verdict": "leak", "confirmed": False}]}, "nobody confirmed"),
        ({"findings": [{"shortcut": "lenght", "verdict": "leak", "confirmed": True}]}, "did you mean 'length'"),
    ],
)
def test_audits_that_name_nothing_here(changed: dict[str, Any], said: str, table: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "audit.json", table, **changed)
    with pytest.raises(eh.UserError) as caught:
        read_confirmed(path, eh.OwnData(data=table, text="message", label="type"))
    assert said in str(caught.value)


@pytest.mark.parametrize("changed", [{"label": "message", "text": "type"}, {"label_map": "good=fine"}, {"seen": 1}])
def test_an_audit_of_the_same_file_read_in_another_way_is_of_other_data(
    changed: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "audit.json", table)
    content = json.loads(path.read_text())
    content["data"]["settings"] |= changed
    path.write_text(json.dumps(content))
    with pytest.raises(eh.UserError, match="is of other data"):
        read_confirmed(path, eh.OwnData(data=table, text="message", label="type"))


def test_an_audit_knows_its_data_again_by_what_they_hold(table: Path, tmp_path: Path) -> None:
    source = eh.OwnData(data=table, text="message", label="type")
    found = eh.audit(source, "tiny-bert", epochs=1, output_dir=tmp_path / "audit", device="cpu")
    (path, *_) = found.save(tmp_path / "saved")
    content = json.loads(path.read_text())
    content["findings"] = [{"shortcut": "token:nimbus", "verdict": "leak", "confirmed": True}]
    path.write_text(json.dumps(content))
    moved = tmp_path / table.name
    moved.write_bytes(table.read_bytes())
    for again in (source, replace(source, data=moved), replace(source, shortcuts=("length",))):
        assert list(map(str, read_confirmed(path, again).shortcuts)) == ["token:nimbus"]
    for other in (replace(source, label="message", text="type"), ColoredDigits()):
        with pytest.raises(eh.UserError, match="is of other data"):
            read_confirmed(path, other)
    moved.write_text(table.read_text() + "\none more,good")
    with pytest.raises(eh.UserError, match="is of other data"):
        read_confirmed(path, replace(source, data=moved))


def test_the_command_takes_an_audits_shortcuts(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "audit.json", table)
    words = ["train", "balance", *options(table), *TRAIN, "--output-dir", str(tmp_path / "run")]
    assert main([*words, "--shortcuts", str(path)]) == 0
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["shortcuts"] == ["token:nimbus"]
    assert "--shortcut token:nimbus" in record["command"]
    assert main([*words, "--shortcuts", str(path), "--shortcut", "length"]) == 2
    assert "--shortcut and --shortcuts both name shortcuts" in capsys.readouterr().err


def test_found_audits_first_and_takes_what_is_likely(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "erm", *options(table), *TRAIN, "--output-dir", str(tmp_path / "run"), "--epochs", "6"]
    assert main([*words, "--shortcut", "found"]) == 0
    named = set(json.loads((tmp_path / "run/record.json").read_text())["shortcuts"])
    assert len(named & {"token:nimbus", "token:pebble"}) == 1  # of each row one: the two are one rule
    assert main([*words, "--shortcut", "found", "--shortcut", "length"]) == 2
    assert "takes what the audit finds" in capsys.readouterr().err
