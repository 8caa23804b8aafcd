"""colored-digits: scikit-learn's real handwritten digits in leaking colours; no network, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evenhand.tasks.base import Share, Task, TaskSource
from evenhand.tasks.images.coloring import (
    PGD_NOISE,
    PGD_PALETTE,
    colored_dataset,
    draw_attributes,
    paint,
    with_wrong_labels,
)
from evenhand.training.settings import Training
from evenhand.validation import Range


@dataclass(frozen=True, kw_only=True)
class ColoredDigits(TaskSource):
    """1,797 real 8×8 digits: 1,100 train, 200 validation (both biased), 497 test.

    The split is fixed; the seed draws the colours. A colour conflicts with its digit i.i.d. with probability
    `conflict`, and is then uniform over the nine other digits' colours (PGD's recipe and palette).

    Attributes:
        conflict: Share of conflicting samples in train and validation, in [0, 1]; at 0.9 colour and digit are
            independent.
        test_conflict: Share in test.
        wrong_labels: Share of labels in train and validation that are another class, drawn uniformly, in [0, 1]. The
            colour, the group and the alignment go with the true class.
        imbalance: How many times more training images digit 0 has than digit 9, with a geometric fall between them;
            at least 1.
        share: Share of the training images that are kept, in (0, 1]; before `imbalance`.
    """

    conflict: Share = 0.02
    test_conflict: Share = 0.9
    wrong_labels: Share = 0.0
    imbalance: Annotated[float, Range(1)] = 1.0
    share: Annotated[float, Range(0, 1, low_open=True)] = 1.0

    name = "colored-digits"
    summary = "scikit-learn's handwritten digits, whose colour leaks the label (embedded, offline)"
    origin = "UCI Optical Recognition of Handwritten Digits (test part, 1,797 images), as scikit-learn ships it"
    licence = "CC BY 4.0"
    bias = "each digit has its own colour, except for the share `conflict` of training samples"
    metric = "accuracy on the 497 test images, whose colours say nothing about the digit"
    default_model = "digits-cnn"
    training: ClassVar[dict[str, Training]] = {
        "digits-cnn": Training(epochs=30, lr=1e-3, batch_size=64),
        "mlp": Training(epochs=30, lr=1e-3, batch_size=64),
    }

    def settings(self) -> dict[str, Any]:
        """The construction's settings; what spoils the data is named only where something does."""
        clean = {"wrong_labels": 0.0, "imbalance": 1.0, "share": 1.0}
        return {name: value for name, value in super().settings().items() if clean.get(name) != value}

    def expected_counts(self) -> dict[str, dict[str, int]]:
        """The fixed split; {} where training images are left out."""
        if self.imbalance != 1 or self.share != 1:
            return {}
        return {"train": {"n": 1100}, "validation": {"n": 200}, "test": {"n": 497}}

    def build(self, data_seed: int) -> Task:
        """Build the three splits; equal seeds give equal colours."""
        from sklearn.datasets import load_digits  # its import takes a second that other tasks needn't pay

        digits: Any = load_digits()
        gray_NHW = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 0–16 → 0–255
        label_N = digits.target.astype(np.int64)
        order_N = np.random.default_rng(0).permutation(len(label_N))
        bounds = {"train": (0, 1100), "validation": (1100, 1300), "test": (1300, 1797)}
        splits = {}
        for stream, (split, (start, stop)) in enumerate(bounds.items()):
            rng = np.random.default_rng([data_seed, stream])
            rows = order_N[start:stop]
            if split == "train":
                rows = self._kept(rows, label_N)
            conflict = self.test_conflict if split == "test" else self.conflict
            attribute = draw_attributes(label_N[rows], conflict, rng)
            image = paint(gray_NHW[rows], attribute, PGD_PALETTE, PGD_NOISE, rng)
            given = label_N[rows] if split == "test" else with_wrong_labels(label_N[rows], self.wrong_labels, rng)
            splits[split] = colored_dataset(image, label_N[rows], attribute, PGD_PALETTE, given)
        return self.task(splits)

    def _kept(self, row_N: NDArray[np.int64], label_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first rows of each class, as many as `share` and `imbalance` leave it; at least one."""
        kept = []
        for digit in range(10):
            members = row_N[label_N[row_N] == digit]
            wanted = len(members) * self.share * self.imbalance ** (-digit / 9)
            kept.append(members[: max(1, round(wanted))])
        return row_N[np.isin(row_N, np.concatenate(kept))]
