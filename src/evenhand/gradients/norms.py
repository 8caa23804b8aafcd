"""Per-sample gradient norms, PGD's scores, without a backward pass where the layer has a closed form.

Legend: N samples, B samples of a batch, C classes, F features that the head takes.

For a last layer z = W·h + c the cross-entropy gradient of sample i is the outer product (softmax(z) − onehot) ⊗ [h; 1],
whose entrywise p-norm is the product of the two vectors' p-norms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.batches import Collator
from evenhand.inference import batches_on_device, evaluating, logits_of
from evenhand.models import head_of
from evenhand.validation import UserError, check_choice, check_integer, check_number

Source = Literal["head"]
Norm = Literal["l1", "l2", "linf", "l2sq"] | float

_POWERS = {"l1": 1.0, "l2": 2.0, "linf": math.inf, "l2sq": 2.0}


def check_norm(owner: str, norm: Norm) -> None:
    """Raise `UserError` unless the norm is "l1", "l2", "linf", "l2sq" or a positive power."""
    if isinstance(norm, str):
        check_choice(owner, "norm", norm, _POWERS)
    else:
        check_number(owner, "norm", norm, 0, math.inf, low_open=True)


def gradient_norms(
    model: nn.Module,
    dataset: Any,
    source: Source = "head",
    norm: Norm = "l2",
    *,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    collate_fn: Collator | None = None,
) -> NDArray[np.float64]:
    """Norm of each sample's gradient of plain cross-entropy, ‖∇l_i‖ (PGD, equation of its score).

    The model is in eval mode meanwhile (as PGD scores), and as before afterwards. Memory is that of one batch.

    Args:
        model: A classifier whose output has `logits`.
        dataset: A map-style dataset whose batches have `labels`, N samples.
        source: Which parameters' gradient: "head", the last Linear layer with its bias.
        norm: "l1", "l2" (the paper's), "linf", "l2sq" (the squared L2 norm) or a power p > 0 (the released code
            ships 0.7), entrywise.
        batch_size: Samples a forward pass.
        device: Where to compute; the model's own device by default.
        collate_fn: Makes a batch of rows; transformers' default collator by default.

    Returns:
        The norms in the dataset's order, shape (N,), float64.

    Raises:
        UserError: If the source or the norm is unknown, the dataset is empty, or the model's logits are not what its
            head puts out.
    """
    check_choice("gradient_norms", "source", source, ("head",))
    check_norm("gradient_norms", norm)
    check_integer("gradient_norms", "batch_size", batch_size, 1)
    if len(dataset) == 0:
        raise UserError("gradient_norms got an empty dataset.")
    _, head = head_of(model)
    place = next(model.parameters()).device if device is None else torch.device(device)
    model.to(place)
    norms: list[NDArray[np.float64]] = []
    with evaluating(model), _watching(head) as seen:
        for batch in batches_on_device(dataset, batch_size, place, collate_fn):
            label_B = batch.pop("labels")
            logits_BC = logits_of(model(**batch), label_B)
            features_BF = _head_input(seen, logits_BC)
            # in float64 on the CPU: not every device has it, and these are small
            norm_B = _head_norms(logits_BC.cpu(), label_B.cpu(), features_BF.cpu(), norm, head.bias is not None)
            norms.append(norm_B.numpy())
    return np.concatenate(norms)


def _head_norms(logits_BC: Tensor, label_B: Tensor, features_BF: Tensor, norm: Norm, bias: bool) -> Tensor:
    power = _POWERS[norm] if isinstance(norm, str) else float(norm)
    error_BC = torch.softmax(logits_BC.double(), dim=1)
    error_BC[torch.arange(len(label_B)), label_B] -= 1
    input_BF = features_BF.double()
    if bias:  # the bias is a weight on a feature that is always 1
        input_BF = torch.cat([input_BF, torch.ones_like(input_BF[:, :1])], dim=1)
    product_B = torch.linalg.vector_norm(error_BC, power, dim=1) * torch.linalg.vector_norm(input_BF, power, dim=1)
    return product_B.square() if norm == "l2sq" else product_B


@contextmanager
def _watching(head: nn.Linear) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What goes in and out of the head, newest last; no hook stays behind."""
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))

    handle = head.register_forward_hook(remember)
    try:
        yield seen
    finally:
        handle.remove()


def _head_input(seen: list[tuple[Tensor, Tensor]], logits_BC: Tensor) -> Tensor:
    """The head's input of shape (B, F), if the head was the model's last operation."""
    calls = seen.copy()
    seen.clear()
    if len(calls) == 1:
        features, output = calls[0]
        if features.ndim == 2 and output.shape == logits_BC.shape and torch.equal(output, logits_BC):
            return features
    raise UserError(
        "The closed form of the head's gradient needs a model whose logits are what its last Linear layer puts out, "
        "called once a batch; this model does something else."
    )
