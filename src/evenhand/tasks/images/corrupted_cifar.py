"""corrupted-cifar10: CIFAR-10 in which each class has its own corruption (LfF's construction).

CIFAR-10 comes from its binary files or from the hub; Python pickles are never loaded.

Legend: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import leaking_columns, pixel_column, split_of
from evenhand.data.pictures import data_folder, is_archive, pictures_in, read_picture
from evenhand.tasks.base import Share, Task, TaskSource
from evenhand.tasks.images.corruptions import CORRUPTIONS, corrupt
from evenhand.tasks.images.labelled import LabelledImages, check_digits, load_images
from evenhand.tasks.images.ready_made import NamedPictures, named_pictures, percent_folder, training_pictures
from evenhand.tasks.splits import held_out
from evenhand.training.settings import Training
from evenhand.validation import Range, UserError

HUB_NAME = "uoft-cs/cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
FILES = (
    "it must hold CIFAR-10's binary version, the folder cifar-10-batches-bin with data_batch_1.bin to data_batch_5.bin "
    "and test_batch.bin, from https://www.cs.toronto.edu/~kriz/cifar.html."
)
READY_MADE = (
    "it must hold 0.5pct/align, 0.5pct/conflict (or 1pct, 2pct, 5pct), perhaps valid, and test, as in cifar10c.zip "
    "linked from https://github.com/kakaoenterprise/Learning-Debiased-Disentangled (a download by hand)."
)
FROST = (
    "it must hold frost1.png to frost5.jpg of https://github.com/hendrycks/robustness (ImageNet-C/create_c; not "
    "shipped here)."
)
DRAWN_ICE = (
    "Frost is made of ice drawn by evenhand, not of the authors' photographs, so images of this corruption differ from "
    "the published ones (--frost photos reads the photographs)."
)

_PARTS = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
_RECORD = 1 + 3 * SIDE * SIDE  # a label, then the red, green and blue planes


@dataclass(frozen=True, kw_only=True)
class CorruptedCIFAR10(TaskSource):
    """CIFAR-10 in which each class has its own corruption: 45,000 train, 5,000 validation (both biased), 10,000 test.

    Snow, frost, fog, brightness, contrast, spatter, elastic, jpeg, pixelate and saturate go with the classes in their
    order. In every class the number of conflicting images is exact, and they are spread evenly over the other nine
    corruptions (recipe `lff`); which images they are is drawn by the seed. Recipe `prepared` reads pictures that were
    corrupted before. LfF trains on all 50,000 images; here a tenth of each class is held out for validation.

    Attributes:
        conflict: Share of conflicting samples in train and validation, in [0, 1]; the papers use 0.005, 0.01, 0.02 and
            0.05. Recipe `prepared` reads the folder of that share.
        test_conflict: Share in test; 0.9 makes corruption and class independent. Not of recipe `prepared`.
        recipe: `lff` corrupts CIFAR-10's images, `prepared` reads the ready-made pictures of the DFA authors.
        severity: LfF's severity 0–4, which is level 1–5 of CIFAR-10-C; the papers use 4. Not of recipe `prepared`.
        frost: `drawn` ice, or `photos` from the folder frost in --data-dir. Not of recipe `prepared`.
        data_dir: Folder of CIFAR-10's binary version, or of the ready-made pictures; None takes CIFAR-10 from the hub.
    """

    conflict: Share = 0.01
    test_conflict: Share = 0.9
    recipe: Literal["lff", "prepared"] = "lff"
    severity: Annotated[int, Range(0, 4)] = 4
    frost: Literal["drawn", "photos"] = "drawn"
    data_dir: Path | str | None = None

    name = "corrupted-cifar10"
    summary = "CIFAR-10, whose corruption leaks the label (binary files in --data-dir, or the hub)"
    origin = (
        f"CIFAR-10 (Krizhevsky 2009) from its binary files or {HUB_NAME}; corruptions of CIFAR-10-C (Hendrycks and "
        "Dietterich 2019); LfF's construction (Nam et al. 2020)"
    )
    licence = "none is stated for CIFAR-10"
    files = FILES
    bias = "each class has its own corruption, except for the share `conflict` of training samples"
    metric = "accuracy on the 10,000 test images, whose corruptions say nothing about the class"
    default_model = "small-resnet"
    training: ClassVar[dict[str, Training]] = {
        # LfF's optimizer and batch (Adam 1e-3, 256); it trains a ResNet-20 for 200 epochs
        "small-resnet": Training(epochs=200, lr=1e-3, batch_size=256),
        # for a quick look on a CPU; ours
        "digits-cnn": Training(epochs=10, lr=1e-3, batch_size=256),
        "mlp": Training(epochs=10, lr=1e-3, batch_size=256),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_dir is None and (self.recipe == "prepared" or self.frost == "photos"):
            option, what = ("--recipe prepared", READY_MADE) if self.recipe == "prepared" else ("--frost photos", FROST)
            raise UserError(f"The option {option} of {self.name} needs a folder with --data-dir: {what}")

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """What the construction gives on CIFAR-10's 5,000 + 1,000 images of each class."""
        if self.recipe == "prepared":
            return {"test": {"n": 10_000}}
        sizes = {
            "train": (4_500, self.conflict),
            "validation": (500, self.conflict),
            "test": (1_000, self.test_conflict),
        }
        counts = {}
        for split, (size, conflict) in sizes.items():
            counts[split] = {"n": 10 * size}
            for label, name in enumerate(CLASSES):
                aligned = int(attribute_counts(size, label, conflict)[label])
                counts[split] |= {f"{name} aligned": aligned, f"{name} conflicting": size - aligned}
        return counts

    def read_paths(self, folder: Path) -> list[Path]:
        """CIFAR-10's binary files and perhaps photographs of ice, or the ready-made pictures."""
        if self.recipe == "prepared":
            return [Path(path) for part in self._ready_made(folder) if part is not None for path in part.paths]
        return cifar_paths(folder) + (self._photo_paths(folder) if self.frost == "photos" else [])

    def build(self, data_seed: int) -> Task:
        """Build the three splits; equal seeds give equal images. Takes about half a minute."""
        if self.recipe == "prepared":
            return self._prepared(data_seed)
        if self.data_dir is not None and (Path(self.data_dir) / percent_folder(self.conflict)).is_dir():
            raise UserError(
                f"The folder '{self.data_dir}' holds ready-made pictures: read them with --recipe prepared."
            )
        textures = self._photos() if self.frost == "photos" else None
        source = read_cifar(self.data_dir)
        image, label_N = source["train"]
        train, validation = held_out(label_N, np.random.default_rng([data_seed, 0]))
        parts: dict[str, tuple[LabelledImages, float]] = {
            "train": ((image[train], label_N[train]), self.conflict),
            "validation": ((image[validation], label_N[validation]), self.conflict),
            "test": (source["test"], self.test_conflict),
        }
        splits = {
            name: self._corrupted(part, conflict, np.random.default_rng([data_seed, stream]), textures)
            for stream, (name, (part, conflict)) in enumerate(parts.items(), start=1)
        }
        return self.task(splits, (DRAWN_ICE,) if textures is None else ())

    def _corrupted(
        self, part: LabelledImages, conflict: float, rng: np.random.Generator, textures: list[NDArray[np.uint8]] | None
    ) -> datasets.Dataset:
        image_NHW3, label_N = part
        attribute_N = spread_attributes(label_N, conflict, rng)
        corrupted_N3HW = np.empty((len(label_N), 3, SIDE, SIDE), dtype=np.uint8)
        for attribute, corruption in enumerate(CORRUPTIONS):
            rows = np.flatnonzero(attribute_N == attribute)
            changed = corrupt(image_NHW3[rows], corruption, self.severity + 1, rng, textures)
            corrupted_N3HW[rows] = changed.transpose(0, 3, 1, 2)
        return _split(corrupted_N3HW, label_N, attribute_N)

    def _photos(self) -> list[NDArray[np.uint8]]:
        """The pictures of ice at a fifth of their size, as OpenCV's linear interpolation gives it: each fifth pixel."""
        textures = []
        for path in self._photo_paths(data_folder(self.data_dir or "", FROST)):
            texture = read_picture(path)[2::5, 2::5]
            if min(texture.shape[:2]) < SIDE:
                raise UserError(f"The picture '{path}' must have at least {5 * SIDE} pixels a side; {FROST}")
            textures.append(texture)
        return textures

    @staticmethod
    def _photo_paths(root: Path) -> list[Path]:
        folder = root / "frost"
        return [folder / name for name in pictures_in(folder, FROST)[:5]]  # the authors' code draws from the first five

    def _ready_made(self, root: Path) -> tuple[NamedPictures, NamedPictures | None, NamedPictures]:
        """Train, validation where there is a folder of it, and test."""
        numbers = len(CLASSES), len(CORRUPTIONS), READY_MADE
        folder = root / percent_folder(self.conflict)
        train, test = training_pictures(folder, *numbers), named_pictures(root / "test", *numbers)
        valid = next((f / "valid" for f in (folder, root) if (f / "valid").is_dir()), None)
        return train, None if valid is None else named_pictures(valid, *numbers), test

    def _prepared(self, data_seed: int) -> Task:
        train, validation, test = self._ready_made(data_folder(self.data_dir or "", READY_MADE))
        notes = ["The images are ready-made ones: which share conflicts in test, and how ice was made, is theirs."]
        if validation is None:
            kept, held = held_out(train.label_N, np.random.default_rng([data_seed, 0]))
            train, validation = train.take(kept), train.take(held)
            notes.append("There is no folder 'valid', so a tenth of each class of train is the validation split.")
        parts = {"train": train, "validation": validation, "test": test}
        return self.task({name: _read(part) for name, part in parts.items()}, notes)


def attribute_counts(size: int, label: int, conflict: float) -> NDArray[np.int64]:
    """LfF's numbers of a class's images with each of ten corruptions: running shares of the class, rounded."""
    share_K = np.full(10, conflict / 9)
    share_K[label] = 1 - conflict
    bounds_K = np.rint(size * np.cumsum(share_K)).astype(np.int64)
    bounds_K[-1] = size
    return np.diff(bounds_K, prepend=0)


def spread_attributes(label_N: NDArray[np.int64], conflict: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """A corruption for each image, in the exact numbers of each class; the seed draws which image gets which."""
    attribute_N = np.empty_like(label_N)
    for label in np.unique(label_N):
        rows = np.flatnonzero(label_N == label)
        attribute_N[rng.permutation(rows)] = np.repeat(np.arange(10), attribute_counts(len(rows), int(label), conflict))
    return attribute_N


def _split(
    image_N3HW: NDArray[np.uint8], label_N: NDArray[np.int64], attribute_N: NDArray[np.int64]
) -> datasets.Dataset:
    columns = leaking_columns(label_N, attribute_N, CLASSES, tuple(CORRUPTIONS))
    return split_of({"pixel_values": pixel_column(image_N3HW), **columns})


def _read(pictures: NamedPictures) -> datasets.Dataset:
    image_N3HW = np.empty((len(pictures.paths), 3, SIDE, SIDE), dtype=np.uint8)
    for row, path in enumerate(pictures.paths):
        picture = read_picture(path)
        if picture.shape != (SIDE, SIDE, 3):
            raise UserError(f"The picture '{path}' must have {SIDE}×{SIDE} pixels. Got {picture.shape[:2]}.")
        image_N3HW[row] = picture.transpose(2, 0, 1)
    return _split(image_N3HW, pictures.label_N, pictures.attribute_N)


def read_cifar(folder: Path | str | None) -> dict[str, LabelledImages]:
    """Images and labels of the parts `train` and `test`.

    Args:
        folder: Where cifar-10-batches-bin or its files lie; None takes the hub's copy.

    Raises:
        UserError: If a file is missing, truncated or damaged, or the folder holds the Python version.
    """
    if folder is None:
        return load_images("CIFAR-10", f"with --data-dir instead: {FILES}", HUB_NAME, "img", "RGB")
    files = _binary_folder(data_folder(folder, FILES))
    parts = {}
    for part, names in _PARTS.items():
        batches = [read_batch(files / name) for name in names]
        parts[part] = np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])
    return parts


def cifar_paths(folder: Path) -> list[Path]:
    """The binary files of a folder.

    Raises:
        UserError: If it holds none.
    """
    files = _binary_folder(data_folder(folder, FILES))
    return [files / name for names in _PARTS.values() for name in names]


def read_batch(path: Path) -> LabelledImages:
    """One binary file: records of a label's byte and 3,072 bytes of pixels.

    Raises:
        UserError: If the file is missing, is cut off in a record, or has labels outside 0–9.
    """
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"The file '{path}' could not be read ({error.strerror}); {FILES}") from error
    if not len(raw) or len(raw) % _RECORD:
        raise UserError(
            f"The file '{path}' is truncated or damaged: it must hold records of {_RECORD:,} bytes. Got {len(raw):,} "
            "bytes in all."
        )
    record_NR = raw.reshape(-1, _RECORD)
    label_N = record_NR[:, 0].astype(np.int64)
    check_digits(path, label_N)
    return record_NR[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1).copy(), label_N


def _binary_folder(folder: Path) -> Path:
    """The folder itself or the one in it that holds the binary files."""
    for candidate in (folder, folder / "cifar-10-batches-bin"):
        if (candidate / _PARTS["test"][0]).exists() or (candidate / _PARTS["train"][0]).exists():
            return candidate
    names = {entry.name for entry in folder.iterdir()}
    if "cifar-10-batches-py" in names or {"data_batch_1", "test_batch"} & names:
        raise UserError(
            f"The folder '{folder}' holds CIFAR-10's Python version, whose pickles can run any code and are never "
            f"loaded here; {FILES}"
        )
    archive = next((name for name in sorted(names) if is_archive(name) and "cifar" in name.lower()), None)
    if archive is not None:
        raise UserError(f"The file '{folder / archive}' is an archive: unpack it first; {FILES}")
    raise UserError(f"The folder '{folder}' holds no CIFAR-10 files; {FILES}")
