"""What a built task holds: a few samples, a sheet of its pictures, pictures that can't be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evenhand.data.columns import membership
from evenhand.data.decoding import PictureError, decoded, undecoded
from evenhand.data.origins import Origins
from evenhand.evaluation.samples import picture_of
from evenhand.files import check_place, whole_file
from evenhand.tasks.base import Task
from evenhand.validation import UserError

_BATCH = 256  # pictures read at a time
_SHOWN_TEXT = 160  # characters of a text that is shown
_PER_SPLIT, _PER_ROW = 24, 8
_THUMB, _CAPTION = 112, 30  # pixels


def unreadable(split: datasets.Dataset) -> Iterator[str | None]:
    """For each picture of a split None, or what is wrong with it; nothing for other splits."""
    if "image" not in split.column_names:
        return
    stored = undecoded(split.select_columns(["image"]))
    for start in range(0, len(split), _BATCH):
        for picture in stored[start : start + _BATCH]["image"]:
            try:
                decoded(picture)
            except PictureError as error:
                yield f"{picture['path'] or 'a picture of the hub'} ({error.reason})"
            else:
                yield None


def sample_lines(split: datasets.Dataset, count: int, origins: Origins | None = None) -> list[str]:
    """The first samples of a split: label, attribute and alignment, text or picture's size, id, and where they lie."""
    rows = undecoded(split)
    lines = [_sample_line(split, rows[i]) for i in range(min(count, len(split)))]
    return lines if origins is None else [f"{line} · {origins.where(i)}" for i, line in enumerate(lines)]


def write_contact_sheet(task: Task, path: Path) -> None:
    """Write a PNG of some pictures of train and of the primary test set, from each group in turn.

    Raises:
        UserError: If the task has texts, or the file isn't to be a PNG or can't be written.
    """
    if task.kind != "image":
        raise UserError(f"The task '{task.name}' has texts, so there is no sheet of pictures: leave --samples out.")
    if path.suffix.lower() != ".png":
        raise UserError(f"The file given as --samples must end in .png. Got '{path}'.")
    check_place(path)
    blocks = [_block(f"{name}:", task.splits[name]) for name in ("train", task.primary_test)]
    sheet = Image.new("RGB", (_PER_ROW * _THUMB, sum(block.height for block in blocks)), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    with whole_file(path) as partial:
        sheet.save(partial, format="PNG")


def _sample_line(split: datasets.Dataset, row: dict[str, Any]) -> str:
    parts = [f"{row['index']}: {_named(split, row, 'labels')}"]
    parts += [value for name in ("attribute", "alignment") if (value := _named(split, row, name))]
    if "text" in row:
        texts = [row["text"], row.get("text_pair")]
        parts.append(" ‖ ".join(_shortened(text) for text in texts if text is not None))
    else:
        picture = picture_of(row)
        parts.append(f"{picture.width}×{picture.height} pixels")
    return " · ".join([*parts, str(row["id"])] if row.get("id") is not None else parts)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"


def _named(split: datasets.Dataset, row: dict[str, Any], column: str) -> str:
    feature: Any = split.features.get(column)
    if feature is None or row[column] is None:
        return ""
    return feature.int2str(row[column])


def _block(title: str, split: datasets.Dataset) -> Image.Image:
    """A title and rows of captioned pictures."""
    rows, stored = _rows_of_each_group(split), undecoded(split)
    lines = -(-len(rows) // _PER_ROW)
    block = Image.new("RGB", (_PER_ROW * _THUMB, _CAPTION + lines * (_THUMB + _CAPTION)), "white")
    draw, font = ImageDraw.Draw(block), ImageFont.load_default()
    draw.text((4, 8), title, fill="black", font=font)
    for place, index in enumerate(rows):
        row = stored[int(index)]
        left, top = place % _PER_ROW * _THUMB, _CAPTION + place // _PER_ROW * (_THUMB + _CAPTION)
        picture = picture_of(row)
        scale = (_THUMB - 4) / max(picture.size)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        sharp = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
        block.paste(picture.resize(size, sharp), (left + 2, top + 2))
        caption = f"{_named(split, row, 'labels')}\n{_named(split, row, 'attribute')}"
        draw.text((left + 4, top + _THUMB), caption, fill="black", font=font, spacing=1)
    return block


def _rows_of_each_group(split: datasets.Dataset) -> list[int]:
    """Up to 24 rows: the first of each group, then the second of each, …; the first rows where no group is known."""
    groups = [np.flatnonzero(member_N) for member_N in membership(split, "group").values()]
    chosen: dict[int, None] = {}
    for turn in range(max((len(rows) for rows in groups), default=0)):
        for rows in groups:
            if turn < len(rows):
                chosen[int(rows[turn])] = None
        if len(chosen) >= _PER_SPLIT:
            break
    return (list(chosen) or list(range(len(split))))[:_PER_SPLIT]
