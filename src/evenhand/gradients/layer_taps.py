"""The taps of a model's layers, batch by batch: what is shown, and what can't be told apart by sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from evenhand.gradients.coverage import RowsOfSamples, is_shared
from evenhand.gradients.graph import Graph, Node, mismatched
from evenhand.gradients.shared import SharedRows
from evenhand.gradients.taps import TAP, Collect, tapped

Show = Callable[[nn.Module, Mapping[str, nn.Parameter], Tensor, Tensor], tuple[Tensor, Collect]]
"""From a layer, its parameters, a and its output to what a tap keeps of a, and what receives it with δ."""

NOT_IN_ROWS = "samples are not in dim 0"
ELSEWHERE = "used without their layers"


class LayerTaps:
    """Hooks that tap the outputs of layers while `batch` samples pass.

    Nothing that a hook does changes what the model computes: a tap is an identity.

    Args:
        layers: The layers, with their parameters by name.
        chosen: The parameters that rules cover now; the owner takes out what moves elsewhere.
        collect: Receives a and δ of embeddings whose rows all samples share.
        show: Says what other taps keep, and what receives it.
        starts: The graph begins at the taps, since no parameter requires gradients.
    """

    def __init__(
        self,
        layers: Mapping[nn.Module, Mapping[str, nn.Parameter]],
        chosen: set[nn.Parameter],
        collect: Collect,
        show: Show,
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

    def prune(self) -> None:
        """Take the hooks off layers that have no chosen parameter left."""
        for layer in [m for m in self._handles if self.chosen.isdisjoint(self.layers[m].values())]:
            self._handles.pop(layer).remove()

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
        kept, collect = self._show(layer, own, a, output)
        if own.keys() == {"bias"}:  # whose gradient is made of δ alone
            kept = output.new_empty(0)
        return tapped(output, kept, layer, own, collect, by_sample=by_sample, starts=self._starts)

    def _misfit(self, layer: nn.Module, node: Node | None) -> None:
        self._misfits.append((layer, node))

    def _share(self, layer: nn.Module, own: dict[str, nn.Parameter], ids: Tensor, output: Tensor) -> Tensor:
        if self._starts:
            output = tapped(output, ids, layer, {}, _nothing, starts=True)
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
