"""A method that becomes ERM says so: in the record, the notes, the card and on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evenhand as eh
from evenhand.cli import verbs as commands
from evenhand.cli.terminal import _cell_ending, _ending
from evenhand.evaluation.measured import sizes_and_chance
from evenhand.methods import Method
from evenhand.methods.base import EQUAL_WEIGHTS, OneStage
from evenhand.methods.even import UNSURE, Balanced, Drawn
from evenhand.methods.objective import WeightRange
from evenhand.methods.pgd import Weighted
from evenhand.runs.read import find_records
from evenhand.tasks import Task

P = np.array([0.2, 0.9, 0.5], dtype=np.float32)
SAME = np.full(3, 0.5, dtype=np.float32)


def run(method: Method, task: Task, folder: Path) -> eh.Result:
    return eh.fit(method, task, "digits-cnn", output_dir=folder, epochs=1, batch_size=16)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (eh.Even(), UNSURE),  # noise: the biased models are unsure
        (eh.Even(alpha=0.0), "its α is 0"),
        (eh.EDGE(alpha=0.0), "its α is 0"),
        (eh.EDGE(alpha=0.0, signal="biased"), "its α is 0"),
        (eh.Reweight(alpha=0.0), "its α is 0"),
        (eh.Focal(gamma=0.0), "its γ is 0"),
        (eh.PGD(mix=0.0), EQUAL_WEIGHTS),
        (eh.PGD(mix=0.0, stages="single"), EQUAL_WEIGHTS),
        (eh.PGD(mix=0.0, sampling="reweight"), EQUAL_WEIGHTS),
        (eh.JTT(upweight=1.0), EQUAL_WEIGHTS),
    ],
    ids=lambda value: value.name if isinstance(value, Method) else "",
)
def test_a_run_that_became_erm_says_so(method: Method, reason: str, tiny_task: Task, tmp_path: Path) -> None:
    result = run(method, tiny_task, tmp_path / "run")
    said = f"{method.title} did nothing here, so it trained as ERM does: {reason}"
    assert result.record["did_nothing"] == reason
    assert result.record["notes"][-1] == f"{said}."
    (record,) = find_records(tmp_path / "run")
    assert record.did_nothing == reason
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert f"**{method.title} did nothing here**, so this model is one of plain training (ERM): {reason}." in card
    assert said in _ending(record)
    assert "did nothing in 1 of them" in _cell_ending([record, record.model_copy(update={"did_nothing": None})])


@pytest.mark.parametrize(
    "method", [eh.ERM(), eh.GCE(), eh.EDGE(), eh.LfF(), eh.DPR(), eh.PGD(), eh.Even(alpha=1.0)], ids=lambda m: m.name
)
def test_a_run_that_did_something_does_not(method: Method, tiny_task: Task, tmp_path: Path) -> None:
    record = run(method, tiny_task, tmp_path / "run").record
    assert record["did_nothing"] is None
    assert not any("did nothing" in note for note in record["notes"])


def test_the_terminal_says_it_after_training(capsys: Any, tiny_task: Task, tmp_path: Path) -> None:
    method = eh.Reweight(alpha=0.0)
    commands._show_result(method, run(method, tiny_task, tmp_path / "run"))
    assert "Reweighting did nothing here, so it trained as ERM does: its α is 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "signal", "reason"),
    [
        (eh.Reweight(), P, None),
        (eh.Reweight(), SAME, EQUAL_WEIGHTS),
        (eh.EDGE(signal="biased"), P, None),
        (eh.EDGE(signal="biased"), SAME, EQUAL_WEIGHTS),
        (eh.EDGE(), None, None),
        (Balanced(alpha=1.0, q=0.7, mean=0.5), SAME, EQUAL_WEIGHTS),
        (Balanced(alpha=0.0, q=0.7, mean=1.0), P, UNSURE),
        (Drawn(alpha=0.0, q=0.7), None, UNSURE),
        (Weighted(samples=3), P / P.sum(), None),
        (Weighted(samples=3), SAME / SAME.sum(), EQUAL_WEIGHTS),
        (eh.Focal(), None, None),
    ],
)
def test_stages_know_it_by_their_settings_and_their_signal(method: OneStage, signal: Any, reason: str | None) -> None:
    assert method.idle_reason(signal) == reason


def test_objectives_know_it_by_the_weights_that_they_gave() -> None:
    seen = WeightRange()
    assert not seen.is_point
    seen.see(torch.full((4,), 0.5))
    seen.see(torch.full((2,), 0.5003))
    assert seen.is_point
    seen.see(torch.tensor([0.4]))
    assert not seen.is_point


def test_a_record_counts_its_samples_and_what_a_constant_answer_gets(tiny_task: Task) -> None:
    test = tiny_task.tests["test"]
    found = sizes_and_chance(test)
    label_N, alignment_N = (np.array(test[name]) for name in ("labels", "alignment"))
    names = test.features["alignment"].names
    assert (found["n"], found["classes"]) == (60, 10)
    assert found["aligned"] + found["conflicting"] == 60
    assert found["constant"]["average"] == 6 / 60
    sides = [label_N[alignment_N == names.index(side)] for side in ("aligned", "conflicting")]
    expected = max(min(float(np.mean(side == c)) for side in sides) for c in range(10))
    assert found["constant"]["both"] == pytest.approx(expected)
