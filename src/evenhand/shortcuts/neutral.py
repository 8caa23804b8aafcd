"""Inputs without a shortcut: the token dropped, the picture greyed or brought to the usual brightness or contrast.

Legend: N rows, B pictures of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from evenhand.data.columns import pixel_column
from evenhand.data.decoding import decoded
from evenhand.data.measures import LUMA
from evenhand.data.rows import Rows, arrow_table
from evenhand.shortcuts.columns import entry_texts
from evenhand.shortcuts.fitted import FittedShortcut
from evenhand.shortcuts.samples import Samples
from evenhand.shortcuts.tenths import MISSING
from evenhand.shortcuts.tokens import without_tokens

_ROUNDS = 8  # in which what clipping takes off is made up for

WHY_NOT = {
    "length": "a text can't be made as long as others without changing what it says",
    "size": "pictures are scaled to one size for the model anyway, and detail that a small one lacks can't be added",
    "aspect": "a picture can't be given another shape without being cut or distorted",
    "sharpness": "detail that a blurred picture lacks can't be added",
    "file": "the model receives the picture alone, not what its file is called or holds beside it",
    "python": "what it looks at is known to its own function alone",
}
"""Kinds of shortcuts that can't be neutralised, and why."""


@dataclass(frozen=True)
class Neutral:
    """A split without the shortcut, or why there is none.

    Attributes:
        split: New rows in the same order; None where the shortcut can't be neutralised. Picture files are changed when
            a row is read and decoded, as models read it; the files and their bytes stay.
        changed_N: Which rows differ from before, shape (N,); of picture files all that are changed when they are read.
        why_not: Why there are none, as the end of a sentence after a colon; empty otherwise.
    """

    split: datasets.Dataset | None
    changed_N: NDArray[np.bool_]
    why_not: str = ""


def neutralised(fitted: FittedShortcut, samples: Samples) -> Neutral:
    """The rows of a split as they would be without the shortcut; the given ones stay as they are.

    - `token`: dropped from the texts that the shortcut looks at, in upper and lower case.
    - `colour`: the picture becomes grey, as bright as it looked.
    - `brightness`: the training rows' median. A picture that is too bright is multiplied down, one that is too dark is
      multiplied up, as a longer exposure would; where white cuts that off, all of it moves towards white.
    - `contrast`: the training rows' median; grey levels move towards or away from the picture's own mean.
    - `column`: the training rows' most frequent entry, where the column is among the rows that a model receives.

    Raises:
        UserError: If the split lacks what the shortcut looks at.
    """
    kind = fitted.rule.kind
    if kind == "token":
        return _without_tokens(fitted, samples)
    if kind == "column":
        return _at_usual_entry(fitted, samples)
    if kind in WHY_NOT:
        return _none(samples, WHY_NOT[kind])
    samples.check_pictures()
    change = PictureChange(kind, float(fitted.usual or 0.0))
    return _of_arrays(samples, change) if samples.picture == "pixel_values" else _of_files(samples, change)


@dataclass(frozen=True)
class PictureChange:
    """What is done to pixels.

    Attributes:
        kind: `colour`, `brightness` or `contrast`.
        usual: The brightness or contrast to bring them to.
        before: What was done to them before.
    """

    kind: str
    usual: float
    before: PictureChange | None = None

    def of_pixels(self, pixel_BCHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels changed; channels beyond red, green and blue stay."""
        colors = min(3, pixel_BCHW.shape[1]) if pixel_BCHW.shape[1] >= 3 else 1
        changed_BCHW = pixel_BCHW.copy()
        part_BCHW = pixel_BCHW[:, :colors].astype(np.float64)
        if self.kind == "colour":
            part_BCHW[:] = _grey(part_BCHW)
        elif self.kind == "brightness":
            part_BCHW = _brought_to_brightness(part_BCHW, self.usual)
        else:
            part_BCHW = _brought_to_contrast(part_BCHW, self.usual)
        changed_BCHW[:, :colors] = np.clip(np.rint(part_BCHW), 0, 255).astype(np.uint8)
        return changed_BCHW

    def of_picture(self, picture: Any) -> Image.Image:
        """A picture changed, in red, green and blue."""
        pixel_HWC = np.asarray(decoded(picture) if self.before is None else self.before.of_picture(picture))
        changed_CHW = self.of_pixels(pixel_HWC.transpose(2, 0, 1)[None])[0]
        return Image.fromarray(np.ascontiguousarray(changed_CHW.transpose(1, 2, 0)))

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """The columns of a batch of rows with their pictures changed, as a transform of a `datasets.Dataset`."""
        if "image" not in rows:
            return rows
        return {**rows, "image": [picture and self.of_picture(picture) for picture in rows["image"]]}


def _grey(pixel_BCHW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey levels, shape (B, 1, H, W)."""
    if pixel_BCHW.shape[1] < 3:
        return pixel_BCHW[:, :1]
    return np.einsum("c,bchw->bhw", np.asarray(LUMA), pixel_BCHW)[:, None]


def _brought_to_brightness(pixel_BCHW: NDArray[np.float64], usual: float) -> NDArray[np.float64]:
    for _ in range(_ROUNDS):
        mean_B = _grey(pixel_BCHW).mean(axis=(1, 2, 3))
        factor_B = np.divide(usual, mean_B, out=np.ones_like(mean_B), where=mean_B > 0)
        pixel_BCHW = np.minimum(255.0, pixel_BCHW * factor_B[:, None, None, None])
    mean_B = _grey(pixel_BCHW).mean(axis=(1, 2, 3))
    # what is still too dark, such as strokes on black, moves towards white
    step_B = np.clip(np.divide(usual - mean_B, 255 - mean_B, out=np.zeros_like(mean_B), where=mean_B < 255), 0, 1)
    return pixel_BCHW + (255 - pixel_BCHW) * step_B[:, None, None, None]


def _brought_to_contrast(pixel_BCHW: NDArray[np.float64], usual: float) -> NDArray[np.float64]:
    for _ in range(_ROUNDS):
        grey_B1HW = _grey(pixel_BCHW)
        mean_B = grey_B1HW.mean(axis=(1, 2, 3), keepdims=True)
        spread_B = grey_B1HW.std(axis=(1, 2, 3), keepdims=True)
        # a picture without contrast, but for rounding, has none to raise
        factor_B = np.divide(usual, spread_B, out=np.ones_like(spread_B), where=spread_B > 1e-6)
        pixel_BCHW = np.clip(mean_B + (pixel_BCHW - mean_B) * factor_B, 0, 255)
    return pixel_BCHW


def _of_arrays(samples: Samples, change: PictureChange) -> Neutral:
    rows = Rows(samples.split, ["pixel_values"])
    changed, parts = np.zeros(len(samples), dtype=bool), []
    for start in range(0, len(samples), 512):
        stop = min(start + 512, len(samples))
        before_BCHW = np.asarray(rows.__getitems__(range(start, stop))["pixel_values"])
        parts.append(change.of_pixels(before_BCHW))
        changed[start:stop] = (parts[-1] != before_BCHW).any(axis=(1, 2, 3))
    return Neutral(_replaced(samples.split, "pixel_values", pixel_column(np.concatenate(parts))[1]), changed)


def _of_files(samples: Samples, change: PictureChange) -> Neutral:
    # read and changed by the batch, when a model asks for them: new files of all pictures would fill a disk
    before: Any = samples.split.format["format_kwargs"].get("transform")
    change = replace(change, before=before if isinstance(before, PictureChange) else None)
    return Neutral(samples.split.with_transform(change), np.ones(len(samples), dtype=bool))


def _without_tokens(fitted: FittedShortcut, samples: Samples) -> Neutral:
    split, changed_N = samples.split, np.zeros(len(samples), dtype=bool)
    for place in samples.text_places(getattr(fitted.rule, "field", None)):
        before = samples.read_texts(place)
        after = [text and without_tokens(text, fitted.names) for text in before]
        changed_N |= np.array([old != new for old, new in zip(before, after, strict=True)], dtype=bool)
        split = _replaced(split, place, pa.array(after, pa.string()))
    return Neutral(split, changed_N)


def _at_usual_entry(fitted: FittedShortcut, samples: Samples) -> Neutral:
    name = getattr(fitted.rule, "field", "")
    before = samples.read_column(name)
    if name not in samples.split.column_names:
        return _none(samples, "no model receives this column")
    changed_N = entry_texts(before) != fitted.usual
    feature: Any = samples.split.features[name]
    entry = None if fitted.usual == MISSING else str(fitted.usual)
    if isinstance(feature, datasets.ClassLabel) and entry is not None:
        entry = str(feature.str2int(entry))
    held: Any = arrow_table(samples.split.select_columns(name)).column(name).type
    return Neutral(
        _replaced(samples.split, name, pa.repeat(pa.scalar(entry, pa.string()), len(samples)).cast(held)), changed_N
    )


def _replaced(split: datasets.Dataset, column: str, values: pa.Array | pa.ChunkedArray) -> datasets.Dataset:
    table = arrow_table(split)
    place = table.column_names.index(column)
    held: Any = table.schema.field(column).type
    changed = table.set_column(place, table.schema.field(column), values if values.type == held else values.cast(held))
    return datasets.Dataset(changed, info=datasets.DatasetInfo(features=split.features))


def _none(samples: Samples, why: str) -> Neutral:
    return Neutral(None, np.zeros(len(samples), dtype=bool), why)
