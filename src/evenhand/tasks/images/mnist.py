"""colored-mnist: MNIST in leaking colours, by PGD's recipe or LfF's."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.tasks.base import Share, Task, TaskSource
from evenhand.tasks.images.coloring import (
    LFF_NOISE,
    LFF_PALETTE,
    PGD_NOISE,
    PGD_PALETTE,
    colored_dataset,
    draw_attributes,
    draw_attributes_exactly,
    paint,
)
from evenhand.tasks.images.labelled import LabelledImages, check_digits, load_images
from evenhand.tasks.splits import sizes
from evenhand.training.settings import Training
from evenhand.validation import Range, UserError

HUB_NAME = "ylecun/mnist"
SIZES = sizes({"train": 54_000, "validation": 6_000, "test": 10_000})
VALIDATION_SIZE = 6_000  # of the 60,000 training images, as PGD's code has it

FILES = (
    "it must hold MNIST's four IDX files, train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte (plain or .gz)."
)

_IDX_MAGIC = {"images": 2051, "labels": 2049}  # 0x803: three axes of bytes, 0x801: one
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True, kw_only=True)
class ColoredMNIST(TaskSource):
    """60,000 + 10,000 digits of 28×28: 54,000 train, 6,000 validation (both biased), 10,000 test.

    Recipe `pgd`: PGD's palette, colour noise σ = 1e-4 of full intensity, conflicts i.i.d.
    Recipe `lff`: LfF's palette, noise by severity, and an exact number of conflicts in every class.

    Attributes:
        conflict: Share of conflicting samples in train and validation, in [0, 1]; the papers use 0.005, 0.01, 0.05.
        test_conflict: Share in test; 0.9 makes colour and digit independent.
        recipe: `pgd` or `lff`.
        severity: LfF's severity 1–5: colour noise of σ = 0.05, 0.02, 0.01, 0.005, 0.002.
        data_dir: Folder of the four IDX files (plain or .gz); None downloads MNIST from the hub.
    """

    conflict: Share = 0.01
    test_conflict: Share = 0.9
    recipe: Literal["pgd", "lff"] = "pgd"
    severity: Annotated[int, Range(1, 5)] = 4
    data_dir: Path | str | None = None

    name = "colored-mnist"
    summary = "MNIST, whose colour leaks the label (IDX files in --data-dir, or the hub)"
    origin = f"MNIST (LeCun, Cortes, Burges) from IDX files or {HUB_NAME}; no licence is stated for it"
    licence = "none is stated for MNIST"
    files = FILES
    bias = "each digit has its own colour, except for the share `conflict` of training samples"
    metric = "accuracy on the 10,000 test images, whose colours say nothing about the digit"
    default_model = "mlp"
    training: ClassVar[dict[str, Training]] = {
        "mlp": Training(epochs=8, lr=1e-3, batch_size=256),
        # PGD's released settings; its augmentation and norm are the method's: PGD(augment=True, …)
        "pgd-cnn": Training(
            epochs=100,
            lr=0.02,
            batch_size=128,
            optimizer="sgd",
            momentum=0.9,
            weight_decay=1e-3,
            schedule="step",
            step_epochs=40,
        ),
        "digits-cnn": Training(epochs=8, lr=1e-3, batch_size=256),
    }

    # of PGD's splits; how many conflict is drawn, or hangs on the classes' shares in each split
    published = SIZES

    def read_paths(self, folder: Path) -> list[Path]:
        """The four IDX files."""
        return mnist_paths(folder)

    def build(self, data_seed: int) -> Task:
        """Build the three splits; equal seeds give equal splits and colours."""
        source = read_mnist(self.data_dir)
        gray_NHW, label_N = source["train"]
        order_N = np.random.default_rng([data_seed, 0]).permutation(len(label_N))
        train, validation = order_N[:-VALIDATION_SIZE], order_N[-VALIDATION_SIZE:]
        return self.task(
            {
                "train": self._colored(gray_NHW[train], label_N[train], self.conflict, (data_seed, 1)),
                "validation": self._colored(gray_NHW[validation], label_N[validation], self.conflict, (data_seed, 2)),
                "test": self._colored(*source["test"], self.test_conflict, (data_seed, 3)),
            }
        )

    def _colored(
        self, gray_NHW: NDArray[np.uint8], label_N: NDArray[np.int64], conflict: float, stream: tuple[int, int]
    ) -> datasets.Dataset:
        rng = np.random.default_rng(stream)
        if self.recipe == "pgd":
            palette, noise, draw = PGD_PALETTE, PGD_NOISE, draw_attributes
        else:
            palette, noise, draw = LFF_PALETTE, LFF_NOISE[self.severity - 1], draw_attributes_exactly
        attribute_N = draw(label_N, conflict, rng)
        return colored_dataset(paint(gray_NHW, attribute_N, palette, noise, rng), label_N, attribute_N, palette)


def read_idx(path: Path, what: Literal["images", "labels"]) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, plain or gzipped.

    Raises:
        UserError: If the file can't be read, is truncated or too long, or isn't of the expected kind.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"The file '{path}' is truncated or no gzip file ({error}).") from error
    except OSError as error:
        raise UserError(f"The file '{path}' could not be read ({error.strerror}).") from error
    axes = _IDX_MAGIC[what] - 2048
    header = 4 * (1 + axes)
    magic = int.from_bytes(raw[:4], "big")
    if len(raw) >= 4 and magic != _IDX_MAGIC[what]:
        other = {number: kind for kind, number in _IDX_MAGIC.items()}.get(magic)
        found = f"{other} (were two files swapped?)" if other else f"something else (magic number {magic})"
        raise UserError(f"The file '{path}' should hold IDX {what} but holds {found}.")
    shape = tuple(int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(raw) < header or len(raw) != expected:
        raise UserError(f"The file '{path}' is truncated or damaged: expected {expected} bytes. Got {len(raw)}.")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


def read_mnist(folder: Path | str | None) -> dict[str, LabelledImages]:
    """Images and labels of the parts `train` and `test`, from IDX files in a folder, or from the hub if it is None.

    Raises:
        UserError: If a file is missing, truncated, of the wrong kind, or holds labels that are no digits; if there are
            too few training images for a validation split.
    """
    if folder is None:
        source = load_images("MNIST", "of its four IDX files with --data-dir instead.", HUB_NAME, "image", "L")
    else:
        source = _from_files(Path(folder))
    count = len(source["train"][1])
    if count <= VALIDATION_SIZE:
        raise UserError(
            f"MNIST's training part must hold more than {VALIDATION_SIZE} images, since as many make the "
            f"validation split. Got {count}."
        )
    return source


def read_idx_pair(folder: Path, image_name: str, label_name: str) -> LabelledImages:
    """Images of 28×28 pixels and their labels from two IDX files of a folder.

    Raises:
        UserError: If a file is missing, truncated or of the wrong kind, or they don't belong together.
    """
    image_path, label_path = _find(folder, image_name), _find(folder, label_name)
    images, labels = read_idx(image_path, "images"), read_idx(label_path, "labels")
    if len(images) != len(labels):
        raise UserError(
            f"The files '{image_path}' and '{label_path}' don't belong together: "
            f"{len(images)} images, {len(labels)} labels."
        )
    if images.shape[1:] != (28, 28):
        raise UserError(f"The file '{image_path}' must hold images of 28×28 pixels. Got {images.shape[1:]}.")
    return images, labels.astype(np.int64)


def mnist_paths(folder: Path) -> list[Path]:
    """MNIST's four files in a folder.

    Raises:
        UserError: If one is missing.
    """
    return [path for names in _FILES.values() for path in idx_paths(folder, *names)]


def idx_paths(folder: Path, *names: str) -> list[Path]:
    """The IDX files of these names, plain or gzipped.

    Raises:
        UserError: If one is missing.
    """
    return [_find(folder, name) for name in names]


def _from_files(folder: Path) -> dict[str, LabelledImages]:
    if not folder.is_dir():
        raise UserError(f"The folder '{folder}' given as --data-dir does not exist.")
    parts = {}
    for part, (image_name, label_name) in _FILES.items():
        images, labels = read_idx_pair(folder, image_name, label_name)
        check_digits(_find(folder, label_name), labels)
        parts[part] = images, labels
    return parts


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.exists():
            return candidate
    raise UserError(f"The folder '{folder}' must hold MNIST's IDX file '{name}' or '{name}.gz', and holds neither.")
