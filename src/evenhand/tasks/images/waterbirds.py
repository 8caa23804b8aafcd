"""waterbirds: birds of the land and the water, pasted on pictures of land and water."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evenhand.data.pictures import data_folder
from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.counts import with_deviations
from evenhand.tasks.images.group_pictures import TwoByTwo, read_listed
from evenhand.training.settings import Training

HUB_NAME = "grodino/waterbirds"
"""A parquet copy of Waterbirds on the Hugging Face hub (untried: the project's tests have no network)."""

FILES = (
    "it must hold metadata.csv and the folders of pictures of waterbird_complete95_forest2water2, from "
    "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz (unpacked)."
)
TWO_BY_TWO = TwoByTwo(labels=("landbird", "waterbird"), attributes=("land", "water"), hub_columns=("label", "place"))

_TABLE = (("metadata.csv",), ("img_filename", "y", "split", "place"), FILES)


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

    name: ClassVar[str] = "waterbirds"
    summary: ClassVar[str] = "landbirds or waterbirds, whose background leaks the kind (--data-dir, or the hub)"
    origin: ClassVar[str] = f"Waterbirds (Sagawa et al. 2020), made of CUB and Places; from its archive or {HUB_NAME}"
    licence: ClassVar[str] = "none is stated; CUB and Places are for non-commercial research"
    files: ClassVar[str] = FILES
    bias: ClassVar[str] = "in training 95 % of landbirds are on land and 95 % of waterbirds on water"
    metric: ClassVar[str] = "worst-group accuracy, and the average weighted by the groups' shares in train"
    default_model: ClassVar[str] = "microsoft/resnet-50"
    training: ClassVar[dict[str, Training]] = {
        # ERM of the Group DRO code: SGD 1e-3, momentum 0.9, weight decay 1e-4, batch 128, 300 epochs (from memory)
        "microsoft/resnet-50": Training(
            epochs=300, lr=1e-3, batch_size=128, optimizer="sgd", momentum=0.9, weight_decay=1e-4
        ),
        "small-resnet": Training(epochs=100, lr=1e-3, batch_size=128),  # ours
    }

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """Published sizes."""
        return TWO_BY_TWO.counts(
            {"train": (3498, 184, 56, 1057), "validation": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}
        )

    def read_paths(self, folder: Path) -> list[Path]:
        """The table and the pictures that it names."""
        path, table = read_listed(folder, *_TABLE)
        return [path, *(folder / name for name in table.column("img_filename").to_pylist())]

    def build(self, data_seed: int) -> Task:
        """Build the splits, which no seed changes.

        Raises:
            UserError: If the table or a picture is missing, or the table holds something else.
        """
        if self.data_dir is None:
            splits = TWO_BY_TWO.from_hub(HUB_NAME, None, ("train", "validation", "test"), FILES)
        else:
            root = data_folder(self.data_dir, FILES)
            path, table = read_listed(root, *_TABLE)
            allowed = {"y": (0, 1), "place": (0, 1), "split": (0, 1, 2)}
            y, place, part = (table.whole_numbers(column, values) for column, values in allowed.items())
            names = table.column("img_filename").to_pylist()
            splits = TWO_BY_TWO.from_files(root, names, y, place, part, path, FILES)
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
