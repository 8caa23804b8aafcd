"""What shortcuts read of a split: texts, pictures, and further columns.

Legend: N rows, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evenhand.data.columns import (
    PICTURE_COLUMNS,
    TEXT_COLUMNS,
    Column,
    dataset_of,
    entries,
    picture_column,
    pixel_column,
    text_column,
)
from evenhand.data.looks import Looks, looks
from evenhand.data.rows import Rows
from evenhand.shortcuts.spelling import list_hint
from evenhand.validation import UserError, did_you_mean

RESERVED = {
    "labels": "the label",
    "index": "the number of the row",
    "id": "the name of the row",
    "group": "the group",
    "alignment": "the group",
}
"""Columns of a task's splits that are no shortcut, and what they are."""

_NAMED = 20  # columns, in a sentence
_ROWS = 1000  # that a function is given at a time


class NotToldError(UserError):
    """A split of which a shortcut tells nothing: it lacks what the shortcut looks at, or has none of its values."""


class Beside(Protocol):
    """Columns that the user's files hold beside the rows, read one at a time."""

    @property
    def names(self) -> tuple[str, ...]:
        """Those that hold one value a row."""
        ...

    @property
    def nested(self) -> tuple[str, ...]:
        """Names of those that hold lists, objects, pictures or bytes."""
        ...

    @property
    def column(self) -> Any:
        """A column by name, in the split's order."""
        ...


@dataclass(frozen=True)
class Samples:
    """The rows of a split.

    Attributes:
        split: The rows, as tasks hold them: `text` and perhaps `text_pair`, or `pixel_values`, or `image`, and further
            columns.
        name: The split's name, for messages and for arrays that are given by split.
        beside: Columns beside the rows.
        called: The user's names of `text` and `text_pair`, where they are others.
        reserved: Columns that can't be a shortcut, and what they are.
    """

    split: datasets.Dataset
    name: str = "train"
    beside: Beside | None = None
    called: Mapping[str, str] = field(default_factory=dict)
    reserved: Mapping[str, str] = field(default_factory=lambda: RESERVED)

    @classmethod
    def of(
        cls,
        *,
        texts: Mapping[str, Any] | Sequence[str | None] | None = None,
        images: Any = None,
        columns: Mapping[str, Any] | None = None,
        name: str = "train",
    ) -> Samples:
        """Plain data as samples.

        Args:
            texts: Texts, or up to two columns of them by name; sequences or Arrow's columns.
            images: Pixels of shape (N, C, H, W), uint8, or paths of files.
            columns: Further columns by name.
            name: The split's name.

        Raises:
            UserError: If the data hold no row, or columns differ in length.
        """
        named = texts if isinstance(texts, Mapping) else {} if texts is None else {"text": texts}
        if len(named) > len(TEXT_COLUMNS):
            raise UserError(f"Texts come in one column or two. Got {', '.join(named)}.")
        called: dict[str, str] = dict(zip(TEXT_COLUMNS, named, strict=False))
        made: dict[str, Column] = {place: text_column(_listed(named[own])) for place, own in called.items()}
        if images is not None:
            made |= _picture_columns(images)
        for own, values in (columns or {}).items():
            if own in made:
                raise UserError(f"The column '{own}' is the text or picture itself.")
            array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(_listed(values))
            made[own] = (datasets.Features.from_arrow_schema(pa.schema([("x", array.type)]))["x"], array)
        lengths = {called.get(own, own): len(array) for own, (_, array) in made.items()}
        if not lengths or 0 in lengths.values():
            raise UserError("Shortcuts need samples, but the data hold none.")
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{number:,} of {column}" for column, number in lengths.items())
            raise UserError(f"All columns need the same number of rows. Got {told}.")
        return cls(dataset_of(made), name, called=called, reserved={})

    def __len__(self) -> int:
        return len(self.split)

    @property
    def texts(self) -> dict[str, str]:
        """The user's name of each text column → its name in the split."""
        return {self.called.get(name, name): name for name in TEXT_COLUMNS if name in self.split.column_names}

    @property
    def picture(self) -> str | None:
        """The column of pictures."""
        return next((name for name in PICTURE_COLUMNS if name in self.split.column_names), None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that may be a shortcut."""
        taken = {*TEXT_COLUMNS, *PICTURE_COLUMNS, *self.reserved, *self._further}
        own = [name for name in self.split.column_names if name not in taken]
        return (*own, *(name for name in self._further if name not in self.reserved))

    @property
    def _further(self) -> tuple[str, ...]:
        return () if self.beside is None else self.beside.names

    def text_places(self, asked: str | None) -> list[str]:
        """The split's text columns that a shortcut looks at: the one that it names, or all.

        Raises:
            UserError: If there is none, or none of this name.
        """
        known = self.texts
        if not known:
            raise NotToldError(
                f"The split '{self.name}' holds no texts, so no token or length of theirs is a shortcut."
            )
        if asked is None:
            return list(known.values())
        if asked in known or asked in known.values():
            return [known.get(asked, asked)]
        raise NotToldError(
            f"The split '{self.name}' has no text column '{asked}'{did_you_mean(asked, known)}; its text columns are "
            f"{', '.join(known)}{list_hint(asked)}."
        )

    def read_texts(self, place: str) -> list[str | None]:
        """A text column of the split."""
        return entries(self.split, place).to_pylist()

    def read_column(self, name: str) -> pa.ChunkedArray:
        """A further column.

        Raises:
            UserError: If there is none of this name, or it can't be a shortcut.
        """
        if name in self.reserved:
            raise UserError(f"The column '{name}' is {self.reserved[name]}, which can't be a shortcut.")
        known = self.columns
        if name not in known and (name in self.texts or name in TEXT_COLUMNS):
            raise UserError(
                f"The column '{name}' is the text itself: its tokens ('token:{name}:word') and its length "
                f"('length:{name}') may be shortcuts."
            )
        if name not in known and name in PICTURE_COLUMNS:
            raise UserError(
                f"The column '{name}' is the picture itself, whose looks may be shortcuts, such as 'colour'."
            )
        if name not in known:
            raise NotToldError(
                f"The split '{self.name}' has no column '{name}'{did_you_mean(name, known)}; it has "
                f"{', '.join(known[:_NAMED]) or 'none'}{list_hint(name)}."
            )
        # the user's own column of a name comes before one that the task made
        return self.beside.column(name) if self.beside and name in self._further else entries(self.split, name)

    @cached_property
    def looks(self) -> Looks:
        """What is measured of each picture, all in one pass.

        Raises:
            UserError: If the split holds no pictures.
        """
        self.check_pictures()
        return looks(self.split)

    def check_pictures(self) -> None:
        """Raise `UserError` if the split holds no pictures."""
        if self.picture is None:
            raise NotToldError(
                f"The split '{self.name}' holds no pictures, so nothing that is measured of them is known."
            )

    def picture_files(self) -> list[dict[str, Any]]:
        """`path` and `bytes` of each picture, undecoded.

        Raises:
            UserError: If the pictures are no files.
        """
        if self.picture != "image":
            raise NotToldError(f"The split '{self.name}' holds no picture files, so nothing of a file is a shortcut.")
        chosen = self.split.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
        return chosen.with_format("arrow")[:]["image"].to_pylist()

    def batches(self) -> Iterator[dict[str, Any]]:
        """Rows as a function of the user's gets them: texts and pictures, and all further columns, by name."""
        inputs = [*self.texts.values(), *([self.picture] if self.picture else [])]
        rows = Rows(self.split, inputs)
        further = {name: self.read_column(name).to_pylist() for name in self.columns}
        for start in range(0, len(self), _ROWS):
            stop = min(start + _ROWS, len(self))
            batch = rows.__getitems__(range(start, stop))
            named = {self.called.get(name, name): values for name, values in batch.items()}
            yield named | {name: values[start:stop] for name, values in further.items()}

    def with_split(self, split: datasets.Dataset) -> Samples:
        """The same, of other rows in their place."""
        return replace(self, split=split)


def _listed(values: Any) -> Any:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.to_pylist()
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _picture_columns(images: Any) -> dict[str, Column]:
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":
        pixel_NCHW: NDArray[Any] = images
        if pixel_NCHW.ndim != 4 or pixel_NCHW.dtype != np.uint8:
            raise UserError(
                "Pixels must be uint8 of shape (samples, channels, height, width). "
                f"Got {pixel_NCHW.dtype} of shape {pixel_NCHW.shape}."
            )
        return {"pixel_values": pixel_column(np.ascontiguousarray(pixel_NCHW))}
    if not all(isinstance(path, (str, Path)) for path in images):
        raise UserError("Pictures are one array of pixels, or paths of files.")
    return {"image": picture_column(str(path) for path in images)}
