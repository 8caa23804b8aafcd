"""Where rows of own data lie: every kind of file, several files, and lines that quotes, blanks and endings move."""

from __future__ import annotations

import csv
import gzip
import io
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

from evenhand.data.cached_tables import row_lines
from evenhand.tasks import OwnData, Task


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def rows(n: int = 40, start: int = 0) -> list[dict[str, str]]:
    breaks = ["\n", " ", "\r\n\n", ' "so" ']
    return [
        {"text": f"ticket{breaks[i % 4]}number {i}", "label": "ab"[i // 2 % 2], "ref": f"T{i}"}
        for i in range(start, start + n)
    ]


def as_csv(found: list[dict[str, str]], blank: int = 7) -> str:
    """With a blank line behind every seventh row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(found[0])
    for i, row in enumerate(found):
        writer.writerow(row.values())
        out.write("\n" * (i % blank == blank - 1))
    return out.getvalue()


def write(path: Path, found: list[dict[str, str]]) -> Path:
    if path.suffix == ".parquet":
        pd.DataFrame(found).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(map(json.dumps, found)), encoding="utf-8")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(as_csv(found).encode()))
    else:
        path.write_bytes(as_csv(found).encode())
    return path


def places(task: Task) -> dict[str, str]:
    """Text → where it lies, of all splits."""
    found = {}
    for name, split in task.splits.items():
        assert task.origins is not None
        origins = task.origins(name)
        assert len(origins.file_N) == len(split)
        found |= {text: origins.where(i) for i, text in enumerate(split["text"])}
    return found


@pytest.mark.parametrize("name", ["tickets.csv", "tickets.csv.gz", "tickets.jsonl", "tickets.parquet"])
def test_every_row_of_every_split_is_told_by_file_row_and_line(tmp_path: Path, name: str) -> None:
    written = rows()
    path = write(tmp_path / name, written)
    found = places(OwnData(data=path, text="text", label="label").build(3))
    assert len(found) == len(written)
    content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    starts: list[int] = []
    if "parquet" not in name:  # found by a reader that knows no more than whether a quote is open
        is_open = False
        for number, line in enumerate(content.decode().split("\n"), 1):
            starts += [number] * (not is_open and line != "")
            is_open ^= name.startswith("tickets.csv") and line.count('"') % 2 == 1
        starts = starts[1:] if "csv" in name else starts
    for i, row in enumerate(written):
        assert found[row["text"]] == f"{name} row {i + 1}" + (f" (line {starts[i]})" if starts else "")


def test_files_are_told_apart_and_an_id_may_stand_in_both(tmp_path: Path) -> None:
    train, test = write(tmp_path / "tickets.csv", rows()), write(tmp_path / "more.jsonl", rows(8))
    task = OwnData(data=train, test_data=test, text="text", label="label", id="ref").build(0)
    assert task.origins is not None
    assert task.tests["test"]["id"][:] == [f"T{i}" for i in range(8)]  # as rows of the training data are called
    assert [task.origins("test").where(i) for i in (0, 3)] == ["more.jsonl row 1 (line 1)", "more.jsonl row 4 (line 7)"]
    assert {*task.origins("train").file_N} == {"tickets.csv"}
    assert list(task.origins("test").columns()) == ["file", "row", "line"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    old, new = write(tmp_path / "old/data.csv", rows()), write(tmp_path / "new/data.csv", rows(8, 100))
    task = OwnData(data=old, test_data=new, text="text", label="label").build(0)
    assert task.origins is not None
    assert task.origins("test").where(0) == "new/data.csv row 1 (line 2)"
    assert {*task.origins("train").file_N} == {"old/data.csv"}


def test_rows_left_out_dont_move_the_numbers(tmp_path: Path) -> None:
    written = rows()
    written[3]["label"] = written[4]["text"] = ""
    path = write(tmp_path / "tickets.csv", written)
    found = places(OwnData(data=path, text="text", label="label", drop_incomplete=True).build(0))
    assert len(found) == len(written) - 2
    assert all(found[row["text"]].startswith(f"tickets.csv row {int(row['ref'][1:]) + 1} (") for row in written[5:])


def pictures(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)


def test_pictures_are_told_by_their_paths_below_the_folder(tmp_path: Path) -> None:
    names = [f"{split}/{c}/{i}.png" for split in ("train", "dev", "test") for c in ("cat", "dog") for i in range(3)]
    pictures(tmp_path / "pets", names)
    task = OwnData(data=tmp_path / "pets").build(0)
    assert task.origins is not None
    told = [task.origins(split).where(i) for split in task.splits for i in range(6)]
    assert told == names
    assert list(task.origins("test").columns()) == ["file"]
    assert task.origins("test").are_names(task.tests["test"]["id"][:])


def test_pictures_that_metadata_list_are_told_by_its_rows(tmp_path: Path) -> None:
    names = [f"{split}/{i}.png" for i in range(8) for split in ("train", "dev", "test")]
    pictures(tmp_path / "pets", names)
    found = [{"file_name": name, "label": "ab"[i // 3 % 2]} for i, name in enumerate(names)]
    write(tmp_path / "pets/metadata.csv", found)
    task = OwnData(data=tmp_path / "pets").build(0)
    assert task.origins is not None
    for split in task.splits:
        for i, name in enumerate(task.splits[split]["id"]):
            assert task.origins(split).where(i).startswith(f"metadata.csv row {names.index(name) + 1} (line ")


def test_the_hub_has_rows_and_no_lines(tmp_path: Path) -> None:
    from evenhand.tasks.own.origins import split_origins
    from evenhand.tasks.own.parts import Columns
    from evenhand.tasks.own.places import hub_place

    loaded = {"train": datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})}
    place = hub_place("owner/name", loaded, Columns(("text",), None, "label", (), None, None))
    found = split_origins(place.parts, {"train": np.array([1])}, "train")
    assert found.where(0) == "split 'train' of 'owner/name' row 2"


def test_a_file_that_is_gone_or_changed_costs_the_lines_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "tickets.csv", rows())
    task = OwnData(data=path, text="text", label="label").build(0)
    assert task.origins is not None
    whole = task.origins("test").where(0)
    path.write_text("text,label\nother,a\n", encoding="utf-8")
    assert task.origins("test").where(0) == whole.split(" (")[0]
    path.unlink()
    assert task.origins("test").where(0) == whole.split(" (")[0]


def test_where_rows_lie_is_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    """Neither splits nor their digests hold it, so configurations stay what they were."""
    task = OwnData(data=write(tmp_path / "tickets.csv", rows()), text="text", label="label").build(0)
    assert set(task.train.column_names) == {"text", "id", "labels", "index"}


cell = st.text(st.sampled_from('ab ,"\n\r;\t'), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.lists(st.tuples(cell, cell), min_size=1, max_size=12), ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_are_those_on_which_a_writer_began_each_row(tmp_path: Path, table: list[Any], ending: str) -> None:
    path, starts = tmp_path / "any.csv", []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerow(["one", "two"])
    for row in table:
        starts.append(len(out.getvalue().replace("\r\n", "\n").replace("\r", "\n").split("\n")))
        writer.writerow(row)
    path.write_bytes(out.getvalue().encode())
    found = row_lines(path)
    assert found is not None
    assert found.tolist() == starts


def test_new_data_are_told_too(tmp_path: Path) -> None:
    split, origins = OwnData(data=write(tmp_path / "new.csv", rows()), text="text", label="label").located_split(None)
    assert [origins.where(i) for i in (0, 1)] == ["new.csv row 1 (line 2)", "new.csv row 2 (line 4)"]
    assert len(origins.row_N) == len(split)
