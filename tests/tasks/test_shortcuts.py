"""Named shortcuts on the tasks that the project builds, and on tasks of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import evenhand as eh
from evenhand.data.columns import class_column, column_values, membership, split_of, text_column
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.tasks import Task
from evenhand.tasks.shortcuts import with_shortcuts
from evenhand.validation import UserError
from snli_files import write_snli
from text_replicas import hans_beside_multinli, members, write_civil


def named(task: Task) -> NamedShortcuts:
    assert task.shortcuts is not None
    return task.shortcuts


def without(task: Task, *columns: str) -> Task:
    splits = {
        name: split.remove_columns([column for column in columns if column in split.column_names])
        for name, split in task.splits.items()
    }
    tests = {name: splits[name] for name in task.tests}
    return replace(task, train=splits["train"], validation=splits["validation"], tests=tests)


@pytest.mark.parametrize("spelling", ["column:attribute", "colour"])
def test_the_colour_of_digits_stands_as_their_construction_does(spelling: str) -> None:
    task = eh.ColoredDigits(conflict=0.1).build(0)
    found = with_shortcuts(task, [spelling])
    for name, split in task.splits.items():
        assert found.splits[name].column_names == split.column_names  # the construction's own stay
        sides = named(found).standing(name)
        agreed = np.mean(sides == column_values(split, "alignment"))
        assert agreed == 1 if spelling != "colour" else agreed > 0.95
    assert "The alignment and group of each row stay what the task has, whatever shortcuts are named." in found.notes


def test_a_task_without_sides_gets_them(tiny_task: Task) -> None:
    found = with_shortcuts(without(tiny_task, "alignment", "group"), ["column:attribute"])
    for name, split in tiny_task.splits.items():
        own = membership(split, "alignment")
        made = membership(found.splits[name], "alignment")
        assert all((made[side] <= own[side] if side == "aligned" else made[side] >= 0).all() for side in own)
        rows = sum(membership(found.splits[name], "group").values())
        assert set(np.asarray(rows).tolist()) == {1}
    names = [found.train.features["group"], *(test.features["group"] for test in found.tests.values())]
    assert all(each.names == names[0].names for each in names)
    met = {name for split in found.splits.values() for name, n in members(split).items() if n}
    assert met == set(names[0].names)  # no group without a row


def test_a_column_of_one_split_alone_is_made_for_none(tiny_task: Task) -> None:
    bare = without(tiny_task, "alignment", "group")
    partly = replace(bare, tests={"test": tiny_task.tests["test"]})
    found = with_shortcuts(partly, ["column:attribute"])
    assert "alignment" not in found.train.column_names
    assert found.tests["test"].features["alignment"] == tiny_task.tests["test"].features["alignment"]


def test_the_token_of_biased_snli(tmp_path: Path) -> None:
    task = eh.BiasedSNLI(data_dir=write_snli(tmp_path / "snli")).build(0)
    found = with_shortcuts(task, ["token:!!", "length"])
    for name in ("train", "test"):
        (tokens_N, _) = (of.value_N >= 0 for of in named(found).applied[name])
        pairs = zip(task.splits[name]["text"], task.splits[name]["text_pair"], strict=True)
        found_N = ["!!" in f"{first} {second}".split() for first, second in pairs]
        assert any(found_N)
        assert tokens_N.tolist() == found_N
    assert any("'clean'" in note and "'token:!!'" in note for note in found.notes)  # no row there has it
    with pytest.raises(UserError, match="has no text column 'premis'"):
        with_shortcuts(task, ["token:premis:!!"])


def test_tests_with_merged_classes_and_without_a_column(tmp_path: Path) -> None:
    task = eh.MNLIHANS(data_dir=hans_beside_multinli(tmp_path / "data")).build(0)
    assert task.merged
    found = with_shortcuts(task, ["token:no", "length"])
    for name, split in found.splits.items():
        label_N = column_values(split, "labels")
        for points_N, side_N in zip(named(found).points(name), named(found).standings(name), strict=True):
            assert points_N.max() < len(split.features["labels"].names)
            assert side_N.tolist() == [2 if p < 0 else int(p != y) for p, y in zip(points_N, label_N, strict=True)]


def test_overlapping_groups_stay(tmp_path: Path) -> None:
    task = eh.CivilComments(data_dir=write_civil(tmp_path)).build(0)
    odd = eh.OwnShortcut("odd", {name: np.arange(len(split)) % 2 for name, split in task.splits.items()})
    found = with_shortcuts(task, [odd])
    assert isinstance(found.train.features["group"], datasets.List)
    assert members(found.train) == members(task.train)
    assert named(found).sizes("train")["odd"].keys() == {"aligned", "conflicting", "independent"}


def pictures(folder: Path, n: int = 240) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for row in range(n):
        side, label = 20 + int(rng.integers(0, 30)), row % 2
        path = folder / "data" / ("cat", "dog")[label] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        level = 60 + 120 * (label if rng.random() > 0.1 else 1 - label)
        noise = rng.integers(0, 40, (side, side + 3, 3)) + level
        Image.fromarray(noise.astype(np.uint8)).save(path)
    return folder / "data"


def test_pictures_of_any_size(tmp_path: Path) -> None:
    task = eh.OwnData(data=pictures(tmp_path), shortcuts=["brightness"]).build(0)
    sizes = named(task).sizes("train")["brightness"]
    assert sizes["aligned"] > 2 * sizes["conflicting"]
    assert membership(task.train, "alignment")["aligned"].sum() == sizes["aligned"]
    with pytest.raises(UserError, match="holds no texts, so no token"):
        eh.OwnData(data=tmp_path / "data", shortcuts="token:cat").build(0)


def own_task(n: int = 60, **more: Any) -> Task:
    rng = np.random.default_rng(0)

    def split(classes: tuple[str, ...], leak: bool = True) -> datasets.Dataset:
        label_N = np.arange(n) % len(classes)
        words = np.where(rng.random(n) < 0.85, label_N, 1 - label_N % 2)
        texts = [f"{'red' if word == 0 else 'blue'} {row}" for row, word in enumerate(words)]
        columns = {"text": text_column(texts), "labels": class_column(label_N, classes)}
        return split_of(columns | ({"site": text_column([f"s{word}" for word in words])} if leak else {}))

    both = ("no", "yes")
    tests = {"test": split(both), "elsewhere": split(both, leak=False)}
    task = Task(name="mine", kind="text", train=split(both), validation=split(both), tests=tests, primary_test="test")
    return replace(task, **more)


def test_a_task_of_ones_own_needs_the_column_where_it_is_reported_on() -> None:
    found = with_shortcuts(own_task(), ["column:site"])
    assert named(found).sizes("elsewhere")["column:site"] == {"aligned": 0, "conflicting": 0, "independent": 60}
    assert any("'elsewhere' has no column 'site'" in note for note in found.notes)
    with pytest.raises(UserError, match="'elsewhere' has no column 'site'"):
        with_shortcuts(own_task(primary_test="elsewhere"), ["column:site"])
    with pytest.raises(UserError, match=r"named already \(column:site\)"):
        with_shortcuts(found, ["token:red"])
