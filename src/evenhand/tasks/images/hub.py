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


def load_pictures(what: str, instead: str, *place: str | None) -> Any:
    """A benchmark's parts by name.

    Args:
        what: What it is, as the beginning of a sentence.
        instead: How to do without the hub, the end of that sentence.
        place: The data set's name, and its configuration.

    Raises:
        UserError: If it can't be loaded.
    """
    try:
        return datasets.load_dataset(*place)  # type: ignore[arg-type]
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"{what} could not be loaded from the hub as '{place[0]}' ({type(error).__name__}); give a folder {instead}"
        ) from error


def load_images(what: str, instead: str, name: str, column: str, mode: str) -> dict[str, LabelledImages]:
    """The parts `train` and `test` of images of one size: this column, in this mode of Pillow's.

    Raises:
        UserError: If they can't be loaded.
    """
    loaded = load_pictures(what, instead, name)
    return {
        part: (
            np.stack([np.asarray(image.convert(mode), dtype=np.uint8) for image in loaded[part][column]]),
            np.asarray(loaded[part]["label"], dtype=np.int64),
        )
        for part in ("train", "test")
    }
