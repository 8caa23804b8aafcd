"""Models and rows for the tests of gradient norms, and the loop over samples that they are compared with."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import reference
from evenhand.gradients import gradient_norms
from evenhand.models.heads import head_of

POWERS: dict[Any, float] = {"l1": 1, "l2": 2, "linf": math.inf, "l2sq": 2, 0.7: 0.7, 3.0: 3}
Rows = list[dict[str, Any]]


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
    model: nn.Module,
    rows: Rows,
    collate: Any,
    source: Any,
    parameters: list[nn.Parameter],
    tolerance: float,
    disagree: bool = False,
) -> None:
    """Every norm equals the loop's; and not only since rules that disagree with autograd give way to a loop."""
    samples = loop(model, rows, collate, parameters)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("evenhand").addHandler(handler)
    try:
        for norm in POWERS:
            found = gradient_norms(model, rows, source, norm, batch_size=3, collate_fn=collate)  # the last one is short
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, norms_of(samples, norm), rtol=tolerance, err_msg=f"{source} {norm}")
    finally:
        logging.getLogger("evenhand").removeHandler(handler)
    assert any("disagree" in line for line in said) == disagree, said


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


class Sequences(Vectors):
    """Linear layers for which Gram matrices are cheaper: two that share their input, one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(1, 24), nn.Linear(24, 1)
        self.query, self.key, self.twice = nn.Linear(24, 24), nn.Linear(24, 24, bias=False), nn.Linear(24, 24)

    def features(self, x_BF: Tensor) -> Tensor:
        a_BTI = self.widen(x_BF[..., None])
        mixed_BTI = torch.tanh(self.query(a_BTI)) * self.key(a_BTI)
        return self.narrow(self.twice(torch.tanh(self.twice(mixed_BTI))))[..., 0]


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
