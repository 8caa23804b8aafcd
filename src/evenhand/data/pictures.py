"""Picture files in folders: what is there, what is missing, and a first look before anything trains.

How a picture is read is `evenhand.data.decoding`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.decoding import decoded, is_picture
from evenhand.validation import UserError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_NAMED = 3  # so many missing files are named


def data_folder(given: Path | str, files: str) -> Path:
    """The folder given as --data-dir.

    Args:
        given: What the user gave.
        files: What must lie there and where it comes from, a sentence for the error.

    Raises:
        UserError: If it doesn't exist, or is an archive.
    """
    folder = Path(given)
    if folder.is_dir():
        return folder
    if folder.is_file():
        unpack = "is an archive: unpack it first and give the folder" if is_archive(folder.name) else "is a file"
        raise UserError(f"The path '{folder}' given as --data-dir {unpack}; {files}")
    raise UserError(f"The folder '{folder}' given as --data-dir does not exist; {files}")


def is_archive(name: str) -> bool:
    """Whether a file's name is that of an archive."""
    return name.lower().endswith(_ARCHIVES)


def pictures_in(folder: Path, files: str) -> list[str]:
    """Names of the pictures in a folder, sorted; one system call for some hundred files.

    Raises:
        UserError: If the folder is missing or holds no picture.
    """
    names = entries(folder, files)
    found = sorted(filter(is_picture, names))
    if not found:
        raise UserError(f"The folder '{folder}' holds no pictures; {files}")
    return found


def entries(folder: Path, files: str) -> set[str]:
    """Names of all that lies in a folder.

    Raises:
        UserError: If it is missing or can't be read; an archive of its name beside it is pointed to.
    """
    try:
        with os.scandir(folder) as found:
            return {entry.name for entry in found}
    except OSError as error:
        beside = next((p for p in _beside(folder) if is_archive(p.name) and p.name.startswith(folder.name)), None)
        if beside is not None:
            raise UserError(f"The file '{beside}' is an archive: unpack it first, into '{folder}'.") from error
        raise UserError(f"The folder '{folder}' could not be read ({error.strerror}); {files}") from error


def check_present(root: Path, names: Sequence[str], listed_in: str, files: str) -> None:
    """Check that files named in a table are there, by listing each folder once.

    Args:
        root: Where the names start.
        names: Paths below it, with slashes.
        listed_in: The table's file, for the error.
        files: What must lie there and where it comes from, a sentence for the error.

    Raises:
        UserError: If a name leads out of the folder, or files are missing: how many, and which come first.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"The table '{listed_in}' names the file '{name}', which lies outside its folder.")
        by_folder[str(path.parent)].append(path.name)
    missing: list[str] = []
    for folder, wanted in by_folder.items():
        there = entries(root / folder, files) if (root / folder).is_dir() else set()
        missing += [str(PurePosixPath(folder) / name) for name in wanted if name not in there]
    if missing:
        shown = ", ".join(f"'{name}'" for name in missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise UserError(
            f"{len(missing):,} of the {len(names):,} pictures named in '{listed_in}' are missing from '{root}' "
            f"({shown}); {files}"
        )


def check_first_pictures(splits: dict[str, datasets.Dataset]) -> None:
    """Decode the first picture of each split of files, so that the wrong kind of file is noticed before training.

    Raises:
        UserError: If one is truncated or no picture.
    """
    for split in splits.values():
        for picture in split.with_format("arrow")[:1]["image"].to_pylist():
            if picture["path"] is not None:
                decoded(picture)


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """A picture's pixels, (height, width, 3).

    Raises:
        UserError: If it is truncated or no picture.
    """
    return np.asarray(decoded(path))


def _beside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.parent.iterdir())
    except OSError:
        return []
