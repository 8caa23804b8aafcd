from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import datasets
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from evenhand.data.tables import Columns, Table, read_table
from evenhand.tasks.text.sources import HubPart, Part
from evenhand.validation import UserError

COLUMNS = Columns({"first": ("text",), "label": ("gold_label", "label")}, {"id": ("id",)})
PART = Part(
    title="the made-up part",
    files=("data.tsv", "data_*.tsv"),
    columns=COLUMNS,
    labels={"yes": 0, "no": 1},
    hub=HubPart("some/name", "train", "subset"),
    advice="take it from somewhere",
)


def read(path: Path, content: str | bytes, **options: Any) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, COLUMNS, **options)


def refusal(path: Path, content: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(path, content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r\ufeff"), min_size=1)


@given(cells=st.lists(st.tuples(CELL, CELL), min_size=1))
@settings(max_examples=40)
def test_tab_separated_and_json_rows_are_read_as_they_stand(
    cells: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = "".join(f"{label}\tx\t{text}\r\n" for text, label in cells)
    objects = "".join(json.dumps({"other": [1], "text": text, "label": label}) + "\n" for text, label in cells)
    for name, content in (("a.txt", "label\tother\ttext\r\n" + lines), ("a.jsonl", objects)):
        table = read(folder / name, content)
        assert table.column("first").to_pylist() == [text for text, _ in cells]
        assert table.column("label").to_pylist() == [label for _, label in cells]
        assert "id" not in table


def test_comma_separated_rows_may_have_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    table = read(path, '\ufefftext,label,id\n"one, ""two""\nthree",yes,4\nx,no,5\n')
    assert table.column("first").to_pylist() == ['one, "two"\nthree', "x"]
    assert table.column("id").to_pylist() == ["4", "5"]
    assert table.place(1) == f"Line 4 of the file '{path}'"


def test_cells_of_any_length_and_of_any_signs(tmp_path: Path) -> None:
    long = "x\n" * 300_000
    table = read(tmp_path / "a.csv", f'text;label\r\n"{long}";a\r\n\r\n6" x\0;"b\rc"\r\n')
    assert table.column("first").to_pylist() == [long, '6" x\0']
    assert table.column("label").to_pylist() == ["a", "b\rc"]
    assert table.cells.column("line").to_pylist() == [2, 300_004]
    table = read(tmp_path / "a.tsv", 'text\tlabel\n"x\ry\t\u2028\n')
    assert table.column("first").to_pylist() == ['"x\ry']
    assert table.column("label").to_pylist() == ["\u2028"]


def test_lines_of_json_may_name_a_column_differently(tmp_path: Path) -> None:
    lines = [
        {"text": 1, "label": "a"},
        {"text": 2.5, "gold_label": True, "label": "b"},
        {"id": 7, "text": "", "label": ""},
    ]
    table = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert table.column("first").to_pylist() == ["1", "2.5", ""]
    assert table.column("label").to_pylist() == ["a", "true", ""]
    assert table.column("id").to_pylist() == [None, None, "7"]


def test_words_between_spaces_with_and_without_names(tmp_path: Path) -> None:
    columns = Columns({"file": ("file",), "Male": ("Male",)})
    for content in ("2\n Young  Male\na.jpg -1  1\nb.jpg  1 -1\n", "a.jpg 1\nb.jpg -1\n"):
        (tmp_path / "a.txt").write_text(content)
        table = read_table(tmp_path / "a.txt", columns, kind="words")
        assert table.column("file").to_pylist() == ["a.jpg", "b.jpg"]
        np.testing.assert_array_equal(table.whole_numbers("Male", (-1, 1)), [1, -1])


def test_the_first_known_name_of_a_column_is_taken_and_an_optional_cell_may_be_missing(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", "text\tlabel\tgold_label\tid\na\tb\tc\td\na\tb\te\n\n")
    assert table.column("label").to_pylist() == ["c", "e"]
    assert table.column("id").to_pylist() == ["d", None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "", "The file '{path}' is empty (0 bytes)."),
        ("a.csv", "\n\n", "has no column 'text'; its columns are none."),
        ("a.tsv", "txet\tlabel\n", "has no column 'text' (did you mean 'txet'?); its columns are 'txet', 'label'."),
        ("a.tsv", "text\tlab\na\tb\n", "has no column 'gold_label' (or 'label')"),
        ("a.tsv", "text\tlabel\n", "The file '{path}' has no rows."),
        ("a.tsv", "text\tlabel\na\tb\na\n", "Line 3 of the file '{path}' has 1 field, but the first line names 2"),
        ("a.tsv", "text\tlabel\na\tb\tc\n", "Line 2 of the file '{path}' has 3 fields"),
        (
            "a.tsv",
            b"text\tlabel\na\tb\ncaf\xe9\tb\n",
            "Line 3 of the file '{path}' is not UTF-8 text (byte 4 of the line is 0xe9)",
        ),
        ("a.csv", b"text,label\n\xff\xfe,b\n", "Line 2 of the file '{path}' is not UTF-8"),
        ("a.csv", "text,label\na,b\nc\n", "Line 3 of the file '{path}' has 1 field, but the first line names 2"),
        ("a.csv", 'text,label\na,b\n"c,d\n', "Line 3 of the file '{path}' is not valid CSV (unexpected end"),
        ("a.csv", "text|label\n", "has no column 'text'"),
        (
            "a.jsonl",
            '{"text": "a", "label": "b"}\n{"text": "a", "la',
            "Line 2 of the file '{path}' is not valid JSON (",
        ),
        ("a.jsonl", '["text"]\n', "Line 1 of the file '{path}' holds no JSON object: each line"),
        ("a.jsonl", '{"text": "a"}\n', "Line 1 of the file '{path}' has no column 'gold_label' (or 'label')"),
        ("a.jsonl", '{"text": [["a", 1]], "label": "b"}\n', "holds a list or an object in 'text', where a value is"),
        ("a.jsonl", '{"text": null, "label": "b"}\n', "Line 1 of the file '{path}' holds null in 'text', where"),
        (
            "a.jsonl",
            '{"text": "\\ud83d", "label": "b"}\n',
            "Line 1 of the file '{path}' holds half a character ('\\ud83d'), ",
        ),
        ("a.jsonl", '{"text": ' + "[" * 100_000, "Line 1 of the file '{path}' is not valid JSON (maximum recursion"),
        ("a.csv", "text,label\na,b\nx\ry,b\n", "Line 3 of the file '{path}' has 1 field, but the first line names 2"),
        (
            "a.csv",
            'label,text\nb,"open\nb,next\n',
            "Line 2 of the file '{path}' is not valid CSV (unexpected end of",
        ),
        ("a.csv", 'text,label\n"a"b,c\n', "Line 2 of the file '{path}' is not valid CSV (',' expected after"),
        ("a.tsv", b"\x1f\x8b\x08\x00", "The file '{path}' is a gzip archive: unpack it first."),
        ("a.csv", b"PAR1....", "The file '{path}' is a Parquet file, where a text file is expected."),
    ],
)
def test_bad_files_are_named_with_their_line(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert message.format(path=path) in refusal(path, content)


class Unpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_never_loaded(protocol: int, tmp_path: Path) -> None:
    found = refusal(tmp_path / "a.jsonl", pickle.dumps(Unpickled(), protocol))
    assert found.endswith("is a Python pickle, which is never loaded, since it can run any code.")


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x", "y")
    assert refusal(tmp_path / "a.tsv", (tmp_path / "b.zip").read_bytes()).endswith("a ZIP archive: unpack it first.")


def test_a_missing_file_and_a_folder_in_its_place(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(UserError, match=r"could not be read \("):
            read_table(path, COLUMNS)


def test_broken_lines_are_skipped_and_counted_where_they_are_known(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", "text\tlabel\na\tb\nbroken\nc\td\n", skip_broken=True)
    assert (table.column("first").to_pylist(), table.skipped) == (["a", "c"], 1)


def test_numbers_and_repeats(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", "text\tlabel\tid\na\t0.5\t1\nb\t\t2\nc\t-1e2\t1\n")
    np.testing.assert_array_equal(table.numbers("label"), [0.5, np.nan, -100])
    assert table.repeated("id") == (2, 0)
    assert table.repeated("first") is None
    with pytest.raises(UserError, match=r"^Line 2 of .* has '0.5' as label, which must be one of 0, 1 \(3 such rows\)"):
        table.whole_numbers("label", (0, 1))
    with pytest.raises(UserError, match=r"^Line 2 of .* has 'a' as first, which must be a number\.$"):
        table.numbers("first")


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "data.tsv").write_text("text\tlabel\na\tyes\nb\t-1\nc\t no\nd\t-\ne\t\n")
    found = PART.read(tmp_path)
    assert (found.table.column("first").to_pylist(), found.label_N.tolist()) == (["a", "c"], [0, 1])
    assert found.notes == ("3 rows of the made-up part have no label and were left out.",)
    assert (len(found.first(1)), found.first(None)) == (1, found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "text\tlabel\na\tyes\na\tye\n",
            "Line 3 of the file '{path}' has the label 'ye', which is none of yes, no (or",
        ),
        ("text\tlabel\na\t-1\n", "The file '{path}' holds no rows with a label."),
        (
            "text\tlabel\tid\na\tyes\tq7\nb\tno\tq8\nc\tno\tq7\n",
            "Line 4 of the file '{path}' repeats the id 'q7' of line 2",
        ),
    ],
)
def test_bad_parts(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        PART.read(tmp_path)
    assert message.format(path=path) in str(caught.value)


def test_a_folder_with_several_candidates_and_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="given as --data-dir does not exist"):
        PART.read(tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        PART.read(tmp_path)
    assert str(caught.value) == (
        f"The folder '{tmp_path}' has no file for the made-up part (data.tsv or data_*.tsv), and it could not be "
        "loaded from the hub as 'some/name' (ConnectionError): take it from somewhere."
    )
    (tmp_path / "data_1.tsv").touch()
    (tmp_path / "data_2.tsv").touch()
    with pytest.raises(UserError, match=r"several files that could be the made-up part \(data_1.tsv, data_2.tsv\)"):
        PART.read(tmp_path)


def test_the_hub_stands_in_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, subset: str | None, split: str) -> datasets.Dataset:
        asked.append((name, subset, split))
        return datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, -1, 0], "more": [[1], [2], [3]]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    part = Part(title="it", files=(), columns=COLUMNS, labels={"0": 0, "1": 1}, hub=PART.hub, advice="")
    found = part.read(None)
    assert asked == [("some/name", "subset", "train")]
    assert (found.table.column("first").to_pylist(), found.label_N.tolist()) == (["a", "c"], [1, 0])
    assert found.notes == ("1 rows of it have no label and were left out.",)
    nested = Part(title="it", files=(), columns=Columns({"x": ("more",)}), labels={}, hub=PART.hub, advice="")
    with pytest.raises(
        UserError, match=r"^A column of the split 'train' of 'some/name' on the hub holds something else"
    ):
        nested.table(None)
    with pytest.raises(UserError, match=r"^The split 'train' of 'some/name' on the hub has no column 'sentence'"):
        Part(title="it", files=(), columns=Columns({"x": ("sentence",)}), labels={}, hub=PART.hub, advice="").table(
            None
        )
