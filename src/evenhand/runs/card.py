"""The card of a trained model: a README.md as the Hugging Face hub shows it, made from the run's record alone."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from evenhand.metrics import SMALLEST_COUNTED_GROUP, wilson
from evenhand.runs.by_class import apart_text, class_shares
from evenhand.runs.by_shortcut import quoted, shortcut_lines, shortcut_names
from evenhand.runs.record import METRICS
from evenhand.runs.schema import number
from evenhand.runs.worst_groups import group_texts, interval_text, is_lower, record_groups
from evenhand.validation import named
from evenhand.wording import (
    METRIC_TITLES,
    NOTHING,
    markdown_table,
    markdown_text,
    percent,
    setting_value,
    settings_text,
    visible,
)

# How the hub calls what a model does, and the classes of transformers that load it.
_KINDS = {
    "image": ("image-classification", "AutoModelForImageClassification", "AutoImageProcessor"),
    "text": ("text-classification", "AutoModelForSequenceClassification", "AutoTokenizer"),
}
# What the tasks that come with evenhand are made from, by the name on the hub.
_DATASETS = {"colored-mnist": "ylecun/mnist", "biased-snli": "stanfordnlp/snli"}


def model_card(record: dict[str, Any]) -> str:
    """The README.md of a finished run's model.

    Args:
        record: What `record.json` holds. Keys that came after its first version may be missing.

    Returns:
        YAML front matter with the metrics as the hub shows them, and Markdown. Accuracies are in percent with one
        decimal, "–" where undefined.
    """
    environment = Environment(
        loader=PackageLoader("evenhand.runs", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"text": lambda value: markdown_text(str(value)), "count": _count}
    _, auto_class, processor = _KINDS.get(record.get("kind", ""), ("", None, None))
    small = (record.get("groups_not_counted") or {}).get(record["primary_test"]) or []
    optional = {key: record.get(key) or {} for key in ("notes", "files", "versions", "labels", "did_nothing")}
    body = environment.get_template("card.md.j2").render(
        **optional,
        **{key: record[key] for key in ("method", "task")},
        **_results(record),
        table=lambda *parts: "\n".join(markdown_table(*parts)),
        settings_text=settings_text,
        training_rows=_training_rows(record),
        file_rows=lambda told: [[e["name"], _count(e["size"]), str(e["sha256"])[:16]] for e in told["listed"]],
        data_rows=[
            [name, _count(part.get("n")), _count(part.get("conflicting"))]
            for name, part in (record.get("data") or {}).items()
        ],
        shortcuts=[quoted(name) for name in shortcut_names(record)],
        smallest=SMALLEST_COUNTED_GROUP,
        small=named(str(name) for name in small),
        auto_class=auto_class if record.get("loader") == "transformers" else None,
        processor=processor,
        command=_command(record),
        version_rows=_version_rows(record),
    )
    return f"---\n{_front_matter(record).to_yaml()}\n---\n\n{body}"


def _front_matter(record: dict[str, Any]) -> ModelCardData:
    method, task = record["method"], record["task"]["name"]
    pipeline = _KINDS.get(record.get("kind", ""), (None,))[0]
    results = [
        EvalResult(
            task_type=pipeline or "classification",
            dataset_type=_DATASETS.get(task, _line(task)),
            dataset_name=_line(task),
            dataset_split=_line(test),
            metric_type="accuracy",
            metric_name=f"Accuracy, {METRIC_TITLES[metric].lower()}",
            metric_value=found[metric],
        )
        for test, found in record["tests"].items()
        for metric in METRICS
        if number(found[metric]) is not None
    ]
    return ModelCardData(
        library_name=record.get("loader") or "transformers",
        pipeline_tag=pipeline,
        tags=["evenhand", "debiasing", "shortcut-learning", visible(str(method["name"]))],
        datasets=[_DATASETS[task]] if task in _DATASETS else None,
        model_name=_line(f"{method['title']} on {task}"),
        eval_results=results,
    )


def _training_rows(record: dict[str, Any]) -> list[list[str]]:
    method, model = record["method"], record["model"]
    rest = {key: value for key, value in model.items() if key not in ("name", "parameters")}
    parameters = number(model.get("parameters"))
    counted = "" if parameters is None else f", {int(parameters):,} trained parameters"
    return [
        ["Method", f"{method['title']} ({settings_text(method['settings']) or 'no settings'})"],
        ["Model", _portable(str(model["name"])) + (f" ({settings_text(rest)})" if rest else "") + counted],
        ["Training of each stage", settings_text(record["training"])],
        ["Model selection", str(record["selection"])],
        ["Labels needed beyond the class", str(record["label_access"])],
        ["Seeds", f"{record['seed']} (initialisation and order), {record['data_seed']} (data)"],
    ]


def _results(record: dict[str, Any]) -> dict[str, Any]:
    """The rows of the tables of results, the primary test first."""
    primary, tests = record["primary_test"], record["tests"]
    names = sorted(tests, key=lambda name: name != primary)
    found = {name: record_groups(record, name) for name in names}
    small = any(is_lower(groups) for groups in found.values())
    rows = [
        [
            f"{name} (primary)" if name == primary else name,
            *(percent(tests[name][metric]) for metric in METRICS),
            *([percent(groups[1] and groups[1].accuracy)] if small else []),
        ]
        for name, groups in found.items()
    ]
    sizes = {name: (record.get("group_sizes") or {}).get(name) or {} for name in names}
    return {
        "result_head": ["Test set", *(METRIC_TITLES[m] for m in [*METRICS, *(["small_groups"] if small else [])])],
        "result_rows": rows,
        "worst_lines": [
            f"{name}: {'; '.join(texts)}." for name, groups in found.items() if (texts := group_texts(groups, "%"))
        ],
        "apart": apart_text(record),
        "shortcut_lines": {name: lines for name in names if (lines := shortcut_lines(tests[name]))},
        "class_rows": {
            name: [
                [label, _count(share.n), percent(share.accuracy), interval_text(share)]
                for label, share in classes.items()
            ]
            for name in names
            if (classes := class_shares(tests[name]))
        },
        "group_rows": {
            name: [
                [group, _count(sizes[name].get(group)), percent(value), _interval(value, sizes[name].get(group))]
                for group, value in tests[name]["by_group"].items()
            ]
            for name in names
            if tests[name]["by_group"]
        },
    }


def _interval(value: float | None, size: Any) -> str:
    """Wilson's 95 % interval of a group's accuracy."""
    n = number(size)
    ends = wilson(value, int(n)) if n else None
    return NOTHING if ends is None else " to ".join(percent(end) for end in ends)


def _command(record: dict[str, Any]) -> str | None:
    command, name = record.get("command"), str(record["model"]["name"])
    if command and _portable(name) != name:
        command = command.replace(shlex.quote(name), "MODEL_DIR")
    return command and _line(command)


def _version_rows(record: dict[str, Any]) -> list[list[str]]:
    rows = [[name, setting_value(value)] for name, value in (record.get("versions") or {}).items()]
    commit = record.get("commit")
    if isinstance(commit, dict):
        rows.append(["commit", f"{commit.get('hash')}{' with uncommitted changes' if commit.get('dirty') else ''}"])
    return [*rows, ["configuration", str(record["configuration"])]]


def _portable(model: str) -> str:
    """A model's name; of a folder of this machine, which means nothing elsewhere, its last part."""
    kinds = PurePosixPath(model), PureWindowsPath(model)
    is_path = model.startswith((".", "~")) or any(path.is_absolute() for path in kinds)
    return kinds[1].name if is_path else model


def _line(text: str) -> str:
    return visible(" ".join(text.split()))


def _count(value: Any) -> str:
    counted = number(value)
    return NOTHING if counted is None else f"{int(counted):,}"
