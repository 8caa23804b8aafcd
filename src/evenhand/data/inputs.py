"""From the columns of a batch of rows to the keyword arguments of a model's forward.

Legend: B rows of a batch, T tokens of its longest text, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from evenhand.data.decoding import decoded

Preprocess = Callable[[dict[str, Any]], dict[str, Tensor]]
"""Turns the columns of a batch of rows into the keyword arguments of the model's forward."""


def pixels(size: tuple[int, int], rows: dict[str, Any]) -> dict[str, Tensor]:
    """Images as the small models read them: as they are, or pictures scaled to (height, width)."""
    if "image" in rows:
        scaled = [decoded(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR) for picture in rows["image"]]
        rows = {"pixel_values": np.stack([np.asarray(picture) for picture in scaled]).transpose(0, 3, 1, 2).copy()}
    return {"pixel_values": torch.from_numpy(rows["pixel_values"])}


def processed_images(processor: Any, rows: dict[str, Any], channels: int = 3) -> dict[str, Tensor]:
    """Images as a checkpoint's image processor prepares them, with the number of channels that the checkpoint takes."""
    if "image" in rows:
        pictures = [decoded(picture) for picture in rows["image"]]
        if channels == 3:
            return dict(processor(pictures, return_tensors="pt"))
        images = [np.asarray(picture) for picture in pictures]
    else:  # processors take channels last: (B, C, H, W) → B × (H, W, C)
        images = list(rows["pixel_values"].transpose(0, 2, 3, 1))
    images = [with_channels(image_HWC, channels) for image_HWC in images]
    return dict(processor(images, return_tensors="pt", input_data_format="channels_last"))


def with_channels(image_HWC: NDArray[Any], channels: int) -> NDArray[Any]:
    """An image of 1 (gray), 3 (RGB) or 4 (RGB and opacity) channels with another of these numbers.

    Gray becomes three equal channels and colour its luminance (ITU-R 601); opacity is full where there was none, and
    left out where it isn't taken.
    """
    found = image_HWC.shape[-1]
    if found == channels:
        return image_HWC
    colour_HWC = np.repeat(image_HWC, 3, axis=-1) if found == 1 else image_HWC[..., :3]
    if channels == 1:
        gray_HW1 = colour_HWC.astype(np.float64) @ np.array([[0.299], [0.587], [0.114]])
        whole = np.issubdtype(image_HWC.dtype, np.integer)
        return (gray_HW1.round() if whole else gray_HW1).astype(image_HWC.dtype)
    if channels == 3:
        return colour_HWC
    full = np.iinfo(image_HWC.dtype).max if np.issubdtype(image_HWC.dtype, np.integer) else 1
    return np.concatenate([colour_HWC, np.full_like(colour_HWC[..., :1], full)], axis=-1)


@dataclass(frozen=True)
class Tokenizing:
    """Texts, or tokens of them made before, as a padded batch.

    Attributes:
        tokenizer: transformers' tokenizer.
        max_length: Longer texts are cut to so many tokens; None cuts none.
    """

    tokenizer: Any
    max_length: int | None

    def tokens(self, rows: dict[str, Any]) -> dict[str, list[list[int]]]:
        """Each text's (or pair's) tokens, unpadded, under the names of the model's inputs but `attention_mask`."""
        pairs = [list(rows[column]) for column in ("text", "text_pair") if column in rows]
        return dict(
            self.tokenizer(
                *pairs,
                truncation=self.max_length is not None,
                max_length=self.max_length,
                padding=False,
                return_attention_mask=False,
            )
        )

    @property
    def key(self) -> str | None:
        """Names what `tokens` makes of a text, on any machine; None where the tokenizer can't be written down."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        described = json.loads(backend.to_str())
        for state in ("truncation", "padding"):  # those of the last call
            described.pop(state, None)
        parts = [
            described,
            self.max_length,
            self.names,
            self.tokenizer.truncation_side,
            importlib.metadata.version("tokenizers"),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def __call__(self, rows: dict[str, Any]) -> dict[str, Tensor]:
        """The batch's tensors, of shape (B, T)."""
        tokens = {n: rows[n] for n in self.names if n in rows} if "input_ids" in rows else self.tokens(rows)
        length_B = np.array([len(ids) for ids in tokens["input_ids"]])
        position_T = np.arange(length_B.max())
        if self.tokenizer.padding_side == "left":
            position_T = position_T[::-1]
        present_BT = position_T < length_B[:, None]
        batch = {name: _padded(values, present_BT, self._filling(name)) for name, values in tokens.items()}
        if "attention_mask" in self.names:
            batch["attention_mask"] = torch.from_numpy(present_BT.astype(np.int64))
        return batch

    @property
    def names(self) -> list[str]:
        """What the model is given."""
        return self.tokenizer.model_input_names

    def _filling(self, name: str) -> int:
        return {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}.get(
            name, 0
        )


def _padded(values: Sequence[Sequence[int]], present_BT: NDArray[np.bool_], filling: int) -> Tensor:
    padded_BT = np.full(present_BT.shape, filling, dtype=np.int64)
    padded_BT[present_BT] = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in values])
    return torch.from_numpy(padded_BT)
