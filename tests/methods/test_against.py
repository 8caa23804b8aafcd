"""Methods that train against a named shortcut, each beside a slow version of its definition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import evenhand as eh
import reference
from evenhand.methods.objective import Setting, TrainingBatch
from evenhand.shortcuts.named import TRAIN, NamedShortcuts, Rows
from evenhand.tasks import Task
from evenhand.validation import UserError
from made_shortcuts import CLASSES, tickets
from trainer_models import arguments, assert_same_bits, text_data, text_model, trained


def named(*spellings: str, conflict: float = 0.1) -> NamedShortcuts:
    samples, label_N = tickets(conflict=conflict)
    return NamedShortcuts.fit(spellings or ("column:product",), {TRAIN: Rows(samples, label_N)}, CLASSES)


def leaking(n: int = 60) -> datasets.Dataset:
    """Tokens without meaning, beside a text and a column that leak the class."""
    data = text_data(n)
    label_N = np.array(data["labels"])
    leak_N = np.where(np.arange(n) % 10 == 0, (label_N + 1) % 3, label_N)
    words = [("nimbus", "pebble", "kettle")[leak] for leak in leak_N]
    data = data.add_column("text", [f"the {word} broke" for word in words])  # pyright: ignore[reportCallIssue]
    return data.add_column("product", words)  # pyright: ignore[reportCallIssue]


@given(
    st.integers(1, 5),
    st.integers(2, 4),
    st.floats(0, 3),
    st.floats(0, 5),
    st.integers(0, 10_000),
)
def test_group_weights_are_the_released_rule(groups: int, classes: int, eta: float, adjust: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group_N = rng.integers(0, groups, 40)
    size = [int((group_N == g).sum()) for g in range(groups)]
    q = [float(n > 0) / sum(m > 0 for m in size) for n in size]
    method = eh.GroupDRO(eta=eta, adjustment=adjust)
    objective = method.objective(Setting(40, torch.from_numpy(group_N)))
    for _ in range(3):
        index = rng.choice(40, 12, replace=False)
        logits, labels = (
            torch.from_numpy(rng.normal(0, 3, (12, classes))),
            torch.from_numpy(rng.integers(0, classes, 12)),
        )
        group_B = torch.from_numpy(group_N[index])
        batch = TrainingBatch({}, labels, None, mean=torch.mean, last=True, signal_B=group_B)
        ours = float(objective.sample_losses(logits, batch).mean())
        loss_B = [-math.log(reference.probability(z, int(y))) for z, y in zip(logits, labels, strict=True)]
        mean = []
        for g in range(groups):
            own = [loss for loss, of in zip(loss_B, group_B.tolist(), strict=True) if of == g]
            mean.append(sum(own) / len(own) if own else 0.0)
        q = [w * math.exp(eta * (m + adjust / math.sqrt(max(n, 1)))) for w, m, n in zip(q, mean, size, strict=True)]
        q = [w / sum(q) for w in q]
        assert ours == pytest.approx(sum(w * m for w, m in zip(q, mean, strict=True)), rel=1e-5, abs=1e-6)
    assert objective.outcome()["group_weights"] == pytest.approx(q, rel=1e-5, abs=1e-9)


def test_group_dro_draws_all_groups_alike_and_names_those_without_a_row() -> None:
    shortcuts = named()
    found = eh.GroupDRO().guidance(shortcuts)
    assert found.signal is not None
    assert found.sampling is not None
    sums = [found.sampling[found.signal == g].sum() for g in range(len(found.told["groups"]))]
    assert sums == pytest.approx([sums[0]] * 6)
    assert len(found.told["empty_groups"]) == 3
    assert eh.GroupDRO(sampling="uniform").guidance(shortcuts).sampling is None


def test_logit_correction_adds_what_the_value_says_and_predicts_without() -> None:
    shortcuts = named("column:product", "token:nimbus")
    signal = eh.LogitCorrection().guidance(shortcuts).signal
    assert signal is not None
    label_N, product_N = shortcuts.train_labels, np.stack(shortcuts.train_values)
    logits = torch.randn(5, 3)
    ours = eh.LogitCorrection().sample_losses(logits, torch.from_numpy(label_N[:5]), torch.from_numpy(signal[:5]))
    for i in range(5):
        alike = (product_N == product_N[:, [i]]).all(axis=0)
        p = [((label_N[alike] == c).sum() + 1) / (alike.sum() + 3) for c in range(3)]
        prior = [((label_N == c).sum() + 1) / (len(label_N) + 3) for c in range(3)]
        corrected = torch.tensor([float(logits[i, c]) + math.log(p[c]) - math.log(prior[c]) for c in range(3)])
        assert float(ours[i]) == pytest.approx(-math.log(reference.probability(corrected, int(label_N[i]))), rel=1e-4)


def test_biased_models_correct_what_they_did_not_see(tiny_task: Task, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 1e-3}
    method = eh.LogitCorrection(bias="model")
    with pytest.raises(UserError, match="only for a model that starts from a checkpoint"):
        eh.fit(method, tiny_task, "digits-cnn", output_dir=tmp_path / "fresh", **settings)
    assert not (tmp_path / "fresh").exists()
    eh.fit(eh.ERM(), tiny_task, "digits-cnn", output_dir=tmp_path / "erm", **settings)
    found = eh.fit(method, tiny_task, str(tmp_path / "erm" / "model"), output_dir=tmp_path / "run", **settings)
    assert found.record["label_access"].startswith("none")
    stages = tmp_path / "run" / "stages"
    log_NC = [np.load(stages / f"log-probabilities-{k}" / f"log-probabilities-{k}.npy") for k in (1, 2)]
    assert np.exp(log_NC[0]).sum(axis=1) == pytest.approx(np.ones(96), rel=1e-4)
    trained_stages = [stage["name"] for stage in found.record["stages"] if "steps" in stage]
    assert trained_stages == ["biased-1", "biased-2", "debiased"]


def test_edge_with_the_shortcuts_signal_is_reweighting_by_the_share_of_the_class() -> None:
    method = eh.EDGE(signal="shortcut")
    assert (method.alpha, method.projection, method.models_trained()) == (1.4, "reweight", 1)
    assert eh.EDGE(signal="shortcut", q=1.0).alpha == 1.0
    shortcuts = named()
    signal = method.guidance(shortcuts).signal
    assert signal is not None
    values, labels = shortcuts.train_values[0], shortcuts.train_labels
    alike = values == values[0]
    assert signal[0] == pytest.approx(((labels[alike] == labels[0]).sum() + 1) / (alike.sum() + 3))


def test_a_perfect_leak_and_a_value_that_points_nowhere_are_refused() -> None:
    perfect, idle = named(conflict=0.0), named("column:noise")
    for method in (eh.Balance(), eh.GroupDRO(), eh.LogitCorrection(), eh.EDGE(signal="shortcut")):
        with pytest.raises(UserError, match="collect rows that go against it"):
            method.check_shortcuts(perfect)
        with pytest.raises(UserError, match=r"^No value of 'column:noise' points to a class"):
            method.check_shortcuts(idle)
    eh.LogitCorrection(bias="model").check_shortcuts(None)


# ---- in the Trainer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [["token:nimbus|pebble|kettle"], ["column:product"]])
def test_the_trainer_draws_by_the_weights_of_the_names(given: list[str], tmp_path: Path) -> None:
    data = leaking()
    options = {"method": eh.Balance(), "shortcuts": given}
    ours = trained(tmp_path, text_model(), data, trainer=options)
    shortcuts = eh.Trainer(text_model(), arguments(tmp_path), train_dataset=data, **options).shortcuts  # type: ignore[arg-type]
    assert shortcuts is not None
    by_hand = {"method": eh.ERM(), "sampling": shortcuts.balancing_weights()}
    assert_same_bits(ours, trained(tmp_path, text_model(), data, trainer=by_hand))


@pytest.mark.parametrize(
    "method", [eh.Balance(sampling="reweight"), eh.GroupDRO(), eh.LogitCorrection(), eh.EDGE(signal="shortcut")]
)
def test_the_trainer_gives_methods_their_signal_also_by_index(method: Any, tmp_path: Path) -> None:
    data = leaking()
    spread = data.add_column("index", list(range(7, 607, 10)))  # pyright: ignore[reportCallIssue]
    one, other = (
        trained(tmp_path, text_model(), rows, trainer={"method": method, "shortcuts": ["column:product"]})
        for rows in (data, spread)
    )
    assert_same_bits(one, other)
    plain = trained(tmp_path, text_model(), data)
    assert any(not torch.equal(one[name], p) for name, p in plain.items())


def test_group_dro_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    options = {"method": eh.GroupDRO(eta=1.0), "shortcuts": ["column:product"]}
    settings = {"save_strategy": "epoch"}
    whole = eh.Trainer(text_model(), arguments(tmp_path / "a", **settings), train_dataset=leaking(), **options)  # type: ignore[arg-type]
    whole.train()
    resumed = eh.Trainer(text_model(), arguments(tmp_path / "a", **settings), train_dataset=leaking(), **options)  # type: ignore[arg-type]
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-8"))
    assert whole.objective is not None
    assert resumed.objective is not None
    assert resumed.objective.outcome() == whole.objective.outcome()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a shortcut's name"),
        ({"shortcuts": ["column:colour"]}, "has no column 'colour'"),
        ({"shortcuts": ["column:input_ids"]}, "is what the model receives"),
        ({"shortcuts": ["brightness"]}, "holds no pictures"),
        ({"shortcuts": ["column:product"], "sampling": np.ones(60)}, "leave signal_probs and sampling out"),
    ],
)
def test_what_the_trainer_cannot_tell_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        eh.Trainer(text_model(), arguments(tmp_path), train_dataset=leaking(), method=eh.Balance(), **options)


def test_groups_are_integers_and_corrections_have_a_value_a_class(tmp_path: Path) -> None:
    for method, signal, message in (
        (eh.GroupDRO(), np.ones(60), "must be integers"),
        (eh.LogitCorrection(), np.zeros(60), r"must have shape \(60, 3\)"),
        (eh.LogitCorrection(), np.full((60, 3), np.inf), "must be finite"),
        (eh.Balance(sampling="reweight"), -np.ones(60), "be finite and not negative"),
    ):
        with pytest.raises(UserError, match=message):
            eh.Trainer(text_model(), arguments(tmp_path), train_dataset=leaking(), method=method, signal_probs=signal)
