"""The exact route for any model: a second backward through the graph that is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evenhand.gradients.graph import Graph

Backward = Callable[..., None]


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch normalisation in train mode uses the batch's statistics inside, but leaves its running ones alone."""
    tracking = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    try:
        for module in tracking:
            module.track_running_stats = False
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def gradients_beside(
    loss: Tensor,
    wanted: Sequence[nn.Parameter],
    every: Sequence[nn.Parameter],
    backward: Backward,
    *,
    retain_graph: bool = False,
) -> list[Tensor | None]:
    """Gradients of `loss`, while `.grad` stays as it is.

    Args:
        loss: A scalar on a graph that was retained.
        wanted: The parameters whose gradients are asked for.
        every: All trainable parameters, `wanted` among them.
        backward: `Tensor.backward` or `accelerator.backward`: called with the loss, `retain_graph` and `inputs`.
        retain_graph: Whether another backward follows.
    """
    before = [p.grad for p in every]
    for p in every:
        p.grad = None
    try:
        # reentrant checkpointing refuses a backward to some parameters, or misses those that only its part uses
        if len(wanted) == len(every) or Graph(loss.grad_fn).reentrant:
            backward(loss, retain_graph=retain_graph)
        else:  # the graph goes with the loss
            backward(loss, retain_graph=True, inputs=list(wanted))
        return [p.grad for p in wanted]
    finally:
        for p, gradient in zip(every, before, strict=True):
            p.grad = gradient
