"""A model measured by shortcuts that have a name: who goes along and who against, and how much it relies on them.

Legend: N rows of a split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.data.columns import TEXT_COLUMNS, entries
from evenhand.shortcuts.fitted import FittedShortcut
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.shortcuts.neutral import Neutral, neutralised
from evenhand.shortcuts.samples import Samples
from evenhand.shortcuts.sides import Reliance, ShortcutMetrics, Sides, reliance

Predict = Callable[[datasets.Dataset], NDArray[np.int64]]
"""The class that a model gives each row, in the split's own numbers, shape (N,)."""

_UNREAD = "no model receives this column"


def measured_by_shortcut(
    named: NamedShortcuts, split: str, predicted_N: NDArray[np.int64], predict: Predict
) -> ShortcutMetrics:
    """Measure predictions by each shortcut, and by all together where there are several.

    Args:
        named: The shortcuts, with the rows of the split.
        split: Name of the split.
        predicted_N: The class that each row gets, in the split's own numbers, shape (N,).
        predict: Predicts rows without a shortcut once more.
    """
    found = Sides.of(named, split).measures(predicted_N)
    samples = named.rows[split].samples
    for fitted in named.fitted:
        of = found["by_shortcut"][fitted.name]
        of["reliance"], of["why_no_reliance"] = _reliance(_without([fitted], samples), predicted_N, predict)
    if "all_shortcuts" in found:
        of = found["all_shortcuts"]
        of["reliance"], of["why_no_reliance"] = _reliance(_without(named.fitted, samples), predicted_N, predict)
    return found


def _without(shortcuts: Sequence[FittedShortcut], samples: Samples) -> Neutral:
    """The rows without those of the shortcuts that can be taken out, one after another."""
    changed_N, reasons = np.zeros(len(samples), dtype=bool), []
    for fitted in shortcuts:
        # of the rows that models read, texts and pictures alone reach them
        neutral = Neutral(None, changed_N, _UNREAD) if fitted.rule.kind == "column" else neutralised(fitted, samples)
        if neutral.split is None:
            reasons.append(neutral.why_not)
            continue
        samples = samples.with_split(neutral.split)
        changed_N = changed_N | neutral.changed_N
    if len(reasons) == len(shortcuts):
        return Neutral(None, changed_N, "; ".join(dict.fromkeys(reasons)))
    return Neutral(samples.split, changed_N)


def _reliance(neutral: Neutral, predicted_N: NDArray[np.int64], predict: Predict) -> tuple[Reliance | None, str]:
    if neutral.split is None:
        return None, neutral.why_not
    row_M = np.flatnonzero(neutral.changed_N & ~_without_words(neutral.split))
    if not len(row_M):
        return reliance(predicted_N[row_M], predicted_N[row_M]), ""
    # rows that stay as they are keep their prediction, so they aren't asked again
    rows = neutral.split if len(row_M) == len(neutral.split) else neutral.split.select(row_M)
    return reliance(predicted_N[row_M], predict(rows)), ""


def _without_words(split: datasets.Dataset) -> NDArray[np.bool_]:
    """Rows of which nothing is left to read: they held the token alone."""
    columns = [entries(split, name).to_pylist() for name in TEXT_COLUMNS if name in split.column_names]
    if not columns:
        return np.zeros(len(split), dtype=bool)
    return np.array([not any((text or "").strip() for text in texts) for texts in zip(*columns, strict=True)])
