"""What shortcuts read: plain data and splits of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from evenhand.data.columns import class_column, dataset_of, text_column
from evenhand.shortcuts import Samples
from evenhand.tasks.base import BesideColumns
from evenhand.validation import UserError


def test_a_pair_of_texts_has_the_users_names() -> None:
    samples = Samples.of(
        texts={"premise": ["a", None], "hypothesis": pa.array(["c", "d"])}, columns={"n": np.arange(2)}
    )
    assert samples.texts == {"premise": "text", "hypothesis": "text_pair"}
    assert samples.text_places("hypothesis") == samples.text_places("text_pair") == ["text_pair"]
    assert samples.read_texts("text") == ["a", None]
    assert samples.columns == ("n",)
    assert len(samples) == 2


def test_columns_beside_the_rows_and_names_of_classes() -> None:
    split = dataset_of({"text": text_column(["a", "b"]), "attribute": class_column(np.array([1, -1]), ["red", "blue"])})
    table = {"site": pa.chunked_array([["x", "y"]]), "id": pa.chunked_array([[1, 2]])}
    samples = Samples(split, beside=BesideColumns(tuple(table), table.__getitem__))
    assert samples.columns == ("attribute", "site")
    assert samples.read_column("attribute").to_pylist() == ["blue", None]
    assert samples.read_column("site").to_pylist() == ["x", "y"]
    with pytest.raises(UserError, match="The column 'id' is the name of the row"):
        samples.read_column("id")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "hold none"),
        ({"texts": []}, "hold none"),
        ({"texts": ["a"], "columns": {"n": [1, 2]}}, "same number of rows. Got 1 of text, 2 of n."),
        ({"texts": {"a": ["x"], "b": ["x"], "c": ["x"]}}, "Texts come in one column or two. Got a, b, c."),
        ({"texts": ["a"], "columns": {"text": ["b"]}}, "The column 'text' is the text or picture itself."),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "Got uint8 of shape (2, 4, 4)."),
        ({"images": np.zeros((2, 3, 4, 4))}, "Got float64 of shape (2, 3, 4, 4)."),
        ({"images": [3]}, "one array of pixels, or paths of files"),
    ],
)
def test_plain_data_that_are_none(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Samples.of(**given)
    assert sentence in str(caught.value)


def test_pictures_are_pixels_or_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 5)).astype(np.uint8)
    paths = []
    for place, pixel_CHW in enumerate(pixels):
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(np.ascontiguousarray(pixel_CHW.transpose(1, 2, 0))).save(paths[-1])
    arrays, files = Samples.of(images=pixels), Samples.of(images=paths)
    assert files.looks.color_N3 == pytest.approx(arrays.looks.color_N3)
    assert files.looks.measures["aspect"].tolist() == [5 / 6] * 2
    assert [file["path"] for file in files.picture_files()] == [str(path) for path in paths]
    assert isinstance(files.split, datasets.Dataset)
    with pytest.raises(UserError, match="holds no picture files"):
        arrays.picture_files()
    with pytest.raises(UserError, match="holds no texts"):
        arrays.text_places(None)
