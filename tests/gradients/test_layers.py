"""Each layer's rule against a loop over samples with plain autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm
from transformers.pytorch_utils import Conv1D

import reference
from evenhand.gradients.forms import SampleGradients, joined
from evenhand.gradients.layers import RULES, rule_for, rule_of, sample_gradients

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

Draw = st.DataObject
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def tolerance_of(layer: nn.Module, dtype: torch.dtype) -> float:
    if type(layer).__module__.startswith("transformers.models"):  # RMSNorm is computed in float32 there, always
        dtype = torch.float32
    return TOLERANCE[dtype]


def draw_int(draw: Draw, low: int, high: int) -> int:
    return draw.draw(st.integers(low, high))


def draw_linear(draw: Draw, B: int) -> tuple[nn.Module, Tensor]:
    I, O = draw_int(draw, 1, 6), draw_int(draw, 1, 6)  # noqa: E741
    lead = draw.draw(st.lists(st.integers(1, 4), max_size=2))
    return nn.Linear(I, O, bias=draw.draw(st.booleans())), torch.randn(B, *lead, I)


def draw_conv1d_of_gpt2(draw: Draw, B: int) -> tuple[nn.Module, Tensor]:
    I, O = draw_int(draw, 1, 6), draw_int(draw, 1, 6)  # noqa: E741
    return Conv1D(O, I), torch.randn(B, draw_int(draw, 1, 5), I)


def draw_convolution(draw: Draw, B: int) -> tuple[nn.Module, Tensor]:
    dims, groups = draw_int(draw, 1, 2), draw_int(draw, 1, 3)
    same = draw.draw(st.booleans())
    kernel = [draw_int(draw, 1, 4) for _ in range(dims)]
    padding: Any = "same" if same else [draw_int(draw, 0, 2) for _ in range(dims)]
    layer = (nn.Conv1d, nn.Conv2d)[dims - 1](
        groups * draw_int(draw, 1, 2),
        groups * draw_int(draw, 1, 3),
        tuple(kernel),  # type: ignore[arg-type]
        stride=1 if same else draw_int(draw, 1, 3),
        padding=padding if same else tuple(padding),
        dilation=draw_int(draw, 1, 2),
        groups=groups,
        bias=draw.draw(st.booleans()),
        padding_mode=draw.draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
    )
    return layer, torch.randn(B, layer.in_channels, *[draw_int(draw, 7, 9) for _ in range(dims)])


def draw_embedding(draw: Draw, B: int) -> tuple[nn.Module, Tensor]:
    V, D = draw_int(draw, 1, 5), draw_int(draw, 1, 4)
    padding = draw.draw(st.none() | st.integers(0, V - 1))
    layer = nn.Embedding(V, D, padding_idx=padding, sparse=draw.draw(st.booleans()))
    return layer, torch.randint(0, V, (B, *draw.draw(st.lists(st.integers(1, 6), max_size=2))))


def spread(x: Tensor, dims: int) -> Tensor:
    """With values apart along the last dims: standardising nearly equal ones magnifies float32's rounding."""
    shape = x.shape[x.ndim - dims :]
    return 0.3 * x + torch.arange(shape.numel()).view(shape)


def draw_layer_norm(draw: Draw, B: int) -> tuple[nn.Module, Tensor]:
    shape = draw.draw(st.lists(st.integers(2, 5), min_size=1, max_size=2))
    lead = draw.draw(st.lists(st.integers(1, 4), max_size=2))
    return nn.LayerNorm(shape, bias=draw.draw(st.booleans())), spread(torch.randn(B, *lead, *shape), len(shape))


def draw_rms_norm(draw: Draw, B: int) -> tuple[nn.Module, Tensor]:
    D = draw_int(draw, 2, 6)
    kind: Callable[[int], nn.Module] = draw.draw(st.sampled_from([nn.RMSNorm, LlamaRMSNorm, T5LayerNorm]))
    return kind(D), torch.randn(B, draw_int(draw, 1, 4), D)


def draw_group_norm(draw: Draw, B: int) -> tuple[nn.Module, Tensor]:
    groups = draw_int(draw, 1, 3)
    channels = groups * draw_int(draw, 2, 3)
    image = torch.randn(B, channels, *[draw_int(draw, 1, 4) for _ in range(2)])
    return nn.GroupNorm(groups, channels), spread(image, 3)


def draw_batch_norm(draw: Draw, B: int) -> tuple[nn.Module, Tensor]:
    channels, dims = draw_int(draw, 1, 4), draw_int(draw, 0, 2)
    layer = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d)(channels)
    layer.running_mean.normal_()  # type: ignore[union-attr]
    layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return layer.eval(), torch.randn(B, channels, *[draw_int(draw, 1, 4) for _ in range(dims)])


LAYERS = {
    "linear": draw_linear,
    "conv1d-gpt2": draw_conv1d_of_gpt2,
    "convolution": draw_convolution,
    "embedding": draw_embedding,
    "layer-norm": draw_layer_norm,
    "rms-norm": draw_rms_norm,
    "group-norm": draw_group_norm,
    "batch-norm": draw_batch_norm,
}


def randomized(layer: nn.Module, a: Tensor, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    """With no parameter at a special value (scales of 1, zero rows), and in this precision."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.to(dtype), a.to(dtype) if a.is_floating_point() else a


def delta_of(layer: nn.Module, a: Tensor, reduction: str) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """δ of a loss that isn't linear in the output, under a mean or sum over samples, and that loss of one sample."""
    output = layer(a).detach().requires_grad_()
    target = torch.randn_like(output)

    def sample_loss(out_1: Tensor, target_1: Tensor) -> Tensor:
        return ((out_1 - target_1) ** 3).sum() / (len(a) if reduction == "mean" else 1)

    total = ((output - target) ** 3).flatten(1).sum(1)
    (delta,) = torch.autograd.grad(total.mean() if reduction == "mean" else total.sum(), output)
    return delta, lambda out, i: sample_loss(out, target[i])


def check(forms: dict[str, SampleGradients], samples: list[dict[str, Tensor]], tolerance: float) -> None:
    B = len(samples)
    weight_B = torch.rand(B, dtype=torch.float64)
    for name, form in forms.items():
        expected = torch.stack([sample[name] for sample in samples]).double()
        whole = float(torch.stack([g.double().norm() for s in samples for g in s.values()]).norm())

        def close(ours: Tensor, right: Tensor, name: str = name, whole: float = whole) -> None:
            assert ours.shape == right.shape, name
            assert reference.relative_error(ours, right, whole) <= tolerance, name

        weighted = form.weighted(weight_B)
        weighted = weighted.to_dense() if weighted.is_sparse else weighted
        close(weighted, (weight_B.view(-1, *[1] * (expected.ndim - 1)) * expected).sum(0))
        close(form.per_sample(), expected)
        norms = expected.flatten(1).norm(dim=1)
        close(form.squared_norms().sqrt(), norms)
        close(form[B // 2 :].per_sample(), expected[B // 2 :])
        close(form[B // 2 :].squared_norms().sqrt(), norms[B // 2 :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", LAYERS)
@given(draw=st.data(), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_every_rule_equals_the_per_sample_loop(
    kind: str, reduction: str, dtype: torch.dtype, draw: Any, seed: int
) -> None:
    torch.manual_seed(seed)
    B = draw_int(draw, 1, 4)
    layer, a = randomized(*LAYERS[kind](draw, B), dtype)
    delta, loss = delta_of(layer, a, reduction)
    names = [name for name, _ in layer.named_parameters()]
    samples = reference.layer_gradients(layer, a, loss)
    check(sample_gradients(layer, names, a, delta, B), samples, tolerance_of(layer, dtype))


@pytest.mark.parametrize("positions", [1, 2, 40])
def test_both_ways_to_a_norm_agree(positions: int) -> None:
    # 2 positions of 16 × 16: Gram form, 40: direct, 1: closed
    layer = nn.Linear(16, 16).double()
    a = torch.randn(3, positions, 16, dtype=torch.float64)
    delta, loss = delta_of(layer, a, "mean")
    check(sample_gradients(layer, ["weight", "bias"], a, delta, 3), reference.layer_gradients(layer, a, loss), 1e-10)


@pytest.mark.parametrize("kind", ["linear", "convolution", "layer-norm", "group-norm"])
@given(draw=st.data())
@settings(max_examples=5)
def test_samples_cut_in_windows(kind: str, draw: Any) -> None:
    # 3 samples of 2 neighbouring rows each, as Swin's windows
    layer, a = randomized(*LAYERS[kind](draw, 6), torch.float64)
    delta, loss = delta_of(layer, a, "sum")
    rows = reference.layer_gradients(layer, a, loss)
    samples = [{name: rows[i][name] + rows[i + 1][name] for name in rows[i]} for i in (0, 2, 4)]
    check(sample_gradients(layer, list(samples[0]), a, delta, 3), samples, 1e-10)


@pytest.mark.parametrize("kind", LAYERS)
@given(draw=st.data())
@settings(max_examples=5)
def test_a_parameter_used_twice_has_its_cross_terms(kind: str, draw: Any) -> None:
    layer, a = randomized(*LAYERS[kind](draw, 3), torch.float64)
    second = a.roll(1, 0)
    names = [name for name, _ in layer.named_parameters()]
    uses, samples = [], []
    for x in (a, second):
        delta, loss = delta_of(layer, x, "mean")
        uses.append(sample_gradients(layer, names, x, delta, 3))
        samples.append(reference.layer_gradients(layer, x, loss))
    total = [{name: one[name] + two[name] for name in names} for one, two in zip(*samples, strict=True)]
    tolerance = tolerance_of(layer, torch.float64)
    check({name: joined([use[name] for use in uses]) for name in names}, total, tolerance)


def test_an_embedding_tied_to_the_output_layer_has_its_cross_terms() -> None:
    table, output = nn.Embedding(5, 4).double(), nn.Linear(4, 5, bias=False).double()
    output.weight = table.weight
    ids, a = torch.randint(0, 5, (3, 6)), torch.randn(3, 2, 4, dtype=torch.float64)
    parts = [(table, ids), (output, a)]
    forms, samples = [], []
    for layer, x in parts:
        delta, loss = delta_of(layer, x, "mean")
        forms.append(sample_gradients(layer, ["weight"], x, delta, 3)["weight"])
        samples.append(reference.layer_gradients(layer, x, loss))
    total = [{"weight": one["weight"] + two["weight"]} for one, two in zip(*samples, strict=True)]
    check({"weight": joined(forms)}, total, 1e-10)


def test_position_ids_shared_by_all_samples() -> None:
    layer = nn.Embedding(7, 4).double()
    ids = torch.arange(5)[None]
    delta, loss = delta_of(layer, ids.expand(3, 5), "mean")
    samples = reference.layer_gradients(layer, ids.expand(3, 5), loss)
    check(sample_gradients(layer, ["weight"], ids, delta, 3), samples, 1e-10)


def test_an_embedding_sum_holds_only_the_rows_used() -> None:
    layer = nn.Embedding(50_000, 4, padding_idx=0)
    ids = torch.tensor([[0, 3, 3], [9, 3, 0]])
    weighted = sample_gradients(layer, ["weight"], ids, torch.ones(2, 3, 4), 2)["weight"].weighted(torch.ones(2))
    assert weighted.is_sparse
    assert weighted.indices().tolist() == [[3, 9]]
    assert weighted.values().tolist() == [[3.0] * 4, [1.0] * 4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["linear", "convolution", "embedding", "layer-norm", "group-norm"])
@given(draw=st.data())
@settings(max_examples=5)
def test_half_precision_is_as_close_as_its_rounding(kind: str, dtype: torch.dtype, draw: Any) -> None:
    layer, a = randomized(*LAYERS[kind](draw, 3), torch.float32)
    delta, loss = delta_of(layer, a, "mean")
    samples = reference.layer_gradients(layer, a, loss)
    forms = sample_gradients(layer, list(samples[0]), a, delta.to(dtype), 3)  # autocast: δ is narrower than a
    for name, form in forms.items():
        expected = torch.stack([sample[name] for sample in samples])
        ours = form.weighted(torch.full((3,), 0.5))
        ours = ours.to_dense() if ours.is_sparse else ours
        scale = float(expected.abs().sum(0).norm())
        assert float((ours.float() - 0.5 * expected.sum(0)).norm()) <= 0.05 * scale
        assert form.squared_norms().dtype == torch.float32


class OwnForward(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) ** 2


class OwnConvolution(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        return super()._conv_forward(input, weight / weight.norm(), bias)


class OnlyANewName(nn.Linear):
    pass


def test_layers_that_compute_something_else_have_no_rule() -> None:
    replaced = nn.Linear(2, 2)
    replaced.forward = lambda x: x  # type: ignore[method-assign]
    for layer in (
        OwnForward(2, 2),
        OwnConvolution(2, 2, 1),
        replaced,
        nn.Bilinear(2, 2, 2),
        nn.ConvTranspose2d(2, 2, 1),
        nn.Embedding(2, 2, scale_grad_by_freq=True),
    ):
        assert rule_of(layer) is None, layer
    assert rule_of(OnlyANewName(2, 2)) is rule_of(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no rule for Bilinear"):
        sample_gradients(nn.Bilinear(2, 2, 2), [], torch.ones(1), torch.ones(1), 1)


def test_a_new_layer_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evenhand.gradients.layers.RULES", copy.copy(RULES))

    @rule_for(OwnForward)
    def squared(layer: Any, name: str, a: Tensor, delta: Tensor, batch: int) -> SampleGradients:
        inner = 2 * nn.functional.linear(a, layer.weight, layer.bias) * delta
        return RULES[nn.Linear](layer, name, a, inner, batch)

    layer, a = OwnForward(3, 2).double(), torch.randn(4, 5, 3, dtype=torch.float64)
    delta, loss = delta_of(layer, a, "mean")
    samples = reference.layer_gradients(layer, a, loss)
    with torch.no_grad():
        check(sample_gradients(layer, ["weight", "bias"], a, delta, 4), samples, 1e-10)
