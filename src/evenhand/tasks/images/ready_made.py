"""The layout in which biased pictures are handed round: the label and the attribute are in each file's name.

0.5pct/align/LABEL/ID_LABEL_ATTRIBUTE.png       training pictures whose attribute is their label's
0.5pct/conflict/LABEL/ID_LABEL_ATTRIBUTE.png    training pictures whose attribute is another's
valid/…  test/…                                 with or without folders of labels
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evenhand.data.decoding import is_picture
from evenhand.data.pictures import entries, pictures_in
from evenhand.validation import UserError

_NAME = re.compile(r"(?P<id>.+)_(?P<label>\d+)_(?P<attribute>\d+)\.\w+")


@dataclass(frozen=True)
class NamedPictures:
    """Pictures with the numbers in their names, each of shape (N,)."""

    paths: list[str]
    label_N: NDArray[np.int64]
    attribute_N: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> NamedPictures:
        """Some of the pictures."""
        return NamedPictures([self.paths[i] for i in rows], self.label_N[rows], self.attribute_N[rows])

    def __add__(self, other: NamedPictures) -> NamedPictures:
        return NamedPictures(
            self.paths + other.paths,
            np.concatenate([self.label_N, other.label_N]),
            np.concatenate([self.attribute_N, other.attribute_N]),
        )


def percent_folder(conflict: float) -> str:
    """The folder of a share of conflicting pictures: 0.005 → 0.5pct."""
    return f"{100 * conflict:g}pct"


def training_pictures(folder: Path, num_classes: int, num_attributes: int, files: str) -> NamedPictures:
    """The pictures below align/ and conflict/.

    Raises:
        UserError: If a folder is missing or empty, or a file's name contradicts its folder.
    """
    aligned = named_pictures(folder / "align", num_classes, num_attributes, files)
    conflicting = named_pictures(folder / "conflict", num_classes, num_attributes, files)
    for part, differ_N in (
        (aligned, aligned.label_N != aligned.attribute_N),
        (conflicting, conflicting.label_N == conflicting.attribute_N),
    ):
        wrong = np.flatnonzero(differ_N)
        if len(wrong):
            raise UserError(
                f"The picture '{part.paths[wrong[0]]}' is in the wrong folder: in align/ a name's last two numbers are "
                f"equal, in conflict/ they differ ({len(wrong)} such files)."
            )
    return aligned + conflicting


def named_pictures(folder: Path, num_classes: int, num_attributes: int, files: str) -> NamedPictures:
    """The pictures of a folder, or of the folders in it, sorted by path.

    Raises:
        UserError: If there are none, or a name doesn't end in a label and an attribute that exist.
    """
    names = entries(folder, files)
    inner = sorted(name for name in names if name.isdigit() and (folder / name).is_dir())
    if inner:
        found = [f"{name}/{picture}" for name in inner for picture in pictures_in(folder / name, files)]
        found += sorted(filter(is_picture, names))
    else:
        found = pictures_in(folder, files)
    numbers = []
    for name in found:
        match = _NAME.fullmatch(Path(name).name)
        label, attribute = (int(match["label"]), int(match["attribute"])) if match else (-1, -1)
        if not (0 <= label < num_classes and 0 <= attribute < num_attributes):
            raise UserError(
                f"The name of '{folder / name}' must end in _LABEL_ATTRIBUTE, a label from 0 to {num_classes - 1} and "
                f"an attribute from 0 to {num_attributes - 1}, as in 17_0_1.png."
            )
        numbers.append((label, attribute))
    label_N, attribute_N = np.array(numbers, dtype=np.int64).T
    return NamedPictures([str(folder / name) for name in found], label_N.copy(), attribute_N.copy())
