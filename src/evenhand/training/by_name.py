"""The rows of a data set that was made for the Trainer, as named shortcuts see them.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenhand.data.columns import TEXT_COLUMNS
from evenhand.losses import IGNORED
from evenhand.methods.base import Guidance, OneStage
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.named import TRAIN, NamedShortcuts, Rows
from evenhand.shortcuts.samples import RESERVED, Samples
from evenhand.shortcuts.several import parse_all
from evenhand.shortcuts.spelling import Shortcut
from evenhand.training.checks import LABELS, column, has_index, index_bound
from evenhand.validation import UserError


def named_shortcuts(given: Sequence[Rule | str], dataset: Any, num_labels: int | None) -> NamedShortcuts:
    """Shortcuts fitted on a training set.

    Args:
        given: The shortcuts, or their spellings.
        dataset: The training set, with the columns that the shortcuts look at beside the model's inputs.
        num_labels: C, None if the model doesn't say.

    Raises:
        UserError: If the data set isn't one of `datasets`, or a shortcut is none of its rows.
    """
    rules = parse_all((given,) if isinstance(given, str) else given)
    rows = rows_of(dataset, TRAIN, rules)
    feature = dataset.features[_label_column(dataset)]
    named = feature.names if isinstance(feature, datasets.ClassLabel) else ()
    classes = max(num_labels or 0, len(named), int(rows.label_N.max()) + 1)
    names = [*named, *map(str, range(len(named), classes))]
    return NamedShortcuts.fit(rules, {TRAIN: rows}, names)


def rows_of(dataset: Any, name: str, rules: Sequence[Rule]) -> Rows:
    """A data set's rows as shortcuts see them.

    Args:
        dataset: Any data set; one of `datasets` can be told.
        name: What messages call it.
        rules: The shortcuts. A column that one of them names is no text.

    Raises:
        UserError: If it can't be told by shortcuts.
    """
    if not isinstance(dataset, datasets.Dataset):
        raise UserError(
            f"Shortcuts are read from the columns of a datasets.Dataset. Got a {type(dataset).__name__} as '{name}'."
        )
    labels = _label_column(dataset)
    label_N = column(dataset, labels)
    if (label_N == IGNORED).any():
        raise UserError(
            f"Rows with the label {IGNORED} can't be told by shortcuts: take them out of '{name}' "
            "(dataset.filter) before."
        )
    split = dataset if labels == "labels" else dataset.rename_column(labels, "labels")
    called = _texts(split, name, [rule for rule in rules if isinstance(rule, Shortcut)])
    split = split.rename_columns({own: place for place, own in called.items() if own != place})
    taken = {c: "what the model receives" for c, feature in split.features.items() if _is_nested(feature)}
    pixels = split.features.get("pixel_values")
    if "pixel_values" in taken and getattr(pixels, "dtype", None) != "uint8":  # prepared for the model: no picture
        split = split.remove_columns("pixel_values")
    samples = Samples(split, name, called=called, reserved={**taken, **RESERVED, "label": "the label"})
    return Rows(samples, label_N.astype(np.int64))


def _label_column(dataset: datasets.Dataset) -> str:
    found = next((name for name in LABELS if name in dataset.column_names), None)
    if found is None:
        raise UserError(f"Shortcuts need the rows' classes, but there is no 'labels' column in {dataset.column_names}.")
    return found


def _texts(split: datasets.Dataset, name: str, rules: Sequence[Shortcut]) -> dict[str, str]:
    """`text` and `text_pair` → their names in the data set: these, or those of the columns that tokens are sought in.

    Raises:
        UserError: If that may be more than two.
    """
    strings: list[str] = [
        str(c) for c, f in split.features.items() if isinstance(f, datasets.Value) and "string" in f.dtype
    ]
    if "text" in strings:
        return {place: place for place in TEXT_COLUMNS if place in strings}
    fields = [rule.field for rule in rules if rule.kind in ("token", "length")]
    others = {rule.field for rule in rules if rule.kind == "column"}
    sought = strings if None in fields else [c for c in strings if c in fields]
    texts = [c for c in sought if c not in others and c not in RESERVED]
    if len(texts) > len(TEXT_COLUMNS):
        raise UserError(
            f"'{name}' has the columns of strings {', '.join(texts)}: give the one that holds the texts the name "
            "'text' (dataset.rename_column)."
        )
    called: dict[str, str] = dict(zip(TEXT_COLUMNS, texts, strict=False))
    return called


def _is_nested(feature: Any) -> bool:
    """Whether a column holds more than one value a row, and no picture."""
    return not isinstance(feature, (datasets.Value, datasets.ClassLabel, datasets.Image))


def guidance_of(method: OneStage, shortcuts: NamedShortcuts | None, signal: Any, sampling: Any) -> Guidance | None:
    """What shortcuts make of a method's training; None where it needs none, or is told of the samples in another way.

    Raises:
        UserError: If it needs shortcuts and there are none to train against, or it is told twice.
    """
    told = signal is not None or (sampling is not None and not method.needs_signal)
    if not method.needs_shortcut or (told and shortcuts is None):
        return None
    method.check_shortcuts(shortcuts)
    assert shortcuts is not None
    if told or sampling is not None:
        raise UserError(
            f"{method.title} is told what to do by the shortcuts: leave signal_probs and sampling out, or shortcuts."
        )
    return method.guidance(shortcuts)


def by_index(value_N: NDArray[Any], dataset: Any) -> Tensor:
    """The rows' values by the samples' index, as a tensor; what no row has is a group of −1, or 0."""
    if not has_index(dataset):
        return torch.from_numpy(np.ascontiguousarray(value_N))
    nothing = -1 if value_N.dtype.kind == "i" else 0
    placed = np.full((index_bound(dataset), *value_N.shape[1:]), nothing, value_N.dtype)
    placed[column(dataset, "index")] = value_N
    return torch.from_numpy(placed)


def by_row(value_N: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """The rows' values of those by the samples' index."""
    return (
        value_N[column(dataset, "index")] if isinstance(dataset, datasets.Dataset) and has_index(dataset) else value_N
    )
