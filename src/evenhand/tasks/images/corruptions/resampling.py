"""Corruptions that resample or recode: elastic deformation, JPEG, pixelation.

Legend: N images, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

# Strength and smoothness of the displacement and the corners' shift, in image sides
ELASTIC = ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
JPEG = (80, 65, 58, 50, 40)  # quality
PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)  # side of the smaller image

Border = Callable[[NDArray[np.int64], int], NDArray[np.int64]]


def elastic(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random affine map of three points, then a smooth random displacement of each pixel."""
    strength, smoothness, shift = (c * x_NHW3.shape[1] for c in ELASTIC[level - 1])
    count, height, width = x_NHW3.shape[:3]
    y_HW, x_HW = np.mgrid[:height, :width].astype(np.float64)
    middle, reach = min(height, width) // 2, min(height, width) // 3
    triangle_3x2 = np.array([[middle + reach] * 2, [middle + reach, middle - reach], [middle - reach] * 2], np.float64)
    moved_N32 = triangle_3x2 + rng.uniform(-shift, shift, (count, 3, 2))
    # the map back, from the moved points to the triangle: [x y 1] · map = source
    map_N32 = np.linalg.solve(np.concatenate([moved_N32, np.ones((count, 3, 1))], axis=2), triangle_3x2[None])
    source = np.einsum("hwk,nkd->dnhw", np.stack([x_HW, y_HW, np.ones_like(x_HW)], axis=-1), map_N32)
    warped = bilinear(x_NHW3, source[1], source[0], mirrored)

    def displacement() -> NDArray[np.float64]:
        noise = rng.uniform(-1, 1, (count, height, width))
        return strength * gaussian_filter(noise, (0, smoothness, smoothness), mode="reflect", truncate=3)

    dx, dy = displacement(), displacement()
    return bilinear(warped, y_HW + dy, x_HW + dx, reflected)


def jpeg(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Compressed and read again."""

    def recoded(picture: Image.Image) -> Image.Image:
        file = BytesIO()
        picture.save(file, "JPEG", quality=JPEG[level - 1])
        return Image.open(file, formats=["JPEG"])

    return _each(x_NHW3, recoded)


def pixelate(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Made smaller and larger again, by areas."""
    height, width = x_NHW3.shape[1:3]
    smaller = int(width * PIXELATE[level - 1]), int(height * PIXELATE[level - 1])

    def coarse(picture: Image.Image) -> Image.Image:
        return picture.resize(smaller, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return _each(x_NHW3, coarse)


def bilinear(
    image_NHWC: NDArray[np.float64], y_NHW: NDArray[np.float64], x_NHW: NDArray[np.float64], border: Border
) -> NDArray[np.float64]:
    """The images' values between pixels; beyond the edge, those of the pixel that `border` names instead."""
    height, width = image_NHWC.shape[1:3]
    top, left = np.floor(y_NHW).astype(np.int64), np.floor(x_NHW).astype(np.int64)
    down, right = (y_NHW - top)[..., None], (x_NHW - left)[..., None]
    image = np.arange(len(image_NHWC))[:, None, None]

    def at(y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float64]:
        return image_NHWC[image, border(y, height), border(x, width)]

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def mirrored(position: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """… 2 1 | 0 1 2 …: the edge pixel isn't repeated (OpenCV's BORDER_REFLECT_101)."""
    folded = np.mod(position, max(2 * size - 2, 1))
    return np.minimum(folded, 2 * size - 2 - folded)


def reflected(position: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """… 1 0 | 0 1 2 …: the edge pixel is repeated (scipy's `reflect`)."""
    folded = np.mod(position, 2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)


def _each(x_NHW3: NDArray[np.float64], change: Callable[[Image.Image], Image.Image]) -> NDArray[np.float64]:
    """Each image changed as a picture of bytes."""
    bytes_NHW3 = np.rint(x_NHW3 * 255).astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in bytes_NHW3]) / 255.0
