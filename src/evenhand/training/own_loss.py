"""A model's own loss, which evenhand.Trainer does not train on: what it has beyond cross-entropy is said once.

Legend: B samples of a batch, C classes.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig

from evenhand.data.rows import parted
from evenhand.losses import counted, cross_entropy
from evenhand.models.inference import Call, logits_of, loss_of, takes_labels

logger = logging.getLogger(__name__)


class FirstLook:
    """Finds out on the first batch of a training how the model is called, and warns of a loss of its own.

    That takes up to three forwards in train mode, of which no trace stays.

    Args:
        title: The method's name.

    Attributes:
        call: How the model is called.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.call = Call()
        self.done = False

    def __call__(self, trainer: transformers.Trainer, model: nn.Module, batch: dict[str, Any]) -> None:
        """Look at the trainer's first batch, and at no other."""
        if self.done:
            return
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # by hooks that must have their way
        if not sharded:
            model = trainer.accelerator.unwrap_model(model, keep_torch_compile=False)
        if takes_labels(model):
            inputs, labels_B, _ = parted(batch)
            with trainer.compute_loss_context_manager(), unnoticed(model, attributes=not sharded):
                outputs = self.call(model, inputs, labels_B)
                found = _own_and_plain(model, inputs, labels_B, logits_of(outputs, labels_B).shape[1])
            if found is not None and trainer.is_world_process_zero():
                self._warn(model, *found)
        else:
            self.call.labelled = False
        self.done = True

    def _warn(self, model: nn.Module, own: float, plain: float) -> None:
        logger.warning(
            "evenhand.Trainer trains on its own loss of each sample (%s), not on the loss that %s computes, which "
            "differs from plain cross-entropy by %+.3g on the first batch (%.4g, not %.4g): give class weights as "
            "class_weights, any other loss of logits and labels as the sample_losses of a method, and use "
            "transformers.Trainer for what has to keep an auxiliary term.",
            self.title,
            type(model).__name__,
            own - plain,
            own,
            plain,
        )


def _own_and_plain(
    model: nn.Module, inputs: dict[str, Any], labels_B: Tensor, classes: int
) -> tuple[float, float] | None:
    """The model's own loss and plain cross-entropy, if they differ for the batch's labels or for all classes in turn.

    A weighted mean over samples of one class is a plain one, so the batch's own labels don't show everything.
    """
    spread_B = torch.linspace(0, classes - 1, len(labels_B), device=labels_B.device).round().to(labels_B.dtype)
    for label_B in (labels_B, spread_B):
        if not counted(label_B):
            continue
        try:
            outputs = model(**inputs, labels=label_B)
            logits_BC, loss = logits_of(outputs, label_B), loss_of(outputs)
        except Exception:  # then transformers.Trainer couldn't use the model's loss either
            return None
        if loss is None:
            return None
        plain = cross_entropy(logits_BC, label_B).sum() / counted(label_B)
        own, expected = float(loss), float(plain)
        coarsest = max(torch.finfo(x.dtype).eps for x in (loss, logits_BC))
        tolerance = max(4 * coarsest, 1e-5)
        if np.isfinite(expected) and not abs(own - expected) <= tolerance * max(1.0, abs(expected)):
            return own, expected
    return None


@contextmanager
def unnoticed(model: nn.Module, attributes: bool = True) -> Iterator[None]:
    """Calls of the model inside compute no gradients and leave no trace.

    Random numbers, buffers (running statistics, counters) and the plain attributes of its modules are afterwards as
    they were before; compiled modules run uncompiled.

    Args:
        model: The model.
        attributes: Whether attributes are restored too.
    """
    modules = list(model.modules())
    before = [dict(vars(module)) for module in modules] if attributes else []
    buffers = [(module, dict(module._buffers)) for module in modules]
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    configs = [config for m in modules if isinstance(config := getattr(m, "config", None), PretrainedConfig)]
    problems: list[tuple[Any, Any]] = [(config, config.problem_type) for config in configs]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = sorted({p.device.index for p in model.parameters() if p.is_cuda})
    compiled = any(m._compiled_call_impl is not None or type(m).__name__ == "OptimizedModule" for m in modules)
    try:
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            warnings.catch_warnings(),
            torch.compiler.set_stance("force_eager") if compiled else nullcontext(),
        ):
            warnings.simplefilter("ignore")  # reentrant checkpointing misses gradients
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for module, attribute in zip(modules, before, strict=False):
            vars(module).clear()
            vars(module).update(attribute)
        with torch.no_grad():
            for module, named in buffers:
                module._buffers.clear()
                module._buffers.update(named)
            for buffer, value in values:
                buffer.copy_(value)
        for config, problem in problems:
            config.problem_type = problem
