"""An audit asks no model about what it has by heart, trains as `fit` does, and scores the rows of every split."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

import evenhand as eh
from audit_data import text_task
from conftest import make_task
from evenhand.auditing.sources import Subject
from evenhand.models.source import ModelSource
from evenhand.runs.configuration import Configuration
from evenhand.runs.prepared import Prepared
from evenhand.runs.stored_run import StoredRun
from evenhand.tasks import Task

REVIEWS = ("negative", "positive")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checkpoint(folder: Path, words: list[str]) -> Path:
    """A small text model with random weights that knows these words."""
    folder.mkdir(parents=True)
    (folder / "words.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(vocab=str(folder / "words.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 5,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def reviews(count: int, seed: int) -> tuple[list[str | None], Any]:
    """Texts of rare words, of which "bad" stands in four negative ones where it stands in one positive one."""
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, 2, count)
    bad_N = rng.random(count) < np.where(label_N == 0, 0.4, 0.08)
    words_N = rng.integers(0, 3000, (count, 8))
    texts: list[str | None] = [
        " ".join([*(["bad"] if bad else []), *(f"w{i}" for i in row)]) for bad, row in zip(bad_N, words_N, strict=True)
    ]
    return texts, label_N


def test_a_token_is_found_though_a_model_of_all_rows_would_know_them_by_heart(tmp_path: Path) -> None:
    (texts, label_N), (others, other_N) = reviews(1600, 0), reviews(60, 1)
    held = text_task(others, other_N, REVIEWS).train
    task = dataclasses.replace(text_task(texts, label_N, REVIEWS), validation=held, tests={"test": held})
    model = checkpoint(tmp_path / "model", ["bad", *(f"w{i}" for i in range(3000))])

    found = eh.audit(task, model, epochs=10, lr=0.01, output_dir=tmp_path / "halves")
    token = next(finding for finding in found.hint.findings if finding.name == "bad")
    assert token.verdict in ("strong", "weak")
    assert token.p < 1e-6

    eh.fit(eh.ERM(), task, str(model), epochs=20, lr=0.005, output_dir=tmp_path / "erm")
    by_heart = eh.audit(task, tmp_path / "erm" / "model", output_dir=tmp_path / "all")
    right = by_heart.training["prediction"] == by_heart.training["label"]
    assert right.mean() > 0.95 > (found.training["prediction"] == found.training["label"]).mean() + 0.15
    # what asking it about its own rows would have hidden
    assert [f.verdict for f in by_heart.hint.findings if f.name == "bad"] == ["association"]


# ---- rows of every split --------------------------------------------------------------------------------------------


def test_rows_of_other_splits_are_scored_by_both_models_and_stand_apart(tmp_path: Path) -> None:
    task = make_task(train=200)
    found = eh.audit(task, "mlp", epochs=2, output_dir=tmp_path / "a")
    frame = found.to_frame()
    assert frame["split"].value_counts().to_dict() == {"train": 200, "test": 60, "validation": 24}
    assert frame["split"].tolist() == ["train"] * 200 + ["validation"] * 24 + ["test"] * 60
    for _, part in frame.groupby("split"):
        assert sorted(part["rank"]) == list(range(1, len(part) + 1))
        assert part.sort_values("rank")["score"].is_monotonic_decreasing
    assert found.training["score"].sum() == pytest.approx(1.0)
    assert len(found.training) == found.as_dict()["samples"] == 200
    others = frame[frame["split"] != "train"]
    assert others["suspect_label"].isna().all()
    assert others["shortcut_points_to"].isna().all()
    stages = tmp_path / "a" / "models" / "folds-seed0"
    norms = [np.load(stages / f"answers-{k}.npz")["norms1"] for k in (1, 2)]  # of the validation rows
    all_of_train = sum(np.load(stages / f"answers-{k}.npz")["norms0"].sum() for k in (1, 2))
    assert [len(np.load(stages / f"answers-{k}.npz")["norms0"]) for k in (1, 2)] == [100, 100]
    held = frame[frame["split"] == "validation"]
    assert np.allclose(held["score"], (norms[0] + norms[1]) / 2 / all_of_train)


def test_findings_rest_on_training_rows_alone(tmp_path: Path) -> None:
    task = make_task(train=200)
    other = dataclasses.replace(task, tests={"test": make_task(train=300, seed=5).train})
    first, second = (
        eh.audit(t, "mlp", epochs=2, output_dir=tmp_path / name) for name, t in (("a", task), ("b", other))
    )
    assert first.hint.findings[0].as_dict() == second.hint.findings[0].as_dict()
    assert first.suspects.rows.tolist() == second.suspects.rows.tolist()
    assert first.as_dict()["highest"] == second.as_dict()["highest"]
    assert any("apart: validation (24 rows), test (300 rows)" in note for note in second.notes)


def test_ids_are_rows_of_the_users_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"text": [f"word{i % 9} n{i}" for i in range(120)], "label": rng.integers(0, 2, 120)})
    table.loc[[0, 7], "text"] = ""
    table.to_csv("rows.csv", index=False)
    own = eh.OwnData(data="rows.csv", text="text", drop_incomplete=True)
    found = eh.audit(own, "tiny-bert", epochs=1, output_dir=tmp_path / "a")
    frame = found.to_frame()
    assert sorted(frame["id"]) == [i + 1 for i in range(120) if i not in (0, 7)]
    for name, label in zip(frame["id"], frame["label"], strict=True):
        assert str(table["label"][name - 1]) == label
    assert pd.read_csv(found.export(tmp_path / "s.csv"))["id"].tolist() == frame["id"].tolist()


def test_rows_of_several_files_name_their_file() -> None:
    for name, rows in (("train", 40), ("test", 10)):
        table = pd.DataFrame({"text": [f"a{i}" for i in range(rows)], "label": [i % 2 for i in range(rows)]})
        Path("data").mkdir(exist_ok=True)
        table.to_csv(f"data/{name}.csv", index=False)
    task = eh.OwnData(data="data", text="text").build(0)
    assert task.tests["test"]["id"][:2] == ["test.csv:1", "test.csv:2"]
    assert all(name.startswith("train.csv:") for name in task.train["id"])
    table.assign(key=[f"k{i}" for i in range(rows)]).to_csv("keyed.csv", index=False)
    assert set(eh.OwnData(data="keyed.csv", text="text", id="key").build(0).train["id"]) < {f"k{i}" for i in range(10)}


# ---- settings -------------------------------------------------------------------------------------------------------


class CaughtError(Exception):
    """In place of training."""


def caught(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> Configuration:
    """The configuration that a call would train."""
    seen: list[Configuration] = []

    def audits(models: Any, *_: Any, **__: Any) -> None:
        seen.append(models[0].configuration)
        raise CaughtError

    def runs(prepared: Prepared, *_: Any, **__: Any) -> None:
        seen.append(prepared.configuration)
        raise CaughtError

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["evenhand.auditing.audit"], "score_all", audits)
        patched.setattr(sys.modules["evenhand.runs.fit"], "carry_out", runs)
        with pytest.raises(CaughtError):
            call()
    return seen[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"peft": "head"},
        {"peft": "lora"},
        {"peft": eh.Adapters(kind="dora", r=2, alpha=3.0, dropout=0.2, targets="query,key")},
        {"peft": "head", "epochs": 2},
        {"fresh": True},
        {"fresh": True, "batch_size": 7},
        {"bf16": True, "lr": 0.3, "epochs": 4, "batch_size": 5, "data_seed": 9},
    ],
)
def test_an_audit_trains_with_the_settings_of_fit(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(checkpoint(tmp_path / "model", ["a", "b"]))
    texts: list[str | None] = [f"{'ab'[i % 2]} a b" for i in range(30)]
    own = text_task(texts, np.arange(30) % 2, REVIEWS)
    recipes: list[Any] = [(own, model), ("marked-notes", model)]
    if not options.get("peft"):
        recipes += [] if options.get("fresh") else [("marked-notes", "tiny-bert"), ("colored-digits", None)]
    for task, named in recipes:
        trained = caught(monkeypatch, lambda t=task, m=named: eh.fit(eh.ERM(), t, m, **options)).as_dict()
        audited = caught(monkeypatch, lambda t=task, m=named: eh.audit(t, m, **options)).as_dict()
        for name in ("task", "model", "training", "data_seed"):
            assert audited[name] == trained[name], (name, options)


def test_an_audit_of_a_run_trains_with_the_runs_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = eh.ColoredDigits()
    method = eh.PGD(q=0.4, augment=True, score_on="augmented", norm="l1", source="all")
    result = eh.fit(method, task, seed=2, data_seed=1, epochs=2, lr=0.002, batch_size=50, output_dir=tmp_path / "pgd")
    seen: list[dict[str, Any]] = []
    train = StoredRun.train

    def spied(self: StoredRun, name: str, stage: Any, **options: Any) -> Any:
        seen.append({"name": name, "q": stage.q, **options, "configuration": self.configuration.as_dict()})
        return train(self, name, stage, **options)

    monkeypatch.setattr(StoredRun, "train", spied)
    found = eh.audit(tmp_path / "pgd")
    assert [(stage["name"], stage["q"], stage["augment"], stage["epochs"]) for stage in seen] == [
        ("biased-1", 0.4, True, 1),
        ("biased-2", 0.4, True, 1),
    ]
    for stage in seen:
        for name in ("task", "training", "seed", "data_seed"):
            assert stage["configuration"][name] == result.record[name]
    assert found.scored_by == "l1 norm of the gradient, source all"


@pytest.mark.parametrize("method", [eh.ERM(), eh.Even()])
def test_an_audit_of_a_fresh_run_starts_from_fresh_weights(
    method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(checkpoint(tmp_path / "model", ["a", "b"]))
    texts: list[str | None] = [f"{'ab'[i % 2]} a b" for i in range(30)]
    task: Task = text_task(texts, np.arange(30) % 2, REVIEWS)
    eh.fit(method, task, model, fresh=True, epochs=1, output_dir=tmp_path / "run")
    starts: list[bool] = []
    pretrained = ModelSource.pretrained

    def spied(self: ModelSource, seed: int) -> Any:
        starts.append(self.starts_random)
        return pretrained(self, seed)

    monkeypatch.setattr(ModelSource, "pretrained", spied)
    eh.audit(tmp_path / "run", task=task)
    assert starts == ([True, True] if method.name == "erm" else [])
    starts.clear()
    eh.audit(task, model, fresh=True, epochs=1, output_dir=tmp_path / "fresh")
    assert starts == [True, True]


def test_what_is_audited_keeps_its_device(tmp_path: Path) -> None:
    assert Subject.__dataclass_fields__["device"].default == "auto"
    found = eh.audit(make_task(), "mlp", epochs=1, device="cpu", output_dir=tmp_path / "a")
    assert found.advice.command.endswith("device='cpu')")
