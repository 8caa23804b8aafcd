"""What a picture's file tells beside the picture: its ending, its folder, and the camera that its header names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any

import pyarrow as pa
from PIL import ExifTags

from evenhand.data.decoding import PictureError, opened

_SPLITS = frozenset(("train", "training", "valid", "validation", "val", "dev", "test", "testing", "images", "pictures"))


def endings(files: Sequence[dict[str, Any]]) -> pa.ChunkedArray:
    """Each file's ending in lower case, such as ".jpg"; missing where there is none."""
    return _column([PurePath(file["path"] or "").suffix.lower() or None for file in files])


def folders(files: Sequence[dict[str, Any]], classes: Collection[str]) -> pa.ChunkedArray:
    """The nearest folder above each file that is named neither after a class nor after a split."""
    passed = {name.casefold() for name in classes} | _SPLITS
    found: dict[PurePath, str | None] = {}
    names = []
    for file in files:
        above = PurePath(file["path"] or "").parent
        if above not in found:
            found[above] = next((part for part in reversed(above.parts) if part.casefold() not in passed), None)
        names.append(found[above])
    return _column(names)


def cameras(files: Sequence[dict[str, Any]]) -> pa.ChunkedArray:
    """Maker and model of the camera; missing where a file's header names none, or can't be read."""
    return _column([_camera(file) for file in files])


def _camera(file: dict[str, Any]) -> str | None:
    try:
        with opened(file) as picture:
            header = picture.getexif()
    except (PictureError, OSError, ValueError, SyntaxError, TypeError, AttributeError):  # of a damaged header too
        return None
    parts = [str(header.get(tag) or "").strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
    return " ".join(part for part in parts if part) or None


def _column(values: Sequence[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])
