"""A classifier that is taken as it is: a saved one or a live one, asked about rows without any training.

Legend: C classes, B rows of a batch.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from evenhand.auditing.scoring import Answers, Asking, Scored, Scoring, claim, scored_splits, sum_of
from evenhand.data.columns import class_column, column_values
from evenhand.data.inputs import Preprocess, Tokenizing, pixels, processed_images
from evenhand.data.rows import arrow_table, model_rows
from evenhand.files import alone_in
from evenhand.models.fitting import class_names, class_numbers, padded_positions
from evenhand.models.inference import ready
from evenhand.models.saved import load_model
from evenhand.models.small_vision import SmallVisionModel
from evenhand.runs.configuration import source_for
from evenhand.tasks import Task
from evenhand.training.stage import untouched_surroundings
from evenhand.validation import UserError

_CHANNELS = 3
_TEXTS = 64  # a pass: of long ones more don't fit a processor's caches
_NO_LIMIT = 1_000_000  # a tokenizer that knows no longest text says more


@dataclass(frozen=True)
class Given:
    """A trained classifier.

    Attributes:
        model: The model.
        called: What messages call it.
        folder: Where it is saved; None for a live one.
        processor: The tokenizer or image processor of a live one.
    """

    model: nn.Module
    called: str
    folder: Path | None = None
    processor: Any = None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Its classes' names; None where it knows numbers only."""
        config = getattr(self.model, "config", None)
        return None if config is None or not hasattr(config, "id2label") else class_names(config)

    @property
    def width(self) -> int | None:
        """How many classes it has; None where it doesn't say."""
        return getattr(getattr(self.model, "config", None), "num_labels", None)

    def order(self, label_names: Sequence[str], task: str) -> list[int] | None:
        """The number by which the model knows each of a task's classes; None where it is the task's own.

        Raises:
            UserError: If the model has other classes.
        """
        if self.width is not None and self.width != len(label_names):
            raise UserError(f"{self.called} has {self.width} classes, but the task '{task}' has {len(label_names)}.")
        names = self.classes
        if names is None or are_numbers(label_names):
            return None
        order = class_numbers(label_names, names)
        unknown = [name for name, number in zip(label_names, order, strict=True) if number is None]
        if unknown:
            raise UserError(
                f"{self.called} has the classes {', '.join(names)}, and none of them is the class '{unknown[0]}' of "
                f"the task '{task}', so which is which can't be known: rename them in one of the two."
            )
        found = [number for number in order if number is not None]
        return None if found == sorted(found) else found

    def preprocess(self, task: Task) -> Preprocess:
        """How the task's rows become the model's inputs.

        Raises:
            UserError: If the model takes other inputs, or its tokenizer or image processor is missing.
        """
        if self.folder is not None:
            source = source_for(task, str(self.folder))
            source.config()
            if isinstance(self.model, PreTrainedModel):
                source.fit(self.model)
            return source.preprocessor()[0]
        if task.kind == "text":
            return self._tokenizing()
        if self.processor is not None:
            config = getattr(self.model, "config", None)
            channels = getattr(getattr(config, "vision_config", config), "num_channels", None) or _CHANNELS
            return partial(processed_images, self.processor, channels=channels)
        if isinstance(self.model, PreTrainedModel) and not isinstance(self.model, SmallVisionModel):
            raise UserError("The pictures of a live model of transformers need its image processor: give 'processor'.")
        assert task.image_shape is not None
        if isinstance(self.model, SmallVisionModel):
            return partial(pixels, (self.model.config.image_height, self.model.config.image_width))
        return partial(_fractions, task.image_shape[1:])

    def _tokenizing(self) -> Tokenizing:
        if self.processor is None:
            raise UserError("The texts of a live model need its tokenizer: give 'tokenizer'.")
        if getattr(self.processor, "pad_token_id", None) is None:
            raise UserError("The tokenizer has no padding token, so texts can't be batched: set its pad_token.")
        positions: Any = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        table = padded_positions(self.model)
        if table is not None and table.padding_idx is not None and table.num_embeddings == positions:
            positions -= table.padding_idx + 1
        longest = min(self.processor.model_max_length, positions or _NO_LIMIT)
        return Tokenizing(self.processor, longest if longest < _NO_LIMIT else None)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether classes are called by their numbers, 0 to C − 1."""
    return list(names) == [str(i) for i in range(len(names))]


def saved_classifier(model: str | Path) -> Given | None:
    """The classifier in a folder; None for a name, or a checkpoint that biased models start from."""
    folder = Path(model)
    if not (folder / "config.json").exists():
        return None
    try:
        return Given(load_model(folder), f"The model '{model}'", folder)
    except UserError:
        return None


def live_classifier(model: nn.Module, tokenizer: Any, processor: Any) -> Given:
    """A model that the user holds; it stays as it is."""
    return Given(model, f"The model {type(model).__name__}", None, tokenizer if processor is None else processor)


def ask(
    given: Given, task: Task, scoring: Scoring, device: torch.device, folder: Path | None, configuration: str
) -> Scored:
    """Score every split's rows with the classifier; train's scores sum to 1.

    Args:
        given: The classifier.
        task: The task; of a split that is train's own rows, only train is scored.
        scoring: Which gradient scores.
        device: Where a saved model computes; a live one stays where it is.
        folder: Where answers are kept; None keeps none.
        configuration: What tells the data and the rest of the audit from others'.

    Raises:
        UserError: If the model doesn't fit the data.
    """
    order, preprocess = given.order(task.label_names, task.name), given.preprocess(task)
    splits = {n: split for n, split in scored_splits(task).items() if n == "train" or split is not task.train}
    rows = {name: model_rows(_renumbered(split, order), preprocess) for name, split in splits.items()}
    model = given.model if given.folder is None else ready(given.model, device)
    model = model if task.kind == "text" or _takes_pixels(model) else _ByPlace(model)

    def answers(path: Path | None) -> dict[str, tuple[Any, Any]]:
        asking = Asking(task, rows, preprocess, model, scoring, path, order, _TEXTS if task.kind == "text" else None)
        found = {name: asking.of(name, split, np.arange(len(split))) for name, split in splits.items()}
        asking.keep()
        return found

    with untouched_surroundings():
        if folder is None:
            found = answers(None)
        else:
            assert given.folder is not None
            told = {"configuration": configuration, "model": _digest(given.folder), "rows": len(task.train)}
            with alone_in(folder):
                claim(folder, told | {"source": scoring.source, "norm": scoring.norm})
                found = answers(folder / "answers.npz")
    total = sum_of(found["train"][0], given.called.replace("The", "the", 1))
    joined = {name: Answers(norm_N[None] / total, p_NC) for name, (norm_N, p_NC) in found.items()}
    return Scored((None,), joined.pop("train"), joined)


def _renumbered(split: datasets.Dataset, order: list[int] | None) -> datasets.Dataset:
    """The split with labels as the model numbers them."""
    if order is None:
        return split
    names = [""] * len(order)
    for name, number in zip(split.features["labels"].names, order, strict=True):
        names[number] = name
    feature, labels = class_column(np.array(order)[column_values(split, "labels")], names)
    table, features = arrow_table(split), split.features.copy()
    features["labels"] = feature
    table = table.set_column(table.column_names.index("labels"), "labels", labels)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))


def _digest(folder: Path) -> str:
    """Names the model by its weights."""
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


# ---- live models of the user's own ----------------------------------------------------------------------------------


class _ByPlace(nn.Module):
    """A model that takes its pictures without a name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model(pixel_values)


def _takes_pixels(model: nn.Module) -> bool:
    parameters = inspect.signature(model.forward).parameters.values()
    return any(p.name == "pixel_values" or p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters)


def _fractions(size: tuple[int, int], rows: dict[str, Any]) -> dict[str, Tensor]:
    """Images as most models outside this project read them: numbers from 0 to 1."""
    return {"pixel_values": pixels(size, rows)["pixel_values"].float() / 255}
