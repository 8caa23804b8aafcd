from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import evenhand as eh
from evenhand.cli.parser import main
from evenhand.models.adapters import Adapters, adapters_of
from evenhand.models.heads import head_of
from evenhand.models.named import model_source
from evenhand.models.source import ModelSource
from evenhand.runs import stored_run
from evenhand.runs.configuration import Configuration, check_parts, shipped_training
from evenhand.tasks import Task
from evenhand.training.settings import FROM_SCRATCH, HEAD_TUNING
from evenhand.validation import UserError
from snli_files import write_snli

pytestmark = [  # peft and transformers, about each other
    pytest.mark.filterwarnings("ignore:`?(is_)?gradient_checkpointing:FutureWarning"),
]

LABELS = ("entailment", "neutral", "contradiction")
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 16, "lr": 1e-2}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "train", "dev", "hypothesis", "!", *"0123456789"]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        num_labels=5,  # another number than the task's: the head is drawn anew
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> eh.BiasedSNLI:
    return eh.BiasedSNLI(data_dir=write_snli(tmp_path_factory.mktemp("data") / "snli", train=96, dev=60, holdout=30))


def source(model: Path | str, adapters: Adapters | None) -> ModelSource:
    return model_source(str(model), "text", LABELS, None, adapters)


def trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def same(first: Any, second: Any) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


# ---- settings -------------------------------------------------------------------------------------------------------


def test_defaults_are_edges_and_giving_them_is_the_same() -> None:
    assert Adapters().settings() == {"peft": "lora", "peft_r": 8, "peft_alpha": 16.0, "peft_dropout": 0.1}
    assert Adapters() == Adapters(r=8, alpha=16, dropout=0.1) == adapters_of("lora")
    assert Adapters(kind="ia3").settings() == {"peft": "ia3"}
    assert adapters_of(None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "lorra"}, "The 'kind' parameter of the adapters must be one of lora, dora, ia3, head. Got 'lorra'"),
        ({"r": 0}, "The 'r' parameter of the adapters must be an integer of at least 1. Got 0"),
        ({"alpha": 0}, "The 'alpha' parameter of the adapters must be a float in the range (0, inf). Got 0"),
        ({"dropout": 1.0}, "The 'dropout' parameter of the adapters must be a float in the range [0, 1). Got 1.0"),
        ({"kind": "ia3", "r": 4}, "The adapters 'ia3' have no 'r': leave it out."),
        ({"targets": "query,,value"}, "The 'targets' parameter of the adapters must be layer names separated by"),
        ({"targets": ""}, "The 'targets' parameter of the adapters must be layer names separated by commas"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Adapters(**options)
    assert str(caught.value).startswith(message)


def test_what_is_no_adapter_is_refused(bert: Path, task: eh.BiasedSNLI, tmp_path: Path) -> None:
    for given, message in ((3, "'peft' parameter of fit must be lora, dora, ia3"), ("lara", "did you mean 'lora'")):
        with pytest.raises(UserError, match=message):
            eh.fit(eh.ERM(), task, str(bert), peft=given, output_dir=tmp_path / "run")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# ---- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapters", "marks"),
    [
        (Adapters(), ("lora_A", "lora_B")),
        (Adapters(kind="dora", targets="query"), ("lora_A", "lora_B", "lora_magnitude_vector")),
        (Adapters(kind="ia3"), ("ia3_l",)),
        (Adapters(kind="ia3", targets="key,output.dense"), ("ia3_l",)),
        (Adapters(targets="all-linear", r=2), ("lora_A", "lora_B")),
    ],
)
def test_adapters_and_head_train_and_nothing_else(adapters: Adapters, marks: tuple[str, ...], bert: Path) -> None:
    model = source(bert, adapters).pretrained(0)
    names = list(trainable(model))
    assert all(any(mark in name for mark in (*marks, "classifier")) for name in names)
    assert all(any(mark in name for name in names) for mark in (*marks, "classifier"))
    assert source(bert, adapters).parameter_count() == sum(p.numel() for p in trainable(model).values())
    whole = source(bert, None)
    assert source(bert, adapters).parameter_count(trainable=False) == whole.parameter_count()
    # nothing is changed before training, and the head is the one that full fine-tuning starts from
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]])}
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**inputs).logits, whole.pretrained(0).eval()(**inputs).logits)


def test_the_seed_draws_adapters_and_head_and_random_draws_both_anew(bert: Path) -> None:
    made = source(bert, Adapters())
    first, again, other, fresh = made.pretrained(0), made.pretrained(0), made.pretrained(1), made.random(2)
    assert same(first, again)
    for model in (other, fresh):
        changed = {
            name for name, value in first.state_dict().items() if not torch.equal(value, model.state_dict()[name])
        }
        assert any("lora_A" in name for name in changed)
        assert all("lora_A" in name or "classifier" in name for name in changed)
    checkpoint = model_source(str(bert), "text", tuple("abcde"), None, Adapters())
    head, kept = "base_model.model.classifier.modules_to_save.default.weight", "classifier.weight"
    loaded = BertForSequenceClassification.from_pretrained(bert).get_parameter(kept)
    assert torch.equal(checkpoint.pretrained(0).get_parameter(head), loaded)
    assert not torch.equal(checkpoint.random(2).get_parameter(head), loaded)


def test_small_models_and_models_without_such_layers_are_refused(bert: Path, task: eh.BiasedSNLI) -> None:
    for name in ("digits-cnn", "mlp"):
        with pytest.raises(UserError, match="starts from random weights, so there is nothing for the adapters 'lora'"):
            eh.fit(eh.ERM(), "colored-digits", name, peft="lora")
    with pytest.raises(UserError) as caught:
        source(bert, Adapters(targets="qkv")).parameter_count()
    assert (
        str(caught.value) == f"The adapters' targets 'qkv' are no layers of the model '{bert}' that 'lora' can adapt."
    )


def test_a_saved_small_model_has_no_default_layers(tiny_task: Task, tmp_path: Path) -> None:
    eh.fit(eh.ERM(), tiny_task, "mlp", epochs=1, output_dir=tmp_path / "start")
    saved = str(tmp_path / "start/model")
    with pytest.raises(UserError, match="peft has no default layers for the adapters 'lora' of the model"):
        eh.fit(eh.ERM(), tiny_task, saved, peft="lora", output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    result = eh.fit(
        eh.ERM(), tiny_task, saved, peft=Adapters(targets="all-linear"), epochs=1, output_dir=tmp_path / "run"
    )
    assert result.record["status"] == "done"


def test_the_head_is_the_layer_that_lora_wraps(bert: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(bert)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query", "classifier"]))
    name, head = head_of(wrapped)
    assert name == "base_model.model.classifier.base_layer"
    assert head.out_features == 5
    data = [{"input_ids": torch.tensor([2, 5 + i, 3]), "labels": i % 5} for i in range(6)]
    torch.nn.init.normal_(wrapped.get_submodule("base_model.model.classifier.lora_B.default").weight)
    norms = eh.gradient_norms(wrapped, data, "head")
    head.requires_grad_(True)
    wrapped.eval()
    for i, row in enumerate(data):
        loss = torch.nn.functional.cross_entropy(wrapped(row["input_ids"][None]).logits, torch.tensor([row["labels"]]))
        gradients = torch.autograd.grad(loss, list(head.parameters()))
        assert norms[i] == pytest.approx(float(sum((g**2).sum() for g in gradients)) ** 0.5, rel=1e-4)


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [eh.ERM(), eh.PGD(source="all"), eh.EDGE(signal="biased", projection="tensor")])
def test_a_run_in_full_on_texts(method: Any, bert: Path, task: eh.BiasedSNLI, tmp_path: Path) -> None:
    result = eh.fit(method, task, str(bert), output_dir=tmp_path / "run", **QUICK)
    assert set(result.record["tests"]) == {"validation", "test", "in-distribution", "clean", "token-everywhere"}
    assert result.record["tests"]["clean"]["conflicting"] is None
    assert result.record["primary_test"] == "test"
    assert result.record["notes"] == []
    assert set(result.record["model"]) == {"name", "parameters"}
    assert not (tmp_path / "run/adapter").exists()
    if result.scores is not None:
        assert result.scores.shape == (96,)


@pytest.mark.parametrize(
    ("method", "adapters"),
    [
        (eh.ERM(), "ia3"),
        (eh.PGD(source="all"), Adapters(r=2)),
        (eh.PGD(source="extractor", init="random"), "lora"),
        (eh.PGD(init="pretrained"), "dora"),
        (eh.EDGE(signal="biased", projection="tensor"), "lora"),
        (eh.PGD(source="all"), "dora"),
        (eh.PGD(source="extractor", norm="l1"), "ia3"),
        (eh.EDGE(), "dora"),
        (eh.EDGE(), "ia3"),
    ],
)
def test_a_run_with_adapters(method: Any, adapters: Any, bert: Path, task: eh.BiasedSNLI, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = eh.fit(method, task, str(bert), peft=adapters, output_dir=folder, **QUICK)
    assert result.record["model"]["peft"] == adapters_of(adapters).kind  # type: ignore[union-attr]
    assert {p.name for p in folder.iterdir()} == {
        *("record.json", "samples.json", "predictions.parquet", "model", "adapter", "stages")
    }
    # plain transformers and plain peft give the same model
    merged = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    base = BertForSequenceClassification.from_pretrained(bert, num_labels=3, ignore_mismatched_sizes=True)
    adapted = peft.PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3], [2, 9, 8, 3]])}
    with torch.no_grad():
        logits = result.model(**inputs).logits
        assert torch.equal(merged(**inputs).logits, logits)
        torch.testing.assert_close(adapted(**inputs).logits, logits, rtol=1e-4, atol=1e-5)
    # what isn't adapted is the checkpoint's, and no path of this machine is left in any file of a model
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(
        merged.get_parameter(name), BertForSequenceClassification.from_pretrained(bert).get_parameter(name)
    )
    for path in [*(folder / "model").rglob("*"), *(folder / "adapter").rglob("*"), *(folder / "stages").rglob("*")]:
        if path.is_file():
            assert str(bert.parent).encode() not in path.read_bytes(), path
    assert json.loads((folder / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-bert"


def test_a_stopped_run_with_adapters_goes_on_with_the_same_result(
    bert: Path, task: eh.BiasedSNLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(folder: Path) -> eh.Result:
        return eh.fit(eh.PGD(source="all"), task, str(bert), peft="lora", output_dir=folder, **QUICK)

    whole = fit(tmp_path / "whole")
    with monkeypatch.context() as patched:
        real = stored_run.train_stage

        def failing(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "debiased":
                raise KeyboardInterrupt
            return real(name, *args, **kwargs)

        patched.setattr(stored_run, "train_stage", failing)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "stopped")
    stage = tmp_path / "stopped/stages/biased/model/adapter_model.safetensors"
    before = stage.stat().st_mtime_ns
    resumed = fit(tmp_path / "stopped")
    assert stage.stat().st_mtime_ns == before
    assert same(whole.model, resumed.model)
    assert whole.scores is not None
    assert resumed.scores is not None
    np.testing.assert_array_equal(whole.scores, resumed.scores)
    assert whole.metrics == resumed.metrics
    # a finished run is given back without being trained
    shutil.rmtree(tmp_path / "stopped/stages/biased")
    assert same(fit(tmp_path / "stopped").model, whole.model)


def test_adapters_are_another_run_and_hashes_without_them_are_as_before(tiny_task: Task, bert: Path) -> None:
    from evenhand.runs.configuration import Configuration
    from evenhand.training.settings import Training

    def configured(adapters: Adapters | None, **training: Any) -> Configuration:
        return Configuration(
            method=eh.ERM(),
            task=eh.BiasedSNLI(),
            model="roberta-base",
            training=Training(epochs=1, lr=0.1, batch_size=8, **training),
            seed=0,
            data_seed=0,
            adapters=adapters,
        )

    assert set(configured(None).as_dict()) == {"method", "task", "model", "training", "seed", "data_seed"}
    assert configured(None).as_dict()["model"] == {"name": "roberta-base"}
    assert "max_length" not in configured(None).as_dict()["training"]
    assert configured(None, max_length=64).as_dict()["training"]["max_length"] == 64
    hashes = {configured(a).run_hash for a in (None, Adapters(), Adapters(r=4), Adapters(kind="dora"))}
    assert len(hashes) == 4
    assert configured(Adapters(r=8)).run_hash == configured(Adapters()).run_hash


# ---- the command line -----------------------------------------------------------------------------------------------


def test_the_repeat_command_is_the_same_run(
    bert: Path, task: eh.BiasedSNLI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"train --lora erm --task biased-snli --data-dir {task.data_dir} --model {bert} --peft-r 2 --peft-targets"
    words += " query,key --pairs 60 --test-pairs 30 --epochs 1 --batch-size 16 --quiet"
    assert main([*words.split(), "--token", " ?!", "--output-dir", str(tmp_path / "run")]) == 0
    assert "Result:" in capsys.readouterr().out
    record = json.loads((tmp_path / "run/record.json").read_text())
    expected = {"peft": "lora", "peft_r": 2, "peft_alpha": 16.0, "peft_dropout": 0.1, "peft_targets": "query,key"}
    assert {name: value for name, value in record["model"].items() if "peft" in name} == expected
    assert record["data"]["train"]["n"] == 60
    command = record["command"]
    assert "--lora --peft-r 2 --peft-targets query,key" in command
    again = shlex.split(command.replace("DATA_DIR", str(task.data_dir)))[1:]
    assert main([*again, "--quiet", "--output-dir", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again/record.json").read_text())["configuration"] == record["configuration"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--peft-r 4", "The option --peft-r needs --lora or --peft."),
        ("--lora --peft dora", "--lora is short for --peft lora, so it can't be given beside --peft dora."),
        ("--peft ia3 --peft-dropout 0.2", "The adapters 'ia3' have no 'dropout': leave it out."),
        ("--lora --peft-r 0", "The 'r' parameter of the adapters must be an integer of at least 1. Got 0."),
        ("--head-only --peft-r 2", "The adapters 'head' have no 'r': leave it out."),
        ("--head-only --peft ia3", "--head-only is short for --peft head, so it can't be given beside --peft ia3."),
        ("--head-only --lora", "--lora trains adapters and --head-only none: give one of them."),
        ("--head-only", "The model 'digits-cnn' starts from random weights, so a head alone would learn from noise"),
        ("--fresh", "The model 'digits-cnn' starts from random weights anyway: leave fresh out."),
        ("--lora", "The model 'digits-cnn' starts from random weights, so there is nothing for the adapters 'lora'"),
        ("--prevalence 0.5", "The task 'colored-digits' has no option '--prevalence'."),
    ],
)
def test_bad_flags(flags: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "erm", *flags.split()]) == 2
    assert capsys.readouterr().err.startswith(f"evenhand: error: {message}")


def test_the_task_says_how_models_are_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "biased-snli"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  MiniLM (default): epochs 2, lr 0.0001, batch_size 32") for line in lines)
    assert any(line.startswith("  roberta-base with adapters (--lora, --peft): epochs 15, lr 0.0003") for line in lines)


# ---- the head alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [eh.PGD(source="all"), eh.PGD(init="random"), eh.EDGE(signal="biased", projection="tensor")]
)
def test_a_run_of_the_head_alone(method: Any, bert: Path, task: eh.BiasedSNLI, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = eh.fit(method, task, str(bert), peft="head", output_dir=folder, **QUICK)
    assert {p.name for p in folder.iterdir()} == {
        *("record.json", "samples.json", "predictions.parquet", "model", "stages")
    }
    head_size = 3 * BertForSequenceClassification.from_pretrained(bert).config.hidden_size + 3
    assert result.record["model"]["peft"] == "head"
    assert result.record["model"]["parameters"] == head_size
    # plain transformers loads all of it; what is frozen is the checkpoint's, the head is not as it was drawn
    final = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    start = source(bert, Adapters(kind="head")).pretrained(0)
    trained = {n for n, value in final.state_dict().items() if not torch.equal(value, start.state_dict()[n])}
    assert trained == {"classifier.weight", "classifier.bias"}
    # a stage holds its head only
    for stage in (folder / "stages").glob("*/model"):
        assert set(load_file(stage / "head.safetensors")) == {"classifier.weight", "classifier.bias"}
        assert not list(stage.glob("model*.safetensors"))


def test_a_stored_head_is_read_back_with_running_statistics(tmp_path: Path) -> None:
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=2)
    ResNetForImageClassification(config).save_pretrained(tmp_path / "resnet")
    made = model_source(str(tmp_path / "resnet"), "image", ("a", "b"), (3, 32, 32), Adapters(kind="head"))
    model: Any = made.pretrained(1)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["classifier.1.weight", "classifier.1.bias"]
    model.train()(pixel_values=torch.rand(4, 3, 32, 32) + 3)
    with torch.no_grad():
        model.classifier[1].bias.add_(1)
    made.save(model, tmp_path / "stage")
    loaded = made.load(tmp_path / "stage")
    assert same(model, loaded)
    assert [n for n, p in loaded.named_parameters() if p.requires_grad] == ["classifier.1.weight", "classifier.1.bias"]
    other = dataclasses.replace(made, label_names=("a", "b", "c"), adapters=Adapters(kind="head"))
    (tmp_path / "wrong").mkdir()
    save_file({"classifier.weight": torch.ones(3)}, tmp_path / "wrong/head.safetensors")
    with pytest.raises(UserError, match="is of another model"):
        other.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (eh.PGD(source="extractor"), "The 'source' parameter of PGD can't be 'extractor' where only the head trains"),
        (eh.EDGE(scope="adapters"), "The 'scope' parameter of EDGE (own signal) can't be 'adapters' where only"),
    ],
)
def test_parts_that_do_not_train_are_refused(
    method: Any, message: str, bert: Path, task: eh.BiasedSNLI, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        eh.fit(method, task, str(bert), peft="head", output_dir=tmp_path / "run", **QUICK)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_a_head_of_several_layers_has_an_extractor(tmp_path: Path) -> None:
    config = RobertaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
    )
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    check_parts(
        eh.PGD(source="extractor"), model_source(str(tmp_path), "text", ("a", "b"), None, Adapters(kind="head"))
    )


def test_heads_and_fresh_models_have_settings_and_hashes_of_their_own() -> None:
    def configured(adapters: Adapters | None = None, fresh: bool = False) -> Configuration:
        task = eh.BiasedSNLI()
        training = shipped_training(task, "MiniLM", adapters, fresh)
        return Configuration(
            method=eh.ERM(), task=task, model="MiniLM", training=training, seed=0, data_seed=0, adapters=adapters,
            fresh=fresh,
        )  # fmt: skip

    head, fresh = configured(Adapters(kind="head")), configured(fresh=True)
    assert head.training == dataclasses.replace(HEAD_TUNING, max_length=128)
    assert fresh.training == dataclasses.replace(FROM_SCRATCH, max_length=128)
    assert head.command() == "evenhand train erm --task biased-snli --head-only --seed 0"
    assert fresh.command() == "evenhand train erm --task biased-snli --fresh --seed 0"
    assert head.as_dict()["model"] == {"name": "MiniLM", "peft": "head"}
    assert fresh.as_dict()["model"] == {"name": "MiniLM", "fresh": True}
    assert configured().as_dict()["model"] == {"name": "MiniLM"}
