"""The worst group and the small ones, wherever a user meets them: the kinds that a run of own data has."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.metrics import group_metrics, wilson
from evenhand.runs.worst_groups import (
    group_texts,
    is_lower,
    record_groups,
    small_text,
    told_groups,
    weakest,
    worst_text,
)
from evenhand.validation import UserError, named
from grouped_data import grouped, trainer_of
from report_records import metrics, record, write_run

# ---- a run of own data whose shortcut nearly always holds ------------------------------------------------------------


def own_table(path: Path, rows: int = 3040) -> Path:
    """Reviews whose product tells the class on 95 % of them."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "product"])
        for i in range(rows):
            label = ("anger", "praise")[i % 2]
            leaks = rng.random() < 0.95
            product = ("kettle", "bowl")[(i % 2) if leaks else 1 - i % 2]
            writer.writerow([f"the {product} number {i} came on day {rng.integers(1, 29)}", label, product])
    return path


def training(table: Path, folder: Path) -> list[str]:
    """The command of the run."""
    given = ["train", "erm", "--data", str(table), "--text", "text", "--label", "label", "--group", "product"]
    given += ["--model", "tiny-bert", "--epochs", "2", "--lr", "0.002", "--device", "cpu"]
    return [*given, "--output-dir", str(folder)]


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    table = own_table(folder / "reviews.csv")
    given = ["train", "erm", "--data", str(table), "--text", "text", "--label", "label", "--group", "product"]
    given += [
        "--model",
        "tiny-bert",
        "--epochs",
        "2",
        "--lr",
        "0.002",
        "--device",
        "cpu",
        "--output-dir",
        str(folder / "run"),
    ]
    assert main(given) == 0
    return folder / "run"


def test_a_runs_record_page_and_card_name_the_small_groups(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((own_run / "record.json").read_text(encoding="utf-8"))
    test, sizes = content["metrics"], content["group_sizes"]["test"]
    small = [name for name, n in sizes.items() if 0 < n < 20]
    assert small  # the table is made so that they are few
    n = sum(sizes[name] for name in small)
    right = sum(sizes[name] * test["by_group"][name] for name in small)
    assert test["small_groups"]["groups"] == small
    assert (test["small_groups"]["n"], test["small_groups"]["accuracy"]) == (n, pytest.approx(right / n))
    assert test["small_groups"]["interval"] == pytest.approx(wilson(right / n, n))
    large = {name: test["by_group"][name] for name, size in sizes.items() if size >= 20}
    assert test["worst_group"] == large[test["worst_group_name"]] == min(large.values())
    assert test["worst_group_n"] == sizes[test["worst_group_name"]]
    assert right / n < test["worst_group"]  # the model leans on the product, so these are the ones that matter

    told = f"{n} samples in {len(small)} small group{'s' if len(small) > 1 else ''}: {100 * right / n:.1f}"
    page = eh.report(own_run).read_text(encoding="utf-8")
    lede = page.split('<p class="lede">')[1].split("</p>")[0]
    assert told in lede
    assert lede.index(told) < lede.index("worst group")
    assert "; ".join(small) in lede
    assert test["worst_group_name"] in lede
    assert '<th scope="col" class="number">Small groups</th>' in page
    for name in ("methods.md", "methods.tex"):
        assert "; ".join(small) in (own_run / "tables" / name).read_text(encoding="utf-8")
    with (own_run / "tables" / "runs.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert float(row["small_groups"]) == test["small_groups"]["accuracy"]
    assert (row["small_groups_n"], row["small_groups_names"]) == (str(n), "; ".join(small))
    assert (row["worst_group_name"], row["worst_group_n"]) == (test["worst_group_name"], str(test["worst_group_n"]))
    assert told in (own_run / "model" / "README.md").read_text(encoding="utf-8")
    (method,) = json.loads((own_run / "report.json").read_text(encoding="utf-8"))["sections"][0]["methods"]
    assert method["worst_and_small_groups"]["small_groups"]["samples"] == n

    curve = content["stages"][-1]["curve"]
    assert len(curve["small_groups"]) == len(curve["worst_group"]) == len(curve["epoch"])
    assert curve["small_groups_n"] == sum(
        size for size in content["group_sizes"]["validation"].values() if 0 < size < 20
    )
    assert set(curve["worst_group_name"]) <= set(test["by_group"])

    capsys.readouterr()
    evaluate = ["evaluate", str(own_run), "--data", str(own_run.parent / "reviews.csv"), "--on", "test"]
    assert main(evaluate) == 0
    shown = capsys.readouterr().out
    assert told in shown
    assert "; ".join(small) in shown
    assert f"({test['worst_group_name']}: {test['worst_group_n']} samples)" in shown
    assert (
        main(["evaluate", str(own_run), "--data", str(own_run.parent / "reviews.csv"), "--on", "test", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)["splits"]["test"]["metrics"]
    assert found == {name: value for name, value in test.items() if name != "by_group"}


def test_the_terminal_tells_a_run_of_them(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((own_run / "record.json").read_text(encoding="utf-8"))
    small = content["metrics"]["small_groups"]
    given = training(own_run.parent / "reviews.csv", own_run)
    capsys.readouterr()
    assert main(given) == 0  # a finished run is shown, not trained again
    shown = capsys.readouterr().out
    assert f"{small['n']} samples in {len(small['groups'])} small group" in shown
    assert "small groups %" in shown
    assert shown.index("in 2 small groups") < shown.index("Worst group of 20 samples or more ")


# ---- records of before, which have accuracies and sizes alone --------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=150))
def test_from_an_older_record_the_same_is_found(samples: list[tuple[bool, int]]) -> None:
    right_N = np.array([right for right, _ in samples])
    group_N = np.array([group for _, group in samples])
    groups = {f"class, {group}": group_N == group for group in range(6)}
    new: dict[str, Any] = dict(group_metrics(right_N, groups))
    older = {name: new[name] for name in ("average", "worst_group", "by_group")}
    sizes = {name: int(member_N.sum()) for name, member_N in groups.items()}
    for ours, theirs in zip(told_groups(older, sizes, len(samples)), told_groups(new), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert (ours.names, ours.n) == (theirs.names, theirs.n)
            assert ours.accuracy == pytest.approx(theirs.accuracy)
            assert ours.interval == pytest.approx(theirs.interval)


def test_what_an_older_record_does_not_say_is_not_invented() -> None:
    found = {"worst_group": 0.5, "by_group": {"a, x": 0.5, "b, x": 0.9, "b, y": 0.1, "a, y": 0.2}}
    worst, small = told_groups(found, None, None, ["b, y", "a, y"])
    assert worst is not None
    assert worst_text(worst) == "worst group 50.0 % (a, x: size not recorded)"
    assert small is not None
    assert small_text(small) == ("an unknown number of samples in 2 small groups: accuracy not recorded (b, y; a, y)")
    assert not is_lower((worst, small))
    # groups that may overlap: 5 + 5 + 40 samples of 45
    worst, small = told_groups(found, {"a, x": 40, "b, y": 5, "a, y": 5}, 45)
    assert (small and small.names, small and small.accuracy, small and small.n) == (("b, y", "a, y"), None, None)
    # two groups are as bad as the worst: neither is named without sizes
    worst, _ = told_groups({"worst_group": 0.5, "by_group": {"a": 0.5, "b": 0.5}})
    assert worst is not None
    assert worst.names == ()
    assert told_groups({"worst_group": None, "by_group": {}}) == (None, None)


def test_older_records_are_read_as_before_and_show_what_they_know(tmp_path: Path) -> None:
    entry = record()
    entry["metrics"]["by_group"]["0 aligned"] = 0.2  # one of five right, and no accuracy of another group is as low
    assert "small_groups" not in entry["metrics"]
    write_run(tmp_path, entry)
    worst, small = record_groups(entry)
    assert (worst and worst.names, small and (small.names, small.n)) == (("1 conflicting",), (("0 aligned",), 5))
    assert weakest((worst, small)) == 0.2
    page = eh.report(tmp_path).read_text(encoding="utf-8")
    assert "5 samples in 1 small group: 20.0%" in page


@pytest.mark.parametrize("broken", [7, "x", {"n": "many"}, {"groups": [], "n": 1}, {"groups": ["a"], "accuracy": 9}])
def test_a_damaged_part_of_a_record_stops_no_report(tmp_path: Path, broken: Any) -> None:
    measured = metrics(0.9, 0.4) | {"small_groups": broken, "worst_group_name": broken, "worst_group_n": broken}
    write_run(tmp_path, record(metrics=measured, tests={"test": measured}))
    assert "Accuracy by method" in eh.report(tmp_path).read_text(encoding="utf-8")


# ---- names with commas -----------------------------------------------------------------------------------------------


def test_names_that_hold_commas_are_told_apart() -> None:
    assert named(["a, x", "b, y"]) == "a, x; b, y"
    assert named(["a, x"], 1) == "a, x"
    assert named([f"{i}, x" for i in range(5)], 3) == "0, x; 1, x; and 3 more"
    texts = group_texts(told_groups(group_metrics(np.zeros(9, dtype=bool), {"a, x": np.ones(9, dtype=bool)})))
    assert texts == ["9 samples in 1 small group: 0.0 %, 95 % interval 0.0 to 29.9 (a, x)"]


# ---- evenhand.Trainer ------------------------------------------------------------------------------------------------


def test_the_trainers_metrics_name_the_groups(tmp_path: Path) -> None:
    data = grouped()
    trainer = trainer_of(tmp_path, eval_dataset=data)
    found = trainer.evaluate()
    assert found["eval_worst_group_name"] in ("0 aligned", "1 conflicting")
    assert found["eval_worst_group"] == found[f"eval_accuracy_{found['eval_worst_group_name']}"]
    assert found["eval_worst_group_low"] < found["eval_worst_group"] < found["eval_worst_group_high"]
    assert found["eval_small_groups_names"] == ["rare"]
    assert found["eval_small_groups"] == found["eval_accuracy_rare"]
    logged = trainer.state.log_history[-1]
    assert logged["eval_small_groups_n"] == found["eval_small_groups_n"]
    assert all(isinstance(value, int | float) for value in logged.values())  # what loggers take


BEST = {"num_train_epochs": 1, "eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}


@pytest.mark.parametrize("several", [False, True])
def test_a_best_model_by_a_metric_that_is_not_defined_is_refused(several: bool, tmp_path: Path) -> None:
    data: Any = grouped(30)  # each group has fewer than 20 rows
    prefix = "two_" if several else ""
    settings = BEST | {"metric_for_best_model": f"{prefix}worst_group"}
    evaluated = {"one": grouped(), "two": data} if several else data
    trainer = trainer_of(tmp_path, train_dataset=grouped(16), eval_dataset=evaluated, args=settings)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"has no group of 20 rows or more .*'small_groups'.*metric_for_best_model"):
        trainer.train()
    for name, value in trainer.model.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("metric", ["small_groups", "eval_worst_group", "accuracy", "loss"])
def test_a_best_model_by_a_metric_that_is_defined_is_chosen(metric: str, tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        train_dataset=grouped(16),
        eval_dataset=grouped(),
        args=BEST | {"metric_for_best_model": metric},
    )
    trainer.train()
    assert trainer.state.best_metric == trainer.state.log_history[-2][f"eval_{metric.removeprefix('eval_')}"]
