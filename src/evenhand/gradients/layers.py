"""Pure rules: from a layer's input a and its output's gradient δ to the per-sample gradients of its parameters.

Legend: B samples, T positions of one sample, O outputs, D width, C channels, N images: B, or a multiple of it where a
sample is cut in windows.

A rule is the one function that says which form (forms.py) each parameter of a layer has; a new layer is one such
function. The loss's scale is in δ: under a mean over B samples every g_i carries 1/B, under a sum it doesn't.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from evenhand.gradients.forms import Correlation, Dense, Lookup, Outer, SampleGradients, wide

Rule = Callable[[Any, str, Tensor, Tensor, int], SampleGradients]

RULES: dict[type[nn.Module], Rule] = {}


def rule_for(*layers: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a rule (layer, parameter name, a, δ, B) → its per-sample gradients, for these layers."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(layers, rule))
        return rule

    return register


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule for a layer; None if there is none, as for a subclass that computes something else."""
    if "forward" in layer.__dict__:  # replaced on the object
        return None
    if _is_transformers_rms_norm(layer):
        return rms_norm
    if _is_convnext_layer_norm(layer):
        return convnext_layer_norm
    if isinstance(layer, nn.Embedding) and layer.scale_grad_by_freq:
        return None  # the samples' counts of a token mix
    kind = type(layer)
    for base in kind.__mro__:
        if base in RULES:
            same = all(getattr(kind, m, None) is getattr(base, m, None) for m in ("forward", "_conv_forward"))
            return RULES[base] if same else None
    return None


def layers_with_rules(
    model: nn.Module, trainable: Mapping[nn.Parameter, str]
) -> dict[nn.Module, dict[str, nn.Parameter]]:
    """Each layer that has a rule, with its own trainable parameters."""
    layers = {}
    for layer in model.modules():
        own = {name: p for name, p in layer.named_parameters(recurse=False) if p in trainable}
        if own and own.keys() <= {"weight", "bias"} and rule_of(layer) is not None:
            layers[layer] = own
    return layers


def seen_by_rules_only(model: nn.Module, layers: Mapping[nn.Module, Mapping[str, nn.Parameter]]) -> set[nn.Parameter]:
    """Parameters of layers that have a rule, less those that another module holds too."""
    held: set[nn.Parameter] = set()
    for module in model.modules():
        if module not in layers:
            held.update(module.parameters(recurse=False))
        if isinstance(module, nn.MultiheadAttention):  # reads its output layer's weight without calling it
            held.update(module.parameters())
    return {p for own in layers.values() for p in own.values()} - held


def is_affine(layer: nn.Module) -> bool:
    """Whether it is W·a + b at every position, the weight stored either way round."""
    return rule_of(layer) is linear


def sample_gradients(
    layer: nn.Module, names: Iterable[str], a: Tensor, delta: Tensor, batch: int
) -> dict[str, SampleGradients]:
    """Per-sample gradients of some of a layer's parameters.

    Args:
        layer: A layer that has a rule.
        names: Which of its parameters, "weight", "bias" or both.
        a: Its input; dim 0 is B, or a multiple of it that keeps a sample's rows together.
        delta: The gradient of the loss with respect to its output, dim 0 as in `a`.
        batch: B.
    """
    rule = rule_of(layer)
    if rule is None:
        raise ValueError(f"there is no rule for {type(layer).__name__}")
    return {name: rule(layer, name, a, delta, batch) for name in names}


@rule_for(nn.Linear, Conv1D)
def linear(layer: nn.Linear | Conv1D, name: str, a: Tensor, delta: Tensor, batch: int) -> SampleGradients:
    """W·a + b at every position. The weight is (O, I); of GPT-2's Conv1D it is (I, O)."""
    delta_BTO = positions(delta, batch)
    if name == "bias":
        return Dense(_summed(delta_BTO))
    a_BTI = positions(a.to(delta.dtype), batch)
    return Outer(a_BTI, delta_BTO) if isinstance(layer, Conv1D) else Outer(delta_BTO, a_BTI)


@rule_for(nn.Conv1d, nn.Conv2d)
def convolution(layer: nn.Conv1d | nn.Conv2d, name: str, a: Tensor, delta: Tensor, batch: int) -> SampleGradients:
    """Convolutions over one or two dims; those over one are images of height 1."""
    if name == "bias":
        return Dense(_channels(delta, batch))
    a = a.to(delta.dtype)
    padding = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):  # 'same' may be one longer at the end
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        a, padding = F.pad(a, layer._reversed_padding_repeated_twice, mode=mode), (0,) * (a.ndim - 2)
    shape, stride, dilation = layer.weight.shape, layer.stride, layer.dilation
    if a.ndim == 3:
        a, delta, shape = a.unsqueeze(2), delta.unsqueeze(2), torch.Size([*shape[:2], 1, *shape[2:]])
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    return Correlation(
        a,
        delta,
        batch,
        shape,
        stride,
        padding,
        dilation,
        layer.groups,
        layer.weight.shape,  # type: ignore[arg-type]
    )


@rule_for(nn.Embedding)
def embedding(layer: nn.Embedding, name: str, a: Tensor, delta: Tensor, batch: int) -> SampleGradients:
    """Rows of a table by their ids; ids that all samples share (positions) may come once, with dim 0 = 1."""
    ids = a.expand(batch, *a.shape[1:]).reshape(batch, -1)
    return Lookup(ids, positions(delta, batch), layer.num_embeddings, layer.padding_idx)


@rule_for(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm, name: str, a: Tensor, delta: Tensor, batch: int) -> SampleGradients:
    """Scale and shift after standardising the last dims."""
    shape = layer.normalized_shape
    if name == "weight":
        delta = F.layer_norm(wide(a), shape, eps=layer.eps).mul_(delta)
    return Dense(_summed(delta.reshape(batch, -1, *shape)))


def convnext_layer_norm(layer: Any, name: str, a: Tensor, delta: Tensor, batch: int) -> SampleGradients:
    """ConvNeXt's layer norm, whose standardised dim may come before the image's."""
    if layer.data_format == "channels_first":
        a, delta = a.movedim(1, -1), delta.movedim(1, -1)
    return layer_norm(layer, name, a, delta, batch)


@rule_for(nn.RMSNorm)
def rms_norm(layer: nn.Module, name: str, a: Tensor, delta: Tensor, batch: int) -> SampleGradients:
    """Scale after dividing by the root mean square of the last dims: PyTorch's layer and those of transformers."""
    epsilon: Any = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
    shape = layer.weight.shape
    if epsilon is None:
        epsilon = torch.finfo(a.dtype).eps
    scaled = wide(delta) * F.rms_norm(wide(a), list(shape), eps=epsilon)  # type: ignore[arg-type]
    return Dense(_summed(scaled.reshape(batch, -1, *shape)))  # type: ignore[misc]


@rule_for(nn.GroupNorm)
def group_norm(layer: nn.GroupNorm, name: str, a: Tensor, delta: Tensor, batch: int) -> SampleGradients:
    """Scale and shift of each channel after standardising groups of channels."""
    if name == "weight":
        delta = wide(delta) * F.group_norm(wide(a), layer.num_groups, eps=layer.eps)
    return Dense(_channels(delta, batch))


@rule_for(nn.BatchNorm1d, nn.BatchNorm2d)
def batch_norm(
    layer: nn.BatchNorm1d | nn.BatchNorm2d, name: str, a: Tensor, delta: Tensor, batch: int
) -> SampleGradients:
    """Scale and shift of each channel after standardising with the running statistics; not in train mode."""
    assert not layer.training, "in train mode batch normalisation mixes samples"
    if name == "weight":
        mean, variance = (None if x is None else wide(x) for x in (layer.running_mean, layer.running_var))
        delta = wide(delta) * F.batch_norm(wide(a), mean, variance, training=False, eps=layer.eps)
    return Dense(_channels(delta, batch))


def _is_transformers_rms_norm(layer: nn.Module) -> bool:
    """Whether it is one of transformers' many equal RMSNorm classes: x̂ times (1 +) its only parameter."""
    kind = type(layer)
    return (
        kind.__module__.startswith("transformers.")
        and (kind.__name__.endswith("RMSNorm") or kind.__name__ == "T5LayerNorm")
        and [name for name, _ in layer.named_parameters()] == ["weight"]
        and (hasattr(layer, "variance_epsilon") or hasattr(layer, "eps"))
    )


def _is_convnext_layer_norm(layer: nn.Module) -> bool:
    """Whether it is the layer norm of one of transformers' ConvNeXt models."""
    kind = type(layer)
    return (
        kind.__module__.startswith("transformers.models.convnext")
        and isinstance(layer, nn.LayerNorm)
        and getattr(layer, "data_format", None) in ("channels_first", "channels_last")
    )


# ---- shapes ---------------------------------------------------------------------------------------------------------


def positions(x: Tensor, batch: int) -> Tensor:
    """(B, …, D) or (B·k, …, D) as (B, T, D)."""
    return x.reshape(batch, -1, x.shape[-1])


def _channels(x_NC: Tensor, batch: int) -> Tensor:
    """(N, C, …) summed to (B, C), in at least float32."""
    x_BKCS = x_NC.reshape(batch, -1, x_NC.shape[1], math.prod(x_NC.shape[2:]))
    return x_BKCS.sum((1, 3), dtype=torch.promote_types(x_NC.dtype, torch.float32))


def _summed(x_BT: Tensor) -> Tensor:
    """(B, T, …) summed over T, in at least float32."""
    return x_BT.sum(1, dtype=torch.promote_types(x_BT.dtype, torch.float32))
