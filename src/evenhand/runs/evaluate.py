"""A trained model on data that may be new: metrics by group with intervals, and every prediction.

Legend: N samples of a split, C classes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transformers import PreTrainedModel

from evenhand.data.columns import column_values, membership
from evenhand.data.inputs import Preprocess
from evenhand.data.origins import Origins
from evenhand.data.rows import collator_for, model_rows
from evenhand.evaluation.by_shortcut import measured_by_shortcut
from evenhand.evaluation.measured import Reader, SplitResult, measured, merged_probabilities, probabilities
from evenhand.metrics import GroupShare, Members
from evenhand.models.fitting import class_names, class_numbers
from evenhand.models.inference import Device, logits_and_labels, ready, torch_device
from evenhand.models.named import model_source
from evenhand.models.saved import check_location, load_model
from evenhand.models.small_vision import SmallVisionConfig
from evenhand.models.source import Kind
from evenhand.runs.by_class import apart
from evenhand.runs.fit import model_folder
from evenhand.runs.named import columns_of, named_of_run, named_task, names_of_texts, with_named
from evenhand.runs.new_data import trained_on, trained_text, with_groups_of_run
from evenhand.runs.record import Record
from evenhand.runs.recorded import recorded_task, recorded_training, usable
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.shortcuts.several import given_rules
from evenhand.tasks import TASKS, OwnData, Task, TaskSource
from evenhand.training.stage import untouched_surroundings
from evenhand.validation import UserError, check_integer, check_seed, named, unknown_name
from evenhand.wording import distinct

logger = logging.getLogger(__name__)

Data = str | TaskSource | Task | datasets.Dataset | Mapping[str, datasets.Dataset]


@dataclass(frozen=True)
class Evaluated:
    """A model on one split.

    Attributes:
        result: Metrics, group sizes and predictions.
        shares: Accuracy of all samples (`average`), and where that is known of `aligned` and `conflicting` ones, each
            with the number of samples and Wilson's 95 % interval.
        groups: Accuracy of each group by name.
        predictions: A row a sample: `index` (and `id` if the data have one), of your own data `file`, `row` (counted
            from 1, without a header line) and `line`, `label`, `prediction`, `p(CLASS)` of every
            class, and what is known of `attribute`, `alignment` and `group`; of a run on new data `trained_on`, whether
            the run was trained on the row's content. Of each named shortcut `value of NAME` and `standing to NAME`.
        notes: What a reader of the numbers must know, a sentence each.
    """

    result: SplitResult
    shares: dict[str, GroupShare]
    groups: dict[str, GroupShare]
    predictions: pd.DataFrame
    notes: tuple[str, ...] = ()


def evaluate(
    model: Path | str,
    data: Data | None = None,
    *,
    on: Sequence[str] | str | None = None,
    data_dir: Path | str | None = None,
    data_seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    shortcuts: Iterable[Rule | str] | Rule | str = (),
    batch_size: int = 256,
    device: Device = "auto",
) -> dict[str, Evaluated]:
    """Measure a trained model, ours or any image or sequence classifier of transformers, by group.

    Args:
        model: A run's folder, a model's folder with its tokenizer or image processor, or a name on the hub.
        data: A task, or splits of your own with the columns that tasks have (`labels` as a ClassLabel, `text` and
            perhaps `text_pair`, or `image` or `pixel_values`; perhaps `index`, `group`, `attribute`, `alignment`). A
            run is measured on its own task if None. `OwnData` is measured as one split, but for a run on the very data
            that the run was trained on: then on the run's own splits.
        on: Names of the splits; all but train if None.
        data_dir: Folder of the data files, for a run's own task, whose record names no folder.
        data_seed: Seed of a task's construction; that of the run, or 0, if None.
        settings: Settings in place of those that a run's own task was made with.
        shortcuts: Shortcuts that have a name, as of `fit`, fitted on the task's training rows; if none are given, those
            that a run was trained with, on any data, as the run's training rows know them.
        batch_size: Samples a forward pass.
        device: `auto` takes a GPU if there is one.

    Returns:
        Split by name → its metrics and predictions.

    Raises:
        UserError: If model and data don't fit each other, or one of them can't be read.
    """
    check_integer("evaluate", "batch_size", batch_size, 1)
    place = torch_device(device)
    folder, record = _located(model)
    given = _data_of_run(model, record, settings or {}, data_dir) if data is None else data
    if record is not None and isinstance(given, OwnData):
        given = _same_as_run(given, record)
    with untouched_surroundings():
        loaded = ready(load_model(folder), place)
        seed = (0 if record is None else record.data_seed) if data_seed is None else data_seed
        rules = given_rules(shortcuts)
        task, splits, named, notes, origins = _with_shortcuts(given, seed, class_names(loaded.config), record, rules)
        chosen = _chosen(splits, on)
        preprocess = _preprocess(loaded, str(folder), chosen, record)
        found = {
            name: _evaluated(loaded, str(model), name, split, task, preprocess, batch_size, named)
            for name, split in chosen.items()
        }
    _locate(found, origins)
    if task is None and record is not None:
        notes += _marked(found, chosen, Path(model))
    if task is not None:
        notes += distinct([_apart(found, task)])
    return {name: dataclasses.replace(split, notes=tuple(notes)) for name, split in found.items()}


def _locate(found: Mapping[str, Evaluated], origins: Callable[[str], Origins] | None) -> None:
    """Say of each row where it lies in the user's files, behind its names."""
    if origins is None:
        return
    for split, evaluated in found.items():
        place = list(evaluated.predictions.columns).index("label")
        for i, (name, column) in enumerate(origins(split).columns().items()):
            evaluated.predictions.insert(place + i, name, column)


def _with_shortcuts(
    given: Data, data_seed: int, classes: Any, record: Record | None, asked: Sequence[Rule | str]
) -> tuple[Task | None, dict[str, datasets.Dataset], NamedShortcuts | None, list[str], Callable[[str], Origins] | None]:
    """The splits with their task, if they are one's, the shortcuts to measure by, notes, and where the rows lie."""
    notes: list[str] = []
    origins: Callable[[str], Origins] | None = None
    beside, called = None, {}
    if isinstance(given, OwnData):
        own = given
        one, told, found_in = with_groups_of_run(own, classes, record and record.raw)
        called, beside = names_of_texts(own), lambda: own.beside_one(classes)
        given, notes, origins = {"data": one}, [*told], lambda _: found_in
    splits, task = _splits(given, data_seed)
    task = named_task(task, asked)
    splits = splits if task is None else task.splits
    named, told = named_of_run(record, task, splits, beside, called)
    task, splits = with_named(task, splits, named)
    return task, splits, named, [*notes, *told], origins if task is None else task.origins


# ---- which model, which data ----------------------------------------------------------------------------------------


def _marked(found: dict[str, Evaluated], splits: Mapping[str, datasets.Dataset], run: Path) -> list[str]:
    """Say of each split's rows whether the run was trained on them, beside their predictions and in notes."""
    notes: list[str] = []
    for name, split in splits.items():
        trained_N = trained_on(split, run)
        if trained_N is not None:
            found[name].predictions["trained_on"] = trained_N
        notes += distinct([trained_text(name, split, trained_N)])
    return notes


def _located(model: Path | str) -> tuple[Path | str, Record | None]:
    """Where the model's files are, and the record if it is a run's."""
    path = Path(model) / "record.json"
    if not path.exists():
        check_location(model)
        return model, None
    record = Record.load(path)
    if not record.is_done:
        raise UserError(f"The run in '{model}' has no model to evaluate: its status is '{record.status}'.")
    return model_folder(Path(model)), record


def _data_of_run(
    model: Path | str, record: Record | None, settings: Mapping[str, Any], data_dir: Path | str | None
) -> TaskSource:
    if record is None and not Path(model).exists():
        raise UserError(
            f"There is no folder '{model}': name a run's, or say by a task or data what a model of the hub is measured "
            "on."
        )
    if record is None:
        raise UserError(f"'{model}' is no run with a task of its own: say what it is evaluated on, by a task or data.")
    return recorded_task(record, dict(settings) if data_dir is None else {**settings, "data_dir": data_dir})


def _same_as_run(data: OwnData, record: Record) -> TaskSource | Task:
    """The run's own splits where the data are those that it was trained on; else all of the data as one split.

    New data have the run's columns of inputs and labels unless others are named.
    """
    settings = record.task.settings
    if record.task.name != data.name:
        return data
    with usable(record, "task.settings"):
        if data.same_content("data", record.raw):
            told = (*(record.files or {}), *settings.get("sha256", {}))
            places = {name: getattr(data, name) for name in told if getattr(data, name, None) is not None}
            return recorded_task(record, places).build(record.data_seed)
        inputs = () if data.text or data.image else ("text", "image")
        missing = [name for name in (*inputs, "label") if not getattr(data, name) and settings.get(name)]
        return dataclasses.replace(data, **{name: settings[name] for name in missing})


def _splits(data: Data, data_seed: int) -> tuple[dict[str, datasets.Dataset], Task | None]:
    """Every split by name, and the task if they are one's."""
    if isinstance(data, str):
        if data not in TASKS:
            raise unknown_name("task", data, TASKS)
        data = TASKS[data]()
    if isinstance(data, TaskSource):
        check_seed("evaluate", "data_seed", data_seed)
        data = data.build(data_seed)
    if isinstance(data, Task):
        return data.splits, data
    splits = {"data": data} if isinstance(data, datasets.Dataset) else dict(data)
    for name, split in splits.items():
        if not isinstance(split, datasets.Dataset) or not {"labels"} <= set(split.column_names) or not len(split):
            raise UserError(f"The split '{name}' must be a datasets.Dataset with rows and a column 'labels'.")
        for column in ("labels", "attribute", "alignment", "group"):
            feature = split.features.get(column)
            if column != "labels" and isinstance(feature, datasets.List):
                feature = feature.feature
            if not isinstance(feature, datasets.ClassLabel | None):
                raise UserError(f"The column '{column}' of the split '{name}' must be a datasets.ClassLabel.")
    return splits, None


def _chosen(splits: dict[str, datasets.Dataset], on: Sequence[str] | str | None) -> dict[str, datasets.Dataset]:
    names = [on] if isinstance(on, str) else list(on or [])
    for name in names:
        if name not in splits:
            raise unknown_name("split", name, splits)
    return {name: split for name, split in splits.items() if (name in names if names else name != "train")}


# ---- do they fit ----------------------------------------------------------------------------------------------------


def _preprocess(
    model: PreTrainedModel, folder: str, splits: dict[str, datasets.Dataset], record: Record | None
) -> Preprocess:
    """How rows become the model's inputs, by the tokenizer or processor beside it."""
    config = model.config
    kind: Kind = "text" if type(model).__name__.endswith("ForSequenceClassification") else "image"
    shape = None
    if isinstance(config, SmallVisionConfig):
        shape = (config.num_channels, config.image_height, config.image_width)
    for name, split in splits.items():
        columns = set(split.column_names)
        fits = "text" in columns if kind == "text" else bool({"image", "pixel_values"} & columns)
        if not fits:
            raise UserError(f"The model takes {kind}s, but the split '{name}' has no such column ({sorted(columns)}).")
        found = tuple(split.features["pixel_values"].shape) if kind == "image" and "pixel_values" in columns else None
        if shape is not None and found is not None and found != shape:
            taken, given = ("×".join(map(str, size)) for size in (shape, found))
            raise UserError(f"The model takes images of {taken}, but those of the split '{name}' are {given}.")
    source = model_source(folder, kind, _classes(model), shape)
    source.fit(model)
    for note in source.notes():
        logger.warning(note)
    return source.preprocessor(None if record is None else recorded_training(record).max_length)[0]


def _classes(model: PreTrainedModel) -> tuple[str, ...]:
    names: dict[Any, str] = dict(model.config.id2label or {})
    return tuple(names[i] for i in sorted(names, key=int))


@dataclass(frozen=True)
class _Compared:
    """What labels and predictions are compared as: the model's classes, or the split's where several of those merge.

    Attributes:
        names: Their names.
        of_label: The number among them of each of the split's classes.
        of_output: That of each of the model's classes, shape (C,).
    """

    names: tuple[str, ...]
    of_label: NDArray[np.int64]
    of_output: NDArray[np.int64]


def _compared(
    model: PreTrainedModel, folder: str, name: str, split: datasets.Dataset, merged: Mapping[str, str]
) -> _Compared:
    """Classes are matched by name, in upper or lower case; by number where the model has no names."""
    classes, found = _classes(model), tuple(split.features["labels"].names)
    if merged:
        if not set(classes) <= set(merged):
            raise UserError(f"The model's classes are {', '.join(classes)}, but the task's are {', '.join(merged)}.")
        return _Compared(found, np.arange(len(found)), np.array([found.index(merged[c]) for c in classes]))
    numbers = np.arange(len(classes))
    if len(classes) == len(found) and class_names(model.config) is None:
        return _Compared(classes, numbers, numbers)
    places = [number for number in class_numbers(found, classes) if number is not None]
    if len(places) < len(found):
        raise UserError(
            f"The classes of the model '{folder}' are {', '.join(classes)}, but those of the split '{name}' are "
            f"{', '.join(found)}."
        )
    return _Compared(classes, np.array(places), numbers)


# ---- measuring ------------------------------------------------------------------------------------------------------


def _evaluated(
    model: PreTrainedModel,
    folder: str,
    name: str,
    split: datasets.Dataset,
    task: Task | None,
    preprocess: Preprocess,
    batch_size: int,
    shortcuts: NamedShortcuts | None,
) -> Evaluated:
    compared = _compared(model, folder, name, split, {} if task is None else task.merged.get(name, {}))
    label_N = column_values(split, "labels")
    if not np.issubdtype(label_N.dtype, np.integer) or label_N.min() < 0:
        raise UserError(f"The split '{name}' has rows without a label.")
    logits_NC, _ = logits_and_labels(model, model_rows(split, preprocess), batch_size, collator_for(preprocess))
    probability_NC = probabilities(logits_NC)
    if not np.isfinite(probability_NC).all():
        raise UserError(f"The model '{folder}' gives probabilities that are no numbers on the split '{name}'.")
    label_N = compared.of_label[label_N]
    predicted_N = compared.of_output[probability_NC.argmax(1)]
    merged_NK = merged_probabilities(probability_NC, compared.of_output, len(compared.names))
    names = np.array(compared.names)
    columns: dict[str, Any] = {"split": name}
    columns |= {column: split[column][:] for column in ("index", "id") if column in split.column_names}
    columns.setdefault("index", np.arange(len(split)))
    columns |= {"label": names[label_N], "prediction": names[predicted_N]}
    columns |= {f"p({c})": probability_NC[:, i] for i, c in enumerate(_classes(model))}
    columns |= {c: _named(split, c) for c in ("attribute", "alignment", "group") if c in split.column_names}
    correct_N = predicted_N == label_N
    result = measured(split, predicted_N, merged_NK, label_N, None if task is None else task.train, compared.names)
    if shortcuts is not None and np.array_equal(compared.of_label, np.arange(len(compared.of_label))):
        rows = partial(model_rows, preprocess=preprocess)
        reader = Reader(model, collator_for(preprocess), rows, compared.of_output, batch_size)
        result.metrics.update(measured_by_shortcut(shortcuts, name, predicted_N, reader.predict))  # type: ignore[call-overload]
        columns |= columns_of(shortcuts, name)
    everything = {"average": np.ones(len(label_N), dtype=bool)}
    return Evaluated(
        result,
        _shares(correct_N, everything | membership(split, "alignment")),
        _shares(correct_N, membership(split, "group")),
        pd.DataFrame(columns),
    )


def _apart(found: Mapping[str, Evaluated], task: Task) -> str | None:
    """Whether validation and the primary test set are further apart than chance, where both were measured."""
    pair = [found.get("validation"), found.get(task.primary_test)]
    shares = [split.shares for split in pair if split is not None and not split.groups]
    if len(shares) < 2 or any("conflicting" in share for share in shares):
        return None
    named = zip(("validation", task.primary_test), shares, strict=True)
    return apart(*(dataclasses.replace(share["average"], names=(name,)) for name, share in named))


def _shares(correct_N: NDArray[np.bool_], members: Members) -> dict[str, GroupShare]:
    return {name: GroupShare.of([name], correct_N, member_N) for name, member_N in members.items()}


def _named(split: datasets.Dataset, column: str) -> list[str | None]:
    """Each row's group by name; the names of several are separated by semicolons."""
    names: list[list[str]] = [[] for _ in range(len(split))]
    for name, member_N in membership(split, column).items():
        for row in np.flatnonzero(member_N):
            names[row].append(name)
    return [named(found) or None for found in names]
