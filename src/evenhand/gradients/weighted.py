"""Weighted sums of per-sample gradients beside the ordinary gradient, from one forward and one backward.

Legend: B samples.

A forward hook sends the output of each layer that has a rule through a tap (tap.py), an identity that keeps the
layer's input a and, in the backward, sees the output's gradient δ. There the rule turns (a, δ) into Σ w_i g_i. An
embedding that gives the same rows to all samples has no tap: δ is read where the graph adds its output to each of them
(`SharedRows`). What rules don't cover comes from a second backward through the same graph, to those parameters only.
Each batch's graph is compared with what the taps saw. The first batches, and later ones now and then, are compared with
plain autograd, which finds what neither shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.pytorch_utils import Conv1D

from evenhand.gradients.accumulation import Accumulated, Sums, add
from evenhand.gradients.combination import GradientStatistics, average_over_processes, combine_into_grad
from evenhand.gradients.layers import layers_with_rules, sample_gradients, seen_by_rules_only
from evenhand.gradients.parameters import Scope, parameters_in_scope
from evenhand.gradients.projection import Projection
from evenhand.gradients.second_backward import Backward, gradients_beside
from evenhand.gradients.tap import LayerTaps
from evenhand.gradients.verification import Verification
from evenhand.validation import UserError, check_choice

logger = logging.getLogger(__name__)

Route = Literal["auto", "single", "retain", "double"]
SINGLE, SECOND, OWN = "single backward", "second backward", "forward and backward of its own"


class WeightedGradients:
    """Accumulates b = Σ w_i g_i beside e = Σ g_i, until a step combines them.

    e lives in `.grad`, where everything else expects it; b in buffers here. Micro-batches add up in both, and
    `combine_into_grad` is called once per optimizer step:

        engine = WeightedGradients(model)
        with engine.forward():
            logits = model(**inputs).logits
        loss_B = cross_entropy(logits, labels, reduction="none")
        engine.backward(loss_B, weight_B)
        engine.combine_into_grad(Projection("tensor", alpha=1.0))
        optimizer.step()

    Nothing is captured outside `forward`, so evaluation costs nothing. Samples must be independent: with batch
    normalisation in train mode everything takes the second backward, which is exact for any model.

    Args:
        model: The model; its trainable parameters are those that require gradients now.
        route: `auto`: one backward where rules cover a parameter, a second one for the rest. `single`: one backward,
            and an error if it doesn't reach everything. `retain`: two backwards for everything. `double`: b comes
            from a forward of its own, whose loss `add_bias` takes.
        scope: Which trainable parameters have a b: "all", "adapters" (of peft), or name patterns. The others keep e.
        distributed: b is averaged over the processes before it is combined, as DistributedDataParallel averages e.
        verify: Check each parameter's b against plain autograd on the first batch that gives it a gradient, again on
            the first of more than one sample, and all of them on every 200th batch (two more backwards each time);
            what disagrees moves to the second backward, with a warning.

    Raises:
        UserError: If the route is unknown, a trainable parameter can't take it, or the scope is empty.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        route: Route = "auto",
        verify: bool = True,
        scope: Scope | Sequence[str] = "all",
        distributed: bool = False,
    ) -> None:
        check_choice("WeightedGradients", "route", route, get_args(Route))
        self.model = model
        self.route: Route = route
        self.distributed = distributed
        self.statistics: GradientStatistics | None = None  # receives every combination, if there is one
        self.names = parameters_in_scope(model, scope)
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self._refuse_hidden()
        layers = {} if route in ("retain", "double") else layers_with_rules(model, self.names)
        self._single = seen_by_rules_only(model, layers)
        self._taps = LayerTaps(layers, self._single, self._collect)
        self._batch_norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        self._transposed = {m.weight for m in model.modules() if isinstance(m, Conv1D)}
        self._verification = Verification(self._single if verify else ())
        self._bias = Accumulated()
        # the state of one batch
        self._captured = False  # the last forward was tapped
        self._met = False  # the backward passed a tap
        self._weight_B: Tensor | None = None
        self._sums: Sums = {}
        self._coarse = False
        if route == "single":
            self._refuse_uncovered(p for p in self.names if p not in self._single)
        self._taps.attach()
        self._handle = model.register_forward_pre_hook(self._see_batch, with_kwargs=True)
        logger.info(self.summary())

    # ---- what a step calls ------------------------------------------------------------------------------------------

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Capture the model's forward pass inside; one call of the model, whose backward comes next."""
        self._captured = bool(self._single) and not self._mixes_samples()
        self._taps.forget()
        if self.route == "single" and not self._captured:
            raise UserError("route='single' can't be taken: batch normalisation in train mode mixes the samples.")
        self._taps.armed = self._captured
        try:
            yield
        finally:
            self._taps.armed = False

    def backward(
        self,
        loss_B: Tensor,
        weight_B: Tensor,
        reduce: Callable[[Tensor], Tensor] = torch.mean,
        backward: Backward = Tensor.backward,
    ) -> Tensor:
        """Add the gradient of reduce(l) to `.grad`, and that of reduce(w·l), w held constant, to b.

        Args:
            loss_B: Loss of each sample, shape (B,).
            weight_B: w_i, shape (B,).
            reduce: `torch.mean`, `torch.sum` or another linear function to a scalar.
            backward: `Tensor.backward` or `accelerator.backward`; a gradient scaler scales both gradients alike.

        Returns:
            reduce(l), detached.
        """
        weight_B = self._checked_weights(loss_B, weight_B)
        self._bias.drop_forgotten()
        try:
            return self._backward(reduce(loss_B), loss_B, weight_B, reduce, backward)
        finally:
            self._taps.forget()
            self._bias.remember(self.names)

    def _backward(
        self, loss: Tensor, loss_B: Tensor, weight_B: Tensor, reduce: Callable[[Tensor], Tensor], backward: Backward
    ) -> Tensor:
        pending: set[nn.Parameter] = set()
        if self._captured:
            for reason, parameters in self._taps.check(loss_B.grad_fn).items():
                self._uncover(parameters, reason)
            pending = self._verification.pending(self._single, self._taps.called, self._taps.renewed, len(loss_B))
        sums = {} if pending else self._bias.sums
        self._taps.armed = self._captured
        self._met = False
        with self._summing(weight_B, sums):
            backward(loss, retain_graph=bool(pending or self._second()))
        if self._captured and self._single and not self._met and not pending:  # which finds it by itself
            raise UserError("The losses don't come from the model's last call in train mode: call model.train().")
        if pending:
            if self._verification.due(pending):
                self._verify(loss, loss_B, reduce, backward)
            for p in sums.keys() & self._single:
                add(self._bias.sums, p, sums[p])
        self._second_backward(reduce(weight_B * loss_B), self._second(), backward)
        return loss.detach()

    def _second_backward(self, loss: Tensor, parameters: list[nn.Parameter], backward: Backward) -> None:
        """Add the gradient of reduce(w·l) to the b of some parameters, if there are any; `.grad` stays as it is."""
        if not parameters:
            return
        for p, gradient in zip(parameters, gradients_beside(loss, parameters, self._trainable, backward), strict=True):
            if gradient is not None:
                add(self._bias.sums, p, gradient)

    def add_bias(self, loss: Tensor, backward: Backward = Tensor.backward) -> None:
        """Add the gradient of reduce(w·l) of a forward of its own to b (`route="double"`), leaving `.grad` as it is."""
        self._second_backward(loss, list(self.names), backward)

    def combine_into_grad(self, projection: Projection) -> None:
        """Replace the accumulated e in `.grad` by the update with b, and forget b."""
        known = set(self._trainable)
        for name, p in self.model.named_parameters():
            if p.requires_grad and p.grad is not None and p not in known:
                raise UserError(f"The parameter '{name}' became trainable after the method was attached: attach again.")
        bias = self._bias.sums
        if self.distributed:
            bias = average_over_processes(self.names, bias)
        combine_into_grad(self.names, bias, self._transposed, projection, self.statistics)
        self.reset()

    def bias_gradients(self) -> dict[str, Tensor]:
        """The b accumulated so far, by parameter name, dense."""
        return {self.names[p]: b.to_dense() if b.is_sparse else b for p, b in self._bias.sums.items()}

    def reset(self) -> None:
        """Forget the b accumulated so far, as `optimizer.zero_grad()` forgets e."""
        self._bias.clear()

    def detach(self) -> None:
        """Remove all hooks from the model and forget everything."""
        self._taps.detach()
        self._handle.remove()
        self._captured = False
        self.reset()

    # ---- which route each parameter takes ---------------------------------------------------------------------------

    def coverage(self) -> dict[str, str]:
        """The route of each trainable parameter in scope, by name, such as "single backward" or "second backward"."""
        single = set() if self._mixes_samples() else self._single
        other = OWN if self.route == "double" else SECOND
        return {name: SINGLE if p in single else other for p, name in self.names.items()}

    @property
    def outdated(self) -> bool:
        """Whether parameters were frozen or set free since it was made."""
        now = [p for p in self.model.parameters() if p.requires_grad]
        return len(now) != len(self._trainable) or any(p is not q for p, q in zip(now, self._trainable, strict=True))

    def summary(self) -> str:
        """The coverage in one line."""
        routes = self.coverage()
        if self.route == "double":
            return f"{len(routes)} trainable parameters by a forward and backward of their own"
        second = [name for name, route in routes.items() if route == SECOND]
        line = f"{len(routes) - len(second)} of {len(routes)} trainable parameters in one backward"
        if not second:
            return line
        if self.route != "retain" and self._mixes_samples():
            return f"{line}, all by a second one (batch normalisation in train mode mixes the samples)"
        return f"{line}, {len(second)} by a second one ({', '.join(second[:3])}{', …' * (len(second) > 3)})"

    def _second(self) -> list[nn.Parameter]:
        """Parameters that need the second backward."""
        return [p for p in self.names if p not in self._single] if self._captured else list(self.names)

    def _mixes_samples(self) -> bool:
        return any(m.training or m.running_mean is None for m in self._batch_norms)

    def _uncover(self, parameters: set[nn.Parameter], reason: str) -> None:
        """Move parameters to the second backward, from this batch on."""
        if self.route == "single":
            self._refuse_uncovered(p for p in self.names if p in parameters & self._single)
        if names := self._taps.release(parameters, self.names):
            logger.warning("These parameters take a second backward from now on (%s): %s", reason, names)

    def _refuse_uncovered(self, parameters: Iterable[nn.Parameter]) -> None:
        if names := [self.names[p] for p in parameters]:
            raise UserError(
                "route='single' can't be taken, since no rule gives the per-sample gradients of "
                f"{', '.join(names)}: route='auto' takes a second backward for them."
            )

    def _refuse_hidden(self) -> None:
        """Compiled layers can't be watched, and gradients that are sharded or sparse can't be combined."""
        for module in [] if self.route == "double" else self.model.modules():
            if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
                raise UserError(
                    f"The {type(module).__name__} is compiled, which hides its layers: leave it uncompiled, or use "
                    "route='double' in evenhand.Trainer."
                )
            if self.distributed and isinstance(module, nn.Embedding) and module.sparse and module.weight in self.names:
                raise UserError("Sparse gradients of an embedding can't be averaged over processes: use sparse=False.")
        for p, name in self.names.items():
            if isinstance(p, DTensor) or p.is_meta:
                raise UserError(
                    f"The parameter '{name}' is sharded, so its gradients can't be combined in one process."
                )

    # ---- capture ----------------------------------------------------------------------------------------------------

    def _see_batch(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The batch size is dim 0 of the model's first tensor."""
        if self._taps.armed and self._taps.batch is None:
            self._taps.batch = next((len(x) for x in _tensors((args, kwargs))), None)

    def _collect(self, layer: nn.Module, own: Mapping[str, nn.Parameter], a: Tensor, delta: Tensor) -> None:
        """Add what one use of a layer contributes to Σ w_i g_i."""
        if self._weight_B is None:
            return
        self._met = True
        self._coarse |= delta.dtype in (torch.float16, torch.bfloat16)
        covered = {name: p for name, p in own.items() if p in self._single}
        for name, gradients in sample_gradients(layer, covered, a, delta, len(self._weight_B)).items():
            add(self._sums, covered[name], gradients.weighted(self._weight_B))

    @contextmanager
    def _summing(self, weight_B: Tensor, sums: Sums) -> Iterator[None]:
        """What taps collect meanwhile is weighed and goes to `sums`."""
        self._weight_B, self._sums = (weight_B if self._captured else None), sums
        try:
            yield
        finally:
            self._weight_B, self._sums = None, {}

    def _checked_weights(self, loss_B: Tensor, weight_B: Tensor) -> Tensor:
        if loss_B.ndim != 1 or weight_B.shape != loss_B.shape:
            raise UserError(
                "The losses and their weights must have one value a sample. "
                f"Got shapes {tuple(loss_B.shape)} and {tuple(weight_B.shape)}."
            )
        if self._captured and self._taps.batch not in (None, len(loss_B)):
            raise UserError(f"The model saw {self._taps.batch} samples, but there are {len(loss_B)} losses.")
        return weight_B.detach().to(loss_B.device)

    # ---- verification -----------------------------------------------------------------------------------------------

    def _verify(self, loss: Tensor, loss_B: Tensor, reduce: Callable[[Tensor], Tensor], backward: Backward) -> None:
        """Compare Σ r_i g_i by rules and by autograd, with weights that no two samples share."""
        every = list(self.names)
        weight_B = torch.arange(1, len(loss_B) + 1, device=loss_B.device, dtype=loss_B.dtype) / len(loss_B)
        ours: Sums = {}
        with self._summing(weight_B, ours):
            gradients_beside(loss, every, self._trainable, backward, retain_graph=True)
        weighted = reduce(weight_B * loss_B)
        found = gradients_beside(weighted, every, self._trainable, backward, retain_graph=True)
        on_gpu = any(p.is_cuda for p in every)
        wrong = self._verification.compare(
            ours, dict(zip(every, found, strict=True)), len(loss_B), on_gpu, self._coarse
        )
        self._uncover(wrong, "their rules disagree with autograd")


def _tensors(values: Any) -> Iterator[Tensor]:
    """Tensors with a dim, in order, in nested tuples, lists and mappings."""
    if isinstance(values, Tensor) and values.ndim:
        yield values
    elif isinstance(values, (tuple, list, Mapping)):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _tensors(value)
