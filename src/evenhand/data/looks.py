"""A split's pictures as they are measured: small, read batch by batch, with what is measured of each.

Legend: N pictures, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import PICTURE_COLUMNS
from evenhand.data.decoding import PictureError, decoded, opened, undecoded
from evenhand.data.measures import OF_PICTURES, Picture
from evenhand.data.rows import Rows

_READ = 2048  # pictures at a time
_SMALL = 256  # pixels of the longer side at which files are looked at


@dataclass(frozen=True)
class Looks:
    """What is measured of each picture; NaN where one can't be read.

    Attributes:
        color_N3: Mean red, green and blue, shape (N, 3).
        measures: Measure → its value for each picture, shape (N,).
    """

    color_N3: NDArray[np.float64]
    measures: dict[str, NDArray[np.float64]]


def looks(split: datasets.Dataset) -> Looks:
    """Measure every picture."""
    colors, rows = [], []
    for batch in pictures(split):
        for picture in batch:
            colors.append(_mean_colour(picture))
            rows.append([np.nan if picture is None else measure(picture) for measure in OF_PICTURES.values()])
    measured_NM = np.array(rows, dtype=np.float64)
    return Looks(np.stack(colors), dict(zip(OF_PICTURES, measured_NM.T, strict=True)))


def pictures(split: datasets.Dataset, rows: NDArray[np.int64] | None = None) -> Iterator[list[Picture | None]]:
    """Pictures of all rows or some, batch by batch; None where one can't be read."""
    column = next(name for name in PICTURE_COLUMNS if name in split.column_names)
    chosen = split.select_columns([column])
    if rows is not None:
        chosen = chosen.select(rows)
    if column == "image":
        chosen = undecoded(chosen)  # one broken file must not end all
        for start in range(0, len(chosen), _READ):
            yield [_opened(entry) for entry in chosen[start : start + _READ][column]]
        return
    arrays = Rows(chosen, [column])
    for start in range(0, len(chosen), _READ):
        read = np.asarray(arrays.__getitems__(range(start, min(start + _READ, len(chosen))))[column])
        yield [Picture(pixels_CHW, pixels_CHW.shape[2], pixels_CHW.shape[1]) for pixels_CHW in read]


def _opened(entry: Any) -> Picture | None:
    """A picture of a file or its bytes, made small; None if it is none."""
    try:
        with opened(entry) as picture:
            width, height = picture.size
            picture.draft("RGB", (_SMALL, _SMALL))  # JPEGs are read at a fraction of their size
            small = decoded(picture)
    except PictureError:
        return None
    if (small.width < small.height) != (width < height):  # it was turned upright
        width, height = height, width
    small.thumbnail((_SMALL, _SMALL))
    return Picture(np.asarray(small).transpose(2, 0, 1), width, height)


def _mean_colour(picture: Picture | None) -> NDArray[np.float64]:
    if picture is None:
        return np.full(3, np.nan)
    mean_C = picture.pixels_CHW.mean(axis=(1, 2), dtype=np.float64)
    return mean_C[:3] if len(mean_C) >= 3 else np.full(3, mean_C[0])
