"""The ten corruptions of Corrupted CIFAR-10, by the published formulas of CIFAR-10-C (Hendrycks and Dietterich, 2019).

Legend: N images, H height, W width; images are (N, H, W, 3), floats in [0, 1] inside this package.

Formulas and parameters are those of the authors' script for 32×32 images, whose five levels are weaker than those of
ImageNet-C; they are written here for many images at once, without OpenCV and ImageMagick. Results are cut off to bytes
as there, not rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evenhand.tasks.images.corruptions.light import brightness, contrast, fog, saturate
from evenhand.tasks.images.corruptions.resampling import elastic, jpeg, pixelate
from evenhand.tasks.images.corruptions.spatter import spatter
from evenhand.tasks.images.corruptions.weather import frost, snow

Corruption = Callable[[NDArray[np.float64], int, np.random.Generator], NDArray[np.float64]]

CORRUPTIONS: dict[str, Corruption] = {
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "spatter": spatter,
    "elastic": elastic,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "saturate": saturate,
}
"""Each corruption by name, in the order of the classes that they leak."""

_CHUNK = 1_000  # images at a time: intermediate floats of a chunk take some tens of megabytes


def corrupt(
    image_NHW3: NDArray[np.uint8],
    name: str,
    level: int,
    rng: np.random.Generator,
    textures: Sequence[NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    """Corrupt images.

    Args:
        image_NHW3: The images.
        name: One of `CORRUPTIONS`.
        level: 1 (weak) to 5 (strong).
        rng: Where draws come from; equal generators give equal images.
        textures: Pictures of ice for `frost`, each (height, width, 3) and at least as large as the images; without
            them it draws its own.
    """
    result = np.empty_like(image_NHW3)
    for start in range(0, len(image_NHW3), _CHUNK):
        chunk = image_NHW3[start : start + _CHUNK] / 255.0
        changed = frost(chunk, level, rng, textures) if name == "frost" else CORRUPTIONS[name](chunk, level, rng)
        # 1e-9: what is a whole number but for rounding isn't cut down to the one below
        result[start : start + _CHUNK] = (changed.clip(0, 1) * 255 + 1e-9).astype(np.uint8)
    return result


__all__ = ["CORRUPTIONS", "corrupt"]
