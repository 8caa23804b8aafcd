"""A run's record: its schema, and how it gets on disk and from there. Never half-written.

`Record` is all of `record.json` and of a line of `runs.jsonl`: whoever writes or reads one does so by it. What decides
a number must be there and be right; what is only shown may be missing or damaged, and is left out then. Keys that the
schema doesn't name, such as those of later versions, stay in `raw`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, FiniteFloat, PrivateAttr

from evenhand.files import write_text
from evenhand.runs.schema import Raw, Shown, ShownEntries, ShownItems, Stored, Text, checked, shown, wrong
from evenhand.runs.told import Fraction, QualityTold, ShortcutTold
from evenhand.runs.worst_groups import Groups, record_groups, weakest
from evenhand.validation import UserError
from evenhand.version import __version__

FORMAT = 1  # of record.json; raised when a reader of the old one would misread the new one
METRICS = ("average", "average_train_weighted", "worst_group", "aligned", "conflicting")

Status = Literal["done", "running", "failed", "planned", "skipped"]

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "peft", "numpy", "scikit-learn")


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a reader sees the old file or the new one, whatever happens."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        UserError: If it can't be read or is none.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it or repeat its run.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); check its permissions.") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold a JSON object; delete it or repeat its run.")
    return raw


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {
        "evenhand": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the run was computed on; no host name, no path."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def source_commit() -> dict[str, Any] | None:
    """The commit and whether it was changed, if evenhand runs from a git checkout of its own; else None."""
    package = Path(__file__).resolve().parents[1]
    root = _git(package, "rev-parse", "--show-toplevel")
    # An installed package may lie inside somebody else's repository (a virtual environment in their project).
    if root is None or package != Path(root).resolve() / "src" / "evenhand":
        return None
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"hash": commit, "dirty": bool(_git(package, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


# ---- the schema -----------------------------------------------------------------------------------------------------


def write_record(path: Path, raw: Raw) -> None:
    """Write a record, whole or not at all; one that couldn't be read back is refused."""
    write_json(path, Record.read(raw, path).raw)


def _with_name(value: Any) -> Any:
    return _HasName.model_validate(value) and value


class _HasName(Stored):
    name: str


class Named(Stored):
    """A task or a stage's method, with its settings."""

    name: str
    settings: Raw


class Method(Named):
    """The method that is run."""

    title: str


Model = Annotated[Raw, BeforeValidator(_with_name)]  # name, adapters and the number of parameters


class FilesTold(Stored):
    """The files that one option led to."""

    sha256: str
    count: Shown[int] = None
    bytes: Shown[int] = None
    listed: ShownItems[Raw] = []


class SplitTold(Stored):
    """A split's size, in all and by side of the shortcut; what one constant answer reaches there."""

    n: Shown[int] = None
    classes: Shown[int] = None
    aligned: Shown[int] = None
    conflicting: Shown[int] = None
    constant: ShownEntries[FiniteFloat] = {}


class Metrics(Stored):
    """What a run reached on one test set; fractions of 1, None where undefined."""

    average: Fraction
    average_train_weighted: Fraction
    worst_group: Fraction
    aligned: Fraction
    conflicting: Fraction
    by_group: dict[str, Fraction]
    worst_group_name: Shown[str] = None
    worst_group_n: Shown[int] = None
    worst_group_interval: Shown[list[float]] = None
    small_groups: Shown[Raw] = None
    quality: Shown[QualityTold] = None
    quality_by_group: ShownEntries[QualityTold] = {}
    by_shortcut: ShownEntries[ShortcutTold] = {}  # empty where no shortcut is named
    all_shortcuts: Shown[ShortcutTold] = None  # where several are
    _told: tuple[Raw, str | None] = PrivateAttr(({}, None))  # the record, and the test set unless it is the primary one

    @cached_property
    def groups(self) -> Groups:
        """The worst group, and the small ones together; of older records, as the sizes elsewhere in them tell."""
        return record_groups(*self._told)

    @property
    def overall(self) -> dict[str, float | None]:
        """One entry for each name in METRICS."""
        return {name: getattr(self, name) for name in METRICS}

    def value(self, metric: str) -> float | None:
        """One of METRICS, `small_groups`, or `weakest`: the worst group's or the small groups', whichever is lower."""
        small = self.groups[1]
        if metric == "small_groups":
            return small and small.accuracy
        return weakest(self.groups) if metric == "weakest" else self.overall[metric]


class StageReport(Stored):
    """What a stage left: of training, of scoring, or of finding errors."""

    name: Text = None
    steps: Shown[int] = None
    epochs: Shown[int] = None
    losses: ShownItems[Any] = []
    method: Shown[Named] = None
    as_erm: Text = None
    effective_sample_size: Shown[FiniteFloat] = None
    curve: Shown[Raw] = None
    detection: ShownEntries[FiniteFloat] = {}
    wrong: Shown[int] = None
    reused: Shown[bool] = None


class Durations(Stored):
    """Seconds, and when the run began and ended."""

    total_s: Shown[FiniteFloat] = None
    stages: ShownEntries[FiniteFloat] = {}
    started: Shown[str] = None
    finished: Shown[str] = None


class Memory(Stored):
    """A stage's peak, or a bound of it."""

    bytes: Shown[int] = None
    of: Text = None
    exact: Shown[bool] = None


class Record(Stored):
    """One run, as its record tells it; what is planned and left out is one without a result.

    `metrics` is None and `tests` is empty unless the run is done. The fields behind `machine` are no part of the file:
    they say where it lies (or would lie, were it no line), what it was read from, for messages, and what samples
    stand in lines. A study took a run with `files_unknown` as done though it doesn't say which files were read.
    """

    format: int
    status: Status
    error: Text = None
    method: Method
    task: Named
    model: Model
    training: Raw
    seed: int
    data_seed: int
    files: dict[str, FilesTold | None] | None = None
    shortcuts: ShownItems[Any] = []  # their spellings; of those from Python a name and a digest
    shortcuts_fitted: ShownItems[Raw] = []  # as the training rows know them
    configuration: str
    cell: str
    command: str | None  # none where the data were built in Python
    selection: str | None
    label_access: str | None
    kind: Shown[str] = None
    labels: Shown[list[Any]] = None
    loader: Shown[str] = None
    primary_test: str | None
    notes: ShownItems[str] = []
    did_nothing: Text = None  # why the run is plain ERM whatever its method is called
    data: ShownEntries[SplitTold] = {}
    metrics: Metrics | None
    tests: dict[str, Metrics] = {}
    group_sizes: ShownEntries[ShownEntries[int]] = {}
    groups_not_counted: ShownEntries[ShownItems[str]] = {}
    stages: ShownItems[StageReport] = []
    durations: Annotated[Durations, BeforeValidator(lambda value: value if isinstance(value, dict) else {})] = (
        Durations()
    )
    memory: ShownEntries[Memory] = {}
    versions: ShownEntries[Any] = {}
    commit: ShownEntries[Any] = {}
    machine: ShownEntries[Any] = {}

    raw: Raw = Field(exclude=True, repr=False)
    path: Path = Field(exclude=True)
    source: str = Field(exclude=True)
    samples: tuple[Raw, str] | None = Field(exclude=True, repr=False)
    files_unknown: bool = Field(False, exclude=True)

    @classmethod
    def read(cls, raw: Raw, path: Path, source: str = "", samples: tuple[Raw, str] | None = None) -> Record:
        """A record from its content.

        Args:
            raw: The content.
            path: Where the record lies, or would.
            source: What it was read from, if that isn't `path`.
            samples: The run's samples and what they were read from, if they are no file beside the record.

        Raises:
            UserError: If it has another format, or a field is missing or wrong; the file and the field are named.
        """
        source = source or str(path)
        if "format" in raw and (raw["format"] != FORMAT or isinstance(raw["format"], bool)):
            raise UserError(
                f"{source} has record format {shown(raw['format'])} but this version of evenhand reads format "
                f"{FORMAT}; use the version of evenhand that made the record, or repeat the run."
            )
        done = raw.get("status") == "done"
        result = {} if done else {"metrics": None, "tests": {}}
        place = {"raw": raw, "path": path, "source": source, "samples": samples, "files_unknown": False}
        made = checked(cls, raw | result | place, source)
        for name in ("selection", "label_access", "primary_test", "metrics") if done else ():
            if getattr(made, name) is None:
                expected = "an object" if name == "metrics" else "a text"
                raise wrong(name, source, expected, None)
        for name, measured in ((None, made.metrics), *made.tests.items()):
            if measured is not None:
                measured._told = raw, name
        return made.model_copy(update={"command": _command(made), "did_nothing": made.did_nothing or _idle(made)})

    @classmethod
    def load(cls, path: Path) -> Record:
        """The record in a file.

        Raises:
            UserError: If there is none, or it isn't whole.
        """
        return cls.read(read_object(path), path)

    @property
    def is_done(self) -> bool:
        """Whether it has a result."""
        return self.status == "done"

    def split(self, name: str | None) -> SplitTold:
        """What is known of a split; nothing where the record doesn't tell."""
        return self.data.get(name or "") or SplitTold()

    @property
    def digests(self) -> dict[str, str]:
        """Option → digest of the files that were read; those that are unknown are left out."""
        return {option: told.sha256 for option, told in (self.files or {}).items() if told is not None}


def _command(record: Record) -> str | None:
    """The command that repeats a run, with what older records left out as the default of their time."""
    command, settings = record.command, record.method.settings
    if command is None or record.method.name != "edge" or settings.get("signal") != "biased":
        return command
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that doesn't end
        return command
    projection, alpha = settings.get("projection"), settings.get("alpha")
    missing = []
    if "--projection" not in words and projection == "published":
        missing += ["--projection", "published"]
    if "--alpha" not in words and alpha == 1 and projection != "published":
        missing += ["--alpha", "1.0"]
    after = words.index("edge") + 1 if "edge" in words else len(words)
    return shlex.join([*words[:after], *missing, *words[after:]]) if missing else command


def _idle(record: Record) -> str | None:
    """Why the method did nothing; of records that don't say so, as the α of the stage that they end with tells."""
    asked = record.method.settings
    for stage in record.stages:
        settings = stage.method.settings if stage.name == "debiased" and stage.method else {}
        if settings.get("alpha") == 0 and not asked.get("mix"):  # no draws by scores
            unsure = "its biased models are right about as often as wrong, so "
            return f"{unsure if asked.get('alpha') == 'balanced' else ''}its α is 0"
    return None
