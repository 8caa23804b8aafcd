"""Embeddings whose rows all samples share, such as positions: δ of each sample without a change to the forward.

Legend: B samples.

An embedding of dim 0 = 1 is summed over the batch in the backward. The graph has δ of each sample one node earlier,
where the output is added to, or copied for, every sample: a hook on that node reads it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.gradients.graph import Graph, Node, spreads_over_samples
from evenhand.gradients.taps import Collect


@dataclass(frozen=True)
class SharedRows:
    """One call of such an embedding."""

    layer: nn.Module
    own: Mapping[str, nn.Parameter]
    ids: Tensor
    node: Node  # of its output
    shape: torch.Size  # of its output

    def watch(self, graph: Graph, batch: int, collect: Collect) -> list[Callable[[], None]] | None:
        """Hand δ of each sample to `collect` in the backward.

        Returns:
            What takes the hooks away, one a use; None if the graph has a use where the samples can't be told apart.
        """
        users = graph.users(self.node)
        if not all(spreads_over_samples(user, self.shape, batch) for user in users):
            return None

        def collected(gradients: tuple[Any, ...]) -> None:
            if gradients[0] is not None:
                delta = gradients[0].sum_to_size(batch, *self.shape[1:])
                collect(self.layer, self.own, self.ids, delta)

        return [user.register_prehook(collected).remove for user in users]
