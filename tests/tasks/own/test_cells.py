from __future__ import annotations

import csv
import datetime
import decimal
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

import evenhand as eh
from evenhand.data.columns import column_values, membership
from evenhand.tasks.own.cells import cell_text, is_whole

N = 40
TEXTS = [f"text {i}" for i in range(N)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def cycled(values: Sequence[Any]) -> list[Any]:
    return [values[i % len(values)] for i in range(N)]


def in_csv(path: Path, values: Sequence[Any], column: str = "label") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [
            [text, value, *(["ab"[i // 2 % 2]] if column != "label" else [])]
            for i, (text, value) in enumerate(zip(TEXTS, cycled(values), strict=True))
        ]
        csv.writer(file).writerows([["text", column, *(["label"] if column != "label" else [])], *rows])
    return path


def in_parquet(path: Path, label: Any, **columns: Any) -> Path:
    pq.write_table(pa.table({"text": TEXTS, "label": label, **columns}), path)
    return path


def built(path: Path, **options: Any) -> eh.Task:
    return eh.OwnData(data=path, text="text", **options).build(0)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(eh.UserError) as caught:
        built(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- one class however it is written --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["0", "1", "0.0", "1.0"], ("0", "1")),
        (["1.", "-0.0", "-0", "1.000000000000000000e+00"], ("0", "1")),
        (["-3.0", "3", "-3", "3.00"], ("-3", "3")),
        (["007", "7.0", "007.0", "7"], ("007", "007.0", "7")),
        (["1e5", "2e5"], ("1e5", "2e5")),
        (["v1.0", "v1"], ("v1", "v1.0")),
    ],
)
def test_ways_to_write_a_whole_number_are_one_class(written: list[str], names: tuple[str, ...], tmp_path: Path) -> None:
    assert built(in_csv(tmp_path / "a.csv", written)).label_names == names


def test_that_several_ways_count_as_one_is_said(tmp_path: Path) -> None:
    notes = built(in_csv(tmp_path / "a.csv", ["0", "1", "0.0", "1"])).notes
    assert notes[0] == "In 'label', these count as one: '0' (10 rows), '0.0' (10 rows)."


@pytest.mark.parametrize("written", [["0.0", "1.0"], [0.0, 1.0], [0, 1], [False, True]])
def test_classes_are_one_across_files_of_all_kinds(written: list[Any], tmp_path: Path) -> None:
    test = in_csv(tmp_path / "test.csv", ["True", "False"] if written[0] is False else ["1", "0"])
    content = [json.dumps({"text": t, "label": v}) for t, v in zip(TEXTS, cycled(written), strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(content))
    in_parquet(tmp_path / "a.parquet", cycled(written))
    in_csv(tmp_path / "a.csv", written)
    for name in ("a.jsonl", "a.parquet", "a.csv"):
        task = built(tmp_path / name, test_data=test)
        assert len(task.label_names) == 2
        first = task.label_names[int(task.tests["test"][0]["labels"])]
        assert first.lower() == ("true" if written[0] is False else "1")


def test_groups_are_one_too(tmp_path: Path) -> None:
    task = built(in_csv(tmp_path / "a.csv", ["0", "0.0", "1.0", "1"], "place"), group="place")
    assert list(membership(task.train, "group")) == ["a, 0", "b, 1"]
    assert task.train.features["attribute"].names == ["0", "1"]
    half = in_parquet(
        tmp_path / "a.parquet", cycled("ab"), place=pa.array(np.array(cycled([0, 0.5]), dtype=np.float16))
    )
    assert built(half, group="place").train.features["attribute"].names == ["0", "0.5"]


@pytest.mark.parametrize(
    "kind", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32"]
)
def test_numpy_types_are_labels(kind: str, tmp_path: Path) -> None:
    label = pa.array(np.array(cycled([0, 1]), dtype=kind))
    expected = ("false", "true") if kind == "bool" else ("0", "1")
    assert built(in_parquet(tmp_path / "a.parquet", label)).label_names == expected


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (pa.array(cycled([2**64 - 1, 0]), pa.uint64()), ("0", str(2**64 - 1))),
        (pa.array(cycled([decimal.Decimal("1.00"), decimal.Decimal("2.00")])), ("1", "2")),
        (pa.array(cycled(["x", "y"])).dictionary_encode(), ("x", "y")),
        (pa.array(cycled([1, 2])).dictionary_encode(), ("1", "2")),
        (pa.array(cycled(["x", "y"]), pa.large_string()), ("x", "y")),
        (pa.array(cycled(["x", "y"]), pa.string_view()), ("x", "y")),
    ],
)
def test_types_of_parquet_are_labels(label: pa.Array, names: tuple[str, ...], tmp_path: Path) -> None:
    path = in_parquet(tmp_path / "a.parquet", label, g=label)
    assert built(path).label_names == names
    assert built(path, group="g").train.features["attribute"].names == list(names)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_missing_number_is_a_missing_label(ending: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": cycled([0.0, 1.0, 0.0, float("nan")])})
    path = tmp_path / f"a.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False, na_rep="nan")
    elif ending == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))  # NaN
    else:
        frame.to_parquet(path)
    assert refusal(path) == (
        f"Row 4 of 'a.{ending}' has no label in 'label' (10 in all): fill them in, or leave them out with "
        "--drop-incomplete."
    )
    task = built(path, drop_incomplete=True)
    assert task.label_names == ("0", "1")
    assert task.notes[0] == f"10 rows of 'a.{ending}' without a label left out."


FRAMES = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(["x", "y", " z"]), st.sampled_from([0.0, 1.0, None])),
    min_size=8,
    max_size=30,
)


@given(rows=FRAMES)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pandas_writes_what_is_read_alike(rows: list[tuple[Any, ...]], tmp_path: Path) -> None:
    frame = pd.DataFrame(rows, columns=["label", "flag", "word", "gap"]).assign(
        text=[f"t {i}" for i in range(len(rows))], split="train"
    )
    frame = pd.concat([frame, frame.assign(split="dev"), frame.assign(split="test")], ignore_index=True)
    frame["text"] = [f"t {i}" for i in range(len(frame))]
    frame["label"] = np.where(np.arange(len(frame)) % 2, frame["label"], 7 + frame["label"] % 2)
    if frame["label"].nunique() < 2 or len({frozenset(part["label"]) for _, part in frame.groupby("split")}) > 1:
        return
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    groups = tuple(name for name in ("word", "gap") if frame[name].notna().any())
    read = [
        built(tmp_path / f"a.{ending}", split="split", group=groups) for ending in ("csv", "tsv", "jsonl", "parquet")
    ]
    for other in read[1:]:
        assert other.label_names == read[0].label_names
        for name, split in read[0].splits.items():
            assert split["text"][:] == other.splits[name]["text"][:]
            assert column_values(split, "labels").tolist() == column_values(other.splits[name], "labels").tolist()
            members, others = membership(split, "group"), membership(other.splits[name], "group")
            assert {g: m.tolist() for g, m in members.items()} == {g: m.tolist() for g, m in others.items()}


@given(st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_infinity=False), st.booleans()))
def test_a_value_and_its_text_are_one(value: float) -> None:
    text = cell_text(value)
    if value != value:
        assert text is None
    elif float(value).is_integer() and not isinstance(value, bool):
        assert text is not None
        assert int(text) == int(value)
        if abs(value) < 1e15:  # beyond, Python writes digits that it doesn't hold
            assert cell_text(f"{value}") == text
        assert cell_text(f"{int(value)}.0") == text
        assert is_whole(text)


# ---- what is no class, and what differs in writing alone ------------------------------------------------------------


def test_fractions_are_no_classes(tmp_path: Path) -> None:
    fraction = "Row 2 of 'a.{}' holds the fraction 0.5 in 'label', which is no class."
    assert refusal(in_csv(tmp_path / "a.csv", ["0", "0.5", "1.0"])) == fraction.format("csv")
    for label in (cycled([0.0, 0.5]), cycled([decimal.Decimal("1.0"), decimal.Decimal("0.5")])):
        assert refusal(in_parquet(tmp_path / "a.parquet", label)) == fraction.format("parquet")
    half = pa.array(np.array(cycled([1, 0.5]), dtype=np.float16))
    assert refusal(in_parquet(tmp_path / "a.parquet", half)) == fraction.format("parquet")
    infinite = in_parquet(tmp_path / "a.parquet", cycled([0.0, float("inf")]))
    assert refusal(infinite) == "Row 2 of 'a.parquet' holds inf in 'label', which is no class."
    assert built(in_csv(tmp_path / "a.csv", ["3.5", "unrated"])).label_names == ("3.5", "unrated")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64())),
        pa.array([{"a": 1}] * N),
        pa.array([[1]] * N),
        pa.array([b"\xff"] * N),
        pa.array([b"ab"] * N, pa.binary(2)),
        pa.array([datetime.date(2020, 1, 1)] * N),
        pa.array([1] * N, pa.duration("s")),
        pa.array([b"0123456789abcdef"] * N, pa.uuid()),
    ],
)
def test_what_a_table_may_hold_is_refused_as_a_label_and_let_alone_beside(column: pa.Array, tmp_path: Path) -> None:
    path = in_parquet(tmp_path / "a.parquet", column, other=cycled("ab"))
    for options in ({}, {"label": "other", "group": "label"}, {"label": "other", "split": "label"}):
        assert refusal(path, **options).startswith("The column 'label' of '")
    refusal(path, label="other", id="label")
    task = built(path, label="other")
    assert task.beside is not None
    beside = task.beside("train")
    assert set(beside.names) | set(beside.nested) == {"label"}
    assert [len(beside.column(name)) for name in beside.names] == [len(task.train)] * len(beside.names)


def test_a_number_of_no_named_class(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    table = pa.table({"text": TEXTS, "label": cycled([0, 1])}).cast(features.arrow_schema)
    rows = pa.table({"text": TEXTS, "label": pa.array(cycled([0, 1, 7]))})
    pq.write_table(rows.replace_schema_metadata(table.schema.metadata), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet") == (
        "Row 3 of 'a.parquet' has the class number 7 in 'label', but only 2 classes are named there."
    )


def test_labels_that_differ_in_writing_alone_are_pointed_out(tmp_path: Path) -> None:
    values = ["Spam", "spam ", "SPAM", "spam", "caf\u00e9", "cafe\u0301", "sp\u00a0am", "ham"]
    task = built(in_csv(tmp_path / "a.csv", values))
    assert task.label_names == ("SPAM", "Spam", "cafe\u0301", "caf\u00e9", "ham", "spam", "sp\u00a0am")
    assert task.notes[:2] == (
        "In 'label', these count as one: 'spam ' (5 rows), 'spam' (5 rows).",
        "In 'label', these differ only by case, blanks or how a letter is stored, but count as different: "
        "'spam' (10 rows), 'Spam' (5 rows), 'SPAM' (5 rows), 'sp\\xa0am' (5 rows); "
        "'caf\\xe9' (5 rows), 'cafe\\u0301' (5 rows).",
    )
    groups = built(in_csv(tmp_path / "b.csv", ["Land", "land"], "place"), group="place").notes[0]
    assert groups.startswith("In 'place', these differ only by case, blanks or how a letter is stored, but count as")


# ---- validation, test and new data are looked at as training data are -----------------------------------------------


@pytest.mark.parametrize("option", ["validation_data", "test_data"])
def test_given_splits_are_checked_as_training_rows_are(option: str, tmp_path: Path) -> None:
    train = in_csv(tmp_path / "a.csv", ["0", "1"])
    for values, message in (
        (["0", "2"], "Row 2 of 'b.csv' has the label '2', which no row to train on has"),
        (["0", ""], "Row 2 of 'b.csv' has no label in 'label' (20 in all)"),
        (["-1"], "The column 'label' of 'b.csv' holds \u22121 beside other numbers (40 rows, the first is row 1)"),
        (["0", "word"], "The column 'label' of 'b.csv' mixes numbers ('0', row 1) and words ('word', row 2)"),
        (["0.5"], "Row 1 of 'b.csv' holds the fraction 0.5 in 'label', which is no class."),
    ):
        assert refusal(train, **{option: in_csv(tmp_path / "b.csv", values)}).startswith(message)
    (tmp_path / "b.csv").write_text("text,label\nx,1\n ,0\n")
    assert refusal(train, **{option: tmp_path / "b.csv"}).startswith("Row 2 of 'b.csv' has an empty text in 'text'")


def test_a_split_by_a_column_is_checked_too(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "split": ("train", "test", "dev")[i % 3]} for i in range(60)]
    rows[1]["label"] = "aa"
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    assert refusal(tmp_path / "a.csv", split="split") == (
        "Row 2 of 'a.csv' has the label 'aa', which no row to train on has (did you mean 'a'?); the labels there are "
        "a; b."
    )
    pd.DataFrame(rows).assign(split="test").to_csv(tmp_path / "a.csv", index=False)
    assert refusal(tmp_path / "a.csv", split="split") == (
        "No row of 'a.csv' is to train on: all are for validation or test."
    )


def test_new_data_are_checked_against_a_models_classes(tmp_path: Path) -> None:
    def one(values: list[str], names: Sequence[str], **options: Any) -> list[int]:
        source = eh.OwnData(data=in_csv(tmp_path / "a.csv", values), text="text", **options)
        return column_values(source.one_split(names), "labels").tolist()

    assert one(["0.0", "1.0"], ["1", "0"])[:2] == [1, 0]
    assert one(["0", "1"], ["1.0", "0.0"])[:2] == [1, 0]  # a model that was trained when these were its names
    assert one(["True", "False"], ["true", "false"])[:2] == [0, 1]
    with pytest.raises(
        eh.UserError, match=r"^Row 2 of 'a\.csv' has the label '2' in 'label', which is no class of the"
    ):
        one(["0", "2"], ["0", "1"])
    with pytest.raises(eh.UserError, match=r"^The column 'label' of 'a\.csv' holds −1 beside other numbers \(40 rows"):
        one(["-1"], ["0", "1"])
    assert one(["-1", "1"], ["0", "1"], drop_incomplete=True) == [1] * 20


def test_new_data_have_notes_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = in_csv(tmp_path / "a.csv", ["0", "1", "0.0", ""])
    path.write_bytes(path.read_bytes().replace(b"text 1,", b"text 0,").replace(b"text", "t\u00e9xt".encode("cp1252")))
    eh.OwnData(data=path, text="t\u00e9xt", drop_incomplete=True).one_split(["0", "1"])
    assert [record.getMessage() for record in caplog.records] == [
        "'a.csv' is not UTF-8 and was read as Windows-1252 (cp1252); --encoding names another.",
        "10 rows of 'a.csv' without a label left out.",
        "In 'label', these count as one: '0' (10 rows), '0.0' (10 rows).",
        "1 row repeats the text of an earlier one: 0 with the same label and 1 with another one.",
    ]
