"""Per-sample gradient norms against a loop over samples: every source and norm, on whole models."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from capture_models import made
from evenhand.gradients import gradient_norms, layers, norm_pass
from evenhand.gradients.forms import Outer
from evenhand.validation import UserError
from norm_models import (
    POWERS,
    Checkpointed,
    CheckpointedReentrant,
    InPlace,
    PositionsFirst,
    RawUse,
    Sequences,
    SharedInput,
    Tied,
    Twice,
    Vectors,
    check,
    chosen,
    loop,
    norms_of,
    rows_of,
    stack,
    vector_rows,
)

pytestmark = [  # peft and transformers, about each other
    pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups"),
]

NAMES = ["bert", "distilbert", "gpt2", "vit", "convnext", "resnet", "mlp", "pgd-cnn", "digits-cnn"]


# ---- whole models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["head", "extractor", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_every_source_and_norm_equals_the_loop(name: str, source: str) -> None:
    model, inputs = made(name)
    rows, collate = rows_of(inputs)
    check(model, rows, collate, source, chosen(model, source), 1e-10)


@pytest.mark.parametrize("source", ["head", "extractor", "all"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "vit", "convnext"])
def test_with_lora(name: str, source: str) -> None:
    model, inputs = made(name, "lora")
    rows, collate = rows_of(inputs)
    check(model, rows, collate, source, chosen(model, source), 1e-10)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf", "l2sq"])
@pytest.mark.parametrize("name", NAMES)
def test_float32(name: str, norm: Any) -> None:
    model, inputs = made(name)
    rows, collate = rows_of(inputs)
    expected = norms_of(loop(model, rows, collate, chosen(model, "all")), norm)
    model.float()
    found = gradient_norms(model, rows, "all", norm, batch_size=3, collate_fn=collate)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("bert.encoder.layer.1.*", "bert.encoder.layer.1."),
        ("bert.encoder.layer.0", "bert.encoder.layer.0."),  # a module
        (["*.attention.*.weight", "classifier.bias"], None),
        (("classifier", "bert.embeddings"), None),
        ("*word_embeddings.weight", "bert.embeddings.word_embeddings"),
    ],
)
def test_patterns_reach_frozen_parameters(source: Any, expected: str | None) -> None:
    model, inputs = made("bert")
    rows, collate = rows_of(inputs)
    model.requires_grad_(False)
    names = dict(model.named_parameters())
    if expected is not None:
        names = {n: p for n, p in names.items() if n.startswith(expected)}
    elif "classifier" in source:
        names = {n: p for n, p in names.items() if n.startswith(("classifier", "bert.embeddings"))}
    else:
        kept = {n: p for n, p in names.items() if ".attention." in n and n.endswith(".weight")}
        names = kept | {"classifier.bias": names["classifier.bias"]}
    assert names
    check(model, rows, collate, source, list(names.values()), 1e-10)
    assert not any(p.requires_grad for p in model.parameters())


# ---- what structure alone doesn't show ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Sequences, Twice, RawUse, SharedInput, PositionsFirst, Checkpointed, InPlace, Tied])
def test_unusual_models(kind: Any) -> None:
    model = kind().double().eval()
    disagree = kind in (RawUse, SharedInput)  # whose 3 rows are as many as samples in the first batch
    check(model, vector_rows(), stack, "all", list(model.parameters()), 1e-10, disagree)


def test_layers_that_share_their_input_share_its_gram_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    gram = norm_pass.gram

    def counted(x_BTX: Tensor) -> Tensor:
        seen.append(x_BTX)
        return gram(x_BTX)

    monkeypatch.setattr(norm_pass, "gram", counted)
    gradient_norms(Sequences().eval(), vector_rows(), ["query.*", "key.*", "twice.*"], collate_fn=stack)
    # finding out that `twice` runs twice: one input of `query` and `key`, one of `twice`; then one input and two δ
    assert len(seen) == 2 + (1 + 2)


def test_tied_tables_with_different_padding() -> None:
    model = Tied(padding_idx=0).double().eval()
    check(model, vector_rows(), stack, "all", list(model.parameters()), 1e-10)


def test_reentrant_checkpointing_is_refused() -> None:
    with pytest.raises(UserError, match="use_reentrant=False"):
        gradient_norms(CheckpointedReentrant().double(), vector_rows(), "all", collate_fn=stack)


@pytest.mark.parametrize(
    ("kind", "reason", "names"),
    [
        (RawUse, "disagree with autograd", "layer.weight"),
        (PositionsFirst, "samples are not in dim 0", "layer.weight, layer.bias"),
        (SharedInput, "samples are not in dim 0", "layer.weight, layer.bias"),
        (Twice, None, ""),
    ],
)
def test_the_log_says_what_takes_the_loop(
    kind: Any, reason: str | None, names: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        gradient_norms(kind().double(), vector_rows(), ["layer", "head"], collate_fn=stack)
    if reason is None:
        assert not caplog.records
    else:
        assert [reason in r.message for r in caplog.records].count(True) == 1
        assert caplog.records[0].message.endswith(names)


def test_raw_parameters_are_covered_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    model, inputs = made("vit")
    rows, collate = rows_of(inputs)
    with caplog.at_level("WARNING"):
        gradient_norms(model, rows, "all", batch_size=2, collate_fn=collate)
    assert len(caplog.records) == 1
    assert "2 of" in caplog.records[0].message
    assert "cls_token" in caplog.records[0].message


def test_attention_layers_of_pytorch() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(self.encoder(torch.stack([x, x**2, -x], 1)).mean(1))}

    model = Model().double().eval()
    check(model, vector_rows(), stack, "all", list(model.parameters()), 1e-10)
    assert torch.backends.mha.get_fastpath_enabled()


# ---- the head -------------------------------------------------------------------------------------------------------


def test_the_head_needs_no_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("a backward ran")

    model, inputs = made("bert")
    rows, collate = rows_of(inputs)
    monkeypatch.setattr(torch.autograd, "backward", never)
    monkeypatch.setattr(torch.autograd, "grad", never)
    norms_N = gradient_norms(model, rows, "head", collate_fn=collate)
    assert len(norms_N) == len(rows)
    assert (norms_N > 0).all()


@pytest.mark.parametrize("norm", POWERS)
def test_a_head_without_a_bias(norm: Any) -> None:
    model, inputs = made("digits-cnn")
    model.classifier = nn.Linear(64, 3, bias=False).double()
    rows, collate = rows_of(inputs)
    samples = loop(model, rows, collate, [model.classifier.weight])
    np.testing.assert_allclose(
        gradient_norms(model, rows, "head", norm, collate_fn=collate), norms_of(samples, norm), rtol=1e-10
    )


def test_a_head_that_is_not_the_last_operation() -> None:
    class Doubled(Vectors):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": 2 * self.head(x)}

    model = Doubled().double()
    check(model, vector_rows(), stack, "head", list(model.head.parameters()), 1e-10)


def test_a_sample_that_the_model_is_sure_of_keeps_its_digits() -> None:
    model = Vectors().double()
    rows = vector_rows(1)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([60.0, 0.0, 0.0]))
        logit_C = model(rows[0]["x"][None])["logits"][0]
    rest = torch.softmax(logit_C, 0)[1:]
    error = torch.stack([-rest.sum(), *rest]).norm()  # about 1e-26, far below float64's 1 − p
    expected = float(error * torch.sqrt(rows[0]["x"].square().sum() + 1))
    for half in (False, True):  # in half precision the backward itself would underflow
        found = gradient_norms(model.to(torch.bfloat16 if half else torch.float64), rows, ["head"], collate_fn=stack)
        assert found[0] == pytest.approx(expected, rel=0.5 if half else 1e-12)


# ---- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["head", "all"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(dtype: torch.dtype, source: str) -> None:
    for name in ("bert", "resnet"):
        model, inputs = made(name, double=False)
        rows, collate = rows_of(inputs)
        expected = gradient_norms(model, rows, source, collate_fn=collate)
        found = gradient_norms(model.to(dtype), rows, source, collate_fn=collate)
        np.testing.assert_allclose(found, expected, rtol=0.1)


@pytest.mark.parametrize("source", ["head", "all"])
def test_autocast(source: str) -> None:
    model, inputs = made("bert", double=False)
    rows, collate = rows_of(inputs)
    expected = gradient_norms(model, rows, source, collate_fn=collate)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient_norms(model, rows, source, collate_fn=collate)
    np.testing.assert_allclose(found, expected, rtol=0.1)
    assert not np.array_equal(found, expected)


# ---- a broken rule shows --------------------------------------------------------------------------------------------


@functools.wraps(layers.linear)
def _wrong_linear(layer: Any, name: str, a: Tensor, delta: Tensor, batch: int) -> Any:
    right = layers.linear(layer, name, a, delta, batch)
    return Outer(1.01 * right.left_BTO, right.right_BTI) if isinstance(right, Outer) else right


def test_a_wrong_rule_is_found_on_the_first_batch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, rows = Twice().double(), vector_rows()
    expected = gradient_norms(model, rows, "all", collate_fn=stack)
    monkeypatch.setitem(layers.RULES, nn.Linear, _wrong_linear)
    np.testing.assert_allclose(gradient_norms(model, rows, "all", collate_fn=stack), expected, rtol=1e-10)
    assert "layer.weight, head.weight" in caplog.text
