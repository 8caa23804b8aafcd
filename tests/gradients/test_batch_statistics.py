"""Models whose samples depend on each other have no scores; and how a model may give its logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

import evenhand as eh
from evenhand.methods.gce import GCE
from evenhand.methods.objective import Companion, Setting, TrainingBatch
from evenhand.methods.pgd_joint import JointPGD
from evenhand.models.inference import logits_and_labels

GIVES: dict[str, Any] = {
    "tensor": lambda z: z,
    "tuple": lambda z: (z, z),
    "tuple with a loss": lambda z: (z.sum(), z),
    "dict": lambda z: {"logits": z},
    "ModelOutput": lambda z: SequenceClassifierOutput(logits=z),
    "object": lambda z: SimpleNamespace(logits=z),
}
DATA = [{"x": torch.randn(8, generator=torch.Generator().manual_seed(i)), "labels": i % 3} for i in range(20)]


class Small(nn.Module):
    def __init__(self, norm: nn.Module, gives: Any = GIVES["tensor"]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.norm, self.gives, self.head = nn.Linear(8, 8), norm, gives, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.gives(self.head(torch.relu(self.norm(self.body(x)))))


class AlwaysTraining(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> AlwaysTraining:
        return super().train(True)


class Rows1d(nn.InstanceNorm1d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input[:, None])[:, 0]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(8, track_running_stats=False), AlwaysTraining(8)])
@pytest.mark.parametrize("source", ["head", "extractor", "all", "body.*", ["norm.weight"]])
def test_batch_statistics_are_refused_for_every_source(norm: nn.Module, source: Any) -> None:
    model = Small(norm)
    with pytest.raises(eh.UserError, match=r"layer 'norm' \(\w+\) normalises by the batch in eval mode too"):
        eh.gradient_norms(model, DATA, source=source)
    assert model.training


def test_predictions_and_joint_scores_too() -> None:
    model = Small(nn.BatchNorm1d(8, track_running_stats=False))
    with pytest.raises(eh.UserError, match="normalises by the batch"):
        logits_and_labels(model, DATA)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = TrainingBatch({"x": torch.rand(4, 8)}, torch.tensor([0, 1, 2, 0]), None, mean=torch.mean, last=True)
    stage = JointPGD(biased=GCE(), norm="l2", sampling="reweight", mix=1.0, floor=0.0)
    with pytest.raises(eh.UserError, match="normalises by the batch"):
        stage.objective(Setting(4, second=Companion(model, model, optimizer, 1.0))).prepare(batch)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(8), nn.LayerNorm(8), nn.GroupNorm(2, 8), Rows1d(1)])
def test_other_normalisations_score_each_sample_alone(norm: nn.Module) -> None:
    model = Small(norm)
    np.testing.assert_allclose(
        eh.gradient_norms(model, DATA, source="all"),
        eh.gradient_norms(model, DATA, source="all", batch_size=1),
        rtol=1e-4,
    )


@pytest.mark.parametrize("gives", [*GIVES])
@pytest.mark.parametrize("source", ["head", "all"])
def test_logits_however_they_are_given(gives: str, source: Any) -> None:
    model, plain = Small(nn.Identity(), GIVES[gives]), Small(nn.Identity())
    expected = eh.gradient_norms(plain, DATA, source=source)
    np.testing.assert_allclose(eh.gradient_norms(model, DATA, source=source), expected)
    x, labels = torch.stack([row["x"] for row in DATA]), torch.tensor([row["labels"] for row in DATA])
    with eh.EDGE().attach(model) as edge, eh.EDGE().attach(plain) as other:
        output = model(x)
        logits = {"tuple with a loss": lambda: output[1], "tuple": lambda: output[0], "tensor": lambda: output}.get(
            gives, lambda: output["logits"] if gives == "dict" else output.logits
        )()
        assert edge.backward(logits, labels) == other.backward(plain(x), labels)
