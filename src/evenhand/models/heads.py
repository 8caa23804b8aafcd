"""Which layer of a classifier is its head, and whether anything of it trains."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from evenhand.validation import UserError


def check_trainable(model: nn.Module) -> None:
    """Raise `UserError` for a model without a trainable parameter."""
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(
            f"The model {type(model).__name__} has no trainable parameter, so there is nothing to train: set "
            "requires_grad of some to True."
        )


def head_of(model: nn.Module) -> tuple[str, nn.Linear]:
    """The head's name and layer: the last Linear layer with one output a class.

    With adapters around it, it is the layer that they adapt, not one of theirs.

    Raises:
        UserError: If the model has no such layer.
    """
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    theirs = _adapter_layers(model)
    linears = [
        (name, module)
        for name, module in model.named_modules()
        # peft keeps the frozen original of a trained head beside it
        if isinstance(module, nn.Linear) and "original_module" not in name and module not in theirs
    ]
    fitting = [pair for pair in linears if num_labels is None or pair[1].out_features == num_labels]
    if not fitting:
        outputs = "" if num_labels is None else f" with {num_labels} outputs"
        raise UserError(f"The model {type(model).__name__} has no Linear layer{outputs}, so its head is unknown.")
    return fitting[-1]


def head_modules(model: PreTrainedModel) -> list[str]:
    """Names of the modules with parameters that a classifier has beside its backbone."""
    children = [name for name, child in model.named_children() if next(child.parameters(), None) is not None]
    beside = [name for name in children if name != model.base_model_prefix]
    return beside if len(beside) < len(children) else [head_of(model)[0]]


def _adapter_layers(model: nn.Module) -> set[nn.Module]:
    """The modules that peft put around layers: those beside the `base_layer`."""
    return {
        module
        for parent in model.modules()
        if isinstance(getattr(parent, "base_layer", None), nn.Module)
        for name, child in parent.named_children()
        if name != "base_layer"
        for module in child.modules()
    }


def parameter_count(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
