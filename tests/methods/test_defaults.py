"""What a method has unless told otherwise, and that what is committed keeps its settings and hashes."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

import evenhand as eh
from evenhand.cli.parser import _parse
from evenhand.methods import METHODS
from evenhand.runs.configuration import Configuration, changed_fields
from evenhand.runs.ledger import runs_below
from evenhand.runs.record import Record
from evenhand.studies.plan import read_plan
from report_records import record

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "projection", "alpha"),
    [
        ({}, "published", 1.0),
        ({"signal": "ema"}, "published", 1.0),
        ({"projection": "row"}, "row", 1.0),
        ({"signal": "biased"}, "row", 64.0),
        ({"signal": "biased", "projection": "published"}, "published", 1.0),
        ({"signal": "biased", "projection": "global"}, "global", 64.0),
        ({"signal": "biased", "projection": "naive"}, "naive", 1.4),
        ({"signal": "biased", "projection": "reweight", "q": 1.0}, "reweight", 1.0),
        ({"signal": "biased", "alpha": 3.0}, "row", 3.0),
    ],
)
def test_edge_chooses_what_is_not_given(given: dict[str, Any], projection: str, alpha: float) -> None:
    method = eh.EDGE(**given)
    spelled = eh.EDGE(**given | {"projection": projection, "alpha": alpha})
    assert (method.projection, method.alpha) == (projection, alpha)
    assert method == spelled == copy.deepcopy(method) == pickle.loads(pickle.dumps(method))
    assert hash(method) == hash(spelled)
    assert method.settings() == spelled.settings() == eh.EDGE(**method.settings()).settings()
    assert {type(method.settings()[name]) for name in ("projection", "alpha")} == {str, float}
    assert changed_fields(method) == changed_fields(spelled)
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    assert sorted(changed_fields(method)) == sorted(options)
    _, parsed = _parse(["train", "edge", *options])
    assert parsed == method


def test_replacing_a_field_chooses_anew_what_was_not_given() -> None:
    biased = eh.EDGE(signal="biased")
    assert dataclasses.replace(eh.EDGE(), signal="biased") == biased
    assert dataclasses.replace(biased, signal="self") == eh.EDGE()
    assert dataclasses.replace(biased, projection="published").alpha == 1.0
    assert dataclasses.replace(biased, q=0.5) == eh.EDGE(signal="biased", q=0.5, projection="row", alpha=64.0)
    given = eh.EDGE(signal="biased", projection="row", alpha=64.0)
    assert dataclasses.replace(given, projection="tensor").alpha == 64.0
    assert dataclasses.replace(given, signal="self").projection == "row"


def test_configuration_hash_and_command_hold_what_was_chosen() -> None:
    task = eh.ColoredDigits()
    training = task.training_for("digits-cnn")
    made = [
        Configuration(method=method, task=task, model="digits-cnn", training=training, seed=0, data_seed=0)
        for method in (eh.EDGE(signal="biased"), eh.EDGE(signal="biased", projection="row", alpha=64.0))
    ]
    assert made[0].as_dict() == made[1].as_dict()
    assert made[0].as_dict()["method"]["settings"] | {"projection": "row", "alpha": 64.0} == made[0].method.settings()
    assert made[0].run_hash == made[1].run_hash
    assert made[0].command() == "evenhand train edge --signal biased --task colored-digits --seed 0"


def test_bad_values_are_refused_before_anything_is_chosen() -> None:
    for bad in ({"q": 0}, {"signal": "biassed"}, {"alpha": -1, "signal": "biased"}, {"projection": "rows"}):
        with pytest.raises(eh.UserError, match=f"'{next(iter(bad))}' parameter of EDGE"):
            eh.EDGE(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "old", "now"),
    [
        ({"projection": "published", "alpha": 1.0}, "--signal biased", "--projection published --signal biased"),
        ({"projection": "tensor", "alpha": 1.0}, "--projection tensor", "--alpha 1.0 --projection tensor"),
        ({"projection": "row", "alpha": 64.0}, "--signal biased", "--signal biased"),
    ],
)
def test_commands_of_older_records_still_repeat_their_runs(settings: dict[str, Any], old: str, now: str) -> None:
    entry = record("edge", settings={"signal": "biased", "q": 0.7} | settings, command=f"evenhand train edge {old}")
    assert Record.read(entry, Path("r")).command == f"evenhand train edge {now}"


def test_settings_of_committed_records_make_their_methods_again() -> None:
    seen: set[str] = set()
    for run in runs_below(ROOT / "results"):
        found = run.raw["method"]
        key = json.dumps(found, sort_keys=True)
        if key not in seen:
            seen.add(key)
            assert METHODS[found["name"]](**found["settings"]).settings() == found["settings"], run.source
    assert len(seen) > 50


@pytest.mark.parametrize("study", sorted(path.parent.name for path in (ROOT / "results").glob("*/study.json")))
def test_recipes_plan_the_cells_that_were_run(study: str) -> None:
    plan = json.loads((ROOT / "results" / study / "study.json").read_text(encoding="utf-8"))
    ran = {cell["name"]: (cell["cell"], {run["configuration"] for run in cell["runs"]}) for cell in plan["cells"]}
    planned = {
        cell.name: (cell.first.cell_hash, {run.run_hash for run in cell.runs})
        for cell in read_plan(ROOT / "recipes" / f"{study}.yaml").cells
    }
    for name, (cell, runs) in ran.items():  # a study may have been run with fewer seeds than its file has
        assert planned[name][0] == cell
        assert runs <= planned[name][1]


def test_columns_of_gains_are_what_a_user_types() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import evidence
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    wanted = "untouched-digits | against=ERM:average | cells=EDGE, biased signal; PGD; PGD, λ = 1; Reweight"
    head = evidence.gains(wanted).splitlines()[0]
    assert head.endswith("| `edge --signal biased` | `pgd --mix 0.8` | `pgd` | `reweight --alpha 1.42` |")
    for words in ("edge --signal biased", "pgd --mix 0.8"):
        _, method = _parse(["train", *words.split()])
        labels = {cell.label: cell.first.method.settings for cell in evidence.sections_of("untouched-digits")[0].cells}
        assert method is not None
        assert method.settings() in labels.values()


def test_a_method_that_did_nothing_has_no_comparison_in_the_docs() -> None:
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("| Even (did nothing) |")]
    assert row.endswith("| – |")
