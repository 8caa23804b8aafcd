from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evenhand.models.inference import (
    batches_on_device,
    evaluating,
    logits_and_labels,
    logits_of,
    true_class_probabilities,
)
from evenhand.validation import UserError


class Classifier(nn.Module):
    """Logits of a Linear layer after dropout and a batch norm; it notes the modes that it is called in."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.BatchNorm1d(4), nn.Identity())
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.calls: list[tuple[int, bool, bool]] = []

    def forward(self, x: Tensor) -> Any:
        logits = self.head(self.dropout(self.frozen(x)))
        self.calls.append((len(x), any(m.training for m in self.modules()), logits.requires_grad))
        return SimpleNamespace(logits=logits)


def samples(n: int = 11) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(4, generator=generator), "labels": i % 3, "index": 100 + i} for i in range(n)]


def expected_logits(model: Classifier, dataset: list[dict[str, Any]]) -> np.ndarray:
    """Sample by sample: the batch norm with its initial statistics, no dropout, the Linear layer."""
    weight, bias = model.head.weight.detach().double(), model.head.bias.detach().double()
    return np.stack([(weight @ (s["x"].double() / (1 + 1e-5) ** 0.5) + bias).numpy() for s in dataset])


@pytest.mark.parametrize("batch_size", [1, 4, 11, 512])
def test_logits_come_in_the_datasets_order_whatever_the_batch(batch_size: int) -> None:
    model, dataset = Classifier(), samples()
    logits_NC, label_N = logits_and_labels(model, dataset, batch_size)
    np.testing.assert_allclose(logits_NC, expected_logits(model, dataset), rtol=1e-4, atol=1e-6)
    assert label_N.tolist() == [i % 3 for i in range(11)]
    assert logits_NC.dtype == np.float32
    assert label_N.dtype == np.int64
    assert [size for size, _, _ in model.calls] == [min(batch_size, 11 - i) for i in range(0, 11, batch_size)]


def test_inference_is_in_eval_mode_and_without_gradients() -> None:
    model = Classifier().train()
    logits_and_labels(model, samples(), 4)
    assert {(training, gradient) for _, training, gradient in model.calls} == {(False, False)}
    assert model.frozen[0].num_batches_tracked == 0  # type: ignore[union-attr]


def test_every_modules_own_mode_is_restored() -> None:
    model = Classifier().train()
    model.frozen.eval()
    before = {name: module.training for name, module in model.named_modules()}
    logits_and_labels(model, samples())
    assert {name: module.training for name, module in model.named_modules()} == before
    assert set(before.values()) == {True, False}


def test_modes_and_gradients_are_restored_after_an_error() -> None:
    model = Classifier().train()
    model.frozen.eval()

    def fail() -> None:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.training
    assert not model.frozen.training
    assert not model.frozen[0].training
    assert model.dropout.training
    assert torch.is_grad_enabled()


def test_probabilities_of_the_true_class() -> None:
    model, dataset = Classifier().train(), samples()
    logits_NC = expected_logits(model, dataset)
    expected = [np.exp(z[i % 3]) / np.exp(z).sum() for i, z in enumerate(logits_NC)]
    probability_N = true_class_probabilities(model, dataset, batch_size=3)
    np.testing.assert_allclose(probability_N, expected, rtol=1e-4)
    assert probability_N.shape == (11,)


def test_half_precision_models_give_float32() -> None:
    model = Classifier().to(torch.bfloat16)
    dataset = [{**s, "x": s["x"].to(torch.bfloat16)} for s in samples(4)]
    logits_NC, _ = logits_and_labels(model, dataset)
    assert logits_NC.dtype == np.float32
    np.testing.assert_allclose(logits_NC, expected_logits(model, dataset), atol=0.05)


def test_batches_have_no_index_and_the_collator_is_used() -> None:
    batches = list(batches_on_device(samples(5), 2, torch.device("cpu")))
    assert [set(batch) for batch in batches] == [{"x", "labels"}] * 3
    doubled = batches_on_device(
        samples(2), 2, torch.device("cpu"), lambda rows: {"labels": torch.tensor([2 * r["labels"] for r in rows])}
    )
    assert next(doubled)["labels"].tolist() == [0, 2]


def test_a_dataset_of_datasets_with_the_column_label() -> None:
    plain = datasets.Dataset.from_dict({"x": [[0.0] * 4, [1.0] * 4], "label": [2, 0], "index": [0, 1]})
    assert logits_and_labels(Classifier(), plain)[1].tolist() == [2, 0]


@pytest.mark.parametrize("outputs", [{"logits": torch.ones(2, 3)}, SimpleNamespace(logits=torch.ones(2, 3))])
def test_logits_of_a_dict_or_an_object(outputs: Any) -> None:
    assert logits_of(outputs, torch.tensor([0, 1])) is (
        outputs["logits"] if isinstance(outputs, dict) else outputs.logits
    )


@pytest.mark.parametrize("outputs", [{"loss": torch.ones(1)}, SimpleNamespace(hidden=1), (torch.ones(1),), None])
def test_an_output_without_logits(outputs: Any) -> None:
    with pytest.raises(UserError) as caught:
        logits_of(outputs, torch.tensor([0, 1]))
    assert str(caught.value) == ("The model's output has no 'logits', so a per-sample loss can't be computed from it.")


@pytest.mark.parametrize(
    ("logits", "labels"), [((2, 5, 3), (2,)), ((3, 3), (2,)), ((2, 3), (2, 3)), ((2,), (2,)), ((2, 3), ())]
)
def test_logits_that_are_not_one_row_a_label(logits: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as caught:
        logits_of({"logits": torch.zeros(logits)}, torch.zeros(labels))
    assert str(caught.value).endswith(f"single-label classifiers. Got {logits} and {labels}.")
