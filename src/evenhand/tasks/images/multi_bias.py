"""multi-bias-mnist: a digit among three other objects; seven colours and kinds leak its class.

Legend: N images, B bias attributes, G glyphs of a kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import ALIGNMENTS, class_column, member_column, pixel_column, split_of
from evenhand.tasks.base import Share, Task, TaskSource
from evenhand.tasks.images.coloring import PGD_NOISE, PGD_PALETTE, draw_attributes, paint
from evenhand.tasks.images.labelled import LabelledImages
from evenhand.tasks.images.mnist import (
    FILES,
    HUB_NAME,
    SIZES,
    VALIDATION_SIZE,
    idx_paths,
    mnist_paths,
    read_idx_pair,
    read_mnist,
)
from evenhand.training.settings import Training
from evenhand.validation import UserError

SIDE = 28
_SCALE = 3  # pixels a side of each cell of a drawing
_SHIFT = 3  # pixels that drawings lie off the middle at most

LETTERS = (
    ".###. #...# #...# ##### #...# #...# #...#",
    "####. #...# #...# ####. #...# #...# ####.",
    ".#### #.... #.... #.... #.... #.... .####",
    "####. #...# #...# #...# #...# #...# ####.",
    "##### #.... #.... ####. #.... #.... #####",
    "##### #.... #.... ####. #.... #.... #....",
    ".#### #.... #.... #.### #...# #...# .####",
    "#...# #...# #...# ##### #...# #...# #...#",
    "##### ..#.. ..#.. ..#.. ..#.. ..#.. #####",
    "..### ...#. ...#. ...#. ...#. #..#. .##..",
)
"""A to J."""
THINGS = (
    "....... .#####. .#####. .#####. .#####. .#####. .......",
    "...#... ..###.. ..###.. .#####. .#####. ####### #######",
    "..###.. .#####. ####### ####### ####### .#####. ..###..",
    "####### #.....# #.....# #.....# #.....# #.....# #######",
    "..###.. .#...#. #.....# #.....# #.....# .#...#. ..###..",
    "...#... ..###.. .#####. ####### .#####. ..###.. ...#...",
    ".##.##. ####### ####### ####### .#####. ..###.. ...#...",
    "...#... ..###.. .#####. ####### .##.##. .##.##. .#####.",
    "..###.. ..###.. ####### ####### ####### ..###.. ..###..",
    "####### .#####. ..###.. ...#... ..###.. .#####. #######",
)
"""A square, a triangle, a disc, a frame, a ring, a rhombus, a heart, a house, a cross, an hourglass."""
SIGNS = (
    "#...... .#..... ..#.... ...#... ....#.. .....#. ......#",
    "......# .....#. ....#.. ...#... ..#.... .#..... #......",
    "####### ....... ....... ####### ....... ....... #######",
    "#..#..# #..#..# #..#..# #..#..# #..#..# #..#..# #..#..#",
    "#.....# .#...#. ..#.#.. ...#... ..#.#.. .#...#. #.....#",
    "...#... ..#.#.. .#...#. #.....# ....... ....... #######",
    "#.#.#.# ....... #.#.#.# ....... #.#.#.# ....... #.#.#.#",
    "####### ......# #####.# #...#.# #.###.# #.....# #######",
    "...#... ...#... ...#... #..#..# .#.#.#. ..###.. ...#...",
    "...#... ..###.. .#.#.#. #..#..# ...#... ...#... ...#...",
)
"""Diagonals down and up, bars lying and standing, a cross, a roof, dots, a spiral, arrows down and up."""

OBJECTS = {"letter": LETTERS, "thing": THINGS, "sign": SIGNS}
"""The other objects by name, with the drawings that stand in for them; they lie right of the digit and below it."""
BIASES = ("digit colour", *(f"{name}{part}" for name in OBJECTS for part in ("", " colour")))
_FOLDERS = {"letter": ("emnist-letters", "emnist-letters-"), "thing": ("fashion-mnist", ""), "sign": ("kmnist", "")}
_REAL = (
    "--objects real needs, below --data-dir, the folders emnist-letters (emnist-letters-train-images-idx3-ubyte, …), "
    "fashion-mnist and kmnist (train-images-idx3-ubyte, …) with the IDX files of those data sets."
)


@dataclass(frozen=True, kw_only=True)
class MultiBiasMNIST(TaskSource):
    """MNIST with seven biases: 54,000 train, 6,000 validation (both biased), 10,000 test of 56×56 pixels.

    The digit's shape is the label. Its colour, and the kind and the colour of a letter, a thing and a sign beside it,
    each agree with the label except for a share `conflict` of the images, independently of each other; in conflict
    they are uniform over the other nine. The construction follows the description in PGD's paper, whose code for it
    isn't public: the layout of four tiles, the palette (PGD's, for all four) and the drawn objects are ours, so numbers
    don't compare with the paper's.

    The groups overlap, one for each bias × {aligned, conflicting}; a row is in seven. As a whole an image is aligned if
    most of its seven biases agree with the label, as nearly all do in training; its attribute is the digit's colour.

    Attributes:
        conflict: Share of images in which a bias conflicts, for each bias, in [0, 1]; the paper uses 0.1, 0.2, 0.3.
        test_conflict: Share in test; 0.9 makes all biases independent of the label.
        objects: `drawn` by evenhand, or `real` ones: letters A to J of EMNIST, Fashion-MNIST and KMNIST, whose classes
            go with the digits in their order.
        data_dir: Folder of MNIST's four IDX files (plain or .gz); None downloads MNIST from the hub.
    """

    conflict: Share = 0.1
    test_conflict: Share = 0.9
    objects: Literal["drawn", "real"] = "drawn"
    data_dir: Path | str | None = None

    name = "multi-bias-mnist"
    summary = "MNIST digits among objects; seven kinds and colours leak the label (--data-dir, or the hub)"
    origin = f"MNIST from IDX files or {HUB_NAME}; described in PGD's paper (Ahn et al. 2023), built anew"
    licence = "none is stated for MNIST"
    files = FILES
    bias = (
        "the digit's colour and the kind and colour of three other objects each agree with the digit, except for the "
        "share `conflict` of training samples"
    )
    metric = "accuracy on the 10,000 test images, where no bias says anything about the digit"
    default_model = "mlp"
    training: ClassVar[dict[str, Training]] = {  # ours
        "mlp": Training(epochs=8, lr=1e-3, batch_size=256),
        "digits-cnn": Training(epochs=8, lr=1e-3, batch_size=256),
        "pgd-cnn": Training(epochs=20, lr=1e-3, batch_size=128),
        "small-resnet": Training(epochs=20, lr=1e-3, batch_size=128),
    }

    published = SIZES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objects == "real" and self.data_dir is None:
            raise UserError(f"The option --objects real of {self.name} needs --data-dir: {_REAL}")

    def read_paths(self, folder: Path) -> list[Path]:
        """MNIST's files, and with real objects theirs."""
        paths = mnist_paths(folder)
        if self.objects == "real":
            for kind in _FOLDERS:
                for _, place, names in _object_files(folder, kind):
                    paths += idx_paths(place, *names)
        return paths

    def build(self, data_seed: int) -> Task:
        """Build the three splits; equal seeds give equal images."""
        source = read_mnist(self.data_dir)
        real = self._real_objects() if self.objects == "real" else None
        gray, label = source["train"]
        order_N = np.random.default_rng([data_seed, 0]).permutation(len(label))
        train, validation = order_N[:-VALIDATION_SIZE], order_N[-VALIDATION_SIZE:]
        parts: dict[str, tuple[LabelledImages, str, float]] = {
            "train": ((gray[train], label[train]), "train", self.conflict),
            "validation": ((gray[validation], label[validation]), "train", self.conflict),
            "test": (source["test"], "test", self.test_conflict),
        }
        splits = {}
        for stream, (name, (digits, objects_of, conflict)) in enumerate(parts.items(), start=1):
            rng = np.random.default_rng([data_seed, stream])
            splits[name] = _split(digits, conflict, real[objects_of] if real else None, rng)
        note = (
            f"The layout, the palette and the objects{'' if real else ' (drawings)'} are evenhand's own, after the "
            "description in PGD's paper."
        )
        return self.task(splits, [note])

    def _real_objects(self) -> dict[str, dict[str, LabelledImages]]:
        """Part → object → its images and classes."""
        parts: dict[str, dict[str, LabelledImages]] = {"train": {}, "test": {}}
        for kind, (_, prefix) in _FOLDERS.items():
            for part, folder, names in _object_files(Path(self.data_dir or ""), kind):
                if not folder.is_dir():
                    raise UserError(f"The folder '{folder}' does not exist; {_REAL}")
                images, labels = read_idx_pair(folder, *names)
                if prefix:  # EMNIST's letters are 1–26, and its images lie on their side
                    wanted = (labels >= 1) & (labels <= 10)
                    images, labels = images[wanted].transpose(0, 2, 1), labels[wanted] - 1
                absent = np.setdiff1d(np.arange(10), labels)
                if len(absent):
                    raise UserError(f"The folder '{folder}' holds no image of the class {absent[0]}; {_REAL}")
                parts[part][kind] = images, labels
        return parts


def _object_files(root: Path, kind: str) -> list[tuple[str, Path, tuple[str, str]]]:
    """Part, folder, and names of images and labels of an object."""
    folder_name, prefix = _FOLDERS[kind]
    stems = (("train", "train"), ("test", "test" if prefix else "t10k"))
    return [
        (part, root / folder_name, (f"{prefix}{stem}-images-idx3-ubyte", f"{prefix}{stem}-labels-idx1-ubyte"))
        for part, stem in stems
    ]


def _split(
    digits: LabelledImages, conflict: float, objects: dict[str, LabelledImages] | None, rng: np.random.Generator
) -> datasets.Dataset:
    gray_NHW, label_N = digits
    value_NB = np.stack([draw_attributes(label_N, conflict, rng) for _ in BIASES], axis=1)
    image_N3HW = np.zeros((len(label_N), 3, 2 * SIDE, 2 * SIDE), dtype=np.uint8)
    corners = ((0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE))
    for tile, (top, left) in enumerate(corners):
        if tile == 0:
            content, color_N = gray_NHW, value_NB[:, 0]
        else:
            kind, glyphs = list(OBJECTS.items())[tile - 1]
            kind_N, color_N = value_NB[:, 2 * tile - 1], value_NB[:, 2 * tile]
            content = drawn(glyphs, kind_N, rng) if objects is None else _picked(objects[kind], kind_N, rng)
        image_N3HW[:, :, top : top + SIDE, left : left + SIDE] = paint(content, color_N, PGD_PALETTE, PGD_NOISE, rng)
    conflicting_NB = value_NB != label_N[:, None]
    member_N2B = np.stack([~conflicting_NB, conflicting_NB], axis=2).reshape(len(label_N), 2 * len(BIASES))
    most_N = conflicting_NB.sum(axis=1) > len(BIASES) // 2
    return split_of(
        {
            "pixel_values": pixel_column(image_N3HW),
            "labels": class_column(label_N, [str(digit) for digit in range(10)]),
            "attribute": class_column(value_NB[:, 0], [name for name, _ in PGD_PALETTE]),
            "alignment": class_column(most_N, ALIGNMENTS),
            "group": member_column(member_N2B, [f"{bias} {a}" for bias in BIASES for a in ALIGNMENTS]),
        }
    )


def _picked(pictures: LabelledImages, kind_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """For each image a picture of its kind, drawn with replacement."""
    images, labels = pictures
    picked_N = np.empty_like(kind_N)
    for kind in range(10):
        rows = np.flatnonzero(kind_N == kind)
        picked_N[rows] = rng.choice(np.flatnonzero(labels == kind), len(rows))
    return images[picked_N]


def drawn(glyphs: tuple[str, ...], which_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Drawings on black, each shifted and of a brightness by its own draws; (N, 28, 28)."""
    canvas_G = np.stack([_canvas(glyph) for glyph in glyphs])
    shift_N2 = rng.integers(-_SHIFT, _SHIFT + 1, (len(which_N), 2))
    light_N = rng.integers(160, 256, len(which_N)).astype(np.uint8)
    row_NS = (np.arange(SIDE) - shift_N2[:, :1]) % SIDE
    column_NS = (np.arange(SIDE) - shift_N2[:, 1:]) % SIDE
    mask = canvas_G[which_N[:, None, None], row_NS[:, :, None], column_NS[:, None, :]]
    return mask * light_N[:, None, None]


def _canvas(glyph: str) -> NDArray[np.uint8]:
    """A drawing in the middle of a tile: 1 where it is, 0 elsewhere."""
    cells = np.array([[cell == "#" for cell in row] for row in glyph.split()], dtype=np.uint8)
    large = cells.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    tile = np.zeros((SIDE, SIDE), dtype=np.uint8)
    top, left = (SIDE - large.shape[0]) // 2, (SIDE - large.shape[1]) // 2
    tile[top : top + large.shape[0], left : left + large.shape[1]] = large
    return tile
