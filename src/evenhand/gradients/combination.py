"""e in `.grad` and b beside it become the update: over processes, rows of embeddings, transposed layouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from evenhand.gradients.accumulation import Sums, norm_of
from evenhand.gradients.projection import Projection, tensor_norms
from evenhand.validation import UserError

BUCKET_BYTES = 25 * 2**20  # as DistributedDataParallel's


class GradientStatistics:
    """Running means over the steps since the last `read`. Steps whose gradients aren't finite are left out.

    Attributes:
        scale: What e and b were multiplied by (a gradient scaler's scale), a scalar tensor or number.
    """

    def __init__(self) -> None:
        self.scale: Tensor | float = 1.0
        self._sums: Tensor | None = None  # ‖e‖, ‖b‖, cosine, steps

    def add(self, erm: Sequence[Tensor], bias: Sequence[Tensor]) -> None:
        """Count a step's e and b, each a list of tensors in the same order."""
        if not erm:
            return
        e_norm = torch.linalg.vector_norm(tensor_norms(erm))
        b_norm = torch.linalg.vector_norm(tensor_norms(bias))
        dot = torch.stack([_dot(e, b) for e, b in zip(erm, bias, strict=True)]).sum()
        cosine = dot / (e_norm * b_norm).clamp_min(torch.finfo(dot.dtype).tiny)
        step = torch.stack([e_norm / self.scale, b_norm / self.scale, cosine, torch.ones_like(cosine)])
        step = torch.where(torch.isfinite(step).all(), step, 0)
        self._sums = step if self._sums is None else self._sums + step

    def read(self) -> dict[str, float]:
        """The means by name, and begin anew; empty if no step was counted."""
        sums, self._sums = self._sums, None
        e_norm, b_norm, cosine, steps = [0.0] * 4 if sums is None else sums.tolist()
        if not steps:
            return {}
        return {"erm_grad_norm": e_norm / steps, "bias_grad_norm": b_norm / steps, "erm_bias_cosine": cosine / steps}


def _dot(e: Tensor, b: Tensor) -> Tensor:
    """In float32; tensors of one layout are read as they lie."""
    if e.is_contiguous() and b.is_contiguous():
        return torch.dot(e.flatten().float(), b.flatten().float())
    return (e.float() * b.float()).sum()


def combine_into_grad(
    names: Mapping[nn.Parameter, str],
    bias: Sums,
    transposed: set[nn.Parameter],
    projection: Projection,
    statistics: GradientStatistics | None = None,
) -> None:
    """Replace e in each parameter's `.grad` by the update.

    Of an embedding only the rows that were used are touched, where b is sparse.

    Args:
        names: The parameters to combine, with their names.
        bias: b of them; used up.
        transposed: Those stored as input × output (GPT-2's Conv1D), treated as their Linear twins.
        projection: The rule.
        statistics: Receives e and b before.

    Raises:
        UserError: If a parameter has a gradient e but no b.
    """
    erm: list[Tensor] = []
    beside: list[Tensor] = []
    tables: list[tuple[Tensor, Tensor, Tensor]] = []
    for p, name in names.items():
        e, b = p.grad, bias.get(p)
        if e is None:
            continue
        if b is None:
            if bool(norm_of(e) != 0):
                raise UserError(f"The parameter '{name}' has a gradient that its layer's rule didn't see.")
            continue
        if b.is_sparse:
            e, b, table = _used_rows(p, name, b.coalesce())
            tables += table
        turned = p in transposed
        erm.append(e.mT if turned else e)
        beside.append(b.mT if turned else b)
    if statistics is not None:
        statistics.add(erm, beside)
    projection.combine(erm, beside)
    for table, used, update in tables:
        table.index_copy_(0, used, update)


def _used_rows(p: nn.Parameter, name: str, b: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """The rows of e and b that occur; for a dense e also the table, its rows, and what will be their update."""
    e = p.grad
    assert e is not None
    if e.is_sparse:
        p.grad = e = e.coalesce()
        if not torch.equal(e.indices(), b.indices()):
            raise UserError(f"The sparse gradient of '{name}' can't be combined: use sparse=False.")
        return e.values(), b.values(), []
    used = b.indices()[0]
    rows = e[used]  # e is 0 outside these, as all its uses are lookups
    return rows, b.values(), [(e, used, rows)]


# ---- several processes ----------------------------------------------------------------------------------------------


def average_over_processes(parameters: Iterable[nn.Parameter], bias: Sums) -> Sums:
    """The mean over all processes of each parameter's b, dense; where none has one it is left out.

    Each process must call it with the same parameters in the same order. What is summed is the same on each, so that
    they combine e and b to the same update.
    """
    parameters = list(parameters)
    found = torch.tensor([float(p in bias) for p in parameters], device=parameters[0].device)
    torch.distributed.all_reduce(found)
    kept = [p for p, processes in zip(parameters, found.tolist(), strict=True) if processes]
    averaged: Sums = {}
    for bucket in _buckets(kept):
        flat = torch.cat([_dense(p, bias.get(p)).flatten() for p in bucket])
        torch.distributed.all_reduce(flat.div_(torch.distributed.get_world_size()))
        parts = flat.split([p.numel() for p in bucket])
        averaged |= {p: part.view_as(p) for p, part in zip(bucket, parts, strict=True)}
    return averaged


def _dense(p: nn.Parameter, b: Tensor | None) -> Tensor:
    if b is None:
        return torch.zeros_like(p, memory_format=torch.contiguous_format)
    return b.to_dense() if b.is_sparse else b


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of parameters of one precision and device, of about 25 MB each."""
    bucket: list[nn.Parameter] = []
    size = 0
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or p.device != bucket[0].device or size >= BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.numel() * p.element_size()
    if bucket:
        yield bucket
