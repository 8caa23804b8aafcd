from __future__ import annotations

from collections import UserDict
from pathlib import Path
from typing import Any

import datasets
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.utils.data import DataLoader, Subset
from transformers import BertTokenizer, DataCollatorWithPadding, default_data_collator

from evenhand.data.rows import IndexedDataset, IndexKeeping, Rows, arrow_table, collator_for
from evenhand.tasks.images.coloring import PGD_PALETTE, colored_dataset
from evenhand.validation import UserError

COLUMNS = ["pixel_values", "text", "flag", "labels", "weight", "maybe", "index"]


def mixed(n: int = 12) -> datasets.Dataset:
    """Images, strings, booleans, classes, floats, integers with gaps."""
    rng = np.random.default_rng(0)
    features = datasets.Features(
        {
            "pixel_values": datasets.Array3D(shape=(3, 4, 5), dtype="uint8"),
            "text": datasets.Value("string"),
            "flag": datasets.Value("bool"),
            "labels": datasets.ClassLabel(names=["a", "b", "c"]),
            "weight": datasets.Value("float32"),
            "maybe": datasets.Value("int64"),
            "index": datasets.Value("int64"),
        }
    )
    content = {
        "pixel_values": list(rng.integers(0, 256, (n, 3, 4, 5)).astype(np.uint8)),
        "text": [None if i == 3 else f"text {i}" for i in range(n)],
        "flag": [i % 3 == 0 for i in range(n)],
        "labels": [i % 3 for i in range(n)],
        "weight": list(rng.random(n).astype(np.float32)),
        "maybe": [None if i == 5 else i for i in range(n)],
        "index": list(range(n)),
    }
    return datasets.Dataset.from_dict(content, features=features)


VIEWS = {
    "whole": lambda d: d,
    "slice": lambda d: d.select(range(3, 9)),
    "selected": lambda d: d.select([7, 0, 7, 3]),
    "shuffled": lambda d: d.shuffle(seed=1),
    "shuffled slice": lambda d: d.select(range(2, 10)).shuffle(seed=2).select(range(1, 5)),
    "chunks": lambda d: datasets.concatenate_datasets([d.select(range(4)), d.select(range(6, 11))]),
    "filtered": lambda d: d.filter(lambda row: row["labels"] == 1),
}


def assert_equal_rows(rows: Rows, plain: datasets.Dataset, chosen: list[int]) -> None:
    batch = rows.__getitems__(chosen)
    assert list(batch) != []
    for name in plain.column_names:
        expected = [plain[i][name] for i in chosen]
        assert np.asarray(batch[name]).tolist() == np.asarray(expected).tolist(), name
        assert all(
            np.asarray(rows[i][name]).tolist() == np.asarray(value).tolist()
            for i, value in zip(chosen, expected, strict=True)
        ), name


@pytest.mark.parametrize("view", list(VIEWS))
def test_rows_are_those_of_datasets(view: str) -> None:
    plain = VIEWS[view](mixed())
    rows = Rows(plain, COLUMNS)
    assert len(rows) == len(plain)
    assert_equal_rows(rows, plain, [len(plain) - 1, 0, 1, 1])


@given(data=st.data(), n=st.integers(1, 12))
@settings(max_examples=20)
def test_rows_are_those_of_datasets_after_any_selection(data: st.DataObject, n: int) -> None:
    kept = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    plain = mixed(n).select(kept)
    chosen = data.draw(st.lists(st.integers(0, len(kept) - 1), min_size=1, max_size=6))
    assert_equal_rows(Rows(plain, COLUMNS), plain, chosen)


def test_rows_keep_types_and_read_only_the_columns_asked_for() -> None:
    batch = Rows(mixed(), ["labels", "pixel_values", "text"]).__getitems__([1, 2])
    assert set(batch) == {"labels", "pixel_values", "text"}
    assert batch["pixel_values"].dtype == np.uint8
    assert batch["pixel_values"].shape == (2, 3, 4, 5)
    assert batch["labels"].dtype == np.int64
    assert batch["text"] == ["text 1", "text 2"]


def test_images_are_not_copied_until_they_are_read() -> None:
    image_N3HW = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4)).astype(np.uint8)
    label_N = np.arange(6) % 10
    dataset = colored_dataset(image_N3HW, label_N, label_N, PGD_PALETTE)
    whole, part = Rows(dataset, ["pixel_values"]), Rows(dataset.select(range(2, 5)), ["pixel_values"])
    assert np.shares_memory(whole.views["pixel_values"], image_N3HW)
    assert np.shares_memory(part.views["pixel_values"], image_N3HW[2:5])
    assert not np.shares_memory(part.views["pixel_values"], image_N3HW[:2])
    batch = whole.__getitems__([0, 1])["pixel_values"]
    assert not np.shares_memory(batch, image_N3HW)
    assert batch.flags.writeable


def test_arrow_table_follows_the_selection() -> None:
    assert arrow_table(mixed().select([4, 2])).column("index").to_pylist() == [4, 2]


def test_rows_of_an_empty_selection() -> None:
    rows = Rows(mixed().select([]), COLUMNS)
    assert len(rows) == 0


def test_arrays_without_a_fixed_shape_are_read_through_datasets() -> None:
    features = datasets.Features({"x": datasets.Array2D(shape=(None, 2), dtype="int32")})
    plain = datasets.Dataset.from_dict({"x": [[[1, 2]], [[3, 4], [5, 6]]]}, features=features)
    rows = Rows(plain, ["x"])
    assert np.asarray(rows[0]["x"]).tolist() == [[1, 2]]
    assert np.asarray(rows[1]["x"]).tolist() == [[3, 4], [5, 6]]


def test_rows_work_in_a_data_loader() -> None:
    rows = Rows(mixed(), ["pixel_values", "labels", "index"])
    collate = collator_for(lambda batch: {"pixel_values": torch.from_numpy(batch["pixel_values"])})
    batches = list(DataLoader(rows, batch_size=5, shuffle=True, collate_fn=collate))
    assert [len(batch["labels"]) for batch in batches] == [5, 5, 2]
    assert sorted(int(i) for batch in batches for i in batch["index"]) == list(range(12))
    plain = mixed()
    for batch in batches:
        for pixels, label, index in zip(batch["pixel_values"], batch["labels"], batch["index"], strict=True):
            assert pixels.tolist() == plain[int(index)]["pixel_values"]
            assert int(label) == int(index) % 3


# ---- collators ------------------------------------------------------------------------------------------------------


def test_collator_adds_labels_and_index_to_the_inputs() -> None:
    seen: list[dict[str, Any]] = []

    def preprocess(rows: dict[str, Any]) -> dict[str, torch.Tensor]:
        seen.append(rows)
        return {"x": torch.tensor([1.0, 2.0])}

    rows = {"text": ["a", "b"], "labels": np.array([2, 0]), "index": np.array([7, 4]), "other": [1, 2]}
    batch = collator_for(preprocess)(rows)
    assert {name: value.tolist() for name, value in batch.items()} == {
        "x": [1.0, 2.0],
        "labels": [2, 0],
        "index": [7, 4],
    }
    assert batch["labels"].dtype == torch.int64
    assert seen == [rows]


def test_collator_needs_neither_labels_nor_index() -> None:
    assert list(collator_for(lambda rows: {"x": torch.ones(1)})({"text": ["a"]})) == ["x"]


def test_collator_copes_with_strided_columns() -> None:
    labels = np.arange(6)[::-2]
    assert collator_for(lambda rows: {})({"labels": labels})["labels"].tolist() == [5, 3, 1]


def test_indexed_dataset_numbers_the_rows() -> None:
    samples = [{"x": i * 10, "labels": 0} for i in range(4)]
    indexed = IndexedDataset(samples)
    assert len(indexed) == 4
    assert indexed[2] == {"x": 20, "labels": 0, "index": 2}
    assert indexed.__getitems__([3, 1]) == [
        {"index": 3, "x": 30, "labels": 0},
        {"index": 1, "x": 10, "labels": 0},
    ]
    assert samples[2] == {"x": 20, "labels": 0}


def test_the_row_is_the_index_whatever_samples_say() -> None:
    indexed = IndexedDataset([{"index": 9}, {"index": 8}])
    assert indexed[0] == {"index": 0}
    assert indexed.__getitems__([1, 0]) == [{"index": 1}, {"index": 0}]
    with pytest.raises(UserError, match=r"each sample must be a dict\. Got tuple"):
        IndexedDataset([(1, 2)])[0]


def test_indexed_dataset_reads_batches_where_its_dataset_can() -> None:
    plain = mixed().select_columns(["labels"])
    assert IndexedDataset(plain).__getitems__([4, 2]) == [{"index": 4, "labels": 1}, {"index": 2, "labels": 2}]
    subset = Subset(plain, [5, 6, 7])  # type: ignore[arg-type]
    assert IndexedDataset(subset).__getitems__([2, 0]) == [{"index": 2, "labels": 1}, {"index": 0, "labels": 2}]


def test_index_survives_a_collator_that_drops_unknown_keys() -> None:
    def strict(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        assert all(set(f) == {"x", "labels"} for f in features)
        return {name: torch.tensor([f[name] for f in features]) for name in ("x", "labels")}

    features = [{"x": 1.0, "labels": 0, "index": 5}, {"x": 2.0, "labels": 1, "index": 3}]
    batch = IndexKeeping(strict)(features)
    assert {name: value.tolist() for name, value in batch.items()} == {
        "x": [1.0, 2.0],
        "labels": [0, 1],
        "index": [5, 3],
    }
    assert features[0]["index"] == 5


def test_index_survives_padding(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n")
    collator = IndexKeeping(DataCollatorWithPadding(BertTokenizer(str(tmp_path / "vocab.txt"))))
    batch = collator(
        [
            {"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "label": 1, "index": 8},
            {"input_ids": [2, 3], "attention_mask": [1, 1], "label": 0, "index": 2},
        ]
    )
    assert batch["input_ids"].tolist() == [[2, 5, 3], [2, 3, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["index"].tolist() == [8, 2]


def test_samples_without_an_index_are_left_to_the_collator() -> None:
    batch = IndexKeeping(default_data_collator)([{"x": 1.0, "label": 1}, {"x": 2.0, "label": 0}])
    assert set(batch) == {"x", "labels"}
    assert IndexKeeping(lambda features: {"got": features})([(1, 2)]) == {"got": [(1, 2)]}
    assert IndexKeeping(lambda features: {"got": features})([]) == {"got": []}


def test_batches_of_rows_are_left_to_their_collator() -> None:
    rows = {"labels": np.array([1, 0]), "index": np.array([4, 2])}
    batch = IndexKeeping(collator_for(lambda _: {}))(rows)
    assert batch["index"].tolist() == [4, 2]


def test_index_of_samples_that_are_dicts_in_all_but_name() -> None:
    batch = IndexKeeping(lambda f: {"n": torch.tensor(len(f))})([UserDict(x=1, index=np.int64(6))])
    assert batch["index"].tolist() == [6]


def test_a_collator_that_changes_the_number_of_samples_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        IndexKeeping(lambda _: {"labels": torch.zeros(3)})([{"x": 1, "index": 0}, {"x": 2, "index": 1}])
    assert str(caught.value) == (
        "The data collator turned 2 samples into 3 labels, so samples and their indices can't be matched."
    )
