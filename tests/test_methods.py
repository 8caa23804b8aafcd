"""One contract for every method; a new one is found by itself."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import evenhand as eh
from evenhand.methods import METHODS, Method, OneStage
from evenhand.methods.base import Init
from evenhand.run import Result, fit
from evenhand.tasks import Task

VARIANTS: dict[str, Method] = {
    **{name: method() for name, method in METHODS.items()},
    "edge-biased": eh.EDGE(signal="biased", projection="tensor"),
    "edge-reweight": eh.EDGE(signal="biased", projection="reweight"),
    "pgd-random": eh.PGD(init="random", norm=0.7),
}


def run(method: Method, task: Task, folder: Path, **options: Any) -> Result:
    return fit(method, task, "digits-cnn", output_dir=folder, **({"epochs": 2, "batch_size": 16, "lr": 1e-3} | options))


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str, tiny_task: Task, tmp_path: Path) -> None:
    method = VARIANTS[name]
    # a method is a frozen dataclass of JSON-able settings that make it again
    assert type(method)(**method.settings()) == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.name = "other"  # type: ignore[misc]
    assert method.title
    assert type(method).__doc__
    assert method.paper
    assert method.label_access

    result = run(method, tiny_task, tmp_path / "first")
    again = run(method, tiny_task, tmp_path / "second")
    assert result.record["status"] == "done"
    assert result.record["method"] == {"name": method.name, "title": method.title, "settings": method.settings()}
    assert set(result.metrics) == {
        "average",
        "average_train_weighted",
        "worst_group",
        "aligned",
        "conflicting",
        "by_group",
    }
    trained = [stage for stage in result.record["stages"] if "steps" in stage]
    assert len(trained) == method.models_trained()
    assert all(stage["steps"] == 2 * math.ceil(96 / 16) for stage in trained)
    # same seed, same numbers; the model learns; every parameter moved
    assert result.metrics == again.metrics
    for p, q in zip(result.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.isfinite(p).all()
    assert not result.model.training


@pytest.mark.parametrize("name", [name for name, method in VARIANTS.items() if isinstance(method, OneStage)])
def test_one_stage_methods_lower_their_training_loss(name: str, tiny_task: Task, tmp_path: Path) -> None:
    result = run(VARIANTS[name], tiny_task, tmp_path / "run", epochs=8)
    losses = result.record["stages"][-1]["losses"]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


class RecordedRun:
    """Remembers what a method asks for, and answers with markers."""

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.scores = scores

    def train(self, name: str, method: OneStage, **options: Any) -> nn.Module:
        self.calls.append((name, {"method": method, **options}))
        model = nn.Identity()
        model.stage = name  # type: ignore[assignment]
        return model

    def gradient_norms(self, model: nn.Module, source: Any, norm: Any) -> NDArray[np.float64]:
        self.calls.append(("scores", {"of": model.stage, "source": source, "norm": norm}))
        return self.scores

    def probabilities(self, model: nn.Module) -> NDArray[np.float32]:
        self.calls.append(("probabilities", {"of": model.stage}))
        return np.array([0.25, 0.5], dtype=np.float32)

    def start_from(self, init: Init, biased: nn.Module) -> nn.Module:
        self.calls.append(("start", {"init": init, "biased": biased.stage}))
        return biased


def test_pgd_is_algorithm_1() -> None:
    recorded = RecordedRun(np.array([3.0, 0.0, 1.0]))
    final: Any = eh.PGD(q=0.6, norm="l1", init="random").fit(recorded)
    names = [name for name, _ in recorded.calls]
    assert names == ["biased", "scores", "start", "debiased"]
    assert recorded.calls[0][1] == {"method": eh.GCE(q=0.6)}
    assert recorded.calls[1][1] == {"of": "biased", "source": "head", "norm": "l1"}
    assert recorded.calls[2][1] == {"init": "random", "biased": "biased"}
    last = recorded.calls[3][1]
    assert last["method"] == eh.ERM()
    np.testing.assert_allclose(last["sampling"], [0.75, 1e-8, 0.25])
    assert final.stage == "debiased"


def test_edge_with_the_biased_signal_trains_a_gce_model_first() -> None:
    recorded = RecordedRun(np.ones(2))
    method = eh.EDGE(signal="biased", q=0.5)
    method.fit(recorded)
    assert [name for name, _ in recorded.calls] == ["biased", "probabilities", "debiased"]
    assert recorded.calls[0][1] == {"method": eh.GCE(q=0.5)}
    last = recorded.calls[2][1]
    assert last["method"] == method
    np.testing.assert_array_equal(last["signal_probs"], np.array([0.25, 0.5], dtype=np.float32))
    assert "start" not in last  # from the run's initial weights, as published


def test_edge_with_its_own_signal_trains_one_model() -> None:
    recorded = RecordedRun(np.ones(2))
    eh.EDGE().fit(recorded)
    assert [name for name, _ in recorded.calls] == ["debiased"]


@pytest.mark.parametrize("projection", ["published", "row", "tensor", "global", "naive", "reweight"])
def test_edge_at_alpha_zero_is_erm(projection: Any, tiny_task: Task, tmp_path: Path) -> None:
    erm = run(eh.ERM(), tiny_task, tmp_path / "erm")
    edge = run(eh.EDGE(alpha=0.0, signal="biased", projection=projection), tiny_task, tmp_path / "edge")
    for p, q in zip(erm.model.parameters(), edge.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_reweight_is_naive_to_rounding(tiny_task: Task, tmp_path: Path) -> None:
    naive, reweight = (
        run(eh.EDGE(alpha=1.2, signal="biased", projection=p), tiny_task, tmp_path / p, epochs=1)
        for p in ("naive", "reweight")
    )
    for p, q in zip(naive.model.parameters(), reweight.model.parameters(), strict=True):
        assert float((p - q).detach().norm()) <= 1e-3 * float(p.detach().norm())


def test_gce_weights_what_is_fitted() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]], requires_grad=True)
    labels = torch.tensor([0, 0])
    eh.GCE(q=0.7).sample_losses(logits, labels).sum().backward()
    p = torch.softmax(logits.detach(), 1)
    onehot = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    expected = 0.7 * p[:, :1] ** 0.7 * (p - onehot)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: eh.EDGE(alpha=-1), "The 'alpha' parameter of EDGE must be a float in the range [0, inf). Got -1."),
        (
            lambda: eh.EDGE(alpha=math.nan),
            "The 'alpha' parameter of EDGE must be a float in the range [0, inf). Got nan.",
        ),
        (lambda: eh.EDGE(q=0), "The 'q' parameter of EDGE must be a float in the range (0, 1]. Got 0."),
        (lambda: eh.GCE(q=1.5), "The 'q' parameter of GCE must be a float in the range (0, 1]. Got 1.5."),
        (lambda: eh.PGD(q=-0.1), "The 'q' parameter of PGD must be a float in the range (0, 1]. Got -0.1."),
        (lambda: eh.PGD(norm=0.0), "The 'norm' parameter of PGD must be a float in the range (0, inf). Got 0.0."),
        (lambda: eh.PGD(floor=2.0), "The 'floor' parameter of PGD must be a float in the range [0, 1]. Got 2.0."),
        (
            lambda: eh.EDGE(signal="bias"),  # type: ignore[arg-type]
            "The 'signal' parameter of EDGE must be one of self, biased, ema. Got 'bias' (did you mean 'biased'?).",
        ),
        (
            lambda: eh.PGD(init="inherited"),  # type: ignore[arg-type]
            "The 'init' parameter of PGD must be one of inherit, random, pretrained. "
            "Got 'inherited' (did you mean 'inherit'?).",
        ),
    ],
)
def test_bad_hyper_parameters_are_one_sentence(build: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        build()
    assert str(caught.value) == message
