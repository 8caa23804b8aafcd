"""What a picture or a text is besides its content, as one number each, such as its brightness or length.

Each is a pure function of one input. Whether such a number tells the class is for an audit to find out.

Legend: C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LUMA = (0.299, 0.587, 0.114)  # how bright red, green and blue look


@dataclass(frozen=True)
class Picture:
    """A picture as it is measured.

    Attributes:
        pixels_CHW: Its pixels in 0–255, perhaps scaled down.
        width: Its width before that.
        height: Its height before that.
    """

    pixels_CHW: NDArray[Any]
    width: int
    height: int


def brightness(picture: Picture) -> float:
    """Mean of the grey levels, in 0–255."""
    return float(_grey(picture).mean())


def contrast(picture: Picture) -> float:
    """Standard deviation of the grey levels."""
    return float(_grey(picture).std())


def size(picture: Picture) -> float:
    """Area in pixels."""
    return float(picture.width * picture.height)


def aspect(picture: Picture) -> float:
    """Width over height."""
    return picture.width / picture.height


def sharpness(picture: Picture) -> float:
    """How much neighbouring grey levels differ (mean absolute Laplacian), in units of the contrast."""
    grey_HW = _grey(picture)
    spread = grey_HW.std()
    if min(grey_HW.shape) < 3 or spread == 0:
        return 0.0
    inner_HW = grey_HW[1:-1, 1:-1]
    around_HW = grey_HW[:-2, 1:-1] + grey_HW[2:, 1:-1] + grey_HW[1:-1, :-2] + grey_HW[1:-1, 2:]
    return float(np.abs(around_HW - 4 * inner_HW).mean() / spread)


def length(text: str) -> float:
    """Characters."""
    return float(len(text))


def _grey(picture: Picture) -> NDArray[np.float64]:
    pixels_CHW = picture.pixels_CHW
    if len(pixels_CHW) < 3:
        return pixels_CHW[0].astype(np.float64)
    return np.tensordot(np.asarray(LUMA), pixels_CHW[:3], axes=1)


OF_PICTURES: dict[str, Callable[[Picture], float]] = {
    "brightness": brightness,
    "contrast": contrast,
    "size": size,
    "aspect": aspect,
    "sharpness": sharpness,
}
OF_TEXTS: dict[str, Callable[[str], float]] = {"length": length}
