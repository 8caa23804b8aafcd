"""Copies in the cache that a full disk or a crash cut short are made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pandas as pd
import pytest

from evenhand.data.cached_tables import cache_folder, cached_table, is_whole
from evenhand.data.rows import TokenRows


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "mine.csv"
    pd.DataFrame({"text": [f"text {i}" for i in range(5000)]}).to_csv(path, index=False)
    return path


def texts(path: Path) -> list[str]:
    return cached_table(path, {"text": "text"})["text"][:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "a few bytes": lambda content: content[:5],
    "half": lambda content: content[: len(content) // 2],
    "no end": lambda content: content[:-8],  # readers of Arrow take that as an end
    "no head": lambda content: bytes(64) + content[64:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_truncated_copy_is_made_again(damage: Callable[[bytes], bytes], table: Path) -> None:
    first = texts(table)
    (cached,) = cache_folder().glob("*.arrow")
    content = cached.read_bytes()
    cached.unlink()
    cached.write_bytes(damage(content))
    assert not is_whole(cached)
    assert texts(table) == first
    assert cached.read_bytes() == content
    assert sorted(path.name for path in cache_folder().iterdir()) == [cached.name]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_truncated_tokens_are_made_again(damage: Callable[[bytes], bytes], table: Path) -> None:
    dataset = cached_table(table, {"text": "text"}).add_column("labels", [0] * 5000)  # type: ignore[call-arg]

    def tokens() -> list[int]:
        made = TokenRows(dataset, lambda rows: {"input_ids": [[len(text)] for text in rows["text"]]}, "by length")
        return made.lengths.tolist()

    assert tokens() == [1] * 5000
    (cached,) = cache_folder().glob("cache-*.arrow")
    content = cached.read_bytes()
    cached.unlink()
    cached.write_bytes(damage(content))
    assert tokens() == [1] * 5000
    assert len(cached.read_bytes()) == len(content)
    assert datasets.Dataset.from_file(str(cached)).num_rows == 5000
