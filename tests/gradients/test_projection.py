from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import reference
from evenhand.gradients import Projection
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
@settings(max_examples=20)
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


def test_bad_requests_are_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match="must be one of published, row"):
        Projection("sideways", 1.0)  # type: ignore[arg-type]
    for alpha in (-1.0, math.nan, math.inf):
        with pytest.raises(UserError, match=r"The 'alpha' parameter of EDGE must be a float in the range \[0, inf\)"):
            Projection("tensor", alpha)
