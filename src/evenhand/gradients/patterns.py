"""Parameters by name: patterns as in file names, and a model's adapters."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from evenhand.validation import UserError, check_choice, nearest_names

Scope = Literal["all", "adapters"] | str
"""All trainable parameters, those of the adapters, or a pattern as in `Source`."""

WILDCARDS = ".*?["


def check_scope(owner: str, scope: Scope | Sequence[str]) -> None:
    """Raise `UserError` unless the scope is "all", "adapters", a pattern with a dot or a wildcard, or several names."""
    if isinstance(scope, str):
        if not any(sign in scope for sign in WILDCARDS):
            check_choice(owner, "scope", scope, ("all", "adapters", "a name pattern such as encoder.*"))
    elif not (isinstance(scope, Sequence) and scope and all(isinstance(s, str) and s for s in scope)):
        raise UserError(f"The 'scope' parameter of {owner} must be a name or a list of patterns. Got {scope!r}.")


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
            near = nearest_names(pattern, [*names, *(name for name, _ in model.named_modules() if name)])
            meant = f" (did you mean {' or '.join(repr(n) for n in near)}?)" if near else ""
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
