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
