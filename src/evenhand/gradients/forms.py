"""The forms that per-sample gradients take, and their reductions: weighted sums and norms.

Legend: B samples, T positions of one sample, I inputs, O outputs, D width, C channels, H height, W width, V rows of an
embedding, G groups, L output positions of an image, P positions of the batch, U distinct rows, N images: B, or a
multiple of it where a sample is cut in windows. x_B has dim 0 = B and any others.

What a layer adds to the gradient of sample i is one of these, and each knows its own reductions without building the B
gradients:

    Outer         g_i = Σ_t δ_it ⊗ a_it     a matrix applied at every position
    Correlation   the same, with a_it the patches of an image
    Lookup        g_i[id_it] += δ_it        a row of a table at every position
    Dense         g_i as it is              biases and scales, smaller than the activations that they come from
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight


@dataclass(frozen=True)
class SampleGradients(ABC):
    """The gradients g_i of one parameter for B samples, not materialised."""

    @abstractmethod
    def weighted(self, weight_B: Tensor) -> Tensor:
        """Σ w_i g_i in the parameter's shape; of an embedding a sparse tensor that holds the rows used."""

    @abstractmethod
    def per_sample(self) -> Tensor:
        """Every g_i, shape (B, *parameter): as large as B copies of the parameter."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """‖g_i‖², shape (B,), in at least float32."""

    def __getitem__(self, samples: slice) -> Self:
        """The same for a range of the samples, for work in chunks."""
        tensors = {f.name: x for f in fields(self) if isinstance(x := getattr(self, f.name), Tensor)}
        return replace(self, **{name: x_B[samples] for name, x_B in tensors.items()})


@dataclass(frozen=True)
class Outer(SampleGradients):
    """g_i = Σ_t left_it ⊗ right_it, shape (O, I)."""

    left_BTO: Tensor
    right_BTI: Tensor

    def weighted(self, weight_B: Tensor) -> Tensor:
        """One matrix product over all positions of all samples, after scaling the narrower factor: 2·B·T·O·I FLOPs."""
        left, right = self.left_BTO, self.right_BTI
        if left.shape[-1] <= right.shape[-1]:
            left = _scaled(left, weight_B)
        else:
            right = _scaled(right, weight_B)
        return left.flatten(0, 1).mT @ right.flatten(0, 1)

    def per_sample(self) -> Tensor:
        """A matrix product a sample."""
        return self.left_BTO.mT @ self.right_BTI

    def squared_norms(self) -> Tensor:
        """Whichever is cheaper of ‖Σ_t δ_t ⊗ a_t‖² and the Gram form Σ_{t,s} ⟨δ_t, δ_s⟩⟨a_t, a_s⟩.

        The first costs T·O·I, the second T²·(O + I); with one position it is ‖δ‖²‖a‖².
        """
        left, right = wide(self.left_BTO), wide(self.right_BTI)
        T, O, I = left.shape[1], left.shape[2], right.shape[2]  # noqa: E741
        if T == 1:
            return left.square().sum((1, 2)) * right.square().sum((1, 2))
        if gram_is_cheaper(T, O, I):
            return gram_product(gram(left), gram(right))
        return (left.mT @ right).square().sum((1, 2))


@dataclass(frozen=True)
class Lookup(SampleGradients):
    """g_i[id_it] += δ_it over the V rows of a table, `padding` excepted."""

    id_BT: Tensor
    delta_BTD: Tensor
    rows: int
    padding: int | None

    def weighted(self, weight_B: Tensor) -> Tensor:
        """A sparse (V, D) tensor with the rows that occur, each once."""
        row_P, _, delta_PD = self._positions(_scaled(self.delta_BTD, weight_B))
        row_U, place_P = row_P.unique(return_inverse=True)
        return torch.sparse_coo_tensor(
            row_U[None],
            delta_PD.new_zeros(len(row_U), delta_PD.shape[1]).index_add_(0, place_P, delta_PD),
            (self.rows, delta_PD.shape[1]),
            is_coalesced=True,
            check_invariants=False,
        )

    def per_sample(self) -> Tensor:
        """B tables of which most rows are zero."""
        row_P, sample_P, delta_PD = self._positions(self.delta_BTD)
        B, D = len(self.id_BT), delta_PD.shape[1]
        table = delta_PD.new_zeros(B * self.rows, D).index_add_(0, sample_P * self.rows + row_P, delta_PD)
        return table.view(B, self.rows, D)

    def squared_norms(self) -> Tensor:
        """Positions of a sample with the same id add up before they are squared: T·D a sample, no T² and no table."""
        sample_U, sum_UD = self.rows_used()
        return sum_UD.new_zeros(len(self.id_BT)).index_add_(0, sample_U, sum_UD.square().sum(1))

    def rows_used(self) -> tuple[Tensor, Tensor]:
        """Each row that a sample uses, once: the samples, shape (U,), and their gradients there, shape (U, D)."""
        row_P, sample_P, delta_PD = self._positions(wide(self.delta_BTD))
        key_U, place_P = (sample_P * self.rows + row_P).unique(return_inverse=True)
        return key_U // self.rows, delta_PD.new_zeros(len(key_U), delta_PD.shape[1]).index_add_(0, place_P, delta_PD)

    def _positions(self, delta_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row, sample and δ of each of the P positions that aren't padding."""
        row_P = self.id_BT.flatten()
        sample_P = torch.arange(len(self.id_BT), device=row_P.device).repeat_interleave(self.id_BT.shape[1])
        delta_PD = delta_BTD.flatten(0, 1)
        if self.padding is None:
            return row_P, sample_P, delta_PD
        kept = row_P != self.padding
        return row_P[kept], sample_P[kept], delta_PD[kept]


@dataclass(frozen=True)
class Dense(SampleGradients):
    """Every g_i itself: fine where the parameter is a vector."""

    gradient_B: Tensor

    def weighted(self, weight_B: Tensor) -> Tensor:
        """A vector-matrix product."""
        return torch.tensordot(weight_B.to(self.gradient_B.dtype), self.gradient_B, 1)

    def per_sample(self) -> Tensor:
        """They are there."""
        return self.gradient_B

    def squared_norms(self) -> Tensor:
        """Directly."""
        return wide(self.gradient_B).flatten(1).square().sum(1)


@dataclass(frozen=True)
class Correlation(SampleGradients):
    """A convolution's weight: over a sample's output positions, δ ⊗ the input patch it came from, in each group.

    `input_NCHW` is padded already unless `padding` says otherwise; a sample is N/B neighbouring images.
    """

    input_NCHW: Tensor
    delta_NOHW: Tensor
    batch: int
    shape: torch.Size  # of the weight as one for images: (O, I/G, kernel height, kernel width)
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    parameter: torch.Size

    def weighted(self, weight_B: Tensor) -> Tensor:
        """What autograd does for the weight, on w·δ: no patches are laid out."""
        delta = _scaled(self.delta_NOHW, weight_B.repeat_interleave(len(self.delta_NOHW) // self.batch))
        convolution: Any = (self.stride, self.padding, self.dilation, self.groups)
        gradient = conv2d_weight(self.input_NCHW, self.shape, delta, *convolution)
        return gradient.view(self.parameter)

    def per_sample(self) -> Tensor:
        """By the patches."""
        return self._outer().per_sample().reshape(self.batch, *self.parameter)

    def squared_norms(self) -> Tensor:
        """By the patches, group by group."""
        return self._outer().squared_norms().view(self.batch, self.groups).sum(1)

    def _outer(self) -> Outer:
        """The same as outer products, each group of each sample by itself (dim 0 = B·G)."""
        patch_NPL = F.unfold(self.input_NCHW, self.shape[2:], self.dilation, self.padding, self.stride)
        delta_NOL = self.delta_NOHW.flatten(2)
        return Outer(self._by_group(delta_NOL), self._by_group(patch_NPL))

    def _by_group(self, x_NXL: Tensor) -> Tensor:
        """(N, G·X, L) as (B·G, (N/B)·L, X): one row a position."""
        x_BKGXL = x_NXL.unflatten(1, (self.groups, -1)).unflatten(0, (self.batch, -1))
        return x_BKGXL.permute(0, 2, 1, 4, 3).flatten(2, 3).flatten(0, 1)

    def __getitem__(self, samples: slice) -> Correlation:
        """These samples only."""
        start, stop, step = samples.indices(self.batch)
        if step != 1:
            raise ValueError("samples are taken in ranges without gaps")
        images = len(self.delta_NOHW) // self.batch
        rows = slice(start * images, stop * images)
        return replace(self, input_NCHW=self.input_NCHW[rows], delta_NOHW=self.delta_NOHW[rows], batch=stop - start)


@dataclass(frozen=True)
class Total(SampleGradients):
    """A parameter with uses of different forms, such as an embedding that is also the output layer."""

    uses: tuple[SampleGradients, ...]

    def weighted(self, weight_B: Tensor) -> Tensor:
        """Sums of each use add up."""
        parts = [use.weighted(weight_B) for use in self.uses]
        return torch.stack([p.to_dense() if p.is_sparse else p for p in parts]).sum(0)

    def per_sample(self) -> Tensor:
        """Each use's added up."""
        return torch.stack([use.per_sample() for use in self.uses]).sum(0)

    def squared_norms(self) -> Tensor:
        """Norms of different uses don't add up, so the gradients are built."""
        return wide(self.per_sample()).flatten(1).square().sum(1)

    def __getitem__(self, samples: slice) -> Total:
        """These samples only."""
        return Total(tuple(use[samples] for use in self.uses))


def joined(uses: Sequence[SampleGradients]) -> SampleGradients:
    """One parameter's gradients over all its uses: a module called twice, weights tied between modules.

    Outer products and lookups of several uses are those of one use with more positions, cross terms included.
    """
    if len(uses) == 1:
        return uses[0]
    if all(isinstance(use, Outer) for use in uses):
        return Outer(*(torch.cat([getattr(use, side) for use in uses], 1) for side in ("left_BTO", "right_BTI")))
    if all(isinstance(use, Dense) for use in uses):
        return Dense(torch.stack([use.per_sample() for use in uses]).sum(0))
    if all(isinstance(use, Lookup) for use in uses) and len({use.padding for use in uses}) == 1:  # type: ignore[attr-defined]
        ids, deltas = (torch.cat([getattr(use, part) for use in uses], 1) for part in ("id_BT", "delta_BTD"))
        return Lookup(ids, deltas, uses[0].rows, uses[0].padding)  # type: ignore[attr-defined]
    return Total(tuple(uses))


def gram_is_cheaper(T: int, O: int, I: int) -> bool:  # noqa: E741
    """Whether ‖Σ_t δ_t ⊗ a_t‖² is cheaper from Gram matrices; with one position neither is needed."""
    return T > 1 and T * (O + I) < O * I


def gram(x_BTX: Tensor) -> Tensor:
    """⟨x_t, x_s⟩ of every two positions of a sample, shape (B, T, T), in at least float32."""
    x_BTX = wide(x_BTX)
    return x_BTX @ x_BTX.mT


def gram_product(left_BTT: Tensor, right_BTT: Tensor) -> Tensor:
    """Σ_{t,s} of the product of two Gram matrices, shape (B,)."""
    return (left_BTT * right_BTT).sum((1, 2)).clamp_min(0)  # as a batched product it takes 14 times as long


def wide(x: Tensor) -> Tensor:
    """In at least float32: half precision is too coarse for statistics and sums."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scaled(x_B: Tensor, weight_B: Tensor) -> Tensor:
    """w_i·x_i, multiplied in at least float32 and kept in x's precision."""
    weight_B = weight_B.to(torch.promote_types(x_B.dtype, torch.float32))
    return (x_B * weight_B.view(-1, *[1] * (x_B.ndim - 1))).to(x_B.dtype)
