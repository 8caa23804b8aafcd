"""Spatter: drops of water (levels 1 to 3) or mud (4 and 5).

Legend: N images, H height, W width.

Water needs edges, distances and an equalised histogram, which the authors take from OpenCV. Here they are the textbook
forms: exact Euclidean distances in place of OpenCV's approximation by a mask of 5×5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate, distance_transform_edt, gaussian_filter, label, sobel, uniform_filter

# Mean and deviation of the liquid's noise, its smoothness, threshold, then: strength of water or smoothness of mud
SPATTER = (
    (0.62, 0.1, 0.7, 0.7, 0.5),
    (0.65, 0.1, 0.8, 0.7, 0.5),
    (0.65, 0.3, 1.0, 0.69, 0.5),
    (0.65, 0.1, 0.7, 0.69, 0.6),
    (0.65, 0.1, 0.5, 0.68, 0.6),
)
MUD_FROM = 4
WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
_FAR = 20.0  # pixels up to which distances from an edge count
_WEAK, _STRONG = 50, 150  # thresholds of the edges


def spatter(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Drops where smoothed noise is high."""
    mean, deviation, smoothness, threshold, last = SPATTER[level - 1]
    noise = rng.normal(mean, deviation, x_NHW3.shape[:3])
    liquid_NHW = _smooth(noise, smoothness)
    liquid_NHW[liquid_NHW < threshold] = 0
    if level >= MUD_FROM:
        mud = _smooth((liquid_NHW > threshold).astype(np.float64), last)[..., None]
        mud[mud < 0.8] = 0
        return x_NHW3 * (1 - mud) + mud * MUD
    drops = np.stack([_relief(layer) for layer in liquid_NHW])
    highest = drops.max(axis=(1, 2), keepdims=True)
    shine = last * drops / np.where(highest > 0, highest, 1)
    return x_NHW3 + shine[..., None] * WATER


def _smooth(x_NHW: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    smoothed: Any = gaussian_filter(x_NHW, (0, sigma, sigma), mode="nearest", truncate=4)
    return smoothed


def _relief(liquid_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much light each pixel of the drops throws back: the liquid times a relief of the distances to its edges."""
    liquid = (liquid_HW.clip(0, 1) * 255).astype(np.uint8)
    edge_HW = edges(liquid)
    # without any edge all distances are the largest
    distance: Any = distance_transform_edt(~edge_HW) if edge_HW.any() else np.full(liquid.shape, _FAR)
    distance = np.rint(uniform_filter(np.minimum(distance, _FAR), 3, mode="mirror"))
    even = equalized(distance.astype(np.uint8)).astype(np.float64)
    relief: Any = correlate(even, _RELIEF.astype(np.float64), mode="mirror")
    smoothed: Any = uniform_filter(relief.clip(0, 255), 3, mode="mirror")
    return liquid * np.rint(smoothed)


def equalized(gray_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gray levels spread so that each is as frequent as others: the cumulative histogram, from 0 to 255."""
    histogram = np.bincount(gray_HW.reshape(-1), minlength=256)
    lowest = int(histogram[np.flatnonzero(histogram)[0]])
    if lowest == gray_HW.size:  # one level only
        return gray_HW
    spread = np.rint((np.cumsum(histogram) - lowest) * (255 / (gray_HW.size - lowest)))
    return spread.clip(0, 255).astype(np.uint8)[gray_HW]


def edges(gray_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Canny's edges: ridges of the gradient above the weak threshold that touch one above the strong threshold."""
    gray = gray_HW.astype(np.float64)
    across, down = sobel(gray, axis=1, mode="nearest"), sobel(gray, axis=0, mode="nearest")
    steepness = np.abs(across) + np.abs(down)
    padded = np.pad(steepness, 1)
    height, width = gray.shape

    def neighbour(dy: int, dx: int) -> NDArray[np.float64]:
        return padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    tangent = np.tan(np.pi / 8)  # the gradient's direction is taken to the nearest of four
    level = np.abs(down) <= tangent * np.abs(across)
    upright = np.abs(down) >= np.abs(across) / tangent
    falling = np.sign(across) * np.sign(down) >= 0
    before = np.select(
        [level, upright, falling], [neighbour(0, -1), neighbour(-1, 0), neighbour(-1, -1)], neighbour(-1, 1)
    )
    after = np.select([level, upright, falling], [neighbour(0, 1), neighbour(1, 0), neighbour(1, 1)], neighbour(1, -1))
    ridge = (steepness > _WEAK) & (steepness > before) & (steepness >= after)
    parts, _ = label(ridge, structure=np.ones((3, 3)))  # type: ignore[misc]
    strong = np.unique(parts[ridge & (steepness > _STRONG)])
    return ridge & np.isin(parts, strong)
