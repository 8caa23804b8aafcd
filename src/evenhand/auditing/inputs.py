"""Which samples have which token, and how long texts are.

Legend: N samples, V values.
"""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from evenhand.auditing.association import LEAST_COUNT
from evenhand.data.measures import OF_TEXTS
from evenhand.data.rows import arrow_table
from evenhand.shortcuts.tokens import tokens


def text_measures(split: datasets.Dataset, column: str) -> dict[str, NDArray[np.float64]]:
    """Measure → its value for each text of a column, shape (N,)."""
    texts = arrow_table(split.select_columns(column)).column(column).to_pylist()
    return {name: np.array([measure(text or "") for text in texts]) for name, measure in OF_TEXTS.items()}


def token_members(split: datasets.Dataset, column: str) -> tuple[list[str], Any]:
    """Tokens of a column on at least 20 samples but not on all, and which samples have them (sparse, (N, V))."""
    from sklearn.feature_extraction.text import CountVectorizer  # its import takes a second

    make: Any = CountVectorizer  # its stubs know neither a function as analyzer nor other dtypes
    counter = make(analyzer=tokens, binary=True, min_df=LEAST_COUNT, dtype=np.float64)
    try:
        member_NV = counter.fit_transform(arrow_table(split).column(column).to_pylist()).tocsc()
    except ValueError:  # no token is on as many samples
        return [], None
    count_V = np.diff(member_NV.indptr)
    kept = np.flatnonzero(count_V < len(split))
    names = counter.get_feature_names_out()
    return [str(names[v]) for v in kept], member_NV[:, kept]
