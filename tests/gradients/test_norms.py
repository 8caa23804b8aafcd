"""What a call of gradient_norms does around its mathematics: parts, processes, what it leaves, bad input, PGD."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from torch import Tensor, nn

import evenhand as eh
from capture_models import made
from evenhand.gradients import entrywise, gradient_norms, norms
from evenhand.gradients.forms import Dense, Lookup, Outer, joined
from evenhand.models.named import model_source
from evenhand.validation import UserError
from norm_models import (
    Rows,
    Tied,
    Twice,
    Vectors,
    check,
    loop,
    norms_of,
    pad,
    rows_of,
    stack,
    vector_rows,
)

pytestmark = [  # peft and transformers, about each other
    pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups"),
]


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
    rows[5]["labels"] = -1
    with pytest.raises(UserError, match="Sample 5 has the label -1"):
        gradient_norms(model, rows, batch_size=2, collate_fn=stack)
    del parallel  # its threads must be gone before the group is
    torch.distributed.barrier()
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


@pytest.mark.parametrize("source", ["head", "all"])
def test_models_are_scored_in_eval_mode(source: str) -> None:
    for name in ("bert", "resnet"):
        model, inputs = made(name)
        rows, collate = rows_of(inputs)
        expected = gradient_norms(model, rows, source, collate_fn=collate)
        np.testing.assert_array_equal(gradient_norms(model.train(), rows, source, collate_fn=collate), expected)


def test_no_weight_gradient_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLOPs: a forward, gradients of inputs, and the small Gram products."""
    from torch.utils.flop_counter import FlopCounterMode

    config = tf.BertConfig(
        vocab_size=40, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, num_labels=3
    )
    model = tf.BertForSequenceClassification(config).eval()
    rows = [{"input_ids": torch.randint(1, 40, (8,)).tolist(), "labels": i % 3} for i in range(16)]
    monkeypatch.setattr(norms.NormPass, "_verify", lambda *_: set())
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
    for label in (-1, 3):
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

    from evenhand.cli.parser import main

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
    model = model_source("digits-cnn", "image", tuple("0123456789"), (3, 8, 8)).random(0)
    rng = np.random.default_rng(0)
    rows = [{"pixel_values": rng.random((3, 8, 8)).astype(np.float32), "labels": i % 10} for i in range(5)]
    found = gradient_norms(model, rows, "all", batch_size=2)  # transformers' default collator
    samples = loop(model, rows, tf.default_data_collator, list(model.parameters()))
    np.testing.assert_allclose(found, norms_of(samples, "l2"), rtol=1e-5)
