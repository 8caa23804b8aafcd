"""waterbirds and celeba: pictures with two labels and two attributes, whose groups are label × attribute.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evenhand.data.columns import crossed_columns, picture_column, split_of, text_column
from evenhand.data.pictures import check_first_pictures, check_present, data_folder
from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.images.hub import load_pictures
from evenhand.training.settings import Training
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
        loaded = load_pictures("The pictures", name, config, files)
        splits = {}
        for split, part in zip(SPLITS, parts, strict=True):
            label_N, attribute_N = (np.asarray(loaded[part][column]).astype(np.int64) for column in self.hub_columns)
            known = split_of(self._columns(label_N, attribute_N))
            splits[split] = datasets.concatenate_datasets([loaded[part].select_columns(["image"]), known], axis=1)
        return splits

    def _columns(self, label_N: NDArray[np.int64], attribute_N: NDArray[np.int64]) -> dict[str, Any]:
        return crossed_columns(label_N, attribute_N, self.labels, self.attributes, self.home)


WATERBIRDS_HUB = "grodino/waterbirds"
"""A parquet copy of Waterbirds on the Hugging Face hub (untried: the project's tests have no network)."""

WATERBIRDS_FILES = (
    "it must hold metadata.csv and the folders of pictures of waterbird_complete95_forest2water2, from "
    "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz (unpacked)."
)
BIRDS = TwoByTwo(labels=("landbird", "waterbird"), attributes=("land", "water"), hub_columns=("label", "place"))

_BIRD_COLUMNS = ("img_filename", "y", "split", "place")


@dataclass(frozen=True, kw_only=True)
class Waterbirds(TaskSource):
    """Landbirds and waterbirds (CUB) on land and water (Places): 4,795 train, 1,199 validation, 5,794 test.

    In train 95 % of the birds are at home; in validation and test each bird is on both backgrounds equally often. The
    groups are bird × place. The literature's average is `average_train_weighted`: group accuracies weighted by their
    shares in train.

    Attributes:
        data_dir: Folder of metadata.csv and the pictures; None takes a copy from the hub.
    """

    data_dir: Path | str | None = None

    name = "waterbirds"
    summary = "landbirds or waterbirds, whose background leaks the kind (--data-dir, or the hub)"
    origin = f"Waterbirds (Sagawa et al. 2020), made of CUB and Places; from its archive or {WATERBIRDS_HUB}"
    licence = "none is stated; CUB and Places are for non-commercial research"
    files = WATERBIRDS_FILES
    bias = "in training 95 % of landbirds are on land and 95 % of waterbirds on water"
    metric = "worst-group accuracy, and the average weighted by the groups' shares in train"
    default_model = "microsoft/resnet-50"
    training: ClassVar[dict[str, Training]] = {
        # ERM of the Group DRO code: SGD 1e-3, momentum 0.9, weight decay 1e-4, batch 128, 300 epochs (from memory)
        "microsoft/resnet-50": Training(
            epochs=300, lr=1e-3, batch_size=128, optimizer="sgd", momentum=0.9, weight_decay=1e-4
        ),
        "small-resnet": Training(epochs=100, lr=1e-3, batch_size=128),  # ours
    }

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """Published sizes."""
        return BIRDS.counts(
            {"train": (3498, 184, 56, 1057), "validation": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}
        )

    def read_paths(self, folder: Path) -> list[Path]:
        """The table and the pictures that it names."""
        table = _bird_table(folder)
        return [table.path, *(folder / name for name in table.texts("img_filename"))]

    def build(self, data_seed: int) -> Task:
        """Build the splits, which no seed changes.

        Raises:
            UserError: If the table or a picture is missing, or the table holds something else.
        """
        if self.data_dir is None:
            splits = BIRDS.from_hub(WATERBIRDS_HUB, None, ("train", "validation", "test"), WATERBIRDS_FILES)
        else:
            root = data_folder(self.data_dir, WATERBIRDS_FILES)
            table = _bird_table(root)
            allowed = {"y": (0, 1), "place": (0, 1), "split": (0, 1, 2)}
            y, place, part = (table.numbers(column, values) for column, values in allowed.items())
            splits = BIRDS.from_files(root, table.texts("img_filename"), y, place, part, table.path, WATERBIRDS_FILES)
        return self.task(splits)


def _bird_table(root: Path) -> Table:
    return read_table(root, ("metadata.csv",), _BIRD_COLUMNS, WATERBIRDS_FILES)


CELEBA_HUB = "flwrlabs/celeba"
CELEBA_CONFIG = "img_align+identity+attr"
"""A parquet copy of CelebA on the Hugging Face hub (untried: the project's tests have no network)."""

CELEBA_FILES = (
    "it must hold list_attr_celeba.txt and list_eval_partition.txt (or .csv) and the folder img_align_celeba, from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (a download by hand, after agreeing to its terms)."
)
FACES = TwoByTwo(
    labels=("not blond", "blond"), attributes=("female", "male"), hub_columns=("Blond_Hair", "Male"), home=(1, 0)
)


@dataclass(frozen=True, kw_only=True)
class CelebA(TaskSource):
    """202,599 portraits, blond or not: 162,770 train, 19,867 validation, 19,962 test (CelebA's own splits).

    The groups are hair × gender; few men are blond, in every split. As in LfF, blond women and other men are aligned,
    blond men and other women conflicting, though only blond men are rare.

    Attributes:
        data_dir: Folder of the two tables and the pictures; None takes a copy from the hub.
    """

    data_dir: Path | str | None = None

    name = "celeba"
    summary = "blond hair or not, which gender leaks (CelebA's files in --data-dir, or the hub)"
    origin = f"CelebA (Liu et al. 2015), aligned and cropped, from its files or {CELEBA_HUB}"
    licence = "CelebA's agreement: non-commercial research only, no redistribution"
    files = CELEBA_FILES
    bias = "6 % of the blond are men, against 48 % of the others"
    metric = "worst-group accuracy (nearly always blond men) and the average over test"
    default_model = "microsoft/resnet-50"
    training: ClassVar[dict[str, Training]] = {
        # ERM of the Group DRO code: SGD 1e-4, momentum 0.9, weight decay 1e-4, batch 128, 50 epochs (from memory)
        "microsoft/resnet-50": Training(
            epochs=50, lr=1e-4, batch_size=128, optimizer="sgd", momentum=0.9, weight_decay=1e-4
        ),
        "small-resnet": Training(epochs=10, lr=1e-3, batch_size=128),  # ours
    }

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """Published sizes."""
        return FACES.counts(
            {
                "train": (71629, 66874, 22880, 1387),
                "validation": (8535, 8276, 2874, 182),
                "test": (9767, 7535, 2480, 180),
            }
        )

    def read_paths(self, folder: Path) -> list[Path]:
        """The two tables and the pictures that they name."""
        table, partition = _tables(folder)
        return [table.path, partition.path, *(folder / name for name in _pictures(folder, table))]

    def build(self, data_seed: int) -> Task:
        """Build the splits, which no seed changes.

        Raises:
            UserError: If a table or a picture is missing, or the tables hold something else.
        """
        if self.data_dir is None:
            splits = FACES.from_hub(CELEBA_HUB, CELEBA_CONFIG, ("train", "valid", "test"), CELEBA_FILES)
        else:
            root = data_folder(self.data_dir, CELEBA_FILES)
            table, partition = _tables(root)
            names = table.texts("image_id")
            if names != partition.texts("image_id"):
                raise UserError(
                    f"The tables '{table.path}' ({len(names):,} rows) and '{partition.path}' "
                    f"({len(partition.rows):,} rows) must name the same pictures in the same order."
                )
            # the tables hold −1 and 1, some copies 0 and 1
            blond, male = (table.numbers(column, (-1, 0, 1)).clip(0) for column in ("Blond_Hair", "Male"))
            paths = _pictures(root, table)
            part = partition.numbers("partition", (0, 1, 2))
            splits = FACES.from_files(root, paths, blond, male, part, table.path, CELEBA_FILES)
        return self.task(splits)


def _tables(root: Path) -> tuple[Table, Table]:
    """Attributes and splits."""
    names_of = [f"list_attr_celeba{suffix}" for suffix in (".txt", ".csv")]
    partition_of = [f"list_eval_partition{suffix}" for suffix in (".txt", ".csv")]
    return (
        read_table(root, names_of, ("image_id", "Blond_Hair", "Male"), CELEBA_FILES),
        read_table(root, partition_of, ("image_id", "partition"), CELEBA_FILES),
    )


def _pictures(root: Path, table: Table) -> list[str]:
    # Kaggle's copy has a folder in the folder
    nested = root / "img_align_celeba" / "img_align_celeba"
    folder = "img_align_celeba/img_align_celeba" if nested.is_dir() else "img_align_celeba"
    return [f"{folder}/{name}" for name in table.texts("image_id")]
