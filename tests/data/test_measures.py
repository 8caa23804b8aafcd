"""What is measured of pictures and texts beside their content."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image, ImageFilter

from evenhand.data.looks import looks
from evenhand.data.measures import OF_PICTURES, Picture, aspect, brightness, contrast, length, sharpness, size


def of(pixels_CHW: object) -> Picture:
    array = np.asarray(pixels_CHW, dtype=np.uint8)
    return Picture(array, array.shape[2], array.shape[1])


def test_a_bright_picture_and_a_rich_one() -> None:
    grey = of(np.full((3, 4, 6), 100))
    assert (brightness(grey), contrast(grey), size(grey), aspect(grey), sharpness(grey)) == (
        pytest.approx(100.0),
        pytest.approx(0.0, abs=1e-9),
        24.0,
        1.5,
        0.0,
    )
    half = of(np.concatenate([np.zeros((1, 4, 4)), np.full((1, 4, 4), 200)], axis=2))
    assert (brightness(half), contrast(half)) == (100.0, 100.0)
    assert brightness(of(np.stack([np.full((2, 2), c) for c in (0, 255, 0)]))) == pytest.approx(0.587 * 255)


def test_a_blurred_picture_is_less_sharp_whatever_its_contrast() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (32, 32)).astype(np.uint8))
    blurred = image.filter(ImageFilter.GaussianBlur(1.5))
    sharp, soft = (sharpness(of(np.asarray(i)[None])) for i in (image, blurred))
    pale = sharpness(of(100 + np.asarray(image)[None] // 4))
    assert soft < 0.5 * sharp
    assert pale == pytest.approx(sharp, rel=0.05)


def test_the_size_is_that_of_the_file_and_not_of_what_is_looked_at(tmp_path: Path) -> None:
    Image.new("RGB", (900, 300), (10, 10, 10)).save(tmp_path / "large.jpg")
    Image.new("RGB", (30, 30), (200, 200, 200)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [str(tmp_path / name) for name in ("large.jpg", "small.png", "broken.png")]
    split = datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image())
    seen = looks(split)
    assert set(seen.measures) == set(OF_PICTURES)
    assert seen.measures["size"][:2].tolist() == [270_000, 900]
    assert seen.measures["aspect"][:2].tolist() == [3.0, 1.0]
    assert seen.measures["brightness"][:2] == pytest.approx([10, 200], abs=1)
    assert all(np.isnan(of_N[2]) for of_N in seen.measures.values())


def test_a_text_is_as_long_as_its_characters() -> None:
    assert (length(""), length("héllo 👋")) == (0.0, 7.0)
