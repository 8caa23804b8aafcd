"""Benchmarks of pictures on the Hugging Face hub: parquet copies (untried: the project's tests have no network)."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
from datasets.exceptions import DatasetsError
from numpy.typing import NDArray

from evenhand.validation import UserError

LabelledImages = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images of one size, and their classes."""


def load_pictures(what: str, name: str, config: str | None, files: str) -> Any:
    """A benchmark's parts by name.

    Args:
        what: What it is, as the beginning of a sentence.
        name: The data set.
        config: Its configuration, where it has several.
        files: What a folder must hold instead, a sentence for errors.

    Raises:
        UserError: If it can't be loaded.
    """
    try:
        return datasets.load_dataset(name, config)
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"{what} could not be loaded from the hub as '{name}' ({type(error).__name__}); give a folder with "
            f"--data-dir instead: {files}"
        ) from error


def load_images(what: str, name: str, column: str, mode: str, files: str) -> dict[str, LabelledImages]:
    """The parts `train` and `test` of images of one size, from this column in this mode of Pillow's.

    Raises:
        UserError: If they can't be loaded.
    """
    loaded = load_pictures(what, name, None, files)
    return {
        part: (
            np.stack([np.asarray(image.convert(mode), dtype=np.uint8) for image in loaded[part][column]]),
            np.asarray(loaded[part]["label"], dtype=np.int64),
        )
        for part in ("train", "test")
    }
