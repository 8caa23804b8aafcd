"""What evenhand.Trainer refuses before the first step, each in one sentence.

Legend: N training samples, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from accelerate.utils import DynamoBackend
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from evenhand.gradients import parameters_in_scope
from evenhand.losses import IGNORED
from evenhand.methods.base import Method, OneStage
from evenhand.methods.rule import SignalKind
from evenhand.sampling import normalized
from evenhand.validation import UserError

logger = logging.getLogger(__name__)

LABELS = ("labels", "label")
"""Names that transformers has for the column of classes."""


def one_stage(method: Method) -> OneStage:
    """The method, if the Trainer can run it."""
    if not isinstance(method, Method):
        raise UserError(f"The 'method' parameter of Trainer must be a method such as evenhand.EDGE(). Got {method!r}.")
    if not isinstance(method, OneStage):
        raise UserError(f"{method.title} trains in several stages, so evenhand.Trainer can't run it: use evenhand.fit.")
    return method


def check_model(trainer: transformers.Trainer) -> None:
    """Refuse other problems than single-label classification, and other losses than the method's."""
    config = getattr(trainer.model, "config", None)
    problem = getattr(config, "problem_type", None)
    if problem is None and getattr(config, "num_labels", None) == 1:
        problem = "regression"  # as transformers takes it
    if problem in ("regression", "multi_label_classification"):
        raise UserError(f"evenhand trains single-label classifiers; {problem.replace('_', ' ')} is not supported.")
    if type(trainer.model).__name__.endswith("ForTokenClassification"):
        raise UserError("evenhand trains single-label classifiers; token classification is not supported.")
    if trainer.args.label_smoothing_factor:
        raise UserError("evenhand.Trainer does not support label_smoothing_factor: set it to 0.")
    if trainer.compute_loss_func is not None:
        raise UserError("evenhand.Trainer computes the loss by its method: compute_loss_func must be None.")
    if trainer.args.n_gpu > 1:
        raise UserError(
            "evenhand.Trainer does not run under torch.nn.DataParallel: launch one process a GPU with torchrun, "
            f"or show it one GPU by CUDA_VISIBLE_DEVICES. Got {trainer.args.n_gpu} GPUs in one process."
        )


def check_precision(trainer: transformers.Trainer) -> None:
    """Refuse weights in float16 that a scaler can't train, and warn of others that small steps are lost on."""
    assert trainer.model is not None
    halves = {p.dtype for p in trainer.model.parameters() if p.requires_grad} & {torch.float16, torch.bfloat16}
    if not halves:
        return
    kind = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in halves))
    advice = "call model.float() and train with bf16=True or fp16=True, which keep the weights in float32"
    if torch.float16 in halves and trainer.args.fp16:
        raise UserError(f"The model's weights are {kind}, whose gradients can't be scaled for fp16=True: {advice}.")
    logger.warning(
        "The model's weights are %s and are trained so, in which small steps round to nothing: %s.", kind, advice
    )


def check_own_loss(method: OneStage, class_weights: Sequence[float] | None) -> None:
    """Refuse a subclass whose `compute_loss` takes the place of a loss that was asked for.

    Only ERM can do with it: its loss is what the subclass makes it.
    """
    own = method.gradient_rule().projection is not None or method.needs_objective
    if own or type(method).sample_losses is not OneStage.sample_losses:
        raise UserError(
            f"{method.title} needs its own loss for each sample, so compute_loss can't be overridden: override the "
            "method's sample_losses."
        )
    if class_weights is not None:
        raise UserError(
            "The class_weights of evenhand.Trainer weigh its own loss, which this trainer's compute_loss overrides: "
            "weigh the classes there."
        )


def check_combination(trainer: transformers.Trainer, method: OneStage) -> None:
    """Refuse what hides per-sample gradients from a method that combines two gradients; nothing for others."""
    rule = method.gradient_rule()
    if rule.projection is None:
        return
    title, args = method.title, trainer.args
    if trainer.is_deepspeed_enabled:
        raise UserError(f"{title} can't be run under DeepSpeed, which keeps the gradients to itself.")
    if trainer.is_fsdp_enabled:
        raise UserError(
            f"{title} can't be run under FSDP, which shards the gradients that it combines: use DDP (torchrun without "
            "fsdp)."
        )
    dynamo = getattr(trainer.accelerator.state, "dynamo_plugin", None)  # accelerate launch --dynamo_backend
    compiled = args.torch_compile or (dynamo is not None and dynamo.backend != DynamoBackend.NO)
    if compiled and rule.route != "double":
        raise UserError(
            f"{title} can't be run with torch_compile=True, which hides the layers from it, but with route='double'."
        )
    parallel = getattr(trainer.accelerator, "parallelism_config", None)
    if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
        raise UserError(f"{title} can't be run with context or sequence parallelism, which splits samples.")
    assert trainer.model is not None
    parameters_in_scope(trainer.model, rule.scope)
    optimizer = str(getattr(args.optim, "value", args.optim))
    if optimizer in ("lomo", "adalomo") or optimizer.endswith("layerwise"):
        raise UserError(f"{title} can't be run with optim='{optimizer}', which steps within the backward.")


def check_companion(trainer: transformers.Trainer, method: OneStage, companion: nn.Module | None) -> None:
    """Refuse a second model where none is trained, and where it can't be."""
    if companion is not None and not method.needs_companion:
        raise UserError(f"{method.title} trains no second model, so it makes no use of companion: leave it out.")
    if method.needs_companion and (trainer.args.world_size > 1 or trainer.is_deepspeed_enabled):
        raise UserError(
            f"{method.title} trains a second model beside the first, which runs in one process and without DeepSpeed "
            f"only. Got {trainer.args.world_size} processes."
        )


def check_train_dataset(dataset: Any, num_labels: int | None, custom: bool) -> None:
    """Refuse data without a length, without labels, or whose labels are no classes.

    Args:
        dataset: The training set.
        num_labels: C, None if the model doesn't say.
        custom: Whether the collator sees every column, and so may make labels of any.
    """
    if isinstance(dataset, (IterableDataset, datasets.IterableDataset)):
        raise UserError("evenhand.Trainer needs a data set with a length; streaming data sets are not supported.")
    if len(dataset) == 0:
        raise UserError("The training data set is empty.")
    if not isinstance(dataset, datasets.Dataset) or num_labels is None:
        return
    _check_labelled(dataset, num_labels, custom, "The training data set")


def check_eval_dataset(dataset: Any, train: Any, num_labels: int | None, custom: bool, name: str = "") -> None:
    """Refuse an evaluation set that evaluations would fail on, or whose groups they would overlook.

    Args:
        dataset: The evaluation set. Of one that streams the first row is looked at.
        train: The training set.
        num_labels: C, None if the model doesn't say.
        custom: Whether the collator sees every column.
        name: The set's name where there are several.
    """
    title = f"The evaluation set '{name}'" if name else "The evaluation set"
    if isinstance(dataset, datasets.IterableDataset):
        first = list(dataset.take(1))
        dataset = datasets.Dataset.from_list(first, features=dataset.features) if first else dataset
    if not isinstance(dataset, datasets.Dataset):
        return
    if len(dataset) == 0:
        raise UserError(f"{title} is empty.")
    for groups in ("group", "alignment"):
        feature = dataset.features.get(groups)
        inner = feature.feature if isinstance(feature, datasets.List) else feature
        if isinstance(inner, datasets.Value):
            raise UserError(
                f"{title} has a column '{groups}' of {inner.dtype}, whose groups have no names: make it a ClassLabel "
                f"by class_encode_column('{groups}'), or give it another name."
            )
    if num_labels is not None:
        _check_labelled(dataset, num_labels, custom, title, title.removeprefix("The "))
    if not custom and isinstance(train, datasets.Dataset):
        _check_like_training(dataset, train, title)


def _check_like_training(dataset: datasets.Dataset, train: datasets.Dataset, title: str) -> None:
    """Refuse an evaluation set without the training set's inputs, or whose classes have other names."""
    for inputs in ("input_ids", "pixel_values", "inputs_embeds"):
        if inputs in train.column_names and inputs not in dataset.column_names:
            raise UserError(f"{title} has no '{inputs}' column, as the training set; it has {dataset.column_names}.")
    theirs, ours = (
        next((split.features[c] for c in LABELS if c in split.column_names), None) for split in (dataset, train)
    )
    if isinstance(theirs, datasets.ClassLabel) and isinstance(ours, datasets.ClassLabel):
        differing = [(a, b) for a, b in zip(theirs.names, ours.names, strict=False) if a != b]
        if differing:
            raise UserError(
                f"{title} calls a class '{differing[0][0]}' that the training set calls '{differing[0][1]}': give both "
                "the same names in the same order."
            )


def _check_labelled(dataset: datasets.Dataset, num_labels: int, custom: bool, title: str, which: str = "") -> None:
    """Refuse a data set without labels, or whose labels are no classes."""
    name = next((c for c in LABELS if c in dataset.column_names), None)
    if name is None:
        if custom:
            return
        raise UserError(f"{title} has no 'labels' column; it has {dataset.column_names}.")
    label_N = column(dataset, name)
    if custom and not np.issubdtype(label_N.dtype, np.integer):
        return
    _check_labels(label_N, num_labels, which)


def _check_labels(label_N: NDArray[Any], num_labels: int, which: str) -> None:
    """Raise `UserError` unless the labels are classes 0 … num_labels − 1 or −100, one a sample."""
    place = f" in the {which}" if which else ""
    if label_N.ndim != 1:
        raise UserError(
            f"evenhand trains single-label classifiers; multi-label data (lists of labels) are refused{place}."
        )
    floats = label_N.dtype.kind == "f"
    missing = np.flatnonzero(np.isnan(label_N)) if floats else []
    if label_N.dtype.kind not in "biuf" or len(missing):
        first = label_N[missing[0] if len(missing) else 0]
        raise UserError(f"Labels must be integers, one a sample and none missing. Got {str(first)!r} first{place}.")
    if floats and not np.array_equal(label_N, np.round(label_N)):
        got = f"{label_N.dtype}{place}"
        raise UserError(f"evenhand trains classifiers, whose labels are integers; regression is refused. Got {got}.")
    counts_N = label_N != IGNORED
    if not counts_N.any():
        of, lost = (which, "measure") if which else ("training data set", "learn")
        raise UserError(f"All {len(label_N)} labels of the {of} are {IGNORED}: there is nothing to {lost}.")
    outside = np.flatnonzero(counts_N & ((label_N < 0) | (label_N >= num_labels)))
    if len(outside):
        raise UserError(
            f"Labels must lie in 0…{num_labels - 1} for this model, or be {IGNORED} for a sample that doesn't count. "
            f"Got {label_N[outside[0]]} for sample {outside[0]}{place} ({len(outside)} such samples)."
        )


_SIGNALS = {
    "probability": "the biased model's probability of each training sample's true class; evenhand.fit trains that "
    "model as a first stage.",
    "weight": "the weight of each training sample, or shortcuts=[...].",
    "correction": "what is added to each training sample's logits, shape (samples, classes), or shortcuts=[...].",
    "group": "the group of each training sample, from 0, or shortcuts=[...].",
}


def checked_signal(method: OneStage, signal_probs: Any, dataset: Any, num_labels: int | None) -> Tensor | None:
    """`signal_probs` by index: groups as integers, others as float32; None for a method without it."""
    if signal_probs is None:
        if method.needs_signal:
            shortcut = method.needs_shortcut and method.signal_kind == "probability"
            needed = "shortcuts=[...]." if shortcut else f"signal_probs, {_SIGNALS[method.signal_kind]}"
            raise UserError(f"{method.title} needs {needed}")
        return None
    if not method.needs_signal:
        raise UserError(f"{method.title} makes no use of signal_probs: leave it out.")
    kind = method.signal_kind
    signal = np.asarray(signal_probs)
    if kind == "group" and signal.dtype.kind not in "iu":
        raise UserError(f"signal_probs must be integers, the groups of the samples. Got {signal.dtype}.")
    signal = signal.astype(np.int64 if kind == "group" else np.float32)
    rows = index_bound(dataset)
    # with an `index` column the training set may be a part of what the signal was computed for
    too_long = not has_index(dataset) and len(signal) > rows
    width = signal.shape[1:]
    fits = len(width) == 1 and num_labels in (None, *width) if kind == "correction" else width == ()
    if not signal.ndim or not fits or len(signal) < rows or too_long:
        wanted = f"({rows}, {num_labels or 'classes'})" if kind == "correction" else f"({rows},)"
        what = "one row" if kind == "correction" else "one value"
        raise UserError(
            f"signal_probs must have shape {wanted}, {what} for each index 0…{rows - 1} of a training sample. "
            f"Got {signal.shape}."
        )
    _check_range(kind, signal)
    return torch.from_numpy(signal)


def _check_range(kind: SignalKind, signal: NDArray[Any]) -> None:
    """Raise `UserError` for a sample whose signal is none of its kind."""
    least, most, range_ = {
        "probability": (0, 1, "lie in [0, 1]"),
        "weight": (0, np.inf, "be finite and not negative"),
        "group": (0, np.inf, "be groups from 0 on"),
        "correction": (-np.inf, np.inf, "be finite"),
    }[kind]
    flat = signal.reshape(len(signal), -1)
    bad = np.argwhere(~((flat >= least) & (flat <= most) & np.isfinite(flat)))
    if len(bad):
        raise UserError(f"signal_probs must {range_}. Got {flat[tuple(bad[0])]} for sample {bad[0][0]}.")


def checked_sampling(sampling: Any, dataset: Any) -> NDArray[np.float64]:
    """Sampling weights as probabilities, one for each sample."""
    probability_N = normalized(sampling)
    if len(probability_N) != len(dataset):
        raise UserError(
            f"sampling must hold one weight for each of the {len(dataset)} training samples. Got {len(probability_N)}."
        )
    return probability_N


def averages_needed(dataset: Any) -> int:
    """How many running averages the samples' indices need."""
    bound = index_bound(dataset)
    if bound > max(100 * len(dataset), 10_000_000):
        raise UserError(
            f"The training data set's 'index' column goes up to {bound - 1} for {len(dataset)} rows: use row numbers."
        )
    return bound


def checked_class_weights(weights: Sequence[float] | None, num_labels: int | None) -> Tensor | None:
    """Class weights as a float32 tensor of shape (C,)."""
    if weights is None:
        return None
    weight_C = np.asarray(weights, dtype=np.float32)
    if weight_C.ndim != 1 or (num_labels is not None and len(weight_C) != num_labels):
        expected = "one weight a class" if num_labels is None else f"one weight for each of the {num_labels} classes"
        raise UserError(f"class_weights must hold {expected}. Got shape {weight_C.shape}.")
    bad = np.flatnonzero(~(np.isfinite(weight_C) & (weight_C >= 0)))
    if len(bad):
        raise UserError(f"class_weights must be finite and not negative. Got {weight_C[bad[0]]} for class {bad[0]}.")
    if not weight_C.any():
        raise UserError("class_weights are all zero, so there is nothing to {'measure' if which else 'learn'}.")
    return torch.from_numpy(weight_C)


def has_index(dataset: Any) -> bool:
    """Whether the data set brings its samples' indices."""
    names = getattr(dataset, "column_names", None)
    return "index" in names if names is not None else "index" in getattr(dataset, "views", {})


def index_bound(dataset: Any) -> int:
    """One more than the largest index of a training sample."""
    if isinstance(dataset, datasets.Dataset) and "index" in dataset.column_names:
        index_N = column(dataset, "index")
        if not np.issubdtype(index_N.dtype, np.integer) or index_N.min() < 0:
            raise UserError("The training data set's 'index' column must hold integers from 0 on: rename or remove it.")
        return int(index_N.max()) + 1
    return len(dataset)


def column(dataset: datasets.Dataset, name: str) -> NDArray[Any]:
    """A column, read at once: `dataset[name]` of datasets 4 is read row by row."""
    return np.asarray(dataset.select_columns([name]).with_format("numpy")[:][name])
