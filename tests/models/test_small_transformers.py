from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import evenhand as eh
from evenhand.models.heads import head_of
from evenhand.models.named import model_source
from evenhand.models.small_transformers import IMAGE_MODELS, POSITIONS, SPECIAL_TOKENS, VOCABULARY, trained_tokenizer
from evenhand.models.source import ModelSource
from evenhand.tasks import Task
from evenhand.validation import UserError

CORPUS = ("The soup was cold.", "the bed was shabby", "The room was lovely, frankly.")


def notes(corpus: tuple[str, ...] = CORPUS) -> ModelSource:
    return model_source("tiny-bert", "text", ("good", "bad"), texts=lambda: iter(corpus))


def pictures(name: str, height: int = 8, width: int = 8) -> ModelSource:
    return model_source(name, "image", ("cat", "dog", "owl"), (3, height, width))


# ---- tiny-bert ------------------------------------------------------------------------------------------------------


def test_words_are_numbered_by_frequency_then_alphabet() -> None:
    tokens = sorted((number, token) for token, number in trained_tokenizer(CORPUS).get_vocab().items())
    assert [number for number, _ in tokens] == list(range(len(tokens)))
    names = [token for _, token in tokens]
    assert names[:5] == list(SPECIAL_TOKENS)
    words = [name for name in names[5:] if len(name.removeprefix("##")) > 1]
    assert words == ["the", "was", "bed", "cold", "frankly", "lovely", "room", "shabby", "soup"]


def test_the_order_of_texts_does_not_matter() -> None:
    assert trained_tokenizer(CORPUS).get_vocab() == trained_tokenizer(CORPUS[::-1]).get_vocab()


def test_words_are_one_token_and_unknown_ones_are_cut() -> None:
    tokenizer = trained_tokenizer(CORPUS)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Soup was bedroom, 金").input_ids)
    assert tokens == ["[CLS]", "soup", "was", "bed", "##r", "##o", "##o", "##m", ",", "[UNK]", "[SEP]"]


def test_pairs_are_told_apart() -> None:
    tokens = trained_tokenizer(CORPUS)("the soup", "the bed")
    assert tokens.token_type_ids == [0, 0, 0, 0, 1, 1, 1]


def test_a_large_vocabulary_is_cut_to_the_most_frequent_words() -> None:
    letters = "abcdefghijklmnop"
    rare = [a + b + c + d for a in letters for b in letters for c in letters for d in letters[:2]]
    tokenizer = trained_tokenizer([" ".join(rare), "often again", "often again"])
    assert len(tokenizer) == VOCABULARY
    assert len(tokenizer("often again").input_ids) == 4


@pytest.mark.parametrize(("asked", "cut"), [(None, POSITIONS), (10, 10)])
def test_texts_are_cut_to_the_positions(asked: int | None, cut: int) -> None:
    preprocess, _ = notes().preprocessor(asked)
    assert preprocess({"text": ["soup " * 300]})["input_ids"].shape == (1, cut)


def test_tiny_bert_loads_without_evenhand(tmp_path: Path) -> None:
    source = notes()
    preprocess, tokenizer = source.preprocessor()
    model = source.random(3).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["The soup was cold, honestly.", "The bed."]
    inputs = AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
    ours = preprocess({"text": texts})
    assert set(inputs) == set(ours)
    assert all(torch.equal(inputs[name], ours[name]) for name in ours)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert plain.config.vocab_size == VOCABULARY
    assert plain.config.id2label == {0: "good", 1: "bad"}
    assert torch.equal(plain(**inputs).logits, model(**ours).logits)


def test_tiny_bert_reads_no_images() -> None:
    with pytest.raises(UserError) as caught:
        pictures("tiny-bert").config()
    assert str(caught.value) == "The model 'tiny-bert' takes texts, but the task's inputs are image."


# ---- image models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(IMAGE_MODELS))
@pytest.mark.parametrize(("size", "side"), [((8, 8), 32), ((28, 28), 32), ((64, 48), 64)])
def test_image_models_load_without_evenhand(name: str, size: tuple[int, int], side: int, tmp_path: Path) -> None:
    source = pictures(name, *size)
    preprocess, processor = source.preprocessor()
    model = source.random(0).eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (2, 3, *size), dtype=np.uint8)
    inputs = preprocess({"pixel_values": image})
    assert inputs["pixel_values"].shape == (2, 3, side, side)
    plain = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    theirs = loaded([Image.fromarray(i.transpose(1, 2, 0)) for i in image], return_tensors="pt")
    assert torch.equal(theirs["pixel_values"], inputs["pixel_values"])
    assert torch.equal(plain(**theirs).logits, model(**inputs).logits)
    assert plain.config.id2label == {0: "cat", 1: "dog", 2: "owl"}


@pytest.mark.parametrize("name", list(IMAGE_MODELS))
def test_image_models_read_no_texts(name: str) -> None:
    with pytest.raises(UserError) as caught:
        model_source(name, "text", ("a", "b")).config()
    assert str(caught.value) == f"The model '{name}' takes images, but the task's inputs are text."


@pytest.mark.parametrize("name", ["tiny-bert", *IMAGE_MODELS])
def test_they_start_from_random_weights_drawn_by_the_seed(name: str) -> None:
    source = notes() if name == "tiny-bert" else pictures(name)
    assert source.is_small
    first, again, other = source.pretrained(5), source.random(5), source.random(6)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    head = f"{head_of(first)[0]}.weight"
    assert not torch.equal(first.get_parameter(head), other.get_parameter(head))


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(IMAGE_MODELS))
def test_a_run_with_an_image_model(name: str, tiny_task: Task, tmp_path: Path) -> None:
    method = eh.EDGE(projection="tensor")
    result = eh.fit(method, tiny_task, name, output_dir=tmp_path / "run", epochs=1, batch_size=48)
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "run/model").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "run/model")
    image = np.asarray(tiny_task.tests["test"][0]["pixel_values"], dtype=np.uint8).transpose(1, 2, 0)
    inputs = processor([Image.fromarray(image)], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(plain(**inputs).logits, result.model(**inputs).logits)
    assert result.record["training"]["optimizer"] == "adamw"
