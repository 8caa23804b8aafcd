"""What makes a run what it is: its configuration, the hash that names it, and the command that repeats it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

from evenhand.data.rows import arrow_table
from evenhand.files import Files, read_files
from evenhand.gradients.parameters import PARTS, matching_parameters, parameters_in_scope
from evenhand.methods.base import Method
from evenhand.models.adapters import Adapters
from evenhand.models.heads import head_of, parameter_count
from evenhand.models.named import checkpoint_files, model_source
from evenhand.models.small_transformers import ARCHITECTURES
from evenhand.models.source import RANDOM_START, ModelSource
from evenhand.shortcuts import OwnShortcut
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.several import identities
from evenhand.tasks.base import Task, TaskSource
from evenhand.training.settings import ADAPTER_TUNING, FINE_TUNING, FROM_SCRATCH, HEAD_TUNING, Training
from evenhand.validation import UserError, plain_fields

FILES_UNKNOWN = "Files unknown: the record was made before records said which files were read."
"""The mark of a run that is taken as done without that."""

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
        shortcuts: Shortcuts that have a name; of those from Python the values of every split.
        files: The files that are read, by the option that leads to them (`data_dir`, `data`, `model`, …); None for
            those that are unknown. They are looked at where this is left out.
    """

    method: Method
    task: TaskSource | Task
    model: str
    training: Training
    seed: int
    data_seed: int
    adapters: Adapters | None = None
    fresh: bool = False
    shortcuts: tuple[Rule, ...] = ()
    files: Mapping[str, Files | None] = dataclasses.field(default=None, hash=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.files is None:
            object.__setattr__(self, "files", files_read(self.task, self.model))

    def as_dict(self) -> dict[str, Any]:
        """The configuration as it stands in the record; files are left out where they are unknown."""
        return copy.deepcopy(self._described)

    @cached_property
    def _described(self) -> dict[str, Any]:
        known = {option: files for option, files in self.files.items() if files is not None}
        files = {"files": {option: found.as_dict() for option, found in known.items()}} if known else {}
        return self._described_with(_task_settings(self.task, known)) | files

    @cached_property
    def _former(self) -> dict[str, Any]:
        """The configuration as records had it before they told of files."""
        return self._described_with(_former_settings(self.task))

    def _described_with(self, task_settings: dict[str, Any]) -> dict[str, Any]:
        described: dict[str, Any] = {
            "method": {"name": self.method.name, "title": self.method.title, "settings": self.method.settings()},
            "task": {"name": self.task.name, "settings": task_settings},
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
        if self.shortcuts:
            described["shortcuts"] = [
                {"name": rule.name, "sha256": rule.sha256} if isinstance(rule, OwnShortcut) else rule.spelling
                for rule in self.shortcuts
            ]
        return described

    @property
    def run_hash(self) -> str:
        """Names the run: equal for equal configurations and files on any machine."""
        return _hash(self._described)

    @property
    def cell_hash(self) -> str:
        """Names the cell: the configuration without its seeds."""
        return _hash(without_seeds(self._described))

    @property
    def former_run_hash(self) -> str:
        """What named the run before records told of files; the same where there are none, or none that are known."""
        return _hash(self._former)

    @property
    def former_cell_hash(self) -> str:
        """What named the cell then."""
        return _hash(without_seeds(self._former))

    @property
    def row_digests(self) -> set[str]:
        """What a record may hold as the digest of a task that was built by the user."""
        return {described["task"]["settings"]["sha256"] for described in (self._described, self._former)}

    def files_as_recorded(self) -> dict[str, Any]:
        """What a record says of the files: nothing where none are read, None for those that are unknown."""
        return {option: None if found is None else found.as_dict() for option, found in self.files.items()}

    def is_record(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is this run's: of the same files, or made when records didn't tell of files."""
        found = record["configuration"]
        return found == self.run_hash or (found == self.former_run_hash and "files" not in record)

    def has_unknown_files(self, record: Mapping[str, Any]) -> bool:
        """Whether this run's record leaves open which files it was made from, since it is older than the telling."""
        told = {option for option in self.files if option != "model" and "sha256" in record["task"]["settings"]}
        return "files" not in record and bool(set(self.files) - told)

    def source(self, task: Task) -> ModelSource:
        """Where the run's models come from, for its task, built."""
        return source_for(task, self.model, self.adapters, self.fresh)

    def command(self, here: bool = False) -> str | None:
        """The command line that repeats the run, defaults left out; None where there is none.

        Args:
            here: Whether files and folders are named as they lie on this machine, so that the line runs from any
                working folder. A record names none, as a path means nothing on another machine. Settings that only a
                study can change then follow as a comment; a record has no line in their place.
        """
        if isinstance(self.task, Task) or any(isinstance(rule, OwnShortcut) for rule in self.shortcuts):
            return None
        words = ["evenhand", "train", self.method.name, *changed_fields(self.method), "--task", self.task.name]
        options, places = self.task.options(), self.task.places()
        # own data's options hold the names of its files
        options |= places if here else {name: "DATA_DIR" for name in places if name not in options}
        words += [word for name, value in options.items() for word in _option(name, value)]
        for rule in self.shortcuts:
            words += ["--shortcut", rule.spelling]
        if self.model != self.task.usual_model:
            words += ["--model", _local(self.model) if here else self.model]
        if self.adapters is not None:
            words += _SHORT.get(self.adapters.kind, ["--peft", self.adapters.kind])
            defaults = Adapters(kind=self.adapters.kind).settings()
            for name, value in self.adapters.settings().items():
                if value != defaults.get(name):
                    words += _option(name, value)
        if self.fresh:
            words += ["--fresh"]
        shipped = shipped_training(self.task, self.model, self.adapters, self.fresh)
        flagged = {name: getattr(self.training, name) for name in ("epochs", "lr", "batch_size", "bf16")}
        for name, value in flagged.items():
            if value != getattr(shipped, name):
                words += _option(name, value)
        words += ["--seed", str(self.seed)]
        if self.data_seed != self.seed:
            words += ["--data-seed", str(self.data_seed)]
        flagless = _differences(shipped.replaced(**flagged), self.training)
        if not flagless:
            return shlex.join(words)
        # a study may change settings that have no flag
        return f"{shlex.join(words)}  # a study file alone can set {', '.join(flagless)}" if here else None


def files_read(task: TaskSource | Task, model: str) -> dict[str, Files | None]:
    """The files that decide a run's result, by the option that leads to them; None for those that are unknown."""
    found = task.data_files() if isinstance(task, TaskSource) else _pictures_of(task)
    checkpoint = checkpoint_files(model)
    return found if checkpoint is None else {**found, "model": checkpoint}


def without_seeds(described: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's description without what differs between the runs of a cell."""
    return {name: value for name, value in described.items() if name not in ("seed", "data_seed")}


def source_for(task: Task, model: str, adapters: Adapters | None = None, fresh: bool = False) -> ModelSource:
    """Where a run's models come from, for a task's inputs and classes."""
    return model_source(model, task.kind, task.label_names, task.image_shape, adapters, partial(_texts, task), fresh)


def shipped_training(task: TaskSource | Task, model: str, adapters: Adapters | None, fresh: bool) -> Training:
    """The settings that a model is trained with unless told otherwise.

    Raises:
        UserError: If the task ships none for a small model, or adapters are asked for where there is nothing to adapt.
    """
    if adapters is not None and (fresh or model in RANDOM_START):
        raise adapters.nothing_to_adapt(model)
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
    """Raise `UserError` where a method or the adapters name parts of a model that it doesn't have, or don't train."""
    scope, part = getattr(method, "scope", "all"), getattr(method, "source", "head")
    if source.adapters is None and scope == "all" and part in PARTS:
        return
    model = source.skeleton()  # refuses targets that are no layers
    if source.adapters is not None and source.adapters.kind == "head":
        _check_parts_of_head(method, model, scope, part)
    parameters_in_scope(model, scope)
    if part not in PARTS:
        matching_parameters(model, [part], "source")


def _check_parts_of_head(method: Method, model: nn.Module, scope: str, part: str) -> None:
    """Raise `UserError` where a method asks for parameters that have no gradient when the head alone trains."""
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


def _pictures_of(task: Task) -> dict[str, Files | None]:
    """The pictures that a task built by the user names without holding them."""
    paths: set[str] = set()
    for split in task.splits.values():
        if "image" in split.column_names:
            stored: Any = arrow_table(split.select_columns("image")).column("image")
            for chunk in stored.chunks:
                inside, names = chunk.field("bytes").is_null().to_pylist(), chunk.field("path").to_pylist()
                paths |= {name for name, outside in zip(names, inside, strict=True) if outside and name}
    if not paths:
        return {}
    try:
        return {"pictures": read_files(map(Path, paths))}
    except OSError:
        return {"pictures": None}


def _task_settings(task: TaskSource | Task, files: Mapping[str, Files]) -> dict[str, Any]:
    if isinstance(task, TaskSource):
        return task.settings_beside({name: found for name, found in files.items() if name != "model"})
    # what the same numbers mean, and which of them head the report
    meaning = {name: split.features.to_dict() for name, split in task.splits.items()}
    return _settings_of_rows(task, json.dumps([task.kind, task.primary_test, task.image_side, meaning], sort_keys=True))


def _former_settings(task: TaskSource | Task) -> dict[str, Any]:
    return task.settings() if isinstance(task, TaskSource) else _settings_of_rows(task, "")


def _settings_of_rows(task: Task, meaning: str) -> dict[str, Any]:
    """The user's own data: told apart by size and content."""
    digest = hashlib.sha256(meaning.encode())
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
    words = [str(word) for word in value] if isinstance(value, (list, tuple)) else [str(value)]
    if len(words) == 1 and words[0].startswith("-"):  # no option of its own
        return [f"{_flag(name)}={words[0]}"]
    return [_flag(name), *words]


def _local(name: str) -> str:
    """A name, or where the folder lies that it stands for."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _differences(shipped: Training, training: Training) -> list[str]:
    fields = plain_fields(training)
    return [f"training.{name}={value}" for name, value in fields.items() if value != getattr(shipped, name)]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _hash(content: dict[str, Any]) -> str:
    if "shortcuts" in content:
        content = content | {"shortcuts": identities(content["shortcuts"])}
    if "files" in content:  # how they are listed is of no matter
        content = content | {"files": {option: found["sha256"] for option, found in content["files"].items()}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
