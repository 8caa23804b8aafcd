"""What of a checkpoint is brought in line with a run: the order of its classes, its tokens, its images' channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from evenhand.validation import UserError


def class_names(config: Any) -> tuple[str, ...] | None:
    """A configuration's classes; None where it has numbers only."""
    named: dict[Any, Any] = dict(config.id2label or {})
    names = tuple(str(named[i]) for i in sorted(named, key=int))
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def class_numbers(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """The number among `known` of each name, None of one that isn't there.

    Upper and lower case count only where they tell two names apart.
    """
    numbers: list[int | None] = []
    for name in names:
        alike = [i for i, other in enumerate(known) if other.casefold() == name.casefold()]
        alone = len(alike) == 1 and sum(n.casefold() == name.casefold() for n in names) == 1
        numbers.append(list(known).index(name) if name in known else alike[0] if alone else None)
    return numbers


def class_order(theirs: Sequence[str], ours: Sequence[str]) -> list[int]:
    """Which of a head's rows is each of our classes: the one of its name, or else what is left, in order."""
    numbers = class_numbers(ours, theirs)
    left = iter([i for i in range(len(theirs)) if i not in numbers])
    return [next(left) if number is None else number for number in numbers]


def class_axes(model: nn.Module, wider: nn.Module) -> dict[str, int]:
    """The tensors of a model that have an entry a class, each with the axis of the classes.

    Args:
        model: The model.
        wider: The same with one class more; neither needs memory for its weights.
    """
    theirs = wider.state_dict()
    axes = {}
    for name, tensor in model.state_dict().items():
        differing = [axis for axis, (n, m) in enumerate(zip(tensor.shape, theirs[name].shape, strict=True)) if n != m]
        if differing:
            axes[name] = differing[0]
    return axes


def reorder_classes(model: nn.Module, axes: dict[str, int], order: Sequence[int]) -> None:
    """Put the entries of the classes into another order; entry i is then what entry `order[i]` was."""
    tensors = model.state_dict()
    with torch.no_grad():
        for name, axis in axes.items():
            tensors[name].copy_(tensors[name].index_select(axis, torch.tensor(order, device=tensors[name].device)))


# ---- tokens ---------------------------------------------------------------------------------------------------------


def read_pad_token(tokenizer: Any, name: str) -> str | None:
    """See to it that a tokenizer pads, with its end of text where it has nothing else; a note if so.

    Raises:
        UserError: If it has neither.
    """
    if tokenizer.pad_token_id is not None:
        return None
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of the model '{name}' has no padding token, so texts can't be batched.")
    tokenizer.pad_token = tokenizer.eos_token
    used = tokenizer.pad_token
    return f"The tokenizer of the model '{name}' has no padding token: its end of text, '{used}', is used."


def missing_rows(model: PreTrainedModel, tokenizer: Any) -> int:
    """How many of a tokenizer's tokens the model's embedding has no row for."""
    try:
        table: Any = model.get_input_embeddings()
    except NotImplementedError:  # a model of characters, which hashes them
        return 0
    return max(0, _tokens(tokenizer) - table.num_embeddings) if isinstance(table, nn.Embedding) else 0


def fit_tokens(model: PreTrainedModel, tokenizer: Any) -> None:
    """Give the model's embedding a row for each token, and the model the padding token of its texts.

    Padding is what a decoder finds a text's last token by. A model that counts positions from its padding token on
    keeps its own, since its positions would move.
    """
    if missing_rows(model, tokenizer):
        model.resize_token_embeddings(_tokens(tokenizer), mean_resizing=False)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        if config.pad_token_id is None or padded_positions(model) is None:
            config.pad_token_id = tokenizer.pad_token_id


def padded_positions(model: nn.Module) -> nn.Embedding | None:
    """The table of positions of a model that counts them from its padding token on, as RoBERTa's kind does."""
    tables = [m for n, m in model.named_modules() if isinstance(m, nn.Embedding) and "position" in n]
    return next((table for table in tables if table.padding_idx is not None), None)


def drop_impossible_padding(config: Any) -> None:
    """Take out a padding token that is none of the model's tokens, such as −1: no text is padded with it."""
    for part in (config, config.get_text_config()):
        pad, size = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if isinstance(pad, int) and isinstance(size, int) and not 0 <= pad < size:
            part.pad_token_id = None


def _tokens(tokenizer: Any) -> int:
    return max(len(tokenizer), max(tokenizer.get_vocab().values(), default=-1) + 1)


# ---- channels -------------------------------------------------------------------------------------------------------


def fit_processor(processor: Any, channels: int) -> None:
    """Let an image processor take images of so many channels: a mean that was made for others is averaged."""
    for name in ("image_mean", "image_std"):
        values = getattr(processor, name, None)
        if isinstance(values, (list, tuple)) and len(values) != channels:
            setattr(processor, name, [sum(values) / len(values)] * channels)
    if channels != 3 and getattr(processor, "do_convert_rgb", None):
        processor.do_convert_rgb = False
