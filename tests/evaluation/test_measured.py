from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

import evenhand as eh
from evenhand.data.rows import Rows, collator_for
from evenhand.evaluation.measured import Reader, split_result
from evenhand.tasks.base import Task
from evenhand.tasks.text.splits import Classes, text_split
from evenhand.validation import UserError

NLI = ("entailment", "neutral", "contradiction")
BINARY = ("entailment", "non-entailment")
MERGED = {"entailment": "entailment", "neutral": "non-entailment", "contradiction": "non-entailment"}


def split(names: tuple[str, ...], labels: list[int]) -> Any:
    classes = Classes(names, np.array(labels))
    return text_split(pa.array([f"text {i}" for i in range(len(labels))]), classes, group=classes)


def task(merged: dict[str, dict[str, str]]) -> Task:
    return Task(
        name="merging",
        kind="text",
        train=split(NLI, [0, 1, 2]),
        validation=split(NLI, [0, 1, 2]),
        tests={"binary": split(BINARY, [0, 1, 1, 0, 1])},
        primary_test="binary",
        merged=merged,
    )


class Fixed(nn.Module):
    """Gives the logits of a row by its index."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, row: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.logits[row]}


def test_the_predicted_class_is_merged_and_not_its_probability() -> None:
    merging = task({"binary": MERGED})
    test = merging.tests["binary"]
    # in the first row neutral and contradiction have more probability together, but entailment has the most
    logits = [[1.0, 0.9, 0.9], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]]
    rows = Rows(test, ["labels", "index"])
    collate = collator_for(lambda batch: {"row": torch.from_numpy(np.ascontiguousarray(batch["index"]))})
    reader = Reader(Fixed(logits), collate, lambda split: Rows(split, ["labels", "index"]))
    result = split_result(replace(reader, counts_as_C=merging.test_classes("binary")), "binary", merging, rows)
    assert result.predicted_N.tolist() == [0, 1, 1, 1, 0]
    assert result.metrics["average"] == pytest.approx(3 / 5)
    assert result.metrics["by_group"] == {"entailment": 0.5, "non-entailment": pytest.approx(2 / 3)}
    unmerged = split_result(reader, "binary", merging, rows)
    assert unmerged.metrics["average"] == pytest.approx(2 / 5)


def test_a_run_measures_a_test_set_by_its_own_classes(tiny_task: Task, tmp_path: Path) -> None:
    parity = ["even", "odd"]
    test = tiny_task.tests["test"].remove_columns(["group", "alignment", "attribute"])
    features = test.features | {"labels": datasets.ClassLabel(names=parity)}
    by_parity = test.map(lambda row: {"labels": row["labels"] % 2}, features=datasets.Features(features))
    merging = Task(
        name="parity",
        kind="image",
        train=tiny_task.train,
        validation=tiny_task.validation,
        tests={"test": tiny_task.tests["test"], "parity": by_parity},
        primary_test="parity",
        merged={"parity": {digit: parity[int(digit) % 2] for digit in tiny_task.label_names}},
    )
    result = eh.fit(eh.ERM(), merging, "digits-cnn", epochs=1, device="cpu", output_dir=tmp_path / "run")
    samples = json.loads((tmp_path / "run" / "samples.json").read_text())["samples"]
    assert {sample[what] for sample in samples for what in ("label", "prediction")} <= set(parity)
    accuracies = {name: metrics["average"] for name, metrics in result.record["tests"].items()}
    assert accuracies["parity"] > accuracies["test"]  # a digit that is right has the right parity
    assert result.record["task"]["settings"]["merged"] == merging.merged


@pytest.mark.parametrize(
    ("merged", "message"),
    [
        ({"other": MERGED}, "has no test set 'other' whose classes could be merged"),
        ({"binary": {"entailment": "entailment"}}, "must map each of entailment, neutral, contradiction to one of"),
        ({"binary": MERGED | {"neutral": "none"}}, "to one of entailment, non-entailment. Got"),
    ],
)
def test_classes_that_cannot_be_merged(merged: dict[str, dict[str, str]], message: str) -> None:
    with pytest.raises(UserError) as caught:
        task(merged)
    assert message in str(caught.value)
