"""Models: which layer is the head, fresh and saved weights, and the small offline vision models.

A model is named by `mlp`, `pgd-cnn`, `digits-cnn`, or by a folder or hub name that transformers' auto classes know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from evenhand.small_models import BACKBONES, SmallVisionConfig, SmallVisionModel
from evenhand.validation import UserError, nearest_names, unknown_name

Kind = Literal["image", "text"]
Preprocess = Callable[[dict[str, Any]], dict[str, Tensor]]
"""Turns the columns of a batch of rows into the keyword arguments of the model's forward."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers follow `seed` inside, and are as before afterwards."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class ModelSource:
    """Where a run's models come from: a small architecture by name, or a checkpoint.

    Attributes:
        name: `mlp`, `pgd-cnn`, `digits-cnn`, a folder, or a hub name.
        kind: What the task's inputs are.
        label_names: Name of each class; their number is the number of outputs.
        image_shape: (channels, height, width) of the task's images, None for text.
    """

    name: str
    kind: Kind
    label_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None = None

    @property
    def is_small(self) -> bool:
        """Whether this is one of the offline models by name, which start from random weights."""
        return self.name in BACKBONES

    def _small_architecture(self) -> str | None:
        """The architecture of an offline model, by name or saved in a folder; None for transformers' own models."""
        if self.is_small:
            return self.name
        saved = Path(self.name) / "config.json"
        if not saved.is_file():
            return None
        config = _read_config(saved)
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
        architecture = self._small_architecture()
        if architecture is not None:
            if self.kind != "image" or self.image_shape is None:
                raise UserError(f"The model '{self.name}' takes images, but the task's inputs are {self.kind}.")
            channels, height, width = self.image_shape
            config = SmallVisionConfig(
                architecture=architecture, num_channels=channels, image_height=height, image_width=width, **labels
            )
            config.check_image_size()
            return config
        if nearest_names(self.name, BACKBONES) and "/" not in self.name and not Path(self.name).exists():
            raise unknown_name("model", self.name, BACKBONES)
        try:
            config = AutoConfig.from_pretrained(self.name, **labels)
        except (OSError, ValueError) as error:
            raise UserError(
                f"Unknown model '{self.name}': it is none of {', '.join(BACKBONES)}, and transformers could not load "
                f"it as a folder or from the hub ({_first_line(error)})."
            ) from error
        auto_class = self._auto_class()
        if type(config) not in auto_class._model_mapping:
            raise UserError(
                f"The model '{self.name}' ({config.model_type}) has no {auto_class.__name__[len('AutoModelFor') :]} "
                f"form, so it can't be trained on a task whose inputs are {self.kind}."
            )
        return config

    def pretrained(self, seed: int) -> PreTrainedModel:
        """The model that a run starts from: a checkpoint's weights (its new head drawn by `seed`) or fresh ones."""
        if self.is_small:
            return self.random(seed)
        config = self.config()
        try:
            with seeded(seed):
                # A checkpoint's head may have another number of classes: it is drawn anew, which is what one wants.
                loader = SmallVisionModel if isinstance(config, SmallVisionConfig) else self._auto_class()
                return loader.from_pretrained(self.name, config=config, ignore_mismatched_sizes=True)
        except OSError as error:
            raise UserError(f"The weights of '{self.name}' could not be loaded ({_first_line(error)}).") from error

    def random(self, seed: int) -> PreTrainedModel:
        """Fresh weights from the configuration, drawn by `seed`."""
        with seeded(seed):
            config = self.config()
            return (
                SmallVisionModel(config)
                if isinstance(config, SmallVisionConfig)
                else self._auto_class().from_config(config)
            )

    def parameter_count(self) -> int:
        """Number of trainable parameters, without making them."""
        with torch.device("meta"):
            return parameter_count(self.random(0))

    def preprocessor(self) -> tuple[Preprocess, Any]:
        """How rows become the model's inputs, and the processor or tokenizer to save beside the model (or None)."""
        if self._small_architecture() is not None:
            return _pixels, None
        try:
            if self.kind == "image":
                processor = AutoImageProcessor.from_pretrained(self.name)
                return partial(_processed_images, processor), processor
            tokenizer = AutoTokenizer.from_pretrained(self.name)
            if len(tokenizer) <= len(tokenizer.all_special_ids):  # made by transformers where no file was found
                raise ValueError("it has no vocabulary")
            return partial(_tokenized, tokenizer), tokenizer
        except (OSError, ValueError) as error:
            what = "image processor" if self.kind == "image" else "tokenizer"
            raise UserError(f"No {what} of the model '{self.name}' could be loaded ({_first_line(error)}).") from error

    def _auto_class(self) -> Any:
        return AutoModelForImageClassification if self.kind == "image" else AutoModelForSequenceClassification


def load_model(folder: Path | str) -> PreTrainedModel:
    """Load a saved model: one of our small ones, or an image or sequence classifier of transformers.

    Raises:
        UserError: If the folder holds no such model.
    """
    config_file = Path(folder) / "config.json"
    if not config_file.exists():
        raise UserError(f"The folder '{folder}' holds no model (config.json is missing).")
    config = _read_config(config_file)
    try:
        if config.get("model_type") == SmallVisionConfig.model_type:
            return cast(PreTrainedModel, SmallVisionModel.from_pretrained(folder))
        for auto_class in (AutoModelForSequenceClassification, AutoModelForImageClassification):
            if any(n.endswith(auto_class.__name__[len("AutoModel") :]) for n in config.get("architectures") or []):
                return auto_class.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"The model in '{folder}' could not be loaded ({_first_line(error)}).") from error
    raise UserError(f"The model in '{folder}' is no image or sequence classifier ({config.get('architectures')}).")


def head_of(model: nn.Module) -> tuple[str, nn.Linear]:
    """The head's name and layer: the last Linear layer with one output a class.

    Raises:
        UserError: If the model has no such layer.
    """
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    linears = [
        (name, module)
        for name, module in model.named_modules()
        # peft keeps the frozen original of a trained head beside it
        if isinstance(module, nn.Linear) and "original_module" not in name
    ]
    fitting = [pair for pair in linears if num_labels is None or pair[1].out_features == num_labels]
    if not fitting:
        outputs = "" if num_labels is None else f" with {num_labels} outputs"
        raise UserError(f"The model {type(model).__name__} has no Linear layer{outputs}, so its head is unknown.")
    return fitting[-1]


def parameter_count(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The model in '{path.parent}' could not be loaded ({_first_line(error)}).") from error
    if not isinstance(config, dict):
        raise UserError(f"The model in '{path.parent}' could not be loaded (config.json holds no object).")
    return config


def _pixels(rows: dict[str, Any]) -> dict[str, Tensor]:
    return {"pixel_values": torch.from_numpy(rows["pixel_values"])}


def _processed_images(processor: Any, rows: dict[str, Any]) -> dict[str, Tensor]:
    # processors take channels last: (B, C, H, W) → B × (H, W, C)
    images = list(rows["pixel_values"].transpose(0, 2, 3, 1))
    return dict(processor(images, return_tensors="pt", input_data_format="channels_last"))


def _tokenized(tokenizer: Any, rows: dict[str, Any]) -> dict[str, Tensor]:
    pairs = [list(rows[column]) for column in ("text", "text_pair") if column in rows]
    return dict(tokenizer(*pairs, truncation=True, padding=True, return_tensors="pt"))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
