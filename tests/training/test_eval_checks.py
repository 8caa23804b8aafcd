"""What evenhand.Trainer refuses of evaluation sets before the first step, and what it takes as a label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

import evenhand as eh
from evenhand.losses import as_classes
from grouped_data import grouped
from trainer_models import CLASSES, arguments, image_model, text_data, text_model

EVERY_EPOCH = {"eval_strategy": "epoch", "num_train_epochs": 1}


def relabelled(values: Any, feature: Any = None, n: int = 24) -> Any:
    return text_data(n).remove_columns("labels").add_column("labels", values, feature=feature)  # type: ignore[call-arg]


def start(folder: Path, evaluated: Any, train: Any = None, **changes: Any) -> None:
    settings = EVERY_EPOCH | changes
    trainer = eh.Trainer(
        text_model(),
        arguments(folder, **settings),
        train_dataset=text_data(24) if train is None else train,
        eval_dataset=evaluated,
        method=eh.EDGE(),
    )
    trainer.train()


BAD_LABELS: list[Any] = [
    ([0, 1, 2, -1] * 6, r"Got -1 for sample 3 in the evaluation set.* \(6 such samples\)"),
    ([0, 1, 2, 3] * 6, "Labels must lie in 0…2 .* Got 3 for sample 3 in the evaluation set"),
    ([0.5] * 24, "regression is refused. Got float32 in the evaluation set"),
    (["a"] * 24, "Labels must be integers, .* Got 'a' first in the evaluation set"),
    ([None, *[1.0] * 23], "none missing. Got 'nan' first in the evaluation set"),
    ([[0, 1]] * 24, "multi-label data .* refused in the evaluation set"),
    ([-100] * 24, "All 24 labels of the evaluation set.* are -100: there is nothing to measure"),
]


@pytest.mark.parametrize(("values", "message"), BAD_LABELS)
@pytest.mark.parametrize("form", ["one", "several", "streaming"])
def test_labels_of_evaluation_sets(values: list[Any], message: str, form: str, tmp_path: Path) -> None:
    data = relabelled(values)
    if form == "streaming":
        if values[0] == 0:
            values = values[3:]  # the first row is looked at
        data = relabelled(values, n=len(values)).to_iterable_dataset()
        message = message.replace("24", "1").replace("sample 3", "sample 0").replace("6 such samples", "1 such samples")
    sets = {"one": text_data(24), "two": data} if form == "several" else data
    with pytest.raises(eh.UserError, match=message):
        start(tmp_path, sets)
    assert not list(tmp_path.iterdir())


def test_names_columns_and_groups_of_evaluation_sets(tmp_path: Path) -> None:
    ours = relabelled([0, 1, 2] * 8, datasets.ClassLabel(names=["a", "b", "c"]))
    theirs = relabelled([0, 1, 2] * 8, datasets.ClassLabel(names=["b", "a", "c"]))
    for data, train, message in (
        (theirs, ours, "calls a class 'b' that the training set calls 'a'"),
        (text_data(24).remove_columns("labels"), None, "evaluation set has no 'labels' column"),
        (text_data(24).remove_columns("input_ids"), None, "evaluation set has no 'input_ids' column"),
        (text_data(24).select([]), None, "The evaluation set is empty"),
        (text_data(24).add_column("group", ["x", "y"] * 12), None, "column 'group' of string.*class_encode_column"),  # type: ignore[call-arg]
        (text_data(24).add_column("group", [0, 1] * 12), None, "column 'group' of int64.*class_encode_column"),  # type: ignore[call-arg]
        (text_data(24).add_column("alignment", ["aligned"] * 24), None, "column 'alignment' of string"),  # type: ignore[call-arg]
        (text_data(24).add_column("group", [["x"]] * 24), None, "column 'group' of string"),  # type: ignore[call-arg]
    ):
        with pytest.raises(eh.UserError, match=message):
            start(tmp_path, data, train)
    start(tmp_path, text_data(24).remove_columns("labels"), eval_strategy="no")  # no evaluation, no fault


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("accuracy_nobody", "defines no such accuracy"),
        ("eval_accuracy", "has neither a column 'group' nor 'alignment'"),
        ("worst_group", "has neither a column 'group' nor 'alignment'"),
    ],
)
def test_a_best_metric_that_no_evaluation_gives(metric: str, message: str, tmp_path: Path) -> None:
    best = {"metric_for_best_model": metric, "save_strategy": "epoch", "load_best_model_at_end": True}
    data = grouped() if "nobody" in metric else text_data(24)
    with pytest.raises(eh.UserError, match=message):
        start(tmp_path, data, **best)
    if metric == "worst_group":
        with pytest.raises(eh.UserError, match=r"must be that of one evaluation set: one_worst_group, two_worst_group"):
            start(tmp_path, {"one": grouped(), "two": grouped()}, **best)


class Items(Dataset[Any]):
    def __init__(self, label: Any) -> None:
        self.label = label

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"pixel_values": torch.ones(3, 8, 8) * row, "labels": self.label}


def test_labels_that_only_batches_show_are_named(tmp_path: Path) -> None:
    trainer = eh.Trainer(image_model(), arguments(tmp_path), eval_dataset=Items(-1))
    for look in (trainer.evaluate, lambda: trainer.predict(Items(-1))):  # type: ignore[arg-type]
        with pytest.raises(eh.UserError, match="Got -1 in an evaluation batch"):
            look()


WHOLE: list[Any] = [
    ("bool", [True, False]),
    ("int8", [1, 0]),
    ("float64", [1.0, 0.0]),
]


@pytest.mark.parametrize(("dtype", "values"), WHOLE)
def test_booleans_small_integers_and_whole_floats_are_labels(dtype: str, values: Any, tmp_path: Path) -> None:
    plain, given_as = relabelled([1, 0] * 12), relabelled(values * 12).cast_column("labels", datasets.Value(dtype))
    losses = []
    for data in (plain, given_as):
        trainer = eh.Trainer(
            text_model(0.0), arguments(tmp_path), train_dataset=data, eval_dataset=data, method=eh.EDGE()
        )
        losses.append((trainer.train().training_loss, trainer.evaluate()["eval_loss"]))
    assert losses[1] == losses[0]


@pytest.mark.parametrize(
    "label", [True, np.int8(1), np.float32(1), torch.tensor(1, dtype=torch.int32), torch.tensor(1.0)]
)
def test_labels_of_plain_data_sets_norms_and_loops(label: Any, tmp_path: Path) -> None:
    eh.Trainer(image_model(), arguments(tmp_path), train_dataset=Items(label), method=eh.ERM()).train()
    model = image_model()
    np.testing.assert_array_equal(eh.gradient_norms(model, Items(label)), eh.gradient_norms(model, Items(1)))
    labels = torch.stack([torch.as_tensor(label)] * 8)
    with eh.EDGE().attach(model) as edge:
        found = edge.backward(model(torch.rand(8, 3, 8, 8)).logits, labels)
    assert found.isfinite()


@given(st.lists(st.integers(-100, 1000), min_size=1), st.sampled_from([torch.int16, torch.int32, torch.float64]))
@settings(max_examples=30, deadline=None)
def test_whole_numbers_keep_their_value(values: list[int], dtype: torch.dtype) -> None:
    found = as_classes(torch.tensor(values, dtype=dtype))
    assert found.dtype == torch.long
    assert found.tolist() == values


def test_fractions_stay_and_so_are_refused() -> None:
    for value in (0.5, float("nan")):
        assert as_classes(torch.tensor([1.0, value])).is_floating_point()
    with pytest.raises(eh.UserError, match="one class a sample"):
        eh.gradient_norms(image_model(), Items(0.5))


def test_half_precision_weights_are_the_users_but_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    eh.Trainer(text_model().bfloat16(), arguments(tmp_path), train_dataset=text_data(24))
    assert "The model's weights are bfloat16 and are trained so, in which small steps round to nothing" in caplog.text
    caplog.clear()
    frozen = text_model().half()
    frozen.requires_grad_(False)
    frozen.classifier.float().requires_grad_(True)
    eh.Trainer(frozen, arguments(tmp_path), train_dataset=text_data(24))
    assert "small steps" not in caplog.text
    assert frozen.config.num_labels == CLASSES
