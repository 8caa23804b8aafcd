"""Taps: identities on layers' outputs that show a layer's input a and its output's gradient δ in the backward.

Legend: B samples.

An embedding whose rows all samples share, such as positions, has dim 0 = 1 and is summed over the batch in the
backward. The graph has δ of each sample one node earlier, where the output is added to, or copied for, every sample: a
hook on that node reads it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from evenhand.gradients.graph import Graph, Node, mismatched, rows_from_samples, spreads_over_samples

Collect = Callable[[nn.Module, Mapping[str, nn.Parameter], Tensor, Tensor], None]
"""Receives a layer, its parameters by name, a and δ."""

Show = Callable[[nn.Module, Mapping[str, nn.Parameter], Tensor, Tensor], tuple[Tensor, Collect]]
"""From a layer, its parameters, a and its output to what a tap keeps of a, and what receives it with δ."""

NOT_IN_ROWS = "samples are not in dim 0"
ELSEWHERE = "used without their layers"
_TRACED, _UNTRACED = 3, 8  # numbers of rows a sample that are verified for one layer


def _tapped(
    output: Tensor,
    a: Tensor,
    layer: nn.Module,
    own: Mapping[str, nn.Parameter],
    collect: Collect,
    *,
    by_sample: bool | None = None,  # whether its rows are known to lie by sample, for the layers after it
    starts: bool = False,  # the output needs a gradient, whatever it was made of
) -> Tensor:
    """A layer's output through a tap; a is kept by `save_for_backward`, so that checkpointing applies to it."""
    switch = torch.zeros((), requires_grad=True) if starts else None
    return cast(Tensor, _Tap.apply(output, switch, a.detach(), layer, own, collect, by_sample))


class _Tap(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        switch: Tensor | None,
        a: Tensor,
        layer: nn.Module,
        own: Mapping[str, nn.Parameter],
        collect: Collect,
        by_sample: bool | None,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a)
        ctx.layer, ctx.own, ctx.collect, ctx.by_sample = layer, own, collect, by_sample
        return output.data  # neither a copy nor a view: what follows may work in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor | None) -> tuple[Tensor | None, *tuple[None, ...]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if delta is not None:
            ctx.collect(ctx.layer, ctx.own, *ctx.saved_tensors, delta)
        return delta, None, None, None, None, None, None


TAP = f"{_Tap.__name__}Backward"
"""The name of their nodes in the graph."""


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


class LayerTaps:
    """Hooks that tap the outputs of layers while `batch` samples pass.

    Nothing that a hook does changes what the model computes: a tap is an identity.

    Args:
        layers: The layers, with their parameters by name.
        chosen: The parameters that rules cover now, shared with the owner; `release` takes out what moves elsewhere.
        collect: Receives a and δ.
        show: Says what a tap keeps in place of a, and what receives it; not of embeddings whose rows all samples share.
        starts: The graph begins at the taps, since no parameter requires gradients.
    """

    def __init__(
        self,
        layers: Mapping[nn.Module, Mapping[str, nn.Parameter]],
        chosen: set[nn.Parameter],
        collect: Collect,
        show: Show | None = None,
        *,
        starts: bool = False,
    ) -> None:
        self.layers, self.chosen = layers, chosen
        self.armed = False  # also in the backward, where checkpointing runs forwards again
        self.batch: int | None = None
        self.called: set[nn.Parameter] = set()  # their layers had a tap in this forward
        self.renewed: set[nn.Parameter] = set()  # their layers gave a number of rows that must be verified
        self.uncertain: set[nn.Parameter] = set()  # only verification can tell where their rows come from
        self.shared_uses: dict[nn.Parameter, int] = {}  # how often `collect` will receive δ of rows that are shared
        self._collect, self._show, self._starts = collect, show, starts
        self._rows = RowsOfSamples()
        self._misfits: list[tuple[nn.Module, Node | None]] = []
        self._shared: list[SharedRows] = []
        self._unwatch: list[Callable[[], None]] = []
        self._handles: dict[nn.Module, RemovableHandle] = {}

    def attach(self) -> None:
        """Hooks on the layers with chosen parameters."""
        for layer, own in self.layers.items():
            if not self.chosen.isdisjoint(own.values()):
                self._handles[layer] = layer.register_forward_hook(self._hook, with_kwargs=True)

    def detach(self) -> None:
        """Take all hooks off."""
        self.forget()
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    def release(self, parameters: set[nn.Parameter], names: Mapping[nn.Parameter, str]) -> str:
        """Rules cover these no longer, and layers with none left lose their hook; the names of those they covered."""
        moved = [name for p, name in names.items() if p in parameters & self.chosen]
        self.chosen -= parameters
        for layer in [m for m in self._handles if self.chosen.isdisjoint(self.layers[m].values())]:
            self._handles.pop(layer).remove()
        return ", ".join(moved)

    def begin(self, batch: int | None) -> None:
        """A forward of `batch` samples comes; None if that shows later."""
        self.forget()
        self.armed, self.batch = True, batch

    def forget(self) -> None:
        """Let go of the last forward's graph."""
        for remove in self._unwatch:
            remove()
        self.armed, self.batch = False, None
        self.called, self.renewed, self.uncertain, self.shared_uses = set(), set(), set(), {}
        self._misfits, self._shared, self._unwatch = [], [], []

    def own(self, layer: nn.Module) -> dict[str, nn.Parameter]:
        """The chosen parameters that a layer has now, which another's may have taken the place of."""
        found = ((name, layer._parameters.get(name)) for name in self.layers[layer])
        return {name: p for name, p in found if p is not None and p in self.chosen}

    def _hook(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if not self.armed or not (own := self.own(layer)):
            return None
        a: Tensor = args[0] if args else next(iter(kwargs.values()))
        grad = torch.is_grad_enabled()
        if self.batch is not None and is_shared(layer, output, self.batch):
            return self._share(layer, own, a, output) if grad else self._misfit(layer, None)
        if self.batch is None or output.numel() == 0:  # a model called without a tensor; an expert without tokens
            return None if self.batch is not None else self._misfit(layer, None)
        by_sample, new = self._rows.of(layer, a, output, self.batch)
        if by_sample is False:
            return self._misfit(layer, output.grad_fn if grad and not self._starts else None)
        if not grad or not (self._starts or output.requires_grad):
            return None
        self.called.update(own.values())
        self.renewed.update(own.values() if new else ())
        if by_sample is None and (a.grad_fn is not None or output.shape[0] != self.batch):
            self.uncertain.update(own.values())
        kept, collect = self._show(layer, own, a, output) if self._show else (a, self._collect)
        if own.keys() == {"bias"}:  # whose gradient is made of δ alone
            kept = output.new_empty(0)
        return _tapped(output, kept, layer, own, collect, by_sample=by_sample, starts=self._starts)

    def _misfit(self, layer: nn.Module, node: Node | None) -> None:
        self._misfits.append((layer, node))

    def _share(self, layer: nn.Module, own: dict[str, nn.Parameter], ids: Tensor, output: Tensor) -> Tensor:
        if self._starts:
            output = _tapped(output, ids, layer, {}, _nothing, starts=True)
        self.called.update(own.values())
        self._shared.append(SharedRows(layer, own, ids.detach(), output.grad_fn, output.shape))
        return output

    def check(self, root: Node | None) -> dict[str, set[nn.Parameter]]:
        """Compare the graph below the loss with what taps saw, and watch the rows that samples share.

        Returns:
            The parameters that rules can't cover in this batch, by the reason.
        """
        nodes = [node for _, node in self._misfits if node is not None] + [use.node for use in self._shared]
        if self._starts and not nodes:
            return {NOT_IN_ROWS: self._parameters_of(layer for layer, _ in self._misfits)} if self._misfits else {}
        graph = Graph(root, nodes, TAP)
        # what isn't part of the loss needs no samples
        apart = self._parameters_of(layer for layer, node in self._misfits if node is None or graph.users(node))
        seen = [p for tap in graph.taps for p in tap.own.values() if p.requires_grad]
        for use in self._shared:
            hooks = use.watch(graph, self.batch or 1, self._collect)
            if hooks is None:
                apart.update(use.own.values())
            else:
                self._unwatch += hooks
                seen += list(use.own.values()) if hooks else []
                for p in use.own.values():
                    self.shared_uses[p] = self.shared_uses.get(p, 0) + len(hooks)
        known = bool(seen) and not self._starts
        elsewhere = mismatched(graph.parameter_uses(), seen, self.chosen - apart) if known else set()
        return {reason: found for reason, found in ((NOT_IN_ROWS, apart), (ELSEWHERE, elsewhere)) if found}

    def _parameters_of(self, layers: Any) -> set[nn.Parameter]:
        return {p for layer in layers for p in self.own(layer).values()}


def _nothing(*_: Any) -> None:
    pass
