"""waterbirds and celeba: pictures with two labels and two attributes, whose groups are label × attribute.

Legend: N rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import crossed_columns, picture_column, split_of, text_column
from evenhand.data.hub import load_from_hub
from evenhand.data.pictures import check_first_pictures, check_present, data_folder
from evenhand.data.tables import Columns, Table, read_table
from evenhand.tasks.base import Task, TaskSource
from evenhand.training.settings import Training
from evenhand.validation import UserError

WATERBIRDS_HUB = "grodino/waterbirds"
WATERBIRDS_FILES = (
    "it must hold metadata.csv and the folders of pictures of waterbird_complete95_forest2water2, from "
    "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz (unpacked)."
)
CELEBA_HUB = "flwrlabs/celeba"
CELEBA_FILES = (
    "it must hold list_attr_celeba.txt and list_eval_partition.txt (or .csv) and the folder img_align_celeba, from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (a download by hand, after agreeing to its terms)."
)

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


def group_sizes(
    labels: Sequence[str], attributes: Sequence[str], sizes_of: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, int]]:
    """Published sizes of the groups, label by label, under their names."""
    names = [f"{label}, {attribute}" for label in labels for attribute in attributes]
    return {split: {"n": sum(sizes), **dict(zip(names, sizes, strict=True))} for split, sizes in sizes_of.items()}


@dataclass(frozen=True)
class Listed:
    """The pictures that a benchmark's tables list.

    Attributes:
        tables: The tables' files, the one that names the pictures first.
        names: The pictures' paths below the folder.
        label_N: Their classes, 0 and 1.
        attribute_N: Their attributes, 0 and 1.
        split_N: The numbers of their splits in `SPLITS`.
    """

    tables: tuple[Path, ...]
    names: list[str]
    label_N: NDArray[np.int64]
    attribute_N: NDArray[np.int64]
    split_N: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class GroupPictures(TaskSource):
    """A benchmark of pictures with two labels and two attributes.

    Attributes:
        data_dir: Folder of the tables and the pictures; None takes a copy from the hub.
        labels: The classes 0 and 1.
        attributes: The attributes 0 and 1.
        home: The attribute that each label leans to.
        hub: A copy on the Hugging Face hub and its configuration (untried: the project's tests have no network).
        hub_columns: Its columns of labels and attributes.
        hub_parts: Its names of `SPLITS`.
    """

    data_dir: Path | str | None = None

    labels: ClassVar[tuple[str, str]]
    attributes: ClassVar[tuple[str, str]]
    home: ClassVar[tuple[int, int]] = (0, 1)
    hub: ClassVar[tuple[str, str | None]]
    hub_columns: ClassVar[tuple[str, str]]
    hub_parts: ClassVar[tuple[str, ...]] = SPLITS

    default_model = "microsoft/resnet-50"

    @abstractmethod
    def listed(self, root: Path) -> Listed:
        """What the tables of a folder list.

        Raises:
            UserError: If one is missing or holds something else.
        """

    def read_paths(self, folder: Path) -> list[Path]:
        """The tables and the pictures that they name."""
        found = self.listed(folder)
        return [*found.tables, *(folder / name for name in found.names)]

    def build(self, data_seed: int) -> Task:
        """Build the splits, which no seed changes."""
        return self.task(self._from_hub() if self.data_dir is None else self._from_files(self.data_dir))

    def _from_files(self, folder: Path | str) -> dict[str, datasets.Dataset]:
        root = data_folder(folder, self.files)
        found = self.listed(root)
        check_present(root, found.names, str(found.tables[0]), self.files)
        splits = {}
        for number, split in enumerate(SPLITS):
            rows = np.flatnonzero(found.split_N == number)
            if not len(rows):
                raise UserError(f"The table '{found.tables[0]}' has no rows of the split '{split}' (number {number}).")
            chosen = [found.names[int(i)] for i in rows]
            splits[split] = split_of(
                {
                    "image": picture_column([str(root / name) for name in chosen]),
                    **self._columns(found.label_N[rows], found.attribute_N[rows]),
                    "id": text_column(chosen),
                }
            )
        check_first_pictures(splits)
        return splits

    def _from_hub(self) -> dict[str, datasets.Dataset]:
        refusal = f"give a folder with --data-dir instead: {self.files}"
        loaded = load_from_hub(
            lambda why: f"The pictures could not be loaded from the hub as '{self.hub[0]}' ({why}); {refusal}",
            *self.hub,
        )
        splits = {}
        for split, part in zip(SPLITS, self.hub_parts, strict=True):
            label_N, attribute_N = (np.asarray(loaded[part][column]).astype(np.int64) for column in self.hub_columns)
            known = split_of(self._columns(label_N, attribute_N))
            splits[split] = datasets.concatenate_datasets([loaded[part].select_columns(["image"]), known], axis=1)
        return splits

    def _columns(self, label_N: NDArray[np.int64], attribute_N: NDArray[np.int64]) -> dict[str, Any]:
        return crossed_columns(label_N, attribute_N, self.labels, self.attributes, self.home)


class Waterbirds(GroupPictures):
    """Landbirds and waterbirds (CUB) on land and water (Places): 4,795 train, 1,199 validation, 5,794 test.

    In train 95 % of the birds are at home; in validation and test each bird is on both backgrounds equally often. The
    groups are bird × place. The literature's average is `average_train_weighted`: group accuracies weighted by their
    shares in train.

    Attributes:
        data_dir: Folder of metadata.csv and the pictures; None takes a copy from the hub.
    """

    name = "waterbirds"
    summary = "landbirds or waterbirds, whose background leaks the kind (--data-dir, or the hub)"
    origin = f"Waterbirds (Sagawa et al. 2020), made of CUB and Places; from its archive or {WATERBIRDS_HUB}"
    licence = "none is stated; CUB and Places are for non-commercial research"
    files = WATERBIRDS_FILES
    bias = "in training 95 % of landbirds are on land and 95 % of waterbirds on water"
    metric = "worst-group accuracy, and the average weighted by the groups' shares in train"
    training: ClassVar[dict[str, Training]] = {
        # ERM of the Group DRO code: SGD 1e-3, momentum 0.9, weight decay 1e-4, batch 128, 300 epochs (from memory)
        "microsoft/resnet-50": Training(
            epochs=300, lr=1e-3, batch_size=128, optimizer="sgd", momentum=0.9, weight_decay=1e-4
        ),
        "small-resnet": Training(epochs=100, lr=1e-3, batch_size=128),  # ours
    }

    labels = ("landbird", "waterbird")
    attributes = ("land", "water")
    hub = (WATERBIRDS_HUB, None)
    hub_columns = ("label", "place")
    published = group_sizes(
        labels,
        attributes,
        {"train": (3498, 184, 56, 1057), "validation": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)},
    )

    def listed(self, root: Path) -> Listed:
        """What metadata.csv lists."""
        path, table = read_listed(root, ("metadata.csv",), ("img_filename", "y", "split", "place"), self.files)
        y, place = (table.whole_numbers(name, (0, 1)) for name in ("y", "place"))
        names = table.column("img_filename").to_pylist()
        return Listed((path,), names, y, place, table.whole_numbers("split", (0, 1, 2)))


class CelebA(GroupPictures):
    """202,599 portraits, blond or not: 162,770 train, 19,867 validation, 19,962 test (CelebA's own splits).

    The groups are hair × gender; few men are blond, in every split. As in LfF, blond women and other men are aligned,
    blond men and other women conflicting, though only blond men are rare.

    Attributes:
        data_dir: Folder of the two tables and the pictures; None takes a copy from the hub.
    """

    name = "celeba"
    summary = "blond hair or not, which gender leaks (CelebA's files in --data-dir, or the hub)"
    origin = f"CelebA (Liu et al. 2015), aligned and cropped, from its files or {CELEBA_HUB}"
    licence = "CelebA's agreement: non-commercial research only, no redistribution"
    files = CELEBA_FILES
    bias = "6 % of the blond are men, against 48 % of the others"
    metric = "worst-group accuracy (nearly always blond men) and the average over test"
    training: ClassVar[dict[str, Training]] = {
        # ERM of the Group DRO code: SGD 1e-4, momentum 0.9, weight decay 1e-4, batch 128, 50 epochs (from memory)
        "microsoft/resnet-50": Training(
            epochs=50, lr=1e-4, batch_size=128, optimizer="sgd", momentum=0.9, weight_decay=1e-4
        ),
        "small-resnet": Training(epochs=10, lr=1e-3, batch_size=128),  # ours
    }

    labels = ("not blond", "blond")
    attributes = ("female", "male")
    home = (1, 0)
    hub = (CELEBA_HUB, "img_align+identity+attr")
    hub_columns = ("Blond_Hair", "Male")
    hub_parts = ("train", "valid", "test")
    published = group_sizes(
        labels,
        attributes,
        {"train": (71629, 66874, 22880, 1387), "validation": (8535, 8276, 2874, 182), "test": (9767, 7535, 2480, 180)},
    )

    def listed(self, root: Path) -> Listed:
        """What the tables of attributes and of splits list; both must name the same pictures."""
        (path, table), (partition_path, partition) = (
            read_listed(root, [f"{name}.txt", f"{name}.csv"], ("image_id", *columns), self.files)
            for name, columns in (("list_attr_celeba", self.hub_columns), ("list_eval_partition", ("partition",)))
        )
        if table.column("image_id") != partition.column("image_id"):
            raise UserError(
                f"The tables '{path}' ({len(table):,} rows) and '{partition_path}' ({len(partition):,} rows) must name "
                "the same pictures in the same order."
            )
        # the tables hold −1 and 1, some copies 0 and 1
        blond, male = (table.whole_numbers(column, (-1, 0, 1)).clip(0) for column in self.hub_columns)
        folder = "img_align_celeba"
        if (root / folder / folder).is_dir():  # Kaggle's copy has a folder in the folder
            folder = f"{folder}/{folder}"
        names = [f"{folder}/{name}" for name in table.column("image_id").to_pylist()]
        return Listed((path, partition_path), names, blond, male, partition.whole_numbers("partition", (0, 1, 2)))
