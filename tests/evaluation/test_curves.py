"""Validation curves: what they hold, and that nothing changes by measuring them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import evenhand as eh
from conftest import make_task
from evenhand.data.columns import membership
from evenhand.data.rows import Rows
from evenhand.evaluation.curves import MOST_POINTS, SERIES, Curve, ValidationMeasures, ValidationRows, chosen_rows
from evenhand.evaluation.progress import Measurement
from evenhand.metrics import SMALLEST_COUNTED_GROUP
from evenhand.tasks import Task
from evenhand.training.stage import untouched_surroundings

QUICK: dict[str, Any] = {"model": "digits-cnn", "epochs": 2, "batch_size": 16, "device": "cpu"}


class Told:
    def __init__(self) -> None:
        self.epochs: list[Measurement] = []

    def stage(self, name: str, done: int, total: int) -> None:
        pass

    def measured(self, measurement: Measurement) -> None:
        self.epochs.append(measurement)


@pytest.mark.parametrize("method", [eh.ERM(), eh.EDGE(), eh.PGD(augment=True), eh.LfF()], ids=lambda m: m.name)
def test_a_run_is_the_same_bit_for_bit_without_curves(
    method: Any, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = eh.fit(method, tiny_task, output_dir=tmp_path / "watched", **QUICK)
    monkeypatch.setattr(Curve, "after_epoch", lambda *_: None)
    alone = eh.fit(method, tiny_task, output_dir=tmp_path / "alone", **QUICK)
    assert any("curve" in stage for stage in watched.record["stages"])
    assert not any("curve" in stage for stage in alone.record["stages"])
    assert watched.record["tests"] == alone.record["tests"]
    for (name, ours), theirs in zip(watched.model.state_dict().items(), alone.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_the_last_point_is_the_final_model_on_the_validation_split(tiny_task: Task, tmp_path: Path) -> None:
    told = Told()
    result = eh.fit(eh.PGD(), tiny_task, output_dir=tmp_path / "run", progress=told, **QUICK)
    curve = result.record["stages"][-1]["curve"]
    expected = result.record["tests"]["validation"]
    for name in ("average", "aligned", "conflicting"):
        assert curve[name][-1] == pytest.approx(expected[name], abs=1e-4)
    assert (curve["split"], curve["rows"], curve["sampled"], curve["epoch"]) == ("validation", 24, False, [1, 2])
    assert "by_group" not in curve  # twenty groups would make records large
    assert [(m.stage, m.epoch, m.epochs) for m in told.epochs] == [
        (stage, epoch, 2) for stage in ("biased", "debiased") for epoch in (1, 2)
    ]
    losses = [loss for stage in result.record["stages"] for loss in stage.get("losses", [])]
    assert [m.train_loss for m in told.epochs] == pytest.approx(losses)


def test_measuring_draws_no_random_numbers(tiny_task: Task) -> None:
    rows = ValidationRows(tiny_task.validation, pixel_rows(tiny_task), collate, 96, 8)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with untouched_surroundings():
        rows.measure(Constant(10))
    assert torch.equal(torch.rand(3), expected)


def pixel_rows(task: Task) -> Rows:
    return Rows(task.validation, ["pixel_values", "labels"])


def collate(rows: Any) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in rows.items()}


class Constant(nn.Module):
    """Always class 0; a NaN if asked, as of a model that has diverged."""

    def __init__(self, classes: int, value: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.classes, self.value = classes, value

    def forward(self, pixel_values: torch.Tensor) -> Any:
        logits = torch.zeros(len(pixel_values), self.classes)
        logits[:, 0] = self.value
        return SimpleNamespace(logits=logits)


def test_a_sample_of_the_rows_estimates_the_whole_split() -> None:
    task = make_task(validation=4000)
    rows = ValidationRows(task.validation, pixel_rows(task), collate, 10_000, 256)
    assert rows.is_sample
    assert len(rows.row_M) <= 1000
    values = rows.measure(Constant(10)).values
    assert values["average"] == pytest.approx(0.1, abs=1e-4)  # weighted by the groups' sizes, so exactly
    assert values["worst_group"] == 0
    loss = -math.log(math.e / (math.e + 9)) * 0.1 - math.log(1 / (math.e + 9)) * 0.9
    assert values["loss"] == pytest.approx(loss, abs=1e-3)


def test_what_is_not_finite_is_no_number(tiny_task: Task) -> None:
    rows = ValidationRows(tiny_task.validation, pixel_rows(tiny_task), collate, 96, 8)
    assert rows.measure(Constant(10, math.nan)).values["loss"] is None


@pytest.mark.parametrize("epochs", [1, 7, 20, 21, 45, 300])
def test_a_long_stage_has_few_points_and_its_last_epoch(epochs: int) -> None:
    class Still:
        row_M = np.arange(3)
        is_sample = False

        def measure(self, model: nn.Module) -> Any:
            return ValidationMeasures(dict.fromkeys(SERIES, 0.5), {"a": 1.0})

    told = Told()
    curve = Curve("s", Still(), epochs, told)  # type: ignore[arg-type]
    for epoch in range(1, epochs + 1):
        curve.after_epoch(nn.Identity(), epoch, 0.1)
    kept = curve.as_dict()
    assert kept is not None
    assert len(kept["epoch"]) <= MOST_POINTS
    assert len(kept["epoch"]) >= min(epochs, MOST_POINTS // 2)
    assert kept["epoch"][-1] == epochs
    assert len(kept["by_group"]["a"]) == len(kept["average"]) == len(kept["epoch"])
    assert len(told.epochs) == epochs


@given(st.lists(st.integers(0, 6), min_size=1, max_size=400), st.integers(1, 300))
def test_chosen_rows_stand_for_all(strata: list[int], most: int) -> None:
    stratum_N = np.array(strata)
    row_M, weight_M = chosen_rows(stratum_N, most)
    assert len(set(row_M.tolist())) == len(row_M)
    assert (np.diff(row_M) > 0).all()
    assert weight_M.sum() == pytest.approx(len(strata))
    for name in set(strata):
        size, chosen = (stratum_N == name).sum(), (stratum_N[row_M] == name).sum()
        assert chosen >= min(size, SMALLEST_COUNTED_GROUP, most if len(strata) <= most else size)
        assert weight_M[stratum_N[row_M] == name].sum() == pytest.approx(size)


@pytest.mark.parametrize("group", ["missing", "overlapping"])
def test_rows_of_no_group_or_of_several_are_measured_too(group: str) -> None:
    task = make_task(train=96, validation=400)
    columns = task.validation
    if group == "missing":
        named = [None if i % 3 else 0 for i in range(len(columns))]
        feature: Any = datasets.ClassLabel(names=["odd one out"])
    else:
        named = [[0, 1] if i % 3 else [] for i in range(len(columns))]
        feature = datasets.List(datasets.ClassLabel(names=["a", "b"]))
    split = columns.remove_columns("group").add_column("group", named, feature=feature)  # type: ignore[arg-type]
    measured = ValidationRows(split, pixel_rows(task), collate, 96, 32)
    assert measured.is_sample
    assert measured.weight_M.sum() == pytest.approx(len(split))
    chosen = membership(split, "group")
    assert measured.known.groups.keys() == chosen.keys()
    assert sum(member_M.sum() for member_M in measured.known.groups.values()) > 0
