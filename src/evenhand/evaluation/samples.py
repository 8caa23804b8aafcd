"""Samples of the primary test set as a report shows them, and all predictions of it, by which a run is compared.

Legend: N samples of the test set.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from evenhand.data.columns import TEXT_COLUMNS, column_values, membership
from evenhand.data.decoding import decoded, undecoded
from evenhand.evaluation.measured import SplitResult
from evenhand.shortcuts import STANDINGS
from evenhand.tasks.base import Task
from evenhand.wording import clipped

SHOWN_CONFLICTING = 10  # evenly over the classes
SHOWN_ALIGNED = 2
THUMBNAIL = 96  # pixels of the longer side of a picture as samples show it
LONGEST_TEXT = 300  # characters of a text that is kept
LONGEST_ID = 80
KEPT = {"text": 200, "image": 50}
"""Of so many wrong predictions the text or a small picture is kept, on conflicting samples and again on the others."""
KEPT_SIDE = 64  # pixels of the longer side of such a picture


def sample_predictions(task: Task, result: SplitResult) -> list[dict[str, Any]]:
    """A few samples with their prediction: the same ones for every model on equal data.

    Args:
        task: The task.
        result: What the model reached on its primary test set.
    """
    label_N, alignment = column_values(_test(task), "labels"), membership(_test(task), "alignment")
    chosen: list[int] = []
    for name, number in (("conflicting", SHOWN_CONFLICTING), ("aligned", SHOWN_ALIGNED)):
        candidates = np.flatnonzero(alignment[name]) if name in alignment else np.arange(len(label_N))
        chosen += _class_by_class(candidates, label_N, number)
    rows = list(dict.fromkeys(chosen))
    named = all_predictions(task, result).iloc[rows].to_dict("records")
    return [
        {name: _plain(entry.get(name)) for name in ("index", "label", "attribute", "prediction")}
        | {"alignment": _plain(entry["standing"])}
        | {name: known for name in ("id", "where", "probability") if (known := _plain(entry.get(name))) is not None}
        | shown
        for entry, shown in zip(named, _inputs(task, rows, THUMBNAIL), strict=True)
    ]


def all_predictions(task: Task, result: SplitResult) -> pd.DataFrame:
    """A row a sample: `index`, and `id` where the data have one of their own.

    Of the user's own data `file`, `row`, `line` and `where` follow. Behind them stand `label`, `prediction`, its
    `probability`, and what is known of `attribute` and `standing`.
    """
    test = _test(task)
    names = np.array(test.features["labels"].names, dtype=object)
    columns: dict[str, Any] = {"index": column_values(test, "index")}
    origins = None if task.origins is None else task.origins(task.primary_test)
    ids = [None if name is None else str(name) for name in test["id"][:]] if "id" in test.column_names else []
    if ids and (origins is None or not origins.are_names(ids)):
        columns["id"] = [name and name[:LONGEST_ID] for name in ids]
    if origins is not None:
        columns |= origins.columns() | {"where": [origins.where(i) for i in range(len(test))]}
    columns |= {"label": names[column_values(test, "labels")], "prediction": names[result.predicted_N]}
    columns["probability"] = np.full(len(test), np.nan, np.float32) if result.sure_N is None else result.sure_N
    attributes = membership(test, "attribute")
    if attributes:
        columns["attribute"] = _named(attributes, len(test))
    columns["standing"] = _standing(task)
    return pd.DataFrame(columns)


def kept_predictions(task: Task, result: SplitResult) -> pd.DataFrame:
    """All predictions, with `text` and `text_pair`, or `png` (base64), of the first wrong ones.

    What one of two models gets right and the other wrong is among what the other gets wrong: so these are what a
    comparison of two runs shows, and a run keeps no copy of its data.
    """
    found = all_predictions(task, result).drop(columns=["where", "attribute"], errors="ignore")
    wrong_N = (found["label"] != found["prediction"]).to_numpy()
    against_N = (found["standing"] == "conflicting").to_numpy()
    sides = [np.flatnonzero(wrong_N & side_N)[: KEPT[task.kind]] for side_N in (against_N, ~against_N)]
    rows = np.sort(np.concatenate(sides))
    shown = _inputs(task, rows.tolist(), KEPT_SIDE)
    for name in TEXT_COLUMNS if task.kind == "text" else ("png",):
        if name == "png" or name in _test(task).column_names:
            column = np.full(len(found), None, dtype=object)
            column[rows] = [entry[name] for entry in shown]
            found[name] = column
    return found


def _test(task: Task) -> datasets.Dataset:
    return task.tests[task.primary_test]


def _class_by_class(candidates: NDArray[np.int64], label_N: NDArray[np.int64], number: int) -> list[int]:
    """The first of each class, then the second of each, and so on; as many as there are, up to `number`."""
    turns = pd.Series(label_N[candidates]).groupby(label_N[candidates]).cumcount().to_numpy()
    return [int(row) for row in candidates[np.lexsort((label_N[candidates], turns))][:number]]


def _named(known: Mapping[str, NDArray[np.bool_]], size: int) -> NDArray[Any]:
    named_N = np.full(size, None, dtype=object)
    for name, member_N in known.items():
        named_N[member_N] = name
    return named_N


def _standing(task: Task) -> NDArray[Any]:
    """How each sample stands to the shortcut, of the data or named: None where that isn't known."""
    test = _test(task)
    standing_N = _named(membership(test, "alignment"), len(test))
    if task.shortcuts is not None:
        independent_N = task.shortcuts.standing(task.primary_test) == STANDINGS.index("independent")
        standing_N[independent_N & pd.isna(standing_N)] = "independent"
    return standing_N


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return None if value is pd.NA else value


# ---- texts and pictures ---------------------------------------------------------------------------------------------


def _inputs(task: Task, rows: Sequence[int], side: int) -> list[dict[str, Any]]:
    """Of each row `png`, base64, or else `text` and perhaps `text_pair`, cut."""
    chosen = _test(task).select(rows)
    if task.kind == "image":
        stored: Any = undecoded(chosen)
        return [{"png": _png(picture_of(row), side if "image" in row else None)} for row in stored]
    columns = [name for name in TEXT_COLUMNS if name in chosen.column_names]
    texts = chosen.select_columns(columns).to_list()
    return [
        {"png": None} | {name: None if text is None else clipped(text, LONGEST_TEXT) for name, text in row.items()}
        for row in texts
    ]


def picture_of(row: Mapping[str, Any]) -> Image.Image:
    """A row's image; the row is one of `undecoded` rows."""
    if "image" in row:
        return decoded(row["image"])
    image_CHW = np.asarray(row["pixel_values"], dtype=np.uint8)
    return Image.fromarray(image_CHW.transpose(1, 2, 0).squeeze())


def _png(picture: Image.Image, side: int | None) -> str:
    if side is not None:
        picture.thumbnail((side, side))  # so that a page of them stays small
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
