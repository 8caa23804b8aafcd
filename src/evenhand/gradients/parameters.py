"""Which parameters: the parts of a model, those that train, its adapters, and patterns of names as in file names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from torch import nn
from torch.distributed.tensor import DTensor

from evenhand.models.heads import head_of
from evenhand.validation import UserError, check_choice, did_you_mean

_WILDCARDS = ".*?["


@dataclass(frozen=True)
class Names:
    """Declares that a parameter takes the name of a part of a model, a pattern, or a list of patterns.

    Attributes:
        parts: The parts. Another name has a dot or a wildcard.
    """

    parts: tuple[str, ...]

    def check(self, owner: str, name: str, value: object, _kind: Any = str) -> None:
        """Raise `UserError` unless the value is one of these."""
        if isinstance(value, str):
            if not any(sign in value for sign in _WILDCARDS):
                check_choice(owner, name, value, (*self.parts, "a name pattern such as encoder.*"))
        elif not (isinstance(value, Sequence) and value and all(isinstance(v, str) and v for v in value)):
            raise UserError(f"The '{name}' parameter of {owner} must be a name or a list of patterns. Got {value!r}.")


PARTS = ("head", "extractor", "all")
Source = Annotated[Literal["head", "extractor", "all"] | str, Names(PARTS)]
"""A part of the model, or a pattern: a parameter's or a module's name, with *, ? and [] as in file names."""

Scope = Annotated[Literal["all", "adapters"] | str, Names(("all", "adapters"))]
"""All trainable parameters, those of the adapters, or a pattern as in `Source`."""


def parameters_in_scope(model: nn.Module, scope: Scope | Sequence[str]) -> dict[nn.Parameter, str]:
    """The trainable parameters of a scope, with their names.

    Raises:
        UserError: If there are none.
    """
    trainable = {p: name for name, p in model.named_parameters() if p.requires_grad}
    if scope == "all":
        return trainable
    if scope == "adapters":
        adapters = _adapters(model)
        chosen = {p: name for p, name in trainable.items() if p in adapters}
        if not chosen:
            raise UserError("The scope 'adapters' is empty: no layer of the model has a trainable adapter of peft.")
        return chosen
    matching = matching_parameters(model, [scope] if isinstance(scope, str) else list(scope), "scope")
    chosen = {p: name for p, name in trainable.items() if p in matching}
    if not chosen:
        raise UserError(f"The scope {scope!r} matches frozen parameters only, which have no gradient.")
    return chosen


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


def matching_parameters(model: nn.Module, patterns: Sequence[str], what: str) -> dict[nn.Parameter, str]:
    """Parameters whose name, or whose module's name, matches a pattern with *, ? and [].

    Raises:
        UserError: If a pattern matches nothing.
    """
    names = dict(model.named_parameters(remove_duplicate=False))  # a tied weight has several
    chosen: dict[nn.Parameter, str] = {}
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not found:
            meant = did_you_mean(pattern, [*names, *(name for name, _ in model.named_modules() if name)])
            raise UserError(f"The {what} '{pattern}' matches none of the model's {len(names)} parameters{meant}.")
        for name in found:
            chosen.setdefault(names[name], name)
    return chosen


def _adapters(model: nn.Module) -> set[nn.Parameter]:
    """What peft added to layers; the layers themselves are kept as their `base_layer`."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # takes half a second, for those who have adapters

    found: set[nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            found |= {p for name, p in module.named_parameters() if not name.startswith("base_layer.")}
    return found
