"""Shortcuts that have a name, from what is asked for to the record and back."""

from __future__ import annotations

import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.runs.configuration import Configuration, shipped_training
from evenhand.runs.prepared import Asked, prepare
from evenhand.runs.record import Record
from evenhand.shortcuts import Shortcut
from evenhand.tasks import Task

PRODUCTS = ("nimbus", "pebble", "kettle")
QUEUES = ("refund", "repair", "praise")


def write_tickets(path: Path, n: int = 120, conflict: float = 0.2, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    lines = ["ref,body,group,product,queue"]
    for row in range(n):
        queue = row % 3
        product = (queue + 1) % 3 if rng.random() < conflict else queue
        words = " ".join(rng.choice(["it", "broke", "again"], 3))
        lines.append(
            f"T{row},{words} {row} the {PRODUCTS[product]},{'ab'[row % 2]},{PRODUCTS[product]},{QUEUES[queue]}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tickets(tmp_path_factory.mktemp("tickets") / "t.csv")


def own_data(table: Path, **more: Any) -> eh.OwnData:
    return eh.OwnData(data=table, text="body", label="queue", id="ref", **more)


def configuration(table: Path, *shortcuts: Any, **more: Any) -> Configuration:
    return prepare("fit", eh.ERM(), own_data(table, **more), Asked("tiny-bert", shortcuts=shortcuts)).configuration


def fit(table: Any, folder: Path, method: Any = None, **more: Any) -> eh.Result:
    task = own_data(table) if isinstance(table, Path) else table
    return eh.fit(method or eh.ERM(), task, "tiny-bert", output_dir=folder, epochs=1, **more)


# ---- what names a run -----------------------------------------------------------------------------------------------


def test_the_order_of_shortcuts_and_of_their_tokens_makes_no_other_run(table: Path) -> None:
    first = configuration(table, "token:nimbus|pebble", "column:product")
    second = configuration(table, "column:product", "token:PEBBLE|Nimbus")
    assert (first.run_hash, first.cell_hash) == (second.run_hash, second.cell_hash)
    assert first.as_dict()["shortcuts"] == ["token:nimbus|pebble", "column:product"]  # as they were given
    others = [configuration(table), configuration(table, "token:nimbus|pebble"), configuration(table, "token:nimbus")]
    assert len({one.run_hash for one in (first, *others)}) == 4
    assert len({one.cell_hash for one in (first, *others)}) == 4


def test_without_shortcuts_nothing_in_a_configuration_tells_of_them(table: Path) -> None:
    plain = configuration(table)
    assert "shortcuts" not in plain.as_dict()
    assert "shortcuts" not in own_data(table).settings()
    assert own_data(table, shortcuts="token:nimbus").settings() == own_data(table).settings()
    made = Configuration(
        method=eh.ERM(),
        task=own_data(table),
        model="tiny-bert",
        training=shipped_training(own_data(table), "tiny-bert", None, False),
        seed=0,
        data_seed=0,
    )
    assert plain.run_hash == made.run_hash


def test_named_with_the_data_or_beside_them_it_is_one_run(table: Path) -> None:
    inside = configuration(table, shortcuts=["token:nimbus"])
    assert inside.run_hash == configuration(table, "token:nimbus").run_hash
    assert inside.task == own_data(table)
    with pytest.raises(eh.UserError, match=r"named twice, with the data \(token:nimbus\) and beside them \(length\)"):
        configuration(table, "length", shortcuts=["token:nimbus"])


def test_a_shortcut_of_ones_own_goes_by_its_values(table: Path) -> None:
    def product(row: dict[str, Any]) -> str:
        return row["product"]

    by_row = configuration(table, eh.OwnShortcut("mine", product))
    batched = configuration(table, eh.OwnShortcut("mine", lambda rows: rows["product"], batched=True))
    splits = own_data(table).build(0).splits
    beside = own_data(table).build(0).beside
    assert beside is not None
    arrays = {name: beside(name).column("product") for name in splits}
    array = configuration(table, eh.OwnShortcut("mine", arrays))
    assert by_row.run_hash == batched.run_hash == array.run_hash
    assert by_row.command() is None
    assert by_row.as_dict()["shortcuts"][0]["name"] == "mine"
    other = configuration(table, eh.OwnShortcut("mine", lambda row: row["group"]))
    assert other.run_hash != by_row.run_hash
    assert configuration(table, eh.OwnShortcut("yours", product)).run_hash != by_row.run_hash


def test_the_command_repeats_the_run_word_by_word(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    given = ("token:nimbus|pebble", "column:product")
    asked = Asked("tiny-bert", epochs=1, shortcuts=given)
    made = prepare("fit", eh.ERM(), own_data(Path("t.csv")), asked).configuration
    command = made.command()
    assert command is not None
    assert "'token:nimbus|pebble'" in command
    program, *words = shlex.split(command)
    assert program == "evenhand"
    assert main([*words, "--output-dir", str(tmp_path / "run")]) == 0
    record = Record.load(tmp_path / "run/record.json")
    assert (record.configuration, record.command) == (made.run_hash, command)
    assert record.shortcuts == list(given)


def test_configurations_with_shortcuts_reach_other_processes(table: Path) -> None:
    made = configuration(table, "token:nimbus|pebble")
    again = pickle.loads(pickle.dumps(made))
    assert (again.run_hash, again.shortcuts) == (made.run_hash, (Shortcut.parse("token:nimbus|pebble"),))
    data = own_data(table, shortcuts=["token:nimbus"])
    assert pickle.loads(pickle.dumps(data)) == data


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_says_its_shortcuts_and_goes_on_with_no_others(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = fit(table, folder, shortcuts="token:nimbus|pebble")
    record = Record.load(folder / "record.json")
    assert record.shortcuts == ["token:nimbus|pebble"]
    (fitted,) = record.shortcuts_fitted
    assert (fitted["spelling"], fitted["classes"]) == ("token:nimbus|pebble", ["praise", "refund", "repair"])
    assert record.task.settings == own_data(table).settings_beside(own_data(table).data_files())  # type: ignore[arg-type]
    assert record.split("test").conflicting
    before = (folder / "record.json").stat().st_mtime_ns
    again = fit(table, folder, shortcuts=iter(["token:pebble|nimbus"]))  # as it was
    assert (folder / "record.json").stat().st_mtime_ns == before
    assert again.metrics == result.metrics
    for other, told in ((["token:nimbus"], "token:nimbus"), ([], "none")):
        with pytest.raises(eh.UserError) as caught:
            fit(table, folder, shortcuts=other)
        expected = f"another configuration (shortcuts token:nimbus|pebble → {told}; stored → asked)"
        assert expected in str(caught.value)


def test_balance_needs_a_name_and_rows_that_go_against_it(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(eh.UserError, match="needs a shortcut's name"):
        fit(table, folder, eh.Balance())
    clean = write_tickets(tmp_path / "leak.csv", conflict=0)
    with pytest.raises(eh.UserError, match=r"No training row goes against 'column:product'"):
        fit(clean, folder, eh.Balance(), shortcuts=["column:product"])
    assert not folder.exists()
    assert fit(table, folder, eh.Balance(), shortcuts=["column:product"]).record["status"] == "done"


def test_a_task_that_was_built_with_shortcuts_is_taken_with_them(table: Path, tmp_path: Path) -> None:
    built = own_data(table, shortcuts="column:product").build(0)
    with pytest.raises(eh.UserError, match=r"named already \(column:product\)"):
        fit(built, tmp_path / "run", shortcuts=["length"])
    result = fit(built, tmp_path / "run")
    assert isinstance(built, Task)
    assert result.record["shortcuts"] == ["column:product"]
    assert result.metrics["conflicting"] is not None


def test_evaluate_measures_a_run_by_its_own_shortcuts_and_by_others(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fit(table, tmp_path / "run", shortcuts="column:product")
    found = eh.evaluate(tmp_path / "run", own_data(table), on="test")["test"]
    assert found.result.metrics["conflicting"] == result.metrics["conflicting"]
    words = ["evaluate", str(tmp_path / "run"), "--data", str(table), "--json", "--on", "test"]
    assert main([*words, "--shortcut", "token:nimbus"]) == 0
    sizes = json.loads(capsys.readouterr().out)["splits"]["test"]["shares"]
    own = own_data(table, shortcuts="token:nimbus").build(0).shortcuts
    assert own is not None
    assert {side: share["n"] for side, share in sizes.items() if side != "average"} == {
        side: n for side, n in own.sizes("test")["token:nimbus"].items() if side in sizes
    }
    new = write_tickets(tmp_path / "new.csv", seed=1)
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(new), "--shortcut", "token:nimbus"]) == 2
    assert "is learnt from training rows, but the data to measure have none" in capsys.readouterr().err
    fit(table, tmp_path / "own", shortcuts=eh.OwnShortcut("mine", lambda row: row["product"]))
    found = eh.evaluate(tmp_path / "own", own_data(table), on="test")["test"]
    assert "mine" not in str(found.shares)
    assert "The shortcut 'mine' comes from Python, so it isn't measured here." in found.notes


# ---- mistakes, before anything is trained or written ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--shortcut token:absent", "No training row has the token 'absent'"),
        ("--shortcut token:the", "The token 'the' is on every training row"),
        ("--shortcut column:queue", "The column 'queue' is the label"),
        ("--shortcut column:labels", "The column 'labels' is the label"),
        ("--shortcut column:ref", "The column 'ref' is the name of the row"),
        ("--group product --shortcut column:product", "The column 'product' is the group"),
        ("--group product --shortcut column:attribute", "The column 'attribute' is the group"),
        ("--split part --shortcut column:part", "The column 'part' is the split"),
        ("--shortcut column:body", "The column 'body' is the text itself"),
        ("--shortcut column:same", "All training rows have the same value of 'column:same' ('x')"),
        ("--shortcut column:prodct", "has no column 'prodct' (did you mean 'product'"),
        ("--shortcut colour", "The split 'train' holds no pictures"),
        ("--shortcut file:folder", "The split 'train' holds no picture files"),
        ("--shortcut token:nimbus --shortcut token:Nimbus", "The shortcut 'token:nimbus' is given 2 times"),
        ("--shortcut column:product --shortcut column:product:entries", "are one rule by two names"),
        ("--shortcut token:nimbus --shortcut 'token:nimbus|it'", "which contradict each other"),
        ("--shortcut ''", "Got an empty text"),
        ("--shortcut token:nimbus,token:pebble", "several shortcuts are a list of spellings"),
        ("--shortcut toke:nimbus", "Unknown kind of shortcut 'toke' (did you mean 'token'?)"),
        ("--shortcut token:-", "No training row has the token '-'"),
        ("--shortcut=-", "Unknown kind of shortcut '-'"),
        (
            "--test-data other.csv --shortcut column:product",
            "No row of the split 'test' has a value of 'column:product'",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    words: str, message: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = table.read_text().splitlines()
    parts = ["train", "train", "test"]
    more = [lines[0] + ",same,part", *(f"{line},x,{parts[i // 3 % 3]}" for i, line in enumerate(lines[1:]))]
    Path("t.csv").write_text("\n".join(more))
    changed = [line.replace(product, "toaster") for line in more[1:] for product in PRODUCTS if product in line]
    Path("other.csv").write_text("\n".join([more[0], *(f"X{line}" for line in changed)]))
    command = f"train erm --data t.csv --text body --label queue --id ref --model tiny-bert --output-dir out {words}"
    assert main(shlex.split(command)) == 2
    _, err = capsys.readouterr()
    assert err.startswith("evenhand: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["other.csv", "t.csv"]


def test_some_values_that_training_lacks_are_a_note(table: Path, tmp_path: Path) -> None:
    lines = write_tickets(tmp_path / "x.csv", 30, seed=5).read_text().splitlines()
    test = tmp_path / "test.csv"
    test.write_text("\n".join([lines[0], *(f"X{line}" for line in lines[1:]), "Y,it,a,toaster,refund"]))
    notes = own_data(table, test_data=test, shortcuts="column:product").build(0).notes
    assert any(note.startswith("1 row of the split 'test' (of 31) with a value of 'column:product'") for note in notes)


def test_columns_of_the_user_go_by_their_own_names_whatever_the_tasks_are_called(tmp_path: Path) -> None:
    text = write_tickets(tmp_path / "t.csv").read_text()
    renamed = tmp_path / "renamed.csv"
    for name in ("group", "index", "labels", "alignment", "text"):
        renamed.write_text(
            text.replace(",product,", f",{'x' if name == 'group' else 'group'},").replace("group,", f"{name},", 1)
        )
        built = own_data(renamed, shortcuts=f"column:{name}").build(0)
        assert built.shortcuts is not None
        assert built.shortcuts.fitted[0].names == ("a", "b")
