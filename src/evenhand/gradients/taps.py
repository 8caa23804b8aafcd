"""Taps: identities on layers' outputs that show a layer's input a and its output's gradient δ in the backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Collect = Callable[[nn.Module, Mapping[str, nn.Parameter], Tensor, Tensor], None]
"""Receives a layer, its parameters by name, a and δ."""


def tapped(
    output: Tensor,
    a: Tensor,
    layer: nn.Module,
    own: Mapping[str, nn.Parameter],
    collect: Collect,
    *,
    by_sample: bool | None = None,
    starts: bool = False,
) -> Tensor:
    """The output through a tap.

    Args:
        output: A layer's output.
        a: What is shown with its gradient; kept by `save_for_backward`, so that checkpointing and hooks that move
            saved tensors apply to it.
        layer: The layer.
        own: Its parameters in question, by name.
        collect: Receives all of them in the backward.
        by_sample: Whether its rows are known to lie by sample, for the layers after it.
        starts: The output needs a gradient, whatever it was made of.
    """
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
        del switch
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
