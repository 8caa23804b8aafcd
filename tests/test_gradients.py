from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import reference
from evenhand.gradients import Projection, gradient_norms
from evenhand.models import ModelSource
from evenhand.validation import UserError

PROJECTIONS = ["published", "row", "tensor", "global", "naive"]
SHAPES = [(), (1,), (7,), (1, 5), (5, 1), (3, 4), (6, 2, 3), (4, 3, 2, 2)]


def random_gradients(seed: int, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    erm = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]
    bias = [0.5 * e + 0.2 * torch.randn(e.shape, generator=generator, dtype=dtype) for e in erm]
    return erm, bias


def assert_close(ours: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Error norm over the larger of the tensor's own norm and 1e-6 of the global one."""
    total = math.sqrt(sum(float((e.double() ** 2).sum()) for e in expected))
    for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
        error = float((a.double() - b.double()).norm())
        assert error <= tolerance * max(float(b.double().norm()), 1e-6 * total), (i, error)


@pytest.mark.parametrize("projection", PROJECTIONS)
@given(seed=st.integers(0, 10_000), alpha=st.floats(0, 20))
@settings(max_examples=20, deadline=None)
def test_every_projection_equals_its_definition(projection: Any, seed: int, alpha: float) -> None:
    erm, bias = random_gradients(seed)
    expected = reference.edge_update(erm, bias, projection, alpha)
    Projection(projection, alpha).combine(erm, bias)
    assert_close(erm, expected, 1e-10)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_projection_in_float32(projection: Any) -> None:
    erm, bias = random_gradients(3, torch.float32)
    expected = reference.edge_update([e.double() for e in erm], [b.double() for b in bias], projection, 1.7)
    Projection(projection, 1.7).combine(erm, bias)
    assert_close(erm, expected, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_alpha_zero_leaves_the_erm_gradient_bit_for_bit(projection: Any, dtype: torch.dtype) -> None:
    erm, bias = random_gradients(1, dtype)
    before = [e.clone() for e in erm]
    Projection(projection, 0.0).combine(erm, bias)
    assert all(torch.equal(a, b) for a, b in zip(erm, before, strict=True))


@pytest.mark.parametrize("projection", ["published", "row", "tensor", "global"])
def test_where_a_gradient_has_no_direction_the_update_is_the_erm_gradient(projection: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    no_bias, no_erm = (
        torch.randn(4, 3, generator=generator, dtype=torch.float64),
        torch.zeros(4, 3, dtype=torch.float64),
    )
    rounding = 1e-14 * torch.randn(5, generator=generator, dtype=torch.float64)  # an attention key's bias
    erm = [normal.clone(), no_bias.clone(), no_erm.clone(), rounding.clone()]
    bias = [0.3 * normal + 0.1, torch.zeros(4, 3, dtype=torch.float64), normal.clone(), torch.ones(5).double()]
    expected = reference.edge_update(erm, bias, projection, 2.0)
    Projection(projection, 2.0).combine(erm, bias)
    assert_close(erm, expected, 1e-12)
    if projection != "global":
        assert torch.equal(erm[1], no_bias)
        assert torch.equal(erm[2], no_erm)
        assert torch.equal(erm[3], rounding)


def test_a_row_without_direction_keeps_its_erm_gradient() -> None:
    e = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]])
    b = torch.tensor([[0.5, 0.1], [1.0, 1.0], [0.0, 0.0]])
    updated = e.clone()
    Projection("row", 1.0).combine([updated], [b])
    assert torch.equal(updated[1:], e[1:])
    assert not torch.equal(updated[0], e[0])


def test_tensor_form_is_defined_for_opposite_gradients() -> None:
    e = torch.tensor([3.0, 4.0])
    updated = e.clone()
    Projection("tensor", 2.0).combine([updated], [-e / 5])  # ρ = 1/5: (1 + 1/5)·e + e/5
    assert torch.allclose(updated, 1.4 * e)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("where", ["erm", "bias"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_overflow_stays_visible(projection: Any, where: str, value: float) -> None:
    erm, bias = random_gradients(2, torch.float32)
    (erm if where == "erm" else bias)[5][0, 0] = value
    Projection(projection, 1.0).combine(erm, bias)
    assert not all(torch.isfinite(e).all() for e in erm)


def test_published_flips_its_sign_with_the_number_of_rows() -> None:
    # With b = e and equal rows, c_r = 2e_r/‖e‖ and ext·b/‖b‖² = 1 − 4/rows: negative for few rows, bias is amplified.
    def exclusive_share(rows: int) -> float:
        e = torch.randn(rows, 512, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)
        updated = e.clone()
        Projection("published", 1.0).combine([updated], [e.clone()])
        ext = e - updated
        return float((ext * e).sum() / (e * e).sum())

    shares = [exclusive_share(rows) for rows in (1, 2, 4, 8, 16)]
    assert shares == pytest.approx([-3.0, -1.0, 0.0, 0.5, 0.75], abs=0.05)


# ---- gradient norms -------------------------------------------------------------------------------------------------


def digits_model() -> Any:
    return ModelSource("digits-cnn", "image", tuple("0123456789"), (3, 8, 8)).random(0)


def batches(n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    images = rng.random((n, 3, 8, 8)).astype(np.float32)
    return [{"pixel_values": images[i], "labels": int(rng.integers(10))} for i in range(n)]


@pytest.mark.parametrize(
    ("norm", "power"), [("l1", 1), ("l2", 2), ("linf", math.inf), (0.7, 0.7), (3.0, 3), ("l2sq", 2)]
)
def test_head_norms_equal_the_per_sample_loop(norm: Any, power: float) -> None:
    model = digits_model().eval()
    data = batches(7)
    norms = gradient_norms(model, data, "head", norm, batch_size=3)
    assert norms.dtype == np.float64
    assert norms.shape == (7,)
    inputs = torch.from_numpy(np.stack([row["pixel_values"] for row in data]))
    labels = torch.tensor([row["labels"] for row in data])
    head = list(model.classifier.parameters())
    samples = reference.sample_gradients(model, inputs, labels, head, lambda out: out.logits)
    expected = np.array([reference.entrywise_norm(g, power) for g in samples])
    np.testing.assert_allclose(norms, expected**2 if norm == "l2sq" else expected, rtol=1e-4)


def test_head_norms_without_a_bias() -> None:
    model = digits_model().eval()
    model.classifier = nn.Linear(64, 10, bias=False)
    data = batches(4)
    inputs = torch.from_numpy(np.stack([row["pixel_values"] for row in data]))
    labels = torch.tensor([row["labels"] for row in data])
    samples = reference.sample_gradients(model, inputs, labels, [model.classifier.weight], lambda out: out.logits)
    expected = [reference.entrywise_norm(g, 2) for g in samples]
    np.testing.assert_allclose(gradient_norms(model, data), expected, rtol=1e-4)


def test_norms_leave_the_model_as_it_was() -> None:
    model = digits_model().train()
    model.backbone[0].eval()
    gradient_norms(model, batches(3))
    assert model.training
    assert not model.backbone[0].training
    assert all(p.grad is None for p in model.parameters())
    assert not model.classifier._forward_hooks


class TwoHeads(nn.Module):
    """Its logits are not what its last Linear layer puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 10)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"logits": 2 * self.layer(pixel_values.flatten(1))}


def test_bad_requests_are_refused_in_one_sentence() -> None:
    model, data = digits_model(), batches(3)
    with pytest.raises(UserError, match="'source' parameter of gradient_norms must be one of head"):
        gradient_norms(model, data, source="tail")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'norm' parameter of gradient_norms must be one of l1, l2, linf, l2sq"):
        gradient_norms(model, data, norm="l7")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"'norm' parameter .* range \(0, inf\)\. Got -1"):
        gradient_norms(model, data, norm=-1.0)
    with pytest.raises(UserError, match="empty dataset"):
        gradient_norms(model, [])
    with pytest.raises(UserError, match="logits are what its last Linear layer puts out"):
        gradient_norms(TwoHeads(), data)
    with pytest.raises(UserError, match="must be one of published, row"):
        Projection("sideways", 1.0)  # type: ignore[arg-type]
    for alpha in (-1.0, math.nan, math.inf):
        with pytest.raises(UserError, match=r"The 'alpha' parameter of EDGE must be a float in the range \[0, inf\)"):
            Projection("tensor", alpha)
