"""Small models, data and arguments that tests of the Trainer share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft
import pytest
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

import evenhand as eh
from evenhand.models.named import model_source

CLASSES = 3


def text_model(dropout: float = 0.1) -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=CLASSES,
    )
    return BertForSequenceClassification(config)


def image_model() -> Any:
    return model_source("digits-cnn", "image", tuple("012"), (3, 8, 8)).random(0)


def text_data(n: int = 40) -> datasets.Dataset:
    rng = np.random.default_rng(0)
    return datasets.Dataset.from_dict(
        {
            "input_ids": rng.integers(1, 50, (n, 8)).tolist(),
            "attention_mask": np.ones((n, 8), dtype=int).tolist(),
            "labels": rng.integers(0, CLASSES, n).tolist(),
        }
    )


def image_data(n: int = 40) -> datasets.Dataset:
    rng = np.random.default_rng(0)
    images, labels = rng.random((n, 3, 8, 8)).astype(np.float32), rng.integers(0, CLASSES, n)
    return datasets.Dataset.from_dict({"pixel_values": images.tolist(), "labels": labels.tolist()})


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**(settings | changes))


def trained(
    folder: Path,
    model: Any,
    data: Any,
    trainer_class: Any = eh.Trainer,
    trainer: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, torch.Tensor]:
    """The weights after training."""
    trainer_class(model, arguments(folder, **changes), train_dataset=data, **(trainer or {})).train()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def assert_same_to_rounding(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-5
) -> None:
    total = math.sqrt(sum(float(p.square().sum()) for p in theirs.values()))
    for name, p in theirs.items():
        assert float((ours[name] - p).norm()) <= tolerance * max(float(p.norm()), 1e-6 * total), name


def refused(
    folder: Path, match: str, model: Any = None, data: Any = None, changes: dict[str, Any] | None = None, **options: Any
) -> None:
    with pytest.raises(eh.UserError, match=match):
        eh.Trainer(
            model or image_model(),
            arguments(folder, **(changes or {})),
            train_dataset=data or image_data(12),
            **options,
        )


def with_lora(model: Any, targets: list[str], away_from_zero: bool = True, **settings: Any) -> Any:
    """LoRA whose B isn't 0 at the start, so that every gradient is there from the first step."""
    torch.manual_seed(1)
    config = peft.LoraConfig(
        task_type="SEQ_CLS" if "query" in targets else None,
        target_modules=targets,
        init_lora_weights=not away_from_zero,
        **settings,
    )
    return peft.get_peft_model(model, config)


def vit_model() -> Any:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_labels=CLASSES,
    )
    return transformers.ViTForImageClassification(config)
