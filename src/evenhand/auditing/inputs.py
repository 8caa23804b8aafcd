"""What a task's inputs hold that may be a shortcut: tokens, colours, and how bright, large or long they are.

Legend: N samples, V values, C channels, H height, W width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.auditing.association import LEAST_COUNT
from evenhand.auditing.attributes import Attribute
from evenhand.data.decoding import PictureError, decoded, opened, undecoded
from evenhand.data.measures import OF_PICTURES, OF_TEXTS, Picture
from evenhand.data.rows import Rows, arrow_table

TEXT_COLUMNS = ("text", "text_pair")
PICTURE_COLUMNS = ("image", "pixel_values")
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+")
_LONGEST_TOKEN = 80
_SHADES = 24  # more than a palette has; what looks alike is joined
_ALIKE = 0.03  # in units of chromaticity, whose sum over red, green and blue is 1
_READ = 2048  # pictures at a time
_LEAST_CHROMA = 0.02  # of a picture's brightness; what has less is grey
_SMALL = 256  # pixels of the longer side at which files are looked at


def text_measures(split: datasets.Dataset, column: str) -> dict[str, NDArray[np.float64]]:
    """Measure → its value for each text of a column, shape (N,)."""
    texts = arrow_table(split.select_columns(column)).column(column).to_pylist()
    return {name: np.array([measure(text or "") for text in texts]) for name, measure in OF_TEXTS.items()}


def tokens(text: str | None) -> list[str]:
    """Words and runs of other signs, in lower case: "Stop !!" has "stop" and "!!"."""
    return [token[:_LONGEST_TOKEN] for token in _TOKEN.findall((text or "").lower())]


def token_members(split: datasets.Dataset, column: str) -> tuple[list[str], Any]:
    """Tokens of a column on at least 20 samples but not on all, and which samples have them (sparse, (N, V))."""
    from sklearn.feature_extraction.text import CountVectorizer  # its import takes a second

    make: Any = CountVectorizer  # its stubs know neither a function as analyzer nor other dtypes
    counter = make(analyzer=tokens, binary=True, min_df=LEAST_COUNT, dtype=np.float64)
    try:
        member_NV = counter.fit_transform(arrow_table(split).column(column).to_pylist()).tocsc()
    except ValueError:  # no token is on as many samples
        return [], None
    count_V = np.diff(member_NV.indptr)
    kept = np.flatnonzero(count_V < len(split))
    names = counter.get_feature_names_out()
    return [str(names[v]) for v in kept], member_NV[:, kept]


# ---- colours --------------------------------------------------------------------------------------------------------


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


def colours(color_N3: NDArray[np.float64]) -> list[Attribute]:
    """The mean colour of each picture, in two views; none for pictures without colour.

    The first groups pictures by hue and saturation, which tells shades of a hue apart but may hold the shape too (a
    white object pales its picture); the second by hue alone. Brightness is a measure of its own.
    """
    shades = _shades(color_N3)
    return [] if shades is None else [shades, _hues(color_N3)]


def _shades(color_N3: NDArray[np.float64]) -> Attribute | None:
    from sklearn.cluster import AgglomerativeClustering, KMeans

    known_N = np.isfinite(color_N3).all(axis=1)
    total_N = np.where(known_N, color_N3.sum(axis=1), 0.0)
    known_N &= total_N > 0
    if known_N.sum() < LEAST_COUNT:
        return None
    chroma_N3 = color_N3[known_N] / total_N[known_N, None]
    if np.ptp(chroma_N3, axis=0).max() < _ALIKE:
        return None
    point_N2 = chroma_N3[:, :2]  # the third one follows
    different = len(np.unique(point_N2.round(4), axis=0))
    few: Any = KMeans
    shades = few(min(_SHADES, different), n_init=1, random_state=0).fit(point_N2)
    joined_V = np.zeros(1, dtype=np.int64)
    if len(shades.cluster_centers_) > 1:
        joining: Any = AgglomerativeClustering
        joined_V = joining(None, distance_threshold=_ALIKE, linkage="complete").fit_predict(shades.cluster_centers_)
    value_N = np.full(len(color_N3), -1)
    value_N[known_N] = joined_V[shades.labels_]
    mean_V3 = np.stack([color_N3[value_N == v].mean(axis=0) for v in range(joined_V.max() + 1)])
    return Attribute("colour", [_code(mean_3 / mean_V3.max()) for mean_3 in mean_V3], value_N)


def _hues(color_N3: NDArray[np.float64]) -> Attribute:
    """Twelfths of the circle of hues; −1 for grey pictures."""
    red_N, green_N, blue_N = np.nan_to_num(color_N3).T  # an unreadable picture is grey
    # the colour without its grey part, in the plane of hues
    x_N, y_N = red_N - (green_N + blue_N) / 2, (green_N - blue_N) * math.sqrt(3) / 2
    colored_N = np.hypot(x_N, y_N) > _LEAST_CHROMA * np.maximum(red_N + green_N + blue_N, 1e-12)
    twelfth_N = np.rint(np.arctan2(y_N, x_N) / (math.pi / 6)).astype(np.int64) % 12
    value_N: NDArray[np.int64] = np.where(colored_N, twelfth_N, -1)
    names = []
    for value in range(12):
        rows = np.flatnonzero(np.equal(value_N, value))
        mean_3 = color_N3[rows].mean(axis=0) if len(rows) else np.ones(3)
        names.append(_code(mean_3 / mean_3.max()))
    return Attribute("colour", names, value_N)


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


def _code(color_3: NDArray[np.float64]) -> str:
    """The code of a colour whose parts are fractions of 1."""
    red, green, blue = (round(255 * part) for part in color_3)
    return f"#{red:02x}{green:02x}{blue:02x}"
