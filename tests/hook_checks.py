"""Checks that several tests of the gradient engine's hooks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capture_models import (
    CLASSES,
    FLOAT64,
    Inputs,
    assert_close,
    gradients_in,
)
from capture_models import logits_of as any_logits
from evenhand.gradients import WeightedGradients


def logits_of(model: nn.Module, inputs: Inputs) -> Tensor:
    output = model(**inputs)
    return output["logits"] if isinstance(output, dict) else any_logits(lambda **_: output, inputs)  # type: ignore[arg-type]


def labels_and_weights(n: int) -> tuple[Tensor, Tensor]:
    return torch.randint(0, CLASSES, (n,)), 0.1 + torch.rand(n, dtype=torch.float64)


def check_sums(engine: WeightedGradients, inputs: Inputs, n: int, tolerance: float = FLOAT64) -> None:
    """One batch's e and b against a backward of each loss."""
    model = engine.model
    labels_B, weight_B = labels_and_weights(n)
    model.zero_grad()
    engine.reset()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss_B = F.cross_entropy(logits_of(model, inputs), labels_B, reduction="none")
    right = []
    for weights in (torch.ones_like(weight_B), weight_B):
        found = torch.autograd.grad(
            (weights * loss_B).mean(), list(named.values()), retain_graph=True, allow_unused=True
        )
        right.append(
            {k: torch.zeros_like(p) if g is None else g for (k, p), g in zip(named.items(), found, strict=True)}
        )
    with engine.forward():
        logits_BC = logits_of(model, inputs)
    engine.backward(F.cross_entropy(logits_BC, labels_B, reduction="none"), weight_B)
    assert_close(gradients_in(model), right[0], tolerance)
    assert_close(engine.bias_gradients(), right[1], tolerance)
