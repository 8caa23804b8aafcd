from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.data.columns import picture_column, split_of, text_column
from evenhand.data.contents import row_contents
from evenhand.runs.evaluate import evaluate


def rows(first: int, n: int) -> pd.DataFrame:
    numbers = range(first, first + n)
    return pd.DataFrame(
        {
            "text": [f"word{i % 2} and number {i}" for i in numbers],
            "label": ["ab"[i % 2] for i in numbers],
            "place": ["pq"[i // 2 % 2] for i in numbers],
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    rows(0, 160).to_csv(folder / "own.csv", index=False)
    data = eh.OwnData(data=folder / "own.csv", text="text", group="place")
    eh.fit(eh.ERM(), data, "tiny-bert", epochs=1, output_dir=folder / "run", device="cpu")
    return folder / "run"


def test_new_data_keep_the_runs_groups_and_tell_which_rows_it_knows(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(80, 160).to_csv(tmp_path / "new.csv", index=False)
    found = evaluate(run, eh.OwnData(data=tmp_path / "new.csv"))["data"]
    assert set(found.groups) == {"a, p", "a, q", "b, p", "b, q"}
    known_N: Any = np.asarray(found.predictions["trained_on"])
    assert not known_N[80:].any()
    assert 0 < np.count_nonzero(known_N) <= 80
    assert found.notes[0].startswith(f"The run was trained on {known_N.sum()} of the 160 rows of 'data' (same content")
    assert str(found.predictions["id"][int(np.flatnonzero(known_N)[0])]) in found.notes[0]
    assert main(["evaluate", str(run), "--data", str(tmp_path / "new.csv")]) == 0
    out = capsys.readouterr().out
    assert "group a, p" in out
    assert found.notes[0] in out


def test_predictions_say_where_each_row_lies(run: Path, tmp_path: Path) -> None:
    found = rows(0, 30).assign(ref=[f"=T{i}" for i in range(30)])
    found["text"] = found["text"].str.replace("and", "and\n")  # two lines a row
    found.to_csv(tmp_path / "new.csv", index=False)
    table = tmp_path / "out.csv"
    data = ["--data", str(tmp_path / "new.csv"), "--text", "text", "--id", "ref", "--predictions", str(table)]
    assert main(["evaluate", str(run), *data]) == 0
    told = pd.read_csv(table)
    assert list(told.columns[:7]) == ["split", "index", "id", "file", "row", "line", "label"]
    assert told["id"].tolist() == [f"'=T{i}" for i in range(30)]  # no formula
    assert set(told["file"]) == {"new.csv"}
    assert told["row"].tolist() == list(range(1, 31))
    assert told["line"].tolist() == list(range(2, 62, 2))
    again = evaluate(run, eh.OwnData(data=run.parent / "own.csv", text="text"))  # the run's own splits
    for split in again.values():
        numbers = split.predictions["id"].astype(int)
        assert split.predictions["row"].tolist() == numbers.tolist()
        assert split.predictions["line"].tolist() == (numbers + 1).tolist()


def test_rows_that_are_all_new_need_no_word(run: Path, tmp_path: Path) -> None:
    rows(1000, 20).to_csv(tmp_path / "new.csv", index=False)
    found = evaluate(run, eh.OwnData(data=tmp_path / "new.csv"))["data"]
    assert list(found.predictions["trained_on"]) == [False] * 20
    assert found.notes == ()


def test_data_without_the_column_are_measured_without_groups_and_that_is_said(run: Path, tmp_path: Path) -> None:
    rows(1000, 20).drop(columns="place").to_csv(tmp_path / "new.csv", index=False)
    found = evaluate(run, eh.OwnData(data=tmp_path / "new.csv"))["data"]
    assert found.groups == {}
    assert found.notes[0].startswith("The run's groups aren't measured here: ")
    assert "'place'" in found.notes[0]


def test_a_run_without_its_rows_says_so(run: Path, tmp_path: Path) -> None:
    rows(1000, 20).to_csv(tmp_path / "new.csv", index=False)
    kept = run / "train_rows.npy"
    hidden = kept.rename(run / "hidden.npy")
    try:
        found = evaluate(run, eh.OwnData(data=tmp_path / "new.csv"))["data"]
    finally:
        hidden.rename(kept)
    assert "doesn't say which rows it was trained on" in found.notes[0]


def test_contents_are_the_same_for_equal_texts_and_pictures(tmp_path: Path) -> None:
    def texts(*values: str) -> datasets.Dataset:
        return split_of({"text": text_column(values)})

    first, second = row_contents(texts("a", "b", "a")), row_contents(texts("b"))
    assert first is not None
    assert second is not None
    assert first[0] == first[2] != first[1] == second[0]
    for name, colour in (("x.png", 10), ("y.png", 10), ("z.png", 200)):
        Image.new("L", (4, 4), colour).save(tmp_path / name)
    pictures = row_contents(split_of({"image": picture_column([str(tmp_path / f"{n}.png") for n in "xyz"])}))
    assert pictures is not None
    assert pictures[0] == pictures[1] != pictures[2]
    assert row_contents(split_of({"id": text_column(["a"])})) is None
