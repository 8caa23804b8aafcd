"""Which parameters a model's structure lets the rules reach; what it doesn't show, verification finds."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from evenhand.gradients.graph import rows_from_samples
from evenhand.gradients.layers import rule_of

_TRACED, _UNTRACED = 3, 8  # numbers of rows a sample that are verified for one layer


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


def is_shared(layer: nn.Module, output: Tensor, batch: int) -> bool:
    """Whether an embedding gives the same rows to all B samples, as position embeddings do: dim 0 is 1."""
    return isinstance(layer, nn.Embedding) and output.ndim > 1 and output.shape[0] == 1 != batch


class RowsOfSamples:
    """Tells whether the rows of layers' outputs lie by sample: dim 0 is B, or k·B with k rows of each in turn.

    A number of rows that is a multiple of B isn't proof: the tokens that go to an expert may be as many by chance.
    Where the graph shows that rows were picked by index they don't count as samples. Where it shows nothing, each k
    that is new for a layer is verified.
    """

    def __init__(self) -> None:
        self._known: dict[nn.Module, set[int]] = {}

    def of(self, layer: nn.Module, a: Tensor, output: Tensor, batch: int) -> tuple[bool | None, bool]:
        """What is known about one call's rows.

        Returns:
            True if they lie by sample, False if they don't, None if verification must tell; and whether this number
            of rows is new, so that it must tell now.
        """
        rows, over = divmod(output.shape[0], batch)
        if over or (isinstance(layer, nn.Embedding) and rows != 1):
            return False, False
        traced = True if batch == 1 or (rows == 1 and output.ndim > 2) else rows_from_samples(a, batch)
        if traced is False or batch == 1:
            return traced, False
        known = self._known.setdefault(layer, set())
        if rows in known or (traced and len(known) >= _TRACED):
            return traced, False
        known.add(rows)
        return (traced, len(known) > 1) if len(known) <= _UNTRACED else (False, False)
