"""The exact route for any model: one forward, two backwards, two weightings of the per-sample gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from evenhand.gradients.projection import Projection


class BiasGradients:
    """Accumulates b beside e until a step combines them.

    e lives in `.grad`, where everything else expects it; b in buffers of its own. Micro-batches accumulate in both,
    and `combine_into_grad` is called once per optimizer step.

    Args:
        parameters: The parameters that are trained.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.bias: list[Tensor | None] = [None] * len(self.parameters)

    def backward(self, erm_loss: Tensor, bias_loss: Tensor, backward: Callable[..., None]) -> None:
        """Add the gradients of both losses, which share one graph.

        Args:
            erm_loss: Scalar whose gradient is (this micro-batch's part of) e.
            bias_loss: Scalar whose gradient is (its part of) b.
            backward: `accelerator.backward` or `Tensor.backward`: called with a loss, and `retain_graph`.
        """
        backward(erm_loss, retain_graph=True)
        erm = [p.grad for p in self.parameters]
        for parameter, gradient in zip(self.parameters, self.bias, strict=True):
            parameter.grad = gradient
        backward(bias_loss)
        self.bias = [p.grad for p in self.parameters]
        for parameter, gradient in zip(self.parameters, erm, strict=True):
            parameter.grad = gradient

    def combine_into_grad(self, projection: Projection) -> None:
        """Replace the accumulated e in `.grad` by the update, and forget b."""
        pairs = [
            (p.grad, b) for p, b in zip(self.parameters, self.bias, strict=True) if p.grad is not None and b is not None
        ]
        projection.combine([e for e, _ in pairs], [b for _, b in pairs])
        self.bias = [None] * len(self.parameters)
