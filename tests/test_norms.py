"""Per-sample gradient norms against a loop over samples: every source and norm, on whole models."""

from __future__ import annotations

import functools
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import evenhand as eh
import reference
from evenhand.gradients import entrywise, gradient_norms, layers, norms
from evenhand.gradients.forms import Dense, Lookup, Outer, joined
from evenhand.models import ModelSource, head_of
from evenhand.validation import UserError
from test_capture import made

pytestmark = [  # peft and transformers, about each other
    pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups"),
]

POWERS: dict[Any, float] = {"l1": 1, "l2": 2, "linf": math.inf, "l2sq": 2, 0.7: 0.7, 3.0: 3}
NAMES = ["bert", "distilbert", "gpt2", "vit", "convnext", "resnet", "mlp", "pgd-cnn", "digits-cnn"]
Rows = list[dict[str, Any]]


# ---- models as rows of data ------------------------------------------------------------------------------------------


def pad(rows: Rows) -> dict[str, Tensor]:
    """Texts padded to the longest of the batch, as DataCollatorWithPadding does."""
    length = max(len(row["input_ids"]) for row in rows)
    padded: dict[str, list[Any]] = {"input_ids": [], "attention_mask": []}
    for row in rows:
        n = len(row["input_ids"])
        padded["input_ids"].append(row["input_ids"] + [0] * (length - n))
        padded["attention_mask"].append([1] * n + [0] * (length - n))
    return {k: torch.tensor(v) for k, v in padded.items()} | {"labels": torch.tensor([row["labels"] for row in rows])}


def stack(rows: Rows) -> dict[str, Tensor]:
    return {
        k: torch.stack([row[k] for row in rows])
        if isinstance(rows[0][k], Tensor)
        else torch.tensor([r[k] for r in rows])
        for k in rows[0]
    }


def rows_of(inputs: dict[str, Tensor]) -> tuple[Rows, Any]:
    """The model's inputs as a dataset with labels, texts without their padding, and the collator."""
    labels = torch.randint(0, 3, (len(next(iter(inputs.values()))),)).tolist()
    if "input_ids" in inputs:
        lengths = inputs["attention_mask"].sum(1).tolist()
        ids = [ids[:n].tolist() for ids, n in zip(inputs["input_ids"], lengths, strict=True)]
        return [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)], pad
    return [{"pixel_values": x, "labels": y} for x, y in zip(inputs["pixel_values"], labels, strict=True)], stack


def loop(model: nn.Module, rows: Rows, collate: Any, parameters: list[nn.Parameter]) -> list[list[Tensor]]:
    """∇l_i of each row, alone and without padding."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    for p in parameters:
        p.requires_grad_(True)
    batches = [{k: v for k, v in collate([row]).items() if k != "labels"} for row in rows]

    def logits(i: int) -> Tensor:
        out = model(**batches[i])
        return out["logits"] if isinstance(out, dict) else out.logits

    found = reference.model_gradients(logits, torch.tensor([row["labels"] for row in rows]), parameters, 1.0)
    for p, required in before:
        p.requires_grad_(required)
    return found


def norms_of(samples: list[list[Tensor]], norm: Any) -> np.ndarray:
    expected = np.array([reference.entrywise_norm(g, POWERS[norm]) for g in samples])
    return expected**2 if norm == "l2sq" else expected


def chosen(model: nn.Module, source: str) -> list[nn.Parameter]:
    head = list(head_of(model)[1].parameters())
    if source == "head":
        return head
    trainable = [p for p in model.parameters() if p.requires_grad]
    return trainable if source == "all" else [p for p in trainable if not any(p is h for h in head)]


def check(
    model: nn.Module, rows: Rows, collate: Any, source: Any, parameters: list[nn.Parameter], tolerance: float
) -> None:
    samples = loop(model, rows, collate, parameters)
    for norm in POWERS:
        found = gradient_norms(model, rows, source, norm, batch_size=3, collate_fn=collate)  # the last batch is short
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, norms_of(samples, norm), rtol=tolerance, err_msg=f"{source} {norm}")


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


class Vectors(nn.Module):
    """Small models whose parts do something unusual."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.convolution = nn.Conv1d(1, 2, 3, padding=1)
        self.norm = nn.LayerNorm(6)

    def features(self, x_BF: Tensor) -> Tensor:
        return x_BF

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.features(x))}


class Twice(Vectors):
    """Each layer more than once: outer products, vectors, patches."""

    def features(self, x_BF: Tensor) -> Tensor:
        y_BF = self.norm(self.layer(torch.tanh(self.layer(x_BF))))
        y_B2F = self.convolution(y_BF[:, None])
        return self.norm(y_B2F.mean(1) + self.convolution(y_B2F[:, :1]).mean(1))


class RawUse(Vectors):
    """A weight that is used once by its layer and once without it."""

    def features(self, x_BF: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.layer(x_BF)), self.layer.weight)


class SharedInput(Vectors):
    """A layer whose input all samples share, as position biases do; three rows are no multiple of the batch."""

    def features(self, x_BF: Tensor) -> Tensor:
        return x_BF * self.layer(torch.eye(6, dtype=x_BF.dtype)[:3]).sum(0) + self.other(x_BF)


class PositionsFirst(Vectors):
    """Samples in dim 1."""

    def features(self, x_BF: Tensor) -> Tensor:
        x_TBF = torch.stack([x_BF, x_BF**2, x_BF**3, -x_BF])
        return self.layer(x_TBF).tanh().mean(0)


class Checkpointed(Vectors):
    """The layer twice in two parts that are run again in the backward."""

    reentrant = False

    def features(self, x_BF: Tensor) -> Tensor:
        y_BF = self.other(x_BF)
        for _ in range(2):
            y_BF = checkpoint(lambda z: torch.tanh(self.layer(z)), y_BF, use_reentrant=self.reentrant)
        return y_BF


class CheckpointedReentrant(Checkpointed):
    reentrant = True


class InPlace(Vectors):
    def features(self, x_BF: Tensor) -> Tensor:
        return F.relu_(self.layer(x_BF).mul_(2))


class Tied(nn.Module):
    """An embedding whose table is also a layer's weight, and another's."""

    def __init__(self, padding_idx: int | None = None) -> None:
        super().__init__()
        self.table, self.again = nn.Embedding(7, 4), nn.Embedding(7, 4, padding_idx=padding_idx)
        self.out, self.head = nn.Linear(4, 7), nn.Linear(7, 3)
        self.out.weight = self.again.weight = self.table.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        ids_BT = x.abs().mul(3).long().clamp_max(6)
        return {"logits": self.head(torch.tanh(self.out(self.table(ids_BT) + self.again(ids_BT.flip(1)))).sum(1))}


def vector_rows(n: int = 5) -> Rows:
    return [{"x": torch.randn(6).double(), "labels": i % 3} for i in range(n)]


@pytest.mark.parametrize("kind", [Twice, RawUse, SharedInput, PositionsFirst, Checkpointed, InPlace, Tied])
def test_unusual_models(kind: Any) -> None:
    model = kind().double().eval()
    check(model, vector_rows(), stack, "all", list(model.parameters()), 1e-10)


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
        (PositionsFirst, "disagree with autograd", "layer.weight, layer.bias"),
        (SharedInput, "samples not in dim 0", "layer.weight, layer.bias"),
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
    gradient_norms(model, rows, "head", collate_fn=collate)


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


# ---- work in parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 200, 10**5])
def test_chunks_of_any_size_give_the_same(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrywise, "CHUNK_BYTES", size)
    for kind in (Twice, Tied):
        model = kind().double().eval()
        check(model, vector_rows(), stack, "all", list(model.parameters()), 1e-10)


@pytest.mark.parametrize("power", [0.7, 1, 2, 3, math.inf])
def test_forms_agree_with_their_own_gradients(power: float) -> None:
    outer = [Outer(torch.randn(4, t, 5).double(), torch.randn(4, t, 3).double()) for t in (1, 6, 40)]
    lookup = Lookup(torch.randint(0, 9, (4, 20)), torch.randn(4, 20, 3).double(), 9, 0)
    table = Outer(torch.randn(4, 6, 9).double(), torch.randn(4, 6, 3).double())
    for form in (*outer, joined(outer), lookup, joined([lookup, table]), Dense(torch.randn(4, 5, 2).double())):
        g_BN = form.per_sample().flatten(1)
        expected = g_BN.abs().amax(1) if math.isinf(power) else (g_BN.abs() ** power).sum(1)
        torch.testing.assert_close(entrywise.power_sums(form, power), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: out of memory")])
def test_out_of_memory_halves_the_batch(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = made("bert")
    rows, collate = rows_of(inputs)
    expected = gradient_norms(model, rows, "all", batch_size=1, collate_fn=collate)
    sizes: list[int] = []
    forward = model.forward

    def limited(**batch: Tensor) -> Any:
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > 2:
            raise error
        return forward(**batch)

    monkeypatch.setattr(model, "forward", limited)
    found = gradient_norms(model, rows, "all", batch_size=5, collate_fn=collate)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert sizes.count(5) == 1
    sizes.clear()
    monkeypatch.setattr(model, "forward", lambda **batch: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        gradient_norms(model, rows, "all", batch_size=5, collate_fn=collate)
    assert all(p.requires_grad for p in model.parameters())


def test_texts_are_batched_by_length() -> None:
    model, _ = made("bert")
    rows = [{"input_ids": torch.randint(1, 40, (n,)).tolist(), "labels": n % 3} for n in (3, 17, 5, 16, 4, 18, 2)]
    widths: list[int] = []
    model.register_forward_pre_hook(lambda _m, _a, batch: widths.append(batch["input_ids"].numel()), with_kwargs=True)
    found = gradient_norms(model, rows, batch_size=3, collate_fn=pad)
    assert widths == [3 * 18, 3 * 5, 2]
    one = [gradient_norms(model, [row], collate_fn=pad)[0] for row in rows]
    np.testing.assert_allclose(found, one, rtol=1e-12)


def test_a_datasets_dataset_is_batched_by_length_too() -> None:
    import datasets

    model, _ = made("bert")
    rows = [{"input_ids": torch.randint(1, 40, (n,)).tolist(), "labels": n % 3} for n in (3, 17, 5, 16)]
    data = datasets.Dataset.from_list(rows).select([2, 0, 3, 1])
    expected = gradient_norms(model, [rows[i] for i in (2, 0, 3, 1)], "all", collate_fn=pad)
    np.testing.assert_allclose(gradient_norms(model, data, "all", batch_size=2, collate_fn=pad), expected, rtol=1e-10)


def test_memory_is_that_of_one_batch() -> None:
    class Endless:
        """Rows that take no memory themselves."""

        def __init__(self, n: int) -> None:
            self.n = n

        def __len__(self) -> int:
            return self.n

        def __getitem__(self, i: int) -> dict[str, Any]:
            return {"x": torch.full((6,), float(i % 7)), "labels": i % 3}

    def peak(n: int) -> tuple[int, int]:
        """Most entries that tensors saved for the backward hold at once, and the peak of Python's memory."""
        alive, most = 0, 0

        class Kept:
            def __init__(self, x: Tensor) -> None:
                nonlocal alive, most
                self.x = x
                alive += x.numel()
                most = max(most, alive)

            def __del__(self) -> None:
                nonlocal alive
                alive -= self.x.numel()

        model = Vectors()
        tracemalloc.start()
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
            gradient_norms(model, Endless(n), "all", batch_size=4, collate_fn=stack)
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert alive == 0
        return most, high

    peak(8)
    few, many = peak(16), peak(640)
    assert many[0] == few[0]
    assert many[1] < few[1] + 640 * 400  # a few numbers a sample, not its 100 gradient entries of 8 bytes


def _process(rank: int, folder: str, ranks: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    model, rows = Twice().double(), vector_rows(7)
    for source in ("head", "all"):
        np.save(
            Path(folder) / f"{source}{rank}.npy", gradient_norms(model, rows, source, batch_size=2, collate_fn=stack)
        )
    parallel = nn.parallel.DistributedDataParallel(model)
    np.save(Path(folder) / f"parallel{rank}.npy", gradient_norms(parallel, rows[:1], "all", collate_fn=stack))
    rows[5]["labels"] = -100
    with pytest.raises(UserError, match="Sample 5 has the label -100"):
        gradient_norms(model, rows, batch_size=2, collate_fn=stack)
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, (str(tmp_path), 2), nprocs=2)
    torch.manual_seed(0)
    model, rows = Twice().double(), vector_rows(7)
    for source in ("head", "all"):
        expected = gradient_norms(model, rows, source, batch_size=2, collate_fn=stack)
        for rank in range(2):
            np.testing.assert_array_equal(np.load(tmp_path / f"{source}{rank}.npy"), expected)
    expected = gradient_norms(model, rows[:1], "all", collate_fn=stack)
    for rank in range(2):  # one of them has no batch at all
        np.testing.assert_array_equal(np.load(tmp_path / f"parallel{rank}.npy"), expected)


# ---- what a call leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["head", "extractor", "all", "bert.encoder.*"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_before(source: str, fails: bool) -> None:
    model, inputs = made("bert")
    rows, collate = rows_of(inputs)
    model.train()
    model.bert.encoder.layer[0].eval()
    model.bert.embeddings.requires_grad_(False)
    state = [(n, m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()]
    required = [p.requires_grad for p in model.parameters()]
    values = {k: v.clone() for k, v in model.state_dict().items()}
    if fails:
        rows[-1]["labels"] = 9
        with pytest.raises(UserError, match="Sample 4 has the label 9, but the model's classes are 0 to 2"):
            gradient_norms(model, rows, source, collate_fn=collate, batch_size=2)
    else:
        with torch.no_grad():  # gradients are on inside whatever the caller has set
            gradient_norms(model, rows, source, collate_fn=collate, batch_size=2)
    assert [
        (n, m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()
    ] == state
    assert [p.requires_grad for p in model.parameters()] == required
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, values[k]) for k, v in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_no_weight_gradient_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLOPs: a forward, gradients of inputs, and the small Gram products."""
    from torch.utils.flop_counter import FlopCounterMode

    config = tf.BertConfig(
        vocab_size=40, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, num_labels=3
    )
    model = tf.BertForSequenceClassification(config).eval()
    rows = [{"input_ids": torch.randint(1, 40, (8,)).tolist(), "labels": i % 3} for i in range(16)]
    monkeypatch.setattr(norms.NormPass, "_verify", lambda self, batch: None)
    with FlopCounterMode(display=False) as ours:
        gradient_norms(model, rows, "all", batch_size=16, collate_fn=pad)
    batch = pad(rows)
    with FlopCounterMode(display=False) as plain:
        model(**batch).loss.backward()
    assert ours.get_total_flops() < 0.8 * plain.get_total_flops()


def test_a_progress_bar_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    rows = vector_rows()
    gradient_norms(Vectors().double(), rows, collate_fn=stack)
    assert capsys.readouterr() == ("", "")
    gradient_norms(Vectors().double(), rows, collate_fn=stack, progress=True)
    assert "gradient norms" in capsys.readouterr().out


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"source": "tail"},
            "'source' parameter of gradient_norms must be one of head, extractor, all, a name pattern",
        ),
        ({"source": "heat"}, r"did you mean 'head'\?"),
        ({"source": []}, r"'source' parameter of gradient_norms must be a name or a list of patterns. Got \[\]"),
        ({"source": "layr.weight"}, r"'layr.weight' matches none of the model's 10 parameters \(did you mean 'layer.w"),
        ({"source": ["layer", "nothing.*"]}, r"The source 'nothing\.\*' matches none"),
        ({"norm": "l7"}, "'norm' parameter of gradient_norms must be one of l1, l2, linf, l2sq"),
        ({"norm": -1.0}, r"'norm' parameter .* range \(0, inf\)\. Got -1"),
        ({"batch_size": 0}, "'batch_size' parameter of gradient_norms must be an integer of at least 1. Got 0."),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gradient_norms(Vectors().double(), vector_rows(), **{"collate_fn": stack, **change})


@pytest.mark.parametrize("source", ["head", "all"])
def test_bad_data_is_refused_in_one_sentence(source: str) -> None:
    model = Vectors().double()

    def refused(message: str, rows: Rows, model: nn.Module = model, collate: Any = stack) -> None:
        with pytest.raises(UserError, match=message):
            gradient_norms(model, rows, source, batch_size=2, collate_fn=collate)

    refused("empty dataset", [])
    for label in (-100, 3):
        rows = vector_rows()
        rows[3]["labels"] = label
        refused(f"Sample 3 has the label {label}, but the model's classes are 0 to 2", rows)
    for value in (math.nan, math.inf):
        rows = vector_rows()
        rows[4]["x"][0] = value
        refused("model's logits of sample 4 are not finite", rows)
    refused("have no 'labels'", [{"x": row["x"]} for row in vector_rows()])
    refused("labels must be one class a sample", [row | {"labels": 0.5} for row in vector_rows()])
    texts = [{"input_ids": [1] * n, "labels": 0} for n in (2, 3)]
    refused("needs a collate_fn that pads them", texts, collate=None)

    class NoLogits(Vectors):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": self.head(x)}

    refused("output has no 'logits'", vector_rows(), NoLogits().double())


def test_a_model_with_nothing_to_score() -> None:
    frozen = Vectors().requires_grad_(False)
    with pytest.raises(UserError, match="'all' is empty: the model has no trainable parameters"):
        gradient_norms(frozen, vector_rows(), "all")
    frozen.head.requires_grad_(True)
    with pytest.raises(UserError, match="'extractor' is empty: the model has no trainable parameters beside its head"):
        gradient_norms(frozen, vector_rows(), "extractor")


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


# ---- PGD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["extractor", "all", "backbone.*"])
def test_pgd_scores_with_any_source(source: str, tmp_path: Path) -> None:
    result = eh.fit(eh.PGD(source=source), "colored-digits", seed=0, output_dir=tmp_path / "run", epochs=1)
    assert result.scores is not None
    assert np.isfinite(result.scores).all()


def test_pgd_refuses_an_unknown_source() -> None:
    with pytest.raises(UserError, match=r"The 'source' parameter of PGD must be one of head.*did you mean 'extractor'"):
        eh.PGD(source="extracter")


def test_the_command_line_takes_a_source(tmp_path: Path) -> None:
    import json

    from evenhand.cli import main

    for source in ("all", "backbone.*"):
        folder = tmp_path / source.strip("*.")
        words = f"train pgd --source {source} --epochs 1 --quiet --output-dir {folder}".split()
        assert main(words) == 0
        record = json.loads((folder / "record.json").read_text())
        assert record["method"]["settings"]["source"] == source
        assert [stage["name"] for stage in record["stages"]] == ["biased", "scores", "debiased"]
    assert main(["train", "pgd", "--source", "tail", "--output-dir", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_lora_model_of_peft_without_a_task_head() -> None:
    model, inputs = made("bert")
    rows, collate = rows_of(inputs)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query"])).double().eval()  # type: ignore[arg-type]
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    check(adapted, rows, collate, "all", trainable, 1e-10)


def test_the_small_models_by_rows_of_a_task() -> None:
    model = ModelSource("digits-cnn", "image", tuple("0123456789"), (3, 8, 8)).random(0)
    rng = np.random.default_rng(0)
    rows = [{"pixel_values": rng.random((3, 8, 8)).astype(np.float32), "labels": i % 10} for i in range(5)]
    found = gradient_norms(model, rows, "all", batch_size=2)  # transformers' default collator
    samples = loop(model, rows, tf.default_data_collator, list(model.parameters()))
    np.testing.assert_allclose(found, norms_of(samples, "l2"), rtol=1e-5)
