"""Benchmarks of pictures with two labels and two attributes: their tables, their groups label × attribute.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import crossed_columns, picture_column, split_of, text_column
from evenhand.data.hub import load_from_hub
from evenhand.data.pictures import check_first_pictures, check_present
from evenhand.data.tables import Columns, Table, read_table
from evenhand.validation import UserError

SPLITS = ("train", "validation", "test")


def read_listed(root: Path, names: Sequence[str], columns: Sequence[str], files: str) -> tuple[Path, Table]:
    """Read the first of these files that exists: CSV, or words between spaces (.txt).

    Args:
        root: The folder.
        names: Names of the file, best first.
        columns: Columns that it must have, first the one that a .txt file has no name for.
        files: What must lie in the folder and where it comes from, a sentence for errors.

    Raises:
        UserError: If there is none of them, it can't be read, or lacks a column.
    """
    path = next((root / name for name in names if (root / name).exists()), None)
    if path is None:
        raise UserError(f"The folder '{root}' holds no file {' or '.join(names)}; {files}")
    wanted = Columns({column: (column,) for column in columns})
    return path, read_table(path, wanted, kind="words" if path.suffix == ".txt" else "csv")


@dataclass(frozen=True)
class TwoByTwo:
    """What two labels and two attributes are called.

    Attributes:
        labels: The classes, 0 and 1.
        attributes: The attributes, 0 and 1.
        hub_columns: What the hub's copy calls them.
        home: The attribute that each label leans to.
    """

    labels: tuple[str, str]
    attributes: tuple[str, str]
    hub_columns: tuple[str, str]
    home: tuple[int, int] = (0, 1)

    def counts(self, published: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, int]]:
        """Published sizes of the groups, label by label, under their names."""
        names = [f"{label}, {attribute}" for label in self.labels for attribute in self.attributes]
        return {split: {"n": sum(sizes), **dict(zip(names, sizes, strict=True))} for split, sizes in published.items()}

    def from_files(
        self,
        root: Path,
        names: Sequence[str],
        label_N: NDArray[np.int64],
        attribute_N: NDArray[np.int64],
        split_N: NDArray[np.int64],
        listed_in: Path,
        files: str,
    ) -> dict[str, datasets.Dataset]:
        """The splits of pictures below a folder; `split_N` numbers `SPLITS`.

        Raises:
            UserError: If pictures are missing, the first of a split is damaged, or a split is empty.
        """
        check_present(root, names, str(listed_in), files)
        splits = {}
        for number, split in enumerate(SPLITS):
            rows = np.flatnonzero(split_N == number)
            if not len(rows):
                raise UserError(f"The table '{listed_in}' has no rows of the split '{split}' (number {number}).")
            chosen = [names[int(i)] for i in rows]
            splits[split] = split_of(
                {
                    "image": picture_column([str(root / name) for name in chosen]),
                    **self._columns(label_N[rows], attribute_N[rows]),
                    "id": text_column(chosen),
                }
            )
        check_first_pictures(splits)
        return splits

    def from_hub(self, name: str, config: str | None, parts: Sequence[str], files: str) -> dict[str, datasets.Dataset]:
        """The splits of the hub's copy; `parts` are its names of `SPLITS`.

        Raises:
            UserError: If it can't be loaded.
        """
        loaded = load_from_hub(
            lambda why: (
                f"The pictures could not be loaded from the hub as '{name}' ({why}); give a folder with --data-dir "
                f"instead: {files}"
            ),
            name,
            config,
        )
        splits = {}
        for split, part in zip(SPLITS, parts, strict=True):
            label_N, attribute_N = (np.asarray(loaded[part][column]).astype(np.int64) for column in self.hub_columns)
            known = split_of(self._columns(label_N, attribute_N))
            splits[split] = datasets.concatenate_datasets([loaded[part].select_columns(["image"]), known], axis=1)
        return splits

    def _columns(self, label_N: NDArray[np.int64], attribute_N: NDArray[np.int64]) -> dict[str, Any]:
        return crossed_columns(label_N, attribute_N, self.labels, self.attributes, self.home)
