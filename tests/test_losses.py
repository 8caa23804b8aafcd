from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from evenhand.losses import cross_entropy, gce_weights, generalized_cross_entropy, true_class_probability


def draw(batch: int, classes: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_BC = (3 * torch.randn(batch, classes, generator=generator, dtype=torch.float64)).to(dtype)
    return logits_BC, torch.randint(classes, (batch,), generator=generator)


def probabilities(logits_BC: Tensor, labels_B: Tensor) -> np.ndarray:
    """p of the true class, sample by sample in float64."""
    values = []
    for logits_C, label in zip(logits_BC.double().numpy(), labels_B.tolist(), strict=True):
        exponentials = np.exp(logits_C - logits_C.max())
        values.append(exponentials[label] / exponentials.sum())
    return np.array(values)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


shapes = {"batch": st.integers(1, 9), "classes": st.integers(2, 7), "seed": st.integers(0, 10_000)}


@given(**shapes)
@settings(max_examples=25)
def test_values_equal_their_definitions(batch: int, classes: int, seed: int) -> None:
    logits_BC, labels_B = draw(batch, classes, seed)
    p_B = probabilities(logits_BC, labels_B)
    np.testing.assert_allclose(cross_entropy(logits_BC, labels_B).numpy(), -np.log(p_B), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(true_class_probability(logits_BC, labels_B).numpy(), p_B, rtol=1e-10)


@given(**shapes, q=st.floats(0.05, 1))
@settings(max_examples=25)
def test_gce_gradient_is_the_weighted_ce_gradient(batch: int, classes: int, seed: int, q: float) -> None:
    logits_BC, labels_B = draw(batch, classes, seed)
    p_B = torch.from_numpy(probabilities(logits_BC, labels_B))
    logits_BC.requires_grad_()
    ours = gradient(generalized_cross_entropy(logits_BC, labels_B, q).sum(), logits_BC)
    plain = gradient(torch.nn.functional.cross_entropy(logits_BC, labels_B, reduction="sum"), logits_BC)
    torch.testing.assert_close(ours, (q * p_B**q)[:, None] * plain)


@given(**shapes, q=st.floats(0.05, 1))
@settings(max_examples=25)
def test_gce_gradient_is_q_times_that_of_the_papers_loss(batch: int, classes: int, seed: int, q: float) -> None:
    logits_BC, labels_B = draw(batch, classes, seed)
    logits_BC.requires_grad_()
    ours = gradient(generalized_cross_entropy(logits_BC, labels_B, q).sum(), logits_BC)
    p_B = torch.softmax(logits_BC, dim=1)[torch.arange(batch), labels_B]
    torch.testing.assert_close(ours, q * gradient(((1 - p_B**q) / q).sum(), logits_BC))


def test_gce_weights_by_hand() -> None:
    weights_B = gce_weights(torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64), 0.5)
    assert weights_B.tolist() == [0.0, 0.5 * 0.5, 0.5]


def test_gce_value_is_weight_times_cross_entropy() -> None:
    logits_BC, labels_B = draw(6, 4, 1)
    p_B = probabilities(logits_BC, labels_B)
    loss_B = generalized_cross_entropy(logits_BC, labels_B, 0.7)
    np.testing.assert_allclose(loss_B.numpy(), 0.7 * p_B**0.7 * -np.log(p_B), rtol=1e-10)


def test_probability_and_weights_carry_no_gradient() -> None:
    logits_BC, labels_B = draw(4, 3, 0)
    assert not true_class_probability(logits_BC.requires_grad_(), labels_B).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits_BC, labels_B = draw(8, 5, 2, dtype)
    p_B = probabilities(logits_BC, labels_B)  # of the rounded logits
    logits_BC.requires_grad_()
    for loss_B, expected in (
        (cross_entropy(logits_BC, labels_B), -np.log(p_B)),
        (generalized_cross_entropy(logits_BC, labels_B, 0.7), 0.7 * p_B**0.7 * -np.log(p_B)),
    ):
        assert loss_B.dtype == torch.float32
        np.testing.assert_allclose(loss_B.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
        assert gradient(loss_B.sum(), logits_BC).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    logits_BC, labels_B = draw(3, 3, 0, dtype)
    assert cross_entropy(logits_BC, labels_B).dtype == dtype


def test_hopeless_samples_have_finite_losses_and_no_gce_weight() -> None:
    logits_BC = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    labels_B = torch.tensor([1])
    assert cross_entropy(logits_BC, labels_B).item() == 1000.0
    assert generalized_cross_entropy(logits_BC, labels_B, 0.7).item() == 0.0
    assert gradient(generalized_cross_entropy(logits_BC, labels_B, 0.7).sum(), logits_BC).tolist() == [[0.0, 0.0]]
