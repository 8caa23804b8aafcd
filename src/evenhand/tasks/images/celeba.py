"""celeba: portraits of celebrities; whether the hair is blond, which gender leaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evenhand.data.pictures import data_folder
from evenhand.data.tables import Table
from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.counts import with_deviations
from evenhand.tasks.images.group_pictures import TwoByTwo, read_listed
from evenhand.training.settings import Training
from evenhand.validation import UserError

HUB_NAME = "flwrlabs/celeba"
HUB_CONFIG = "img_align+identity+attr"
"""A parquet copy of CelebA on the Hugging Face hub (untried: the project's tests have no network)."""

FILES = (
    "it must hold list_attr_celeba.txt and list_eval_partition.txt (or .csv) and the folder img_align_celeba, from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (a download by hand, after agreeing to its terms)."
)
TWO_BY_TWO = TwoByTwo(
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

    name: ClassVar[str] = "celeba"
    summary: ClassVar[str] = "blond hair or not, which gender leaks (CelebA's files in --data-dir, or the hub)"
    origin: ClassVar[str] = f"CelebA (Liu et al. 2015), aligned and cropped, from its files or {HUB_NAME}"
    licence: ClassVar[str] = "CelebA's agreement: non-commercial research only, no redistribution"
    files: ClassVar[str] = FILES
    bias: ClassVar[str] = "6 % of the blond are men, against 48 % of the others"
    metric: ClassVar[str] = "worst-group accuracy (nearly always blond men) and the average over test"
    default_model: ClassVar[str] = "microsoft/resnet-50"
    training: ClassVar[dict[str, Training]] = {
        # ERM of the Group DRO code: SGD 1e-4, momentum 0.9, weight decay 1e-4, batch 128, 50 epochs (from memory)
        "microsoft/resnet-50": Training(
            epochs=50, lr=1e-4, batch_size=128, optimizer="sgd", momentum=0.9, weight_decay=1e-4
        ),
        "small-resnet": Training(epochs=10, lr=1e-3, batch_size=128),  # ours
    }

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """Published sizes."""
        return TWO_BY_TWO.counts(
            {
                "train": (71629, 66874, 22880, 1387),
                "validation": (8535, 8276, 2874, 182),
                "test": (9767, 7535, 2480, 180),
            }
        )

    def read_paths(self, folder: Path) -> list[Path]:
        """The two tables and the pictures that they name."""
        (path, table), (partition_path, _) = _tables(folder)
        return [path, partition_path, *(folder / name for name in _pictures(folder, table))]

    def build(self, data_seed: int) -> Task:
        """Build the splits, which no seed changes.

        Raises:
            UserError: If a table or a picture is missing, or the tables hold something else.
        """
        if self.data_dir is None:
            splits = TWO_BY_TWO.from_hub(HUB_NAME, HUB_CONFIG, ("train", "valid", "test"), FILES)
        else:
            root = data_folder(self.data_dir, FILES)
            (path, table), (partition_path, partition) = _tables(root)
            if table.column("image_id") != partition.column("image_id"):
                raise UserError(
                    f"The tables '{path}' ({len(table):,} rows) and '{partition_path}' ({len(partition):,} rows) must "
                    "name the same pictures in the same order."
                )
            # the tables hold −1 and 1, some copies 0 and 1
            blond, male = (table.whole_numbers(column, (-1, 0, 1)).clip(0) for column in ("Blond_Hair", "Male"))
            paths = _pictures(root, table)
            part = partition.whole_numbers("partition", (0, 1, 2))
            splits = TWO_BY_TWO.from_files(root, paths, blond, male, part, path, FILES)
        task = Task(
            name=self.name,
            kind="image",
            train=splits["train"],
            validation=splits["validation"],
            tests={"test": splits["test"]},
            primary_test="test",
            image_side=64,
        )
        return with_deviations(task, self.expected_counts())


def _tables(root: Path) -> tuple[tuple[Path, Table], tuple[Path, Table]]:
    """Attributes and splits."""
    names_of = [f"list_attr_celeba{suffix}" for suffix in (".txt", ".csv")]
    partition_of = [f"list_eval_partition{suffix}" for suffix in (".txt", ".csv")]
    return (
        read_listed(root, names_of, ("image_id", "Blond_Hair", "Male"), FILES),
        read_listed(root, partition_of, ("image_id", "partition"), FILES),
    )


def _pictures(root: Path, table: Table) -> list[str]:
    # Kaggle's copy has a folder in the folder
    nested = root / "img_align_celeba" / "img_align_celeba"
    folder = "img_align_celeba/img_align_celeba" if nested.is_dir() else "img_align_celeba"
    return [f"{folder}/{name}" for name in table.column("image_id").to_pylist()]
