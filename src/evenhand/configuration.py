"""What makes a run what it is: its configuration, the hash that names it, and the command that repeats it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from evenhand.adapters import Adapters
from evenhand.batches import arrow_table
from evenhand.heads import head_of, parameter_count
from evenhand.methods.base import Method
from evenhand.models import ARCHITECTURES, ModelSource
from evenhand.tasks.base import Task, TaskSource
from evenhand.training import ADAPTER_TUNING, FINE_TUNING, FROM_SCRATCH, HEAD_TUNING, Training
from evenhand.validation import UserError, plain_fields

_SHORT = {"lora": ["--lora"], "head": ["--head-only"]}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One run of one method on one task. Paths and the machine are no part of it.

    Attributes:
        method: The method with its hyper-parameters.
        task: The task's construction, or a task that was built by the user.
        model: The model's name.
        training: Settings of every stage.
        seed: Drives initialisation, order and dropout.
        data_seed: Drives the data's construction.
        adapters: What trains beside the head; None trains the whole model.
        fresh: Whether a checkpoint gives its architecture only.
    """

    method: Method
    task: TaskSource | Task
    model: str
    training: Training
    seed: int
    data_seed: int
    adapters: Adapters | None = None
    fresh: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The configuration as it stands in the record."""
        described = {
            "method": {"name": self.method.name, "title": self.method.title, "settings": self.method.settings()},
            "task": {"name": self.task.name, "settings": _task_settings(self.task)},
            "model": {"name": self.model},
            "training": plain_fields(self.training),
            "seed": int(self.seed),
            "data_seed": int(self.data_seed),
        }
        # what came later is left out where it isn't used, so that older runs keep their hashes
        if self.training.max_length is None:
            del described["training"]["max_length"]
        if not self.training.bf16:
            del described["training"]["bf16"]
        if self.adapters is not None:
            described["model"] |= self.adapters.settings()
        if self.fresh:
            described["model"]["fresh"] = True
        return described

    @property
    def run_hash(self) -> str:
        """Names the run: equal for equal configurations on any machine."""
        return _hash(self.as_dict())

    @property
    def cell_hash(self) -> str:
        """Names the cell: the configuration without its seeds."""
        return _hash({k: v for k, v in self.as_dict().items() if k not in ("seed", "data_seed")})

    def command(self) -> str | None:
        """The command line that repeats the run, defaults left out; None where there is none."""
        if isinstance(self.task, Task):
            return None
        words = ["evenhand", "train", self.method.name, *changed_fields(self.method), "--task", self.task.name]
        words += [word for name, value in self.task.options().items() for word in _option(name, value)]
        if getattr(self.task, "data_dir", None) is not None:
            words += ["--data-dir", "DATA_DIR"]  # a path means nothing on another machine
        if self.model != self.task.usual_model:
            words += ["--model", self.model]
        if self.adapters is not None:
            words += _SHORT.get(self.adapters.kind, ["--peft", self.adapters.kind])
            defaults = Adapters(kind=self.adapters.kind).settings()
            for name, value in self.adapters.settings().items():
                if value != defaults.get(name):
                    words += [_flag(name), str(value)]
        if self.fresh:
            words += ["--fresh"]
        shipped = shipped_training(self.task, self.model, self.adapters, self.fresh)
        flagged = {name: getattr(self.training, name) for name in ("epochs", "lr", "batch_size", "bf16")}
        for name, value in flagged.items():
            if value != getattr(shipped, name):
                words += _option(name, value)
        if shipped.replaced(**flagged) != self.training:
            return None  # a study may change settings that have no flag
        words += ["--seed", str(self.seed)]
        if self.data_seed != self.seed:
            words += ["--data-seed", str(self.data_seed)]
        return shlex.join(words)


def model_source(model: str, task: Task, adapters: Adapters | None = None, fresh: bool = False) -> ModelSource:
    """Where a run's models come from, for a task's inputs and classes."""
    return ModelSource(model, task.kind, task.label_names, task.image_shape, adapters, partial(_texts, task), fresh)


def shipped_training(task: TaskSource | Task, model: str, adapters: Adapters | None, fresh: bool) -> Training:
    """The settings that a model is trained with unless told otherwise.

    Raises:
        UserError: If the task ships none for a small model.
    """
    if isinstance(task, TaskSource):
        shipped = task.training_for(model, adapters is not None)
    elif model in ARCHITECTURES:
        shipped = FROM_SCRATCH
    else:
        shipped = FINE_TUNING if adapters is None else ADAPTER_TUNING
    if fresh:
        return dataclasses.replace(FROM_SCRATCH, max_length=shipped.max_length)
    if adapters is not None and adapters.kind == "head":
        return dataclasses.replace(HEAD_TUNING, max_length=shipped.max_length)
    return shipped


def check_parts(method: Method, source: ModelSource) -> None:
    """Raise `UserError` where a method asks for parameters that have no gradient when the head alone trains."""
    if source.adapters is None or source.adapters.kind != "head":
        return
    scope, part = getattr(method, "scope", None), getattr(method, "source", None)
    model = source.skeleton()
    # a head of several layers has some beside the last one
    lacking = part == "extractor" and parameter_count(model) == parameter_count(head_of(model)[1])
    if scope == "adapters" or lacking:
        field, value = ("scope", scope) if scope == "adapters" else ("source", part)
        raise UserError(
            f"The '{field}' parameter of {method.title} can't be '{value}' where only the head trains: use 'all'."
        )


def _texts(task: Task) -> Iterator[str]:
    """The training texts, and after them those that they are paired with."""
    for column in ("text", "text_pair"):
        if column in task.train.column_names:
            yield from arrow_table(task.train).column(column).to_pylist()


def _task_settings(task: TaskSource | Task) -> dict[str, Any]:
    if isinstance(task, TaskSource):
        return task.settings()
    # The user's own data: told apart by size and content.
    digest = hashlib.sha256()
    for split in task.splits.values():
        table = arrow_table(split).replace_schema_metadata().combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        digest.update(sink.getvalue())
    described: dict[str, Any] = {
        "rows": {name: len(split) for name, split in task.splits.items()},
        "sha256": digest.hexdigest(),
    }
    return described | ({"merged": {k: dict(v) for k, v in task.merged.items()}} if task.merged else {})


def changed_fields(settings: Any) -> list[str]:
    """The options of the command line that make a method with these settings: what is at its default is left out."""
    words = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        # a setting that goes by others unless given: one that it would have anyway is left out
        usual = field.default is None and dataclasses.replace(settings, **{field.name: None}) == settings
        if value != field.default and not usual:
            words += _option(field.name, value)
    return words


def _option(name: str, value: Any) -> list[str]:
    if value is True:
        return [_flag(name)]
    return [_flag(name), *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
