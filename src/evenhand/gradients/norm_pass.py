"""Per-sample gradient norms of any parameters from one forward and one backward that computes no weight gradients.

Legend: B samples, C classes.

No parameter requires gradients meanwhile. A tap on each selected layer's output starts the graph there, shows the
layer's input a and its output's gradient δ in the backward, and their rule gives the norm: nothing below the first
selected layer is differentiated, and of those above only their inputs. Where a linear layer's norm is cheaper from the
Gram matrices of a and δ, that of a takes a's place: it is made in the forward, while a is in the cache, once for the
layers that share a (query, key, value), and a isn't kept. The backward starts from each sample's logit
gradient divided by its length, so that a sample the model is sure of doesn't underflow; the length multiplies the norm.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evenhand.gradients.entrywise import entry_sums, power_sums
from evenhand.gradients.forms import SampleGradients, gram, gram_is_cheaper, gram_product, joined
from evenhand.gradients.head_norms import accurate, logit_gradients
from evenhand.gradients.layers import is_affine, layers_with_rules, positions, sample_gradients, seen_by_rules_only
from evenhand.gradients.norm_batches import Batch
from evenhand.gradients.tap import Collect, LayerTaps
from evenhand.gradients.verification import NormCheck
from evenhand.validation import UserError

logger = logging.getLogger(__name__)

NormSums = dict[nn.Parameter, Tensor]
"""Σ |g_i|^p of each parameter, or max |g_i| where p is infinite, shape (B,)."""


class NormPass:
    """Norms of the gradients of some parameters, batch by batch.

    Parameters that rules don't reach (used without a layer, or by one without a rule) take a loop over samples, which
    says so once in the log. Norms are compared with the loop's (verification.py), and what disagrees takes the loop, in
    the batch that showed it and from then on.

    Args:
        model: The model, in eval mode; none of its parameters may require gradients.
        selected: The parameters, with their names.
        power: p of the norm.
    """

    def __init__(self, model: nn.Module, selected: dict[nn.Parameter, str], power: float) -> None:
        self.model = model
        self.names = selected
        self.power = power
        layers = layers_with_rules(model, selected)
        self._ruled = seen_by_rules_only(model, layers)
        self._taps = LayerTaps(layers, self._ruled, self._collect, self._shown, starts=True)
        self._several: set[nn.Parameter] = set()  # met more than once in a forward: their uses have cross terms
        self._check = NormCheck(self._ruled)
        self._told = False
        # the state of one batch
        self._batch = 0
        self._counting = False  # not in the backward, where checkpointing runs forwards again
        self._calls: dict[nn.Parameter, int] = {}
        self._last_gram: tuple[Tensor, Tensor] | None = None
        self._uses: dict[nn.Parameter, list[SampleGradients]] = {}
        self._sums: NormSums = {}

    def __call__(self, batch: Batch) -> Tensor:
        """The norms of a batch, shape (B,), float64."""
        with torch.inference_mode(False), torch.enable_grad():
            sums, scale_B = self._all_sums(batch)
            return scale_B * self._root(self._combined(sums, len(batch)))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks on the selected layers; none stays behind."""
        self._taps.attach()
        try:
            yield
        finally:
            self._taps.detach()
            self._forget()

    # ---- one batch --------------------------------------------------------------------------------------------------

    def _all_sums(self, batch: Batch) -> tuple[NormSums, Tensor]:
        sums, scale_B = self._by_rules(batch)
        if wrong := self._verify(batch, sums, scale_B):
            self._move(wrong, "their rules disagree with autograd")
            sums = {p: sum_B for p, sum_B in sums.items() if p not in wrong}
        looped = [p for p in self.names if p not in self._ruled]
        if looped:
            if not self._told:
                names = ", ".join(self.names[p] for p in looped)
                slower = "%d of %d parameters take a loop over samples, which is slower: %s"
                logger.warning(slower, len(looped), len(self.names), names)
            self._told = True
            by_loop, scale_B = self._by_loop(batch, looped)
            sums |= by_loop
        return sums, scale_B

    def _by_rules(self, batch: Batch) -> tuple[NormSums, Tensor]:
        """Sums of the parameters that rules reach; those whose gradient is 0 may be missing."""
        if not self._ruled:
            return {}, accurate(batch.label_B.new_zeros(len(batch)))
        self._forget()
        self._batch = len(batch)
        self._taps.begin(len(batch))
        self._counting = True
        met_again = len(self._several)
        again = False
        try:
            logits_BC = batch.logits(self.model)
            self._counting = False
            for reason, parameters in self._taps.check(logits_BC.grad_fn).items():
                self._move(parameters, reason)
                again = True
            for p, uses in self._taps.shared_uses.items():
                self._count(p, uses)
            again |= len(self._several) > met_again  # some may have been taken for used once
            unit_BC, scale_B = _unit_gradients(logits_BC, batch.label_B)
            if logits_BC.requires_grad and not again:
                with torch.autocast(logits_BC.device.type, enabled=False):  # its backward runs outside it as well
                    torch.autograd.backward(logits_BC, unit_BC)
                    for p in list(self._uses):
                        self._reduce(p)
            sums = self._sums
        finally:
            self._counting = False
            self._check.see(self._taps.renewed, self._taps.uncertain)
            self._taps.forget()
            self._forget()
        return self._by_rules(batch) if again else (sums, scale_B)

    def _count(self, p: nn.Parameter, uses: int = 1) -> None:
        self._calls[p] = self._calls.get(p, 0) + uses
        if self._calls[p] > 1:
            self._several.add(p)

    def _shown(
        self, layer: nn.Module, own: Mapping[str, nn.Parameter], a: Tensor, output: Tensor
    ) -> tuple[Tensor, Collect]:
        """What a tap keeps of a layer's input: its Gram matrices where they are enough."""
        for p in own.values() if self._counting else ():
            self._count(p)
        if self._from_gram(layer, own, a, output):
            return self._gram_of(a, output.dtype), self._collect_gram
        return a, self._collect

    def _from_gram(self, layer: nn.Module, own: Mapping[str, nn.Parameter], a: Tensor, output: Tensor) -> bool:
        if self.power != 2 or not is_affine(layer) or "weight" not in own or own["weight"] in self._several:
            return False
        return gram_is_cheaper(output[..., 0].numel() // self._batch, output.shape[-1], a.shape[-1])

    def _gram_of(self, a: Tensor, dtype: torch.dtype) -> Tensor:
        """The Gram matrices of a layer's input, shape (B, T, T), those of the last call if it had the same input."""
        if self._last_gram is None or self._last_gram[0] is not a:
            # held together, so that no other input can have the same identity
            self._last_gram = a, gram(positions(a.detach().to(dtype), self._batch))
        return self._last_gram[1]

    def _collect_gram(self, layer: nn.Module, own: Mapping[str, nn.Parameter], gram_BTT: Tensor, delta: Tensor) -> None:
        """‖Σ_t δ_t ⊗ a_t‖² of a linear layer's weight from a's Gram matrices, and the rest of the layer by its rule."""
        weight = own["weight"]
        assert weight not in self._sums, "a use that wasn't counted"
        delta = _in_one_piece(delta)
        self._sums[weight] = accurate(gram_product(gram(positions(delta, self._batch)), gram_BTT))
        self._keep(layer, {n: p for n, p in own.items() if n != "weight"}, delta, delta)  # a has no part in it

    def _collect(self, layer: nn.Module, own: Mapping[str, nn.Parameter], a: Tensor, delta: Tensor) -> None:
        self._keep(layer, own, a, _in_one_piece(delta))

    def _keep(self, layer: nn.Module, own: Mapping[str, nn.Parameter], a: Tensor, delta: Tensor) -> None:
        """Keep what one use of a layer adds to its parameters' gradients, until all their uses are there."""
        for name, gradients in sample_gradients(layer, own, a, delta, self._batch).items():
            p = own[name]
            assert p not in self._sums, "a use that wasn't counted"
            self._uses.setdefault(p, []).append(gradients)
            if len(self._uses[p]) == self._calls.get(p):
                self._reduce(p)

    def _reduce(self, p: nn.Parameter) -> None:
        # accumulated in float64, as the layers' sums add up
        self._sums[p] = accurate(power_sums(joined(self._uses.pop(p)), self.power))

    def _by_loop(self, batch: Batch, parameters: list[nn.Parameter]) -> tuple[NormSums, Tensor]:
        """One forward and one backward a sample: exact for any parameter."""
        rows: list[list[Tensor]] = []
        scales: list[Tensor] = []
        with requiring_gradients(parameters, True):
            for i in range(len(batch)):
                one = batch[i : i + 1]
                logits_1C = one.logits(self.model)
                unit_1C, scale_1 = _unit_gradients(logits_1C, one.label_B)
                found: tuple[Tensor | None, ...] = (None,) * len(parameters)
                if logits_1C.requires_grad:
                    found = _gradients(logits_1C, parameters, unit_1C)
                rows.append([self._loop_sum(g, scale_1) for g in found])
                scales.append(scale_1)
        sums = {p: torch.cat(column) for p, column in zip(parameters, zip(*rows, strict=True), strict=True)}
        return sums, torch.cat(scales)

    def _loop_sum(self, gradient: Tensor | None, like: Tensor) -> Tensor:
        if gradient is None:
            return torch.zeros_like(like)
        dense = gradient.to_dense() if gradient.is_sparse else gradient
        return accurate(entry_sums(dense.reshape(1, -1), self.power))

    # ---- sums to norms ----------------------------------------------------------------------------------------------

    def _combined(self, sums: NormSums, batch: int) -> Tensor:
        """All parameters as one vector."""
        if not sums:  # nothing selected has a part in the logits
            return torch.zeros(batch, dtype=torch.float64)
        every = torch.stack(list(sums.values()))
        return every.amax(0) if self.power == float("inf") else every.sum(0)

    def _root(self, sum_B: Tensor) -> Tensor:
        return sum_B if self.power == float("inf") else sum_B.pow(1 / self.power)

    # ---- verification -----------------------------------------------------------------------------------------------

    def _verify(self, batch: Batch, sums: NormSums, scale_B: Tensor) -> set[nn.Parameter]:
        """The parameters whose norms by rules aren't those of the loop, on some of the batch's samples."""
        parameters = [p for p in self.names if p in self._ruled]
        samples, due = self._check.due(parameters, sums, len(batch))
        wrong: set[nn.Parameter] = set()
        tolerance, floor = _tolerance(parameters, scale_B) if due else (0.0, 0.0)
        for i in samples:
            right, _ = self._by_loop(batch[i : i + 1], parameters)
            total = self._root(self._combined(right, 1))
            for p in due:
                expected = self._root(right[p])
                ours = self._root(sums[p][i : i + 1]) if p in sums else torch.zeros_like(expected)
                if bool((ours - expected).abs() > tolerance * torch.maximum(expected, floor * total)):
                    wrong.add(p)
        return wrong

    def _move(self, parameters: set[nn.Parameter], reason: str) -> None:
        """Let these take the loop from now on."""
        if names := self._taps.release(parameters, self.names):
            logger.warning("These parameters' norms come from a loop over samples (%s): %s", reason, names)

    def _forget(self) -> None:
        self._calls, self._uses, self._sums, self._last_gram = {}, {}, {}, None


def _in_one_piece(delta: Tensor) -> Tensor:
    """Attention gives it permuted; one copy here saves one in each use of it."""
    return delta.contiguous() if delta.ndim == 3 else delta


@contextmanager
def requiring_gradients(parameters: Iterable[nn.Parameter], required: bool) -> Iterator[None]:
    """The parameters require gradients inside, or none of them does; afterwards as before."""
    before = [(p, p.requires_grad) for p in parameters]
    try:
        for p, _ in before:
            p.requires_grad_(required)
        yield
    finally:
        for p, own in before:
            p.requires_grad_(own)


def _gradients(logits_BC: Tensor, parameters: list[nn.Parameter], unit_BC: Tensor) -> tuple[Tensor | None, ...]:
    try:
        with torch.autocast(logits_BC.device.type, enabled=False):
            return torch.autograd.grad(logits_BC, parameters, unit_BC, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise UserError(
            "gradient_norms can't go through reentrant checkpointing: give it use_reentrant=False."
        ) from error


def _unit_gradients(logits_BC: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
    """Each sample's logit gradient divided by its length, in the logits' precision, and the lengths in float64."""
    error_BC = logit_gradients(logits_BC.detach(), label_B)
    scale_B = torch.linalg.vector_norm(error_BC, dim=1)
    unit_BC = error_BC / scale_B.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    return unit_BC.to(logits_BC), scale_B


def _tolerance(parameters: list[nn.Parameter], like: Tensor) -> tuple[float, float]:
    """Largest error relative to a tensor's norm, and the share of the whole norm below which that is rounding."""
    device = parameters[0].device.type
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in parameters) or torch.is_autocast_enabled(device)
    if half:
        return 1e-1, 1e-2
    return (1e-2, 1e-2) if like.is_cuda else (1e-3, 1e-3)  # GPUs use TF32 for convolutions by default
