"""The samples that an audit shows: as small pictures or short texts, with what is known of them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from evenhand.data.columns import PICTURE_COLUMNS, TEXT_COLUMNS
from evenhand.data.looks import pictures
from evenhand.data.measures import Picture
from evenhand.tasks import Task

LONGEST_TEXT = 400
LONGEST_NAME = 80
SIDE = 96  # pixels of a picture's longer side


def shown_samples(task: Task, frame: pd.DataFrame, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """What a page shows of some training samples.

    Args:
        task: The task.
        frame: The audit's table, a row a training sample.
        rows: The samples, in the order to show them.

    Returns:
        For each sample its entries of the table, and `png` (base64; None where the picture can't be read) or `texts`
        (column → text, cut, with its whole length under `lengths`).
    """
    entries = [_plain(record) for record in frame.iloc[rows].to_dict("records")]
    if task.kind == "image":
        if any(name in task.train.column_names for name in PICTURE_COLUMNS):
            found = [picture for batch in pictures(task.train, rows) for picture in batch]
            for entry, picture in zip(entries, found, strict=True):
                entry["png"] = None if picture is None else _png(picture)
        return entries
    split = task.train.select_columns([name for name in TEXT_COLUMNS if name in task.train.column_names])
    for entry, texts in zip(entries, split.select(rows).to_list(), strict=True):
        whole = {name: text or "" for name, text in texts.items()}
        entry["texts"] = {name: text[:LONGEST_TEXT] for name, text in whole.items()}
        entry["lengths"] = {name: len(text) for name, text in whole.items()}
    return entries


def _plain(record: dict[Any, Any]) -> dict[str, Any]:
    """Entries as JSON has them."""
    plain: dict[str, Any] = {}
    for name, value in record.items():
        if hasattr(value, "item"):
            value = value.item()
        plain[str(name)] = None if value is pd.NA or (isinstance(value, float) and np.isnan(value)) else value
    if isinstance(plain.get("id"), str):
        plain["id"] = plain["id"][:LONGEST_NAME]
    return plain


def _png(picture: Picture) -> str:
    array_HWC = np.clip(picture.pixels_CHW, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(array_HWC[:, :, 0] if array_HWC.shape[2] < 3 else array_HWC[:, :, :3])
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
