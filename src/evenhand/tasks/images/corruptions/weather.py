"""Corruptions by weather: snow and frost.

Legend: N images, H height, W width, T textures, K steps of a motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

# Mean and deviation of the flakes' noise, zoom, threshold, radius and deviation of their motion, weight of the image
SNOW = (
    (0.1, 0.2, 1.0, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
FROST = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))  # weights of image and ice
GRAY = (0.299, 0.587, 0.114)
TEXTURES = 5  # pictures of ice that are drawn from; the authors' code never reaches their sixth
_TEXTURE_SIDE = 160


def snow(x_NHW3: NDArray[np.float64], level: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Flakes blurred by falling, and the same turned by 180°, over an image bleached towards white."""
    mean, deviation, factor, threshold, radius, sigma, weight = SNOW[level - 1]
    count, height, width = x_NHW3.shape[:3]
    flakes = enlarged(rng.normal(mean, deviation, (count, height, width)), factor)
    flakes[flakes < threshold] = 0
    flakes = np.floor(flakes.clip(0, 1) * 255)
    angles = rng.uniform(-135, -45, count)
    layer = np.rint(motion_blurred(flakes, int(radius), sigma, angles))[..., None] / 255
    gray = (x_NHW3 * GRAY).sum(axis=-1, keepdims=True)
    bleached = weight * x_NHW3 + (1 - weight) * np.maximum(x_NHW3, gray * 1.5 + 0.5)
    return bleached + layer + layer[:, ::-1, ::-1]


def enlarged(x_NHW: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """The middle of each image, linearly enlarged to the image's size."""
    side = x_NHW.shape[1]
    kept = int(np.ceil(side / factor))
    start = (side - kept) // 2
    larger: Any = zoom(x_NHW[:, start : start + kept, start : start + kept], (1, factor, factor), order=1)
    trim = (larger.shape[1] - side) // 2
    return larger[:, trim : trim + side, trim : trim + side]


def motion_blurred(
    x_NHW: NDArray[np.float64], radius: int, sigma: float, degrees_N: NDArray[np.float64]
) -> NDArray[np.float64]:
    """ImageMagick's motion blur: pixels along a line, weighted by half a Gaussian; edge pixels go on beyond the edge.

    The line has 2·radius + 1 pixels; step k lies k·(cos, sin) of the angle away, rounded to pixels, x to the right and
    y down.
    """
    count, height, width = x_NHW.shape
    steps_K = np.arange(2 * radius + 1)
    weight_K = np.exp(-(steps_K**2) / (2 * sigma**2))
    weight_K /= weight_K.sum()
    angle_N1 = np.deg2rad(degrees_N)[:, None]
    right_NK = np.ceil(steps_K * np.cos(angle_N1) - 0.5).astype(np.int64)
    down_NK = np.ceil(steps_K * np.sin(angle_N1) - 0.5).astype(np.int64)
    image = np.arange(count)[:, None, None]
    blurred = np.zeros_like(x_NHW)
    for k in steps_K:
        y = (np.arange(height) + down_NK[:, k, None]).clip(0, height - 1)
        x = (np.arange(width) + right_NK[:, k, None]).clip(0, width - 1)
        blurred += weight_K[k] * x_NHW[image, y[:, :, None], x[:, None, :]]
    return blurred


def frost(
    x_NHW3: NDArray[np.float64],
    level: int,
    rng: np.random.Generator,
    textures: Sequence[NDArray[np.uint8]] | None = None,
) -> NDArray[np.float64]:
    """A weighted sum with a piece of a picture of ice, at a place of its own for each image."""
    own, ice = FROST[level - 1]
    height, width = x_NHW3.shape[1:3]
    pieces = np.empty_like(x_NHW3)
    textures = drawn_ice() if textures is None else textures
    for i, texture in enumerate(rng.integers(0, len(textures), len(x_NHW3))):
        picture = textures[texture]
        top = rng.integers(0, picture.shape[0] - height + 1)
        left = rng.integers(0, picture.shape[1] - width + 1)
        pieces[i] = picture[top : top + height, left : left + width]
    return own * x_NHW3 + ice * pieces / 255


def drawn_ice() -> list[NDArray[np.uint8]]:
    """Our own pictures of ice, the same at every call: bright branching ridges on a bluish ground.

    They stand in for the authors' photographs, which aren't shipped here.
    """
    textures = []
    for number in range(TEXTURES):
        rng = np.random.default_rng([0x1CE, number])
        ridges = np.zeros((_TEXTURE_SIDE, _TEXTURE_SIDE))
        for scale, weight in ((12.0, 1.0), (6.0, 0.7), (3.0, 0.5), (1.5, 0.35)):
            noise = gaussian_filter(rng.normal(size=ridges.shape), scale * (1 + 0.15 * number), mode="wrap")
            ridges += weight * np.exp(-np.abs(noise) / noise.std() * 3)  # bright where the noise crosses zero
        ground = gaussian_filter(rng.normal(size=ridges.shape), 20.0, mode="wrap")
        gray = 0.3 + 0.08 * ground / ground.std() + 0.45 * ridges
        colour = gray[..., None] * np.array([0.88, 0.96, 1.0])
        textures.append((colour.clip(0, 1) * 255).astype(np.uint8))
    return textures
