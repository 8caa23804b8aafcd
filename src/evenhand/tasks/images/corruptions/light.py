"""Corruptions that change light and colour: brightness, saturation, contrast, fog.

Legend: N images, H height, W width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)  # added to HSV's value
SATURATE = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))  # HSV's saturation times, plus
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # distances from the mean colour times
FOG = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))  # amount, decay of the detail
_FIRST_WIBBLE = 100.0


def brightness(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A constant is added to HSV's value, at fixed hue and saturation."""
    value = x_NHW3.max(axis=-1, keepdims=True)
    raised = (value + BRIGHTNESS[level - 1]).clip(0, 1)
    # colours keep their proportions; black, which has none, becomes gray
    return np.where(value > 0, x_NHW3 * raised / np.where(value > 0, value, 1), raised)


def saturate(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """HSV's saturation is multiplied and raised, at fixed hue and value; gray has hue 0, so raised it turns red."""
    times, plus = SATURATE[level - 1]
    value = x_NHW3.max(axis=-1, keepdims=True)
    chroma = value - x_NHW3.min(axis=-1, keepdims=True)
    saturation = chroma / np.where(value > 0, value, 1)
    changed = (saturation * times + plus).clip(0, 1)
    below = np.where(chroma > 0, (value - x_NHW3) / np.where(chroma > 0, chroma, 1), np.array([0.0, 1.0, 1.0]))
    return value * (1 - changed * below)


def contrast(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Pixels move towards their image's mean colour."""
    mean = x_NHW3.mean(axis=(1, 2), keepdims=True)
    return (x_NHW3 - mean) * CONTRAST[level - 1] + mean


def fog(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A cloud of fractal noise is added, and the sum scaled back to the image's own brightest value."""
    amount, decay = FOG[level - 1]
    height, width = x_NHW3.shape[1:3]
    side = 1 << (max(height, width) - 1).bit_length()  # the power of two that holds the image
    cloud = plasma(len(x_NHW3), side, decay, rng)[:, :height, :width, None]
    brightest = x_NHW3.max(axis=(1, 2, 3), keepdims=True)
    return (x_NHW3 + amount * cloud) * brightest / (brightest + amount)


def plasma(count: int, side: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Height maps in [0, 1] by the diamond-square algorithm on a torus, shape (count, side, side).

    Every step halves the grid: the middle of each square, then of each edge, is the mean of its four neighbours plus
    noise uniform in ±wibble², and wibble is divided by `decay`.
    """
    height_NSS = np.zeros((count, side, side))
    step, wibble = side, _FIRST_WIBBLE

    def between(sum_of_four: NDArray[np.float64]) -> NDArray[np.float64]:
        return sum_of_four / 4 + wibble * rng.uniform(-wibble, wibble, sum_of_four.shape)

    while step >= 2:
        half = step // 2
        corner = height_NSS[:, ::step, ::step]
        rows = corner + np.roll(corner, -1, axis=1)
        center = between(rows + np.roll(rows, -1, axis=2))
        height_NSS[:, half::step, half::step] = center
        vertical = center + np.roll(center, 1, axis=1)
        height_NSS[:, ::step, half::step] = between(vertical + corner + np.roll(corner, -1, axis=2))
        horizontal = center + np.roll(center, 1, axis=2)
        height_NSS[:, half::step, ::step] = between(horizontal + corner + np.roll(corner, -1, axis=1))
        step, wibble = half, wibble / decay
    height_NSS -= height_NSS.min(axis=(1, 2), keepdims=True)
    return height_NSS / height_NSS.max(axis=(1, 2), keepdims=True)
