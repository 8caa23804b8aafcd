"""Shortcuts from Python: functions and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from evenhand.shortcuts import OwnShortcut, Samples
from evenhand.shortcuts.columns import entry_texts
from evenhand.validation import UserError
from made_shortcuts import colored

SAMPLES = Samples.of(texts=["a b", "c", "d e f"], columns={"site": ["x", None, "y"], "n": [1, 2, 3]}, name="train")


def read(values: Any, batched: bool = False, samples: Samples = SAMPLES) -> list[str]:
    return entry_texts(OwnShortcut("mine", values, batched).read(samples)).tolist()


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, 2, 3], ["1", "2", "3"]),
        (np.array([0.5, np.nan, 2]), ["0.5", "(missing)", "2"]),
        (["a", None, "b"], ["a", "(missing)", "b"]),
        ([True, False, True], ["true", "false", "true"]),
        ((True, "x", 3), ["True", "x", "3"]),
        (torch.tensor([3, 4, 5]), ["3", "4", "5"]),
        (pd.Series(["u", "v", "w"]), ["u", "v", "w"]),
        (pa.array([1, None, 2]), ["1", "(missing)", "2"]),
        ([2**70, 1, 2], [str(2**70), "1", "2"]),
        ([1, 0.5, None], ["1", "0.5", "(missing)"]),
    ],
)
def test_arrays_of_words_and_numbers(values: Any, texts: list[str]) -> None:
    assert read({"train": values}) == texts


def test_a_function_gets_rows_and_a_batched_one_columns() -> None:
    assert read(lambda row: f"{row['site']} {row['n']} {len(row['text'])}") == ["x 1 3", "None 2 1", "y 3 5"]
    assert read(lambda rows: [len(text) for text in rows["text"]], batched=True) == ["3", "1", "5"]
    samples, _ = colored(5)
    assert read(lambda row: int(row["pixel_values"].shape[0]), samples=samples) == ["3"] * 5
    named = Samples.of(texts={"premise": ["a", "b"], "hypothesis": ["c", "d"]})
    assert read(lambda row: row["premise"] + row["hypothesis"], samples=named) == ["ac", "bd"]


def test_a_batched_function_of_many_rows_is_called_on_parts() -> None:
    sizes: list[int] = []

    def count(rows: dict[str, Any]) -> list[int]:
        sizes.append(len(rows["text"]))
        return [1] * len(rows["text"])

    assert len(read(count, batched=True, samples=Samples.of(texts=["a"] * 2500))) == 2500
    assert sizes == [1000, 1000, 500]


def failing(row: dict[str, Any]) -> Any:
    return {"c": 1}[row["text"]]


@pytest.mark.parametrize(
    ("values", "batched", "sentence"),
    [
        ({"train": [1, 2]}, False, "needs a value for each row of the split 'train': 3 rows. Got 2 values."),
        ({"test": [1]}, False, "The shortcut 'mine' is given for test, but not for the split 'train'."),
        ({"train": "abc"}, False, "must be a list or an array. Got str."),
        ({"train": 3}, False, "must be a list or an array. Got int."),
        ({"train": [[1], [2], [3]]}, False, "Got list for row 0 of the split 'train'."),
        (failing, False, "failed on row 0 of the split 'train': KeyError: 'a b'."),
        (failing, True, "failed from row 0 on of the split 'train': TypeError"),
        (lambda rows: [1], True, "must return a value for each of 3 rows from row 0 on of the split 'train'. Got 1."),
        (lambda row: row, False, "Got dict for row 0"),
    ],
)
def test_values_that_are_none(values: Any, batched: bool, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        read(values, batched)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values", "batched", "sentence"),
    [
        ("", len, False, "needs a name"),
        (3, len, False, "needs a name. Got 3."),
        ("x", [1, 2], False, "must be a function, or a mapping from splits to arrays. Got list."),
        ("x", {"train": [1]}, True, "given as arrays, so `batched` has no meaning"),
    ],
)
def test_what_is_no_shortcut(name: Any, values: Any, batched: bool, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        OwnShortcut(name, values, batched)
    assert sentence in str(caught.value)


def test_it_has_a_name_but_no_spelling() -> None:
    own = OwnShortcut("mine", len)
    assert str(own) == "mine"
    with pytest.raises(UserError, match="'mine' comes from Python, so it has no spelling"):
        _ = own.spelling
