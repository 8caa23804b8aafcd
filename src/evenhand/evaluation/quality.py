"""What accuracy doesn't tell of predictions: recall and F1 over classes, the ranking by probability, and calibration.

Legend: N samples, C classes.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from evenhand.metrics import Members

BINS = 15  # of equal width, by which probabilities and shares of right predictions are compared
_DIGITS = 5


class Quality(TypedDict):
    """Measures of some samples as fractions of 1, null where undefined.

    `recall` is the mean over the classes that samples have, `f1` that over the classes that samples have or get,
    `auroc` that of the second of two classes, or the mean over the classes that samples have, each against the others.
    `ece` is the expected calibration error of the predicted class's probability, in 15 bins of equal width.
    """

    n: int
    recall: float | None
    f1: float | None
    auroc: float | None
    ece: float | None


def quality(probability_NC: NDArray[np.float64], predicted_N: NDArray[np.int64], label_N: NDArray[np.int64]) -> Quality:
    """All measures of some samples.

    Args:
        probability_NC: Probability of each class, shape (N, C).
        predicted_N: Predicted classes, shape (N,): perhaps not the most probable ones, where classes were merged.
        label_N: True classes, shape (N,).
    """
    from sklearn.metrics import f1_score, recall_score  # a second to import

    if not len(label_N):
        return Quality(n=0, recall=None, f1=None, auroc=None, ece=None)
    is_known = bool(np.isfinite(probability_NC).all())
    present = np.unique(label_N)
    return Quality(
        n=len(label_N),
        recall=_rounded(float(recall_score(label_N, predicted_N, labels=present, average="macro"))),
        f1=_rounded(float(f1_score(label_N, predicted_N, average="macro"))),
        auroc=_auroc(probability_NC, label_N, present) if is_known else None,
        ece=_ece(probability_NC, predicted_N, label_N) if is_known else None,
    )


def quality_by_group(
    probability_NC: NDArray[np.float64],
    predicted_N: NDArray[np.int64],
    label_N: NDArray[np.int64],
    groups: Members,
) -> dict[str, Quality]:
    """The same of each group."""
    return {
        name: quality(probability_NC[member_N], predicted_N[member_N], label_N[member_N])
        for name, member_N in groups.items()
    }


def _auroc(probability_NC: NDArray[np.float64], label_N: NDArray[np.int64], present: NDArray[np.int64]) -> float | None:
    from sklearn.metrics import roc_auc_score

    if len(present) < 2:
        return None
    asked = [1] if probability_NC.shape[1] == 2 else present
    return _rounded(float(np.mean([roc_auc_score(label_N == c, probability_NC[:, c]) for c in asked])))


def _ece(
    probability_NC: NDArray[np.float64], predicted_N: NDArray[np.int64], label_N: NDArray[np.int64]
) -> float | None:
    sure_N = probability_NC[np.arange(len(label_N)), predicted_N]
    bin_N = np.clip(np.ceil(sure_N * BINS).astype(np.int64) - 1, 0, BINS - 1)  # the upper end belongs to a bin
    excess_N = (predicted_N == label_N) - sure_N
    return _rounded(float(np.abs(np.bincount(bin_N, weights=excess_N)).sum() / len(label_N)))


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
