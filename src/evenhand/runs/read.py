"""What the report computes with of the runs on disk, and their samples."""

from __future__ import annotations

import base64
import io
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from evenhand.files import found_below, if_there
from evenhand.runs.ledger import Raw, runs_below
from evenhand.runs.record import read_object
from evenhand.runs.worst_groups import Groups, record_groups, weakest
from evenhand.validation import UserError

FORMAT = 1
STATUSES = ("done", "running", "failed", "planned", "skipped")
METRICS = ("average", "average_train_weighted", "worst_group", "aligned", "conflicting")

# What every record holds, by dotted key. The last group may be null until a run is done.
_NEEDED: tuple[tuple[str, type], ...] = (
    ("status", str),
    ("method.name", str),
    ("method.title", str),
    ("method.settings", dict),
    ("task.name", str),
    ("task.settings", dict),
    ("model.name", str),
    ("training", dict),
    ("seed", int),
    ("data_seed", int),
    ("configuration", str),
    ("cell", str),
)
_NEEDED_WHEN_DONE = (("selection", str), ("label_access", str), ("primary_test", str))
_LARGEST = 1 + 1e-9  # a weighted mean of ones may exceed 1 by a rounding
_LARGEST_SIDE = 4096  # pixels of a sample's picture
_TYPE_NAMES = {str: "a text", int: "an integer", dict: "an object"}


@dataclass(frozen=True)
class Measured:
    """What a run reached on one test set; fractions of 1, None where undefined."""

    overall: dict[str, float | None]  # one entry for each name in METRICS
    by_group: dict[str, float | None]
    groups: Groups = (None, None)  # the worst one, and the small ones together

    def value(self, metric: str) -> float | None:
        """One of METRICS, `small_groups`, or `weakest`: the worst group's or the small groups', whichever is lower."""
        small = self.groups[1]
        if metric == "small_groups":
            return small and small.accuracy
        return weakest(self.groups) if metric == "weakest" else self.overall[metric]


@dataclass(frozen=True)
class Record:
    """One run, as its record tells it. `metrics` is None unless the run is done; `path` need not be there."""

    path: Path
    status: str
    error: str | None
    method: str
    title: str
    method_settings: dict[str, Any]
    task: str
    task_settings: dict[str, Any]
    model: dict[str, Any]
    training: dict[str, Any]
    seed: int
    data_seed: int
    configuration: str
    cell: str
    command: str | None
    selection: str | None
    label_access: str | None
    primary_test: str | None
    metrics: Measured | None
    tests: dict[str, Measured]
    did_nothing: str | None  # why the run is plain ERM whatever its method is called
    raw: dict[str, Any]  # the whole record, for what is shown but not computed with
    samples: tuple[Raw, str] | None = None  # with their source, if they are no file beside `path`
    files_unknown: bool = False  # a study took it as done though it doesn't say which files were read

    @property
    def files(self) -> dict[str, str]:
        """Option → digest of the files that were read; those that are unknown are left out."""
        found = {option: told.get("sha256") for option, told in self.part("files").items() if isinstance(told, dict)}
        return {option: digest for option, digest in found.items() if isinstance(digest, str)}

    @property
    def has_samples(self) -> bool:
        """Whether the run has left samples, here or in a file of their own."""
        return self.samples is not None or self.path.with_name("samples.json").is_file()

    def part(self, *keys: str) -> dict[str, Any]:
        """An optional object within the record; empty where the record has none."""
        value: Any = self.raw
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Sample:
    """One test sample with what a run predicted for it: an image (`png`, base64) or a text.

    `broken`: it has an image that can't be shown.
    """

    index: int
    png: str | None
    text: str | None
    label: str
    attribute: str | None
    alignment: str | None
    prediction: str | None
    broken: bool = False

    @property
    def identity(self) -> tuple[object, ...]:
        """All but the prediction: runs on the same data agree on it."""
        return (self.index, self.png, self.text, self.label, self.attribute, self.alignment)


def find_records(folder: Path) -> list[Record]:
    """Read every run at or below `folder`, in the order of their paths; none where a study is only planned.

    Raises:
        UserError: If the folder is missing, holds no record, or holds one that can't be read.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; name one that holds finished runs.")
    runs = runs_below(folder)
    if not runs and not found_below(folder, "study.json"):
        raise UserError(f"{folder} holds no record.json; run 'evenhand train' or 'evenhand demo' first.")
    return [checked_record(run.raw, run.path, source=run.source, samples=run.samples) for run in runs]


def checked_record(raw: Raw, path: Path, *, source: str, samples: tuple[Raw, str] | None = None) -> Record:
    """A record from its content, with all checked that the report computes with.

    Args:
        raw: The content.
        path: Where the record lies, or would.
        source: Where the content is from, for messages.
        samples: The run's samples and their source, if they are no file beside the record.

    Raises:
        UserError: If it has another format, or lacks a needed key; the file and key are named.
    """
    number = _get(raw, "format", source)
    if number != FORMAT or isinstance(number, bool):
        raise UserError(
            f"{source} has record format {number!r} but this version of evenhand reads format {FORMAT}; "
            "write the report with the version that made the record, or repeat the run."
        )
    found = {key: _typed(raw, key, kind, source, nullable=False) for key, kind in _NEEDED}
    status = found["status"]
    if status not in STATUSES:
        raise UserError(
            f"'status' in {source} must be one of {', '.join(STATUSES)}, but is {status!r}; repeat the run."
        )
    done = status == "done"
    found |= {key: _typed(raw, key, kind, source, nullable=not done) for key, kind in _NEEDED_WHEN_DONE}
    found["command"] = _typed(raw, "command", str, source, nullable=True)  # none where the data were built in Python
    error = raw.get("error")
    tests = raw.get("tests") if done else None
    tests = tests if isinstance(tests, dict) else {}
    return Record(
        path=path,
        status=status,
        error=None if error is None else str(error),
        method=found["method.name"],
        title=found["method.title"],
        method_settings=found["method.settings"],
        task=found["task.name"],
        task_settings=found["task.settings"],
        model=raw["model"],
        training=found["training"],
        seed=found["seed"],
        data_seed=found["data_seed"],
        configuration=found["configuration"],
        cell=found["cell"],
        command=_command(found),
        selection=found["selection"],
        label_access=found["label_access"],
        primary_test=found["primary_test"],
        metrics=_metrics(raw, "metrics", source) if done else None,
        tests={name: _metrics(raw, ("tests", name), source) for name in tests},
        did_nothing=_did_nothing(raw),
        raw=raw,
        samples=samples,
    )


def _command(found: Mapping[str, Any]) -> str | None:
    """The command that repeats a run, with what older records left out as the default of their time."""
    command, settings = found["command"], found["method.settings"]
    if command is None or found["method.name"] != "edge" or settings.get("signal") != "biased":
        return command
    words = shlex.split(command)
    projection, alpha = settings.get("projection"), settings.get("alpha")
    missing = []
    if "--projection" not in words and projection == "published":
        missing += ["--projection", "published"]
    if "--alpha" not in words and alpha == 1 and projection != "published":
        missing += ["--alpha", "1.0"]
    after = words.index("edge") + 1 if "edge" in words else len(words)
    return shlex.join([*words[:after], *missing, *words[after:]]) if missing else command


def _did_nothing(raw: Mapping[str, Any]) -> str | None:
    """Why the method did nothing; of records that don't say so, as the α of the stage that they end with tells."""
    if raw.get("did_nothing") is not None:
        return str(raw["did_nothing"])
    asked = raw["method"]["settings"]
    stages = raw.get("stages")
    for stage in stages if isinstance(stages, list) else []:
        method = stage.get("method") if isinstance(stage, dict) and stage.get("name") == "debiased" else None
        settings = method.get("settings") if isinstance(method, dict) else None
        if isinstance(settings, dict) and settings.get("alpha") == 0 and not asked.get("mix"):  # no draws by scores
            unsure = (
                "its biased models are right about as often as wrong, so " if asked.get("alpha") == "balanced" else ""
            )
            return f"{unsure}its α is 0"
    return None


def read_samples(run: Record) -> list[Sample]:
    """The samples that a run has left.

    Raises:
        UserError: If it isn't JSON or lacks a needed key.
    """
    path = run.path.with_name("samples.json")
    raw, source = (if_there(read_object, path), str(path)) if run.samples is None else run.samples
    if raw is None:
        return []
    samples = _get(raw, "samples", source)
    if not isinstance(samples, list):
        raise UserError(f"'samples' in {source} must be a list; repeat the run, or delete it.")
    return [_sample(entry, source) for entry in samples]


def _sample(entry: object, source: str) -> Sample:
    if not isinstance(entry, dict):
        raise UserError(f"Every entry of 'samples' in {source} must be an object; repeat the run, or delete it.")
    index = _typed(entry, "index", int, source, nullable=False)
    png = _typed(entry, "png", str, source, nullable=True)
    broken = png is not None and not _is_png(png)
    optional = {key: None if entry.get(key) is None else str(entry[key]) for key in ("text", "attribute", "alignment")}
    prediction = _get(entry, "prediction", source)
    return Sample(
        index=index,
        png=None if broken else png,
        broken=broken,
        label=str(_get(entry, "label", source)),
        prediction=None if prediction is None else str(prediction),
        **optional,
    )


def _is_png(encoded: str) -> bool:
    """Whether it is a whole PNG of a size that a page can show."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG"]) as image:
            if max(image.size) > _LARGEST_SIDE:
                return False
            image.load()
    except Exception:  # a damaged file can fail anywhere within the decoder
        return False
    return True


def number(value: Any) -> float | None:
    """A finite number of an optional entry; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def _get(raw: Mapping[str, Any], key: str | tuple[str, ...], source: str) -> Any:
    """The value under a dotted key, or under a tuple of keys where a name may hold a dot itself."""
    value: Any = raw
    for part in key.split(".") if isinstance(key, str) else key:
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{source} lacks the key '{_dotted(key)}'; delete it or repeat its run.")
        value = value[part]
    return value


def _typed(raw: Mapping[str, Any], key: str, kind: type, source: str, *, nullable: bool) -> Any:
    value = _get(raw, key, source)
    if value is None and nullable:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        got = json.dumps(value, default=str)[:60]
        raise UserError(f"'{key}' in {source} must be {_TYPE_NAMES[kind]}, but is {got}; delete it or repeat its run.")
    return value


def _metrics(raw: Mapping[str, Any], key: str | tuple[str, ...], source: str) -> Measured:
    keys = (key,) if isinstance(key, str) else key
    overall = {name: _fraction(raw, (*keys, name), source) for name in METRICS}
    groups = _get(raw, (*keys, "by_group"), source)
    names = groups if isinstance(groups, dict) else {}
    by_group = {name: _fraction(raw, (*keys, "by_group", name), source) for name in names}
    return Measured(overall, by_group, record_groups(raw, None if isinstance(key, str) else key[1]))


def _fraction(raw: Mapping[str, Any], key: tuple[str, ...], source: str) -> float | None:
    value = _get(raw, key, source)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise UserError(
            f"'{_dotted(key)}' in {source} must be null or a fraction from 0 to 1, but is {value!r}; repeat the run."
        )
    return float(value)


def _dotted(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else ".".join(key)
