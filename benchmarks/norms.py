"""What per-sample gradient norms cost beside a plain forward and backward, and beside other libraries.

pip install --no-deps --target PEERS opacus opt_einsum backpack-for-pytorch einops unfoldNd
python benchmarks/norms.py --peers PEERS                    # about 4 minutes on two cores

L2 norms of the gradient of all parameters, of BERT 4×384 (batch 16, length 64, random weights, 1,024 texts) and of the
offline model digits-cnn (batch 256, 2,048 images). Sides alternate, each round gives the ratio of a side's time per
sample to that of a plain forward and backward in eval mode; slow sides take fewer batches. Ours is all of
`evenhand.gradient_norms`: reading, collating, verifying the first batch. Every side's norms are compared with those of
a loop over samples. A peer that fails is in the table with its error. Head norms are compared with a forward pass over
the same rows.

Expected before measuring: BERT: ours 0.70–0.80, since the third of the work that goes to weight gradients is replaced
by Gram products of a quarter of it; Opacus' hooks 5–15 (they write 16 gradients of 19 million entries); its ghost norms
1.0–1.5; vmap 2–5; the loop 1.5–3; BackPACK fails (it has no LayerNorm). digits-cnn: ours 1.5–2.5, as the norms of
convolutions need the patches laid out. Head: 1.00–1.05. Memory: the same for 1,000 and 8,000 samples.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, default_data_collator

import evenhand as eh
from evenhand.models.named import model_source

Batch = dict[str, Tensor]
Side = Callable[[nn.Module, list[Batch]], Tensor | None]


def bert() -> nn.Module:
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=4,
        num_attention_heads=6,
        intermediate_size=1536,
        num_labels=3,  # type: ignore[call-arg]
    )
    return BertForSequenceClassification(config).eval()


def digits_cnn() -> nn.Module:
    return model_source("digits-cnn", "image", tuple("0123456789"), (3, 8, 8)).random(0).eval()


def texts(n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"input_ids": rng.integers(1, 30_000, 64).tolist(), "attention_mask": [1] * 64, "labels": int(rng.integers(3))}
        for _ in range(n)
    ]


class Images:
    """Random images, each made when it is read."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(row)
        return {"pixel_values": torch.rand(3, 8, 8, generator=generator), "labels": row % 10}


def losses(model: nn.Module, batch: Batch) -> Tensor:
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    return F.cross_entropy(model(**inputs).logits, batch["labels"], reduction="none")


def norms_of(gradients: list[Tensor]) -> Tensor:
    """From per-sample gradients, each of shape (B, …)."""
    return torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()


# ---- the sides: each takes the model and batches, and gives the norms -----------------------------------------------


def plain(model: nn.Module, batches: list[Batch]) -> None:
    for batch in batches:
        losses(model, batch).mean().backward()
        model.zero_grad()


def sample_loop(model: nn.Module, batches: list[Batch]) -> Tensor:
    found = []
    for batch in batches:
        for i in range(len(batch["labels"])):
            loss = losses(model, {k: v[i : i + 1] for k, v in batch.items()}).sum()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            found.append(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
    return torch.stack(found)


def vmap(model: nn.Module, batches: list[Batch]) -> Tensor:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(p: dict[str, Tensor], sample: Batch) -> Tensor:
        # without the mask, which transformers inspects in a way that vmap refuses; here it is all ones
        inputs = {k: v[None] for k, v in sample.items() if k not in ("labels", "attention_mask")}
        logits = torch.func.functional_call(model, (p, buffers), kwargs=inputs).logits
        return F.cross_entropy(logits, sample["labels"][None])

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0))
    return torch.cat([norms_of(list(gradients(parameters, batch).values())) for batch in batches])


def without_dropout(model: nn.Module) -> nn.Module:
    """For Opacus, which works in train mode only."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def with_positions(batch: Batch) -> Batch:
    """Also for Opacus, which mistakes the positions that all samples share for one sample."""
    ids = batch.get("input_ids")
    return batch if ids is None else batch | {"position_ids": torch.arange(ids.shape[1]).repeat(len(ids), 1)}


def opacus_hooks() -> Side:
    from opacus import GradSampleModule  # type: ignore[import-not-found]

    def side(model: nn.Module, batches: list[Batch]) -> Tensor:
        hooked = GradSampleModule(without_dropout(model).train(), loss_reduction="sum", strict=False)
        try:
            found = []
            for batch in batches:
                losses(hooked, with_positions(batch)).sum().backward()
                found.append(norms_of([p.grad_sample for p in hooked.parameters()]))
                hooked.zero_grad()
            return torch.cat(found)
        finally:
            hooked.remove_hooks()
            for p in model.parameters():
                p.grad = None

    return side


def opacus_ghost() -> Side:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping  # type: ignore[import-not-found]

    def side(model: nn.Module, batches: list[Batch]) -> Tensor:
        hooked = GradSampleModuleFastGradientClipping(
            without_dropout(model).train(), loss_reduction="sum", strict=False, max_grad_norm=1.0
        )
        try:
            found = []
            for batch in batches:
                losses(hooked, with_positions(batch)).sum().backward()
                found.append(hooked.get_norm_sample())
                hooked.zero_grad()
            return torch.cat(found)
        finally:
            hooked.remove_hooks()
            for p in model.parameters():
                p.grad = None

    return side


def backpack() -> Side:
    from backpack import backpack as extension  # type: ignore[import-not-found]
    from backpack import extend  # type: ignore[import-not-found]
    from backpack.extensions import BatchL2Grad  # type: ignore[import-not-found]

    def side(model: nn.Module, batches: list[Batch]) -> Tensor:
        parts = [extend(layer) for layer in model.modules() if not list(layer.children())]
        criterion = extend(nn.CrossEntropyLoss(reduction="sum"))
        assert parts
        found = []
        for batch in batches:
            inputs = {k: v for k, v in batch.items() if k != "labels"}
            loss = criterion(model(**inputs).logits, batch["labels"])
            with extension(BatchL2Grad()):
                loss.backward()
            found.append(torch.stack([p.batch_l2 for p in model.parameters()]).sum(0).sqrt())  # type: ignore[attr-defined]
            model.zero_grad()
        return torch.cat(found)

    return side


# ---- measuring ------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table(make: Callable[[], nn.Module], rows: Any, size: int, few: int, rounds: int) -> list[str]:
    """Lines of the table; slow sides take `few` batches only."""
    batches = list(DataLoader(rows, batch_size=size, collate_fn=default_data_collator))
    right = sample_loop(make_seeded(make), batches[:1])

    def ours(model: nn.Module, some: list[Batch]) -> Tensor:
        used = rows if len(some) == len(batches) else [rows[i] for i in range(len(some) * size)]
        return torch.from_numpy(eh.gradient_norms(model, used, "all", batch_size=size))

    makers: dict[str, tuple[Callable[[], Side], int]] = {
        "plain forward and backward": (lambda: plain, len(batches)),
        "evenhand.gradient_norms": (lambda: ours, len(batches)),
        "loop over samples": (lambda: sample_loop, few),
        "Opacus, hooks": (opacus_hooks, few),
        "Opacus, ghost norms": (opacus_ghost, few),
        "BackPACK, BatchL2Grad": (backpack, few),
        "torch.func.vmap of grad": (lambda: vmap, few),
    }
    works, notes, times = {}, {}, {}
    for name, (get, count) in makers.items():
        model = make_seeded(make)
        try:
            side = get()
            found = side(model, batches[:1])  # warms up
            if found is not None:
                worst = float(((found.detach() - right) / right).abs().max())
                notes[name] = f"{worst:.0e}" if worst < 1e-3 else f"**{worst:.0e}: wrong**"
            works[name] = (side, model, batches[:count])
            times[name] = []
        except Exception as error:
            notes[name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:140]}"
    for _ in range(rounds):
        for name, (side, model, some) in works.items():
            took = seconds(lambda s=side, m=model, b=some: s(m, b))
            print(f"{name}: {took:.2f} s", file=sys.stderr)
            times[name].append(took / sum(len(b["labels"]) for b in some))
    lines = []
    for name in makers:
        if name not in times:
            lines.append(f"| {name} | – | – | – | {notes[name]} |")
            continue
        ratios = [t / b for t, b in zip(times[name], times["plain forward and backward"], strict=True)]
        each = 1000 * statistics.median(times[name])
        lines.append(
            f"| {name} | {statistics.median(ratios):.2f} | {min(ratios):.2f}–{max(ratios):.2f} | {each:.2f} ms "
            f"| {notes.get(name, '')} |"
        )
    return lines


def make_seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def head_line(make: Callable[[], nn.Module], rows: Any, size: int, rounds: int) -> str:
    model = make_seeded(make)

    def forward() -> None:
        with torch.no_grad():
            for batch in DataLoader(rows, batch_size=size, collate_fn=default_data_collator):
                model(**{k: v for k, v in batch.items() if k != "labels"})

    def ours() -> None:
        eh.gradient_norms(model, rows, "head", batch_size=size)

    forward()
    ours()
    ratios = [1 / (seconds(forward) / seconds(ours)) for _ in range(rounds)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"


def peak_megabytes(n: int) -> float:
    """Peak memory of a process that scores n images."""
    command = [sys.executable, __file__, "--only-memory", str(n)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder with the other libraries")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-memory", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_memory:
        eh.gradient_norms(digits_cnn(), Images(given.only_memory), "all", batch_size=64)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    if given.peers is not None:
        sys.path.append(str(given.peers))
    warnings.simplefilter("ignore")  # of the other libraries
    start = time.perf_counter()
    head = [
        "| side | time / forward+backward | range | time a sample | error against the loop |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    few_memory, many_memory = peak_megabytes(1_000), peak_megabytes(8_000)
    images = [Images(8192)[row] for row in range(8192)]
    sections = [
        "# What per-sample gradient norms cost",
        "BERT 4×384, batch 16, length 64, all parameters, L2:",
        "\n".join([*head, *table(bert, texts(1024), 16, 1, given.rounds)]),
        "digits-cnn, batch 256, all parameters, L2:",
        "\n".join([*head, *table(digits_cnn, images[:2048], 256, 4, given.rounds)]),
        "Head norms / a forward pass over the same rows, in time: "
        f"BERT {head_line(bert, texts(256), 16, 2 * given.rounds)}, "
        f"digits-cnn {head_line(digits_cnn, images, 512, 2 * given.rounds)}.",
        f"Peak memory of a process that scores images with digits-cnn ({parameters(digits_cnn())} parameters): "
        f"1,000 images {few_memory:.0f} MB, 8,000 images {many_memory:.0f} MB.",
        f"{given.rounds} alternating rounds, {torch.get_num_threads()} threads, {versions()}.",
    ]
    page = "\n\n".join(sections) + "\n"
    print(page)
    print(f"{time.perf_counter() - start:.0f} s")
    Path(__file__).with_suffix(".md").write_text(page)


def parameters(model: nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()):,}"


def versions() -> str:
    named = [f"torch {torch.__version__}", f"transformers {transformers.__version__}"]
    for package in ("opacus", "backpack-for-pytorch"):
        try:
            named.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            named.append(f"{package} not installed")
    return ", ".join(named)


if __name__ == "__main__":
    main()
