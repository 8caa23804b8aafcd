"""Per-sample cross-entropy (ERM) and generalised cross-entropy (GCE), and GCE's weights.

Legend: B samples of a batch, C classes.

The gradient of GCE's loss (1 − p^q)/q is p^q · ∇CE. Like the released code of LfF, EDGE and PGD we keep the factor q,
so that the weight of a sample is w = q·p^q throughout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""The label of a sample that doesn't count, as in PyTorch and transformers."""


def as_classes(labels: Tensor) -> Tensor:
    """Labels as the numbers of classes: booleans, integers of any size and whole floats; others as they are."""
    if labels.dtype == torch.long or (labels.is_floating_point() and not bool((labels == labels.round()).all())):
        return labels
    return labels if labels.is_complex() else labels.long()


def cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy of each sample, l_i = −log p_i; shape (B,), computed in at least float32.

    Of a sample with the label −100 it is 0, and so is its gradient.
    """
    return F.cross_entropy(_at_least_float32(logits_BC), labels_B, reduction="none", ignore_index=IGNORED)


def counted(labels_B: Tensor) -> Tensor:
    """How many samples count, those whose label isn't −100: a scalar tensor."""
    return labels_B.ne(IGNORED).sum()


def true_class_probability(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """p_i, the probability that the model gives to the true class; shape (B,), detached. 1 for a label of −100."""
    return torch.exp(-cross_entropy(logits_BC.detach(), labels_B))


def gce_weights(probability_B: Tensor, q: float) -> Tensor:
    """w_i = q·p_i^q: how much of a sample's cross-entropy gradient GCE keeps; shape (B,).

    Args:
        probability_B: Probability of the true class, shape (B,).
        q: Exponent in (0, 1]; 0.7 in the GCE, LfF, PGD and EDGE papers.
    """
    return q * probability_B**q


def generalized_cross_entropy(logits_BC: Tensor, labels_B: Tensor, q: float) -> Tensor:
    """Per-sample loss w_i·l_i with w_i detached, whose gradient is GCE's times q; shape (B,).

    As in the released code its value is not (1 − p^q)/q, only its gradient is (up to the factor q).
    """
    loss_B = cross_entropy(logits_BC, labels_B)
    return gce_weights(torch.exp(-loss_B.detach()), q) * loss_B


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
