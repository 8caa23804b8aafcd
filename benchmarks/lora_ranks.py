"""What `published` takes off at each rank of LoRA: the share of ext along b, in real adapters of a real checkpoint.

python benchmarks/lora_ranks.py         # about 2 minutes on one core; needs the extra `offline`

MiniLM with LoRA on query and value (released: r = 8 on RoBERTa), task marked-notes, seed 0. After 30 steps of ERM
(AdamW 3e-4, batch 32), so that neither factor is 0, the gradients e (cross-entropy) and b (weights q·p^q, q = 0.7, the
model's own p) of 8 batches are taken by plain autograd, and ext = (e − update)/α by the projection itself. The table
holds ⟨ext, b⟩/‖b‖², mean and range over the 12 factors of a kind and the batches: 1 is e − αb, 0 takes nothing of b
off, negative values add b, the bias, to the step.

Expected before measuring: 1 − 4/R with R rows of equal norm (docs/edge.md): A has as many rows as the rank, so −3.0,
−1.0, 0.0, 0.5, 0.75, 0.88 at 1, 2, 4, 8, 16, 32. B has 384 rows at every rank: 0.99. Where rows differ in norm the
share is lower, as long ones count more.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import evenhand as eh
from evenhand.data.rows import collator_for, model_rows
from evenhand.gradients.projection import Projection
from evenhand.losses import cross_entropy, gce_weights, true_class_probability
from evenhand.models.adapters import Adapters
from evenhand.runs.configuration import source_for

RANKS = (1, 2, 4, 8, 16, 32)
STEPS, BATCHES, Q, ALPHA = 30, 8, 0.7, 1.0


def shares(rank: int) -> dict[str, list[float]]:
    """⟨ext, b⟩/‖b‖² of every LoRA factor and batch, by kind of factor."""
    task = eh.MarkedNotes().build(0)
    source = source_for(task, "MiniLM", Adapters(kind="lora", r=rank))
    model = source.pretrained(0)
    preprocess, _ = source.preprocessor(None)
    torch.manual_seed(0)
    loader = DataLoader(
        model_rows(task.train, preprocess), batch_size=32, shuffle=True, collate_fn=collator_for(preprocess)
    )
    batches = [batch for batch, _ in zip(endless(loader), range(STEPS + BATCHES), strict=False)]
    factors = {name: p for name, p in model.named_parameters() if "lora_" in name}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    found: dict[str, list[float]] = {"A": [], "B": []}
    model.train()
    for step, batch in enumerate(batches):
        labels_B = batch.pop("labels")
        batch.pop("index", None)
        logits_BC = model(**batch).logits
        loss_B = cross_entropy(logits_BC, labels_B)
        if step < STEPS:
            optimizer.zero_grad()
            loss_B.mean().backward()
            optimizer.step()
            continue
        weight_B = gce_weights(true_class_probability(logits_BC.detach(), labels_B), Q)
        e = gradients(loss_B.mean(), factors, keep=True)
        b = gradients((weight_B * loss_B).mean(), factors, keep=False)
        update = [g.clone() for g in e]
        Projection("published", ALPHA).combine(update, [g.clone() for g in b])
        for name, e_t, b_t, u_t in zip(factors, e, b, update, strict=True):
            ext = (e_t - u_t) / ALPHA
            found["A" if "lora_A" in name else "B"].append(float((ext * b_t).sum() / b_t.square().sum()))
    return found


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Batches, epoch after epoch."""
    while True:
        yield from loader


def gradients(loss: Tensor, factors: dict[str, nn.Parameter], keep: bool) -> list[Tensor]:
    """By plain autograd."""
    return list(torch.autograd.grad(loss, list(factors.values()), retain_graph=keep))


def main() -> None:
    """Write the table."""
    lines = [
        "# What `published` takes off at each rank",
        "",
        "`python benchmarks/lora_ranks.py`: ⟨ext, b⟩/‖b‖² in the LoRA factors of MiniLM, mean (lowest to highest) over "
        f"12 factors × {BATCHES} batches; 1 is e − αb, below 0 the bias is amplified. "
        f"torch {torch.__version__}, {platform.machine()}.",
        "",
        "| rank | 1 − 4/R, equal rows | A (R = rank) | B (R = 384) |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for rank in RANKS:
        found = shares(rank)
        cells = [f"{np.mean(v):+.2f} ({min(v):+.2f} to {max(v):+.2f})" for v in (found["A"], found["B"])]
        lines.append(f"| {rank} | {1 - 4 / rank:+.2f} | {cells[0]} | {cells[1]} |")
        print(lines[-1], flush=True)
    (Path(__file__).parent / "lora_ranks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
