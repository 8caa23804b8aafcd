"""CIFAR-10 from its binary files or from the hub. Python pickles are never loaded.

Legend: N images; images are (N, 32, 32, 3) bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evenhand.data.hub import load_from_hub
from evenhand.data.pictures import data_folder, is_archive
from evenhand.validation import UserError

HUB_NAME = "uoft-cs/cifar10"
"""CIFAR-10's parquet copy on the Hugging Face hub (untried: the project's tests have no network)."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
FILES = (
    "it must hold CIFAR-10's binary version, the folder cifar-10-batches-bin with data_batch_1.bin to data_batch_5.bin "
    "and test_batch.bin, from https://www.cs.toronto.edu/~kriz/cifar.html."
)

_PARTS = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
_RECORD = 1 + 3 * SIDE * SIDE  # a label, then the red, green and blue planes
Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_cifar(folder: Path | str | None) -> dict[str, Labelled]:
    """Images and labels of the parts `train` and `test`.

    Args:
        folder: Where cifar-10-batches-bin or its files lie; None takes the hub's copy.

    Raises:
        UserError: If a file is missing, truncated or damaged, or the folder holds the Python version.
    """
    if folder is None:
        return _from_hub()
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


def read_batch(path: Path) -> Labelled:
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
    outside = np.flatnonzero(label_N >= len(CLASSES))
    if len(outside):
        raise UserError(
            f"The file '{path}' holds labels outside the classes 0–9: "
            f"row {outside[0]} is {label_N[outside[0]]} ({len(outside)} such rows)."
        )
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


def _from_hub() -> dict[str, Labelled]:
    loaded = load_from_hub(
        lambda why: (
            f"CIFAR-10 could not be loaded from the hub as '{HUB_NAME}' ({why}); give a folder with --data-dir "
            f"instead: {FILES}"
        ),
        HUB_NAME,
    )
    return {
        part: (
            np.stack([np.asarray(image.convert("RGB"), dtype=np.uint8) for image in loaded[part]["img"]]),
            np.asarray(loaded[part]["label"], dtype=np.int64),
        )
        for part in ("train", "test")
    }
