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
import pandas as pd
from datasets.exceptions import DatasetsError
from numpy.typing import NDArray

from evenhand.data.columns import crossed_columns, picture_column, split_of, text_column
from evenhand.data.pictures import check_first_pictures, check_present
from evenhand.validation import UserError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Table:
    """A table of a benchmark, read from a file.

    Attributes:
        path: The file.
        rows: Its rows.
    """

    path: Path
    rows: pd.DataFrame

    def numbers(self, column: str, allowed: Sequence[int]) -> NDArray[np.int64]:
        """A column of whole numbers, shape (N,).

        Raises:
            UserError: If a value is missing or isn't one of those allowed.
        """
        values: Any = pd.to_numeric(self.rows[column], errors="coerce")
        value_N: NDArray[np.float64] = values.to_numpy(dtype=np.float64)
        wrong = np.flatnonzero(~np.isin(value_N, allowed))
        if len(wrong):
            raise UserError(
                f"The column '{column}' of '{self.path}' must hold {', '.join(map(str, allowed))} only: row "
                f"{wrong[0] + 1} holds {str(self.rows[column].iloc[wrong[0]])!r} ({len(wrong)} such rows)."
            )
        return value_N.astype(np.int64)

    def texts(self, column: str) -> list[str]:
        """A column of texts."""
        return self.rows[column].astype(str).tolist()


def read_table(root: Path, names: Sequence[str], columns: Sequence[str], files: str) -> Table:
    """Read the first of these files that exists: CSV, or words between spaces below a line with their number (.txt).

    Args:
        root: The folder.
        names: Names of the file, best first.
        columns: Columns it must have; of a .txt file the first one has no name there and gets the first of these.
        files: What must lie in the folder and where it comes from, a sentence for errors.

    Raises:
        UserError: If there is none of them, it can't be read, or lacks a column.
    """
    path = next((root / name for name in names if (root / name).exists()), None)
    if path is None:
        raise UserError(f"The folder '{root}' holds no file {' or '.join(names)}; {files}")
    try:
        if path.suffix == ".txt":
            with path.open(encoding="utf-8") as file:
                counted = file.readline().strip().isdigit()
            rows = pd.read_csv(path, sep=r"\s+", header=1 if counted else None, dtype=str, keep_default_na=False)
            # under a header without a name for it the first column is the index
            rows = rows.reset_index(names=columns[0]) if counted else rows.set_axis(columns[: rows.shape[1]], axis=1)
        else:
            rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise UserError(f"The file '{path}' could not be read ({error.strerror}).") from error
    except (ValueError, pd.errors.ParserError) as error:  # ValueError: no UTF-8, nothing in it, too many columns
        raise UserError(f"The file '{path}' is damaged or no table: {str(error).strip()}.") from error
    missing = [column for column in columns if column not in rows.columns]
    if missing:
        raise UserError(
            f"The table '{path}' has no column '{missing[0]}' (it has {', '.join(map(str, rows.columns))})."
        )
    return Table(path, rows)


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
        try:
            loaded: Any = datasets.load_dataset(name, config)
        except (OSError, ValueError, DatasetsError) as error:
            raise UserError(
                f"The pictures could not be loaded from the hub as '{name}' ({type(error).__name__}); give a folder "
                f"with --data-dir instead: {files}"
            ) from error
        splits = {}
        for split, part in zip(SPLITS, parts, strict=True):
            label_N, attribute_N = (np.asarray(loaded[part][column]).astype(np.int64) for column in self.hub_columns)
            known = split_of(self._columns(label_N, attribute_N))
            splits[split] = datasets.concatenate_datasets([loaded[part].select_columns(["image"]), known], axis=1)
        return splits

    def _columns(self, label_N: NDArray[np.int64], attribute_N: NDArray[np.int64]) -> dict[str, Any]:
        return crossed_columns(label_N, attribute_N, self.labels, self.attributes, self.home)
