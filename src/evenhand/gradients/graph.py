"""What the autograd graph of a forward shows: the uses of parameters, the users of a tensor, where rows come from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

Node = Any
"""A node of the graph: what `grad_fn` is, or a custom function's context."""

_LEAF = "AccumulateGrad"
_REENTRANT = "CheckpointFunctionBackward"
# The same values under another node: who uses this uses the parameter below.
_ALIASES = frozenset(
    f"{name}Backward0" for name in ("T", "Transpose", "Permute", "ToCopy", "View", "UnsafeView", "Alias", "Clone")
)
# These take rows of dim 0 by values that change from batch to batch. The second group has a dim of its own.
_PICK_ANY = frozenset(f"{name}Backward0" for name in ("MaskedSelect", "Take", "PackPaddedSequence"))
_PICK_DIM = frozenset(
    f"{name}Backward0"
    for name in ("IndexSelect", "Gather", "Sort", "Topk", "Slice", "Split", "SplitWithSizes", "RepeatInterleave")
)
_NODES_LOOKED_AT = 64  # upwards of a layer; between two layers there are fewer


class Graph:
    """The graph below a loss, walked once: about a microsecond a node.

    Args:
        root: The loss's `grad_fn`; None where nothing requires gradients.
        watched: Nodes whose users are asked for.
        tap: The name of the nodes of taps.
    """

    def __init__(self, root: Node | None, watched: Collection[Node] = (), tap: str = "") -> None:
        self.taps: list[Node] = []
        self.reentrant = False  # a part of it is made in the backward alone, by reentrant checkpointing
        self._users: dict[Node, list[Node]] = {}  # of leaves, aliases and watched nodes, one an edge
        kept = {_LEAF, *_ALIASES}
        watched = set(watched)
        seen, left = {root}, [] if root is None else [root]
        while left:
            node = left.pop()
            for child, _ in node.next_functions:
                if child is None:
                    continue
                kind = type(child).__name__
                if kind in kept or child in watched:
                    self._users.setdefault(child, []).append(node)
                if child not in seen:
                    seen.add(child)
                    left.append(child)
                    if kind == tap:
                        self.taps.append(child)
                    elif kind == _REENTRANT:
                        self.reentrant = True

    def users(self, node: Node) -> list[Node]:
        """The nodes that use a watched one, once for each use."""
        return self._users.get(node, [])

    def parameter_uses(self) -> dict[nn.Parameter, int]:
        """How many operations use each parameter, views and casts of it not counted."""
        return {node.variable: self._uses(node) for node in self._users if type(node).__name__ == _LEAF}

    def _uses(self, node: Node) -> int:
        return sum(self._uses(user) if type(user).__name__ in _ALIASES else 1 for user in self.users(node))


def spreads_over_samples(user: Node, shape: torch.Size, batch: int) -> bool:
    """Whether a use of a tensor with dim 0 = 1 adds it to, or copies it for, each of B samples.

    Then the gradient of what the use makes, summed to (B, *shape[1:]), is that of each sample's own copy.
    """
    kind, made = type(user).__name__, made_shape(user)
    if made is None or len(made) != len(shape) or made[0] != batch:
        return False
    if kind == "AddBackward0":
        return user._saved_alpha == 1
    return kind == "ExpandBackward0" or (kind == "RepeatBackward0" and made[1:] == tuple(shape[1:]))


def rows_from_samples(tensor: Tensor, batch: int) -> bool | None:
    """Whether a tensor's rows come from those of B samples as they are.

    Returns:
        False if rows were picked by index, as the tokens of an expert are. True if they come from a tensor with a
        sample in each row of dim 0. None if the graph doesn't show it.
    """
    found = None
    left: list[Node] = [] if tensor.grad_fn is None else [tensor.grad_fn]
    seen = set(left)
    while left and len(seen) < _NODES_LOOKED_AT:
        node = left.pop()
        known = getattr(node, "by_sample", None)  # a tap's, of its layer
        if known is None and not hasattr(node, "by_sample"):
            shape = made_shape(node)
            known = True if shape is not None and len(shape) > 2 and shape[0] == batch else _by_index(node, batch)
        if known is False:
            return False
        if known is None:
            fresh = [child for child, _ in node.next_functions if child is not None and child not in seen]
            left += fresh
            seen.update(fresh)
        found = found or known
    return found


def made_shape(node: Node) -> tuple[int, ...] | None:
    """The shape of what a node made."""
    made = getattr(node, "_input_metadata", None)
    return tuple(made[0].shape) if made else None


def _by_index(node: Node, batch: int) -> bool | None:
    """False for a node that picks rows by values, True if it picks one of each sample in turn, None for others."""
    kind = type(node).__name__
    if _of_parameter(node):
        return None
    if kind == "IndexBackward0":
        first = node._saved_indices[0]
        if first is None:
            return None
        in_turn = first.dtype == torch.long and first.shape == (batch,) and node._saved_self_sym_sizes[0] == batch
        return in_turn and torch.equal(first, torch.arange(batch, device=first.device))
    if kind == "EmbeddingBackward0":  # a lookup in something that was computed
        return False
    if kind in _PICK_DIM and _dim(node) == 0:
        sizes = getattr(node, "_saved_self_sym_sizes", None)
        whole = kind == "SliceBackward0" and sizes is not None and sizes[0] == (made_shape(node) or (None,))[0]
        return None if whole else False
    return False if kind in _PICK_ANY else None


def _of_parameter(node: Node) -> bool:
    """Whether it works on a parameter, as lookups in tables do."""
    while node is not None and node.next_functions:
        node = node.next_functions[0][0]
        if type(node).__name__ not in _ALIASES:
            break
    return node is None or type(node).__name__ == _LEAF


def _dim(node: Node) -> int:
    dim = node._saved_dim
    dim -= 2**64 * (dim >= 2**63)  # a negative one is stored unsigned
    return dim % max(len(made_shape(node) or (0,)), 1)


def mismatched(uses: dict[nn.Parameter, int], seen: Iterable[nn.Parameter], of: set[nn.Parameter]) -> set[nn.Parameter]:
    """Parameters that are used more or less often than taps saw.

    Args:
        uses: The uses that the graph has.
        seen: The parameters of the uses that taps saw, one an entry.
        of: The parameters in question.
    """
    counted = dict.fromkeys(of, 0)
    for p in seen:
        if p in counted:
            counted[p] += 1
    return {p for p, n in counted.items() if uses.get(p, 0) != n}
