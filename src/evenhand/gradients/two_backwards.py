"""The exact route for any model: a second backward through the graph that is there already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

Backward = Callable[..., None]


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
        if len(wanted) == len(every) or not _restricted(loss, wanted, backward):
            backward(loss, retain_graph=retain_graph)
        return [p.grad for p in wanted]
    finally:
        for p, gradient in zip(every, before, strict=True):
            p.grad = gradient


def _restricted(loss: Tensor, wanted: Sequence[nn.Parameter], backward: Backward) -> bool:
    """A backward to some of the parameters only; False where reentrant checkpointing can't do that."""
    try:
        # the graph must outlive a failure half-way; it goes with the loss
        backward(loss, retain_graph=True, inputs=list(wanted))
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        for p in wanted:
            p.grad = None
        return False
    return True
