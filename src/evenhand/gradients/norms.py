"""Per-sample gradient norms, PGD's scores, of any part of a model.

Legend: N samples, B samples of a batch.

The head's norms have a closed form and need a forward pass only (head_norms.py); others take a forward and a backward
without weight gradients (norm_pass.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, Literal

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.data.rows import Collator
from evenhand.gradients.head_norms import head_input, head_norms, logit_gradients, watching
from evenhand.gradients.norm_batches import Batch, batches, scoring_order
from evenhand.gradients.norm_pass import NormPass, requiring_gradients
from evenhand.gradients.parameters import Source, selected_parameters
from evenhand.models.heads import head_of
from evenhand.models.inference import check_separate, eval_mode, is_out_of_memory
from evenhand.validation import Range, UserError, check_integer, check_value

Norm = Literal["l1", "l2", "linf", "l2sq"] | Annotated[float, Range(0, low_open=True)]

_POWERS = {"l1": 1.0, "l2": 2.0, "linf": math.inf, "l2sq": 2.0}
_BATCH_SIZES = {"head": 512}
_BATCH_SIZE = 32  # with a backward, whose activations stay until it ran


def norm_power(norm: Norm) -> float:
    """The power p of an entrywise norm; of "l2sq" that of the norm which is squared."""
    return _POWERS[norm] if isinstance(norm, str) else float(norm)


def gradient_norms(
    model: nn.Module,
    dataset: Any,
    source: Source | Sequence[str] = "head",
    norm: Norm = "l2",
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    collate_fn: Collator | None = None,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Norm of each sample's gradient of plain cross-entropy, ‖∇l_i‖ (PGD, equation of its score).

    The model is in eval mode meanwhile (as PGD scores), and as before afterwards. Memory is that of one batch; a batch
    that doesn't fit is halved. Of several processes each must call this; they share the work and all get the result.

    Args:
        model: A classifier whose output is or has `logits`.
        dataset: A map-style dataset whose batches have `labels`, N samples. The norm of one with the label −100 is 0.
        source: Which parameters' gradient, as one vector. "head": the last Linear layer with its bias, in closed form
            where it is the model's last operation. "extractor": the other trainable parameters. "all": all trainable
            ones. Otherwise a pattern or a list of patterns: names of parameters or modules with *, ? and [], which
            may reach frozen ones; a single pattern has a dot or a wildcard.
        norm: "l1", "l2" (the paper's), "linf", "l2sq" (squared) or a power p > 0 (released: 0.7), entrywise.
        batch_size: Samples a pass; 512 for the head and 32 for the rest by default.
        device: Where to compute; the model's own device by default, to which it returns afterwards.
        collate_fn: Makes a batch of rows; transformers' default collator by default. Texts need one that pads.
        progress: Show a progress bar.

    Returns:
        The norms in the dataset's order, shape (N,), float64.

    Raises:
        UserError: If an argument, the dataset, a label or a logit is wrong, or samples of a batch depend on each other.
    """
    check_value("gradient_norms", "source", source, Source)
    check_value("gradient_norms", "norm", norm, Norm)
    check_integer("gradient_norms", "batch_size", 1 if batch_size is None else batch_size, 1)
    if len(dataset) == 0:
        raise UserError("gradient_norms got an empty dataset.")
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    power = norm_power(norm)
    size = batch_size or _BATCH_SIZES.get(str(source), _BATCH_SIZE)
    order = scoring_order(dataset, collate_fn)
    rank, ranks = _process()
    mine = [order[start : start + size] for start in range(0, len(order), size)][rank::ranks]
    with ExitStack() as stack:
        place, dtype = stack.enter_context(_on_device(model, device))
        score = _Halving(stack.enter_context(_scorer(model, source, power)))
        task = stack.enter_context(_bar(sum(map(len, mine)), progress and rank == 0))

        def scored() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
            for batch in batches(dataset, mine, place, dtype, collate_fn):
                norm_B = score(batch)
                batch.check_finite(norm_B, "gradients")
                task(len(batch))
                yield batch.row_B, norm_B.cpu().numpy()

        norm_N = _gathered(scored, len(dataset), ranks)
    return norm_N**2 if norm == "l2sq" else norm_N


Scorer = Callable[[Batch], Tensor]


@contextmanager
def _scorer(model: nn.Module, source: Source | Sequence[str], power: float) -> Iterator[Scorer]:
    """What gives a batch's norms; the model is prepared for it inside, and as before afterwards."""
    selected = selected_parameters(model, source)
    general = NormPass(model, selected, power)
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(eval_mode(model))
        check_separate(model)
        stack.enter_context(requiring_gradients(model.parameters(), False))
        stack.enter_context(general.attached())
        # the fused attention layers of PyTorch's inference skip the modules that hold the parameters
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        if source != "head":
            yield general
            return
        head = head_of(model)[1]
        calls = stack.enter_context(watching(head))
        closed = True  # while the head is the model's last operation

        def by_head(batch: Batch) -> Tensor:
            nonlocal closed
            if closed:
                calls.clear()
                with torch.no_grad():
                    logits_BC = batch.logits(model)
                    feature_BF = head_input(calls, logits_BC)
                    if feature_BF is not None:
                        error_BC = logit_gradients(logits_BC, batch.label_B)
                        return head_norms(error_BC, feature_BF, head.bias is not None, power)
                closed = False
            try:
                return general(batch)
            finally:
                calls.clear()

        yield by_head


class _Halving:
    """Scores a batch in parts as large as memory has allowed so far."""

    def __init__(self, score: Scorer) -> None:
        self.score = score
        self.limit: int | None = None

    def __call__(self, batch: Batch) -> Tensor:
        limit = min(self.limit or len(batch), len(batch))
        try:
            return torch.cat([self.score(batch[i : i + limit]) for i in range(0, len(batch), limit)])
        except RuntimeError as error:
            if limit == 1 or not is_out_of_memory(error):
                raise
        # outside the handler, whose traceback would keep the failed pass's tensors
        self.limit = limit // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self(batch)


@contextmanager
def _on_device(model: nn.Module, device: torch.device | str | None) -> Iterator[tuple[torch.device, torch.dtype]]:
    """The model on the device inside, and the precision that its inputs have."""
    own = next(model.parameters()).device
    place = own if device is None else torch.device(device)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    if place != own:
        model.to(place)
    try:
        yield place, dtype
    finally:
        if place != own:
            model.to(own)


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar; what it gives is called with the number of samples done."""
    if not shown:
        yield lambda _done: None
        return
    from rich.progress import Progress  # when imported, rich draws from the global random numbers

    with Progress() as bar:
        task = bar.add_task("gradient norms", total=total)
        yield lambda done: bar.advance(task, done)


# ---- several processes ----------------------------------------------------------------------------------------------


def _process() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _gathered(
    scored: Callable[[], Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]], n: int, ranks: int
) -> NDArray[np.float64]:
    """All processes' norms, in the dataset's order; an error in one is raised in all."""
    norm_N = np.full(n, np.nan)
    if ranks == 1:
        for row_B, norm_B in scored():
            norm_N[row_B] = norm_B
        return norm_N
    found: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    failure: Exception | None = None
    try:
        found = list(scored())
    except Exception as error:
        failure = error
    everyone: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(everyone, (found, None if failure is None else str(failure)))
    if failure is not None:
        raise failure
    for theirs, message in everyone:
        if message is not None:
            raise UserError(message)
        for row_B, norm_B in theirs:
            norm_N[row_B] = norm_B
    return norm_N
