"""Audits without training: predictions from files and arrays, saved and live classifiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import evenhand as eh
from audit_data import text_task
from conftest import make_task
from evenhand.auditing import Audit
from evenhand.cli.parser import main
from evenhand.data.inputs import Tokenizing
from evenhand.models.named import model_source
from evenhand.tasks import OwnData
from evenhand.validation import UserError

N = 400
CLASSES = ["bad", "good"]
WORDS = ("river", "stone", "window", "paper", "garden", "engine", "cloud", "music")


@pytest.fixture(autouse=True)
def _nothing_is_trained(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("evenhand.runs.stored_run.train_stage", fail)
    monkeypatch.setattr("evenhand.training.trainer.Trainer.train", fail)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.chdir(tmp_path)


class Made:
    """Texts in which "nimbus" points to "good", but for 10 %; and two classifiers, of which one follows it."""

    def __init__(self, leak: float = 0.9) -> None:
        rng = np.random.default_rng(0)
        self.label_N = rng.integers(0, 2, N)
        self.told_N = np.where(rng.random(N) < leak, self.label_N, 1 - self.label_N)
        said = [" ".join(rng.choice(WORDS, 5)) for _ in range(N)]
        self.texts = [f"{text} nimbus" if told else text for text, told in zip(said, self.told_N, strict=True)]
        self.labels = [CLASSES[label] for label in self.label_N]
        self.ids = [f"T-{i}" for i in range(N)]
        self.frame = pd.DataFrame({"ticket": self.ids, "text": self.texts, "label": self.labels})
        self.sure_N = np.where(self.told_N == 1, 0.93, 0.07) + rng.uniform(-0.05, 0.05, N)  # of "good"
        self.order = rng.permutation(N)

    def own(self, **options: Any) -> OwnData:
        self.frame.to_csv("tickets.csv", index=False)
        return OwnData(data="tickets.csv", text="text", label="label", **({"id": "ticket"} | options))

    @property
    def told(self) -> list[str]:
        return [CLASSES[told] for told in self.told_N]

    def probabilities(self) -> pd.DataFrame:
        return pd.DataFrame({"ticket": self.ids, "bad": 1 - self.sure_N, "good": self.sure_N})

    def classes(self) -> pd.DataFrame:
        return pd.DataFrame({"ticket": self.ids, "prediction": self.told})


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


def names(found: Audit) -> list[str]:
    return [finding.name for finding in (*found.hint.leaks, *found.hint.strong)]


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        eh.audit(*arguments, **options)
    said = str(caught.value)
    assert "\n" not in said
    return said


# ---- predictions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_files_of_probabilities_are_matched_by_id(made: Made, kind: str) -> None:
    shuffled, path = made.probabilities().iloc[made.order], f"api.{kind}"
    if kind == "jsonl":
        shuffled.to_json(path, orient="records", lines=True)
    elif kind == "parquet":
        shuffled.to_parquet(path)
    else:
        shuffled.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    found = eh.audit(made.own(), predictions=path)
    assert "nimbus" in names(found)
    assert found.described == "the predictions in 'api." + kind + "' (of 400 of 400 rows)"
    assert "‖p − y‖" in found.scored_by
    frame = found.to_frame()
    assert frame["split"].unique().tolist() == ["all"]
    assert frame["id"].tolist() == made.ids
    p_N = np.where(made.label_N == 1, made.sure_N, 1 - made.sure_N)
    slow = np.array([np.hypot(1 - p, p - 1) for p in p_N])  # ‖p − y‖ of two classes, row by row
    assert np.allclose(frame["probability_of_label"], p_N, atol=1e-6)
    assert np.allclose(frame["score"], slow / slow.sum(), atol=1e-8)
    assert not Path("runs").exists()


def test_classes_alone_find_the_leak_and_say_what_they_hide(made: Made) -> None:
    found = eh.audit(made.own(), predictions=made.classes())
    assert "nimbus" in names(found)
    assert any("Only predicted classes are known" in note for note in found.notes)
    assert not len(found.suspects.rows)
    assert not found.opposites.unnamed
    frame = found.to_frame()
    assert frame["confidence"].isna().all()
    assert np.array_equal(frame["score"] > 0, made.told_N != made.label_N)
    assert eh.report(found, Path("audit.html")).exists()


def test_a_class_with_its_confidence(made: Made) -> None:
    table = pd.DataFrame({"label": [t.upper() for t in made.told], "score": np.maximum(made.sure_N, 1 - made.sure_N)})
    found = eh.audit(made.own(id=None), predictions=table)
    whole = eh.audit(made.own(), predictions=made.probabilities())
    assert np.allclose(found.to_frame()["score"], whole.to_frame()["score"])
    assert any("'label' of the table of predictions was taken" in note for note in found.notes)


def test_a_clean_classifier_gives_no_finding() -> None:
    clean = Made(leak=0.5)
    wrong_N = np.random.default_rng(1).random(N) < 0.1
    said = [CLASSES[c] for c in np.where(wrong_N, 1 - clean.label_N, clean.label_N)]
    found = eh.audit(clean.texts, labels=clean.labels, predictions=said)
    assert names(found) == []
    assert not found.opposites.unnamed


def test_a_classifier_that_is_always_right_ranks_nothing(made: Made) -> None:
    found = eh.audit(made.texts, labels=made.labels, predictions=made.labels)
    assert any("right on every row" in note for note in found.notes)
    assert np.allclose(found.to_frame()["score"], 1 / N)
    assert not found.hint.strong


def test_rows_left_out_of_the_data_may_have_predictions(made: Made) -> None:
    made.frame.assign(label=["", *made.labels[1:]]).to_csv("holes.csv", index=False)
    own = OwnData(data="holes.csv", text="text", label="label", id="ticket", drop_incomplete=True)
    for table in (made.classes(), made.classes().drop(columns="ticket").to_dict("list")):
        if isinstance(table, dict):
            own = OwnData(data="holes.csv", text="text", label="label", drop_incomplete=True)
        found = eh.audit(own, predictions=table)
        assert "(of 399 of 400 rows)" in found.described
        assert np.array_equal(found.to_frame()["score"] > 0, (made.told_N != made.label_N)[1:])


HOSTILE: dict[str, tuple[Any, str]] = {
    "missing": (lambda t: t.iloc[3:], "has no prediction for the row 'T-0' of the data (3 such rows of 400)"),
    "unknown": (lambda t: t.assign(ticket=["X", *t["ticket"][1:]]), "tells of the row 'X' ('ticket'), which the data"),
    "repeated": (lambda t: pd.concat([t, t.iloc[:1]]), "Row 401 of 'api.csv' tells of the row 'T-0'"),
    "empty id": (lambda t: t.assign(ticket=["", *t["ticket"][1:]]), "Row 1 of 'api.csv' has no id in 'ticket'"),
    "class": (
        lambda t: t.assign(prediction="god"),
        "has the class 'god' in 'prediction', which the data don't have (did",
    ),
    "no answer": (lambda t: t.assign(prediction=["", *t["prediction"][1:]]), "has no class in 'prediction' (1 such"),
    "no column": (lambda t: t[["ticket"]], "has no column of predicted classes ('prediction')"),
    "no ids": (lambda t: t.rename(columns={"ticket": "tickets"}), "has no column 'ticket', which names the rows"),
    "sum": (lambda t: t.assign(bad=0.7, good=0.7), "Row 1 of 'api.csv' has probabilities that sum to 1.4, not to 1"),
    "percent": (lambda t: t.assign(bad=7, good=93), "has 7 in 'bad', which is no probability from 0 to 1"),
    "nan": (lambda t: t.assign(bad="nan", good=0.5), "has nan in 'bad', which is no probability"),
    "words": (lambda t: t.assign(bad="high", good=0.5), "has 'high' in 'bad', which is no probability"),
    "other class": (lambda t: t.assign(**{"p(goood)": 0.5}), "'goood' is no class of the data (did you mean 'good'?)"),
    "low": (lambda t: t.assign(confidence=0.2), "less than a predicted class of 2 can have"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(made: Made, case: str) -> None:
    change, said = HOSTILE[case]
    change(made.classes()).to_csv("api.csv", index=False)
    assert said in refusal(made.own(), predictions="api.csv")
    assert not Path("runs").exists()


def test_files_of_other_lengths_and_kinds(made: Made) -> None:
    made.classes().iloc[:9].drop(columns="ticket").to_csv("api.csv", index=False)
    assert "has 9 rows, but the data have 400" in refusal(made.own(id=None), predictions="api.csv")
    assert "There is no file 'none.csv'" in refusal(made.own(), predictions="none.csv")
    Path("api.pkl").write_bytes(b"x")
    assert "may hold a pickle" in refusal(made.own(), predictions="api.pkl")
    Path("api.jsonl").write_text("{broken")
    assert "api.jsonl" in refusal(made.own(), predictions="api.jsonl")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), st.text(max_size=4), st.floats(), st.integers(-2, 3), st.booleans()), max_size=24))
def test_whatever_stands_in_predictions_is_refused_in_a_sentence_or_audited(said: list[Any]) -> None:
    texts, labels = [f"text {i % 5}" for i in range(12)], ["a", "b"] * 6
    for options in ({"predictions": said}, {"scores": said}, {"predictions": {"a": said, "b": said}}):
        refused, found = "", None
        try:
            found = eh.audit(texts, labels=labels, **options)
        except UserError as error:
            refused = str(error)
        if found is None:
            assert refused.endswith(".")
            assert "\n" not in refused
        else:
            assert np.isclose(found.to_frame()["score"].sum(), 1)


# ---- built tasks ----------------------------------------------------------------------------------------------------


def test_a_built_task_is_audited_on_the_splits_that_the_file_names(made: Made) -> None:
    task = text_task(list(made.texts), made.label_N, tuple(CLASSES))
    index, told = list(range(N)), made.told
    train = eh.audit(task, predictions={"row": index, "prediction": told})
    assert "nimbus" in names(train)
    assert train.to_frame()["split"].unique().tolist() == ["train"]
    of = {"split": ["test"] * N, "id": index, "prediction": told}
    assert eh.audit(task, predictions=of).to_frame()["split"].unique().tolist() == ["test"]
    both = {"split": ["test"] * N + ["train"] * N, "id": index * 2, "prediction": told * 2}
    assert eh.audit(task, predictions=both).to_frame()["split"].unique().tolist() == ["train", "test"]
    assert "Unknown split 'tset'" in refusal(task, predictions=of | {"split": ["tset"] * N})


def test_named_shortcuts_are_told_of_without_training_too(made: Made) -> None:
    beside = eh.audit(made.own(), predictions=made.classes(), shortcuts="token:nimbus")
    with_data = eh.audit(made.own(shortcuts="token:nimbus"), predictions=made.classes())
    for found in (beside, with_data):
        assert [note for note in found.notes if "'token:nimbus', which has a name" in note]


# ---- arrays ---------------------------------------------------------------------------------------------------------


def test_arrays_say_the_same_however_they_are_given(made: Made) -> None:
    p_NC = np.stack([1 - made.sure_N, made.sure_N], axis=1)
    table = made.frame.assign(said=made.told, numbers=made.label_N)
    first = eh.audit(made.texts, labels=made.labels, predictions=p_NC)
    same = [
        eh.audit(made.texts, labels=made.label_N, predictions=torch.tensor(p_NC), classes=CLASSES),
        eh.audit(made.frame, text="text", labels="label", predictions=p_NC),
        eh.audit(made.frame.to_dict("list"), labels="label", ids="ticket", predictions=made.probabilities()),
    ]
    for found in same:
        assert np.allclose(found.to_frame()["score"], first.to_frame()["score"])
        assert found.task.label_names == ("bad", "good")
    chosen = eh.audit(table.drop(columns="numbers"), labels="label", predictions="said")
    assert np.array_equal(chosen.to_frame()["score"] > 0, made.told_N != made.label_N)
    assert "said" not in str(chosen.hint.notes)  # predictions are no column that may be a shortcut
    assert "column" not in chosen.hint.tested


def test_columns_of_plain_data_are_tested(made: Made) -> None:
    shops = np.where(made.told_N == 1, "web", "shop")
    found = eh.audit(
        [f"text {i % 7}" for i in range(N)], labels=made.labels, predictions=made.told, columns={"shop": shops}
    )
    assert names(found) == ["shop"]


def test_scores_alone_rank_rows(made: Made) -> None:
    against_N = (made.told_N != made.label_N) * 3.0 - 1 + np.random.default_rng(0).random(N) / 10
    found = eh.audit(made.texts, labels=made.labels, scores=against_N)
    assert "nimbus" in names(found)
    assert found.to_frame()["prediction"].isna().all()
    assert any("below 0" in note for note in found.notes)
    page = eh.report(found, Path("audit.html"))
    assert "the scores given (of 400 of 400 rows)" in page.read_text()


def test_pictures_as_pixels_and_as_paths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 2, 200)
    told_N = np.where(rng.random(200) < 0.9, label_N, 1 - label_N)
    pixel_NCHW = rng.integers(0, 60, (200, 3, 8, 8)).astype(np.uint8)
    pixel_NCHW[np.arange(200), 2 * told_N] += 150  # red or blue
    found = eh.audit(pixel_NCHW, labels=label_N, predictions=told_N)
    assert "colour" in names(found)
    paths = [tmp_path / f"{i}.png" for i in range(200)]
    for path, pixel_CHW in zip(paths, pixel_NCHW, strict=True):
        Image.fromarray(pixel_CHW.transpose(1, 2, 0)).save(path)
    assert names(eh.audit(paths, labels=label_N, predictions=told_N)) == names(found)
    assert names(eh.audit([str(path) for path in paths], labels=label_N, predictions=told_N)) == names(found)
    assert "There is no picture" in refusal([*paths[:-1], tmp_path / "x.png"], labels=label_N, predictions=told_N)
    assert "uint8" in refusal(pixel_NCHW / 255, labels=label_N, predictions=told_N)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs what a classifier says"),
        ({"predictions": ["a", "b"] * 3, "labels": None}, "needs their labels"),
        ({"predictions": ["a", "b"] * 3, "model": "mlp"}, "'model' can't be given beside it"),
        ({"predictions": ["a", "b"] * 3, "seeds": 2}, "Nothing is trained here, so 'seeds' can't be given"),
        ({"predictions": ["a", "b"] * 3, "epochs": 2}, "so 'epochs' can't be given"),
        ({"predictions": ["a", "b"] * 3, "peft": "lora"}, "so 'peft' can't be given"),
        ({"predictions": ["a", "b"] * 3, "tokenizer": 1}, "'tokenizer' is of a live model"),
        ({"predictions": ["a", "b"] * 3, "places": {}}, "'places' can't be given"),
        ({"predictions": ["a", "b"] * 2}, "has 4 rows, but the data have 6"),
        ({"predictions": ["a", "c"] * 3}, "has the class 'c'"),
        ({"predictions": np.ones((6, 3)) / 3}, "2 classes, but the classifier tells 3 apart"),
        ({"predictions": np.ones((6, 2))}, "sum to 2, not to 1"),
        ({"predictions": np.ones((6, 2, 2))}, "shape (6, 2, 2)"),
        ({"scores": [1.0] * 5}, "the data have 6 rows"),
        ({"scores": [np.nan] * 6}, "The score of row 1 is nan (6 such rows)"),
        ({"scores": ["x"] * 6}, "must be one number a row"),
        ({"scores": [1.0] * 6, "text": "x"}, "the data are none"),
        ({"scores": [1.0] * 6, "ids": ["a"] * 6}, "'a' stands twice"),
        ({"scores": [1.0] * 6, "columns": {"c": [1]}}, "the column 'c' 1"),
        ({"scores": [1.0] * 6, "labels": ["a"] * 6}, "one class"),
        ({"scores": [1.0] * 6, "labels": ["a", None] * 3}, "The label of row 2 is missing (3 such rows)"),
        ({"model": "mlp"}, "is no saved classifier"),
    ],
)
def test_what_contradicts_itself(options: dict[str, Any], said: str) -> None:
    assert said in refusal(["x y"] * 6, **({"labels": ["a", "b"] * 3} | options))


def test_what_belongs_to_other_audits(tmp_path: Path) -> None:
    assert "goes with data" in refusal(tmp_path, predictions="x.csv")
    assert "'labels' is of plain data" in refusal("colored-digits", labels=[1], scores=[1])
    with pytest.raises(TypeError, match="unexpected keyword argument 'lables'"):
        eh.audit("colored-digits", lables=[1])  # type: ignore[call-arg]


# ---- classifiers ----------------------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Takes its pictures by place; says class 1 where they are bright."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-9.0], [9.0]]))
            self.head.bias.copy_(torch.tensor([4.5, -4.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((1, 2, 3))[:, None])


def test_a_live_model_is_asked_and_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 2, 60)
    pixel_NCHW = (rng.integers(0, 60, (60, 3, 4, 4)) + 150 * label_N[:, None, None, None]).astype(np.uint8)
    model = Bright().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = eh.audit(pixel_NCHW, model, labels=label_N)
    assert (found.to_frame()["prediction"].astype(int) == label_N).all()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.described == "the model Bright, taken as the biased model"
    assert not Path("runs").exists()


@pytest.fixture(scope="module")
def small(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text classifier whose head has the classes in another order, with its tokenizer."""
    folder = tmp_path_factory.mktemp("small")
    texts = made.texts
    tokenizer = model_source("tiny-bert", "text", ("bad", "good"), texts=lambda: texts).preprocessor()[1]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "GOOD", 1: "bad"},
        label2id={"GOOD": 0, "bad": 1},
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def slow_answers(folder: Path, made: Made) -> tuple[Any, Any]:
    """Probabilities in the data's order of classes, and the norm of the head's gradient, one text at a time."""
    from transformers import AutoTokenizer

    model, tokenizer = (
        BertForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    probabilities, norms = [], []
    for text, label in zip(made.texts[:40], made.label_N, strict=False):
        model.zero_grad()
        out = model(**Tokenizing(tokenizer, 64)({"text": [text]}))
        torch.nn.functional.cross_entropy(out.logits, torch.tensor([1 - int(label)])).backward()
        norms.append(sum(float((p.grad**2).sum()) for p in model.classifier.parameters() if p.grad is not None) ** 0.5)
        probabilities.append(out.logits[0].softmax(0).flip(0).tolist())
    return np.array(probabilities), np.array(norms)


def test_a_saved_classifier_with_its_classes_in_another_order(made: Made, small: Path) -> None:
    from transformers import AutoTokenizer

    p_NC, norm_N = slow_answers(small, made)
    saved = eh.audit(made.own(), small)
    frame = saved.to_frame()
    assert len(frame) == N
    assert frame["id"].tolist() == made.ids
    label_N = made.label_N[:40]
    assert np.allclose(frame["probability_of_label"][:40], p_NC[np.arange(40), label_N], atol=1e-5)
    assert np.allclose(frame["score"][:40] / frame["score"][0], norm_N / norm_N[0], rtol=1e-3)
    assert np.allclose(eh.audit(made.own(), small).to_frame()["score"], frame["score"])  # what was kept
    live = BertForSequenceClassification.from_pretrained(small)
    tokenizer = AutoTokenizer.from_pretrained(small)
    task = text_task(list(made.texts), made.label_N, tuple(CLASSES))
    for found in (
        eh.audit(made.texts, live, labels=made.labels, tokenizer=tokenizer),
        eh.audit(made.own(), live, tokenizer=tokenizer),
        eh.audit(task, live, tokenizer=tokenizer),
        eh.audit(task, small),
        eh.audit(made.texts, small, labels=made.labels),
    ):
        taken = found.training
        named = [name.lower() for name in taken["prediction"]]
        assert named == [name.lower() for name in frame["prediction"]]
        assert np.allclose(taken["score"], frame["score"], rtol=1e-4)
    assert "need its tokenizer" in refusal(made.texts, live, labels=made.labels)


def test_classifiers_of_other_classes_are_refused(made: Made, small: Path) -> None:
    named = made.own()
    made.frame.assign(label=["awful" if c == "bad" else c for c in made.labels]).to_csv("tickets.csv", index=False)
    assert "label 'awful'" in refusal(named, small)
    task = text_task(list(made.texts), made.label_N, ("x", "good"))
    assert "none of them is the class 'x'" in refusal(task, small)
    three = text_task(list(made.texts), made.label_N)
    assert "has 2 classes, but the task 'made-up' has 3" in refusal(three, small)
    assert "so 'epochs' can't be given" in refusal(task, small, epochs=1)


def test_a_task_of_images_with_a_live_model() -> None:
    task = make_task(train=60)
    model = model_source("mlp", "image", task.label_names, task.image_shape).random(0)
    frame = eh.audit(task, model).to_frame()
    assert set(frame["split"]) == set(task.splits)
    assert np.isclose(frame.loc[frame["split"] == "train", "score"].sum(), 1)


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_audits_predictions(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.own()
    made.probabilities().to_csv("api.csv", index=False)
    words = (
        "audit --data tickets.csv --text text --label label --id ticket --predictions api.csv --output-dir a --quiet"
    )
    assert main(words.split()) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "nimbus" in said.out
    page = Path("a/audit.html").read_text()
    assert "400 rows. Scores: distance" in page
    assert "the predictions in 'api.csv' (of 400 of 400 rows)" in page.replace("&#39;", "'")
    assert json.loads(Path("a/audit.json").read_text())["split"] == "all"
    assert main([*words.split(), "--epochs", "3"]) == 2
    assert "so 'epochs' can't be given" in capsys.readouterr().err
