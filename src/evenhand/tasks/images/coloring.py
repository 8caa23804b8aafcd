"""Painting gray digits so that colour leaks the label: the bias construction of Colored MNIST.

Legend: N images, H height, W width. A palette has one (red, green, blue) in 0–255 for each class.
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import class_column, leaking_columns, pixel_column, split_of

Palette = Sequence[tuple[str, tuple[int, int, int]]]

PGD_PALETTE: Palette = (
    ("crimson", (220, 20, 60)),
    ("teal", (0, 128, 128)),
    ("yellow", (253, 233, 16)),
    ("blue", (0, 149, 182)),
    ("orange", (237, 145, 33)),
    ("purple", (145, 30, 188)),
    ("cyan", (70, 240, 240)),
    ("pink", (250, 197, 187)),
    ("lime", (210, 245, 60)),
    ("maroon", (128, 0, 0)),
)
"""PGD's released colours of the classes 0–9; the names are ours."""

LFF_PALETTE: Palette = (
    ("red", (251, 80, 43)),
    ("yellow", (253, 233, 90)),
    ("mauve", (172, 118, 148)),
    ("sage", (200, 212, 153)),
    ("sky blue", (22, 198, 250)),
    ("green", (82, 245, 114)),
    ("blue", (6, 60, 193)),
    ("violet", (142, 26, 194)),
    ("olive", (53, 100, 5)),
    ("magenta", (213, 52, 68)),
)
"""LfF's released colours of the classes 0–9; the names are ours."""

PGD_NOISE = 1e-4  # standard deviation of the colour noise, in units of full intensity
LFF_NOISE = (0.05, 0.02, 0.01, 0.005, 0.002)  # by severity 1–5


def draw_attributes(label_N: NDArray[np.int64], conflict: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Colours that conflict with the label i.i.d. with probability `conflict`, uniform over the other classes."""
    conflicting_N = rng.random(len(label_N)) < conflict
    return np.where(conflicting_N, _other_class(label_N, rng), label_N)


def draw_attributes_exactly(label_N: NDArray[np.int64], conflict: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """LfF's recipe: in every class ⌊(1 − conflict)·n⌋ samples keep their own colour, the others draw another's."""
    attribute_N = label_N.copy()
    other_N = _other_class(label_N, rng)
    for label in np.unique(label_N):
        rows = rng.permutation(np.flatnonzero(label_N == label))
        # 1e-9: a product such as 0.99·100 may lie just below its exact value
        aligned = int((1 - conflict) * len(rows) + 1e-9)
        attribute_N[rows[aligned:]] = other_N[rows[aligned:]]
    return attribute_N


def with_wrong_labels(label_N: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """The labels, of which a share of `share`, drawn i.i.d., is another class, drawn uniformly."""
    if share == 0:
        return label_N  # and nothing is drawn
    wrong_N = rng.random(len(label_N)) < share
    return np.where(wrong_N, _other_class(label_N, rng), label_N)


def paint(
    gray_NHW: NDArray[np.uint8],
    attribute_N: NDArray[np.int64],
    palette: Palette,
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Multiply each image with its colour, disturbed by Gaussian noise per image and channel; (N, 3, H, W), uint8."""
    color_K3 = np.array([rgb for _, rgb in palette], dtype=np.float32) / 255
    color_N3 = color_K3[attribute_N] + rng.normal(0.0, noise, (len(gray_NHW), 3)).astype(np.float32)
    color_N3 = color_N3.clip(0, 1)
    painted = np.empty((len(gray_NHW), 3, *gray_NHW.shape[1:]), dtype=np.uint8)
    for channel in range(3):  # one channel at a time keeps the float copy a third as large
        painted[:, channel] = np.rint(gray_NHW * color_N3[:, channel, None, None])
    return painted


def colored_dataset(
    image_N3HW: NDArray[np.uint8],
    label_N: NDArray[np.int64],
    attribute_N: NDArray[np.int64],
    palette: Palette,
    given_N: NDArray[np.int64] | None = None,
) -> datasets.Dataset:
    """A split with its groups: true label × {aligned, conflicting}, by name; `given_N` are the labels to learn."""
    digits = [str(digit) for digit in range(10)]
    columns = leaking_columns(label_N, attribute_N, digits, [name for name, _ in palette])
    if given_N is not None:
        columns["labels"] = class_column(given_N, digits)
    return split_of({"pixel_values": pixel_column(image_N3HW), **columns})


def _other_class(label_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """For each sample one of the nine other classes, uniformly."""
    return (label_N + rng.integers(1, 10, len(label_N))) % 10
