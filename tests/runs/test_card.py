"""Model cards: the hub reads them, and their numbers are the record's."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

import evenhand as eh
from evenhand.metrics import wilson
from evenhand.runs.card import model_card
from evenhand.runs.record import METRICS
from evenhand.tasks import Task
from evenhand.wording import METRIC_TITLES
from report_records import metrics, record


def tables(text: str) -> dict[str, list[str]]:
    """The cells of every row of the Markdown tables, by the first one; later tables win."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_the_card_beside_the_weights_holds_the_records_numbers(tiny_task: Task, tmp_path: Path) -> None:
    run = eh.fit(eh.PGD(), tiny_task, "digits-cnn", output_dir=tmp_path / "run", epochs=1, batch_size=16, device="cpu")
    card = ModelCard.load(tmp_path / "run/model/README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("evenhand", "image-classification")
    assert "pgd" in data["tags"]
    assert "license" not in data
    record = json.loads((tmp_path / "run/record.json").read_text(encoding="utf-8"))
    assert card.content == model_card(record)
    shown_by_the_hub = {(r.dataset_split, r.metric_name): r.metric_value for r in card.data.eval_results or []}
    assert card.data.model_name == "PGD on noise"
    for test, found in record["tests"].items():
        for metric in METRICS:
            told = shown_by_the_hub.get((test, f"Accuracy, {METRIC_TITLES[metric].lower()}"))
            assert told == found[metric]  # none of what is undefined
    rows = tables(card.text)
    for name, shown in (("test (primary)", "test"), ("validation", "validation")):
        values = [run.record["tests"][shown][metric] for metric in METRICS]
        values.append(run.record["tests"][shown]["small_groups"]["accuracy"])  # of this task all groups are small
        assert rows[name] == ["–" if value is None else f"{100 * value:.1f}" for value in values]
    primary = card.text.split("### By group: test\n")[1].split("###")[0]
    for group, value in run.metrics["by_group"].items():
        expected = "–" if value is None else f"{100 * value:.1f}"
        size = record["group_sizes"]["test"][group]
        ends = wilson(value, size)
        shown = "–" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
        assert tables(primary)[group] == [str(size), expected, shown]
    assert "from evenhand.models import load_model" in card.text
    assert "no command repeats this run" in card.text  # the task was built in Python


def test_a_checkpoint_is_loaded_with_transformers_alone() -> None:
    text = model_card(record(kind="text", loader="transformers", labels=["yes", "no"]))
    assert "AutoModelForSequenceClassification.from_pretrained(folder)" in text
    assert "AutoTokenizer.from_pretrained(folder)" in text
    assert "Classes: yes, no." in text
    assert yaml.safe_load(text.split("---")[1])["pipeline_tag"] == "text-classification"
    assert "evenhand train erm --task colored-digits --conflict 0.02 --seed 0" in text
    assert "none (groups are used for evaluation only)" in text


def test_a_record_of_before_has_a_card() -> None:
    old = record()
    for key in ("versions", "commit", "data", "group_sizes", "groups_not_counted", "stages", "durations", "memory"):
        del old[key]
    assert "| test (primary) | 44.0 | 99.0 | 44.0 | 99.0 | 44.0 |" in model_card(old)


@pytest.mark.parametrize("folder", ["/home/me/my bert", "./my bert", "C:\\me\\my bert"])
def test_a_folder_of_this_machine_is_in_no_card(folder: str) -> None:
    command = f"evenhand train erm --model {shlex.quote(folder)} --seed 0"
    text = model_card(record(model={"name": folder}, command=command))
    assert folder not in text
    assert "| Model | my bert |" in text
    assert "evenhand train erm --model MODEL_DIR --seed 0" in text
    assert "| Model | org/bert |" in model_card(record(model={"name": "org/bert"}))


@pytest.mark.parametrize(
    "name",
    [
        "a: {b}",
        "a\n---\nb",
        "{{ a }} {% b %}",
        "- 'a",
        "a | b",
        "<script>x</script>",
        "# not *a* heading\n\nnext",
        "[x](y) `z` ---",
        "\u202e",
    ],
)
def test_names_of_users_are_text(name: str) -> None:
    entry: dict[str, Any] = record("erm", title=name, settings={name: name})
    measured = metrics(0.9, 0.4) | {"by_group": {name: 0.5}}
    entry |= {"metrics": measured, "tests": {name: measured}, "primary_test": name, "labels": [name], "notes": [name]}
    entry["method"]["name"] = name
    text = model_card(entry)
    assert "\u202e" not in text
    head, body = text.split("\n---\n", 1)
    assert "<script>" not in body
    data = yaml.safe_load(head.removeprefix("---\n"))
    assert data["tags"][-1] == name.replace("\u202e", "\ufffd")
    line = " ".join(data["tags"][-1].split())
    (model,) = data["model-index"]
    assert model["name"] == f"{line} on colored-digits"
    assert [result["dataset"]["split"] for result in model["results"]] == [line]
    assert ModelCard(text).data.to_dict() == data  # as the hub reads it
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert len([line for line in headings if line.startswith("# ")]) == 1
    widths = [line.replace("\\|", "").count("|") for line in body.splitlines() if line.startswith("|")]
    assert set(widths) <= {3, 4, 5, 7}  # no name opens another column
