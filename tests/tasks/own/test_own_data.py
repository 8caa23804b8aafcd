from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

import evenhand as eh
from evenhand.data.cached_tables import cached_table
from evenhand.data.columns import column_values, membership
from evenhand.methods import EDGE
from evenhand.runs.configuration import Configuration
from evenhand.tasks import OwnData, Task
from evenhand.tasks.own.columns import sorted_names
from evenhand.tasks.own.parts import Columns
from evenhand.tasks.own.places import hub_place
from evenhand.tasks.own.rows import labelled
from evenhand.tasks.summary import data_summary

HEADER = ["sentence", "label", "place", "split", "key"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def table(n: int = 60, seed: int = 0) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [
        {
            "sentence": rng.choice(["NA", "null", 'he said "hi", then left', "two\nlines", "007", "ünïcödé"]) + f" {i}",
            "label": ("good", "bad", "ugly")[i % 3],
            "place": ("land", "water")[i % 2],
            "split": ("train", "train", "train", "dev", "test")[(i // 6) % 5],
            "key": f"k{i}",
        }
        for i in range(n)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            tabs = name.endswith(".tsv")
            if tabs:
                file.write("\t".join(rows[0]) + "\n")
                file.writelines("\t".join(str(v).replace("\n", " ") for v in row.values()) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    return path


def everything(task: Task) -> list[tuple[str, str, str]]:
    """(id, text, label) of all splits."""
    return sorted(
        (row["id"], row["text"], task.label_names[row["labels"]]) for split in task.splits.values() for row in split
    )


def refusal(data: Path | str | None, **options: Any) -> str:
    options = {"text": "sentence", "label": "label", **options}
    with pytest.raises(eh.UserError) as caught:
        OwnData(data=data, **options).build(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["my.csv", "my.csv.gz", "my.tsv", "my.jsonl", "my.parquet"])
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    rows = table()
    path = write(tmp_path / name, rows)
    before = sorted(tmp_path.iterdir())
    task = OwnData(data=path, text="sentence", label="label", group="place", id="key").build(0)
    flat = (lambda text: text.replace("\n", " ")) if ".tsv" in name else (lambda text: text)
    assert everything(task) == sorted((r["key"], flat(r["sentence"]), r["label"]) for r in rows)
    assert task.label_names == ("bad", "good", "ugly")
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 42, "validation": 6, "test": 12}
    for split in task.splits.values():
        assert column_values(split, "index").tolist() == list(range(len(split)))
        assert len(set(np.bincount(column_values(split, "labels")).tolist())) == 1  # class by class
    assert sorted(tmp_path.iterdir()) == before  # nothing is written beside the data


def test_parquet_in_three_lines(tmp_path: Path) -> None:
    pd.DataFrame(table()).to_parquet(tmp_path / "my.parquet")
    task = eh.OwnData(data=tmp_path / "my.parquet", text="sentence", label="label").build(0)
    assert len(task.train) == 42


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")).filter(str.strip), min_size=1)
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_text_of_a_csv_is_read_as_it_stands(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "other"], *([text, ""] for text in texts)])
    assert list(cached_table(path, {"text": "text"})["text"]) == texts


def test_a_table_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "my.csv", table())
    source = OwnData(data=path, text="sentence", label="label")
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "evenhand"
    source.build(0)
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    source.build(1)
    assert [f.stat().st_mtime_ns for f in cache.iterdir()] == [written]
    write(path, table(90))
    assert sum(map(len, source.build(0).splits.values())) == 90
    assert len(list(cache.iterdir())) == 2


def test_semicolons_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_bytes(b"\xef\xbb\xbfsentence;label\n" + b"".join(f"t {i};{i % 2}\n".encode() for i in range(30)))
    assert OwnData(data=path, text="sentence").build(0).label_names == ("0", "1")


def test_pairs_and_columns_with_our_own_names(tmp_path: Path) -> None:
    rows = [{"text_pair": f"a {i}", "text": f"b {i}", "labels": str(i % 2)} for i in range(30)]
    task = OwnData(data=write(tmp_path / "my.jsonl", rows), text=("text_pair", "text")).build(0)
    row = task.train[0]
    assert (row["text"][0], row["text_pair"][0]) == ("a", "b")


# ---- labels ---------------------------------------------------------------------------------------------------------


def test_classes_are_in_order_and_keep_their_names(tmp_path: Path) -> None:
    def names(values: list[Any], name: str = "my.jsonl") -> tuple[str, ...]:
        rows = [{"sentence": f"t {i}", "label": values[i % len(values)]} for i in range(60)]
        return OwnData(data=write(tmp_path / name, rows), text="sentence").build(0).label_names

    assert names([10, 9, 100]) == ("9", "10", "100")
    assert names(["10", "9"], "my.csv") == ("9", "10")
    assert names(["007", "07"], "my.csv") == ("007", "07")
    assert names([True, False]) == ("false", "true")
    assert names([1.0, 0.0], "my.parquet") == ("0", "1")
    assert sorted_names(["10", "-1", "1"]) == ["-1", "1", "10"]


def test_names_of_classes_in_parquet_are_kept_in_their_order(tmp_path: Path) -> None:
    features = datasets.Features({"t": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    dataset = datasets.Dataset.from_dict(
        {"t": [f"x {i}" for i in range(30)], "label": [i % 2 for i in range(30)]}, features=features
    )
    pq.write_table(dataset.with_format("arrow")[:].cast(features.arrow_schema), tmp_path / "my.parquet")
    assert OwnData(data=tmp_path / "my.parquet", text="t").build(0).label_names == ("pos", "neg")


def test_a_dictionary_column_of_pandas(tmp_path: Path) -> None:
    pd.DataFrame(table()).astype({"label": "category"}).to_parquet(tmp_path / "my.parquet")
    assert OwnData(data=tmp_path / "my.parquet", text="sentence").build(0).label_names == ("bad", "good", "ugly")


def with_label(path: Path, values: dict[int, Any], others: tuple[Any, Any] = ("a", "b")) -> Path:
    return write(path, [{"sentence": f"t{i}", "label": values.get(i, others[i % 2])} for i in range(40)])


def test_mixed_labels(tmp_path: Path) -> None:
    assert refusal(with_label(tmp_path / "my.jsonl", {5: 1})) == (
        f"Line 6 of the file '{tmp_path}/my.jsonl' holds the number 1 in 'label', but line 1 holds a text: labels must "
        "be of one kind."
    )
    assert refusal(with_label(tmp_path / "my.csv", {5: "3"})) == (
        "The column 'label' of 'my.csv' mixes numbers ('3', row 6) and words ('a', row 1): labels must be of one kind."
    )
    assert refusal(with_label(tmp_path / "my.jsonl", {3: 0.5}, (0, 1))) == (
        f"Line 4 of the file '{tmp_path}/my.jsonl' holds the fraction 0.5 in 'label', which is no class."
    )
    assert refusal(with_label(tmp_path / "my.parquet", {3: 0.5}, (0.0, 1.0))) == (
        "Row 4 of 'my.parquet' holds the fraction 0.5 in 'label', which is no class."
    )
    assert refusal(with_label(tmp_path / "my.jsonl", {3: [1]})) == (
        f"Line 4 of the file '{tmp_path}/my.jsonl' holds a list or an object in 'label', where a label is expected."
    )


def test_rows_without_a_label(tmp_path: Path) -> None:
    path = with_label(tmp_path / "my.csv", {5: "-1", 7: "-1"}, ("0", "1"))
    assert refusal(path) == (
        "The column 'label' of 'my.csv' holds −1 beside other numbers (2 rows, the first is row 6), which often means "
        "'no label': leave them out with --drop-incomplete, or name the classes by words."
    )
    task = OwnData(data=path, text="sentence", drop_incomplete=True).build(0)
    assert task.label_names == ("0", "1")
    assert sum(map(len, task.splits.values())) == 38
    assert task.notes[0] == "2 rows of 'my.csv' without a label left out."
    assert refusal(with_label(tmp_path / "my.csv", {5: " "})) == (
        "Row 6 of 'my.csv' has no label in 'label' (1 in all): fill them in, or leave them out with --drop-incomplete."
    )


def test_one_class_and_a_column_of_no_classes(tmp_path: Path) -> None:
    assert refusal(with_label(tmp_path / "my.csv", {}, ("a", "a"))) == (
        "The column 'label' of 'my.csv' has one class only ('a'), so there is nothing to learn."
    )
    path = write(tmp_path / "my.csv", table())
    assert refusal(path, label="key") == (
        "The column 'key' of 'my.csv' has 60 different values in 60 rows, so it holds no classes: give the column of "
        "labels with --label."
    )


# ---- bad files ------------------------------------------------------------------------------------------------------


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "my.csv", table())
    has = f"The file '{path}' has no column"
    its = "its columns are sentence, label, place, split, key."
    assert refusal(path, text="sentense") == f"{has} 'sentense', given as --text (did you mean 'sentence'?); {its}"
    assert refusal(path, text=("sentence", "x")) == f"{has} 'x', given as --text (the second); {its}"
    assert refusal(path, group="plaec") == f"{has} 'plaec', given as --group (did you mean 'place' or 'label'?); {its}"
    assert refusal(path, id="keys") == f"{has} 'keys', given as --id (did you mean 'key'?); {its}"
    assert refusal(path, text=()) == (
        f"The file '{path}' needs the name of the column of texts, --text, or of pictures, --image "
        "(its columns are sentence, label, place, split, key)."
    )
    other = write(tmp_path / "other.csv", [{"sentence": "t", "y": "a"}])
    assert refusal(other, label=None) == (
        f"The file '{other}' has no column 'label': name the column of labels with --label; its columns are "
        "sentence, y."
    )
    twice = tmp_path / "twice.csv"
    twice.write_text("sentence,label,label\na,b,c\n")
    assert refusal(twice) == f"The file '{twice}' has 2 columns 'label', given as --label: rename one."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.csv", b"", "The file '{path}' is empty (0 bytes)."),
        ("my.parquet", b"", "The file '{path}' is empty (0 bytes)."),
        ("my.csv", b"sentence,label\n", "The file '{path}' has no rows."),
        ("my.csv", b"\n\n", "The file '{path}' has no column 'sentence', given as --text; its columns are none."),
        ("my.csv", b"PK\x03\x04", "The file '{path}' is a ZIP archive: unpack it first."),
        (
            "my.csv",
            b"sentence,label\nx,a\nna\xc3\xafve caf\xc3\xa9\xc3,b\n",
            "Line 3 of the file '{path}' is not UTF-8 text (byte 13 of the line is 0xc3): save the file as UTF-8 or "
            "name its encoding with --encoding.",
        ),
        ("my.csv", "sentence,label\n".encode("utf-16"), "The file '{path}' has no rows."),
        (
            "my.csv",
            b"sentence,label\nx,a\ny\n",
            "Line 3 of the file '{path}' has 1 field, but the first line names 2: it is",
        ),
        ("my.csv", b'sentence,label\n"a\nb",a\nx,y,z\n', "Line 4 of the file '{path}' has 3 fields, but"),
        (
            "my.csv",
            b'sentence,label\n"x,a\ny,b\n',
            "Line 2 of the file '{path}' is not valid CSV (unexpected end of data on line 3; a quote that is not",
        ),
        (
            "my.jsonl",
            b'{"sentence": "x", "label": "a"}\n{"sentence": "x", \n',
            "Line 2 of the file '{path}' is not valid JSON (expecting property name enclosed in double quotes).",
        ),
        (
            "my.jsonl",
            b"[\n1]",
            "Line 1 of the file '{path}' holds no JSON object: each line must be one, such as {{…}}. Got '['.",
        ),
        (
            "my.jsonl",
            b'{"sentence": 3, "label": "a"}\n',
            "Line 1 of the file '{path}' holds the number 3 in 'sentence', where a text is expected.",
        ),
        (
            "my.csv.gz",
            gzip.compress(b"sentence,label\n" + b"x,a\n" * 99, mtime=0)[:-20],
            "The file '{path}' is truncated: its",
        ),
        ("my.csv.gz", b"no gzip", "The file '{path}' is damaged, truncated or of another kind (Not a gzipped file"),
        (
            "my.csv.gz",
            gzip.compress(b"x", mtime=0)[:10] + b"\xff" * 40,
            "The file '{path}' is damaged, truncated or of another kind (",
        ),
        ("my.parquet", b"PAR1 no more", "The file '{path}' is damaged, truncated or of another kind ("),
        ("my.zip", b"PK", "The file '{path}' is an archive, which is not opened: unpack it first."),
        ("my.tar.gz", b"x", "The file '{path}' is an archive, which is not opened: unpack it first."),
        (
            "my.pkl",
            b"x",
            "The file '{path}' may hold a pickle, which could run any code and is never loaded: save the data as "
            "Parquet, CSV or JSONL.",
        ),
        ("my.xlsx", b"x", "The file '{path}' is a spreadsheet: save the sheet as CSV (UTF-8)."),
        ("my.txt", b"x", "The file '{path}' is of no kind that can be read: CSV (.csv), TSV (.tsv), JSONL (.jsonl)"),
    ],
)
def test_bad_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(path).startswith(message.format(path=path))
    assert not list((Path(datasets.config.HF_DATASETS_CACHE)).glob("evenhand/*"))  # nothing half-read stays


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    path = write(tmp_path / "my.csv", table())
    monkeypatch.setattr(pa, "OSFile", full)
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "evenhand"
    assert refusal(path) == f"There is no room for a copy of '{path}' in the cache folder '{cache}'."


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path / "my.parquet", table())
    path.write_bytes(path.read_bytes()[:-30])
    assert refusal(path).startswith(f"The file '{path}' is damaged, truncated or of another kind (")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", table())
    assert refusal(tmp_path / "mien.csv") == f"There is no file '{tmp_path}/mien.csv' (did you mean 'mine.csv'?)."
    assert refusal(None) == (
        "The task 'own-data' needs data: name a file, a folder or a data set of the hub with --data."
    )


def test_empty_texts(tmp_path: Path) -> None:
    rows = table()
    rows[4]["sentence"] = rows[9]["sentence"] = " "
    path = write(tmp_path / "my.csv", rows)
    assert refusal(path) == (
        "Row 5 of 'my.csv' has an empty text in 'sentence' (2 in all): fill them in, or leave them out with "
        "--drop-incomplete."
    )
    task = OwnData(data=path, text="sentence", drop_incomplete=True).build(0)
    assert task.notes[0] == "2 rows of 'my.csv' without a text left out."
    assert " " not in {text for split in task.splits.values() for text in split["text"]}


def test_duplicate_ids(tmp_path: Path) -> None:
    rows = table()
    rows[30]["key"] = rows[4]["key"]
    assert refusal(write(tmp_path / "my.csv", rows), id="key") == (
        "Rows 5 and 31 of 'my.csv' both have the id 'k4' in 'key' (1 id more than once): ids must be different."
    )


def test_numbers_in_a_column_of_texts(tmp_path: Path) -> None:
    rows = [{"sentence": i, "label": "ab"[i % 2]} for i in range(9)]
    path = write(tmp_path / "my.parquet", rows)
    assert refusal(path) == f"The column 'sentence' of '{path}' holds int64, no text."


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_splits_by_a_column(tmp_path: Path) -> None:
    path = write(tmp_path / "my.csv", table())
    task = OwnData(data=path, text="sentence", split="split").build(0)
    assert [len(task.splits[name]) for name in ("train", "validation", "test")] == [36, 12, 12]
    assert task.notes == ("Classes with fewer than 20 training samples: 'bad' (12); 'good' (12); 'ugly' (12).",)
    assert refusal(path, split="place") == (
        "Row 1 of 'my.csv' has the split 'land' in 'place', which is none of train, validation, test (or 0, 1, 2)."
    )


def test_splits_by_files_and_by_options(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train.csv", table(60))
    write(folder / "dev.jsonl", table(12, 1))
    test = write(tmp_path / "other.csv", table(18, 2))
    task = OwnData(data=folder, text="sentence", test_data=test).build(0)
    assert [len(task.splits[name]) for name in ("train", "validation", "test")] == [60, 12, 18]
    assert refusal(folder, validation_data=test) == (
        "The option --validation-data gives a validation split, but the data name one themselves: give one of them."
    )
    (folder / "train.csv").rename(folder / "first.csv")
    assert refusal(folder) == (
        f"The folder '{folder}' holds dev.jsonl, first.csv, none of which is named train: give one file with --data, "
        "or name them train, validation and test."
    )


def test_drawn_splits_are_seeded_and_even_over_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "my.csv", table(600))
    source = OwnData(data=path, text="sentence", group="place", id="key")
    first, again, other = source.build(3), source.build(3), source.build(4)
    assert list(first.tests["test"]["id"]) == list(again.tests["test"]["id"]) != list(other.tests["test"]["id"])
    assert {int(member.sum()) for member in membership(first.tests["test"], "group").values()} == {20}
    assert first.notes == (
        "No test split was given: 120 rows, 20 % of those to train on, were drawn for it by the data's seed, class by "
        "class.",
        "No validation split was given: 60 rows, 10 % of those to train on, were drawn for it by the data's seed, "
        "class by class.",
    )
    rows = [*table(60), {**table(1)[0], "label": "rare"}]
    assert refusal(write(path, rows)) == (
        "The class 'rare' has 1 training row, too few to take splits from: add some, or give splits of your own with "
        "--split, --validation-data and --test-data."
    )


def test_one_split_for_a_trained_model(tmp_path: Path) -> None:
    source = OwnData(data=write(tmp_path / "my.csv", table(30)), text="sentence", group="place")
    split = source.one_split(["ugly", "good", "bad", "fair"])
    assert column_values(split, "labels").tolist() == [1, 2, 0] * 10
    assert list(membership(split, "group")) == [
        "ugly, land", "ugly, water", "good, land", "good, water", "bad, land", "bad, water",
    ]  # fmt: skip
    with pytest.raises(eh.UserError) as caught:
        source.one_split(["good", "Bad"])
    assert str(caught.value) == (
        "Row 2 of 'my.csv' has the label 'bad' in 'label', which is no class of the model (did you mean 'Bad'?); its "
        "classes are good, Bad."
    )


# ---- groups and the summary -----------------------------------------------------------------------------------------


def test_one_column_of_groups_is_crossed_with_the_label(tmp_path: Path) -> None:
    rows = table(600)
    rows[0]["place"] = ""
    task = OwnData(data=write(tmp_path / "my.csv", rows), text="sentence", group="place", id="key").build(0)
    places = {row["key"]: f"{row['label']}, {row['place']}" for row in rows}
    for split in task.splits.values():
        for name, member_N in membership(split, "group").items():
            assert [places[key] == name for key in split["id"]] == member_N.tolist()
    assert "attribute" not in task.train.column_names  # a row has none
    whole = OwnData(data=write(tmp_path / "my.csv", table()), text="sentence", group="place").build(0)
    assert whole.train.features["attribute"].names == ["land", "water"]


def test_several_columns_of_groups_overlap(tmp_path: Path) -> None:
    rows = [{**row, "old": str(i % 4 == 0)} for i, row in enumerate(table(240))]
    rows[1]["old"] = ""
    path = write(tmp_path / "my.csv", rows)
    task = OwnData(data=path, text="sentence", group=("place", "old"), id="key").build(0)
    by_key = {row["key"]: row for row in rows}
    for split in task.splits.values():
        groups = membership(split, "group")
        assert len(groups) == 12
        for i, key in enumerate(split["id"]):
            row = by_key[key]
            wanted = {f"{row['label']}, place={row['place']}"}
            wanted |= {f"{row['label']}, old={row['old']}"} if row["old"] else set()
            assert {name for name, member_N in groups.items() if member_N[i]} == wanted


def test_too_many_groups(tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "my.csv", table(300)), group="key") == (
        "The column 'key' of 'my.csv' has 300 different values, which are too many groups (at most 100): give a column "
        "of few values with --group."
    )


def test_the_summary_counts_and_warns(tmp_path: Path) -> None:
    rows = [
        {"sentence": f"t {i}", "label": "rare" if i % 25 == 0 else "common", "place": "a", "split": "train"}
        for i in range(100)
    ]
    rows += [
        {**row, "sentence": f"{split} {i}", "split": split}
        for i, row in enumerate(rows[:50])
        for split in ("dev", "test")
    ]
    rows[-1]["place"] = "b"
    task = OwnData(data=write(tmp_path / "my.csv", rows), text="sentence", split="split", group="place").build(0)
    summary = data_summary(task)
    assert summary.classes == {
        "common": {"train": 96, "validation": 48, "test": 48},
        "rare": {"train": 4, "validation": 2, "test": 2},
    }
    assert summary.groups["common, b"] == {"train": 0, "validation": 0, "test": 1}
    assert summary.imbalance == 24
    assert (
        task.notes
        == summary.warnings
        == (
            "Classes with fewer than 20 training samples: 'rare' (4).",
            "The classes are uneven: 'common' has 24 times the training samples of 'rare', so the average says little "
            "about the latter.",
            "Groups that stand in the test set only: 'common, b'; no method has learnt from them.",
        )
    )


# ---- the hub --------------------------------------------------------------------------------------------------------


def test_splits_of_the_hub_and_labels_of_minus_one() -> None:
    names = datasets.ClassLabel(names=["yes", "no"])

    def part(labels: list[int]) -> datasets.Dataset:
        features = datasets.Features({"q": datasets.Value("string"), "label": names, "n": datasets.Value("int64")})
        content = {"q": [f"t{i}" for i in range(len(labels))], "label": labels, "n": labels}
        return datasets.Dataset.from_dict(content, features=features)

    columns = Columns(("q",), None, None, (), None, None)
    loaded = {"train": part([0, 1] * 20), "validation": part([1, 0, -1]), "test": part([-1] * 5), "extra": part([0])}
    place = hub_place("someone/some", loaded, columns)
    assert place.notes == ("The splits extra of someone/some were not used.",)
    data = labelled([place], columns, drop=False)
    assert data.names == ["yes", "no"]
    assert data.notes[1:] == (
        "1 row of the split 'validation' of 'someone/some' without a label left out.",
        "5 rows of the split 'test' of 'someone/some' without a label left out.",
    )
    with pytest.raises(eh.UserError, match=r"^The split 'train' of 'someone/some' has no column 'quest', given as"):
        hub_place("someone/some", loaded, Columns(("quest",), None, None, (), None, None))
    with pytest.raises(eh.UserError, match=r"^The column 'n' of the data set 'someone/some' holds int64, no text\.$"):
        hub_place("someone/some", loaded, Columns(("n",), None, None, (), None, None))


def test_without_a_network_what_was_tried_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = refusal("someone/some")
    assert message.startswith(
        "'someone/some' is no file or folder here, and the Hugging Face hub was tried for a data set of that name "
        "without success ("
    )
    assert message.endswith(
        "without a network, give a file or folder with --data, such as what `hf download --repo-type dataset "
        "someone/some` fetched elsewhere."
    )


# ---- settings, the command line -------------------------------------------------------------------------------------


def test_what_names_a_run_is_the_content_and_no_path(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        write(folder / "my.csv", table())

    def run(folder: Path) -> Configuration:
        task = OwnData(data=folder / "my.csv", text=("sentence",), label="label", group=("place", "split"))
        training = task.training_for("MiniLM")
        return Configuration(method=EDGE(), task=task, model="MiniLM", training=training, seed=2, data_seed=2)

    assert run(first).run_hash == run(second).run_hash
    assert str(tmp_path) not in json.dumps(run(first).as_dict())
    assert run(first).command() == (
        "evenhand train edge --task own-data --data my.csv --text sentence --label label --group place split --seed 2"
    )
    write(second / "my.csv", table(63))
    assert run(first).run_hash != run(second).run_hash


def test_wrong_settings() -> None:
    for options, message in (
        ({"text": ("a", "b", "c")}, "The 'text' parameter of own-data takes one or two columns. Got 3."),
        ({"text": "a", "image": "b"}, "Own data are texts or pictures: give --text or --image, not both."),
        ({"group": ("a", "a")}, "The 'group' parameter of own-data names the column 'a' twice."),
        ({"image_side": 1}, "The 'image_side' parameter of own-data must be an integer from 4 to 4096. Got 1."),
    ):
        with pytest.raises(eh.UserError) as caught:
            OwnData(data="my.csv", **options)  # type: ignore[arg-type]
        assert str(caught.value) == message


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "he", "said", "null"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_table_is_trained_on_from_the_command_line(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from evenhand.cli.parser import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    write(tmp_path / "my.csv", table())
    words = "train edge --data my.csv --text sentence --label label --group place --lora --epochs 1 --output-dir run"
    assert main([*words.split(), "--model", str(bert_folder)]) == 0
    shown = capsys.readouterr()
    rows = [line.split("│")[1:-1] for line in shown.err.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert ["bad", "14 (33.3 %)", "2 (33.3 %)", "4 (33.3 %)"] in cells
    assert "ugly, water" in [row[0] for row in cells]
    assert shown.err.index("bad") < shown.err.index("stage 'debiased'")  # before training
    assert "Classes with fewer than 20 training samples: 'bad' (14); 'good' (14); 'ugly' (14)." in shown.err
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good", "2": "ugly"}
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["task"]["settings"]["data"] == "my.csv"
    assert len(record["metrics"]["by_group"]) == 6
    assert main(["train", "erm", "--data", "my.csv", "--text", "sentense"]) == 2
    assert "(did you mean 'sentence'?)" in capsys.readouterr().err


def test_own_options_need_data(capsys: pytest.CaptureFixture[str]) -> None:
    from evenhand.cli.parser import main

    assert main(["train", "--drop-incomplete", "erm"]) == 2
    assert capsys.readouterr().err == (
        "evenhand: error: The task 'colored-digits' has no option '--drop-incomplete'; with --data the task is "
        "own-data.\n"
    )


def test_own_data_in_a_study(tmp_path: Path) -> None:
    from evenhand.studies.plan import read_plan

    path = write(tmp_path / "my.csv", table())
    (tmp_path / "s.yaml").write_text(
        f"task: {{name: own-data, data: '{path}', text: [sentence], group: place}}\n"
        "seeds: 2\nmodel: MiniLM\nmethod: erm\n"
    )
    (cell,) = read_plan(tmp_path / "s.yaml").cells
    task = OwnData(data=path, text="sentence", group="place")
    assert cell.first.as_dict()["task"] == {"name": "own-data", "settings": task.options()}
    assert cell.first.files_as_recorded()["data"] == task.data_files()["data"].as_dict()  # type: ignore[union-attr]
    path.unlink()
    with pytest.raises(eh.UserError, match=r"^There is no file '.*my\.csv'\.$"):
        read_plan(tmp_path / "s.yaml").cells[0].first.as_dict()


# ---- columns beside -------------------------------------------------------------------------------------------------


def test_other_columns_are_kept_beside_the_rows_and_are_no_inputs(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": [f"text {i}" for i in range(60)],
            "label": ["a", "b", "c"] * 20,
            "site": [f"site {i % 5}" for i in range(60)],
            "id": range(60),
            "group": ["x", "y"] * 30,
            "index": range(60),
            "half": [None, 1.5] * 30,
        }
    )
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.assign(tags=[["t"]] * 60).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    frame.assign(tags=[["t"]] * 60).to_parquet(tmp_path / "rows.parquet")
    for name, nested in (("rows.csv", ()), ("rows.jsonl", ()), ("rows.parquet", ("tags",))):
        task = OwnData(data=tmp_path / name, text="text", group="group", id="id").build(0)
        assert not {"site", "half"} & set(task.train.column_names)
        assert task.beside is not None
        for split, rows in task.splits.items():
            beside = task.beside(split)
            assert {"site", "group", "index", "half"} <= set(beside.names)
            assert not {"text", "label", "id"} & set(beside.names)
            assert beside.nested == nested
            places = [int(text.split()[1]) for text in rows["text"]]
            assert beside.column("site").to_pylist() == [f"site {i % 5}" for i in places]
            assert [int(i) for i in beside.column("index").to_pylist()] == places


def test_columns_that_only_some_lines_or_files_have(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(60)]
    for i in range(21, 60):
        lines[i]["late"] = {"deep": i}
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    task = OwnData(data=tmp_path / "rows.jsonl", text="text").build(0)
    assert task.beside is not None
    late = task.beside("train").column("late").to_pylist()
    assert [entry is None for entry in late] == [int(text.split()[1]) <= 20 for text in task.train["text"]]
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, column in (("train", "shop"), ("test", "other")):
        rows = pd.DataFrame(
            {"text": [f"{name} {i}" for i in range(27)], "label": ["a", "b", "c"] * 9, column: range(27)}
        )
        rows.to_csv(folder / f"{name}.csv", index=False)
    split = OwnData(data=folder, text="text").build(0)
    assert split.beside is not None
    assert set(split.beside("train").names) == {"shop", "other"}
    assert split.beside("train").column("other").null_count == len(split.train)
    assert split.beside("test").column("other").null_count == 0


def test_what_names_a_run_is_the_same_with_columns_beside(tmp_path: Path) -> None:
    source = OwnData(data=write(tmp_path / "rows.csv", table()), text="sentence")
    before = source.settings()
    task = source.build(0)
    assert task.beside is not None
    assert task.beside("train").names == ("place", "split", "key")
    assert source.settings() == before
    assert set(before) == {"data", "text", "sha256"}


# ---- the encoding ---------------------------------------------------------------------------------------------------


def test_an_encoding_is_part_of_a_run_only_where_it_is_given(tmp_path: Path) -> None:
    rows = table()
    path = write(tmp_path / "my.csv", rows)
    assert "encoding" not in OwnData(data=path, text="sentence").settings()
    given = OwnData(data=path, text="sentence", encoding="UTF8")
    assert given.settings()["encoding"] == "utf-8"
    assert given.build(0).notes[0] == "'my.csv' was read as UTF-8, as --encoding says."
    path.write_bytes(path.read_bytes().decode().encode("cp1252"))
    found = OwnData(data=path, text="sentence").build(0)
    assert found.notes[0] == "'my.csv' is not UTF-8 and was read as Windows-1252 (cp1252); --encoding names another."
    assert any(text.startswith("ünïcödé") for text in found.train["text"])
    assert refusal(path, encoding="utf-8").startswith(f"Line 27 of the file '{path}' is not UTF-8 text (byte ")
    message = refusal(path, encoding="utf-16-le")
    assert f"The file '{path}', read as utf-16-le by --encoding," in message or "is not UTF-16-LE text" in message
    pd.DataFrame(rows).to_parquet(tmp_path / "my.parquet")
    assert refusal(tmp_path / "my.parquet", encoding="cp1252") == (
        "The 'encoding' parameter of own-data is for tables of text (CSV, TSV, JSONL), and the data have none."
    )


def test_columns_that_nothing_reads_are_read_in_the_given_encoding(tmp_path: Path) -> None:
    rows = [{**row, "town": "Köln"} for row in table()]
    path = write(tmp_path / "my.csv", rows)
    path.write_bytes(path.read_bytes().decode().encode("mac-roman"))
    task = OwnData(data=path, text="sentence", encoding="mac-roman").build(0)
    assert task.beside is not None
    assert set(task.beside("train").column("town").to_pylist()) == {"Köln"}


@pytest.mark.parametrize("verb", [["train", "erm"], ["audit"], ["tasks", "own-data"]])
def test_every_verb_on_own_data_takes_an_encoding(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.cli.parser import main

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.csv", table())
    options = ["--data", "my.csv", "--text", "sentence", "--encoding", "ascii"]
    assert main([*verb, *options]) == 2
    shown = capsys.readouterr().err
    assert "of the file 'my.csv' is not ascii text (byte " in shown
    assert "Traceback" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["my.csv"]


# ---- more bad files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.jsonl", b'{"sentence": "x", "label": "\\ud800"}', "Line 1 of the file '{path}' holds half a character ("),
        ("my.jsonl", b'{"sentence": "x", "label": "a", "sentence": "y"}', "is not valid JSON (a key stands twice)."),
        ("my.jsonl", b'{"sentence": "x", "label": 1e999}', "holds Infinity in 'label', which is no class."),
        ("my.jsonl", b'{"sentence": "x", "label": ' + b"9" * 5000 + b"}", "is not valid JSON (exceeds the limit (4300"),
        ("my.csv", b"sentence,label,\n,\n", "Line 2 of the file '{path}' has 2 fields, but the first line names 3"),
        ("my.csv", b",".join(b"c%d" % i for i in range(999)), "its columns are c0, c1, c2, c3, c4, c5, c6, c7, c8, c9"),
    ],
)  # fmt: skip
def test_odd_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = refusal(path)
    assert message.format(path=path) in found
    assert len(found) < 500


def test_bytes_in_parquet_that_are_no_text(tmp_path: Path) -> None:
    ends = pa.py_buffer(np.array([0, 1, 2], dtype=np.int32).tobytes())
    broken: Any = pa.Array.from_buffers(pa.string(), 2, [None, ends, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"sentence": broken, "label": ["a", "b"]}), tmp_path / "my.parquet")
    assert "(Invalid UTF8 sequence" in refusal(tmp_path / "my.parquet")


def test_names_that_are_empty_or_stand_twice_are_let_alone(tmp_path: Path) -> None:
    rows = "".join(f"{i},t {i},{'ab'[i % 2]},x,y\n" for i in range(40))
    (tmp_path / "my.csv").write_text(f",sentence,label,twice,twice\n{rows}")
    task = OwnData(data=tmp_path / "my.csv", text="sentence").build(0)
    assert task.beside is not None
    assert task.beside("train").names == ("",)
    twice = pa.Table.from_arrays(
        [pa.array([f"t {i}" for i in range(40)]), pa.array(["a", "b"] * 20), *[pa.array(range(40))] * 2],
        names=["sentence", "label", "twice", "twice"],
    )
    pq.write_table(twice, tmp_path / "my.parquet")
    task = OwnData(data=tmp_path / "my.parquet", text="sentence").build(0)
    assert task.beside is not None
    assert task.beside("train").names == ()
    assert refusal(tmp_path / "my.parquet", group="twice").endswith(
        "has 2 columns 'twice', given as --group: rename one."
    )
