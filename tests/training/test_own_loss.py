"""eh.Trainer says on the first batch that a model's own loss goes unused, and looking leaves no trace."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertForSequenceClassification

import evenhand as eh
from evenhand.training.own_loss import unnoticed
from trainer_models import CLASSES, arguments, assert_same_bits, image_data, text_data, text_model, trained, with_lora

WARNING = "evenhand.Trainer trains on its own loss of each sample"


class Own(nn.Module):
    """A small image classifier whose loss is a function of its logits, its features and the labels."""

    def __init__(self, loss: Any, train_only: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loss, self.train_only = loss, train_only
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        self.head = nn.Linear(8, CLASSES)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.count = 0

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        self.calls += 1
        self.count += 1
        h = self.features(pixel_values)
        z = self.head(h)
        if labels is None:
            return {"logits": z}
        noise = torch.rand(()) + random.random() + float(np.random.rand())  # draws that no sample may miss afterwards
        plain = self.train_only and not self.training
        return {"loss": cross_entropy(z, labels) if plain else self.loss(z, labels, h) + 0 * noise, "logits": z}


def weighted(z: Tensor, y: Tensor, _h: Tensor) -> Tensor:
    return cross_entropy(z, y, weight=torch.tensor([1.0, 3.0, 0.5]))


def smoothed(z: Tensor, y: Tensor, _h: Tensor) -> Tensor:
    return cross_entropy(z, y, label_smoothing=0.1)


def auxiliary(z: Tensor, y: Tensor, h: Tensor) -> Tensor:
    return cross_entropy(z, y) + 0.01 * h.square().mean()


def summed(z: Tensor, y: Tensor, _h: Tensor) -> Tensor:
    return cross_entropy(z, y, reduction="sum")


def plain(z: Tensor, y: Tensor, _h: Tensor) -> Tensor:
    return cross_entropy(z, y)


METHODS = [
    eh.ERM(),
    eh.EDGE(),
    eh.EDGE(projection="reweight"),
    eh.EDGE(route="double"),
    eh.GCE(),
    eh.Focal(),
    eh.LfF(),
]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith(WARNING)]


@pytest.mark.parametrize("loss", [weighted, smoothed, auxiliary, summed])
@pytest.mark.parametrize("train_only", [False, True])
def test_a_loss_that_is_not_plain_is_said_once(
    loss: Any, train_only: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path, Own(loss, train_only), image_data())
    (said,) = warnings_of(caplog)
    assert "not on the loss that Own computes, which differs from plain cross-entropy by" in said
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.title)
def test_every_method_says_it(method: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained(tmp_path, Own(auxiliary), image_data(), trainer={"method": method}, num_train_epochs=1)
    (said,) = warnings_of(caplog)
    assert f"({method.title})" in said


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.title)
def test_looking_leaves_no_trace(method: Any, tmp_path: Path) -> None:
    class Unlabelled(Own):
        """The same network, at whose loss there is nothing to look."""

        def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return super().forward(pixel_values)

    looked, plainly = Own(auxiliary), Unlabelled(auxiliary)
    weights = [trained(tmp_path, m, image_data(), trainer={"method": method}) for m in (looked, plainly)]
    assert_same_bits(*weights)
    for name, buffer in plainly.named_buffers():
        assert torch.equal(looked.get_buffer(name), buffer), name
    assert looked.count == plainly.count


def test_random_numbers_buffers_and_attributes_are_as_before() -> None:
    model = text_model(0.5)
    model.register_buffer("seen", torch.zeros(3))
    model.mark = "before"
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    inputs = {"input_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.tensor([0, 1])}
    with unnoticed(model):
        model(**inputs)
        assert model.config.problem_type == "single_label_classification"
        random.random()
        np.random.rand()
        model.seen += 1
        model.seen = torch.ones(3)
        model.mark, model.new = "after", "thing"
    assert model.config.problem_type is None
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # type: ignore[arg-type]
    assert model.seen.tolist() == [0, 0, 0]
    assert (model.mark, hasattr(model, "new")) == ("before", False)
    assert model.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("labels", [[1] * 40, [1] * 8 + [-100] * 32, [0, -100] * 20])
def test_class_weights_show_in_batches_of_one_class(
    labels: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = image_data().remove_columns("labels").add_column("labels", labels)  # pyright: ignore[reportCallIssue]
    trained(tmp_path, Own(weighted), data)
    assert len(warnings_of(caplog)) == 1


def test_a_first_batch_without_counted_labels_hides_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = image_data(16).remove_columns("labels").add_column("labels", [-100] * 8 + [0, 1] * 4)  # pyright: ignore[reportCallIssue]
    trained(tmp_path, Own(auxiliary), data, train_sampling_strategy="sequential", num_train_epochs=1)
    assert len(warnings_of(caplog)) == 1


class Weighted(BertForSequenceClassification):
    """A classifier of transformers with class weights in its forward."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        outputs: Any = super().forward(input_ids, attention_mask, **kwargs)
        if labels is not None:
            outputs["loss"] = cross_entropy(outputs.logits, labels, weight=torch.tensor([5.0, 1.0, 1.0]))
        return outputs


@pytest.mark.parametrize(
    "settings", [{}, {"bf16": True}, {"gradient_checkpointing": True}, {"gradient_accumulation_steps": 2}]
)
@pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", [BertForSequenceClassification, Weighted])
@pytest.mark.parametrize("lora", [False, True])
def test_classifiers_of_transformers(
    settings: dict[str, Any], kind: Any, lora: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = kind(text_model().config)
    trained(
        tmp_path,
        with_lora(model, ["query", "value"]) if lora else model,
        text_data(),
        trainer={"method": eh.EDGE()},
        num_train_epochs=1,
        **settings,
    )
    assert len(warnings_of(caplog)) == (kind is Weighted)


def small(config: Any, **changes: Any) -> Any:
    common = {"vocab_size": 50, "num_labels": CLASSES, "pad_token_id": 0}
    return config(**common, **changes)


SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


def variety() -> dict[str, Any]:
    """Classifiers of transformers, whose loss is plain cross-entropy."""
    return {
        "roberta": lambda: transformers.RobertaForSequenceClassification(small(transformers.RobertaConfig, **SIZES)),
        "distilbert": lambda: transformers.DistilBertForSequenceClassification(
            small(transformers.DistilBertConfig, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
        ),
        "mixtral": lambda: transformers.MixtralForSequenceClassification(
            small(
                transformers.MixtralConfig,
                **SIZES,
                num_key_value_heads=2,
                num_local_experts=4,
                output_router_logits=True,
                router_aux_loss_coef=0.1,
            )
        ),
        "t5": lambda: transformers.T5ForSequenceClassification(
            small(
                transformers.T5Config,
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=2,
                num_heads=2,
                eos_token_id=2,
                decoder_start_token_id=0,
            )
        ),
    }


def ending(data: datasets.Dataset) -> datasets.Dataset:
    """Each text ends with the token that T5 reads its class from."""
    return data.map(lambda row: {"input_ids": [3 + t % 40 for t in row["input_ids"][:-1]] + [2]})


@pytest.mark.parametrize("name", list(variety()))
def test_other_classifiers_are_plain_and_alpha_zero_is_transformers_bit_for_bit(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def made() -> Any:
        torch.manual_seed(0)
        return variety()[name]()

    data = ending(text_data(24))
    theirs = trained(tmp_path, made(), data, transformers.Trainer, num_train_epochs=1)
    for method in (eh.ERM(), eh.EDGE(alpha=0.0)):
        assert_same_bits(trained(tmp_path, made(), data, trainer={"method": method}, num_train_epochs=1), theirs)
    trained(tmp_path, made(), data, trainer={"method": eh.EDGE(projection="tensor")}, num_train_epochs=1)
    assert warnings_of(caplog) == []


def test_a_plain_loss_needs_no_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained(tmp_path, Own(plain), image_data())
    assert warnings_of(caplog) == []


def test_each_training_is_looked_at_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = eh.Trainer(Own(weighted), arguments(tmp_path, num_train_epochs=1), train_dataset=image_data())
    trainer.train()
    trainer.train()
    trainer.evaluate(image_data())
    assert len(warnings_of(caplog)) == 2


def test_only_the_first_process_speaks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eh.Trainer, "is_world_process_zero", lambda _self: False)
    trained(tmp_path, Own(weighted), image_data(), num_train_epochs=1)
    assert warnings_of(caplog) == []


# ---- losses that a subclass brings ----------------------------------------------------------------------------------


class OwnTrainer(eh.Trainer):
    """Class weights as transformers' documentation shows them."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = weighted(outputs.logits, labels, labels)
        return (loss, outputs) if return_outputs else loss


class TheirTrainer(transformers.Trainer):
    compute_loss: Any = OwnTrainer.compute_loss


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("make", [text_model, lambda: Unkeyed()])
def test_a_compute_loss_of_ones_own_is_that_of_erm(
    steps: int, make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = text_data()
    settings = {"gradient_accumulation_steps": steps, "optim": "sgd", "max_grad_norm": 0.0}
    theirs = trained(tmp_path, make(), data, TheirTrainer, **settings)
    assert_same_bits(trained(tmp_path, make(), data, OwnTrainer, **settings), theirs)
    assert warnings_of(caplog) == []


class Unkeyed(nn.Module):
    """A classifier that takes no further keywords, so that transformers divides its loss by the accumulated steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        del attention_mask, labels
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=self.head(self.table(input_ids).mean(1)))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [m for m in METHODS if m.name != "erm"], ids=lambda m: m.title)
def test_a_compute_loss_that_would_drop_the_methods_is_refused(method: Any, tmp_path: Path) -> None:
    with pytest.raises(eh.UserError, match="compute_loss can't be overridden: override the method's sample_losses"):
        OwnTrainer(text_model(), arguments(tmp_path), train_dataset=text_data(), method=method)


def test_class_weights_beside_a_compute_loss_are_refused(tmp_path: Path) -> None:
    with pytest.raises(eh.UserError, match="which this trainer's compute_loss overrides"):
        OwnTrainer(text_model(), arguments(tmp_path), train_dataset=text_data(), class_weights=[1.0, 2.0, 3.0])


def test_one_output_is_a_regression(tmp_path: Path) -> None:
    config = text_model().config
    config.num_labels = 1
    with pytest.raises(eh.UserError, match="regression is not supported"):
        eh.Trainer(BertForSequenceClassification(config), arguments(tmp_path), train_dataset=text_data())
