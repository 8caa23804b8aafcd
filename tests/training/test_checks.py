"""EDGE in the modes of the Trainer: adapters, checkpointing, resuming, scopes, signals, warm-ups, precision, logs."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import evenhand as eh
from evenhand.losses import cross_entropy, gce_weights, true_class_probability
from evenhand.training.checks import check_combination
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
    vit_model,
    with_lora,
)

pytestmark = [  # transformers and peft, about each other
    pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*enable_input_require_grads:FutureWarning"),
]

PROJECTIONS: list[Any] = ["published", "row", "tensor", "global", "naive", "reweight"]
SGD: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.1}


def vit_targets() -> list[str]:
    return sorted(
        {name.split(".")[-1] for name, m in vit_model().named_modules() if isinstance(m, nn.Linear)}
        & {"query", "value", "q_proj", "v_proj"}
    )


# ---- α = 0 is ERM ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_alpha_zero_with_lora_is_transformers_bit_for_bit(kind: str, projection: Any, tmp_path: Path) -> None:
    def make() -> Any:
        if kind == "text":
            return with_lora(text_model(), ["query", "value"], lora_dropout=0.1)
        return with_lora(vit_model(), vit_targets(), lora_dropout=0.1)

    data = text_data() if kind == "text" else image_data()
    plain = trained(tmp_path, make(), data, transformers.Trainer, label_names=["labels"])
    assert_same_bits(trained(tmp_path, make(), data), plain)
    edge = {"method": eh.EDGE(alpha=0.0, projection=projection)}
    assert_same_bits(trained(tmp_path, make(), data, trainer=edge), plain)


@pytest.mark.parametrize("route", ["auto", "retain", "double"])
@pytest.mark.parametrize("make", [text_model, image_model, vit_model])
def test_alpha_zero_is_erm_on_every_route(route: Any, make: Any, tmp_path: Path) -> None:
    data = text_data() if make is text_model else image_data()
    plain = trained(tmp_path, make(), data)
    edge = {"method": eh.EDGE(alpha=0.0, projection="tensor", route=route)}
    assert_same_bits(trained(tmp_path, make(), data, trainer=edge), plain)


# ---- modes that don't change the result -----------------------------------------------------------------------------


@pytest.mark.parametrize("projection", ["published", "row", "tensor", "global", "naive"])
@pytest.mark.parametrize("make", [lambda: text_model(0.0), lambda: with_lora(text_model(0.0), ["query", "value"])])
def test_routes_agree_without_dropout(projection: Any, make: Any, tmp_path: Path) -> None:
    retained, single, double = (
        trained(tmp_path, make(), text_data(), trainer={"method": eh.EDGE(projection=projection, route=route)}, **SGD)
        for route in ("retain", "single", "double")
    )
    assert_same_to_rounding(single, retained)
    assert_same_to_rounding(double, retained)


def test_a_forward_of_its_own_has_its_own_dropout(tmp_path: Path) -> None:
    retained, double = (
        trained(tmp_path, text_model(0.5), text_data(), trainer={"method": eh.EDGE(route=route)}, **SGD)
        for route in ("retain", "double")
    )
    assert any(not torch.equal(retained[name], double[name]) for name in retained)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("route", ["auto", "retain", "double"])
def test_checkpointing_changes_nothing(reentrant: bool, route: Any, tmp_path: Path) -> None:
    edge = {"method": eh.EDGE(projection="tensor", alpha=4.0, route=route)}
    plain = trained(tmp_path, text_model(0.0), text_data(), trainer=edge, **SGD)
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    model = with_input_gradients(text_model(0.0)) if reentrant else text_model(0.0)
    assert_same_to_rounding(trained(tmp_path, model, text_data(), trainer=edge, **SGD, **settings), plain)


def with_input_gradients(model: Any) -> Any:
    """What reentrant checkpointing needs to see gradients in its blocks."""
    model.enable_input_require_grads()
    return model


@pytest.mark.parametrize(
    "method",
    [
        eh.EDGE(projection="tensor", alpha=4.0),
        eh.EDGE(projection="published", alpha_warmup=7, q_warmup=5),
        eh.EDGE(projection="row", signal="ema", alpha=4.0, ema_decay=0.9),
        eh.EDGE(projection="naive", signal="biased", route="double"),
    ],
)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_resuming_in_mid_epoch_equals_not_stopping(method: Any, accumulated: int, tmp_path: Path) -> None:
    # 40 samples in micro-batches of 4: a checkpoint at step 3 lies in the first epoch
    def run(folder: Path, **changes: Any) -> tuple[dict[str, Tensor], Any]:
        model = text_model()
        options = {"signal_probs": np.linspace(0, 1, 40, dtype=np.float32)} if method.needs_signal else {}
        settings = {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": accumulated,
            "save_strategy": "steps",
            "save_steps": 3,
        }
        trainer = eh.Trainer(model, arguments(folder, **settings), train_dataset=text_data(), method=method, **options)
        trainer.train(**changes)
        return {name: p.detach().clone() for name, p in model.named_parameters()}, trainer

    whole, _ = run(tmp_path / "run")
    resumed, trainer = run(tmp_path / "again", resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert trainer.state.global_step == 20 // accumulated
    assert_same_bits(resumed, whole)


def test_a_checkpoint_without_the_averages_is_refused(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    trained(tmp_path, text_model(), text_data(), trainer={"method": eh.EDGE()}, **settings)
    averaged = eh.Trainer(text_model(), arguments(tmp_path), train_dataset=text_data(), method=eh.EDGE(signal="ema"))
    with pytest.raises(eh.UserError, match="holds no running averages"):
        averaged.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


# ---- the published listing ------------------------------------------------------------------------------------------


def roberta_with_lora() -> Any:
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.RobertaForSequenceClassification(config)
    return with_lora(model, ["query", "value"], r=8, lora_alpha=16)


def as_released(e: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The paper's procedure for one matrix, a loop over its rows, from its description alone."""
    e_unit, b_unit = (g / (torch.linalg.norm(g) or 1.0) for g in (e, b))
    exclusive = []
    for bias_row, e_row, b_row in zip(b, e_unit, b_unit, strict=True):
        common = e_row + b_row
        exclusive.append(bias_row - torch.dot(bias_row, common) * common)
    return e - alpha * torch.stack(exclusive)


def test_published_is_the_listing_on_lora_roberta(tmp_path: Path) -> None:
    data, alpha = text_data(12), 1.0
    model = roberta_with_lora()
    logits_BC, labels_B = logits_on(model, data)
    loss_B = nn.functional.cross_entropy(logits_BC, labels_B, reduction="none")
    p_B = torch.softmax(logits_BC, 1)[torch.arange(12), labels_B].detach()
    erm = gradients(model, loss_B.mean())
    bias = gradients(model, (loss_B * 0.7 * p_B**0.7).mean())
    ours = one_step(model, data, tmp_path, method=eh.EDGE(alpha=alpha))
    matrices = [name for name, e in erm.items() if e.ndim == 2]
    assert len(matrices) == 8 + 2  # A and B of query and value in both layers, and the classifier's two
    for name, e in erm.items():
        b = bias[name]
        # of vectors the listing says nothing: they take the projection of the whole tensor
        rho = b.norm() / e.norm()
        expected = as_released(e, b, alpha) if e.ndim == 2 else (1 + alpha * rho / 2) * e - alpha / 2 * b
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"gradient_accumulation_steps": 2}])
def test_every_adapter_matrix_moves(projection: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    model = roberta_with_lora()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    edge = {"method": eh.EDGE(projection=projection)}
    after = trained(tmp_path, model, text_data(), trainer=edge, **SGD, **settings)
    assert [name for name in before if torch.equal(before[name], after[name])] == []


# ---- what the options mean ------------------------------------------------------------------------------------------


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


def one_step(model: Any, data: Any, folder: Path, **options: Any) -> dict[str, Tensor]:
    """The update that a step of SGD with learning rate 1 on all samples takes off the weights."""
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    settings = {"num_train_epochs": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}
    constant = {"lr_scheduler_type": "constant", "per_device_train_batch_size": len(data)}
    after = trained(folder, model, data, trainer=options, **settings, **constant)
    return {name: before[name] - after[name] for name in before}


def logits_on(model: Any, data: Any) -> tuple[Tensor, Tensor]:
    inputs = {k: torch.tensor(data[k]) for k in data.column_names if k != "labels"}
    return model(**inputs).logits, torch.tensor(data["labels"])


def assert_updates(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    # read off weights of size ~1, whose rounding comes on top
    for name, update in expected.items():
        torch.testing.assert_close(ours[name], update, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(("scope", "chosen"), [("adapters", "lora_"), ("*lora_A*", "lora_A")])
def test_scope_leaves_the_others_to_erm(scope: Any, chosen: str, tmp_path: Path) -> None:
    data = text_data(12)
    model = with_lora(text_model(0.0), ["query", "value"])
    logits_BC, labels_B = logits_on(model, data)
    loss_B = cross_entropy(logits_BC, labels_B)
    weight_B = gce_weights(true_class_probability(logits_BC, labels_B), 0.7)
    erm, bias = gradients(model, loss_B.mean()), gradients(model, (weight_B * loss_B).mean())
    expected = {name: e - 1.2 * bias[name] * (chosen in name) for name, e in erm.items()}
    assert len([name for name in erm if chosen in name]) not in (0, len(erm))
    ours = one_step(model, data, tmp_path, method=eh.EDGE(alpha=1.2, projection="naive", scope=scope))
    assert_updates(ours, expected)


def test_class_weights_weigh_both_gradients(tmp_path: Path) -> None:
    data, weights = image_data(12), [0.5, 2.0, 1.0]
    model = image_model()
    logits_BC, labels_B = logits_on(model, data)
    loss_B = torch.tensor(weights)[labels_B] * cross_entropy(logits_BC, labels_B)
    weight_B = gce_weights(true_class_probability(logits_BC, labels_B), 0.7)
    expected = gradients(model, ((1 - 1.4 * weight_B) * loss_B).mean())
    for projection in ("naive", "reweight"):
        torch.manual_seed(0)
        method = eh.EDGE(alpha=1.4, projection=projection)
        assert_updates(one_step(image_model(), data, tmp_path, method=method, class_weights=weights), expected)


@pytest.mark.parametrize("projection", ["naive", "reweight"])
def test_warm_ups_rise_linearly(projection: Any, tmp_path: Path) -> None:
    method = eh.EDGE(alpha=1.2, q=0.8, projection=projection, alpha_warmup=4, q_warmup=2)
    logits_BC, labels_B = torch.tensor([[0.5, -0.3, 0.1]]), torch.tensor([2])
    p_B = true_class_probability(logits_BC, labels_B)
    for step, alpha, q in ((0, 0.3, 0.4), (1, 0.6, 0.8), (3, 1.2, 0.8), (9, 1.2, 0.8)):
        rule = method.gradient_rule(step)
        torch.testing.assert_close(rule.weights(logits_BC, labels_B, None), gce_weights(p_B, q))
        factor = 1 - alpha * gce_weights(p_B, q) if projection == "reweight" else 1.0
        torch.testing.assert_close(rule.losses(logits_BC, labels_B, None), factor * cross_entropy(logits_BC, labels_B))
        assert rule.projection is None or rule.projection.alpha == pytest.approx(alpha)
    # the first step of the warm-up is a step with those values
    first = one_step(image_model(), image_data(12), tmp_path, method=method)
    plain = eh.EDGE(alpha=0.3, q=0.4, projection=projection)
    assert_updates(first, one_step(image_model(), image_data(12), tmp_path, method=plain))


def test_the_averaged_signal_is_the_average_by_sample(tmp_path: Path) -> None:
    # the first visit sets the average, so that one epoch is that of the own signal; the second differs
    method, own = eh.EDGE(signal="ema", projection="naive", ema_decay=0.6), eh.EDGE(projection="naive")
    once = {**SGD, "num_train_epochs": 1}
    averaged = trained(tmp_path, image_model(), image_data(), trainer={"method": method}, **once)
    assert_same_bits(averaged, trained(tmp_path, image_model(), image_data(), trainer={"method": own}, **once))
    trainer = eh.Trainer(image_model(), arguments(tmp_path, **SGD), train_dataset=image_data(), method=method)
    seen: list[tuple[Tensor, Tensor]] = []
    assert trainer.running is not None
    update = trainer.running.update

    def noted(index_B: Tensor, probability_B: Tensor) -> Tensor:
        seen.append((index_B, probability_B))
        return update(index_B, probability_B)

    trainer.running.update = noted  # type: ignore[method-assign]
    trainer.train()
    expected = torch.full((40,), math.nan)
    for index_B, probability_B in seen:
        for i, p in zip(index_B.tolist(), probability_B, strict=True):
            expected[i] = p if expected[i].isnan() else 0.6 * expected[i] + 0.4 * p
    torch.testing.assert_close(trainer.running.value_N, expected)
    assert len(seen) == 10


@pytest.mark.parametrize("projection", ["published", "naive"])
def test_half_precision_trains(projection: Any, tmp_path: Path) -> None:
    edge = {"method": eh.EDGE(projection=projection)}
    full = trained(tmp_path, text_model(0.0), text_data(), trainer=edge, **SGD)
    half = trained(tmp_path, text_model(0.0), text_data(), trainer=edge, **SGD, bf16=True)
    moved = trained(tmp_path, text_model(0.0), text_data(), trainer={"method": eh.ERM()}, **SGD, bf16=True)
    start = {name: p.detach() for name, p in text_model(0.0).named_parameters()}

    def distance(one: dict[str, Tensor], other: Any) -> float:
        return math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))

    assert distance(half, full) < 0.05 * distance(full, start)
    assert distance(half, moved) > 0.05 * distance(full, start)


def test_logs_hold_norms_and_cosine(tmp_path: Path) -> None:
    data = image_data(12)
    model = image_model()
    logits_BC, labels_B = logits_on(model, data)
    loss_B = cross_entropy(logits_BC, labels_B)
    weight_B = gce_weights(true_class_probability(logits_BC, labels_B), 0.7)
    e, b = (
        torch.cat([g.flatten() for g in gradients(model, loss).values()])
        for loss in (loss_B.mean(), (weight_B * loss_B).mean())
    )
    settings = arguments(tmp_path, per_device_train_batch_size=12, logging_steps=1, num_train_epochs=1)
    trainer = eh.Trainer(model, settings, train_dataset=data, method=eh.EDGE(projection="naive"))
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert logged["erm_grad_norm"] == pytest.approx(float(e.norm()), rel=1e-4)
    assert logged["bias_grad_norm"] == pytest.approx(float(b.norm()), rel=1e-4)
    assert logged["erm_bias_cosine"] == pytest.approx(float(e @ b / (e.norm() * b.norm())), rel=1e-4)
    assert not any("cosine" in key for key in trainer.state.log_history[-1])


def test_compiled_models_take_forwards_of_their_own(tmp_path: Path) -> None:
    edge = {"method": eh.EDGE(projection="tensor", alpha=4.0, route="double")}
    plain = trained(tmp_path, image_model(), image_data(), trainer=edge, **SGD)
    compiled = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    found = trained(tmp_path, image_model(), image_data(), trainer=edge, **SGD, **compiled)
    assert_same_to_rounding(found, plain)


@pytest.mark.parametrize("accumulated", [1, 4])
def test_adapters_that_gain_a_gradient_late_are_verified(accumulated: int, tmp_path: Path) -> None:
    """LoRA's A has none while B is 0; here its layer's samples don't lie in dim 0, which no rule can see."""
    settings: dict[str, Any] = {
        **SGD,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": accumulated,
        "num_train_epochs": 2,
    }

    def make() -> Any:
        torch.manual_seed(0)
        return with_lora(Transposed(), ["layer"], away_from_zero=False, modules_to_save=["head"])

    ways = [
        trained(
            tmp_path, make(), image_data(64), trainer={"method": eh.EDGE(projection="naive", route=route)}, **settings
        )
        for route in ("auto", "retain")
    ]
    assert_same_to_rounding(*ways)


class Transposed(nn.Module):
    """A layer whose input is (positions, samples, width), with as many positions as samples in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(24, 24), nn.Linear(24, CLASSES)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        x_TBD = pixel_values.flatten(2).transpose(1, 2).reshape(len(pixel_values), 8, 24).transpose(0, 1)
        return {"logits": self.head(torch.tanh(self.layer(x_TBD)).mean(0))}


@pytest.mark.parametrize("batch", [1, 4])
def test_a_use_that_no_tap_sees_is_found_in_batches_of_one_too(batch: int, tmp_path: Path) -> None:
    class ReadTwice(Transposed):
        def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
            x_BTD = pixel_values.flatten(1).reshape(len(pixel_values), 8, 24)
            h_BTD = torch.tanh(self.layer(x_BTD))
            return {"logits": self.head(nn.functional.linear(h_BTD, self.layer.weight.T).mean(1))}

    ways = []
    for route in ("auto", "retain"):
        torch.manual_seed(0)
        edge = {"method": eh.EDGE(projection="naive", route=route)}
        ways.append(
            trained(tmp_path, ReadTwice(), image_data(16), trainer=edge, per_device_train_batch_size=batch, **SGD)
        )
    assert_same_to_rounding(*ways)


def test_masks_of_the_second_forward_differ_from_step_to_step(tmp_path: Path) -> None:
    seeds: list[int] = []

    class Noting(eh.Trainer):
        def _second_forward(self, *args: Any) -> None:
            state = torch.random.get_rng_state()
            super()._second_forward(*args)
            assert torch.equal(state, torch.random.get_rng_state())

        def _forward(self, model: Any, inputs: Any) -> Any:
            seeds.append(torch.initial_seed())
            return super()._forward(model, inputs)

    settings = arguments(tmp_path, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    Noting(image_model(), settings, train_dataset=image_data(), method=eh.EDGE(route="double")).train()
    second = seeds[1::2]
    assert len(second) == 20
    assert len(set(second)) == 20
    assert set(seeds[::2]).isdisjoint(second)


def test_a_second_forward_leaves_running_statistics_alone(tmp_path: Path) -> None:
    def make() -> Any:
        torch.manual_seed(0)
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=CLASSES)
        return transformers.ResNetForImageClassification(config)

    plain, double = make(), make()
    trained(tmp_path, plain, image_data())
    trained(tmp_path, double, image_data(), trainer={"method": eh.EDGE(alpha=0.0, route="double")})
    assert [n for n, b in plain.named_buffers() if not torch.equal(b, dict(double.named_buffers())[n])] == []


def test_data_given_after_construction_are_checked_and_averaged_too(tmp_path: Path) -> None:
    method = eh.EDGE(signal="ema", ema_decay=0.5)

    def late(data: Any) -> Any:
        trainer = eh.Trainer(image_model(), arguments(tmp_path, **SGD), method=method)
        trainer.train_dataset = data
        trainer.train()
        return {name: p.detach() for name, p in trainer.model.named_parameters()}  # type: ignore[union-attr]

    assert_same_bits(
        late(image_data()), trained(tmp_path, image_model(), image_data(), trainer={"method": method}, **SGD)
    )
    with pytest.raises(eh.UserError, match="data set is empty"):
        late(image_data().select([]))


def test_a_second_training_begins_with_no_averages(tmp_path: Path) -> None:
    trainer = eh.Trainer(image_model(), arguments(tmp_path), train_dataset=image_data(), method=eh.EDGE(signal="ema"))
    trainer.train()
    first = dict(trainer.model.state_dict())  # type: ignore[union-attr]
    assert trainer.running is not None
    trainer.running.value_N.fill_(0.5)
    trainer.model.load_state_dict(image_model().state_dict())  # type: ignore[union-attr]
    trainer.optimizer, trainer.lr_scheduler = None, None  # type: ignore[assignment]
    trainer.train()
    assert all(torch.equal(p, first[name]) for name, p in trainer.model.state_dict().items())  # type: ignore[union-attr]


def test_parameters_that_a_callback_sets_free_are_trained_by_edge(tmp_path: Path) -> None:
    class Unfreeze(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            model.bert.requires_grad_(True)

    model = text_model()
    model.bert.requires_grad_(False)
    before = model.bert.encoder.layer[0].output.dense.weight.detach().clone()
    trainer = eh.Trainer(
        model, arguments(tmp_path), train_dataset=text_data(), method=eh.EDGE(), callbacks=[Unfreeze()]
    )
    trainer.create_optimizer()
    trainer.optimizer.add_param_group({"params": list(model.bert.parameters())})  # type: ignore[union-attr]
    trainer.train()
    assert not torch.equal(before, model.bert.encoder.layer[0].output.dense.weight)


def test_schedule_free_optimizers_are_in_train_mode(tmp_path: Path) -> None:
    class ScheduleFree(torch.optim.SGD):
        mode = "eval"
        steps: tuple[str, ...] = ()

        def train(self) -> None:
            self.mode = "train"

        def eval(self) -> None:
            self.mode = "eval"

        def step(self, closure: Any = None) -> Any:
            self.steps = (*self.steps, self.mode)
            return super().step(closure)

    model = image_model()
    optimizer = ScheduleFree(model.parameters(), lr=0.1)
    eh.Trainer(
        model, arguments(tmp_path), train_dataset=image_data(), method=eh.EDGE(), optimizers=(optimizer, None)
    ).train()
    assert set(optimizer.steps) == {"train"}


# ---- bad input ------------------------------------------------------------------------------------------------------


class OwnLoss(eh.Trainer):
    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs).mean()


def test_requests_that_go_unheard_elsewhere_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, r"one weight for each of the 3 classes. Got shape \(2,\)", class_weights=[1.0, 2.0])
    refused(tmp_path, "finite and not negative. Got -1.0 for class 1", class_weights=[1.0, -1.0, 1.0])
    refused(tmp_path, "all zero", class_weights=[0.0, 0.0, 0.0])
    for optimizer in ("lomo", "galore_adamw_layerwise"):
        refused(tmp_path, f"'{optimizer}', which steps within", method=eh.EDGE(), changes={"optim": optimizer})
    compiled = image_model()
    compiled.compile(backend="eager")
    with pytest.raises(eh.UserError, match="is compiled, which hides its layers"):
        trained(tmp_path, compiled, image_data(), trainer={"method": eh.EDGE()})
    large = image_data(12).add_column("index", [10**12 + i for i in range(12)])  # pyright: ignore[reportCallIssue]
    refused(tmp_path, "goes up to 1000000000011 for 12 rows", method=eh.EDGE(signal="ema"), data=large)
    with pytest.raises(eh.UserError, match="compute_loss can't be overridden: override the method's sample_losses"):
        OwnLoss(image_model(), arguments(tmp_path), train_dataset=image_data(), method=eh.EDGE())


@pytest.mark.parametrize(("flag", "what"), [("is_deepspeed_enabled", "DeepSpeed"), ("is_fsdp_enabled", "FSDP")])
def test_sharded_gradients_are_refused(flag: str, what: str, tmp_path: Path) -> None:
    flags = {"is_deepspeed_enabled": False, "is_fsdp_enabled": False} | {flag: True}
    trainer: Any = SimpleNamespace(args=arguments(tmp_path), **flags)
    with pytest.raises(eh.UserError, match=f"can't be run under {what}"):
        check_combination(trainer, eh.EDGE())


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("adapters", "no layer of the model has a trainable adapter of peft"),
        ("encoder.*", "matches none of the model's"),
        ("bert.*", "matches frozen parameters only"),
    ],
)
def test_a_scope_without_parameters_is_refused_before_the_first_step(scope: Any, message: str, tmp_path: Path) -> None:
    model = text_model()
    model.bert.requires_grad_(False)
    start = model.classifier.weight.detach().clone()
    with pytest.raises(eh.UserError, match=message):
        trained(tmp_path, model, text_data(), trainer={"method": eh.EDGE(scope=scope)})
    assert torch.equal(start, model.classifier.weight)


class Items(torch.utils.data.Dataset[Any]):
    """A plain data set of dicts, with labels and an index of its own."""

    def __init__(self, label: int, shift: int = 0) -> None:
        self.label, self.shift = label, shift

    def __len__(self) -> int:
        return 12

    def __getitem__(self, row: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(row)
        label = self.label if row == 7 else row % CLASSES
        return {"pixel_values": torch.rand(3, 8, 8, generator=generator), "labels": label, "index": row + self.shift}


@pytest.mark.parametrize("label", [-99, -1, CLASSES])
def test_labels_of_a_plain_data_set_are_checked_as_they_come(label: int, tmp_path: Path) -> None:
    with pytest.raises(
        eh.UserError, match=rf"Labels must lie in 0…2 for this model, .*\. Got {label} in a training batch"
    ):
        trained(tmp_path, image_model(), Items(label), trainer={"class_weights": [1.0, 1.0, 1.0]})


def test_the_row_is_the_index_of_a_plain_data_set(tmp_path: Path) -> None:
    options = {"method": eh.EDGE(signal="biased"), "signal_probs": np.linspace(0, 1, 12)}
    ways = [trained(tmp_path, image_model(), Items(1, shift), trainer=options) for shift in (0, 30, -10)]
    assert_same_bits(ways[1], ways[0])
    assert_same_bits(ways[2], ways[0])


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    averaged = {"method": eh.EDGE(signal="ema")}
    trained(tmp_path, text_model(), text_data(24), trainer=averaged, **settings)
    trainer = eh.Trainer(text_model(), arguments(tmp_path), train_dataset=text_data(40), **averaged)
    with pytest.raises(eh.UserError, match="averages of 24 samples, but the training set has 40"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_model_without_logits_is_refused(tmp_path: Path) -> None:
    model = transformers.BertModel(text_model().config)
    with pytest.raises(eh.UserError, match="logits"):
        trained(tmp_path, model, text_data(), trainer={"method": eh.EDGE()})
