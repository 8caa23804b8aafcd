"""Which parameters a model's structure lets the rules reach; what it doesn't show, verification finds (capture.py)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from evenhand.gradients.layers import rule_of


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


def by_sample(layer: nn.Module, output: Tensor, batch: int) -> Tensor | None:
    """A layer's output with dim 0 = `batch` or a multiple of it; None where its rows can't be told apart by sample.

    Positions that an embedding gives once for all samples are expanded: where they are added their δ would be summed.
    """
    table = isinstance(layer, nn.Embedding)
    if table and output.shape[0] == 1:
        return output.expand(batch, *output.shape[1:])
    return None if output.shape[0] % batch or (table and output.shape[0] != batch) else output
