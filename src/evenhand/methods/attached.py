"""A one-stage method in a loop of one's own: `edge = EDGE(...).attach(model)`, then `edge.backward(logits, labels)`.

Legend: B samples of a batch, C classes.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.gradients import WeightedGradients
from evenhand.losses import IGNORED, as_classes, counted, cross_entropy, true_class_probability
from evenhand.methods.rule import HasRule
from evenhand.methods.signals import RunningProbabilities
from evenhand.models.heads import check_trainable
from evenhand.validation import UserError, check_integer

_NEEDED = {
    "probability": "the biased model's probability of each sample's true class",
    "weight": "the weight of each sample",
    "correction": "the correction of each sample's logits",
}
_RANGES = {"probability": "lie in [0, 1]", "weight": "be finite and not negative", "correction": "be finite"}


class Attached:
    """Takes the place of `loss.backward()`: fills `.grad` exactly as the method defines it.

        edge = EDGE(alpha=1.0).attach(model)
        for inputs, labels in loader:
            loss = edge.backward(model(inputs), labels)
            optimizer.step()
            optimizer.zero_grad()
        edge.detach()

    or `with EDGE(alpha=1.0).attach(model) as edge:`, which detaches at the end. Nothing is captured in eval mode or
    without gradients, so evaluation between steps costs nothing.

    A model in DistributedDataParallel is taken as it is: every process attaches the method to its own. b is averaged
    over them before the combination, as e is by DistributedDataParallel.

    The loss is cross-entropy of the logits, weighed by the method: a loss that the model computes itself, with class
    weights or an auxiliary term, has no part in it. Samples with the label −100 don't count.

    Args:
        method: The method.
        model: The model whose own call (`model(...)`) makes the logits.
        scaler: A `torch.amp.GradScaler`: losses are scaled by it, an overflow stays visible to its `step`.
        verify: Check the single-backward route against plain autograd, on the first batches and now and then.
    """

    def __init__(
        self, method: HasRule, model: nn.Module, scaler: torch.amp.GradScaler | None = None, verify: bool = True
    ) -> None:
        distributed = isinstance(model, nn.parallel.DistributedDataParallel)
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module  # whose call the wrapper makes
        if any(isinstance(getattr(hook, "__self__", None), Attached) for hook in model._forward_pre_hooks.values()):
            raise UserError("A method is attached to this model already: detach it first.")
        if isinstance(model, nn.DataParallel):
            raise UserError("A method can't be attached to a DataParallel model: use DistributedDataParallel.")
        rule = method.gradient_rule()
        if rule.route == "double":
            raise UserError(
                "The route 'double' runs the model a second time, for which a loop of one's own gives no inputs: use "
                "route='retain', or evenhand.Trainer."
            )
        check_trainable(model)
        self.method = method
        self.model = model
        self.scaler = scaler
        self.steps = 0  # optimizer steps so far, for warm-ups
        self.running = None if rule.averaging is None else RunningProbabilities(rule.averaging)
        self.engine: WeightedGradients | None = None
        self._capture = ExitStack()
        self._handles: list[Any] = []
        self._attached = True
        if rule.projection is not None:
            self.engine = WeightedGradients(
                model, route=rule.route, verify=verify, scope=rule.scope, distributed=distributed
            )
        # Before the engine's own hook, which looks at the batch.
        self._handles.append(model.register_forward_pre_hook(self._before_forward, prepend=True))
        self._handles.append(model.register_forward_hook(self._after_forward, always_call=True))

    def backward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        combine: bool = True,
        bias_probs: Tensor | None = None,
        index: Tensor | None = None,
        num_items: int | None = None,
    ) -> Tensor:
        """Add this batch to the gradients, and combine them unless more micro-batches follow.

        Args:
            logits: Output of the model for this batch, shape (B, C).
            labels: True classes (integers, booleans or whole floats), shape (B,), or −100 for a sample that doesn't
                count.
            combine: False on all but the last micro-batch of an optimizer step.
            bias_probs: For `signal="biased"`: the biased model's probability of each sample's true class, shape (B,);
                likewise what other methods are told of each sample, such as the correction of its logits, shape (B, C).
            index: For `signal="ema"`: which sample of the data set each is, shape (B,).
            num_items: Samples of the whole optimizer step that count, by which every micro-batch's sum is divided. By
                default each batch is averaged over its own. A batch in which no sample counts adds nothing.

        Returns:
            The mean cross-entropy of this batch's samples that count, detached and not scaled; NaN if none does.

        Raises:
            UserError: If the labels, the logits or the probabilities can't be trained with, or it is detached.
        """
        if not self._attached:
            raise UserError("This method was detached from its model: attach it again.")
        labels = as_classes(labels) if isinstance(labels, Tensor) else labels
        self._check_batch(logits, labels)
        signal_B = self._checked_signal(bias_probs, logits, labels)
        index_B = self._checked_index(index, labels)
        if num_items is not None:
            check_integer("backward", "num_items", num_items, 1)

        def reduce(value_B: Tensor) -> Tensor:
            return value_B.sum() / (counted(labels).clamp(min=1) if num_items is None else num_items)

        if self.running is not None and index_B is not None:
            signal_B = self.running.update(index_B, true_class_probability(logits, labels))
        rule = self.method.gradient_rule(self.steps)
        loss_B = rule.losses(logits, labels, signal_B)
        if self.engine is None or rule.projection is None:
            self._scaled_backward(reduce(loss_B))
        else:
            self.engine.backward(loss_B, rule.weights(logits, labels, signal_B), reduce, self._scaled_backward)
            if combine:
                self.engine.combine_into_grad(rule.projection)
        self.steps += combine
        return cross_entropy(logits.detach(), labels).sum() / counted(labels)

    def coverage(self) -> dict[str, str]:
        """The route of each trainable parameter, by name; empty for a method with one ordinary gradient."""
        return {} if self.engine is None else self.engine.coverage()

    def reset(self) -> None:
        """Forget the b of micro-batches that weren't combined yet, as `optimizer.zero_grad()` forgets their e.

        Zeroed gradients are noticed by themselves; call it where micro-batches are dropped in another way.
        """
        if self.engine is not None:
            self.engine.reset()

    def detach(self) -> None:
        """Take every hook off the model; what is in `.grad` stays."""
        self._capture.close()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self.engine is not None:
            self.engine.detach()
        self._attached = False

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def _before_forward(self, model: nn.Module, _args: Any) -> None:
        """Begin to capture the model's own call in training."""
        self._capture.close()
        if self.engine is not None and model.training and torch.is_grad_enabled():
            self._capture.enter_context(self.engine.forward())

    def _after_forward(self, _model: nn.Module, _args: Any, _output: Any) -> None:
        """End the capture, also when the call failed."""
        self._capture.close()

    def _checked_index(self, index: Tensor | None, labels: Tensor) -> Tensor | None:
        if self.running is None:
            if index is not None:
                raise UserError(f"{self.method.title} makes no use of index: leave it out.")
            return None
        if not isinstance(index, Tensor) or index.is_floating_point() or index.shape != labels.shape:
            got = f"{tuple(index.shape)} of {index.dtype}" if isinstance(index, Tensor) else type(index).__name__
            raise UserError(
                f"{self.method.title} needs index, the number of each sample in the data set, shape "
                f"{tuple(labels.shape)}. Got {got}."
            )
        if index.device.type == "cpu" and bool((index < 0).any()):
            raise UserError(f"index must not be negative. Got {int(index.min())}.")
        return index

    def _scaled_backward(self, loss: Tensor, **kwargs: Any) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward(**kwargs)

    def _check_batch(self, logits: Tensor, labels: Tensor) -> None:
        if not isinstance(logits, Tensor) or not isinstance(labels, Tensor):
            raise UserError(
                "backward takes tensors: the model's logits (outputs.logits of a transformers model) and the labels. "
                f"Got {type(logits).__name__} and {type(labels).__name__}."
            )
        if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels) or labels.is_floating_point():
            raise UserError(
                "backward takes logits of shape (batch, classes) and integer labels of shape (batch,). "
                f"Got {tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}."
            )
        if labels.device.type != "cpu":
            return  # looking at values would wait for the device at every step
        outside = torch.nonzero(((labels < 0) & (labels != IGNORED)) | (labels >= logits.shape[1])).flatten()
        if len(outside):
            row = int(outside[0])
            raise UserError(
                f"Labels must lie in 0…{logits.shape[1] - 1}, or be {IGNORED} for a sample that doesn't count. Got "
                f"{int(labels[row])} for sample {row} of the batch."
            )
        if self.scaler is None:  # with a scaler an overflow is a step that it skips
            bad = torch.nonzero(~torch.isfinite(logits.detach()).all(dim=1)).flatten()
            if len(bad):
                raise UserError(f"The logits of sample {int(bad[0])} of the batch are not finite.")

    def _checked_signal(self, bias_probs: Tensor | None, logits: Tensor, labels: Tensor) -> Tensor | None:
        kind = self.method.signal_kind
        if not self.method.needs_signal:
            if bias_probs is not None:
                raise UserError(f"{self.method.title} makes no use of bias_probs: leave it out.")
            return None
        if bias_probs is None:
            raise UserError(f"{self.method.title} needs bias_probs, {_NEEDED[kind]}.")
        if not isinstance(bias_probs, Tensor):
            raise UserError(f"bias_probs must be a tensor. Got {type(bias_probs).__name__}.")
        wanted = tuple((logits if kind == "correction" else labels).shape)
        if bias_probs.shape != wanted:
            raise UserError(f"bias_probs must have shape {wanted}. Got {tuple(bias_probs.shape)}.")
        if bias_probs.device.type == "cpu":
            outside = ~bias_probs.isfinite() | (kind != "correction") & (bias_probs < 0)
            if bool((outside | (kind == "probability") & (bias_probs > 1)).any()):
                raise UserError(f"bias_probs must {_RANGES[kind]}.")
        return bias_probs.detach().to(labels.device)
