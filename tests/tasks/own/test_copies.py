from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

import evenhand as eh
from evenhand.data.columns import column_values


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def table(path: Path, rows: list[tuple[str, str]], **columns: Any) -> Path:
    pd.DataFrame(rows, columns=["text", "label"]).assign(**columns).to_csv(path, index=False)
    return path


def drawn(task: eh.Task) -> dict[str, set[str]]:
    return {name: set(split["text"]) for name, split in task.splits.items()}


def apart(texts: dict[str, set[str]]) -> bool:
    return sum(map(len, texts.values())) == len(set.union(*texts.values()))


def test_copies_are_counted_and_stay_together(tmp_path: Path) -> None:
    rows = [(f"t {i}", "ab"[i % 2]) for i in range(60)]
    path = table(tmp_path / "a.csv", [*rows, *rows[:20], ("t 0", "b"), ("t 1", "a")])
    for seed in range(5):
        task = eh.OwnData(data=path, text="text").build(seed)
        assert apart(drawn(task))
        assert sum(map(len, task.splits.values())) == 82
        assert task.notes[0].endswith("were drawn for it by the data's seed, class by class, copies together.")
        assert (
            task.notes[2] == "22 rows repeat the text of an earlier one: 20 with the same label and 2 with another one."
        )


@given(
    st.lists(st.tuples(st.integers(0, 25), st.sampled_from("abc")), min_size=30, max_size=120),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_copy_falls_on_both_sides(tmp_path: Path, rows: list[tuple[int, str]], seed: int) -> None:
    path = table(tmp_path / "a.csv", [(f"t {i}", label) for i, label in rows])
    try:
        task = eh.OwnData(data=path, text="text").build(seed)
    except eh.UserError as error:
        assert "too few to take splits from" in str(error) or "one class only" in str(error)  # noqa: PT017
        return
    assert apart(drawn(task))
    found = [(row["text"], task.label_names[row["labels"]]) for split in task.splits.values() for row in split]
    assert sorted(found) == sorted((f"t {i}", label) for i, label in rows)
    assert all(len(split) for split in task.splits.values())
    assert len(set(column_values(task.train, "labels").tolist())) == len(task.label_names)


def test_without_copies_the_draw_is_what_it_was(tmp_path: Path) -> None:
    rows = [(f"t {i}", "abc"[i % 3]) for i in range(90)]
    path = table(tmp_path / "a.csv", rows, place=["xy"[i // 2 % 2] for i in range(90)])
    task = eh.OwnData(data=path, text="text", group="place").build(7)
    found = json.dumps({name: split["text"][:] for name, split in task.splits.items()})
    assert (
        hashlib.sha256(found.encode()).hexdigest() == "5dd5cdddd9a5f0bbbcd4f2cb24d57a57fba7b0bb98989ae5d086db7e648e83d1"
    )
    assert not any("repeat" in note or "copies" in note for note in task.notes)


def test_copies_of_training_rows_in_given_splits_are_said(tmp_path: Path) -> None:
    rows = [(f"t {i}", "ab"[i % 2]) for i in range(60)]
    test = table(tmp_path / "test.csv", [*rows[:7], ("new", "a")])
    task = eh.OwnData(data=table(tmp_path / "a.csv", rows), text="text", test_data=test).build(0)
    again = len(set(task.tests["test"]["text"]) & set(task.train["text"]))
    assert (
        f"The test split has {again} rows whose text is among the training rows too, so its numbers partly tell what "
        "was remembered."
    ) in task.notes
    assert not set(task.train["text"]) & set(task.validation["text"])


def test_pairs_are_copies_where_both_texts_are_the_same(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": ["x", "x", "xy", "x"] * 20, "b": [f"{i // 2 % 30}" for i in range(80)]})
    rows.assign(label=["p", "q"] * 40).to_csv(tmp_path / "a.csv", index=False)
    task = eh.OwnData(data=tmp_path / "a.csv", text=("a", "b")).build(0)
    pairs = {name: set(zip(split["text"], split["text_pair"], strict=True)) for name, split in task.splits.items()}
    assert sum(map(len, pairs.values())) == len(set.union(*pairs.values())) == len(rows[["a", "b"]].drop_duplicates())
    assert any("repeat the pair of an earlier one" in note for note in task.notes)


@pytest.mark.parametrize("inside", [False, True])
def test_pictures_are_copies_by_their_bytes(inside: bool, tmp_path: Path) -> None:
    names = []
    for i in range(40):
        names.append(f"{i}.png")
        pixels = np.random.default_rng(i // 2).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / names[-1])
    rows = pd.DataFrame({"image": names, "label": ["ab"[i // 2 % 2] for i in range(40)], "id": range(40)})
    if inside:
        rows["image"] = [{"bytes": (tmp_path / name).read_bytes(), "path": None} for name in names]
        rows.to_parquet(tmp_path / "rows.parquet")
    else:
        rows.to_csv(tmp_path / "rows.csv", index=False)
    place = tmp_path / ("rows.parquet" if inside else "rows.csv")
    task = eh.OwnData(data=place, image="image", id="id").build(0)
    pictures = {name: {int(i) // 2 for i in split["id"]} for name, split in task.splits.items()}
    assert sum(map(len, pictures.values())) == 20
    assert "20 rows repeat the picture of an earlier one: 20 with the same label and 0 with another one." in task.notes


def test_a_class_of_copies_alone_is_drawn_row_by_row_and_said(tmp_path: Path) -> None:
    rows = [(f"t {i}", "a") for i in range(60)] + [("same", "b")] * 30
    task = eh.OwnData(data=table(tmp_path / "a.csv", rows), text="text").build(0)
    assert {name: int(np.sum(np.asarray(split["labels"]) == 1)) for name, split in task.splits.items()} == {
        "train": 21,
        "validation": 3,
        "test": 6,
    }
    assert (
        "The class 'b' has 30 training rows with only 1 different text, so copies of a row fall on both sides of the "
        "splits drawn: accuracy there tells what was remembered."
    ) in task.notes
    assert "The test split has 6 rows whose text is among the training rows too" in " ".join(task.notes)


def test_a_class_without_rows_for_the_splits_is_too_small(tmp_path: Path) -> None:
    rows = [(f"t {i}", "a") for i in range(60)] + [("same", "b")] * 2
    with pytest.raises(eh.UserError, match=r"^The class 'b' has 2 training rows with only 1 different text, too"):
        eh.OwnData(data=table(tmp_path / "a.csv", rows), text="text").build(0)
