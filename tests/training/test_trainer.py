from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from transformers import BertForTokenClassification

import evenhand as eh
import reference
from evenhand.methods import Method
from evenhand.models.inference import logits_and_labels
from trainer_models import (
    CLASSES,
    arguments,
    assert_same_bits,
    assert_same_to_rounding,
    image_data,
    image_model,
    refused,
    text_data,
    text_model,
    trained,
)


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("projection", ["published", "row", "tensor", "global", "naive", "reweight"])
def test_erm_and_alpha_zero_are_transformers_bit_for_bit(kind: str, projection: Any, tmp_path: Path) -> None:
    make, data = (text_model, text_data()) if kind == "text" else (image_model, image_data())
    plain = trained(tmp_path, make(), data, transformers.Trainer)
    assert_same_bits(trained(tmp_path, make(), data), plain)
    edge = {"method": eh.EDGE(alpha=0.0, projection=projection)}
    assert_same_bits(trained(tmp_path, make(), data, trainer=edge), plain)


@pytest.mark.parametrize("method", [eh.ERM(), eh.GCE(), eh.EDGE(projection="tensor"), eh.EDGE(projection="published")])
def test_accumulation_equals_one_large_batch(method: Method, tmp_path: Path) -> None:
    # 40 = 32 + 8 samples: the last optimizer step has one micro-batch of four
    model = {"trainer": {"method": method}, "optim": "sgd", "learning_rate": 0.1}
    large = trained(tmp_path, text_model(0.0), text_data(), per_device_train_batch_size=32, **model)
    small = trained(
        tmp_path, text_model(0.0), text_data(), per_device_train_batch_size=8, gradient_accumulation_steps=4, **model
    )
    assert_same_to_rounding(small, large)


@pytest.mark.parametrize("projection", ["published", "row", "tensor", "global", "naive", "reweight"])
@pytest.mark.parametrize("signal", ["self", "biased"])
def test_one_step_of_edge_is_the_reference(projection: Any, signal: Any, tmp_path: Path) -> None:
    data, alpha, q = image_data(12), 1.4, 0.7
    probs = np.random.default_rng(1).random(12).astype(np.float32)
    model = image_model()
    inputs, labels = torch.tensor(data["pixel_values"]), torch.tensor(data["labels"])
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    samples = reference.sample_gradients(model, inputs, labels, parameters, lambda out: out.logits)
    own = [reference.probability(z, int(y)) for z, y in zip(model(inputs).logits, labels, strict=True)]
    weights = [q * p**q for p in (own if signal == "self" else probs.tolist())]
    erm, bias = reference.weighted_sum(samples, [1.0] * 12), reference.weighted_sum(samples, weights)
    expected = reference.edge_update(erm, bias, "naive" if projection == "reweight" else projection, alpha)

    options: dict[str, Any] = {"method": eh.EDGE(alpha=alpha, q=q, projection=projection, signal=signal)}
    if signal == "biased":
        options["signal_probs"] = probs
    trained(
        tmp_path,
        model,
        data,
        trainer=options,
        per_device_train_batch_size=12,
        num_train_epochs=1,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
    )
    total = math.sqrt(sum(float(u.square().sum()) for u in expected))
    for start, parameter, update in zip(before, parameters, expected, strict=True):
        error = float((start - parameter.detach() - update).norm())
        # a step of learning rate 1 is read off weights of size ~1: their rounding comes on top
        assert error <= 1e-5 * max(float(update.norm()), 1e-6 * total) + 1e-6 * float(start.norm())


def test_clipping_comes_after_the_combination(tmp_path: Path) -> None:
    # The update is longer than 0.2, so a step of SGD with learning rate 1 has just the norm that it is clipped to.
    model = image_model()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    trained(
        tmp_path,
        model,
        image_data(8),
        trainer={"method": eh.EDGE(alpha=50.0, projection="tensor")},
        num_train_epochs=1,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0.2,
        lr_scheduler_type="constant",
    )
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.2, rel=1e-3)


def test_every_parameter_is_trained_by_edge(tmp_path: Path) -> None:
    model = text_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    after = trained(tmp_path, model, text_data(), trainer={"method": eh.EDGE(projection="row")})
    # an attention key's bias has a gradient of 0: softmax doesn't see a shift common to all keys
    still = [name for name in before if torch.equal(before[name], after[name]) and "key.bias" not in name]
    assert still == []


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("projection", ["published", "tensor"])
def test_every_route_of_edge_trains_the_same(kind: str, projection: Any, tmp_path: Path) -> None:
    make, data = (text_model, text_data()) if kind == "text" else (image_model, image_data())
    sgd = {"optim": "sgd", "learning_rate": 0.1, "num_train_epochs": 1}
    single, retained = (
        trained(tmp_path, make(), data, trainer={"method": eh.EDGE(projection=projection, route=route)}, **sgd)
        for route in ("single", "retain")
    )
    assert_same_to_rounding(single, retained)


def test_training_leaves_no_hook_on_the_model(tmp_path: Path) -> None:
    model = image_model()
    trained(tmp_path, model, image_data(), trainer={"method": eh.EDGE()})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_signal_follows_the_index_column_when_rows_are_shuffled(tmp_path: Path) -> None:
    data, probs = image_data(24), np.linspace(0, 1, 24, dtype=np.float32)
    order = np.random.default_rng(0).permutation(24)
    method = eh.EDGE(alpha=1.2, projection="naive", signal="biased")
    sequential = {"train_sampling_strategy": "sequential"}
    permuted = data.select(order)
    by_row = trained(
        tmp_path, image_model(), permuted, trainer={"method": method, "signal_probs": probs[order]}, **sequential
    )
    indexed = data.add_column("index", list(range(24))).select(order)  # pyright: ignore[reportCallIssue]
    by_index = trained(
        tmp_path, image_model(), indexed, trainer={"method": method, "signal_probs": probs}, **sequential
    )
    assert_same_bits(by_index, by_row)
    wrong = trained(tmp_path, image_model(), permuted, trainer={"method": method, "signal_probs": probs}, **sequential)
    assert any(not torch.equal(wrong[name], by_row[name]) for name in wrong)


def test_index_survives_a_collator_of_ones_own(tmp_path: Path) -> None:
    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": torch.tensor([row["pixel_values"] for row in rows]),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    probs = np.linspace(0, 1, 24, dtype=np.float32)
    options = {"method": eh.EDGE(signal="biased"), "signal_probs": probs}
    usual = trained(tmp_path, image_model(), image_data(24), trainer=options)
    own = trained(
        tmp_path,
        image_model(),
        image_data(24),
        trainer=options | {"data_collator": collate},
        remove_unused_columns=False,
    )
    assert_same_bits(own, usual)


def test_sampling_draws_in_proportion_and_anew_each_epoch(tmp_path: Path) -> None:
    data = image_data(40).add_column("index", list(range(40)))  # pyright: ignore[reportCallIssue]
    weights = np.zeros(40)
    weights[[3, 7]] = [1.0, 3.0]
    trainer = eh.Trainer(image_model(), arguments(tmp_path), train_dataset=data, sampling=weights)
    sampler: Any = trainer._get_train_sampler()
    first = sampler.draws()
    sampler.set_epoch(1)
    assert set(first) == {3, 7}
    assert not np.array_equal(first, sampler.draws())
    loader = trainer.get_train_dataloader()
    loader.set_epoch(1)  # type: ignore[attr-defined]
    drawn = torch.cat([batch["labels"] for batch in loader]).tolist()
    assert drawn == [data[int(row)]["labels"] for row in sampler.draws()]


def test_evaluation_loss_is_plain_cross_entropy_and_the_model_never_sees_labels_or_index(tmp_path: Path) -> None:
    data = text_data().add_column("index", list(range(40)))  # pyright: ignore[reportCallIssue]
    model = text_model()
    probs = np.full(40, 0.5, dtype=np.float32)
    trainer = eh.Trainer(
        model,
        arguments(tmp_path),
        train_dataset=data,
        eval_dataset=data,
        method=eh.EDGE(signal="biased", projection="reweight"),
        signal_probs=probs,
    )
    metrics = trainer.evaluate()
    logits, labels = logits_and_labels(model, text_data())
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert metrics["eval_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_what_cannot_be_trained_is_refused_before_the_first_step(tmp_path: Path) -> None:
    refused(
        tmp_path, "PGD trains in several stages, so evenhand.Trainer can't run it: use evenhand.fit", method=eh.PGD()
    )
    refused(tmp_path, "'method' parameter of Trainer must be a method", method="edge")
    refused(tmp_path, "needs signal_probs", method=eh.EDGE(signal="biased"))
    biased = eh.EDGE(signal="biased")
    refused(tmp_path, r"shape \(12,\).*Got \(5,\)", method=biased, signal_probs=np.ones(5))
    refused(
        tmp_path, r"lie in \[0, 1\]. Got nan for sample 2", method=biased, signal_probs=np.array([1, 1, np.nan] * 4)
    )
    refused(tmp_path, "makes no use of signal_probs", method=eh.ERM(), signal_probs=np.ones(12))
    refused(tmp_path, "one weight for each of the 12 training samples. Got 3", sampling=np.ones(3))
    refused(tmp_path, "Got -1.0 for sample 0", sampling=-np.ones(12))
    refused(tmp_path, "can't be run with torch_compile", method=eh.EDGE(), changes={"torch_compile": True})
    refused(tmp_path, "label_smoothing_factor", changes={"label_smoothing_factor": 0.1})
    refused(tmp_path, "compute_loss_func must be None", compute_loss_func=lambda *_args, **_kwargs: None)


def test_other_problems_than_single_label_classification_are_refused_by_name(tmp_path: Path) -> None:
    floats = image_data(12).remove_columns("labels").add_column("labels", [0.5] * 12)  # pyright: ignore[reportCallIssue]
    lists = image_data(12).remove_columns("labels").add_column("labels", [[0, 1, 0]] * 12)  # pyright: ignore[reportCallIssue]
    refused(tmp_path, "regression is refused", data=floats)
    refused(tmp_path, "multi-label data", data=lists)
    words = image_data(12).remove_columns("labels").add_column("labels", ["a"] * 12)  # pyright: ignore[reportCallIssue]
    refused(tmp_path, r"Labels must be integers.* Got 'a' first", data=words)
    regression = text_model()
    regression.config.problem_type = "regression"
    refused(tmp_path, "regression is not supported", model=regression, data=text_data())
    tokens = BertForTokenClassification(text_model().config)
    refused(tmp_path, "token classification is not supported", model=tokens, data=text_data())
    refused(
        tmp_path,
        "streaming data sets are not supported",
        data=image_data(12).to_iterable_dataset(),
        changes={"max_steps": 1},
    )


@pytest.mark.parametrize("label", [-99, -1, CLASSES])
def test_labels_outside_the_classes_are_refused_with_their_sample(label: int, tmp_path: Path) -> None:
    labels = [0] * 12
    labels[5] = label
    data = image_data(12).remove_columns("labels").add_column("labels", labels)  # pyright: ignore[reportCallIssue]
    refused(tmp_path, rf"Labels must lie in 0…2 for this model, .*\. Got {label} for sample 5 \(1 such", data=data)


# ---- index, labels and probabilities of all kinds of data sets -------------------------------------------------------


def with_column(name: str, values: list[Any], n: int = 12) -> datasets.Dataset:
    return image_data(n).add_column(name, values)  # pyright: ignore[reportCallIssue]


def collate_from(label: str) -> Any:
    def made(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = torch.tensor([f["pixel_values"] for f in features])
        return {"pixel_values": pixels, "labels": torch.tensor([int(f[label]) for f in features])}

    return made


@pytest.mark.parametrize(("projection", "batch"), [("tensor", 12), ("reweight", 1)])
def test_a_transform_that_drops_the_index_is_an_error(projection: Any, batch: int, tmp_path: Path) -> None:
    data = with_column("index", list(range(12)))
    data = data.with_transform(lambda rows: {k: rows[k] for k in ("pixel_values", "labels")})
    options = {
        "data_collator": collate_from("labels"),
        "method": eh.EDGE(signal="biased", projection=projection),
        "signal_probs": np.full(12, 0.5),
    }
    settings = {"per_device_train_batch_size": batch, "remove_unused_columns": False}
    with pytest.raises(eh.UserError, match="'index'"):
        trained(tmp_path, image_model(), data, trainer=options, **settings)


@pytest.mark.parametrize("values", [[0, 1, 2] * 4, ["0", "1", "2"] * 4])
def test_a_collator_may_make_the_labels(values: list[Any], tmp_path: Path) -> None:
    data = with_column("fine_label", values).remove_columns("labels")
    options = {"data_collator": collate_from("fine_label"), "method": eh.EDGE()}
    weights = trained(tmp_path, image_model(), data, trainer=options, remove_unused_columns=False)
    assert all(torch.isfinite(p).all() for p in weights.values())


def test_a_users_own_index_is_dropped_without_a_signal(tmp_path: Path) -> None:
    data = with_column("index", [10 * i for i in range(12)])
    trainer = eh.Trainer(image_model(), arguments(tmp_path), train_dataset=data, method=eh.EDGE())
    trainer.train()
    assert "index" not in next(iter(trainer.get_train_dataloader()))


@pytest.mark.parametrize("values", [[f"id{i}" for i in range(12)], [i - 1 for i in range(12)]])
def test_an_index_that_is_no_row_number_is_refused_with_a_signal(values: list[Any], tmp_path: Path) -> None:
    biased = {"method": eh.EDGE(signal="biased"), "signal_probs": np.full(12, 0.5)}
    refused(tmp_path, "'index' column must hold integers", data=with_column("index", values), **biased)


def test_a_part_of_the_samples_may_come_with_the_probabilities_of_all(tmp_path: Path) -> None:
    data, probs = with_column("index", [2 * i for i in range(12)]), np.linspace(0, 1, 100)
    biased = {"method": eh.EDGE(signal="biased", alpha=1.2)}
    part = trained(tmp_path, image_model(), data, trainer=biased | {"signal_probs": probs})
    plain = data.remove_columns("index")
    own = trained(tmp_path, image_model(), plain, trainer=biased | {"signal_probs": probs[: 2 * 12 : 2]})
    assert_same_bits(part, own)


def test_predictions_without_labels_but_with_an_index(tmp_path: Path) -> None:
    new = with_column("index", list(range(12))).remove_columns("labels")
    trainer = eh.Trainer(image_model(), arguments(tmp_path, remove_unused_columns=False), train_dataset=image_data(12))
    predictions: Any = trainer.predict(new).predictions  # pyright: ignore[reportArgumentType]
    assert predictions.shape == (12, CLASSES)
