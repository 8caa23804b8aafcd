"""The card of a trained model: a README.md as the Hugging Face hub shows it, made from the run's record alone."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from evenhand.metrics import SMALLEST_COUNTED_GROUP, wilson
from evenhand.runs.by_class import apart_text, class_shares
from evenhand.runs.read import METRICS, number
from evenhand.runs.worst_groups import Groups, group_texts, interval_text, is_lower, record_groups
from evenhand.validation import named
from evenhand.wording import (
    METRIC_TITLES,
    NOTHING,
    distinct,
    markdown_table,
    markdown_text,
    percent,
    setting_value,
    settings_text,
    visible,
)

_PIPELINES = {"image": "image-classification", "text": "text-classification"}
_CLASSES = {"image": "AutoModelForImageClassification", "text": "AutoModelForSequenceClassification"}
_PROCESSORS = {"image": "AutoImageProcessor", "text": "AutoTokenizer"}
# What the tasks that come with evenhand are made from, by the name on the hub.
_DATASETS = {"colored-mnist": "ylecun/mnist", "biased-snli": "stanfordnlp/snli"}


def model_card(record: dict[str, Any]) -> str:
    """The README.md of a finished run's model.

    Args:
        record: What `record.json` holds. Keys that came after its first version may be missing.

    Returns:
        YAML front matter and Markdown. Accuracies are in percent with one decimal, "–" where undefined.
    """
    title, task = str(record["method"]["title"]), str(record["task"]["name"])
    lines = [
        f"# {markdown_text(title)} on {markdown_text(task)}",
        "",
        f"A classifier trained with {markdown_text(title)} by evenhand {_version(record)}, which trains classifiers "
        "that don't take shortcuts.",
        "",
        *_nothing(record),
        *_settings(record),
        *_data(record),
        *_results(record),
        *_limits(record),
        *_loading(record),
        *_provenance(record),
    ]
    return f"---\n{_front_matter(record)}---\n\n" + "\n".join(lines)


def _front_matter(record: dict[str, Any]) -> str:
    fields: dict[str, Any] = {"library_name": record.get("loader") or "transformers"}
    kind = record.get("kind")
    if kind in _PIPELINES:
        fields["pipeline_tag"] = _PIPELINES[kind]
    fields["tags"] = ["evenhand", "debiasing", "shortcut-learning", visible(str(record["method"]["name"]))]
    dataset = _DATASETS.get(record["task"]["name"])
    if dataset is not None:
        fields["datasets"] = [dataset]
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _nothing(record: dict[str, Any]) -> list[str]:
    """That the method did nothing, before anything else is said of it."""
    reason = record.get("did_nothing")
    if not reason:
        return []
    title = markdown_text(str(record["method"]["title"]))
    return [f"**{title} did nothing here**, so this model is one of plain training (ERM): {markdown_text(reason)}.", ""]


def _settings(record: dict[str, Any]) -> list[str]:
    method, model = record["method"], record["model"]
    rest = {key: value for key, value in model.items() if key not in ("name", "parameters")}
    parameters = number(model.get("parameters"))
    counted = "" if parameters is None else f", {int(parameters):,} trained parameters"
    model_text = _portable(str(model["name"])) + (f" ({settings_text(rest)})" if rest else "") + counted
    rows = [
        ["Method", f"{method['title']} ({settings_text(method['settings']) or 'no settings'})"],
        ["Model", model_text],
        ["Training of each stage", settings_text(record["training"])],
        ["Model selection", str(record["selection"])],
        ["Labels needed beyond the class", str(record["label_access"])],
        ["Seeds", f"{record['seed']} (initialisation and order), {record['data_seed']} (data)"],
    ]
    return ["## Training", "", *markdown_table("", ["", ""], rows, 2)]


def _data(record: dict[str, Any]) -> list[str]:
    rows = [
        [name, _count(part.get("n")), _count(part.get("conflicting"))]
        for name, part in (record.get("data") or {}).items()
    ]
    task = record["task"]
    lines = ["## Data", "", f"{markdown_text(task['name'])}: {markdown_text(settings_text(task['settings']))}", ""]
    lines += [line for note in record.get("notes") or [] for line in (markdown_text(str(note)), "")]
    lines += _files(record)
    labels = record.get("labels")
    if labels:
        lines += [f"Classes: {', '.join(markdown_text(str(label)) for label in labels)}.", ""]
    return [*lines, *markdown_table("", ["Split", "Samples", "Conflicting"], rows, 1)]


def _files(record: dict[str, Any]) -> list[str]:
    """What was read, by option."""
    lines = []
    for option, told in (record.get("files") or {}).items():
        what = f"Files of --{option.replace('_', '-')}"
        if not isinstance(told, dict):
            lines += [f"{what}: unknown (read from the hub).", ""]
            continue
        rows = [[entry["name"], _count(entry["size"]), str(entry["sha256"])[:16]] for entry in told["listed"]]
        lines += [f"{what}: {_count(told['count'])}, {_count(told['bytes'])} bytes, SHA-256 {told['sha256']}.", ""]
        lines += markdown_table("", ["File", "Bytes", "SHA-256 begins"], rows, 1)
    return lines


def _results(record: dict[str, Any]) -> list[str]:
    primary = record["primary_test"]
    tests: dict[str, Any] = record["tests"]
    names = sorted(tests, key=lambda name: name != primary)
    found = {name: record_groups(record, name) for name in names}
    small = any(is_lower(groups) for groups in found.values())
    rows = [
        [
            f"{name} (primary)" if name == primary else name,
            *(percent(tests[name][metric]) for metric in METRICS),
            *([percent(_small(found[name]))] if small else []),
        ]
        for name in names
    ]
    metrics = [*METRICS, *(["small_groups"] if small else [])]
    note = (
        "Accuracy in %. Aligned samples go with the shortcut, conflicting ones against it. The worst group is the "
        f"lowest accuracy over groups of at least {SMALLEST_COUNTED_GROUP} samples; the train-weighted average weighs "
        "each group by its share of the training data."
    )
    lines = ["## Results", "", *markdown_table(note, ["Test set", *(METRIC_TITLES[m] for m in metrics)], rows, 1)]
    lines += [line for name in names for line in _worst(name, found[name])]
    lines += [line for text in distinct([apart_text(record)]) for line in (markdown_text(text), "")]
    for name in names:
        classes = [
            [label, _count(share.n), percent(share.accuracy), interval_text(share)]
            for label, share in class_shares(tests[name]).items()
        ]
        if classes:
            lines += [f"### By class: {markdown_text(name)}", ""]
            lines += markdown_table("", ["Class", "Samples", "Accuracy (%)", "95% interval"], classes, 1)
        by_group = tests[name]["by_group"]
        if by_group:
            group_sizes = (record.get("group_sizes") or {}).get(name) or {}
            groups = [
                [group, _count(size), percent(value), _interval(value, size)]
                for group, value in by_group.items()
                for size in [group_sizes.get(group)]
            ]
            lines += [f"### By group: {markdown_text(name)}", ""]
            lines += markdown_table("", ["Group", "Samples", "Accuracy (%)", "95% interval"], groups, 1)
    return lines


def _small(groups: Groups) -> float | None:
    return groups[1] and groups[1].accuracy


def _worst(test: str, groups: Groups) -> list[str]:
    """A line on the worst group of a test set and its small ones; none where no groups are known."""
    texts = group_texts(groups, "%")
    if not texts:
        return []
    told = "; ".join(texts)
    return [f"- {markdown_text(f'{test}: {told}.')}", ""]


def _interval(value: float | None, size: Any) -> str:
    """Wilson's 95 % interval of a group's accuracy."""
    n = number(size)
    ends = wilson(value, int(n)) if n else None
    return NOTHING if ends is None else " to ".join(percent(end) for end in ends)


def _limits(record: dict[str, Any]) -> list[str]:
    small = (record.get("groups_not_counted") or {}).get(record["primary_test"]) or []
    lines = [
        "## Limits",
        "",
        "- These are the numbers of one run: another seed gives others, and a difference between two such models may "
        "be chance.",
        "- They tell of the shortcut that the test sets vary. Other shortcuts in the data are not seen by them.",
        "- Accuracy says nothing of how sure the model is, nor of inputs unlike these data.",
    ]
    if small:
        lines.append(
            f"- Too small to count as the worst group (fewer than {SMALLEST_COUNTED_GROUP} test samples): "
            f"{markdown_text(named(str(name) for name in small))}."
        )
    return [*lines, ""]


def _loading(record: dict[str, Any]) -> list[str]:
    kind = record.get("kind")
    if record.get("loader") == "transformers" and kind in _CLASSES:
        code = [
            f"from transformers import {_CLASSES[kind]}, {_PROCESSORS[kind]}",
            "",
            'folder = "."  # this folder, or its name on the hub',
            f"model = {_CLASSES[kind]}.from_pretrained(folder)",
            f"inputs = {_PROCESSORS[kind]}.from_pretrained(folder)",
        ]
    else:
        code = [
            "from evenhand.models import load_model",
            "",
            'model = load_model(".")  # this folder; reads uint8 pixel_values of shape (B, channels, height, width)',
        ]
    return ["## How to load it", "", "```python", *code, "```", ""]


def _provenance(record: dict[str, Any]) -> list[str]:
    lines = ["## How it was made", ""]
    command = record.get("command")
    if command:
        fence = "````" if "```" in command else "```"
        name = str(record["model"]["name"])
        if _portable(name) != name:
            command = command.replace(shlex.quote(name), "MODEL_DIR")
        lines += [f"{fence}sh", visible(" ".join(command.split())), fence, ""]
    else:
        lines += ["The data or settings were made in Python, so no command repeats this run.", ""]
    rows = [[name, setting_value(value)] for name, value in (record.get("versions") or {}).items()]
    commit = record.get("commit")
    if isinstance(commit, dict):
        rows.append(["commit", f"{commit.get('hash')}{' with uncommitted changes' if commit.get('dirty') else ''}"])
    rows.append(["configuration", str(record["configuration"])])
    return [*lines, *markdown_table("", ["What", "Version"], rows, 2)]


def _portable(model: str) -> str:
    """A model's name; of a folder of this machine, which means nothing elsewhere, its last part."""
    kinds = PurePosixPath(model), PureWindowsPath(model)
    is_path = model.startswith((".", "~")) or any(path.is_absolute() for path in kinds)
    return kinds[1].name if is_path else model


def _version(record: dict[str, Any]) -> str:
    return markdown_text(str((record.get("versions") or {}).get("evenhand", "of unknown version")))


def _count(value: Any) -> str:
    counted = number(value)
    return NOTHING if counted is None else f"{int(counted):,}"
