from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

import evenhand as eh
import reference
from evenhand.gradients import Projection
from evenhand.losses import gce_weights

PROJECTIONS = ["published", "row", "tensor", "global", "naive", "reweight"]


class Net(nn.Module):
    """A model of one's own: it returns logits, not an output object."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.LayerNorm(5))
        self.scale = nn.Parameter(torch.full((5,), 1.5))  # no layer holds it: it takes the second backward
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layers(x)) * self.scale)


def batch(n: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, 6, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 3, torch.rand(n, generator=generator, dtype=torch.float64)


def net() -> Net:
    torch.manual_seed(0)
    return Net().double()


def expected_update(model: nn.Module, method: Any, x: Tensor, y: Tensor, probs: Tensor | None) -> list[Tensor]:
    parameters = list(model.parameters())
    samples = reference.sample_gradients(model, x, y, parameters, lambda out: out)
    if probs is None:
        probs = torch.tensor(
            [reference.probability(z, int(k)) for z, k in zip(model(x), y, strict=True)], dtype=x.dtype
        )
    erm = reference.weighted_sum(samples, [1.0] * len(y))
    bias = reference.weighted_sum(samples, gce_weights(probs.double(), method.q).tolist())
    kind = "naive" if method.projection == "reweight" else method.projection
    return reference.edge_update(erm, bias, kind, method.alpha)


def assert_gradients(model: nn.Module, expected: list[Tensor], tolerance: float = 1e-10) -> None:
    total = math.sqrt(sum(float(e.square().sum()) for e in expected))
    for (name, p), e in zip(model.named_parameters(), expected, strict=True):
        assert p.grad is not None, name
        assert float((p.grad - e).norm()) <= tolerance * max(float(e.norm()), 1e-6 * total), name


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


@pytest.mark.parametrize("route", ["auto", "retain"])
@pytest.mark.parametrize("signal", ["self", "biased"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_backward_fills_grad_as_defined(projection: Any, signal: Any, route: Any) -> None:
    model, (x, y, probs) = net(), batch()
    if projection == "reweight":
        route = "auto"  # it has one backward only
    method = eh.EDGE(alpha=1.3, projection=projection, signal=signal, route=route)
    given = probs if signal == "biased" else None
    expected = expected_update(model, method, x, y, given)
    with method.attach(model) as edge:
        for _ in range(2):  # with the check of the first batch, and after it
            model.zero_grad()
            logits = model(x)
            loss = edge.backward(logits, y, bias_probs=given)
            assert_gradients(model, expected)
            assert not loss.requires_grad
            torch.testing.assert_close(loss, nn.functional.cross_entropy(logits.detach(), y))


def test_coverage_names_the_route_of_every_parameter() -> None:
    model = net()
    with eh.EDGE().attach(model) as edge:
        routes = edge.coverage()
    assert set(routes) == {name for name, _ in model.named_parameters()}
    assert [name for name, route in routes.items() if route == "second backward"] == ["scale"]


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_micro_batches_add_up(projection: Any) -> None:
    method, (x, y, _) = eh.EDGE(projection=projection), batch(8)
    whole, parts = net(), net()
    with method.attach(whole) as edge:
        edge.backward(whole(x), y)
    with method.attach(parts) as edge:
        for rows in (slice(0, 3), slice(3, 6), slice(6, 8)):
            edge.backward(parts(x[rows]), y[rows], combine=rows.stop == 8, num_items=8)
    assert_gradients(parts, [p.grad for p in whole.parameters() if p.grad is not None])


@pytest.mark.parametrize("method", [eh.ERM(), eh.GCE()])
def test_methods_with_one_gradient_attach_too(method: Any) -> None:
    model, (x, y, _) = net(), batch()
    method.sample_losses(model(x), y).mean().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with method.attach(model) as attached:
        attached.backward(model(x), y)
    assert_gradients(model, expected)


def test_alpha_zero_is_the_plain_gradient_bit_for_bit() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    model: Any = BertForSequenceClassification(config).train()
    inputs, labels = {"input_ids": torch.randint(1, 50, (6, 7))}, torch.tensor([0, 1, 2, 0, 1, 2])
    torch.manual_seed(3)
    nn.functional.cross_entropy(model(**inputs).logits, labels).backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with eh.EDGE(alpha=0.0, projection="row").attach(model) as edge:
        torch.manual_seed(3)  # the same dropout
        edge.backward(model(**inputs).logits, labels)
    assert {n for n, p in model.named_parameters() if not torch.equal(p.grad, plain[n])} == set()


def test_detach_leaves_nothing_behind() -> None:
    model, (x, y, _) = net(), batch()
    before = hooks_of(model)
    edge = eh.EDGE().attach(model)
    assert hooks_of(model) > before
    edge.backward(model(x), y)
    edge.detach()
    edge.detach()  # twice does no harm
    assert hooks_of(model) == before
    with pytest.raises(eh.UserError, match="was detached from its model"):
        edge.backward(model(x), y)
    with pytest.raises(RuntimeError, match="in the loop"), eh.EDGE().attach(model):
        raise RuntimeError("in the loop")
    assert hooks_of(model) == before


def test_evaluation_between_steps_and_a_failed_forward_do_no_harm() -> None:
    model, (x, y, _) = net(), batch()
    method = eh.EDGE(projection="tensor")
    expected = expected_update(model, method, x, y, None)
    with method.attach(model) as edge:
        with pytest.raises(RuntimeError):
            model(x[:, :1])
        model.eval()(x)
        with torch.no_grad():
            model.train()(x)
        logits = model(x)
        model.eval()(x[:2])
        model.train()
        edge.backward(logits, y)
    assert_gradients(model, expected)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_grad_scaler_skips_an_overflow_and_unscales_the_rest(projection: Any) -> None:
    x, y, _ = batch()
    plain, scaled = net(), net()
    method = eh.EDGE(projection=projection)
    with method.attach(plain) as edge:
        edge.backward(plain(x), y)
    optimizer = torch.optim.SGD(scaled.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with method.attach(scaled, scaler=scaler) as edge:
        loss = edge.backward(scaled(x), y)
        assert float(loss) == pytest.approx(float(nn.functional.cross_entropy(plain(x), y).detach()))
        scaler.unscale_(optimizer)
        assert_gradients(scaled, [p.grad for p in plain.parameters() if p.grad is not None], 1e-9)
        scaler.step(optimizer)
        scaler.update()

        before = [p.detach().clone() for p in scaled.parameters()]
        optimizer.zero_grad()
        # an overflow in one entry of one sample's backprop
        logits = scaled(x)
        logits.register_hook(lambda g: g.clone().index_fill_(0, torch.tensor([2]), math.inf))
        edge.backward(logits, y)
        scaler.step(optimizer)
        scaler.update()
    assert all(torch.equal(p, b) for p, b in zip(scaled.parameters(), before, strict=True))
    assert scaler.get_scale() == 2.0**9


def test_attached_in_a_loop_is_the_trainer_step() -> None:
    model, (x, y, _) = net(), batch()
    other = net()
    method = eh.EDGE(alpha=2.0, projection="row")
    with method.attach(model) as edge:
        edge.backward(model(x), y)
    loss_B = method.sample_losses(other(x), y)
    weight_B = method.gradient_rule().weights(other(x), y, None)
    erm = torch.autograd.grad(loss_B.mean(), list(other.parameters()), retain_graph=True)
    bias = torch.autograd.grad((weight_B * loss_B).mean(), list(other.parameters()))
    updates = [e.clone() for e in erm]
    Projection("row", 2.0).combine(updates, [b.clone() for b in bias])
    assert_gradients(model, updates)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 1, -1, 2])}, r"Labels must lie in 0…2, .* Got -1 for sample 2 of the batch"),
        ({"labels": torch.tensor([0, 1, 3, 2])}, r"Labels must lie in 0…2, .* Got 3 for sample 2"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0, 1.5])}, "integer labels"),
        ({"labels": torch.tensor([0, 1])}, r"shape \(batch, classes\)"),
        ({"logits": torch.zeros(4, 5, 3)}, r"Got \(4, 5, 3\) and \(4,\)"),
        (
            {"logits": torch.tensor([[0.0] * 3, [math.nan] * 3, [0.0] * 3, [0.0] * 3])},
            "logits of sample 1 .* not finite",
        ),
        ({"bias_probs": torch.ones(4)}, "makes no use of bias_probs"),
        ({"logits": {"logits": torch.zeros(4, 3)}}, "backward takes tensors: .* Got dict and Tensor"),
        ({"num_items": 0}, "'num_items' parameter of backward must be an integer of at least 1. Got 0"),
    ],
)
def test_bad_batches_are_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"logits": torch.zeros(4, 3), "labels": torch.tensor([0, 1, 2, 0])} | change
    with eh.EDGE().attach(net()) as edge, pytest.raises(eh.UserError, match=message):
        edge.backward(given.pop("logits"), given.pop("labels"), **given)


def test_the_biased_signal_needs_its_probabilities() -> None:
    model, (x, y, _) = net(), batch()
    with eh.EDGE(signal="biased").attach(model) as edge:
        with pytest.raises(eh.UserError, match="needs bias_probs"):
            edge.backward(model(x), y)
        with pytest.raises(eh.UserError, match=r"must have shape \(8,\). Got \(3,\)"):
            edge.backward(model(x), y, bias_probs=torch.ones(3))
        for wrong in (3.0, math.nan, -0.1):
            with pytest.raises(eh.UserError, match=r"bias_probs must lie in \[0, 1\]"):
                edge.backward(model(x), y, bias_probs=torch.full((8,), wrong))


def test_what_cannot_be_attached_to_is_refused() -> None:
    model = net()
    with eh.EDGE().attach(model), pytest.raises(eh.UserError, match="attached to this model already"):
        eh.EDGE().attach(model)
    with pytest.raises(eh.UserError, match="attached to a DataParallel model"):
        eh.EDGE().attach(nn.DataParallel(model))
    with pytest.raises(eh.UserError, match="use route='retain', or"):
        eh.EDGE(route="double").attach(model)
    with pytest.raises(eh.UserError, match=r"route='single' can't be taken.*scale"):
        eh.EDGE(route="single").attach(model)
    with pytest.raises(eh.UserError, match=r"PGD trains in several stages.*use evenhand\.fit"):
        eh.PGD().attach(model)


def test_zeroed_gradients_forget_the_bias_gradient_too() -> None:
    method, (x, y, _) = eh.EDGE(projection="naive"), batch()
    model = net()
    expected = expected_update(model, method, x, y, None)
    with method.attach(model) as edge:
        edge.backward(model(x[:4]), y[:4], combine=False)
        model.zero_grad()
        edge.backward(model(x), y)
    assert_gradients(model, expected)


def test_a_micro_batch_in_eval_mode_is_an_error() -> None:
    model, (x, y, _) = net(), batch()
    with eh.EDGE(projection="naive").attach(model) as edge:
        for _ in range(3):  # the batches that are verified
            edge.backward(model(x), y)
            model.zero_grad()
        edge.backward(model(x[:4]), y[:4], combine=False, num_items=8)
        model.eval()
        with pytest.raises(eh.UserError, match="train mode"):
            edge.backward(model(x[4:]), y[4:], num_items=8)


def test_a_parameter_that_becomes_trainable_later_is_an_error() -> None:
    model, (x, y, _) = net(), batch()
    model.head.requires_grad_(False)
    with eh.EDGE().attach(model) as edge:
        edge.backward(model(x), y)
        model.head.requires_grad_(True)
        with pytest.raises(eh.UserError, match=r"'head\.weight' became trainable after"):
            edge.backward(model(x), y)


def test_scope_leaves_the_others_to_erm() -> None:
    model, (x, y, _) = net(), batch()
    method = eh.EDGE(projection="naive", scope="layers.*")
    plain, whole = (expected_update(model, m, x, y, None) for m in (eh.EDGE(alpha=0), eh.EDGE(projection="naive")))
    with method.attach(model) as edge:
        edge.backward(model(x), y)
        assert {name.split(".")[0] for name in edge.coverage()} == {"layers"}
    chosen = [name.startswith("layers.") for name, _ in model.named_parameters()]
    assert_gradients(model, [w if c else p for w, p, c in zip(whole, plain, chosen, strict=True)])


def test_warm_ups_count_optimizer_steps() -> None:
    model, (x, y, _) = net(), batch()
    method = eh.EDGE(projection="naive", alpha=1.2, alpha_warmup=2)
    with method.attach(model) as edge:
        for alpha in (0.6, 1.2, 1.2):
            expected = expected_update(model, eh.EDGE(projection="naive", alpha=alpha), x, y, None)
            edge.backward(model(x[:4]), y[:4], combine=False, num_items=8)
            edge.backward(model(x[4:]), y[4:], num_items=8)
            assert_gradients(model, expected)
            model.zero_grad()


@pytest.mark.parametrize("projection", ["naive", "reweight"])
def test_the_averaged_signal_follows_the_index(projection: Any) -> None:
    model, (x, y, _) = net(), batch()
    method = eh.EDGE(projection=projection, signal="ema", ema_decay=0.5)
    kept = torch.rand(20, dtype=torch.float64)
    index = torch.tensor([3, 19, 0, 7, 5, 11, 2, 4])
    with method.attach(model) as edge:
        edge.backward(model(x), y, index=index)  # a first visit sets the average
        own = torch.exp(-nn.functional.cross_entropy(model(x), y, reduction="none")).detach()
        assert edge.running is not None
        torch.testing.assert_close(edge.running.value_N[index], own.float())
        edge.running.value_N = kept.float()
        model.zero_grad()
        expected = expected_update(model, method, x, y, 0.5 * kept[index] + 0.5 * own)
        edge.backward(model(x), y, index=index)
        assert_gradients(model, expected, 1e-6)  # averages are kept in float32
        with pytest.raises(eh.UserError, match=r"needs index.*shape \(8,\)\. Got NoneType"):
            edge.backward(model(x), y)
        with pytest.raises(eh.UserError, match=r"must not be negative\. Got -1"):
            edge.backward(model(x), y, index=index - 1)
    with eh.EDGE().attach(model) as edge, pytest.raises(eh.UserError, match="makes no use of index"):
        edge.backward(model(x), y, index=index)
