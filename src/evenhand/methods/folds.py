"""Biased models that are asked about samples they haven't seen, so not about what they know by heart.

Legend: N training samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import nn

from evenhand.methods.base import OneStage, Run
from evenhand.validation import UserError


def check_folds(title: str, run: Run, folds: int) -> None:
    """Raise `UserError` where there are fewer training samples than parts."""
    samples = len(run.parts(folds))
    if samples < folds:
        raise UserError(f"{title} with folds={folds} needs as many training samples. Got {samples}.")


def biased_folds(
    run: Run, method: OneStage, folds: int, *, augment: bool = False
) -> Iterator[tuple[nn.Module, NDArray[np.bool_]]]:
    """Train a model on all but one of `folds` random parts, for each part.

    Args:
        run: Trains and keeps the stages `biased-1`, `biased-2`, …
        method: What they are trained with.
        folds: How many parts, at least 2.
        augment: Whether training images are augmented.

    Yields:
        Each model and the samples that it didn't see, shape (N,).
    """
    part_N = run.parts(folds)
    # an epoch has N draws however few samples they are drawn from
    epochs = math.ceil(run.epochs * (folds - 1) / folds)
    for k in range(folds):
        model = run.train(f"biased-{k + 1}", method, only=part_N != k, epochs=epochs, augment=augment)
        yield model, part_N == k
