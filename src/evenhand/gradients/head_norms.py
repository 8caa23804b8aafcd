"""Gradient norms of the last layer in closed form: a forward pass is enough.

Legend: B samples of a batch, C classes, F features that the head takes.

For a last layer z = W·h + c the cross-entropy gradient of sample i is the outer product (softmax(z) − onehot) ⊗ [h; 1],
whose entrywise p-norm is the product of the two vectors' p-norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evenhand.losses import IGNORED


def logit_gradients(logits_BC: Tensor, label_B: Tensor) -> Tensor:
    """∇ of each sample's cross-entropy with respect to its logits, softmax(z) − onehot, in float64.

    p_y − 1 is summed from the other classes, so that a sample the model is sure of keeps its digits. Of a sample with
    the label −100 it is 0.
    """
    class_B1 = label_B.clamp(min=0)[:, None]
    error_BC = torch.softmax(accurate(logits_BC), dim=1).scatter_(1, class_B1, 0.0)
    error_BC.scatter_(1, class_B1, -error_BC.sum(1, keepdim=True))
    return error_BC.masked_fill_((label_B == IGNORED).to(error_BC.device)[:, None], 0.0)


def accurate(x: Tensor) -> Tensor:
    """In float64, on the CPU where the device doesn't have it."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def head_norms(error_BC: Tensor, features_BF: Tensor, bias: bool, power: float) -> Tensor:
    """‖softmax(z) − onehot‖_p · ‖[h; 1]‖_p, shape (B,), float64."""
    input_BF = accurate(features_BF)
    if bias:  # the bias is a weight on a feature that is always 1
        input_BF = torch.cat([input_BF, torch.ones_like(input_BF[:, :1])], dim=1)
    return torch.linalg.vector_norm(error_BC, power, dim=1) * torch.linalg.vector_norm(input_BF, power, dim=1)


@contextmanager
def watching(head: nn.Linear) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What goes in and out of the head at each of its calls; no hook stays behind."""
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))

    handle = head.register_forward_hook(remember)
    try:
        yield seen
    finally:
        handle.remove()


def head_input(calls: list[tuple[Tensor, Tensor]], logits_BC: Tensor) -> Tensor | None:
    """The head's input of shape (B, F), if the head was the model's last operation."""
    if len(calls) != 1:
        return None
    features, output = calls[0]
    last = features.ndim == 2 and output.shape == logits_BC.shape and torch.equal(output.to(logits_BC.dtype), logits_BC)
    return features if last else None
