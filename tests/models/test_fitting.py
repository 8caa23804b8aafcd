"""Checkpoints of several architectures, made from configurations, are brought in line with the run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

import evenhand as eh
from evenhand.data.inputs import with_channels
from evenhand.models.adapters import Adapters
from evenhand.models.fitting import class_numbers, class_order
from evenhand.models.named import MINILM, model_source
from evenhand.models.saved import load_model
from evenhand.validation import UserError

TOKENS = ("<pad>", "<end>", "a", "b", "c", "d", "e", "f")
CLASSES = ("bad", "good", "odd")
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
    "vocab_size": len(TOKENS),
}
DECODER: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None}


def named(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def tokenizer(*, added: int = 0, **special: str) -> Any:
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="a"))  # type: ignore[call-arg]
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    made = tf.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=16, unk_token="a", **special)
    made.add_tokens([f"new{i}" for i in range(added)])
    return made


def saved(folder: Path, model: Any, processor: Any = None) -> Path:
    model.save_pretrained(folder)
    (tokenizer(pad_token="<pad>") if processor is None else processor).save_pretrained(folder)
    return folder


def bert(**changes: Any) -> Any:
    torch.manual_seed(0)
    return tf.BertForSequenceClassification(tf.BertConfig(**SMALL | changes))


def gpt2(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = tf.GPT2Config(vocab_size=len(TOKENS), n_positions=32, n_embd=16, n_layer=1, n_head=2, **DECODER | changes)
    return tf.GPT2ForSequenceClassification(config)


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    return tf.LlamaForSequenceClassification(tf.LlamaConfig(**SMALL | DECODER | changes))


def texts(folder: Path, names: tuple[str, ...] = CLASSES, **more: Any) -> Any:
    return model_source(str(folder), "text", names, **more)


def logits(model: Any, source: Any, rows: list[str]) -> torch.Tensor:
    preprocess, _ = source.preprocessor()
    with torch.no_grad():
        return model.eval()(**preprocess({"text": rows})).logits


# ---- float32 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_loaded_drawn_and_adapted_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    saved(tmp_path, bert(num_labels=3).to(dtype))
    source = texts(tmp_path)
    adapted = texts(tmp_path, adapters=Adapters(kind="lora"))
    for model in (source.pretrained(0), source.random(0), adapted.pretrained(0), load_model(tmp_path)):
        assert {p.dtype for p in model.parameters()} == {torch.float32}


# ---- padding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [None, -1, 3, 99])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_decoder_finds_the_last_token_of_a_padded_text(make: Any, stored: int | None, tmp_path: Path) -> None:
    saved(tmp_path, make(num_labels=3))
    config = tf.AutoConfig.from_pretrained(tmp_path)
    config.pad_token_id = stored
    config.save_pretrained(tmp_path)
    source = texts(tmp_path)
    model: Any = source.pretrained(0)
    assert model.config.pad_token_id == 0
    together = logits(model, source, ["c", "a b c d e f"])
    torch.testing.assert_close(together[:1], logits(model, source, ["c"]))
    told = [note for note in source.notes() if "padding" in note]
    assert len(told) == (stored in (3, 99)) or stored == -1


def test_the_end_of_text_pads_where_nothing_else_does_and_it_is_said(tmp_path: Path) -> None:
    saved(tmp_path, gpt2(num_labels=3), tokenizer(eos_token="<end>"))
    source = texts(tmp_path)
    model: Any = source.pretrained(0)
    assert model.config.pad_token_id == 1
    torch.testing.assert_close(logits(model, source, ["c", "a b c d"])[:1], logits(model, source, ["c"]))
    assert source.notes() == [
        f"The tokenizer of the model '{tmp_path}' has no padding token: its end of text, '<end>', is used."
    ]
    again = tmp_path / "again"
    source.save(model, again)
    source.preprocessor()[1].save_pretrained(again)
    assert texts(again).notes() == []


def test_positions_that_count_from_the_padding_token_stay(tmp_path: Path) -> None:
    model = tf.RobertaForSequenceClassification(tf.RobertaConfig(**SMALL | {"pad_token_id": 1}, num_labels=3))  # pyright: ignore[reportCallIssue]
    source = texts(saved(tmp_path, model))
    loaded: Any = source.pretrained(0)
    assert loaded.config.pad_token_id == 1
    torch.testing.assert_close(logits(loaded, source, ["c d", "c d e f a"])[:1], logits(loaded, source, ["c d"]))


# ---- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [bert, gpt2, llama])
@pytest.mark.parametrize("adapters", [None, Adapters(kind="head"), Adapters(kind="lora")])
def test_added_tokens_get_rows_that_are_saved(make: Any, adapters: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", make(num_labels=3), tokenizer(added=3, pad_token="<pad>", eos_token="<end>"))
    if adapters is not None and adapters.kind == "lora" and make is not bert:
        adapters = Adapters(kind="lora", targets="all-linear")
    source = texts(folder, adapters=adapters)
    model: Any = source.pretrained(0)
    assert model.get_input_embeddings().num_embeddings == len(TOKENS) + 3
    before = logits(model, source, ["new0 a new2"])
    assert before.isfinite().all()
    assert [n.split(" has ", 1)[1] for n in source.notes() if "rows" in n] == [
        "3 tokens more than the model's embedding has rows: rows were added, which start from random values"
        + (", and stay as they are, since the embedding is frozen." if adapters else ".")
    ]
    source.save(model, tmp_path / "saved")
    torch.testing.assert_close(logits(source.load(tmp_path / "saved"), source, ["new0 a new2"]), before)


def test_saved_adapters_hold_the_rows_that_the_base_lacks(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", bert(num_labels=3), tokenizer(added=2, pad_token="<pad>"))
    source = texts(folder, adapters=Adapters(kind="lora"))
    model = source.pretrained(0)
    source.save(model, tmp_path / "adapter")
    base: Any = tf.AutoModelForSequenceClassification.from_pretrained(folder)
    base.resize_token_embeddings(len(TOKENS) + 2)
    with warnings.catch_warnings():  # peft asks for a name that transformers will drop
        warnings.simplefilter("ignore", FutureWarning)
        plain = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"), torch_device="cpu")
    torch.testing.assert_close(logits(plain, source, ["new0 new1"]), logits(model, source, ["new0 new1"]))


def test_a_model_is_evaluated_with_the_tokens_that_it_lacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = gpt2(**named("bad", "good"))
    saved(tmp_path, model, tokenizer(added=2, eos_token="<end>"))
    import datasets

    rows = {"text": ["new0 a", "b c d e", "new1"] * 2, "labels": [0, 1] * 3}
    split = datasets.Dataset.from_dict(
        rows,
        datasets.Features({"text": datasets.Value("string"), "labels": datasets.ClassLabel(names=["Bad", "GOOD"])}),
    )
    found = eh.evaluate(tmp_path, split)["data"]
    assert len(found.predictions) == 6
    assert "rows were added" in caplog.text
    assert "end of text" in caplog.text


# ---- classes --------------------------------------------------------------------------------------------------------


def vit_like(kind: str) -> Any:
    torch.manual_seed(0)
    shapes: dict[str, Any] = {
        "vit": lambda: tf.ViTForImageClassification(
            tf.ViTConfig(
                **{k: v for k, v in SMALL.items() if "vocab" not in k and "posit" not in k},
                image_size=16,
                patch_size=8,
                **named("odd", "bad", "good"),
            )
        ),
        "resnet": lambda: tf.ResNetForImageClassification(
            tf.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", **named("odd", "bad", "good")
            )
        ),
        "mobilenet": lambda: tf.MobileNetV2ForImageClassification(
            tf.MobileNetV2Config(depth_multiplier=0.1, image_size=32, **named("odd", "bad", "good"))
        ),
    }
    return shapes[kind]()


TEXT_HEADS: dict[str, Any] = {
    "bert": lambda: bert(**named("odd", "bad", "good")),
    "gpt2": lambda: gpt2(**named("odd", "bad", "good")),
    "roberta": lambda: tf.RobertaForSequenceClassification(
        tf.RobertaConfig(**SMALL | {"pad_token_id": 1, "hidden_size": 16}, **named("odd", "bad", "good"))
    ),
    # as wide as it has classes, so that other layers look like its head
    "narrow": lambda: tf.RobertaForSequenceClassification(
        tf.RobertaConfig(
            **SMALL | {"pad_token_id": 1, "hidden_size": 3, "num_attention_heads": 1}, **named("odd", "bad", "good")
        )
    ),
    "deberta": lambda: tf.DebertaV2ForSequenceClassification(
        tf.DebertaV2Config(**SMALL, type_vocab_size=0, **named("odd", "bad", "good"))
    ),
    "bart": lambda: tf.BartForSequenceClassification(
        tf.BartConfig(
            vocab_size=len(TOKENS),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            max_position_embeddings=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
            decoder_start_token_id=1,
            forced_eos_token_id=1,
            **named("odd", "bad", "good"),
        )
    ),
}


@pytest.mark.parametrize("kind", [*TEXT_HEADS])
def test_the_heads_rows_go_with_the_names_of_their_classes(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TEXT_HEADS[kind]()
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    source = texts(saved(tmp_path, model))
    loaded: Any = source.pretrained(0)
    inputs = {"input_ids": torch.tensor([[2, 3, 4, 5, 1]])}
    with torch.no_grad():
        theirs, ours = model.eval()(**inputs).logits, loaded.eval()(**inputs).logits
    torch.testing.assert_close(ours, theirs[:, [1, 2, 0]])
    assert loaded.config.id2label == dict(enumerate(CLASSES))
    assert source.notes() == [
        f"The head of the model '{tmp_path}' has the classes odd, bad, good: their weights were put in the order of "
        "the task's, bad, good, odd."
    ]


@pytest.mark.parametrize("kind", ["vit", "resnet", "mobilenet"])
def test_the_heads_of_image_models_too(kind: str, tmp_path: Path) -> None:
    model = vit_like(kind)
    model.save_pretrained(tmp_path)
    loaded: Any = model_source(str(tmp_path), "image", CLASSES, (3, 16, 16)).pretrained(0)
    image = torch.rand(2, 3, 32 if kind == "mobilenet" else 16, 32 if kind == "mobilenet" else 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(image).logits, model.eval()(image).logits[:, [1, 2, 0]])


def test_adapters_and_the_head_alone_start_from_the_same_rows(tmp_path: Path) -> None:
    model = bert(**named("odd", "bad", "good"))
    saved(tmp_path, model)
    expected = logits(model, texts(tmp_path), ["a b c"])[:, [1, 2, 0]]
    for kind in ("lora", "head"):
        source = texts(tmp_path, adapters=Adapters(kind=kind))  # type: ignore[arg-type]
        torch.testing.assert_close(logits(source.pretrained(0), source, ["a b c"]), expected)


def test_case_names_without_meaning_and_other_names(tmp_path: Path) -> None:
    for stored, order, told in (
        (("ODD", "Bad", "good"), [1, 2, 0], "put in the order"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2], ""),
        (("x", "y", "z"), [0, 1, 2], "other names"),
        (("good", "new", "bad"), [2, 0, 1], "put in the order"),
    ):
        folder = tmp_path / stored[0]
        model = bert(**named(*stored))
        source = texts(saved(folder, model))
        loaded: Any = source.pretrained(0)
        torch.testing.assert_close(loaded.classifier.weight, model.classifier.weight[order])
        assert told in " ".join(source.notes())
        assert bool(told) == bool(source.notes())


@given(st.permutations(["a", "A", "b", "c", "D"]), st.permutations(["a", "A", "b", "C", "d"]))
@settings(max_examples=30, deadline=None)
def test_an_order_is_a_permutation_that_matches_names(theirs: list[str], ours: list[str]) -> None:
    order = class_order(theirs, ours)
    assert sorted(order) == list(range(5))
    assert [theirs[i].casefold() for i in order] == [name.casefold() for name in ours]
    assert all(theirs[i] == name for i, name in zip(order, ours, strict=True) if name in "aA")
    assert class_numbers(["x", "B"], theirs) == [None, theirs.index("b")]


def test_a_head_whose_classes_cannot_be_found_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, bert(**named("odd", "bad", "good")))
    monkeypatch.setattr("evenhand.models.named.class_axes", lambda *_models: {})
    with pytest.raises(UserError, match="which of its weights belong to which class is unknown"):
        texts(tmp_path).pretrained(0)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_other_problems_become_one_class_a_row(problem: str, tmp_path: Path) -> None:
    source = texts(saved(tmp_path, bert(num_labels=6, problem_type=problem)))
    assert source.config().problem_type == "single_label_classification"
    assert f"was made for {problem.replace('_', ' ')}; here each row has one class." in source.notes()[0]


# ---- channels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [1, 3, 4])
@pytest.mark.parametrize("given_channels", [1, 3, "pictures"])
def test_images_take_the_models_channels(taken: int, given_channels: Any, tmp_path: Path) -> None:
    config = tf.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        num_channels=taken,
        num_labels=3,  # pyright: ignore[reportCallIssue]
    )
    saved(tmp_path, tf.ViTForImageClassification(config), tf.ViTImageProcessorPil(size={"height": 16, "width": 16}))
    rng = np.random.default_rng(0)
    pictures = given_channels == "pictures"
    shape = (3, 8, 8) if pictures else (given_channels, 8, 8)
    source = model_source(str(tmp_path), "image", CLASSES, shape)
    pixels = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    rows = {"image": [Image.fromarray(p.transpose(1, 2, 0)) for p in pixels]} if pictures else {"pixel_values": pixels}
    preprocess, _ = source.preprocessor()
    batch = preprocess(rows)
    assert batch["pixel_values"].shape == (2, taken, 16, 16)
    assert source.pretrained(0)(**batch).logits.shape == (2, 3)
    assert bool(source.notes()) == (taken != shape[0])


def test_channels_by_hand() -> None:
    gray = np.array([[[7]]], dtype=np.uint8)
    np.testing.assert_array_equal(with_channels(gray, 3), [[[7, 7, 7]]])
    np.testing.assert_array_equal(with_channels(gray, 4), [[[7, 7, 7, 255]]])
    colour = np.array([[[255, 0, 0]]], dtype=np.uint8)
    np.testing.assert_array_equal(with_channels(colour, 1), [[[76]]])
    np.testing.assert_array_equal(with_channels(with_channels(colour, 4), 3), colour)


def test_images_of_two_channels_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, vit_like("vit"), tf.ViTImageProcessorPil(size={"height": 16, "width": 16}))
    with pytest.raises(UserError, match="takes images of 3 channels, but the task's have 2"):
        model_source(str(tmp_path), "image", CLASSES, (2, 8, 8)).config()


def test_small_models_take_gray_images_and_saved_ones_their_own_size(tmp_path: Path) -> None:
    source = model_source("small-vit", "image", CLASSES, (1, 8, 8))
    batch = source.preprocessor()[0]({"pixel_values": np.zeros((2, 1, 8, 8), dtype=np.uint8)})
    assert source.random(0)(**batch).logits.shape == (2, 3)
    model_source("digits-cnn", "image", CLASSES, (1, 8, 8)).random(0).save_pretrained(str(tmp_path))
    with pytest.raises(UserError, match=r"takes images of 1×8×8, but the task's are 3×8×8\."):
        model_source(str(tmp_path), "image", CLASSES, (3, 8, 8)).config()


# ---- adapters for others --------------------------------------------------------------------------------------------


def test_the_default_models_adapters_load_in_plain_peft(tmp_path: Path) -> None:
    source = model_source(MINILM, "text", CLASSES, adapters=Adapters(kind="lora"))
    model = source.pretrained(0)
    source.save(model, tmp_path)
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert config.base_model_name_or_path == "sentence-transformers/all-MiniLM-L6-v2"
    assert not any("word_embeddings" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    config.base_model_name_or_path = "MiniLM"  # as it was written before
    config.save_pretrained(str(tmp_path))
    torch.testing.assert_close(
        logits(source.load(tmp_path), source, ["a cat sat"]), logits(model, source, ["a cat sat"])
    )
