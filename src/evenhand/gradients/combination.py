"""e in `.grad` and b beside it become the update: dense tensors, rows of embeddings, transposed layouts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from evenhand.gradients.projection import Projection
from evenhand.gradients.statistics import GradientStatistics
from evenhand.gradients.sums import Sums, norm_of
from evenhand.validation import UserError


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
        statistics: Is shown e and b before.

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
