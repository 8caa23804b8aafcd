"""Which parameters a gradient norm is over: the head, the extractor, all that train, or those that patterns name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn
from torch.distributed.tensor import DTensor

from evenhand.gradients.patterns import WILDCARDS, matching_parameters
from evenhand.models.heads import head_of
from evenhand.validation import UserError, check_choice

Source = Literal["head", "extractor", "all"] | str
"""A part of the model, or a pattern: a parameter's or a module's name, with *, ? and [] as in file names."""

PARTS = ("head", "extractor", "all")


def check_source(owner: str, source: Source | Sequence[str]) -> None:
    """Raise `UserError` unless the source is a part of a model, a name with a dot or a wildcard, or a list of names."""
    if isinstance(source, str):
        if not any(sign in source for sign in WILDCARDS):
            check_choice(owner, "source", source, (*PARTS, "a name pattern such as encoder.*"))
    elif not (isinstance(source, Sequence) and source and all(isinstance(s, str) and s for s in source)):
        raise UserError(f"The 'source' parameter of {owner} must be a name or a list of patterns. Got {source!r}.")


def selected_parameters(model: nn.Module, source: Source | Sequence[str]) -> dict[nn.Parameter, str]:
    """The parameters of a source, with their names.

    A pattern may reach frozen parameters; the parts other than the head are of those that train.

    Raises:
        UserError: If there are none, or they have no gradient that one process could compute.
    """
    if isinstance(source, str) and source in PARTS:
        chosen = _part(model, source)
    else:
        chosen = matching_parameters(model, [source] if isinstance(source, str) else list(source), "source")
    for p, name in chosen.items():
        if isinstance(p, DTensor) or p.is_meta:
            raise UserError(f"The parameter '{name}' is sharded, so its gradient norms can't be computed.")
        if not p.is_floating_point():
            raise UserError(f"The parameter '{name}' is stored as {p.dtype}, so it has no gradient.")
    return chosen


def _part(model: nn.Module, part: str) -> dict[nn.Parameter, str]:
    if part == "head":
        prefix, head = head_of(model)
        return {p: f"{prefix}.{name}" if prefix else name for name, p in head.named_parameters(recurse=False)}
    trainable = {p: name for name, p in model.named_parameters() if p.requires_grad}
    if part == "extractor":
        for p in head_of(model)[1].parameters():
            trainable.pop(p, None)
    if not trainable:
        beside = " beside its head" if part == "extractor" else ""
        raise UserError(f"The source '{part}' is empty: the model has no trainable parameters{beside}.")
    return trainable
