"""Hooks never change what a model computes, and what they can't see by sample is exact all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch import Tensor, nn

import evenhand as eh
from capture_models import (
    CLASSES,
    FLOAT64,
    TEXT,
    Inputs,
    assert_close,
    expected_by_autograd,
    gradients_in,
    made,
    randomized,
    second,
    text_inputs,
)
from evenhand.gradients import WeightedGradients, gradient_norms
from evenhand.gradients.norm_pass import NormPass, requiring_gradients
from hook_checks import check_sums, labels_and_weights, logits_of
from norm_models import loop, norms_of

pytestmark = [  # peft and transformers, about each other
    pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups"),
]
T, D = 4, 6


class Positions(nn.Module):
    """A text model that makes something of the positions' embedding, which comes once for all samples."""

    def __init__(self, make: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, D), nn.Embedding(T, D)
        self.layer, self.head = nn.Linear(D, D), nn.Linear(D, CLASSES)
        self.make = make

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        words_BTD = self.words(input_ids)
        position_1TD = self.positions(torch.arange(input_ids.shape[1])[None])
        return {"logits": self.head(torch.tanh(self.layer(self.make(words_BTD, position_1TD))).mean(1))}


def _in_place(words: Tensor, position: Tensor) -> Tensor:
    words = words.clone()
    words += position
    return words


def _twice(words: Tensor, position: Tensor) -> Tensor:
    return (words + position).tanh() + position.expand(len(words), -1, -1)


def _joined(words: Tensor, position: Tensor) -> Tensor:
    return torch.cat([position.expand(len(words), -1, -1), words], 1)


MAKES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {  # and whether one backward is enough
    "added": (lambda w, p: w + p, True),
    "added to": (lambda w, p: p + w, True),
    "added in place": (_in_place, True),
    "expanded": (lambda w, p: w * p.expand(len(w), -1, -1), True),
    "expanded as": (lambda w, p: w.tanh() * p.expand_as(w), True),
    "repeated": (lambda w, p: w * p.repeat(len(w), 1, 1), True),
    "joined": (_joined, True),
    "used twice": (_twice, True),
    "unused": (lambda w, p: w, True),
    "summed": (lambda w, p: w + p.sum(1, keepdim=True), False),
    "normalised": (lambda w, p: w + F.layer_norm(p, p.shape), False),
    "scaled": (lambda w, p: w + 2 * p, False),
    "weighted": (lambda w, p: torch.add(w, p, alpha=3), False),
    "subtracted": (lambda w, p: w - p, False),
    "multiplied": (lambda w, p: w * p, False),
    "viewed": (lambda w, p: w + p.view(T, D), False),
    "squared": (lambda w, p: w + p * p, False),
    "of its shape": (lambda w, p: w * p.shape[0] + p[0], False),
    "standardised over dim 0": (lambda w, p: w + (p - p.mean(0)) + p.norm(dim=0), False),
    "changed in place": (lambda w, p: w + p.mul_(2), False),
    "repeated in two dims": (lambda w, p: w.repeat(1, 2, 1) + p.repeat(len(w), 2, 1), False),
}


class T5Classifier(nn.Module):
    """T5 with one decoder step: its position biases have one row and one column."""

    def __init__(self) -> None:
        super().__init__()
        self.t5 = tf.T5ForConditionalGeneration(
            tf.T5Config(  # pyright: ignore[reportCallIssue]
                vocab_size=40,
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=1,
                num_heads=2,
                decoder_start_token_id=0,
                pad_token_id=0,
            )
        )

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        start = torch.zeros(len(input_ids), 1, dtype=torch.long)
        return {"logits": self.t5(input_ids=input_ids, decoder_input_ids=start).logits[:, 0, 5:8]}


def prompts(kind: Any, name: str = "bert", **options: Any) -> tuple[nn.Module, Inputs]:
    options = {"num_virtual_tokens": 3} | options
    base: Any = (
        tf.BertForSequenceClassification(tf.BertConfig(**TEXT))
        if name == "bert"
        else tf.GPT2ForSequenceClassification(
            tf.GPT2Config(
                vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=30, num_labels=CLASSES, pad_token_id=0
            )
        )
    )
    model = peft.get_peft_model(base, kind(task_type="SEQ_CLS", **options)).eval()
    return randomized(model), text_inputs()


ZOO: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    **{name: lambda name=name: made(name) for name in ("bert", "roberta", "distilbert", "gpt2", "vit", "swin")},
    **{f"{name} with LoRA": lambda name=name: made(name, "lora") for name in ("bert", "gpt2")},
    "bert with DoRA": lambda: made("bert", "dora"),
    "prompt tuning": lambda: prompts(peft.PromptTuningConfig),
    "prompt tuning of gpt2": lambda: prompts(peft.PromptTuningConfig, "gpt2"),
    "p-tuning": lambda: prompts(peft.PromptEncoderConfig, encoder_hidden_size=8),
    "p-tuning by LSTM": lambda: prompts(
        peft.PromptEncoderConfig, encoder_hidden_size=8, encoder_reparameterization_type="LSTM"
    ),
    "prefix tuning": lambda: prompts(peft.PrefixTuningConfig),
    "prefix tuning by MLP": lambda: prompts(peft.PrefixTuningConfig, prefix_projection=True, encoder_hidden_size=8),
    "t5": lambda: (randomized(T5Classifier().eval()), {"input_ids": text_inputs()["input_ids"].clamp_min(1)}),
    **{
        f"positions {name}": lambda make=make: (
            Positions(make).double().eval(),
            {"input_ids": torch.randint(0, 20, (5, T))},
        )
        for name, (make, _) in MAKES.items()
    },
}


def first(inputs: Inputs, n: int) -> Inputs:
    """n samples, the first ones again where there are fewer."""
    return {k: v.repeat(2, *[1] * (v.ndim - 1))[:n] for k, v in inputs.items()}


@pytest.mark.parametrize("batch", [1, T, 5])  # as many samples as positions, too
@pytest.mark.parametrize("name", ZOO)
def test_logits_are_the_same_bit_for_bit(name: str, batch: int) -> None:
    model, inputs = ZOO[name]()
    inputs = first(inputs, batch)
    plain_BC = logits_of(model, inputs).detach()
    engine = WeightedGradients(model)
    with engine.forward():
        assert torch.equal(logits_of(model, inputs), plain_BC)
    engine.detach()
    norms = NormPass(model, {p: k for k, p in model.named_parameters() if p.requires_grad}, 2)
    with requiring_gradients(model.parameters(), False):
        plain_BC = logits_of(model, inputs)  # attention takes another kernel where its biases have no gradient
    with requiring_gradients(model.parameters(), False), norms.attached():
        norms._batch = batch
        norms._taps.begin(batch)
        assert torch.equal(logits_of(model, inputs), plain_BC)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ZOO)
def test_sums_are_exact(name: str, verify: bool) -> None:
    model, inputs = ZOO[name]()
    engine = WeightedGradients(model, verify=verify)
    for batch in (5, 1, T, 3, 1, 2, T):
        check_sums(engine, first(inputs, batch), batch, 1e-6 if name == "t5" else FLOAT64)  # T5 norms in float32


@pytest.mark.parametrize("name", MAKES)
def test_positions_that_are_given_to_each_sample_take_one_backward(name: str) -> None:
    model, inputs = ZOO[f"positions {name}"]()
    engine = WeightedGradients(model)
    check_sums(engine, inputs, 5)
    assert second(engine) == ([] if MAKES[name][1] else ["positions.weight"])


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "bert with DoRA"])
def test_models_with_positions_take_one_backward(name: str) -> None:
    model, inputs = ZOO[name]()
    engine = WeightedGradients(model)
    check_sums(engine, inputs, 5)
    assert [n for n in second(engine) if "magnitude" not in n and "lora_embedding" not in n] == []


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("name", [n for n in ZOO if n not in ("swin", "vit")])
def test_norms_are_exact(name: str, norm: Any) -> None:
    model, inputs = ZOO[name]()
    if "attention_mask" in inputs:  # every row alone and as long as in the batch
        inputs = inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}
    rows = [{k: v[i] for k, v in inputs.items()} | {"labels": i % CLASSES} for i in range(5)]

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {k: torch.stack([torch.as_tensor(row[k]) for row in rows]) for k in rows[0]}

    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = norms_of(loop(model, rows, collate, parameters), norm)
    for batch in (T, 5):
        found = gradient_norms(model, rows, "all", norm, batch_size=batch, collate_fn=collate)
        np.testing.assert_allclose(found, expected, rtol=1e-6 if name == "t5" else 1e-9)


def test_norms_of_positions_need_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    model, inputs = made("bert")
    rows = [{k: v[i] for k, v in inputs.items()} | {"labels": i % CLASSES} for i in range(5)]
    gradient_norms(model, rows, "all")
    assert not caplog.records


@pytest.mark.parametrize("projection", ["published", "row", "tensor", "global", "naive"])
@pytest.mark.parametrize("name", ["prompt tuning", "p-tuning", "prefix tuning", "t5", "positions normalised", "bert"])
def test_updates_are_the_same_on_all_routes(name: str, projection: Any) -> None:
    model, inputs = ZOO[name]()
    labels_B, _ = labels_and_weights(5)
    updates = []
    for route in ("auto", "retain"):
        model.zero_grad()
        torch.manual_seed(0)
        with eh.EDGE(alpha=1.0, projection=projection, route=route).attach(model.train()) as edge:
            edge.backward(logits_of(model, inputs), labels_B)
        updates.append({k: g.clone() for k, g in gradients_in(model).items()})
    assert_close(updates[0], updates[1], 1e-5 if name == "t5" else 1e-8)


def test_a_layer_whose_bias_alone_trains_may_change_its_input_in_place() -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)
            self.layer.weight.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            y = self.layer(x)
            x.add_(1)
            return self.head(torch.tanh(y) * x)

    engine = WeightedGradients(Changed().double())
    check_sums(engine, {"x": torch.randn(5, 6, dtype=torch.float64)}, 5)
    assert second(engine) == []


def test_layers_without_a_covered_parameter_have_no_hook() -> None:
    model, inputs = made("bert", "lora")
    engine = WeightedGradients(model)
    own = {n for n, m in model.named_modules() if m._forward_hooks}
    assert own
    assert all("lora" in n or "modules_to_save" in n for n in own)
    engine.detach()
    normalised: Any
    normalised, inputs = ZOO["positions normalised"]()
    engine = WeightedGradients(normalised)
    assert normalised.positions._forward_hooks
    check_sums(engine, inputs, 5)
    assert not normalised.positions._forward_hooks  # it takes the second backward
    assert normalised.words._forward_hooks
    engine.detach()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in normalised.modules())


def test_reentrant_checkpointing_around_positions() -> None:
    from torch.utils.checkpoint import checkpoint

    class Whole(Positions):
        def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
            start = torch.zeros(len(input_ids), T, D, dtype=torch.float64, requires_grad=True)

            def body(x: Tensor) -> Tensor:
                return torch.tanh(self.layer(x + self.words(input_ids) + self.positions(torch.arange(T)[None])))

            return {"logits": self.head(checkpoint(body, start, use_reentrant=True).mean(1))}  # type: ignore[union-attr]

    model = Whole(lambda w, p: w + p).double()
    labels_B, weight_B = labels_and_weights(5)
    inputs = {"input_ids": torch.randint(0, 20, (5, T))}
    plain = Positions(lambda w, p: w + p).double()
    plain.load_state_dict(model.state_dict())
    _, bias = expected_by_autograd(_Logits(plain), inputs, labels_B, weight_B)
    engine = WeightedGradients(model, verify=False)
    for _ in range(2):
        model.zero_grad()
        engine.reset()
        with engine.forward():
            logits_BC = logits_of(model, inputs)
        engine.backward(F.cross_entropy(logits_BC, labels_B, reduction="none"), weight_B)
        assert_close(engine.bias_gradients(), {n.removeprefix("model."): g for n, g in bias.items()}, FLOAT64)


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.model(**inputs)["logits"]
