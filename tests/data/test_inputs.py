from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import datasets
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from evenhand.data.inputs import Tokenizing
from evenhand.data.rows import Rows, TokenRows, collator_for
from evenhand.gradients.norm_batches import scoring_order
from evenhand.models.inference import logits_and_labels

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"]


def tokenizer(side: str = "right") -> Any:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        padding_side=side,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def split(pairs: list[tuple[str, str]]) -> datasets.Dataset:
    n = len(pairs)
    first, second = [p for p, _ in pairs], [h for _, h in pairs]
    return datasets.Dataset.from_dict(
        {"text": first, "text_pair": second, "labels": [i % 2 for i in range(n)], "index": list(range(n))}
    )


sentences = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=9).map(" ".join)
pair_lists = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=8)


@given(pair_lists, st.sampled_from(["left", "right"]), st.sampled_from([None, 8]))
@settings(max_examples=20)
def test_tokens_made_once_are_the_batch_that_the_tokenizer_makes(
    pairs: list[tuple[str, str]], side: str, max_length: int | None
) -> None:
    tokenizing = Tokenizing(tokenizer(side), max_length)
    rows = TokenRows(split(pairs), tokenizing.tokens)
    chosen = list(range(len(pairs)))[::-1]
    batch = collator_for(tokenizing)(rows.__getitems__(chosen))
    expected = tokenizer(side)(
        [pairs[i][0] for i in chosen],
        [pairs[i][1] for i in chosen],
        padding=True,
        truncation=max_length is not None,
        max_length=max_length,
        return_tensors="pt",
    )
    assert set(batch) == {*expected, "labels", "index"}
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name
    assert batch["index"].tolist() == chosen
    assert batch["labels"].tolist() == [i % 2 for i in chosen]
    assert rows.lengths[chosen].tolist() == expected["attention_mask"].sum(1).tolist()
    straight = tokenizing(dict(split(pairs)[chosen]))
    assert all(torch.equal(straight[name], value) for name, value in expected.items())


def test_texts_are_tokenized_once_and_not_before_they_are_needed() -> None:
    calls: list[int] = []

    def counted(rows: dict[str, Any]) -> dict[str, Any]:
        calls.append(len(rows["text"]))
        return Tokenizing(tokenizer(), None).tokens(rows)

    rows = TokenRows(split([("a b", "c")] * 2500), counted)
    assert len(rows) == 2500
    assert calls == []
    for _ in range(2):
        rows.__getitems__([0, 2499])
    assert calls == [1000, 1000, 500]
    assert rows[2499]["input_ids"].tolist() == [2, 4, 5, 3, 6, 3]
    assert rows[2499]["index"] == 2499


class Sums(nn.Module):
    """Logits that depend on every token that isn't padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(len(WORDS), 2)
        self.widths: list[int] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        self.widths.append(input_ids.shape[1])
        return {"logits": (self.table(input_ids) * attention_mask[..., None]).sum(1)}


def test_texts_of_like_length_are_scored_together_and_come_back_in_order() -> None:
    rng = np.random.default_rng(0)
    pairs = [(" ".join(rng.choice(list("abc"), rng.integers(0, 9))), "b") for _ in range(40)]
    tokenizing, model = Tokenizing(tokenizer(), None), Sums()
    rows, collate = TokenRows(split(pairs), tokenizing.tokens), collator_for(tokenizing)
    assert scoring_order(rows, collate).tolist() == np.argsort(-rows.lengths, kind="stable").tolist()
    logits, labels = logits_and_labels(model, rows, batch_size=8, collate_fn=collate)
    assert model.widths == sorted(model.widths, reverse=True)
    assert labels.tolist() == [i % 2 for i in range(40)]
    plain = Rows(split(pairs), ["text", "text_pair", "labels", "index"])
    np.testing.assert_allclose(logits, logits_and_labels(model, plain, 8, collate)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pair", [True, False])
def test_a_single_text(pair: bool) -> None:
    data = split([("a", "b c"), ("a b", "")])
    data = data if pair else data.remove_columns("text_pair")
    rows = TokenRows(data, Tokenizing(tokenizer(), None).tokens)
    assert rows.lengths.tolist() == ([6, 5] if pair else [3, 4])


# ---- tokens on disk -------------------------------------------------------------------------------------------------


def stored(folder: Path, pairs: list[tuple[str, str]]) -> datasets.Dataset:
    split(pairs).save_to_disk(str(folder))
    return datasets.load_from_disk(str(folder))


def test_tokens_of_texts_on_disk_are_kept_by_what_made_them(tmp_path: Path) -> None:
    calls: list[int] = []

    def rows(max_length: int | None, dataset: datasets.Dataset) -> TokenRows:
        tokenizing = Tokenizing(tokenizer(), max_length)

        def counted(columns: dict[str, Any]) -> dict[str, Any]:
            calls.append(len(columns["text"]))
            return tokenizing.tokens(columns)

        return TokenRows(dataset, counted, tokenizing.key)

    data = stored(tmp_path / "data", [("a b", "c"), ("c", "a")] * 30)
    for max_length, dataset, expected in (
        (None, data, 1),
        (None, data, 1),  # found again
        (None, datasets.load_from_disk(str(tmp_path / "data")), 1),  # as by another process
        (8, data, 2),
        (None, data.select([3, 1]), 3),
    ):
        assert rows(max_length, dataset)[1]["input_ids"].tolist() == [2, 6, 3, 4, 3]
        assert len(calls) == expected


def test_a_key_says_what_is_made_of_a_text() -> None:
    one, other = Tokenizing(tokenizer(), 8), Tokenizing(tokenizer(), 8)
    other.tokens({"text": ["a b c"]})  # a call leaves its truncation in the tokenizer
    assert one.key == other.key is not None
    assert one.key != Tokenizing(tokenizer(), 9).key
    changed = tokenizer()
    changed.add_tokens(["d"])
    assert Tokenizing(changed, 8).key != one.key


def test_tokens_of_texts_in_memory_go_with_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shown = not datasets.are_progress_bars_disabled()
    rows = TokenRows(split([("a", "b")] * 9), Tokenizing(tokenizer(), None).tokens, "key")
    assert rows.lengths.tolist() == [5] * 9
    assert len(list(tmp_path.iterdir())) == 1
    assert shown == (not datasets.are_progress_bars_disabled())
    del rows
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_tokens_are_read_from_the_map_and_not_copied(tmp_path: Path) -> None:
    tokenizing = Tokenizing(tokenizer(), None)
    rows = TokenRows(stored(tmp_path / "data", [("a b", "c")] * 2500), tokenizing.tokens, tokenizing.key)
    column = rows.tokens["input_ids"]
    assert len(column.values) == 3  # pieces of 1,000
    (last, first) = column.take([2499, 0])
    assert np.shares_memory(last, column.values[2])
    assert np.shares_memory(first, column.values[0])
    assert rows.lengths.sum() == 2500 * 6
