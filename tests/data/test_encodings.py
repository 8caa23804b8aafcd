from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import datasets
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from evenhand.data.cached_tables import cached_table, column_names
from evenhand.data.encodings import check_encoding, encoding_of
from evenhand.validation import UserError

WESTERN = "text,label\nna\u00efve caf\u00e9 \u2013 \u201cquoted\u201d,a\nplain,b\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def texts(path: Path, content: bytes, given: str | None = None) -> list[str]:
    path.write_bytes(content)
    return list(cached_table(path, {"text": "text"}, given)["text"])


def refusal(path: Path, content: bytes, given: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        texts(path, content, given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_the_encoding_is_found(encoding: str, packed: bool, tmp_path: Path) -> None:
    content = WESTERN.encode(encoding)
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    found = texts(path, gzip.compress(content) if packed else content)
    assert found == ["na\u00efve caf\u00e9 \u2013 \u201cquoted\u201d", "plain"]
    assert encoding_of(path) == ("utf-8" if encoding == "utf-8-sig" else encoding)
    assert column_names(path) == ["text", "label"]


def test_latin_1_is_read_and_a_given_encoding_counts(tmp_path: Path) -> None:
    assert texts(tmp_path / "a.csv", "text\ncaf\u00e9\n".encode("latin-1")) == ["caf\u00e9"]
    cyrillic = "text\n\u0434\u0430\u043d\u043d\u044b\u0435\n".encode("cp1251")
    assert texts(tmp_path / "b.csv", cyrillic, "cp1251") == ["\u0434\u0430\u043d\u043d\u044b\u0435"]
    assert texts(tmp_path / "c.csv", "\ufefftext\nx\n".encode("utf-16-le"), "utf-16-le") == ["x"]
    assert check_encoding("own-data", "UTF8") == "utf-8"


def test_the_same_file_in_another_encoding_is_read_anew(tmp_path: Path) -> None:
    content = "text\ncaf\u00e9\n".encode("cp1252")
    assert texts(tmp_path / "a.csv", content) == ["caf\u00e9"]
    assert texts(tmp_path / "a.csv", content, "cp1250") == ["caf\u00e9"]
    assert texts(tmp_path / "a.csv", content, "cp1251") == ["caf\u0439"]


@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        (
            WESTERN.encode("cp1252"),
            "utf-8",
            "Line 2 of the file '{path}' is not UTF-8 text (byte 3 of the line is 0xef)",
        ),
        (
            WESTERN.encode("cp1252"),
            "ascii",
            "Line 2 of the file '{path}' is not ascii text (byte 3 of the line is 0xef)",
        ),
        (b"text\r1\r2\r\xff\r", "utf-8", "Line 4 of the file '{path}' is not UTF-8 text (byte 1 of the line is 0xff)"),
        (WESTERN.encode(), "utf-16", "Line 1 of the file '{path}' is not UTF-16 text"),
        (WESTERN.encode("utf-16"), "utf-8", "Line 1 of the file '{path}' is not UTF-8 text (it looks like UTF-16)"),
        (b"text\nfine\nna\xc3\xafve \xc3\xa9 \xff\n", None, "Line 3 of the file '{path}' is not UTF-8 text"),
        ("text\n\u65e5\u672c\u8a9e\n".encode("shift_jis"), None, "Line 2 of the file '{path}' is not UTF-8 text"),
        ("text\n\u0434\u0430\u043d\u043d\u044b\u0435\n".encode("cp1251"), None, "Line 2 of the file '{path}' is not"),
        (b"text\n\x81caf\xe9\n", None, "Line 2 of the file '{path}' is not UTF-8 text (byte 1 of the line is 0x81)"),
    ],
)
def test_a_wrong_encoding_is_named_with_its_line(
    content: bytes, given: str | None, message: str, tmp_path: Path
) -> None:
    found = refusal(tmp_path / "a.csv", content, given)
    assert found.startswith(message.format(path=tmp_path / "a.csv"))
    assert found.endswith("name its encoding with --encoding.")
    assert not list(Path(datasets.config.HF_DATASETS_CACHE).glob("evenhand/*"))


@pytest.mark.parametrize("name", ["nonsense", "hex", "rot13", "", "\0", 8])
def test_what_is_no_encoding_of_texts(name: Any) -> None:
    with pytest.raises(UserError, match=r"^The 'encoding' parameter of own-data must name an encoding of texts, such"):
        check_encoding("own-data", name)


# ---- ends of lines --------------------------------------------------------------------------------------------------

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n\ufeff"), min_size=1)
ENDS = st.sampled_from(["\r", "\n", "\r\n"])


@given(
    rows=st.lists(st.tuples(CELL, CELL, ENDS), min_size=1), first=ENDS, encoding=st.sampled_from(["utf-8", "utf-16"])
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_lines_may_end_in_any_way(rows: list[tuple[str, str, str]], first: str, encoding: str, tmp_path: Path) -> None:
    tabs = "text\tlabel" + first + "".join(f"{text}\t{label}{end}" for text, label, end in rows)
    assert texts(tmp_path / "a.tsv", tabs.encode(encoding)) == [text for text, _, _ in rows]
    quoted = io.StringIO()
    csv.writer(quoted, lineterminator=first).writerow(["text", "label"])
    for text, label, end in rows:
        csv.writer(quoted, lineterminator=end).writerow([text, label])
    assert texts(tmp_path / "a.csv", quoted.getvalue().encode(encoding)) == [text for text, _, _ in rows]


def test_a_carriage_return_within_a_cell_stays(tmp_path: Path) -> None:
    assert texts(tmp_path / "a.tsv", b"text\tlabel\nx\ry\ta\nz\tb\rc\n") == ["x\ry", "z"]
    assert texts(tmp_path / "a.csv", b'text,label\r"x\ry",a\r"z\nw",b\r') == ["x\ry", "z\nw"]
    assert texts(tmp_path / "b.csv", b"text,label\r\r\nx,a\r\r\n") == ["x"]
    assert texts(tmp_path / "a.jsonl", b'{"text": "x"}\r{"text": "y"}\r') == ["x", "y"]
