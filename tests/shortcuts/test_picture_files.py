"""What files of pictures tell beside the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from evenhand.shortcuts import Samples, fit_shortcut
from evenhand.shortcuts.picture_files import cameras, endings, folders
from evenhand.validation import UserError


def saved(path: Path, camera: tuple[str | None, str | None] = (None, None)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (8, 8), (10, 20, 30))
    header = picture.getexif()
    for tag, text in zip((ExifTags.Base.Make, ExifTags.Base.Model), camera, strict=True):
        if text is not None:
            header[tag] = text
    picture.save(path, exif=header)
    return path


def told(*paths: str | Path | None) -> list[dict[str, Any]]:
    return [{"path": None if path is None else str(path), "bytes": None} for path in paths]


def test_endings_in_lower_case() -> None:
    assert endings(told("a/b.JPG", "c.tar.png", "d", None)).to_pylist() == [".jpg", ".png", None, None]


def test_the_nearest_folder_that_is_neither_class_nor_split() -> None:
    names = told("/d/ward/train/Cat/1.png", "/d/icu/cat/1.png", "/d/cat/icu/2.png", "cat/1.png", None)
    assert folders(names, ["cat", "dog"]).to_pylist() == ["ward", "icu", "icu", None, None]


def test_the_camera_of_a_files_header_or_of_its_bytes(tmp_path: Path) -> None:
    own = saved(tmp_path / "a.jpg", ("Canon", "EOS 5D"))
    part = saved(tmp_path / "b.jpg", (None, "Pixel 9"))
    none = saved(tmp_path / "c.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    files = told(own, part, none, tmp_path / "broken.jpg", tmp_path / "missing.jpg", None)
    files.append({"path": "a.jpg", "bytes": own.read_bytes()})
    assert cameras(files).to_pylist() == ["Canon EOS 5D", "Pixel 9", None, None, None, None, "Canon EOS 5D"]


def test_files_point_to_classes(tmp_path: Path) -> None:
    label_N = np.arange(60) % 2
    paths = [
        saved(tmp_path / ("north" if y else "south") / f"{row}.{'png' if y else 'jpg'}", (None, None if y else "X1"))
        for row, y in enumerate(label_N)
    ]
    samples = Samples.of(images=paths)
    for part, names in (("ending", {".png", ".jpg"}), ("folder", {"north", "south"}), ("camera", {"(missing)", "X1"})):
        fitted = fit_shortcut(f"file:{part}", samples, label_N, ("cat", "dog"))
        assert set(fitted.names) == names
        assert sorted(fitted.points_to) == [0, 1]
    with pytest.raises(UserError, match="All training rows have the same value of 'file:folder'"):
        fit_shortcut("file:folder", Samples.of(images=paths[::2]), label_N[::2], ("cat", "dog"))
