"""Studies from their file to their tables: resuming, sharing, failing, and dying at any moment."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.report import write_report
from evenhand.report.cells import group_records
from evenhand.runs.ledger import add_lines, runs_of_study
from evenhand.runs.read import find_plans, find_records
from evenhand.studies import Study
from evenhand.studies.engines import Event, Finished, Lost, Started
from evenhand.studies.store import failed_record
from study_runs import kill_9, records, start, tables, write_quick


class Events:
    def __init__(self) -> None:
        self.all: list[Event] = []

    def event(self, event: Event) -> None:
        self.all.append(event)

    def names(self, kind: type[Any]) -> list[str]:
        return [event.job.name for event in self.all if isinstance(event, kind)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quick study with 2 seeds has run."""
    folder = tmp_path_factory.mktemp("finished")
    file = write_quick(folder, 2)
    eh.study(file, output_dir=folder / "runs/quick", results_dir=folder / "results/quick", jobs=2)
    return folder


def folders(folder: Path) -> dict[str, Any]:
    return {"output_dir": folder / "runs/quick", "results_dir": folder / "results/quick"}


TABLES = {"methods.md", "methods.csv", "methods.tex"} | {
    f"{name}.csv" for name in ("runs", "tests", "groups", "curves", "sweeps", "detection", "quality")
}


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"}


def test_a_study_leaves_records_tables_and_no_models(finished: Path) -> None:
    made = records(finished / "results/quick")
    assert len(made) == 8
    assert {record["status"] for record in made} == {"done"}
    whole = records(finished / "runs/quick")
    for record in whole:
        for key in ("kind", "loader"):  # nobody reads them without a model
            del record[key]
        for stage in record["stages"]:
            stage.pop("losses", None)
        for name, measured in record["tests"].items():
            if name != record["primary_test"]:
                del measured["quality_by_group"]
    assert made == whole
    assert {p.name for p in (finished / "results/quick").iterdir() if p.name != ".lock"} == {
        "study.json",
        "tables",
        "runs.jsonl",
        "samples.jsonl",
    }
    assert len((finished / "results/quick/samples.jsonl").read_text().splitlines()) == 4  # of the first seed
    assert not list(finished.rglob("*.safetensors"))
    assert sum(p.stat().st_size for p in (finished / "results").rglob("*") if p.is_file()) < 170_000
    assert set(tables(finished / "results/quick")) == TABLES
    assert tables(finished / "runs/quick") == tables(finished / "results/quick")
    assert (finished / "runs/quick/tables/cost.csv").exists()
    assert not (finished / "results/quick/tables/cost.csv").exists()
    assert str(finished) not in "".join(p.read_text() for p in (finished / "results").rglob("*") if p.is_file())


def test_a_stage_that_cells_share_is_trained_once_for_each_seed(finished: Path) -> None:
    stages = [
        (record["seed"], stage["name"], stage.get("reused", False), record["durations"]["stages"][stage["name"]])
        for record in records(finished / "results/quick")
        for stage in record["stages"]
    ]
    for seed in (0, 1):
        # GCE's own stage is the biased one of both PGD cells
        first = [stage for stage in stages if stage[0] == seed and stage[1] in ("gce", "biased")]
        assert len(first) == 3
        assert sum(not reused for _, _, reused, _ in first) == 1
        assert len({seconds for *_, seconds in first}) == 1  # the time that it took then
        assert sum(stage[1] == "debiased" and not stage[2] for stage in stages if stage[0] == seed) == 2


def test_a_shared_stage_gives_the_same_run(finished: Path, tmp_path: Path) -> None:
    alone = eh.fit(eh.PGD(source="all"), "colored-digits", "mlp", seed=1, epochs=1, output_dir=tmp_path / "alone")
    study = next(r for r in records(finished / "results/quick") if r["configuration"] == alone.record["configuration"])
    assert study["metrics"] == alone.record["metrics"]


def test_scores_say_how_well_they_find_conflicting_samples(finished: Path) -> None:
    scores = [s for r in records(finished / "results/quick") for s in r["stages"] if s["name"] == "scores"]
    assert len(scores) == 4
    assert all(set(s["detection"]) == {"auroc", "average_precision", "sampling_mass"} for s in scores)


def test_the_second_start_runs_nothing(finished: Path) -> None:
    before = snapshot(finished / "results")
    events = Events()
    again = eh.study(finished / "quick.yaml", **folders(finished), watch=events)
    assert events.all == []
    assert set(again.states.values()) == {"done"}
    after = snapshot(finished / "results")
    changed = {Path(p).name for p in before if before[p] != after[p]}
    assert changed <= {"study.json", *TABLES}


def test_results_count_as_done_on_another_machine(finished: Path, tmp_path: Path) -> None:
    events = Events()
    eh.study(
        finished / "quick.yaml",
        seeds=3,
        output_dir=tmp_path / "elsewhere",
        results_dir=_copied(finished / "results/quick", tmp_path / "results"),
        only="ERM",
        watch=events,
    )
    assert events.names(Finished) == ["ERM, seed 2"]
    assert len(records(tmp_path / "elsewhere")) == 9  # those from the other machine too


def in_folders(results: Path) -> list[Path]:
    """Put a study's results as earlier versions wrote them, a folder a run; returns the paths of the records."""
    paths = []
    for run in runs_of_study(results):
        run.path.parent.mkdir()
        run.path.write_text(json.dumps(run.raw))
        if run.samples is not None:
            run.path.with_name("samples.json").write_text(json.dumps(run.samples[0]))
        paths.append(run.path)
    for path in results.glob("*.jsonl"):
        path.unlink()
    return paths


def _copied(source: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(source, target))


def test_dry_run_shows_the_plan_and_the_time_and_writes_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", str(finished / "quick.yaml"), "--dry-run"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "8 runs to carry out. There is no estimate of the time" in out
    where = ["--output-dir", str(finished / "runs/quick"), "--results-dir", str(finished / "results/quick")]
    assert main([*command, *where, "--seeds", "4"]) == 0
    out = capsys.readouterr().out
    assert out.count("2 done, 2 planned") == 4
    assert "8 runs to carry out. About " in out
    assert main([*command, *where]) == 0
    assert "0 runs to carry out. Nothing is left to do." in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.yaml").write_text(
        "task: colored-digits\nmodel: mlp\nseeds: 1\ntraining: {epochs: 1}\nmethod: erm\ntitle: Mine\n"
    )
    assert main(["study", "s.yaml"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"\[1/1\] ERM, seed 0: aligned [\d.]+ %, conflicting ", captured.err)
    assert captured.out.splitlines() == [
        "Mine: 1 done",
        "Report: runs/s/report.html",
        "Tables: runs/s/tables",
        "Records: results/s",
    ]
    assert "<h1>Mine</h1>" in (tmp_path / "runs/s/report.html").read_text(encoding="utf-8")
    assert main(["study", "s.yaml", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_failed_run_is_shown_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_quick(tmp_path, 1, "  - {name: Too fast, method: erm, training: {lr: 1e30}}\n")
    assert main(["study", str(file), "--quiet"]) == 1
    error = "StageError: The stage 'erm' diverged"
    assert f"failed: Too fast, seed 0: {error}" in capsys.readouterr().out
    for folder in ("runs/quick", "results/quick"):
        assert sorted(r["status"] for r in records(Path(folder))) == ["done"] * 4 + ["failed"]
        found = tables(Path(folder))
        for table in ("methods.md", "methods.csv", "methods.tex", "runs.csv"):
            assert "diverged" in found[table].decode()
    assert "diverged" in Path("runs/quick/report.html").read_text(encoding="utf-8")

    events = Events()
    again = eh.study(file, watch=events)
    assert events.all == []
    assert sorted(again.states.values()) == ["done"] * 4 + ["failed"]
    eh.study(file, retry_failed=True, watch=events)
    assert events.names(Finished) == ["Too fast, seed 0"]


def test_only_skips_and_says_so(tmp_path: Path) -> None:
    file = write_quick(tmp_path, 1)
    done = eh.study(file, only="pgd*head*")
    assert sorted(done.states.values()) == ["done", "skipped", "skipped", "skipped"]
    table = tables(Path("results/quick"))["methods.md"].decode()
    assert table.count("skipped (1 of 1 run): left out by") == 3
    assert "PGD, source=head" in table
    events = Events()
    eh.study(file, watch=events)
    assert sorted(events.names(Finished)) == ["ERM, seed 0", "GCE, seed 0", "PGD, source=all, seed 0"]
    assert "skipped" not in tables(Path("results/quick"))["methods.md"].decode()


def test_models_stay_where_asked_for(tmp_path: Path) -> None:
    file = write_quick(tmp_path, 1, "keep_models: true\n")
    eh.study(file, only="pgd*all")
    assert len(list(tmp_path.glob("runs/quick/*/model/model.safetensors"))) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_process_of_a_run_is_begun_again(jobs: int, finished: Path, tmp_path: Path) -> None:
    file = write_quick(tmp_path, 2)
    killed: list[int] = []

    class Killer(Events):
        def event(self, event: Event) -> None:
            super().event(event)
            if not isinstance(event, Started | Finished | Lost) and len(killed) < 2:
                # whichever run's process: the youngest
                child = max(_workers(), key=lambda p: p.create_time())
                killed.append(child.pid)
                child.send_signal(signal.SIGKILL)

    events = Killer()
    done = eh.study(file, jobs=jobs, watch=events)
    assert events.names(Lost)
    assert set(done.states.values()) == {"done"}
    assert tables(Path("results/quick")) == tables(finished / "results/quick")


def _workers() -> list[psutil.Process]:
    """The processes that the fork server has made."""
    servers = [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]
    return [child for server in servers for child in server.children()]


def test_a_run_whose_process_always_dies_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.studies import local

    monkeypatch.setattr(local, "_work", os._exit)  # takes the job for a code, fails, and ends
    file = write_quick(tmp_path, 1)
    done = eh.study(file, only="ERM")
    assert sorted(done.states.values()) == ["failed", "skipped", "skipped", "skipped"]
    (record,) = records(Path("results/quick"))
    assert record["error"] == "its process ended with code 1, 3 times"


# ---- what is refused ------------------------------------------------------------------------------------------------


def refusal(**options: Any) -> str:
    before = sorted(Path().rglob("*"))
    with pytest.raises(eh.UserError) as caught:
        eh.study("quick.yaml", **options)
    assert sorted(Path().rglob("*")) == before
    return str(caught.value)


def test_bad_options(tmp_path: Path) -> None:
    write_quick(tmp_path, 1)
    cells = "ERM; GCE; PGD, source=head; PGD, source=all"
    assert refusal(only="pdg") == f"No cell of quick.yaml matches 'pdg'; its cells are {cells}."
    assert refusal(seeds=0) == "The 'seeds' parameter of study must be an integer of at least 1. Got 0."
    assert refusal(jobs=0) == "The 'jobs' parameter of study must be an integer of at least 1. Got 0."
    engine: Any = "slurm"
    assert refusal(engine=engine) == "The 'engine' parameter of study must be one of local, ray. Got 'slurm'."
    assert refusal(output_dir="x", results_dir="x") == (
        "The working folder and the folder of the results are both 'x'."
    )


def test_cells_that_cannot_run_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    write_quick(tmp_path, 1, "  - {name: bad, method: {name: pgd, init: pretrained}}\n")
    assert refusal().startswith("quick.yaml, cell 'bad': The 'init' parameter of PGD can be 'pretrained' only for")
    write_quick(tmp_path, 1, "  - {name: bad, method: erm, model: no/such/model}\n")
    assert refusal().startswith("quick.yaml, cell 'bad': There is no folder 'no/such/model'.")
    write_quick(
        tmp_path, 1, "  - {name: bad, method: erm, task: {name: colored-mnist, data_dir: no/such}, model: mlp}\n"
    )
    assert refusal() == "quick.yaml, cell 'bad': The folder 'no/such' given as --data-dir does not exist."


def test_folders_of_another_study(finished: Path, tmp_path: Path) -> None:
    write_quick(tmp_path, 1)
    Path("other.yaml").write_text(Path("quick.yaml").read_text() + "study: quick\n")
    eh.study("other.yaml", only="ERM")
    assert refusal() == (
        "The folder 'runs/quick' belongs to the study of another file, other.yaml: give this study another name by the "
        "key 'study', or choose another folder."
    )
    Path("quick.yaml").write_text(Path("quick.yaml").read_text().replace("epochs: 1", "epochs: 2"))
    told = refusal(**folders(finished))
    assert "another file called quick.yaml, which has no cell in common" in told
    assert "(stored → asked: training.epochs 1 → 2)" in told
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    message = "The folder 'mine' is not empty and holds no study: choose another one."
    assert refusal(results_dir="mine", output_dir="free") == message


def test_damaged_files_of_a_study(finished: Path, tmp_path: Path) -> None:
    results = _copied(finished / "results/quick", tmp_path / "damaged")
    write_quick(tmp_path, 2)
    record = in_folders(results)[0]
    content = record.read_text()
    record.write_text(content[:100])
    assert refusal(results_dir=results).startswith(f"{record} is not valid JSON (")
    record.write_text(content.replace(record.parent.name, "0" * 16))
    assert refusal(results_dir=results) == f"The file '{record}' is the record of another run: delete it."
    record.write_text(content)
    (results / "study.json").write_text("{}")
    said = f"{results / 'study.json'} lacks the key 'format'; delete it and start the study again."
    assert refusal(results_dir=results) == said


def test_a_study_that_is_running_is_not_started_twice(finished: Path) -> None:
    with (
        FileLock(finished / "runs/quick/.lock"),
        pytest.raises(eh.UserError, match="is running already, in another process"),
    ):
        eh.study(finished / "quick.yaml", **folders(finished))


def test_a_failure_before_the_first_record_is_a_record_that_reports_read(tmp_path: Path) -> None:
    run = Study.open(write_quick(tmp_path, 1)).pending[0][1]
    add_lines(tmp_path, [failed_record(run, "the reason").raw], {})
    assert [(record.status, record.error) for record in find_records(tmp_path)] == [("failed", "the reason")]


def test_a_damaged_line_is_told_before_anything_is_trained(finished: Path, tmp_path: Path) -> None:
    results = _copied(finished / "results/quick", tmp_path / "damaged")
    write_quick(tmp_path, 3)
    runs = results / "runs.jsonl"
    whole = runs.read_text()
    runs.write_text(whole[:-100])
    message = refusal(results_dir=results)
    assert message.startswith(f"{runs}, line 8 is half-written, a mark of a merge, or no JSON (")
    assert message.endswith("; delete the line or repeat its run.")
    runs.write_text("".join(whole.splitlines(keepends=True)[:-1]))  # as it says
    assert len(Study.open(tmp_path / "quick.yaml", results_dir=results).pending) == 5


# ---- results: folders of earlier versions, and of other machines ----------------------------------------------------


def test_folders_of_earlier_versions_are_read_and_become_lines(finished: Path, tmp_path: Path) -> None:
    results = _copied(finished / "results/quick", tmp_path / "results/quick")
    lines = {path.name: path.read_text() for path in results.glob("*.jsonl")}
    wanted = tables(results)
    old = in_folders(results)
    assert len(old) == 8
    write_report(results, page=False)
    assert tables(results) == wanted
    write_quick(tmp_path, 2)
    opened = Study.open(Path("quick.yaml"))
    assert opened.pending == ()
    assert all(path.exists() for path in old)  # nothing is written yet
    opened.run()
    assert {path.name: path.read_text() for path in results.glob("*.jsonl")} == lines
    assert not [path for path in results.iterdir() if path.is_dir() and path.name != "tables"]
    opened.write_report()
    assert tables(results) == wanted == tables(Path("runs/quick"))


@pytest.mark.parametrize("left", [("record.json", "samples.json"), ("record.json",)])
def test_killed_while_folders_become_lines(finished: Path, tmp_path: Path, left: tuple[str, ...]) -> None:
    results = _copied(finished / "results/quick", tmp_path / "results/quick")
    lines = (results / "runs.jsonl").read_bytes()
    for path in in_folders(_copied(results, tmp_path / "old")):  # both forms lie there
        (results / path.parent.name).mkdir()
        for name in left:
            if path.with_name(name).exists():
                path.with_name(name).rename(results / path.parent.name / name)
    assert len(find_records(results)) == 8
    write_quick(tmp_path, 2)
    Study.open(Path("quick.yaml")).run()
    assert (results / "runs.jsonl").read_bytes() == lines
    assert not list(results.glob("*/record.json"))


def test_a_run_that_was_done_here_replaces_the_failed_one_of_the_results(finished: Path, tmp_path: Path) -> None:
    results = _copied(finished / "results/quick", tmp_path / "results/quick")
    _copied(finished / "runs/quick", tmp_path / "runs/quick")
    write_quick(tmp_path, 2)
    wanted = (results / "runs.jsonl").read_text()
    cell = Study.open(Path("quick.yaml")).plan.cells[0]
    (results / "runs.jsonl").unlink()
    # as a kill leaves it between a run's end and its line
    add_lines(results, [failed_record(run, "out of memory").raw for run in cell.runs], {})
    opened = Study.open(Path("quick.yaml"))
    assert set(opened.states.values()) == {"done"}
    opened.run()
    assert (results / "runs.jsonl").read_text() == wanted


def test_results_of_two_machines_become_one(finished: Path, tmp_path: Path) -> None:
    wanted = (finished / "results/quick/runs.jsonl").read_text()
    for machine, only in (("a", "pgd*"), ("b", "[!p]*")):
        write_quick(tmp_path / machine, 2)
        there = _copied(finished / "results/quick", tmp_path / machine / "results/quick")
        runs = [run.raw for run in runs_of_study(there)]
        (there / "runs.jsonl").unlink()
        add_lines(there, [raw for raw in runs if (raw["method"]["name"] == "pgd") == (only == "pgd*")], {})
    a, b = (tmp_path / machine / "results/quick/runs.jsonl" for machine in "ab")
    a.write_text(b.read_text() + a.read_text())  # as git's union merge puts them, in any order
    assert Study.open(tmp_path / "a/quick.yaml", results_dir=a.parent).pending == ()
    Study.open(tmp_path / "a/quick.yaml", results_dir=a.parent).run()
    assert a.read_text() == wanted


# ---- kill -9 --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_it_ends_with_the_same_tables(tmp_path: Path) -> None:
    """12 runs and 3 kills; EVENHAND_STUDY_RUNS=60 EVENHAND_STUDY_KILLS=20 asks for more of them."""
    runs, kills = int(os.environ.get("EVENHAND_STUDY_RUNS", "12")), int(os.environ.get("EVENHAND_STUDY_KILLS", "3"))
    jobs = os.environ.get("EVENHAND_STUDY_JOBS", "2")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write_quick(folder, runs // 4)
    process = start(whole / "quick.yaml", whole, "--jobs", jobs)
    assert (process.communicate(), process.returncode)[1] == 0
    # by the runs that are done, half of them at most, so that no machine is too quick or too slow
    for done in sorted(random.Random(0).sample(range(1, runs // 2 + 1), kills)):
        process = start(killed / "quick.yaml", killed, "--jobs", jobs)
        lines = killed / "results/quick/runs.jsonl"
        while process.poll() is None and (not lines.exists() or lines.read_text().count("\n") < done):
            time.sleep(0.01)
        assert process.poll() is None, "all was done before the kill"
        children = kill_9(process)
        _, alive = psutil.wait_procs(children, timeout=300)
        assert not alive, "a run goes on without its study"
    process = start(killed / "quick.yaml", killed, "--jobs", jobs)
    assert (process.communicate(), process.returncode)[1] == 0
    for folder in ("runs/quick", "results/quick"):
        assert tables(killed / folder) == tables(whole / folder)
        assert len(records(killed / folder)) == runs
    left = [p for p in killed.rglob("*") if ".partial" in p.name or p.suffix == ".safetensors"]
    assert not left


@pytest.mark.slow
def test_interrupted_it_says_how_to_go_on(tmp_path: Path) -> None:
    write_quick(tmp_path, 12)  # more than are done before the signal arrives
    process = start(tmp_path / "quick.yaml", tmp_path)
    while not list(tmp_path.glob("results/quick/runs.jsonl")) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: every process of the terminal
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error.decode().splitlines()[-1].startswith("evenhand: interrupted; the same command goes on")
    assert {r["status"] for r in records(tmp_path / "runs/quick")} <= {"done", "running"}


# ---- shortcuts that have a name -------------------------------------------------------------------------------------

NAMED = """
seeds: 1
task: {name: own-data, data: DATA, text: text, label: label}
model: tiny-bert
training: {epochs: 1}
shortcuts: [token:red]
cells:
  - method: erm
  - method: balance
  - {name: by site, method: erm, shortcuts: [column:site]}
"""


def test_runs_with_named_shortcuts_end_in_sections_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{'red' if (row % 2) ^ (row % 7 == 0) else 'blue'} {row},{row % 2},s{row % 2 ^ (row % 5 == 0)}"
        for row in range(90)
    ]
    Path("t.csv").write_text("\n".join(["text,label,site", *rows]))
    path = Path("named.yaml")
    path.write_text(NAMED.replace("DATA", "t.csv"))
    done = eh.study(path)
    assert set(done.states.values()) == {"done"}
    found = {record["configuration"]: record for record in records(Path("results/named"))}
    for cell in done.plan.cells:
        record = found[cell.first.run_hash]
        assert record["shortcuts"] == [str(one) for one in cell.first.shortcuts]
        assert record["metrics"]["conflicting"] is not None
        assert f"--shortcut {record['shortcuts'][0]}" in record["command"]
    sections = group_records(find_records(Path("results/named")), find_plans(Path("results/named")))
    assert [[run.method.name for run in section.runs] for section in sections] == [["erm"], ["erm", "balance"]]
    assert [section.heading.split(", ")[-1] for section in sections] == ["shortcuts=column:site", "shortcuts=token:red"]
    assert all(seconds is not None for seconds in Study.open(path, seeds=2).expected())
    path.write_text(NAMED.replace("DATA", "t.csv").replace("token:red", "token:absent"))
    with pytest.raises(eh.UserError, match=r"named.yaml, cell '.*': No training row has the token 'absent'"):
        eh.study(path, output_dir="other", results_dir="elsewhere")
    assert not Path("other").exists()
    assert not Path("elsewhere").exists()
