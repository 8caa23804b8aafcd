from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import evenhand as eh
from evenhand.data.columns import membership
from evenhand.metrics import group_metrics, group_shares, wilson
from evenhand.shortcuts import Samples
from evenhand.shortcuts.named import NamedShortcuts, Rows
from evenhand.shortcuts.sides import Sides
from grouped_data import by_group, grouped, trainer_of
from trainer_models import CLASSES, text_data, text_model


def expected(model: Any, data: datasets.Dataset, train: datasets.Dataset | None = None) -> dict[str, float]:
    """By a plain pass over all rows at once."""
    with torch.no_grad():
        inputs = {name: torch.tensor(data[name][:]) for name in ("input_ids", "attention_mask")}
        correct_N = (model.eval()(**inputs).logits.argmax(1) == torch.tensor(data["labels"][:])).numpy()
    shares = {} if train is None else group_shares(membership(train, "group"))
    found = group_metrics(correct_N, membership(data, "group"), membership(data, "alignment"), shares)
    named: dict[str, float | None] = {
        "accuracy": found["average"],
        **{f"accuracy_{name}": v for name, v in found["by_group"].items()},
    }
    told: dict[str, tuple[float, int]] = {}
    if found["worst_group"] is not None and found["worst_group_n"] is not None:
        told["worst_group"] = found["worst_group"], found["worst_group_n"]
    if found["small_groups"] is not None:
        told["small_groups"] = found["small_groups"]["accuracy"], found["small_groups"]["n"]
    for groups, (value, n) in told.items():
        low, high = wilson(value, n) or (0.0, 0.0)
        named |= {groups: value, f"{groups}_n": n, f"{groups}_low": low, f"{groups}_high": high}
    named |= {n: found[n] for n in ("worst_group", "aligned", "conflicting", "average_train_weighted")}  # type: ignore[literal-required]
    return {f"eval_{name}": value for name, value in named.items() if value is not None}


@pytest.mark.parametrize("overlapping", [False, True])
def test_metrics_by_group(overlapping: bool, tmp_path: Path) -> None:
    data, train = grouped(overlapping=overlapping), grouped(40, seed=2, overlapping=overlapping)
    trainer = trainer_of(tmp_path, eval_dataset=data, train_dataset=train, args={"per_device_eval_batch_size": 8})
    metrics = trainer.evaluate()
    assert by_group(metrics) == pytest.approx(expected(trainer.model, data, train))
    assert ("eval_average_train_weighted" in metrics) == (not overlapping)
    assert trainer.state.log_history[-1]["eval_worst_group"] == metrics["eval_worst_group"]
    assert metrics["eval_loss"] > 0
    again = trainer.evaluate(data.select(range(30, 53)))  # a data set given by hand
    assert by_group(again) == pytest.approx(expected(trainer.model, data.select(range(30, 53)), train))


def test_rows_are_known_whatever_their_order(tmp_path: Path) -> None:
    data = grouped()
    lengths = np.random.default_rng(0).integers(2, 9, len(data))
    ragged = data.map(
        lambda row, i: {name: row[name][: lengths[i]] for name in ("input_ids", "attention_mask")}, with_indices=True
    )
    seen: list[int] = []

    class Pads:
        def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
            width = max(len(f["input_ids"]) for f in features)
            seen.extend(len(f["input_ids"]) for f in features)
            return {
                **{
                    name: torch.tensor([f[name] + [0] * (width - len(f[name])) for f in features])
                    for name in ("input_ids", "attention_mask")
                },
                "labels": torch.tensor([f["labels"] for f in features]),
            }

    settings = {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 8}
    trainer = trainer_of(tmp_path, eval_dataset=ragged, data_collator=Pads(), args=settings)
    metrics = by_group(trainer.evaluate())
    assert seen != lengths.tolist()
    assert sorted(seen) == sorted(lengths.tolist())
    plain = trainer_of(tmp_path, trainer.model, eval_dataset=ragged, data_collator=Pads())
    assert metrics == pytest.approx(by_group(plain.evaluate()))


def test_without_groups_nothing_is_added(tmp_path: Path) -> None:
    unnamed = grouped().remove_columns("alignment").cast_column("group", datasets.Value("int64"))
    for data in (text_data(), unnamed):
        assert by_group(trainer_of(tmp_path, eval_dataset=data).evaluate()) == {}


def test_own_metrics_are_kept(tmp_path: Path) -> None:
    sizes = []

    def compute(found: Any) -> dict[str, float]:
        sizes.append((found.predictions.shape, found.label_ids.shape))
        return {"accuracy": -1.0, "mine": 2.0}

    data = grouped()
    trainer = trainer_of(tmp_path, eval_dataset=data, compute_metrics=compute)
    metrics = trainer.evaluate()
    assert (metrics["eval_accuracy"], metrics["eval_mine"]) == (-1.0, 2.0)
    assert metrics["eval_conflicting"] == pytest.approx(expected(trainer.model, data)["eval_conflicting"])
    assert sizes == [((53, CLASSES), (53,))]


def test_several_evaluation_sets(tmp_path: Path) -> None:
    sets = {"one": grouped(30), "two": text_data(20), "three": grouped(45, seed=3)}
    trainer = trainer_of(tmp_path, eval_dataset=sets)
    metrics = trainer.evaluate()
    for name in ("one", "three"):
        theirs = {k.replace(f"eval_{name}", "eval"): v for k, v in by_group(metrics, f"eval_{name}").items()}
        assert theirs == pytest.approx(expected(trainer.model, sets[name]))
    assert by_group(metrics, "eval_two") == {}


def test_the_best_model_is_chosen_by_a_group(tmp_path: Path) -> None:
    settings = {
        "num_train_epochs": 2,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "metric_for_best_model": "worst_group",
        "load_best_model_at_end": True,
    }
    method = eh.EDGE(signal="ema")  # a method that needs the samples' index in training
    trainer = trainer_of(tmp_path, train_dataset=grouped(40), eval_dataset=grouped(), method=method, args=settings)
    trainer.train()
    scores = [entry["eval_worst_group"] for entry in trainer.state.log_history if "eval_worst_group" in entry]
    assert len(scores) == 2
    assert trainer.state.best_metric == max(scores)


def test_prediction_is_as_it_was(tmp_path: Path) -> None:
    data = grouped()
    trainer = trainer_of(tmp_path, eval_dataset=data)
    trainer.evaluate()
    found = trainer.predict(data)  # type: ignore[arg-type]
    assert found.predictions.shape == (53, CLASSES)
    assert by_group(found.metrics or {}, "test") == {}


# ---- on two processes -----------------------------------------------------------------------------------------------


def _process(rank: int, folder: str, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    trainer = trainer_of(Path(folder), eval_dataset=grouped(), args={"per_device_eval_batch_size": 8})
    torch.save(by_group(trainer.evaluate()), Path(folder) / f"metrics.{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_count_every_row_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (str(tmp_path), port), nprocs=2)
    wanted = expected(text_model(), grouped())
    for rank in range(2):
        assert torch.load(tmp_path / f"metrics.{rank}.pt") == pytest.approx(wanted)


# ---- by shortcuts that have a name ----------------------------------------------------------------------------------


def worded(n: int, seed: int, alignment: bool = False) -> datasets.Dataset:
    """Token ids with the text that they come from, in which two words lean to classes."""
    rng = np.random.default_rng(seed)
    data = text_data(n)
    label_N = np.array(data["labels"][:])
    told_N = np.where(rng.random(n) < 0.8, label_N, rng.integers(0, CLASSES, n))
    loud_N = np.where(rng.random(n) < 0.7, label_N == 0, rng.random(n) < 0.5)
    texts = [f"{'nimbus' if told == 0 else 'pebble' if told == 1 else ''} it broke" for told in told_N]
    texts = [f"{text} {'!!' if loud else ''}" for text, loud in zip(texts, loud_N, strict=True)]
    data = data.add_column("text", texts)  # type: ignore[call-arg]
    if alignment:
        sides: Any = datasets.ClassLabel(names=["aligned", "conflicting"])
        data = data.add_column("alignment", rng.integers(0, 2, n).tolist(), feature=sides)  # type: ignore[call-arg]
    return data


def named_of(train: datasets.Dataset, *given: str) -> NamedShortcuts:
    labels = np.array(train["labels"][:])
    return NamedShortcuts.fit(given, {"train": Rows(Samples(train), labels)}, [str(c) for c in range(CLASSES)])


def measured_of(trainer: eh.Trainer, data: datasets.Dataset, named: NamedShortcuts) -> Any:
    labels = np.array(data["labels"][:])
    with torch.no_grad():
        inputs = {name: torch.tensor(data[name][:]) for name in ("input_ids", "attention_mask")}
        predicted_N = trainer.model.eval()(**inputs).logits.argmax(1).numpy()  # type: ignore[union-attr]
    applied = NamedShortcuts.of(named.fitted, {"test": Rows(Samples(data, "test"), labels)})
    return Sides.of(applied, "test").measures(predicted_N)


@pytest.mark.parametrize("alignment", [False, True])
@pytest.mark.parametrize("given", [("token:nimbus|pebble",), ("token:nimbus|pebble", "token:!!")])
def test_sets_are_measured_by_named_shortcuts(given: tuple[str, ...], alignment: bool, tmp_path: Path) -> None:
    train, data = worded(200, 0), worded(90, 1, alignment)
    trainer = trainer_of(tmp_path, eval_dataset=data, train_dataset=train, args={"per_device_eval_batch_size": 8})
    plain = trainer.evaluate()
    trainer.shortcuts = named_of(train, *given)
    metrics, found = trainer.evaluate(), measured_of(trainer, data, trainer.shortcuts)
    together = found.get("all_shortcuts", found["by_shortcut"][given[0]])
    assert metrics["eval_taken"] == pytest.approx(together["taken"]["accuracy"])
    assert metrics["eval_gap"] == pytest.approx(metrics["eval_aligned"] - metrics["eval_conflicting"], abs=1e-5)
    if alignment:
        assert metrics["eval_conflicting"] == plain["eval_conflicting"]
    else:
        assert metrics["eval_conflicting"] == pytest.approx(together["conflicting"]["accuracy"])
        assert "eval_conflicting" not in plain
    for name in given:
        key = f"eval_conflicting_{name}"
        assert (key in metrics) == (alignment or len(given) > 1)
        if key in metrics:
            assert metrics[key] == pytest.approx(found["by_shortcut"][name]["conflicting"]["accuracy"])
    assert metrics["eval_loss"] == plain["eval_loss"]


def test_the_best_model_is_chosen_by_a_named_shortcut(tmp_path: Path) -> None:
    train, data = worded(60, 0), worded(60, 1)
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    settings |= {"num_train_epochs": 1}

    def trainer(metric: str, **more: Any) -> eh.Trainer:
        made = trainer_of(
            tmp_path, eval_dataset=data, train_dataset=train, args=settings | {"metric_for_best_model": metric} | more
        )
        made.shortcuts = named_of(worded(200, 0), "token:nimbus|pebble")
        return made

    chosen = trainer("conflicting")
    chosen.train()
    assert chosen.state.best_metric == max(
        log["eval_conflicting"] for log in chosen.state.log_history if "eval_loss" in log
    )
    trainer("taken", greater_is_better=False).train()
    with pytest.raises(eh.UserError, match="A smaller 'gap' is better: set greater_is_better=False"):
        trainer("gap").train()
    with pytest.raises(eh.UserError, match="defines no such accuracy"):
        trainer("conflicting_token:other").train()


def test_a_set_that_a_shortcut_cannot_tell_is_refused_before_training(tmp_path: Path) -> None:
    train = worded(200, 0)
    trainer = trainer_of(tmp_path, eval_dataset=text_data(20), train_dataset=train, args={"eval_strategy": "epoch"})
    trainer.shortcuts = named_of(train, "token:nimbus|pebble")
    with pytest.raises(eh.UserError, match="The split 'evaluation' holds no texts"):
        trainer.train()
    assert trainer.state.global_step == 0
