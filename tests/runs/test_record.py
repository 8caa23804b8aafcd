"""The one schema of records: all that is on disk fits it, nothing is lost by it, and damage is one sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evenhand as eh
from evenhand.auditing.records import Asked
from evenhand.cli.terminal import _cell_ending, _ending
from evenhand.report.cells import group_records
from evenhand.report.tables import section_tables
from evenhand.report.write import report_json
from evenhand.runs.ledger import _whole
from evenhand.runs.read import checked_plan, find_plans, find_records, read_samples
from evenhand.runs.record import Record, write_record
from evenhand.runs.recorded import recorded_adapters, recorded_task, recorded_training
from evenhand.studies.estimate import expected_seconds
from evenhand.studies.plan import read_plan
from evenhand.studies.store import failed_record
from evenhand.studies.study import Study
from evenhand.tasks import Task
from report_records import curve, metrics, record, samples, write_run
from study_runs import write_quick

RESULTS = Path(__file__).parents[2] / "results"
PATH = Path("there/record.json")

# As `fit` writes it, in this order: readers of other languages, and merges of lines, rely on it.
KEYS = [
    *("format", "status", "error", "method", "task", "model", "training", "seed", "data_seed", "files"),
    *("configuration", "cell", "command", "selection", "label_access", "kind", "labels", "loader", "primary_test"),
    *("notes", "did_nothing", "data", "metrics", "tests", "group_sizes", "groups_not_counted", "stages", "durations"),
    *("memory", "versions", "commit", "machine"),
]


def full() -> dict[str, Any]:
    """A record with something in every field of the schema."""
    files = {"data_dir": {"sha256": "0f", "count": 1, "bytes": 2, "listed": [{"name": "a", "size": 2, "sha256": "0f"}]}}
    told: dict[str, Any] = metrics(0.9, 0.4)
    told |= {"worst_group_name": "1 conflicting", "worst_group_n": 240, "worst_group_interval": [0.3, 0.5]}
    told |= {"small_groups": {"groups": ["0 aligned"], "n": 5, "accuracy": 0.2, "interval": [0.0, 0.6]}}
    share = {"n": 9, "accuracy": 0.5, "interval": [0.2, 0.8]}
    by = {"aligned": share, "conflicting": share, "independent": {"n": 0, "accuracy": None, "interval": None}}
    by |= {"gap": {"value": 0.0, "interval": [-0.4, 0.4]}, "taken": share, "why_no_reliance": ""}
    by |= {"reliance": {"n": 9, "changed": 3, "share": 0.3333, "interval": [0.1, 0.6]}}
    quality = {"n": 497, "recall": 0.9, "f1": 0.9, "auroc": 0.95, "ece": 0.02}
    told |= {"quality": quality, "quality_by_group": {"0 aligned": {**quality, "auroc": None}}}
    told |= {"by_shortcut": {"token:x": by}, "all_shortcuts": {**by, "reliance": None, "why_no_reliance": "why"}}
    split = {"n": 497, "classes": 10, "aligned": 50, "conflicting": 447, "constant": {"average": 0.1, "both": 0.1}}
    stages = [
        {"name": "biased", "steps": 9, "epochs": 2, "losses": [1.0, 0.5], "as_erm": None, "reused": True},
        {"name": "scores", "detection": {"auroc": 0.9, "average_precision": 0.5, "sampling_mass": 0.3}},
        {"name": "errors", "wrong": 3},
        {
            "name": "debiased",
            "method": {"name": "weighted", "settings": {"alpha": 1.0}},
            "effective_sample_size": 90.5,
            "curve": curve(0.4),
        },
    ]
    made = record("even", settings={"folds": 2, "q": 0.7, "alpha": 1.0, "source": "head", "norm": "l2"})
    model = {"name": "digits-cnn", "peft": "lora", "peft_r": 8, "peft_alpha": 16.0, "parameters": 99}
    made |= {"files": files, "model": model, "kind": "image", "loader": "evenhand", "notes": ["noted"]}
    made |= {
        "did_nothing": None,
        "metrics": told,
        "tests": {"test": copy.deepcopy(told)},
        "data": {"train": split, "test": dict(split)},
    }
    return {key: (made | {"stages": stages})[key] for key in KEYS}


def paths(value: Any, *keys: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where every value within lies."""
    if keys:
        yield keys
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from paths(part, *keys, key)


def put(value: Any, keys: tuple[str | int, ...], new: Any) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for key in keys[:-1]:
        inner = inner[key]
    if new is GONE:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = new
    return changed


GONE = object()
JSON = st.recursive(
    st.sampled_from([None, True, False, 0, -1, 3, 10**400, 0.5, 1e300, float("nan"), "", "x", "\ud800", "a 'b\n"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "n", "\ud800"]), inner),
    max_leaves=4,
)
NEW = JSON | st.just(GONE)


def one_sentence(use: Callable[[], Any], *names: str) -> Any:
    """What comes of it, or None where it is refused in one sentence that holds the names."""
    try:
        return use()
    except eh.UserError as error:
        message = str(error)
        assert "\n" not in message
        assert message.endswith(".")
        for name in names:
            assert name in message, message
        return None


def told(made: Record) -> None:
    """All that is done with a record that could be read; what can't be used of it is said with its place."""
    sections = group_records([made])
    report_json("t", [(section, section_tables(section)) for section in sections], [])
    assert _ending(made)
    assert _cell_ending([made, made])
    for use in (Asked.of, recorded_training, recorded_adapters, lambda run: recorded_task(run, {"data_dir": "x"})):
        one_sentence(lambda use=use: use(made))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_of_a_record_is_read_or_refused_in_one_sentence_with_its_place(data: st.DataObject) -> None:
    raw = full()
    keys = data.draw(st.sampled_from(list(paths(raw))))
    changed = put(raw, keys, data.draw(NEW))
    made = one_sentence(lambda: Record.read(changed, PATH), str(PATH), str(keys[0]))
    if made is not None:
        assert made.raw is not None
        told(made)


def test_damage_in_what_is_measured_by_shortcuts_is_left_out_alone() -> None:
    at = ("metrics", "by_shortcut", "token:x")

    def by(*keys: str, new: Any) -> Any:
        found = Record.read(put(full(), (*at, *keys), new), PATH).metrics
        assert found is not None
        assert found.quality is not None
        return found.by_shortcut.get("token:x")

    assert by("gap", new=3).gap.value is None
    assert by("gap", new=3).aligned.accuracy == 0.5
    assert by("gap", "value", new=float("nan")).gap.interval == [-0.4, 0.4]
    assert by("aligned", "accuracy", new=2).aligned.accuracy is None
    assert by("aligned", "accuracy", new=2).aligned.n == 9
    assert by("taken", "interval", new=[0.1]).taken.interval is None
    assert by("taken", new=GONE).taken.n is None
    assert by("reliance", new="x").reliance is None
    assert by(new=None) is None
    older = put(put(full(), ("metrics", "by_shortcut"), GONE), ("metrics", "quality"), GONE)
    bare = Record.read(older, PATH).metrics
    assert bare is not None
    assert (bare.by_shortcut, bare.quality) == ({}, None)


@pytest.mark.parametrize(
    ("keys", "new", "said"),
    [
        (("seed",), "0", "'seed' in there/record.json must be an integer, but is \"0\""),
        (("seed",), True, "'seed' in there/record.json must be an integer, but is true"),
        (("method", "settings"), [], "'method.settings' in there/record.json must be an object, but is []"),
        (("model", "name"), 3, "'model.name' in there/record.json must be a text, but is 3"),
        (("files", "data_dir", "sha256"), None, "'files.data_dir.sha256' in there/record.json must be a text, but is"),
        (("tests", "test", "by_group", "0 aligned"), 2, "'tests.test.by_group.0 aligned' in there/record.json must be"),
        (("tests", "test", "average"), GONE, "there/record.json lacks the key 'tests.test.average'"),
        (("status",), "finished", 'must be one of done, running, failed, planned or skipped, but is "finished"'),
        (("selection",), None, "'selection' in there/record.json must be a text, but is null"),
        (("metrics",), None, "'metrics' in there/record.json must be an object, but is null"),
        (("training",), 3, "'training' in there/record.json must be an object, but is 3"),
        (("format",), 2, "record format 2 but this version of evenhand reads format 1; use the version of evenhand"),
        (("format",), True, "record format true but this version"),
    ],
)
def test_what_must_be_right_is_named_with_what_was_expected(keys: tuple[str, ...], new: Any, said: str) -> None:
    with pytest.raises(eh.UserError) as caught:
        Record.read(put(full(), keys, new), PATH)
    assert said in str(caught.value)
    assert str(caught.value).endswith("repeat its run.") or "or repeat the run." in str(caught.value)


def test_what_is_only_shown_is_left_out_alone_where_it_is_damaged() -> None:
    raw = put(full(), ("data", "train"), 3)
    raw = put(raw, ("stages", 0), "x")
    raw = put(raw, ("stages", 3, "curve"), 7)
    raw = put(raw, ("durations", "total_s"), "long")
    raw = put(raw, ("group_sizes", "test", "0 aligned"), "five")
    made = Record.read(raw, PATH)
    assert (made.split("train").n, made.split("test").n) == (None, 497)
    assert [stage.name for stage in made.stages] == ["scores", "errors", "debiased"]
    assert made.stages[-1].curve is None
    assert (made.durations.total_s, made.durations.stages) == (None, {"only": 12.0})
    assert "0 aligned" not in made.group_sizes["test"]
    assert made.group_sizes["test"]["1 conflicting"] == 240
    assert made.raw is not None
    assert Record.read(raw, PATH).raw == raw


def test_parts_that_can_not_be_used_name_the_file_and_the_field() -> None:
    for keys, new, use, field in (
        (("training", "epochs"), "x", recorded_training, "training"),
        (("training", "later"), 3, recorded_training, "training"),
        (("model", "peft_r"), "x", recorded_adapters, "model"),
        (("method", "settings", "folds"), "x", Asked.of, "method.settings"),
        (("method", "settings", "q"), 7, Asked.of, "method.settings"),
        (("method", "settings", "norm"), ["l2"], Asked.of, "method.settings"),
    ):
        made = Record.read(put(full(), keys, new), PATH)
        with pytest.raises(eh.UserError) as caught:
            use(made)
        assert str(caught.value).startswith(f"'{field}' in there/record.json can't be used (")
        assert str(caught.value).endswith("; delete it or repeat its run.")


# ---- samples and plans ----------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_change_of_samples_is_read_or_refused(data: st.DataObject) -> None:
    raw = samples()
    raw["samples"] = raw["samples"][:2]
    changed = put(raw, data.draw(st.sampled_from(list(paths(raw)))), data.draw(NEW))
    made = Record.read(full(), PATH, samples=(changed, "samples.jsonl, line 1"))
    one_sentence(lambda: read_samples(made), "samples.jsonl, line 1", "'samples")


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_change_of_a_plan_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    cell = {key: full()[key] for key in ("cell", "method", "task", "model", "training", "files")}
    runs = [{"seed": 0, "data_seed": 0, "configuration": "f0", "status": "planned"}]
    cells = [cell | {"name": "mine", "former": "old", "runs": runs}]
    raw = {"format": 1, "study": "s", "title": "t", "file": "f.yaml", "baseline": ["a"], "only": None, "cells": cells}
    keys = data.draw(st.sampled_from(list(paths(raw))))
    folder = tmp_path_factory.mktemp("plan")
    changed = put(raw, keys, data.draw(NEW.filter(lambda new: new is GONE or "\\ud800" not in json.dumps(new))))
    (folder / "study.json").write_text(json.dumps(changed), encoding="utf-8")
    plans = one_sentence(lambda: find_plans(folder), "study.json", str(keys[0]))
    if plans is not None:
        assert len(plans.runs) == sum(len(cell["runs"]) for cell in changed["cells"])


# ---- what is written is what it was ---------------------------------------------------------------------------------


def bare(value: Any) -> Any:
    """The same with null in place of what is empty: no commit, no detection."""
    if isinstance(value, dict):
        return {key: bare(inner) for key, inner in value.items()} or None
    return [bare(inner) for inner in value] if isinstance(value, list) else value


def dumped(made: Record) -> dict[str, Any]:
    return bare(made.model_dump(mode="json", exclude_unset=True))


def test_the_schema_names_all_that_committed_results_hold() -> None:
    found = find_records(RESULTS)
    assert len(found) > 2000
    for made in found:
        # `read` completes two fields of older records
        former = {key: made.raw.get(key) for key in ("command", "did_nothing")}
        assert dumped(made) | former == bare(made.raw) | former
    for path in RESULTS.glob("*/study.json"):
        raw = json.loads(path.read_text(encoding="utf-8"))
        assert checked_plan(raw, path).model_dump(exclude_unset=True) == raw


@pytest.mark.parametrize("method", [eh.ERM(), eh.PGD(), eh.Even(), eh.JTT()], ids=lambda method: method.name)
def test_what_fit_writes_is_read_whole_and_written_again_byte_for_byte(
    method: eh.Method, tiny_task: Task, tmp_path: Path
) -> None:
    eh.fit(method, tiny_task, "digits-cnn", output_dir=tmp_path / "run", epochs=1, batch_size=16, device="cpu")
    path = tmp_path / "run" / "record.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert list(raw) == KEYS
    made = Record.load(path)
    assert dumped(made) == bare(raw)  # nothing is left out as damaged, and the schema names all of it
    write_record(tmp_path / "again.json", made.raw)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_failed_run_is_written_as_before(tmp_path: Path) -> None:
    run = read_plan(write_quick(tmp_path, 1)).cells[0].first
    described = run.as_dict()
    made = failed_record(run, "it died")
    assert json.dumps(made.raw) == json.dumps(
        {"format": 1, "status": "failed", "error": "it died"}
        | described
        | {"files": {}, "configuration": run.run_hash, "cell": run.cell_hash, "command": run.command()}
        | {"label_access": run.method.label_access, "selection": None, "primary_test": None, "metrics": None}
    )
    assert (made.status, made.error, made.metrics, made.tests) == ("failed", "it died", None, {})


def test_keys_of_later_versions_stay(tmp_path: Path) -> None:
    raw = full() | {"later": {"a": 1}, "path": 3, "source": [], "raw": "x", "samples": 7}
    write_record(tmp_path / "record.json", raw)
    made = Record.load(tmp_path / "record.json")
    assert made.raw == raw
    assert made.path == tmp_path / "record.json"
    assert _whole(made.raw) == raw


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(eh.UserError, match=r"'seed' in .*record\.json must be an integer"):
        write_record(tmp_path / "record.json", full() | {"seed": "x"})
    assert not list(tmp_path.iterdir())


# ---- in every command -----------------------------------------------------------------------------------------------


OTHERS = {
    "list": [1],
    "text": "x",
    "number": 3,
    "null": None,
    "other tool": {"a": 1},
    "audit": {"format": 2, "task": {"name": "x"}, "findings": []},
    "newer": record(format=2),
    "status alone": {"status": "done"},
    "deep": put(full(), ("tests", "test", "average"), "high"),
    "settings": put(full(), ("task", "settings"), ["conflict"]),
    "no model": put(full(), ("model",), {"kind": "x"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_record_of_another_kind_is_one_sentence_in_every_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "quick"
    run = read_plan(write_quick(tmp_path, 1)).cells[0].first
    path = folder / run.run_hash / "record.json"
    (path.parent / "model").mkdir(parents=True)
    path.write_text(json.dumps(OTHERS[name]), encoding="utf-8")
    (folder / "study.json").write_text(json.dumps(find_plan(tmp_path, folder)), encoding="utf-8")
    for use in (
        lambda: eh.report(path.parent),
        lambda: eh.report(folder),
        lambda: eh.evaluate(path.parent),
        lambda: eh.audit(path.parent),
        lambda: eh.audit(folder),
        lambda: eh.fit(run.method, "colored-digits", "mlp", output_dir=path.parent),
        lambda: Study.open(tmp_path / "quick.yaml"),
    ):
        with pytest.raises(eh.UserError) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert run.run_hash in str(caught.value)
        assert "record.json" in str(caught.value)
    assert {entry.name for entry in path.parent.iterdir()} == {"record.json", "model"}


def find_plan(root: Path, folder: Path) -> dict[str, Any]:
    """The plan of the quick study, as its start writes it."""
    opened = Study.open(root / "quick.yaml", results_dir=root / "free", output_dir=root / "other")
    opened.store.open(opened.plan, [], None)
    assert not (folder / "study.json").exists()
    return json.loads((root / "free" / "study.json").read_text(encoding="utf-8"))


def test_times_of_damaged_records_are_not_counted(tmp_path: Path) -> None:
    run = read_plan(write_quick(tmp_path, 1)).cells[0].first
    alike = full() | {"cell": run.cell_hash}
    for spoiled, expected in ((alike, 12.3), (put(alike, ("durations", "total_s"), "x"), None)):
        (found,) = expected_seconds([run], [Record.read(spoiled, PATH)])
        assert (found is None) == (expected is None)


def test_a_run_is_told_by_its_line(tmp_path: Path) -> None:
    path = write_run(tmp_path, full(), samples())
    (made,) = find_records(tmp_path)
    assert made.path == path
    assert made.metrics is not None
    assert made.metrics.groups[1] is not None
    assert (made.metrics.value("small_groups"), made.metrics.value("weakest")) == (0.2, 0.2)
    assert made.digests == {"data_dir": "0f"}
