"""Slow, obviously correct versions of the mathematics, written from the definitions.

Legend: B samples of a batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def probability(logits: Tensor, label: int) -> float:
    """p of the true class of one sample."""
    logits = logits.detach().double()
    return math.exp(float(logits[label]) - float(torch.logsumexp(logits, 0)))


def sample_gradients(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    parameters: Sequence[Tensor],
    logits_of: Callable[[Tensor], Tensor],
) -> list[list[Tensor]]:
    """∇l_i for every sample, one backward a sample: [sample][parameter]."""
    gradients = []
    for i in range(len(labels)):
        loss = nn.functional.cross_entropy(logits_of(model(inputs[i : i + 1])), labels[i : i + 1])
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)])
    return gradients


def weighted_sum(gradients: list[list[Tensor]], weights: Sequence[float]) -> list[Tensor]:
    """(1/B) Σ w_i g_i for each parameter."""
    total = [torch.zeros_like(g) for g in gradients[0]]
    for sample, weight in zip(gradients, weights, strict=True):
        for t, g in zip(total, sample, strict=True):
            t += weight * g / len(gradients)
    return total


def entrywise_norm(tensors: Sequence[Tensor], power: float) -> float:
    """The p-norm of all entries of several tensors as one vector."""
    entries = torch.cat([t.detach().double().abs().flatten() for t in tensors])
    return float(entries.max()) if math.isinf(power) else float((entries**power).sum()) ** (1 / power)


def edge_update(erm: Sequence[Tensor], bias: Sequence[Tensor], projection: str, alpha: float) -> list[Tensor]:
    """EDGE's update of each tensor, from the definitions: e − α·(b − its projection on the shared direction)."""
    e_total, b_total = _norm(torch.cat([e.flatten() for e in erm])), _norm(torch.cat([b.flatten() for b in bias]))
    if projection == "naive":
        return [e - alpha * b for e, b in zip(erm, bias, strict=True)]
    if projection == "global":
        e_all, b_all = torch.cat([e.flatten() for e in erm]), torch.cat([b.flatten() for b in bias])
        joined = _true_projection(e_all, b_all, alpha, e_total, b_total)
        parts = joined.split([e.numel() for e in erm])
        return [part.reshape(e.shape) for part, e in zip(parts, erm, strict=True)]
    updates = []
    for e, b in zip(erm, bias, strict=True):
        if projection == "tensor" or e.ndim < 2:
            updates.append(_true_projection(e.flatten(), b.flatten(), alpha, e_total, b_total).reshape(e.shape))
        elif projection == "row":
            rows = [
                _true_projection(er.flatten(), br.flatten(), alpha, e_total, b_total)
                for er, br in zip(e, b, strict=True)
            ]
            updates.append(torch.stack(rows).reshape(e.shape))
        else:
            updates.append(_published(e, b, alpha, e_total, b_total))
    return updates


def _true_projection(e: Tensor, b: Tensor, alpha: float, e_total: float, b_total: float) -> Tensor:
    e_norm, b_norm = _norm(e), _norm(b)
    if e_norm <= 1e-12 * e_total or b_norm <= 1e-12 * b_total:
        return e.clone()
    shared = e / e_norm + b / b_norm
    squared = float(shared @ shared)
    if squared < 1e-20:  # opposite directions: the limit of the projection along any path to them is b/2 + ρe/2 → 0·…
        return (1 + alpha / 2 * b_norm / e_norm) * e - alpha / 2 * b
    return e - alpha * (b - float(b @ shared) / squared * shared)


def _published(e: Tensor, b: Tensor, alpha: float, e_total: float, b_total: float) -> Tensor:
    """The listing: norms per tensor, dot products per row, no division by the shared direction's length."""
    e_norm, b_norm = _norm(e.flatten()), _norm(b.flatten())
    if e_norm <= 1e-12 * e_total or b_norm <= 1e-12 * b_total:
        return e.clone()
    e_unit, b_unit = e / e_norm, b / b_norm
    update = torch.empty_like(e)
    for r in range(len(e)):
        shared = (e_unit[r] + b_unit[r]).flatten()
        row = b[r].flatten()
        update[r] = e[r] - alpha * (row - float(row @ shared) * shared).reshape(e[r].shape)
    return update


def _norm(vector: Tensor) -> float:
    return math.sqrt(float((vector.double() ** 2).sum()))


def relative_error(ours: Tensor, expected: Tensor, total: float) -> float:
    """Norm of the error over the larger of the tensor's own norm and 1e-6 of the global one, `total`."""
    error = float((ours.double() - expected.double()).norm())
    return 0.0 if error == 0 else error / max(float(expected.double().norm()), 1e-6 * total)


def layer_gradients(
    layer: nn.Module, a: Tensor, sample_loss: Callable[[Tensor, int], Tensor]
) -> list[dict[str, Tensor]]:
    """∇ of each sample's loss with respect to one layer's parameters, by name, one backward a sample."""
    names, parameters = zip(*layer.named_parameters(), strict=True)
    gradients = []
    for i in range(len(a)):
        found = torch.autograd.grad(sample_loss(layer(a[i : i + 1])[0], i), parameters)
        gradients.append({n: g.to_dense() if g.is_sparse else g for n, g in zip(names, found, strict=True)})
    return gradients


def model_gradients(
    logits_of_sample: Callable[[int], Tensor], labels: Tensor, parameters: Sequence[nn.Parameter], scale: float
) -> list[list[Tensor]]:
    """∇(scale·l_i) for every sample of a whole model, one forward and backward a sample: [sample][parameter]."""
    gradients = []
    for i in range(len(labels)):
        loss = scale * nn.functional.cross_entropy(logits_of_sample(i), labels[i : i + 1])
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)])
    return gradients


def balanced_alpha(probabilities: Sequence[float], q: float, untrusted: float) -> float:
    """By bisection: α in [0, 1/q] at which the weighted hits of a biased model exceed its errors by `untrusted`."""

    def excess(alpha: float) -> float:
        weights = [1 - alpha * q * p**q for p in probabilities]
        hits = sum(v * p for v, p in zip(weights, probabilities, strict=True))
        errors = sum(v * (1 - p) for v, p in zip(weights, probabilities, strict=True))
        return hits - errors - untrusted

    low, high = 0.0, 1 / q
    if excess(low) <= 0:
        return low
    if excess(high) >= 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low


def focal_loss(logits: Tensor, label: int, gamma: float) -> float:
    """(1 − p)^γ · −log p of one sample."""
    p = probability(logits, label)
    return (1 - p) ** gamma * -math.log(p)


class LfFWeights:
    """LfF's weights W = L_b / (L_b + L_d + 1e-8), one sample at a time, from the released code."""

    def __init__(self, ema: float) -> None:
        self.ema = ema
        self.averages: dict[str, dict[int, float]] = {"biased": {}, "debiased": {}}
        self.label_of: dict[int, int] = {}

    def update(self, losses: dict[str, list[float]], labels: list[int], indices: list[int]) -> list[float]:
        """Take in the losses that both models give a batch; the weight of each of its samples."""
        for i, index in enumerate(indices):
            self.label_of[index] = labels[i]
            for model, averages in self.averages.items():
                new = losses[model][i]
                averages[index] = self.ema * averages[index] + (1 - self.ema) * new if index in averages else new
        weights = []
        for label, index in zip(labels, indices, strict=True):
            scaled = {}
            for model, averages in self.averages.items():
                largest = max(value for other, value in averages.items() if self.label_of[other] == label)
                scaled[model] = averages[index] / largest if largest > 0 else 0.0
            weights.append(scaled["biased"] / (scaled["biased"] + scaled["debiased"] + 1e-8))
        return weights


def batch_probabilities(scores: Sequence[float], mix: float, floor: float) -> list[float]:
    """Single-stage PGD's probabilities over a batch."""
    n, total = len(scores), sum(scores)
    mixed = [mix * max(s / total if total > 0 else 1 / n, floor) + (1 - mix) / n for s in scores]
    return [m / sum(mixed) for m in mixed]
