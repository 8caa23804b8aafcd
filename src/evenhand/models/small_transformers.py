"""Small models of transformers' own architectures, made from a configuration: random start, no network.

Plain transformers loads what is saved of them, with tokenizer or image processor, without evenhand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ViTConfig,
    ViTImageProcessorPil,
)

VOCABULARY = 4096
"""Tokens of `tiny-bert`, of which a small corpus fills a part."""

POSITIONS = 128
"""The longest text of `tiny-bert`, in tokens."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

ImageShape = tuple[int, int, int]


def image_side(shape: ImageShape) -> int:
    """Pixels a side that images are scaled to: 32, or 64 where they are larger."""
    return 32 if max(shape[1:]) <= 32 else 64


def _tiny_bert(labels: dict[str, Any], shape: ImageShape | None) -> PreTrainedConfig:
    """A BERT of two layers, some 0.4 million parameters."""
    del shape
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=POSITIONS,
        # from random weights so small a model learns in a few epochs only with larger ones than BERT's, and no dropout
        initializer_range=0.05,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **labels,
    )


def _small_vit(labels: dict[str, Any], shape: ImageShape | None) -> PreTrainedConfig:
    """A ViT of four layers on 64 patches."""
    assert shape is not None
    side = image_side(shape)
    return ViTConfig(
        image_size=side,
        patch_size=side // 8,
        num_channels=shape[0],
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        **labels,
    )


def _small_resnet(labels: dict[str, Any], shape: ImageShape | None) -> PreTrainedConfig:
    """A ResNet of three stages of basic blocks."""
    assert shape is not None
    return ResNetConfig(
        num_channels=shape[0],
        embedding_size=32,
        hidden_sizes=[32, 64, 128],
        depths=[1, 1, 1],
        layer_type="basic",
        **labels,
    )


TEXT_MODELS: dict[str, Callable[[dict[str, Any], ImageShape | None], PreTrainedConfig]] = {"tiny-bert": _tiny_bert}
"""Text models by name: their configuration for labels."""

IMAGE_MODELS: dict[str, Callable[[dict[str, Any], ImageShape | None], PreTrainedConfig]] = {
    "small-vit": _small_vit,
    "small-resnet": _small_resnet,
}
"""Image models by name: their configuration for labels and the images' shape."""

ARCHITECTURES = {**TEXT_MODELS, **IMAGE_MODELS}


def trained_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer for these texts: their most frequent words are tokens, other words are cut into shorter ones.

    Equal texts give the same tokens in any process: words are sorted by frequency, then alphabetically.
    (WordPiece's own trainer numbers them by the order in a hash table.)
    """
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counting = Tokenizer(models.WordLevel(unk_token=SPECIAL_TOKENS[1]))  # type: ignore[call-arg]
    counting.normalizer, counting.pre_tokenizer = normalizer, splitter
    trainer = trainers.WordLevelTrainer(  # type: ignore[call-arg]
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    counting.train_from_iterator(iter(texts), trainer)
    by_rank = counting.get_vocab()
    words = sorted(by_rank, key=by_rank.__getitem__)
    letters = sorted({letter for word in words[len(SPECIAL_TOKENS) :] for letter in word})
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    tokens = list(dict.fromkeys([*SPECIAL_TOKENS, *_kept(pieces), *words]))[:VOCABULARY]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS[1]))  # type: ignore[call-arg]
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    cls, sep = (("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"]))
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _kept(pieces: Sequence[str]) -> Sequence[str]:
    """Single letters, unless a script has so many that they would leave no room for words."""
    return pieces if len(pieces) <= VOCABULARY // 4 else ()


def image_processor(shape: ImageShape) -> Any:
    """Scales images to the model's size and their values to [-1, 1]; works on PIL's images, without torchvision."""
    side = image_side(shape)
    return ViTImageProcessorPil(size={"height": side, "width": side})
