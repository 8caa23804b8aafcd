"""Images of one size with their classes: from the hub, and what is checked of those from files.

Legend: N images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evenhand.data.decoding import decoded, undecoded
from evenhand.data.hub import load_from_hub
from evenhand.validation import UserError

LabelledImages = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images, and their classes of shape (N,)."""


def load_images(what: str, instead: str, name: str, column: str, mode: str) -> dict[str, LabelledImages]:
    """The parts `train` and `test` of a data set on the hub.

    Args:
        what: What it is, in messages.
        instead: The end of "give a folder …" where it can't be loaded.
        name: Its name on the hub.
        column: Its column of images.
        mode: What they are converted to, as Pillow calls it.

    Raises:
        UserError: If it can't be loaded.
    """
    loaded = load_from_hub(
        lambda why: f"{what} could not be loaded from the hub as '{name}' ({why}); give a folder {instead}", name
    )
    return {
        part: (
            np.stack([np.asarray(decoded(image).convert(mode)) for image in undecoded(loaded[part])[column]]),
            np.asarray(loaded[part]["label"], dtype=np.int64),
        )
        for part in ("train", "test")
    }


def check_digits(path: Path, label_N: NDArray[np.int64]) -> None:
    """Raise `UserError` unless a file's labels are classes from 0 to 9."""
    outside = np.flatnonzero(label_N > 9)
    if len(outside):
        raise UserError(
            f"The file '{path}' holds labels outside the classes 0–9: "
            f"row {outside[0]} is {label_N[outside[0]]} ({len(outside)} such rows)."
        )
