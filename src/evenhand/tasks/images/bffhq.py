"""bffhq: faces whose age is to be told, and whose gender leaks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import datasets
import numpy as np

from evenhand.data.columns import crossed_columns, picture_column, split_of, text_column
from evenhand.data.pictures import check_first_pictures, data_folder
from evenhand.tasks.base import Share, Task, TaskSource
from evenhand.tasks.images.ready_made import NamedPictures, named_pictures, percent_folder, training_pictures
from evenhand.training.settings import Training
from evenhand.validation import UserError

AGES = ("young", "old")
GENDERS = ("female", "male")
FILES = (
    "it must hold 0.5pct/align, 0.5pct/conflict, valid and test, as in bffhq.zip linked from "
    "https://github.com/kakaoenterprise/Learning-Debiased-Disentangled (a download by hand)."
)


@dataclass(frozen=True, kw_only=True)
class BFFHQ(TaskSource):
    """Faces of FFHQ: 19,200 train, of which 0.5 % conflict, 1,000 validation, 1,000 test.

    Files are named ID_AGE_GENDER.png, with 0 and 1 only. That 0 is young and female is taken from the literature, which
    calls young women and old men aligned; were both the other way round, names would change and no number.

    Tests: `unbiased`, all test pictures (half of them conflicting), and `conflicting`, those alone. Papers report one
    or the other without always saying so: it is the difference between an ERM of about 77.8 and of 56.9 %.

    Attributes:
        conflict: Share of conflicting training pictures: the folder to read, 0.5pct for 0.005.
        primary: Which test set heads reports: `unbiased` (as in PGD's paper) or `conflicting` (as in DFA's).
        data_dir: Folder of 0.5pct, valid and test. The files are on no hub that is known to us.
    """

    conflict: Share = 0.005
    primary: Literal["unbiased", "conflicting"] = "unbiased"
    data_dir: Path | str | None = None

    name = "bffhq"
    summary = "young or old faces, whose gender leaks the age (pictures in --data-dir)"
    origin = "Biased FFHQ (Kim et al. 2021, BiaSwap), distributed with DFA (Lee et al. 2021); from FFHQ"
    licence = "CC BY-NC-SA 4.0 (FFHQ; single pictures have their own)"
    files = FILES
    bias = "nearly all young faces in training are women's and nearly all old ones men's"
    metric = (
        "accuracy on all 1,000 test pictures (`unbiased`) or on the 500 conflicting ones (`conflicting`): papers differ"
    )
    default_model = "microsoft/resnet-18"
    training: ClassVar[dict[str, Training]] = {
        # DFA's released learning rate (1e-4) and batch; it trains from scratch for 50,000 steps (from memory)
        "microsoft/resnet-18": Training(epochs=100, lr=1e-4, batch_size=64),
        "small-resnet": Training(epochs=100, lr=1e-4, batch_size=64),
    }

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """Published sizes, which for train are known of 0.5 % only."""
        train = {"train": {"n": 19_200, "conflicting": 96}} if self.conflict == 0.005 else {}
        tests = {"unbiased": {"n": 1_000, "conflicting": 500}, "conflicting": {"n": 500}}
        return {**train, "validation": {"n": 1_000}, **tests}

    def read_paths(self, folder: Path) -> list[Path]:
        """The pictures of train, valid and test."""
        return [Path(path) for part in self._parts(folder).values() for path in part.paths]

    def build(self, data_seed: int) -> Task:
        """Build the splits, which no seed changes."""
        if self.data_dir is None:
            raise UserError(f"The task '{self.name}' needs a folder with --data-dir: {FILES}")
        root = data_folder(self.data_dir, FILES)
        parts = self._parts(root)
        test = parts["unbiased"]
        parts["conflicting"] = test.take(np.flatnonzero(test.label_N != test.attribute_N))
        splits = {name: _split(root, part) for name, part in parts.items()}
        check_first_pictures(splits)
        train = parts["train"]
        differ = int((train.label_N != train.attribute_N).sum())
        tests = dict.fromkeys((self.primary, "unbiased", "conflicting"))  # the primary test set comes first
        note = (
            f"{differ:,} of {len(train.paths):,} training pictures conflict; the primary test set holds "
            f"{'all' if self.primary == 'unbiased' else 'the conflicting'} test pictures"
            f"{'' if self.primary == 'unbiased' else ' only'}."
        )
        return self.task({name: splits[name] for name in ("train", "validation", *tests)}, [note])

    def _parts(self, root: Path) -> dict[str, NamedPictures]:
        numbers = len(AGES), len(GENDERS), FILES
        return {
            "train": training_pictures(root / percent_folder(self.conflict), *numbers),
            "validation": named_pictures(root / "valid", *numbers),
            "unbiased": named_pictures(root / "test", *numbers),
        }


def _split(root: Path, pictures: NamedPictures) -> datasets.Dataset:
    return split_of(
        {
            "image": picture_column(pictures.paths),
            **crossed_columns(pictures.label_N, pictures.attribute_N, AGES, GENDERS),
            "id": text_column([Path(path).relative_to(root).as_posix() for path in pictures.paths]),
        }
    )
