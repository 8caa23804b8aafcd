"""A model in eval mode over a dataset: logits and probabilities, sample by sample.

Legend: N samples, B samples of a batch, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from transformers import default_data_collator

from evenhand.data.rows import Collator, TokenRows
from evenhand.losses import true_class_probability
from evenhand.validation import UserError

Device = Literal["auto", "cpu", "cuda"]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_separate(model: nn.Module) -> None:
    """Raise `UserError` for a model that in eval mode, as it is now, normalises by the statistics of the batch."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise UserError(
                f"The model's layer '{name}' ({type(module).__name__}) normalises by the batch in eval mode too, so "
                "what it says of a sample depends on the others beside it: use track_running_stats=True, or a layer "
                "such as GroupNorm."
            )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside; every module's own mode is restored afterwards."""
    with eval_mode(model), torch.no_grad():
        yield


def batches_on_device(
    dataset: Any,
    batch_size: int,
    device: torch.device,
    collate_fn: Collator | None = None,
    order: NDArray[np.int64] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """The dataset in order (or in the one given), batch by batch, without `index`; labels are under `labels`."""
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=None if order is None else order.tolist(),
        collate_fn=collate_fn or default_data_collator,
    )
    for batch in loader:
        yield {name: value.to(device) for name, value in batch.items() if name != "index"}


def logits_and_labels(
    model: nn.Module,
    dataset: Any,
    batch_size: int = 512,
    collate_fn: Collator | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of shape (N, C) and labels of shape (N,) of a dataset, in its order, in eval mode.

    Raises:
        UserError: If samples of a batch depend on each other.
    """
    device = next(model.parameters()).device
    logits, labels = [], []
    # texts of like length together, longest first, so that little is padded
    order = np.argsort(-dataset.lengths, kind="stable") if isinstance(dataset, TokenRows) else None
    call = Call()
    with evaluating(model):
        check_separate(model)
        for batch in batches_on_device(dataset, batch_size, device, collate_fn, order):
            label_B = batch.pop("labels")
            logits.append(logits_of(call(model, batch, label_B), label_B).float().cpu())
            labels.append(label_B.cpu())
    logits_NC, label_N = torch.cat(logits).numpy(), torch.cat(labels).numpy()
    if order is None:
        return logits_NC, label_N
    place_N = np.argsort(order)
    return logits_NC[place_N], label_N[place_N]


def true_class_probabilities(
    model: nn.Module, dataset: Any, batch_size: int = 512, collate_fn: Collator | None = None
) -> NDArray[np.float32]:
    """p_i of every sample in the dataset's order, shape (N,), in eval mode: EDGE's biased signal."""
    logits_NC, label_N = logits_and_labels(model, dataset, batch_size, collate_fn)
    return true_class_probability(torch.from_numpy(logits_NC), torch.from_numpy(label_N)).numpy()


class Call:
    """Calls a classifier with the labels only where it gives no logits without them.

    Attributes:
        labelled: Whether the labels are handed over; None until the first call found out.
    """

    def __init__(self) -> None:
        self.labelled: bool | None = None

    def __call__(self, model: nn.Module, inputs: dict[str, Any], labels_B: Tensor) -> Any:
        """The model's output."""
        if self.labelled is not None:
            return model(**inputs, labels=labels_B) if self.labelled else model(**inputs)
        self.labelled = False
        if not takes_labels(model):
            return model(**inputs)
        failure: Exception | None = None
        try:
            outputs = model(**inputs)
            logits_of(outputs, labels_B)
            return outputs
        except Exception as error:  # a model may raise anything where it misses its labels
            if is_out_of_memory(error):
                raise
            failure = error
        # outside the handler, whose traceback would keep the failed pass's tensors
        try:
            outputs = model(**inputs, labels=labels_B)
            logits_of(outputs, labels_B)
        except Exception:
            raise failure from None
        self.labelled = True
        return outputs


def is_out_of_memory(error: Exception) -> bool:
    """Whether a batch was too large for the device's memory."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error) or "allocate memory" in str(error)


def takes_labels(model: nn.Module) -> bool:
    """Whether the model's forward has a place for labels."""
    parameters = inspect.signature(model.forward).parameters.values()
    return any(p.name == "labels" or p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters)


def logits_of(outputs: Any, labels_B: Tensor) -> Tensor:
    """The logits of a classifier's output, shape (B, C).

    Args:
        outputs: The logits, a mapping or an object with `logits`, or a tuple as transformers' models give it: a loss if
            there is one, then the logits.
        labels_B: The labels.

    Raises:
        UserError: If the output has no logits or they are not one row a label.
    """
    logits = _logits(outputs)
    if not isinstance(logits, Tensor):
        raise UserError("The model's output has no 'logits', so a per-sample loss can't be computed from it.")
    if logits.ndim != 2 or labels_B.ndim != 1 or len(logits) != len(labels_B):
        raise UserError(
            f"The model's logits must have shape (batch, classes) and the labels shape (batch,): evenhand trains "
            f"single-label classifiers. Got {tuple(logits.shape)} and {tuple(labels_B.shape)}."
        )
    return logits


def with_loss(outputs: Any, loss: Tensor) -> Any:
    """An output as transformers' evaluation reads it: where it isn't a mapping, a tuple that begins with the loss."""
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, tuple):
        return loss, *outputs[_place_of_logits(outputs) :]
    return loss, _logits(outputs)


def _logits(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        return outputs.get("logits")
    if hasattr(outputs, "logits"):
        return outputs.logits
    if not isinstance(outputs, tuple):
        return None
    return next(iter(outputs[_place_of_logits(outputs) :]), None)


def _place_of_logits(outputs: tuple[Any, ...]) -> int:
    """0, or 1 after a loss (a scalar, one value a sample, or None)."""
    first = outputs[0] if outputs else None
    return int(first is None or (isinstance(first, Tensor) and first.ndim < 2))


def loss_of(outputs: Any) -> Tensor | None:
    """The loss that a classifier computed itself, a scalar; None without one."""
    if isinstance(outputs, Mapping):
        loss = outputs.get("loss")
    elif isinstance(outputs, tuple) and not hasattr(outputs, "logits"):
        loss = outputs[0] if _place_of_logits(outputs) else None
    else:
        loss = getattr(outputs, "loss", None)
    return loss.mean() if isinstance(loss, Tensor) else None


AnyModel = TypeVar("AnyModel", bound=nn.Module)


def ready(model: AnyModel, device: torch.device) -> AnyModel:
    """The model on its device, in eval mode."""
    model.to(device)
    return model.eval()


def torch_device(device: Device) -> torch.device:
    """The device that a run is trained on.

    Raises:
        UserError: If it is unknown, or a GPU is asked for and there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"The 'device' parameter of fit must be one of auto, cpu, cuda. Got {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("The device 'cuda' was asked for, but torch sees no GPU: use 'cpu' or 'auto'.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
