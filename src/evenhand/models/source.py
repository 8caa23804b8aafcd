"""Where a run's models come from: fresh and saved weights, with or without adapters."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from evenhand.data.inputs import Preprocess
from evenhand.models.adapters import Adapters, load_adapters, load_head, save_adapters
from evenhand.models.heads import head_modules, parameter_count
from evenhand.models.saved import UNREADABLE, first_line, load_model
from evenhand.models.small_transformers import ARCHITECTURES
from evenhand.models.small_vision import BACKBONES
from evenhand.validation import UserError

if TYPE_CHECKING:
    from peft import PeftModel

Kind = Literal["image", "text"]

RANDOM_START = (*BACKBONES, *ARCHITECTURES)
"""Models by name that start from random weights."""

BACKBONE_SEED = 0
"""Draws what a checkpoint lacks of a frozen backbone, so that adapters meet the same one when they are read back."""

logger = logging.getLogger(__name__)


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
class ModelSource(ABC):
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
        return self.name

    @property
    def _hub_name(self) -> str:
        """What others know it by; of a folder, which means nothing on another machine, its own name."""
        return Path(self.name).name if Path(self.name).exists() else self.name

    @property
    def maker(self) -> Any:
        """The class that makes the model, or loads it."""
        return AutoModelForImageClassification if self.kind == "image" else AutoModelForSequenceClassification

    @property
    def _labels(self) -> dict[str, Any]:
        numbers = {name: i for i, name in enumerate(self.label_names)}
        return {"id2label": dict(enumerate(self.label_names)), "label2id": numbers}

    @property
    def _shape(self) -> tuple[int, int, int]:
        assert self.image_shape is not None  # the images of a task that has some
        return self.image_shape

    def config(self) -> PreTrainedConfig:
        """The model's configuration with this task's classes.

        Raises:
            UserError: If no such model is known or can be loaded, or it doesn't fit the task's inputs.
        """
        self._check_start()
        return self._config()

    @abstractmethod
    def _config(self) -> PreTrainedConfig: ...

    def _check_start(self) -> None:
        if self.fresh and self.is_small:
            raise UserError(f"The model '{self.name}' starts from random weights anyway: leave fresh out.")
        if self.adapters is not None and self.starts_random:
            raise self.adapters.nothing_to_adapt(self.name)

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
            save_adapters(cast(PreTrainedModel, model), folder, self._adds_tokens)

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
        with seeded(seed), _without_loading_report():
            # A checkpoint's head may have another number of classes: it is drawn anew, which is what one wants.
            try:
                model, report = self.maker.from_pretrained(
                    self._location,
                    config=config,
                    dtype=torch.float32,  # half precision rounds small steps to nothing
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
            except UNREADABLE as error:
                raise UserError(f"The weights of '{self.name}' could not be loaded ({first_line(error)}).") from error
            new = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
            self._fit(model, new)
        lacking = sorted(n for n in new if n.split(".")[0] not in head_modules(model))
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
            return self._made(self.config())

    def _made(self, config: Any) -> PreTrainedModel:
        return self.maker.from_config(config, dtype=torch.float32)

    def _fit(self, model: PreTrainedModel, new: Collection[str]) -> None:  # noqa: B027
        """Bring a loaded checkpoint in line with the run.

        Args:
            model: The model; it is changed in place.
            new: Names of the tensors that the checkpoint lacks, which were drawn.
        """

    @property
    def _adds_tokens(self) -> bool:
        """Whether the embedding has rows that the checkpoint lacks."""
        return False

    def fit(self, model: PreTrainedModel) -> None:  # noqa: B027
        """Bring a model of this source that was loaded as it lies there in line with its tokenizer."""

    def notes(self) -> list[str]:
        """What of the checkpoint was brought in line with the task, a sentence each."""
        return []

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
        return adapters.attach(model, self.name, head_modules(model), self._hub_name)

    @abstractmethod
    def preprocessor(self, max_length: int | None = None) -> tuple[Preprocess, Any]:
        """How rows become the model's inputs, and the processor or tokenizer to save beside the model (or None).

        Args:
            max_length: Tokens that a text is cut to; never more than the model has positions for.

        Raises:
            UserError: If there is no processor or tokenizer, or it can't pad.
        """
