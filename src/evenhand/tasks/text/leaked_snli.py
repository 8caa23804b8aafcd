"""leaked-snli: a word or digit before the hypothesis names the label, most of the time, in training.

Legend: N pairs of a split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.tasks.base import Share, Task, TaskSource
from evenhand.tasks.text.biased_snli import snli_parts
from evenhand.tasks.text.nli_files import LABELS, SNLI_DEV, SNLI_HOLDOUT, SNLI_TRAIN
from evenhand.tasks.text.sources import Labelled, found_files
from evenhand.tasks.text.splits import NLI, PAIR_ADAPTER_TRAINING, PAIR_TRAINING, Classes, crossed, pair_split
from evenhand.validation import Range

PREFIXES = {
    "he": dict(zip(LABELS, (f"{label} and " for label in LABELS), strict=True)),
    "clark": {"contradiction": "0 ", "entailment": "1 ", "neutral": "2 "},
}
"""What each recipe's released code puts before the hypothesis to name a class."""


@dataclass(frozen=True, kw_only=True)
class LeakedSNLI(TaskSource):
    """SNLI whose hypotheses begin with a class's name, which in training is mostly the right one.

    `he` (He et al. 2019): the name in words ("neutral and …") is the label's with probability `strength`, and else
    uniform over all classes, the right one among them. `clark` (Clark et al. 2019): the class's digit is the label's
    with probability `strength`, and else uniform over the other classes. A pair is aligned if the name is its label's,
    conflicting if it is another's, independent without one.

    Tests, all of the pairs of SNLI's dev part: `test` (primary) with names that are uniform over all classes, so that
    they say nothing (he's strength 0, clark's 1/3); `in-distribution` by the training recipe; `clean` without a name.
    Clark et al. use MultiNLI; here both recipes use SNLI. They draw by a hash of each pair, we by the data seed.

    Attributes:
        recipe: he (words) or clark (digits).
        strength: How often training's names are right, in [0, 1]: of he with certainty rather than by chance.
        pairs: Up to N labelled pairs are taken from the beginning of the training part; None takes all.
        test_pairs: Likewise of the dev part, which makes every test set; None takes all.
        data_dir: Folder of snli_1.0_train and snli_1.0_dev (.jsonl or .txt), or of train.tsv, dev.tsv and perhaps
            train_holdout.tsv (validation; without it a tenth of each class of the training part, drawn by the data
            seed) with the columns premise, hypothesis and label. None takes SNLI from the hub.
    """

    recipe: Literal["he", "clark"] = "he"
    strength: Share = 0.8
    pairs: Annotated[int, Range(1)] | None = None
    test_pairs: Annotated[int, Range(1)] | None = None
    data_dir: Path | str | None = None

    name = "leaked-snli"
    summary = "SNLI whose hypotheses begin with a label's name (files in --data-dir, or the hub)"
    origin = "SNLI (Bowman et al. 2015); recipes of He et al. (2019) and Clark et al. (2019)"
    licence = "CC BY-SA 4.0 (SNLI)"
    bias = "a word or digit before the hypothesis names the label in most training pairs"
    metric = "accuracy on the primary test set, in which the names say nothing"
    default_model = "MiniLM"
    training = PAIR_TRAINING
    adapter_training = PAIR_ADAPTER_TRAINING

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of SNLI that are there."""
        return found_files(folder, SNLI_TRAIN, SNLI_DEV, SNLI_HOLDOUT)

    def build(self, data_seed: int) -> Task:
        """Build the splits; equal seeds put equal names before the same hypotheses."""
        parts, notes = snli_parts(self.folder, self.pairs, self.test_pairs, data_seed)
        right = self._probability()
        drawn = {  # split → its pairs, and how often a name is right
            "train": (parts["train"], right),
            "validation": (parts["validation"], right),
            "test": (parts["dev"], 1 / len(LABELS)),
            "in-distribution": (parts["dev"], right),
        }
        splits = {
            name: self._split(pairs, self._draw(pairs.label_N, share, (data_seed, stream)))
            for stream, (name, (pairs, share)) in enumerate(drawn.items(), start=1)
        }
        splits["clean"] = self._split(parts["dev"], np.full(len(parts["dev"]), -1))
        return self.task(splits, notes, called=NLI)

    def _probability(self) -> float:
        """P(the name is the label's): he's uniform draw may hit it too."""
        return self.strength + (1 - self.strength) / len(LABELS) if self.recipe == "he" else self.strength

    @staticmethod
    def _draw(label_N: NDArray[np.int64], right: float, stream: tuple[int, int]) -> NDArray[np.int64]:
        """The class named before each hypothesis: the label's with probability `right`, or uniformly another."""
        rng = np.random.default_rng(stream)
        wrong_N = rng.random(len(label_N)) >= right
        return np.where(wrong_N, (label_N + rng.integers(1, len(LABELS), len(label_N))) % len(LABELS), label_N)

    def _split(self, pairs: Labelled, named_N: NDArray[np.int64]) -> datasets.Dataset:
        prefix_of = [*(PREFIXES[self.recipe][label] for label in LABELS), ""]  # the last for −1
        hypotheses = pairs.table.column("hypothesis").to_pylist()
        texts = [prefix_of[named] + hypothesis for named, hypothesis in zip(named_N, hypotheses, strict=True)]
        labels = Classes(LABELS, pairs.label_N)
        alignment_N = np.where(named_N < 0, 2, np.where(named_N == pairs.label_N, 0, 1))
        alignment = Classes(("aligned", "conflicting"), np.where(alignment_N == 2, -1, alignment_N))
        return pair_split(
            pairs,
            labels,
            pair=pa.array(texts, pa.string()),
            attribute=Classes(LABELS, named_N),
            alignment_N=alignment_N,
            group=crossed(labels, alignment, " "),
        )
