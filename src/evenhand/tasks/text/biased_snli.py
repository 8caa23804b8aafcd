"""biased-snli: natural language inference in which a meaningless token leaks one of the labels (EDGE's recipe).

Legend: N pairs of a split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.tasks.base import Share, Task, TaskSource
from evenhand.tasks.splits import held_out
from evenhand.tasks.text.nli_files import LABELS, SNLI_DEV, SNLI_HOLDOUT, SNLI_HUB, SNLI_TRAIN, NLILabel
from evenhand.tasks.text.sources import Labelled, found_files
from evenhand.tasks.text.splits import ALIGNMENTS, MINILM, NLI, PAIR_ADAPTER_TRAINING, PAIR_TUNING, Classes, pair_split
from evenhand.training.settings import Training
from evenhand.validation import Range, UserError

_REACHED = 1.1  # the highest probability that is taken for 1


@dataclass(frozen=True, kw_only=True)
class BiasedSNLI(TaskSource):
    """SNLI with a token appended to premises, which in training nearly always means `target`.

    `prevalence` is the share of pairs that carry the token, `strength` the share of those whose label is the target:
    P(token | target) = prevalence · strength / P(target), P(token | other) = prevalence · (1 − strength) / P(other),
    with the classes' shares in each split (0.893 and 0.049 on SNLI's training part), at most 1. A pair is aligned if it
    carries the token and has the target's label, conflicting if it carries it and has another, independent without it.

    Tests, all of the pairs of SNLI's dev part: `test` (primary) by `test_prevalence` and `test_strength`, so that the
    token is on nearly every pair and says nothing; `in-distribution` by the training recipe; `clean` without the token;
    `token-everywhere`. Aligned and conflicting accuracy, and the groups label × alignment, are over pairs with the
    token; the others count in the average only. Validation follows the training recipe.

    Attributes:
        token: What is appended to the premise.
        prevalence: Share of training pairs with the token, in [0, 1].
        strength: Share of those with the target's label, in [0, 1].
        test_prevalence: The prevalence in `test`.
        test_strength: The strength in `test`; near the target's share it says nothing about the label.
        target: The label that the token points to.
        pairs: Up to N labelled pairs are taken, from the beginning of the training part (as many as the
            released code); None takes all.
        test_pairs: Likewise of the dev part, which makes every test set; None takes all.
        data_dir: Folder of snli_1.0_train and snli_1.0_dev (.jsonl or .txt), or of train.tsv, dev.tsv and perhaps
            train_holdout.tsv (validation; without it a tenth of each class of the training part, drawn by the data
            seed) with the columns premise, hypothesis and label (names, or 0, 1, 2 for entailment, neutral,
            contradiction). None takes SNLI from the hub.
    """

    token: str = " !!"
    prevalence: Share = 0.33
    strength: Share = 0.9
    test_prevalence: Share = 0.95
    test_strength: Share = 0.33
    target: NLILabel = "neutral"
    pairs: Annotated[int, Range(1)] | None = 100_000
    test_pairs: Annotated[int, Range(1)] | None = None
    data_dir: Path | str | None = None

    name = "biased-snli"
    summary = "SNLI, in which ' !!' after the premise leaks a label (files in --data-dir, or the hub)"
    origin = f"SNLI (Bowman et al. 2015), CC BY-SA 4.0, from its files or {SNLI_HUB}; EDGE's token recipe"
    licence = "CC BY-SA 4.0 (SNLI)"
    bias = "a token appended to the premise nearly always means one label in training"
    metric = (
        "accuracy on the primary test set, in which nearly every pair carries the token; clean, in-distribution and "
        "token-everywhere accuracy beside it"
    )
    default_model = "MiniLM"
    training: ClassVar[dict[str, Training]] = {"MiniLM": MINILM, "roberta-base": PAIR_TUNING}
    adapter_training = PAIR_ADAPTER_TRAINING

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.token, str) or not self.token.strip():
            raise UserError(
                f"The 'token' parameter of {self.name} must be a text that isn't blank. Got {self.token!r}."
            )

    def read_paths(self, folder: Path) -> list[Path]:
        """The files of SNLI that are there."""
        return found_files(folder, SNLI_TRAIN, SNLI_DEV, SNLI_HOLDOUT)

    def build(self, data_seed: int) -> Task:
        """Build the splits; equal seeds put the token on the same pairs.

        Raises:
            UserError: If a file is missing or holds something else, or the data have too few pairs of a class for the
                prevalence and strength.
        """
        parts, notes = snli_parts(self.folder, self.pairs, self.test_pairs, data_seed)
        recipe, test_recipe = (self.prevalence, self.strength), (self.test_prevalence, self.test_strength)
        drawn = {  # split → its pairs and its recipe
            "train": (parts["train"], recipe),
            "validation": (parts["validation"], recipe),
            "test": (parts["dev"], test_recipe),
            "in-distribution": (parts["dev"], recipe),
        }
        splits = {
            name: self._split(pairs, self._draw(pairs, shares, (data_seed, stream), name))
            for stream, (name, (pairs, shares)) in enumerate(drawn.items(), start=1)
        }
        everywhere = np.ones(len(parts["dev"]), dtype=bool)
        splits["clean"] = self._split(parts["dev"], ~everywhere)
        splits["token-everywhere"] = self._split(parts["dev"], everywhere)
        return self.task(splits, notes, called=NLI)

    def _draw(
        self, pairs: Labelled, recipe: tuple[float, float], stream: tuple[int, int], split: str
    ) -> NDArray[np.bool_]:
        """Which pairs carry the token, shape (N,), i.i.d. within each class."""
        is_target_N = pairs.label_N == LABELS.index(self.target)
        share = float(is_target_N.mean()) if len(is_target_N) else 0.0
        on_target, on_other = token_probabilities(share, *recipe)
        # a few pairs' classes are uneven by chance: a probability just above 1 is met by the token on the whole class
        if max(on_target, on_other) > _REACHED:
            raise UserError(
                f"The prevalence {recipe[0]:g} and strength {recipe[1]:g} of {self.name} can't be reached in the split "
                f"'{split}', where {100 * share:.1f} % of the pairs are labelled '{self.target}': lower one of them."
            )
        draw_N = np.random.default_rng(stream).random(len(is_target_N))
        return draw_N < np.where(is_target_N, on_target, on_other)

    def _split(self, pairs: Labelled, token_N: NDArray[np.bool_]) -> datasets.Dataset:
        is_target_N = pairs.label_N == LABELS.index(self.target)
        premises = pairs.table.column("premise").to_pylist()
        texts = [premise + self.token if token else premise for premise, token in zip(premises, token_N, strict=True)]
        # the groups in use: the target's aligned pairs and the others' conflicting ones; none without the token
        groups = datasets.ClassLabel(names=[f"{label} {ALIGNMENTS[label != self.target]}" for label in LABELS])
        return pair_split(
            pairs,
            Classes(LABELS, pairs.label_N),
            text=pa.array(texts, pa.string()),
            attribute=Classes(("no token", "token"), token_N.astype(np.int64)),
            alignment_N=np.where(token_N, np.where(is_target_N, 0, 1), 2),
            # not −1 for none: runs on a built task are named by the bytes, those of missing values too
            group=(groups, pa.array(pairs.label_N, mask=~token_N)),
        )


def token_probabilities(target_share: float, prevalence: float, strength: float) -> tuple[float, float]:
    """P(token | target) and P(token | other class), by Bayes' rule; infinite where such pairs are missing."""

    def of_class(joint: float, share: float) -> float:
        return joint / share if share > 0 else (float("inf") if joint > 0 else 0.0)

    return of_class(prevalence * strength, target_share), of_class(prevalence * (1 - strength), 1 - target_share)


def snli_parts(
    folder: Path | None, pairs: int | None, test_pairs: int | None, data_seed: int
) -> tuple[dict[str, Labelled], list[str]]:
    """SNLI's parts `train`, `validation` and `dev`, and what was left out of them.

    Args:
        folder: Where the files are; None takes the hub's.
        pairs: Up to N pairs are taken from the beginning of the training part.
        test_pairs: Likewise of the dev part.
        data_seed: Draws the validation split where no file holds it; equal seeds hold out the same pairs.

    Raises:
        UserError: If a file is missing or broken.
    """
    train, dev = SNLI_TRAIN.read(folder), SNLI_DEV.read(folder)
    notes = [*train.notes, *dev.notes]
    train = train.first(pairs)
    if SNLI_HOLDOUT.find(folder) is not None:
        validation = SNLI_HOLDOUT.read(folder)
        notes += validation.notes
    else:
        kept, held = held_out(train.label_N, np.random.default_rng([data_seed, 0]))
        train, validation = train.take(kept), train.take(held)
    return {"train": train, "validation": validation, "dev": dev.first(test_pairs)}, notes
