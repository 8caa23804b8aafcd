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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from evenhand.gradients.coverage import by_sample, layers_with_rules, seen_by_rules_only
from evenhand.gradients.entrywise import entry_sums, power_sums
from evenhand.gradients.forms import SampleGradients, gram, gram_is_cheaper, gram_product, joined
from evenhand.gradients.head_norms import accurate, logit_gradients
from evenhand.gradients.layers import is_affine, positions, sample_gradients
from evenhand.gradients.norm_batches import Batch
from evenhand.validation import UserError

logger = logging.getLogger(__name__)

Sums = dict[nn.Parameter, Tensor]
"""Σ |g_i|^p of each parameter, or max |g_i| where p is infinite, shape (B,)."""

_VERIFIED_SAMPLES = 2


class NormPass:
    """Norms of the gradients of some parameters, batch by batch.

    Parameters that rules don't reach (used without a layer, or by one without a rule) take a loop over samples, which
    says so once in the log. On the first batch every parameter's norm is compared with the loop's on two samples, and
    what disagrees takes the loop.

    Args:
        model: The model, in eval mode; none of its parameters may require gradients (`frozen`).
        selected: The parameters, with their names.
        power: p of the norm.
    """

    def __init__(self, model: nn.Module, selected: dict[nn.Parameter, str], power: float) -> None:
        self.model = model
        self.names = selected
        self.power = power
        self._layers = layers_with_rules(model, selected)
        self._ruled = seen_by_rules_only(model, self._layers)
        self._several: set[nn.Parameter] = set()  # met more than once in a forward: their uses have cross terms
        self._verified = False
        self._told = False
        # the state of one batch
        self._batch = 0
        self._armed = False  # taps are set; in the backward too, where checkpointing runs forwards again
        self._counting = False
        self._calls: dict[nn.Parameter, int] = {}
        self._last_gram: tuple[Tensor, Tensor] | None = None
        self._uses: dict[nn.Parameter, list[SampleGradients]] = {}
        self._sums: Sums = {}
        self._misfits: set[nn.Module] = set()

    def __call__(self, batch: Batch) -> Tensor:
        """The norms of a batch, shape (B,), float64."""
        with torch.inference_mode(False), torch.enable_grad():
            if not self._verified:
                self._verify(batch[: min(_VERIFIED_SAMPLES, len(batch))])
                self._verified = True
            sums, scale_B = self._all_sums(batch)
            return scale_B * self._root(self._combined(sums, len(batch)))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks on the selected layers; none stays behind."""
        handles = [layer.register_forward_hook(self._tap, with_kwargs=True) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._forget()

    # ---- one batch --------------------------------------------------------------------------------------------------

    def _all_sums(self, batch: Batch) -> tuple[Sums, Tensor]:
        sums, scale_B = self._by_rules(batch)
        if self._misfits:
            self._move({p for layer in self._misfits for p in self._layers[layer].values()}, "samples not in dim 0")
            sums, scale_B = self._by_rules(batch)
        looped = [p for p in self.names if p not in self._ruled]
        if looped:
            self._tell(looped)
            by_loop, scale_B = self._by_loop(batch, looped)
            sums |= by_loop
        return sums, scale_B

    def _by_rules(self, batch: Batch) -> tuple[Sums, Tensor]:
        """Sums of the parameters that rules reach; those whose gradient is 0 may be missing."""
        if not self._ruled:
            return {}, accurate(batch.label_B.new_zeros(len(batch)))
        self._forget()
        self._batch = len(batch)
        self._armed = self._counting = True
        met_again = len(self._several)
        try:
            logits_BC = batch.logits(self.model)
            self._counting = False
            if len(self._several) > met_again:  # some may have been taken for used once
                return self._by_rules(batch)
            unit_BC, scale_B = _unit_gradients(logits_BC, batch.label_B)
            if logits_BC.requires_grad and not self._misfits:
                with torch.autocast(logits_BC.device.type, enabled=False):  # its backward runs outside it as well
                    torch.autograd.backward(logits_BC, unit_BC)
                    for p in list(self._uses):
                        self._reduce(p)
            return self._sums, scale_B
        finally:
            self._armed = self._counting = False
            self._uses, self._sums, self._last_gram = {}, {}, None

    def _tap(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if not self._armed:
            return None
        own = [p for p in self._layers[layer].values() if p in self._ruled]
        if self._counting:
            for p in own:
                self._calls[p] = self._calls.get(p, 0) + 1
                if self._calls[p] > 1:
                    self._several.add(p)
        if not own or not torch.is_grad_enabled():
            return None
        a: Tensor = args[0] if args else next(iter(kwargs.values()))
        shown = by_sample(layer, output, self._batch)
        if shown is None:
            self._misfits.add(layer)
            return None
        switch = torch.zeros((), requires_grad=True)  # the output needs a gradient, whatever it was made of
        if self._from_gram(layer, a, shown):
            return cast(Tensor, _Tap.apply(switch, shown, self._gram_of(a, shown.dtype), layer, self._collect_gram))
        return cast(Tensor, _Tap.apply(switch, shown, a.detach(), layer, self._collect))

    def _from_gram(self, layer: nn.Module, a: Tensor, output: Tensor) -> bool:
        weight = cast(nn.Parameter, layer.weight)
        if self.power != 2 or not is_affine(layer) or weight not in self._ruled or weight in self._several:
            return False
        return gram_is_cheaper(output[..., 0].numel() // self._batch, output.shape[-1], a.shape[-1])

    def _gram_of(self, a: Tensor, dtype: torch.dtype) -> Tensor:
        """The Gram matrices of a layer's input, shape (B, T, T), those of the last call if it had the same input."""
        if self._last_gram is None or self._last_gram[0] is not a:
            # held together, so that no other input can have the same identity
            self._last_gram = a, gram(positions(a.detach().to(dtype), self._batch))
        return self._last_gram[1]

    def _collect_gram(self, layer: nn.Module, gram_BTT: Tensor, delta: Tensor) -> None:
        """‖Σ_t δ_t ⊗ a_t‖² of a linear layer's weight from a's Gram matrices, and the rest of the layer by its rule."""
        weight = self._layers[layer]["weight"]
        assert weight not in self._sums, "a use that wasn't counted"
        self._sums[weight] = accurate(gram_product(gram(positions(delta, self._batch)), gram_BTT))
        self._keep(layer, [name for name in self._layers[layer] if name != "weight"], delta, delta)  # a is of no matter

    def _collect(self, layer: nn.Module, a: Tensor, delta: Tensor) -> None:
        self._keep(layer, self._layers[layer], a, delta)

    def _keep(self, layer: nn.Module, names: Iterable[str], a: Tensor, delta: Tensor) -> None:
        """Keep what one use of a layer adds to its parameters' gradients, until all their uses are there."""
        own = {name: p for name, p in self._layers[layer].items() if p in self._ruled and name in names}
        for name, gradients in sample_gradients(layer, own, a, delta, self._batch).items():
            p = own[name]
            assert p not in self._sums, "a use that wasn't counted"
            self._uses.setdefault(p, []).append(gradients)
            if len(self._uses[p]) == self._calls.get(p):
                self._reduce(p)

    def _reduce(self, p: nn.Parameter) -> None:
        # accumulated in float64, as the layers' sums add up
        self._sums[p] = accurate(power_sums(joined(self._uses.pop(p)), self.power))

    def _by_loop(self, batch: Batch, parameters: list[nn.Parameter]) -> tuple[Sums, Tensor]:
        """One forward and one backward a sample: exact for any parameter."""
        rows: list[list[Tensor]] = []
        scales: list[Tensor] = []
        with _requiring_gradients(parameters):
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

    def _combined(self, sums: Sums, batch: int) -> Tensor:
        """All parameters as one vector."""
        if not sums:  # nothing selected has a part in the logits
            return torch.zeros(batch, dtype=torch.float64)
        every = torch.stack(list(sums.values()))
        return every.amax(0) if self.power == float("inf") else every.sum(0)

    def _root(self, sum_B: Tensor) -> Tensor:
        return sum_B if self.power == float("inf") else sum_B.pow(1 / self.power)

    # ---- verification -----------------------------------------------------------------------------------------------

    def _verify(self, batch: Batch) -> None:
        """Compare each parameter's norms by rules and by the loop on a few samples."""
        ours, scale_B = self._by_rules(batch)
        if self._misfits:
            self._move({p for layer in self._misfits for p in self._layers[layer].values()}, "samples not in dim 0")
            ours, scale_B = self._by_rules(batch)
        if not self._ruled:
            return
        parameters = [p for p in self.names if p in self._ruled]
        right, _ = self._by_loop(batch, parameters)
        total_B = self._root(self._combined(right, len(batch)))
        tolerance, floor = _tolerance(parameters, scale_B)
        wrong = set()
        for p in parameters:
            expected_B = self._root(right[p])
            error_B = (self._root(ours[p]) if p in ours else torch.zeros_like(expected_B)) - expected_B
            allowed_B = tolerance * torch.maximum(expected_B, floor * total_B)
            if bool((error_B.abs() > allowed_B).any()):
                wrong.add(p)
        self._move(wrong, "their rules disagree with autograd")

    def _move(self, parameters: set[nn.Parameter], reason: str) -> None:
        """Let these take the loop from now on."""
        moved = [self.names[p] for p in self.names if p in parameters & self._ruled]
        self._ruled -= parameters
        self._misfits.clear()
        if moved:
            logger.warning("These parameters' norms come from a loop over samples (%s): %s", reason, ", ".join(moved))

    def _tell(self, looped: list[nn.Parameter]) -> None:
        if not self._told:
            names = ", ".join(self.names[p] for p in looped)
            logger.warning(
                "%d of %d parameters take a loop over samples, which is slower: %s",
                len(looped),
                len(self.names),
                names,
            )
        self._told = True

    def _forget(self) -> None:
        self._calls, self._uses, self._sums, self._last_gram = {}, {}, {}, None
        self._misfits.clear()


class _Tap(torch.autograd.Function):
    """Identity on a layer's output, which hands the layer's input (or its Gram matrices) and δ over in the backward.

    What comes from the input is kept by `save_for_backward`, so that checkpointing and hooks that move saved tensors
    apply to it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        switch: Tensor,
        output: Tensor,
        a: Tensor,
        layer: nn.Module,
        collect: Callable[[nn.Module, Tensor, Tensor], None],
    ) -> Tensor:
        del switch
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a)
        ctx.layer, ctx.collect = layer, collect
        return output.data  # neither a copy nor a view: what follows may work in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor | None) -> tuple[None, Tensor | None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if delta is not None:
            if delta.ndim == 3:  # attention gives it permuted; one copy here saves one in each use of it
                delta = delta.contiguous()
            ctx.collect(ctx.layer, *ctx.saved_tensors, delta)
        return None, delta, None, None, None


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires gradients inside; afterwards those that did do."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for p, _ in before:
            p.requires_grad_(False)
        yield
    finally:
        for p, required in before:
            p.requires_grad_(required)


@contextmanager
def _requiring_gradients(parameters: list[nn.Parameter]) -> Iterator[None]:
    try:
        for p in parameters:
            p.requires_grad_(True)
        yield
    finally:
        for p in parameters:
            p.requires_grad_(False)


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
