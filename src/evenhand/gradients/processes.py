"""b of several processes averaged, as DistributedDataParallel averages e."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from evenhand.gradients.sums import Sums

BUCKET_BYTES = 25 * 2**20  # as DistributedDataParallel's


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
