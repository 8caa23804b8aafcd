"""Finished runs as lines: parts, several lines on one run, damage, old folders, and what two machines have added."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evenhand as eh
from evenhand.auditing.records import find_runs
from evenhand.report import write_report
from evenhand.report.samples import read_samples
from evenhand.runs import ledger
from evenhand.runs.ledger import add_lines, convert, runs_below, runs_of_study
from evenhand.runs.read import find_records
from report_records import record, samples, write_run

ROOT = Path(__file__).parents[2]


def made(name: str, status: str = "done", **changes: Any) -> dict[str, Any]:
    return record(status=status, configuration=name, **changes)


def statuses(folder: Path) -> dict[str, str]:
    return {run.raw["configuration"]: run.raw["status"] for run in runs_of_study(folder)}


def lines(folder: Path, kind: str = "runs") -> dict[str, list[str]]:
    """The hashes in each part."""
    return {
        path.name: [json.loads(line)["configuration"] for line in path.read_text().splitlines()]
        for path in sorted(folder.glob(f"{kind}*.jsonl"))
    }


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Parts that hold three runs each."""
    size = 4 * len(json.dumps(made("a"), separators=(",", ":")))
    monkeypatch.setattr(ledger, "FULL", size)
    return size


def test_a_line_holds_all_that_is_read_of_a_run(tmp_path: Path) -> None:
    whole = made(
        "b", labels=["0"], kind="image", loader="evenhand", stages=[{"name": "erm", "losses": [1.0], "steps": 9}]
    )
    failed = made("a", "failed", error="why")
    add_lines(tmp_path, [whole, failed], {"b": samples(), "a": {"samples": []}})
    kept = {key: value for key, value in whole.items() if key not in ("kind", "loader")}
    kept["stages"] = [{"name": "erm", "steps": 9}]
    assert [run.raw for run in runs_of_study(tmp_path)] == [failed, kept]
    assert "metrics" not in json.loads(
        (tmp_path / "runs.jsonl").read_text().splitlines()[1]
    )  # those of the test "test"
    assert lines(tmp_path, "samples") == {"samples.jsonl": ["b"]}
    other = made("c", metrics=whole["metrics"] | {"average": 0.5})
    add_lines(tmp_path, [other], {})
    assert runs_of_study(tmp_path)[2].raw["metrics"]["average"] == 0.5


def test_every_reader_finds_lines_and_folders_alike(tmp_path: Path) -> None:
    for folder in ("new", "old"):
        (tmp_path / folder).mkdir()
    entries = [made(f"run-{i:02d}", method=method) for i, method in enumerate(("erm", "pgd", "edge"))]
    for entry in entries:
        write_run(tmp_path / "old", entry, samples())
    add_lines(tmp_path / "new", entries, {entry["configuration"]: samples() for entry in entries})
    old, new = (find_records(tmp_path / folder) for folder in ("old", "new"))
    assert [run.path.relative_to(tmp_path / "old") for run in old] == [
        r.path.relative_to(tmp_path / "new") for r in new
    ]
    assert [run.metrics for run in old] == [run.metrics for run in new]
    assert [read_samples(run) for run in old] == [read_samples(run) for run in new]
    assert [run.record.raw for run in find_runs(tmp_path / "old")] == [
        run.record.raw for run in find_runs(tmp_path / "new")
    ]
    pages = [write_report(tmp_path / folder).html.read_text() for folder in ("old", "new")]
    assert pages[0] == pages[1]
    shutil.rmtree(tmp_path / "old/tables")
    for path in (tmp_path / "new/tables").iterdir():
        assert path.read_bytes()
    assert len(runs_below(tmp_path)) == 6


def test_a_wrong_value_is_told_with_its_line(tmp_path: Path) -> None:
    add_lines(tmp_path, [made("a"), made("b", seed="x")], {"a": {"samples": [{"index": "x"}]}})
    with pytest.raises(eh.UserError) as caught:
        find_records(tmp_path)
    assert str(caught.value).startswith(f"'seed' in {tmp_path / 'runs.jsonl'}, line 2 must be an integer")
    with pytest.raises(eh.UserError, match=r"'seed' in .*runs\.jsonl, line 2 must be an integer"):
        find_runs(tmp_path)
    add_lines(tmp_path, [made("b")], {})
    with pytest.raises(eh.UserError, match=r"'samples.0.index' in .*samples\.jsonl, line 1 must be an integer"):
        read_samples(find_records(tmp_path)[0])


# ---- several lines on one run ---------------------------------------------------------------------------------------


def test_done_wins_over_failed_whatever_the_order(tmp_path: Path) -> None:
    add_lines(tmp_path, [made("a", "failed", error="first")], {})
    failed = (tmp_path / "runs.jsonl").read_text()
    add_lines(tmp_path, [made("a", "failed", error="second")], {})
    assert runs_of_study(tmp_path)[0].raw["error"] == "second"
    add_lines(tmp_path, [made("a")], {})
    done = (tmp_path / "runs.jsonl").read_text()
    add_lines(tmp_path, [made("a", "failed", error="third")], {})
    assert (tmp_path / "runs.jsonl").read_text() == done
    for text in (failed + done, done + failed, "\n" + done + failed + done.rstrip("\n")):
        (tmp_path / "runs.jsonl").write_text(text)
        assert statuses(tmp_path) == {"a": "done"}
        add_lines(tmp_path, [], {})
        assert (tmp_path / "runs.jsonl").read_text() == done
    (tmp_path / "runs.jsonl").write_text(failed)
    (tmp_path / "runs-2.jsonl").write_text(done)
    assert statuses(tmp_path) == {"a": "done"}


def test_of_two_equals_the_same_one_counts_in_any_order(tmp_path: Path) -> None:
    texts = []
    for seconds in (1.0, 2.0):
        add_lines(tmp_path, [made("a", durations={"total_s": seconds})], {})
        texts.append((tmp_path / "runs.jsonl").read_text())
    found = []
    for text in ("".join(texts), "".join(reversed(texts))):
        (tmp_path / "runs.jsonl").write_text(text)
        found.append([run.raw for run in runs_of_study(tmp_path)])
    assert found[0] == found[1]


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_parts_stay_small_and_a_new_run_changes_one(small: int, tmp_path: Path) -> None:
    for i in range(12):
        add_lines(tmp_path, [made(f"r{i * 7 % 12:02d}")], {})
        before = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
        add_lines(tmp_path, [made(f"r{i * 7 % 12:02d}")], {})
        assert before == {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    assert len(lines(tmp_path)) > 2
    assert all(path.stat().st_size <= small for path in tmp_path.glob("*.jsonl"))
    assert all(names == sorted(names) for names in lines(tmp_path).values())
    assert list(statuses(tmp_path)) == [f"r{i:02d}" for i in range(12)]
    before = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    add_lines(tmp_path, [made("r99")], {})
    assert sum(before.get(path) != path.read_bytes() for path in tmp_path.glob("*.jsonl")) == 1


def test_a_part_that_a_merge_has_overfilled_is_parted_again(small: int, tmp_path: Path) -> None:
    whole = []
    for i in range(9):
        (tmp_path / f"{i}").mkdir()
        add_lines(tmp_path / f"{i}", [made(f"r{i}")], {})
        whole.append((tmp_path / f"{i}" / "runs.jsonl").read_text())
    (tmp_path / "runs.jsonl").write_text("".join(whole))
    assert len(statuses(tmp_path)) == 9
    add_lines(tmp_path, [], {})
    assert all(path.stat().st_size <= small for path in tmp_path.glob("*.jsonl"))
    assert len(statuses(tmp_path)) == 9


def test_a_run_larger_than_a_part_has_one_of_its_own(small: int, tmp_path: Path) -> None:
    large = made("m", notes=["x" * small])
    for _ in range(2):
        add_lines(tmp_path, [made("a"), large, made("z")], {})
        assert [len(names) for names in lines(tmp_path).values()].count(1) == 1
        assert len(lines(tmp_path)) == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(0, 4000)), max_size=6), max_size=8))
def test_whatever_is_added_in_whatever_steps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[int, bool, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    wanted: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledger, "FULL", 8000)
        for step in steps:
            entries = {f"r{i}": made(f"r{i}", "done" if ok else "failed", notes=["x" * n]) for i, ok, n in step}
            add_lines(folder, list(entries.values()), {})
            wanted |= {k: e["status"] for k, e in entries.items() if "done" in (e["status"], wanted.get(k, "done"))}
            wanted |= {k: "done" for k, status in wanted.items() if status == "done"}
            found = statuses(folder)
            assert found == {name: found[name] for name in sorted(wanted)}
            assert all(found[name] == "done" for name, status in wanted.items() if status == "done")
            assert all(path.stat().st_size <= 8000 for path in folder.glob("*.jsonl"))
            assert sum(map(len, lines(folder).values())) == len(wanted)  # no run twice


@pytest.mark.parametrize("stops_after", range(4))
def test_a_kill_between_two_parts_loses_no_run(
    small: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_after: int
) -> None:
    whole = []
    for i in range(9):
        (tmp_path / f"{i}").mkdir()
        add_lines(tmp_path / f"{i}", [made(f"r{i}")], {})
        whole.append((tmp_path / f"{i}" / "runs.jsonl").read_text())
    (tmp_path / "runs.jsonl").write_text("".join(whole[:5]))
    (tmp_path / "runs-2.jsonl").write_text("".join(whole[5:]))
    left = [stops_after]
    real = ledger.write_text

    def write_text(path: Path, text: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, text)

    monkeypatch.setattr(ledger, "write_text", write_text)
    try:
        add_lines(tmp_path, [made("r9")], {})
    except KeyboardInterrupt:
        assert stops_after < 3
    assert set(statuses(tmp_path)) >= {f"r{i}" for i in range(9)}
    monkeypatch.setattr(ledger, "write_text", real)
    add_lines(tmp_path, [made("r9")], {})
    assert sorted(name for names in lines(tmp_path).values() for name in names) == [f"r{i}" for i in range(10)]


# ---- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[:-100], "line 3 is half-written"),
        (lambda text: f"<<<<<<< HEAD\n{text}=======\n>>>>>>> other\n", "line 1 is half-written, a mark of a merge"),
        (lambda text: text + "[1]\n", "line 4 doesn't name its run by the key 'configuration'"),
        (lambda text: text + '{"status": "done"}\n', "line 4 doesn't name its run"),
        (lambda text: text + '{"configuration": "../../etc"}\n', "line 4 doesn't name its run"),
        (lambda text: text + "[" * 100_000 + "\n", "line 4 is half-written"),
    ],
)
def test_a_damaged_line_is_told_in_one_sentence_and_nothing_is_written(tmp_path: Path, spoil: Any, said: str) -> None:
    add_lines(tmp_path, [made(name) for name in "abc"], {})
    path = tmp_path / "runs.jsonl"
    path.write_text(spoil(path.read_text()))
    spoiled = path.read_bytes()
    for use in (find_records, find_runs, lambda folder: add_lines(folder, [made("d")], {})):
        with pytest.raises(eh.UserError) as caught:
            use(tmp_path)
        assert str(caught.value).startswith(f"{path}, {said}")
        assert str(caught.value).endswith("; delete the line or repeat its run.")
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == spoiled


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(eh.UserError, match=r"runs\.jsonl can't be read \('utf-8' codec"):
        find_records(tmp_path)


# ---- folders of earlier versions ------------------------------------------------------------------------------------


def test_folders_become_lines_and_others_stay(tmp_path: Path) -> None:
    for i in range(3):
        write_run(tmp_path, made(f"run-{i:02d}"), samples() if i < 2 else {"samples": []})
    (tmp_path / "run-00" / ".record.json.partial").write_text("{")
    (tmp_path / "run-02" / "model").mkdir()  # what somebody keeps here
    before = [(run.raw["configuration"], run.raw["metrics"]) for run in runs_below(tmp_path)]
    convert(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"runs.jsonl", "samples.jsonl", "run-02", ".lock"}
    assert lines(tmp_path) == {"runs.jsonl": ["run-00", "run-01"]}
    assert lines(tmp_path, "samples") == {"samples.jsonl": ["run-00", "run-01"]}
    assert [(run.raw["configuration"], run.raw["metrics"]) for run in runs_below(tmp_path)] == before
    convert(tmp_path)
    assert len(runs_below(tmp_path)) == 3


def test_a_folder_does_not_undo_a_line_that_is_done(tmp_path: Path) -> None:
    add_lines(tmp_path, [made("run-00")], {})
    write_run(tmp_path, made("run-00", "failed", error="before"))
    assert statuses(tmp_path) == {"run-00": "done"}
    convert(tmp_path)
    assert statuses(tmp_path) == {"run-00": "done"}
    assert not (tmp_path / "run-00").exists()


# ---- several writers ------------------------------------------------------------------------------------------------


ADD = """
import sys
from pathlib import Path
from evenhand.runs.ledger import add_lines
for i in map(int, sys.argv[2:]):
    add_lines(Path(sys.argv[1]), [{"configuration": f"r{i:02d}"}], {f"r{i:02d}": {"samples": [{"index": i}]}})
"""


def test_processes_that_add_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    numbers = [str(i) for i in range(12, 36)]
    other = subprocess.Popen([sys.executable, "-c", ADD, str(tmp_path), *numbers])
    while not (tmp_path / "runs.jsonl").exists() and other.poll() is None:  # it imports for some seconds first
        time.sleep(0.01)
    for i in range(12):
        add_lines(tmp_path, [made(f"r{i:02d}")], {f"r{i:02d}": {"samples": [{"index": i}]}})
    assert other.wait() == 0
    assert lines(tmp_path) == {"runs.jsonl": [f"r{i:02d}" for i in range(36)]}
    assert lines(tmp_path, "samples") == {"samples.jsonl": [f"r{i:02d}" for i in range(36)]}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("size", [950_000, 8_000])
def test_git_merges_what_two_machines_have_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(ledger, "FULL", size)

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    folder = tmp_path / "results" / "x"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / ".gitattributes", tmp_path / ".gitattributes")
    git("init", "-q", "-b", "main")
    add_lines(folder, [made(f"r{i:02d}", "failed", error="x") for i in range(0, 20, 4)], {})
    for branch, numbers in (("a", range(0, 40, 2)), ("b", range(0, 40, 3))):
        git("add", "results/x/*.jsonl", ".gitattributes")
        git("commit", "-q", "--allow-empty", "-m", branch)
        if branch == "a":
            git("branch", "b")
        else:
            git("checkout", "-q", "b")
        add_lines(folder, [made(f"r{i:02d}", durations={"total_s": float(i), "by": branch}) for i in numbers], {})
    git("add", "results/x/*.jsonl")
    git("commit", "-q", "-m", "b's runs")
    git("merge", "-q", "main", "-m", "both")
    expected = sorted({*range(0, 40, 2), *range(0, 40, 3)})
    assert statuses(folder) == {f"r{i:02d}": "done" for i in expected}
    add_lines(folder, [], {})
    assert sum(map(len, lines(folder).values())) == len(expected)
    assert all(path.stat().st_size <= size for path in folder.glob("*.jsonl"))


def test_lines_of_runs_that_are_left_out_go(tmp_path: Path) -> None:
    add_lines(tmp_path, [made("a"), made("b")], {"a": samples()})
    add_lines(tmp_path, [made("c")], {}, without={"a"})
    assert lines(tmp_path, "runs") == {"runs.jsonl": ["b", "c"]}
    assert lines(tmp_path, "samples") == {"samples.jsonl": []}
