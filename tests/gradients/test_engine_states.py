"""What the gradient engine notices over many batches: dropped micro-batches, routed tokens, uses that begin later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evenhand as eh
from capture_models import CLASSES, FLOAT64, assert_close, gradients_in, second
from evenhand.gradients import WeightedGradients, gradient_norms
from evenhand.gradients.verification import NormCheck, Verification
from hook_checks import check_sums
from norm_models import loop, norms_of, stack

# ---- dropped micro-batches ------------------------------------------------------------------------------------------


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()


def batch_of(seed: int, n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, CLASSES, (n,), generator=generator)


def _none(model: nn.Module, _optimizer: Any) -> None:
    model.zero_grad(set_to_none=True)


def _zeros(model: nn.Module, _optimizer: Any) -> None:
    model.zero_grad(set_to_none=False)


def _optimizer_none(_model: nn.Module, optimizer: Any) -> None:
    optimizer.zero_grad(set_to_none=True)


def _optimizer_zeros(_model: nn.Module, optimizer: Any) -> None:
    optimizer.zero_grad(set_to_none=False)


def _new_zeros(model: nn.Module, _optimizer: Any) -> None:
    for p in model.parameters():
        p.grad = torch.zeros_like(p)


DROPS = {f.__name__: f for f in (_none, _zeros, _optimizer_none, _optimizer_zeros, _new_zeros)}


def update(
    before: Callable[[nn.Module, Any, Any], None] | None, scaler: Any = None, **options: Any
) -> dict[str, Tensor]:
    """A step's update after something happened before it."""
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with eh.EDGE(alpha=2.0, projection="tensor", **options).attach(model, scaler=scaler) as edge:
        if before is not None:
            before(model, optimizer, edge)
        x, y = batch_of(2)
        edge.backward(model(x), y)
    scale = 1.0 if scaler is None else scaler.get_scale()
    return {n: g / scale for n, g in gradients_in(model).items()}


@pytest.mark.parametrize("route", ["auto", "single", "retain"])
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("drop", DROPS)
def test_b_of_dropped_micro_batches_goes_with_their_e(drop: str, micro_batches: int, route: Any) -> None:
    def dropped(model: nn.Module, optimizer: Any, edge: Any) -> None:
        for seed in range(micro_batches):
            x, y = batch_of(10 + seed)
            edge.backward(model(x), y, combine=False)
        DROPS[drop](model, optimizer)

    assert_close(update(dropped, route=route), update(None, route=route), FLOAT64)


def test_parameters_that_are_dropped_alone() -> None:
    """An optimizer of the head zeroes the head."""

    def dropped(model: Any, _optimizer: Any, edge: Any) -> None:
        x, y = batch_of(10)
        edge.backward(model(x), y, combine=False)
        torch.optim.SGD(model[2].parameters(), 0.1).zero_grad(set_to_none=False)

    def kept(model: Any, _optimizer: Any, edge: Any) -> None:
        x, y = batch_of(10)
        edge.backward(model(x), y, combine=False)

    found, both, one = update(dropped), update(kept), update(None)
    for name, right in (both | {n: g for n, g in one.items() if n.startswith("2.")}).items():
        torch.testing.assert_close(found[name], right, rtol=1e-10, atol=0)


@pytest.mark.parametrize("drop", DROPS)
def test_a_plain_backward_in_between(drop: str) -> None:
    """Dropped, then another loss: e has a part without b, as if nothing had been before."""

    def plain(model: nn.Module, optimizer: Any, edge: Any, first: bool = True) -> None:
        x, y = batch_of(10)
        if first:
            edge.backward(model(x), y, combine=False)
            DROPS[drop](model, optimizer)
        if "none" in drop:  # after zeros it can't be told from a loss that is added to what is kept
            F.cross_entropy(model(x), y).backward()

    assert_close(update(plain), update(lambda m, o, e: plain(m, o, e, first=False)), FLOAT64)


def test_a_plain_backward_adds_to_what_is_kept() -> None:
    def kept(model: nn.Module, _optimizer: Any, edge: Any, also: bool = True) -> None:
        x, y = batch_of(10)
        edge.backward(model(x), y, combine=False)
        if also:
            (0.0 * model(x)).sum().backward()

    assert_close(update(kept), update(lambda m, o, e: kept(m, o, e, also=False)), FLOAT64)


@pytest.mark.parametrize("drop", DROPS)
def test_an_exception_in_between(drop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(model: nn.Module, optimizer: Any, edge: Any) -> None:
        x, y = batch_of(10)
        edge.backward(model(x), y, combine=False)
        with monkeypatch.context() as patch:
            patch.setattr(edge.engine, "_second_backward", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                edge.backward(model(x), y, combine=False)
        DROPS[drop](model, optimizer)

    assert_close(update(failing), update(None), FLOAT64)


def test_a_step_that_the_scaler_skips_leaves_nothing() -> None:
    def skipped(model: nn.Module, optimizer: Any, edge: Any) -> None:
        x, y = batch_of(10)
        edge.backward(model(x) * 1e300, y, combine=False)
        edge.backward(model(x) * torch.inf, y)
        scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=False)

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    found = update(skipped, scaler)
    assert all(bool(torch.isfinite(g).all()) for g in found.values())
    assert_close(found, update(None), FLOAT64)


def test_reset_forgets_b_and_detaching_does_too() -> None:
    def dropped(model: nn.Module, _optimizer: Any, edge: Any) -> None:
        x, y = batch_of(10)
        edge.backward(model(x), y, combine=False)
        edge.reset()
        for p in model.parameters():
            assert p.grad is not None
            p.grad.data.mul_(0)  # leaves the version counter as it is

    assert_close(update(dropped), update(None), FLOAT64)
    model = small()
    x, y = batch_of(10)
    edge = eh.EDGE(alpha=2.0, projection="tensor").attach(model)
    edge.backward(model(x), y, combine=False)
    edge.detach()
    model.zero_grad(set_to_none=False)
    x, y = batch_of(2)
    with eh.EDGE(alpha=2.0, projection="tensor").attach(model) as edge:
        edge.backward(model(x), y)
    assert_close(gradients_in(model), update(None), FLOAT64)
    with eh.ERM().attach(model) as plain:
        plain.reset()  # which has no b


# ---- tokens that are routed -----------------------------------------------------------------------------------------


class Experts(nn.Module):
    """Each token goes to one of three experts, which see B·k rows by chance now and then; one may see none."""

    def __init__(self, pick: str = "mask", used: int = 3) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)) for _ in range(used))
        self.pick = pick

    def forward(self, x: Tensor, expert: Tensor) -> dict[str, Tensor]:
        h_NF = self.enter(x).flatten(0, 1)
        expert_N = expert.flatten()
        out_NF = torch.zeros_like(h_NF)
        for e, layer in enumerate(self.experts):
            row_N = (expert_N == e).nonzero()[:, 0]
            if self.pick == "mask":
                out_NF[expert_N == e] = layer(h_NF[expert_N == e])
            elif self.pick == "select":
                out_NF = out_NF.index_add(0, row_N, layer(h_NF.index_select(0, row_N)))
            elif self.pick == "gather":
                index_NF = row_N[:, None].expand(-1, h_NF.shape[1])
                out_NF = out_NF.scatter_add(0, index_NF, layer(h_NF.gather(0, index_NF)))
            else:
                out_NF = out_NF.index_add(0, row_N, layer(F.embedding(row_N, h_NF)))
        return {"logits": self.head(out_NF.view_as(self.enter(x)).tanh().mean(1))}


def routed(batch: int, tokens: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(batch, tokens, 4, generator=generator, dtype=torch.float64),
        "expert": torch.randint(0, 3, (batch, tokens), generator=generator),
    }


def evenly(batch: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """Every expert sees as many rows of each sample: nothing is wrong with that batch."""
    inputs = routed(batch, tokens, seed)
    inputs["expert"] = torch.arange(tokens).expand(batch, -1) % 3
    return inputs


@pytest.mark.parametrize("pick", ["mask", "select", "gather", "lookup"])
@pytest.mark.parametrize("verify", [True, False])
def test_rows_that_were_picked_are_no_samples(pick: str, verify: bool) -> None:
    engine = WeightedGradients(Experts(pick).double(), verify=verify)
    for seed in range(3):
        check_sums(engine, evenly(2, 3, seed), 2)
    for seed in range(20):
        check_sums(engine, routed(2, 3, seed), 2)
    assert all("experts" in n for n in second(engine))


@pytest.mark.parametrize("power", ["l1", "l2", "linf"])
@pytest.mark.parametrize("pick", ["mask", "select", "gather", "lookup"])
def test_norms_of_routed_experts(pick: str, power: Any) -> None:
    model = Experts(pick).double().eval()
    for seed in range(3):
        parts = [evenly(4, 6, seed), routed(20, 6, seed)]
        parts[0]["expert"][:] = 1  # the others have no token at first
        inputs = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        rows = [{k: v[i] for k, v in inputs.items()} | {"labels": i % CLASSES} for i in range(24)]
        expected = norms_of(loop(model, rows, stack, list(model.parameters())), power)
        for source in ("all", ["experts.*"]):
            if source != "all":
                chosen = list(model.experts.parameters())
                expected = norms_of(loop(model, rows, stack, chosen), power)
            found = gradient_norms(model, rows, source, power, batch_size=2, collate_fn=stack)
            np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_flattened_rows_of_samples_stay_on_one_backward() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.layer, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h_NF = torch.tanh(self.layer(self.enter(x).flatten(0, 1)))
            last_BF = h_NF.view(len(x), -1, 6)[torch.arange(len(x)), torch.full((len(x),), x.shape[1] - 1)]
            return {"logits": self.head(last_BF)}

    engine = WeightedGradients(Flat().double())
    for tokens in (3, 1, 5, 2, 4, 6, 7, 8, 9, 10, 11, 12):
        check_sums(engine, {"x": torch.randn(4, tokens, 4, dtype=torch.float64)}, 4)
    assert second(engine) == []


def test_rows_that_do_not_lie_together() -> None:
    class PositionsFirst(nn.Module):
        """One row a sample in the first batches, and rows of a sample apart from each other later."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h_TBF = torch.tanh(self.layer(x.transpose(0, 1).flatten(0, 1))).unflatten(0, (-1, len(x)))
            return {"logits": self.head(h_TBF.mean(0))}

    model = PositionsFirst().double()
    engine = WeightedGradients(model)
    for tokens in (1, 1, 1, 1, 3, 2, 4):
        check_sums(engine, {"x": torch.randn(4, tokens, 4, dtype=torch.float64)}, 4)
    assert second(engine) == ["layer.weight", "layer.bias"]
    rows = [{"x": torch.randn(t, 4, dtype=torch.float64), "labels": 0} for t in (1,) * 8 + (3,) * 8]
    expected = norms_of(loop(model, rows, stack, list(model.parameters())), "l2")
    found = gradient_norms(model, rows, "all", batch_size=4, collate_fn=stack)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


# ---- uses that begin later ------------------------------------------------------------------------------------------


class Changing(nn.Module):
    """A model that does something else from a batch on."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.other, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.how, self.on = how, False

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(self.layer(x))
        if self.on:
            if self.how == "twice":
                h = torch.tanh(self.layer(h))
            elif self.how == "branch":
                h = torch.tanh(self.other(h))
            elif self.how == "raw":
                h = torch.tanh(F.linear(h, self.layer.weight))
            elif self.how == "bypassed":
                h = torch.tanh(self.layer.forward(h))
            elif self.how == "tied":
                self.other.weight = self.layer.weight
                h = torch.tanh(self.other(h))
            elif self.how == "penalty":
                h = h + self.layer.bias.square().sum()
        return {"logits": self.head(h)}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("how", ["twice", "branch", "raw", "bypassed", "tied", "penalty"])
def test_uses_that_begin_later_are_exact_at_once(how: str, verify: bool) -> None:
    model = Changing(how).double()
    engine = WeightedGradients(model, verify=verify)
    for step in range(9):
        model.on = step in (5, 6, 8)
        check_sums(engine, {"x": torch.randn(5, 6, dtype=torch.float64)}, 5)
    moved = {"raw": ["layer.weight"], "bypassed": ["layer.weight", "layer.bias"], "penalty": ["layer.bias"]}
    assert second(engine) == moved.get(how, [])


def test_what_no_graph_shows_is_found_by_comparing_again(caplog: pytest.LogCaptureFixture) -> None:
    """Samples change places in a layer, from a batch between two comparisons on."""

    class Shuffling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)
            self.on = False

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            x = x.flip(0) if self.on else x
            h = torch.tanh(self.layer(x))
            return {"logits": self.head(h.flip(0) if self.on else h)}

    model = Shuffling().double()
    engine = WeightedGradients(model)
    inputs = {"x": torch.randn(5, 6, dtype=torch.float64)}
    backwards = 0

    def counted(loss: Tensor, **options: Any) -> None:
        nonlocal backwards
        backwards += 1
        loss.backward(**options)

    with caplog.at_level(logging.WARNING):
        for step in range(1, 200):
            model.on = step > 150
            with engine.forward():
                logits_BC = model(**inputs)["logits"]
            engine.backward(logits_BC.square().sum(1), torch.rand(5, dtype=torch.float64), backward=counted)
        assert second(engine) == []
        assert not caplog.records
        assert backwards == 199 + 2  # those of the first batch
        check_sums(engine, inputs, 5)  # the 200th: mended, and moved
    assert second(engine) == ["layer.weight", "layer.bias"]
    assert len(caplog.records) == 1
    check_sums(engine, inputs, 5)


def test_a_comparison_that_succeeds_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(again: int) -> list[Tensor]:
        monkeypatch.setattr("evenhand.gradients.verification._AGAIN", again)
        model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, CLASSES))
        torch.manual_seed(1)
        for p in model.parameters():
            nn.init.normal_(p)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with eh.EDGE(alpha=2.0, projection="tensor").attach(model) as edge:
            for step in range(8):
                x, y = batch_of(step)
                edge.backward(model(x.float()), y)
                optimizer.step()
                optimizer.zero_grad()
        return [p.detach().clone() for p in model.parameters()]

    for ours, right in zip(trained(4), trained(10**6), strict=True):
        assert torch.equal(ours, right)


def test_norms_compare_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A raw use that long texts alone have; the batch that shows it is mended, and those after it."""

    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = torch.tanh(self.layer(x))
            if bool((x[:, 0] > 0).all()):
                h = torch.tanh(F.linear(h, self.layer.weight))
            return {"logits": self.head(h)}

    monkeypatch.setattr("evenhand.gradients.verification._NORMS_AGAIN", 4)
    model = Long().double().eval()
    sign = torch.tensor([-1.0] * 16 + [1.0] * 16).double()
    rows = [{"x": torch.cat([s[None], torch.randn(5).double()]), "labels": i % CLASSES} for i, s in enumerate(sign)]
    expected = norms_of(loop(model, rows, stack, list(model.parameters())), "l2")
    with caplog.at_level(logging.WARNING):
        found = gradient_norms(model, rows, "all", batch_size=4, collate_fn=stack)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert next(r.message for r in caplog.records if "disagree" in r.message).endswith("layer.weight")


def test_comparisons_cost_less_than_a_hundredth() -> None:
    model = small()
    parameters = set(model.parameters())
    verification = Verification(parameters)
    gradients = {p: torch.ones_like(p) for p in parameters}
    verification.compare(gradients, gradients, 4, False, False)
    due = [bool(verification.pending(parameters, set(), set(), 4)) for _ in range(4000)]
    assert sum(due) == 20  # each two backwards, which is a step of LoRA: 0.5 %
    check = NormCheck(parameters)
    samples = [len(check.due(list(parameters), {}, 32)[0]) for _ in range(512)]
    assert samples[0] == samples[256] == 2
    assert sum(samples) == 4  # each takes no longer than a batch: 4 of 512
