"""The augmentation of PGD's released Colored-MNIST code, on tensors: crop and resize, colour jitter, rotation.

Legend: B images of a batch, C channels, H height, W width.

It draws as torchvision does (RandomResizedCrop of 90–110 % of the area back to the image's size, ColorJitter of hue
and saturation by 5 %, RandomRotation by up to 10° with black corners), but for a whole batch at once, in floats, and
from its own generator.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenhand.data.rows import Collator

AREA = (0.9, 1.1)
RATIO = (3 / 4, 4 / 3)  # torchvision's own default
ATTEMPTS = 10
SATURATION = HUE = 0.05
DEGREES = 10.0


class Augmenting:
    """A collator that augments the images of each batch before another one turns them into a model's inputs.

    Args:
        collate: Takes a batch of `Rows` with `pixel_values` of shape (B, C, H, W), uint8 or floats in [0, 1].
        seed: Drives all draws: equal seeds and equal batches give equal images.
    """

    def __init__(self, collate: Collator, seed: int) -> None:
        self.collate = collate
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Augment and collate."""
        pixels = torch.from_numpy(np.ascontiguousarray(rows["pixel_values"]))
        return self.collate({**rows, "pixel_values": augmented(pixels, self.generator).numpy()})


def augmented(pixels_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each image cropped, jittered and rotated by draws of its own; same shape and dtype.

    Args:
        pixels_BCHW: Images, uint8 or floats in [0, 1]. The colours of images without three channels stay.
        generator: Where the draws come from.
    """
    whole = not pixels_BCHW.is_floating_point()
    x = pixels_BCHW.float() / 255 if whole else pixels_BCHW
    batch, channels, height, width = x.shape
    x = resized_crops(x, crop_boxes(batch, height, width, generator))
    if channels == 3:
        x = jittered(x, *jitters(batch, generator))
    x = rotated(x, _uniform((batch,), -DEGREES, DEGREES, generator))
    return (x * 255).round().to(pixels_BCHW.dtype) if whole else x


# ---- crop and resize ------------------------------------------------------------------------------------------------


def crop_boxes(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Top, left, height and width of each image's crop, shape (B, 4), float32 holding whole numbers.

    Area and aspect ratio are drawn up to ten times until the crop fits into the image; where none fits it is the
    whole image. (torchvision's fall-back differs from that only for images beyond its ratios of 3:4 and 4:3.)
    """
    area = height * width * _uniform((batch, ATTEMPTS), *AREA, generator)
    ratio = torch.exp(_uniform((batch, ATTEMPTS), math.log(RATIO[0]), math.log(RATIO[1]), generator))
    crop_width, crop_height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (crop_width > 0) & (crop_width <= width) & (crop_height > 0) & (crop_height <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits
    any_fits = fits.any(dim=1)
    w = torch.where(any_fits, crop_width.gather(1, first)[:, 0], float(width))
    h = torch.where(any_fits, crop_height.gather(1, first)[:, 0], float(height))
    top = (_uniform((batch,), 0, 1, generator) * (height - h + 1)).floor()
    left = (_uniform((batch,), 0, 1, generator) * (width - w + 1)).floor()
    return torch.stack([top, left, h, w], dim=1)


def resized_crops(x_BCHW: Tensor, box_B4: Tensor) -> Tensor:
    """Each image's crop, brought back to the image's size by bilinear interpolation inside the crop."""
    height, width = x_BCHW.shape[-2:]
    top, left, h, w = box_B4.unbind(1)
    row_BH, below_BH, down_BH = _neighbours(top, h, height)
    column_BW, right_BW, across_BW = _neighbours(left, w, width)
    down, across = down_BH[:, None, :, None].to(x_BCHW.dtype), across_BW[:, None, None, :].to(x_BCHW.dtype)

    def pixels(rows_BH: Tensor, columns_BW: Tensor) -> Tensor:
        return _gathered(x_BCHW, rows_BH[:, :, None].expand(-1, -1, width), columns_BW[:, None].expand(-1, height, -1))

    upper = torch.lerp(pixels(row_BH, column_BW), pixels(row_BH, right_BW), across)
    lower = torch.lerp(pixels(below_BH, column_BW), pixels(below_BH, right_BW), across)
    return torch.lerp(upper, lower, down)


def _neighbours(start_B: Tensor, length_B: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """For `size` pixels spread over a stretch: the pixels on both sides of each, and how far it is to the second."""
    center = (torch.arange(size) + 0.5) * (length_B / size)[:, None] - 0.5  # pixels' centres, as half-pixel resizing
    center = torch.minimum(center.clamp(min=0), length_B[:, None] - 1)  # beyond the crop's edge its edge is repeated
    before = center.floor()
    after = torch.minimum(before + 1, length_B[:, None] - 1)
    return (start_B[:, None] + before).long(), (start_B[:, None] + after).long(), center - before


# ---- colour ---------------------------------------------------------------------------------------------------------


def jitters(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Each image's saturation factor, its shift of hue (in turns), and whether saturation comes first; shape (B,)."""
    saturation = _uniform((batch,), 1 - SATURATION, 1 + SATURATION, generator)
    hue = _uniform((batch,), -HUE, HUE, generator)
    return saturation, hue, torch.rand(batch, generator=generator) < 0.5


def jittered(x_BCHW: Tensor, saturation_B: Tensor, hue_B: Tensor, saturation_first_B: Tensor) -> Tensor:
    """Saturation and hue changed, in each image's own order."""
    one = torch.ones_like(saturation_B)
    x = _saturated(x_BCHW, torch.where(saturation_first_B, saturation_B, one))
    x = _shifted_hue(x, hue_B)
    return _saturated(x, torch.where(saturation_first_B, one, saturation_B))


def _saturated(x_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Blended with its grey image (ITU-R 601 weights): factor·x + (1 − factor)·grey."""
    weight = x_BCHW.new_tensor([0.2989, 0.587, 0.114])[:, None, None]
    gray = (x_BCHW * weight).sum(1, keepdim=True)
    factor = factor_B[:, None, None, None].to(x_BCHW.dtype)
    return (factor * x_BCHW + (1 - factor) * gray).clamp(0, 1)


def _shifted_hue(x_BCHW: Tensor, shift_B: Tensor) -> Tensor:
    """Through HSV and back: channel n is v − v·s·max(0, min(k, 4 − k, 1)) with k = (n + 6·hue) mod 6, n = 5, 3, 1."""
    value, low = x_BCHW.amax(1), x_BCHW.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))  # gray has no hue, and keeps none
    r, g, b = x_BCHW.unbind(1)
    sixth = torch.where(
        value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe)
    )  # hue in sixths of a turn
    sixth = sixth + 6 * shift_B[:, None, None].to(x_BCHW.dtype)
    channels = []
    for n in (5, 3, 1):
        k = torch.remainder(n + sixth, 6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


# ---- rotation -------------------------------------------------------------------------------------------------------


def rotated(x_BCHW: Tensor, degrees_B: Tensor) -> Tensor:
    """Turned counter-clockwise about the centre; each pixel is its nearest source, black from outside the image."""
    height, width = x_BCHW.shape[-2:]
    angle = torch.deg2rad(degrees_B)[:, None, None]
    y = (torch.arange(height) - (height - 1) / 2)[:, None]
    x = (torch.arange(width) - (width - 1) / 2)[None, :]
    # y points down, so a counter-clockwise turn of the image looks back along (x·cos − y·sin, x·sin + y·cos)
    column = (x * angle.cos() - y * angle.sin() + (width - 1) / 2).round().long()
    row = (x * angle.sin() + y * angle.cos() + (height - 1) / 2).round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return _gathered(x_BCHW, row.clamp(0, height - 1), column.clamp(0, width - 1)) * inside[:, None]


def _gathered(x_BCHW: Tensor, row_BHW: Tensor, column_BHW: Tensor) -> Tensor:
    """The pixels of each image at the given rows and columns, shape (B, C, H, W)."""
    flat = (row_BHW * x_BCHW.shape[-1] + column_BHW).flatten(1)[:, None].expand(-1, x_BCHW.shape[1], -1)
    return x_BCHW.flatten(2).gather(2, flat).view(*x_BCHW.shape[:2], *row_BHW.shape[1:])


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
