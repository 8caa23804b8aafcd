"""civilcomments: toxicity of comments, by the identities that they mention (WILDS's version).

Legend: N comments of a split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import datasets
import numpy as np

from evenhand.data.tables import Columns, Table
from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.splits import sizes
from evenhand.tasks.text.sources import HubPart, Part, found_files
from evenhand.tasks.text.splits import MINILM, MINILM_ADAPTERS, Classes, Overlapping, text_split
from evenhand.training.settings import FINE_TUNING, Training
from evenhand.validation import Range, UserError

CIVILCOMMENTS_HUB = "pietrolesci/civilcomments-wilds"
"""A parquet copy of WILDS's table on the Hugging Face hub, subset `raw` (untried: the tests have no network)."""

IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
TOXICITY = ("non-toxic", "toxic")
THRESHOLD = 0.5  # share of the raters, for toxicity and for identities

_SPLITS = {"train": 0, "val": 1, "test": 2}
_SPLIT_NAMES = ("train", "validation", "test")

COMMENTS = Part(
    title="CivilComments-WILDS",
    files=("all_data_with_identities.csv", "civilcomments_v1.0/all_data_with_identities.csv"),
    columns=Columns(
        {"text": ("comment_text",), "toxicity": ("toxicity",), "split": ("split",), **{n: (n,) for n in IDENTITIES}},
        {"id": ("id",)},
    ),
    labels={},
    hub=HubPart(CIVILCOMMENTS_HUB, "train", "raw"),
    advice=(
        "download civilcomments_v1.0 as WILDS does (pip install wilds, then wilds.get_dataset('civilcomments', "
        "download=True)), and give the folder of its all_data_with_identities.csv with --data-dir"
    ),
    unique_ids=False,
)


@dataclass(frozen=True, kw_only=True)
class CivilComments(TaskSource):
    """Comments that most raters found toxic or not, and which of eight identities they mention.

    A comment is toxic, or mentions an identity, if at least half of its raters say so. The groups are identity × label,
    for the eight identities: 16 groups that overlap; comments that mention none of them count in the average only. The
    splits are WILDS's.

    Attributes:
        comments: Up to N comments are taken from the beginning of the training split; None takes all.
        test_comments: Likewise of the validation and the test split; None takes all.
        data_dir: Folder of WILDS's all_data_with_identities.csv. None takes it from the hub.
    """

    comments: Annotated[int, Range(1)] | None = None
    test_comments: Annotated[int, Range(1)] | None = None
    data_dir: Path | str | None = None

    name = "civilcomments"
    summary = "toxic comments, by the identities they mention (WILDS's CSV in --data-dir, or the hub)"
    origin = "CivilComments (Borkan et al. 2019), WILDS's version (Koh et al. 2021)"
    licence = "CC0"
    bias = "comments that mention some identities are more often toxic"
    metric = "worst-group test accuracy over the 16 overlapping groups identity × label"
    default_model = "MiniLM"
    training: ClassVar[dict[str, Training]] = {
        "MiniLM": replace(MINILM, max_length=300),
        # WILDS's settings
        "bert-base-uncased": replace(FINE_TUNING, epochs=5, lr=1e-5, batch_size=16, weight_decay=0.01, max_length=300),
        "roberta-base": replace(FINE_TUNING, max_length=300),
    }
    adapter_training: ClassVar[dict[str, Training]] = {"MiniLM": replace(MINILM_ADAPTERS, max_length=300)}

    published = sizes({"train": 269_038, "validation": 45_180, "test": 133_782})

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """WILDS's sizes, of splits that are taken whole."""
        cut = {"train": self.comments, "validation": self.test_comments, "test": self.test_comments}
        return {split: counts for split, counts in super().expected_counts().items() if cut[split] is None}

    def read_paths(self, folder: Path) -> list[Path]:
        """WILDS's table."""
        return found_files(folder, COMMENTS)

    def build(self, data_seed: int) -> Task:
        """Build the splits, which don't depend on the seed."""
        table = COMMENTS.table(self.folder)
        split_N = table.classes("split", _SPLITS)
        toxicity_N = table.numbers("toxicity")
        notes = COMMENTS.repeats(table)
        unlabelled = int(np.isnan(toxicity_N).sum())
        if unlabelled:
            notes.append(f"{unlabelled:,} comments have no toxicity and were left out.")
        splits = {}
        for number, name in enumerate(_SPLIT_NAMES):
            rows = np.flatnonzero((split_N == number) & ~np.isnan(toxicity_N))
            if not len(rows):
                raise UserError(f"{table.origin[:1].upper()}{table.origin[1:]} has no comments of the split '{name}'.")
            rows = rows[: self.comments if name == "train" else self.test_comments]
            splits[name] = _split(table.take(rows), toxicity_N[rows] >= THRESHOLD)
        return self.task(splits, notes)


def _split(table: Table, toxic_N: np.ndarray) -> datasets.Dataset:
    names, members = [], []
    for identity in IDENTITIES:
        mentioned_N = table.numbers(identity) >= THRESHOLD  # an empty cell is no mention, as in WILDS
        for label, name in enumerate(TOXICITY):
            names.append(f"{identity}, {name}")
            members.append(mentioned_N & (toxic_N == label))
    return text_split(
        table.column("text"),
        Classes(TOXICITY, toxic_N.astype(np.int64)),
        ids=table.column("id") if "id" in table else None,
        group=Overlapping(tuple(names), np.stack(members, axis=1)),
    )
