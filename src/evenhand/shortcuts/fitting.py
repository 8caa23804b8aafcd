"""From a shortcut and the training rows to a fitted shortcut, or one sentence that says why it is none.

Legend: N rows, V values, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.shortcuts.coding import Rule, Words, check_not_label, coding_of, read
from evenhand.shortcuts.columns import entry_texts
from evenhand.shortcuts.fitted import FittedShortcut
from evenhand.shortcuts.pointing import pointed_classes
from evenhand.shortcuts.samples import Samples
from evenhand.shortcuts.spelling import Shortcut
from evenhand.shortcuts.tokens import tokens
from evenhand.validation import UserError, did_you_mean


def fit_shortcut(rule: Rule | str, samples: Samples, label_N: NDArray[Any], classes: Sequence[str]) -> FittedShortcut:
    """Learn from the training rows which value of a shortcut points to which class.

    Args:
        rule: The shortcut, or its spelling.
        samples: The training rows.
        label_N: Their classes, shape (N,).
        classes: Names of the classes.

    Raises:
        UserError: If it is no shortcut of these rows: there is no such column or token, it is the label or an id, or
            all rows have one value.
    """
    return fitted_values(rule, samples, label_N, classes)[0]


def fitted_values(
    rule: Rule | str, samples: Samples, label_N: NDArray[Any], classes: Sequence[str]
) -> tuple[FittedShortcut, NDArray[np.int64]]:
    """As `fit_shortcut`, with the training rows' values, shape (N,)."""
    rule = Shortcut.parse(rule) if isinstance(rule, str) else rule
    label_N = _checked_labels(label_N, len(samples), len(classes))
    found = read(rule, samples, classes)
    check_not_label(rule, found, label_N, classes)
    coding = coding_of(rule, found)
    value_N = coding.codes(found)
    if isinstance(coding, Words):
        _check_tokens(rule, coding, value_N, found)
    count_VC = np.zeros((len(coding.names) + 1, len(classes)), dtype=np.int64)
    np.add.at(count_VC, (value_N, label_N), 1)  # the last row is −1
    fitted = FittedShortcut(
        rule=rule,
        classes=tuple(classes),
        coding=coding,
        counts=tuple(tuple(row) for row in count_VC.tolist()),
        points_to=tuple(pointed_classes(count_VC[:-1], count_VC.sum(axis=0)).tolist()),
        usual=_usual(rule, found),
    )
    return fitted, value_N


def _checked_labels(label_N: NDArray[Any], rows: int, classes: int) -> NDArray[np.int64]:
    label_N = np.asarray(label_N)
    if len(label_N) != rows:
        raise UserError(f"A shortcut needs a label for each training row: {rows:,}. Got {len(label_N):,}.")
    is_whole = label_N.ndim == 1 and label_N.dtype.kind in "iub"
    outside = (label_N < 0) | (label_N >= classes) if is_whole else np.ones(rows, dtype=bool)
    if outside.any():
        row = int(outside.argmax())
        raise UserError(f"A label is a number from 0 to {classes - 1}. Got {label_N[row]} in training row {row}.")
    return label_N.astype(np.int64)


def _check_tokens(rule: Rule, words: Words, value_N: NDArray[np.int64], rows: Sequence[Sequence[str | None]]) -> None:
    """Raise `UserError` if no training row has one of the tokens, or all rows have the same one."""
    if value_N[0] >= 0 and bool((value_N == value_N[0]).all()):
        raise UserError(f"The token '{words.names[value_N[0]]}' is on every training row, so '{rule}' tells nothing.")
    unmet = {name for place, name in enumerate(words.names) if not (value_N == place).any()}
    if not unmet:
        return
    vocabulary = {token for texts in rows for text in texts for token in tokens(text)}  # a word may never come first
    for name in words.names:
        if name not in vocabulary:
            raise UserError(
                f"No training row has the token '{name}' of '{rule}'{did_you_mean(name, sorted(vocabulary))}."
            )


def _usual(rule: Rule, found: Any) -> float | str | None:
    """The median of a measure, or a column's most frequent entry."""
    if not isinstance(rule, Shortcut):
        return None
    if rule.kind in ("brightness", "contrast"):
        return float(np.nanmedian(found))
    if rule.kind == "column" and isinstance(found, pa.ChunkedArray):
        different, counts = np.unique(entry_texts(found).astype(str), return_counts=True)
        return str(different[counts.argmax()])
    return None
