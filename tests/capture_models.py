"""Models and inputs that tests of the gradient engine share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import peft
import torch
import torch.nn.functional as F
import transformers as tf
from torch import Tensor, nn

import reference
from evenhand.gradients import WeightedGradients
from evenhand.models.named import model_source

B, CLASSES = 5, 3


FLOAT64 = 1e-10


Inputs = dict[str, Tensor]


TEXT: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "num_labels": CLASSES,
    "pad_token_id": 0,
}


VISION: dict[str, Any] = {"image_size": 16, "num_labels": CLASSES}


def text_inputs() -> Inputs:
    """Padded to the longest, of variable lengths."""
    ids_BT = torch.randint(1, 40, (B, 9))
    mask_BT = (torch.arange(9) < torch.tensor([9, 4, 7, 5, 8])[:, None]).long()
    return {"input_ids": ids_BT * mask_BT, "attention_mask": mask_BT}


def image_inputs(size: int = 16) -> Inputs:
    return {"pixel_values": torch.randn(B, 3, size, size)}


def bert() -> tuple[nn.Module, Inputs]:
    return tf.BertForSequenceClassification(tf.BertConfig(**TEXT)), text_inputs()


def roberta() -> tuple[nn.Module, Inputs]:
    return tf.RobertaForSequenceClassification(tf.RobertaConfig(**TEXT)), text_inputs()


def distilbert() -> tuple[nn.Module, Inputs]:
    config = tf.DistilBertConfig(
        vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=20, num_labels=CLASSES
    )
    return tf.DistilBertForSequenceClassification(config), text_inputs()


def gpt2() -> tuple[nn.Module, Inputs]:
    config = tf.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=20, num_labels=CLASSES, pad_token_id=0
    )
    return tf.GPT2ForSequenceClassification(config), text_inputs()


def vit() -> tuple[nn.Module, Inputs]:
    config = tf.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, patch_size=8, **VISION
    )
    return tf.ViTForImageClassification(config), image_inputs()


def resnet(train: bool = False) -> tuple[nn.Module, Inputs]:
    config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=CLASSES)
    return tf.ResNetForImageClassification(config).train(train), image_inputs()


def convnext() -> tuple[nn.Module, Inputs]:
    config = tf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2, **VISION)
    return tf.ConvNextForImageClassification(config), image_inputs()


def swin() -> tuple[nn.Module, Inputs]:
    config = tf.SwinConfig(embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=2, patch_size=2, **VISION)
    return tf.SwinForImageClassification(config), image_inputs()


def small(architecture: str, size: int) -> tuple[nn.Module, Inputs]:
    return model_source(architecture, "image", tuple("012"), (3, size, size)).random(0), image_inputs(size)


MODELS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "bert": bert,
    "roberta": roberta,
    "distilbert": distilbert,
    "gpt2": gpt2,
    "vit": vit,
    "resnet": resnet,
    "convnext": convnext,
    "swin": swin,
    "mlp": partial(small, "mlp", 8),
    "pgd-cnn": partial(small, "pgd-cnn", 28),
    "digits-cnn": partial(small, "digits-cnn", 8),
}


ADAPTED = {
    "bert": "query|value|word_embeddings|intermediate.dense",
    "roberta": "query|value",
    "distilbert": "q_lin|v_lin",
    "gpt2": "c_attn",
    "vit": "q_proj|v_proj|query|value|projection",
    "resnet": "convolution",
    "convnext": "pwconv1|pwconv2|downsampling_layer.1",
    "swin": "q_proj|v_proj",
    "mlp": r"backbone\.(1|3|5)",
    "pgd-cnn": r"backbone\.(0|5|10)",
    "digits-cnn": r"backbone\.0",
}


def randomized(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, away from zeros and ones: LoRA's B, scales, biases."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return model.double()


def made(name: str, adapter: str = "full", double: bool = True) -> tuple[nn.Module, Inputs]:
    model, inputs = MODELS[name]()
    model.eval()
    if adapter in ("lora", "dora"):
        config = peft.LoraConfig(
            r=2,
            target_modules=rf"(.*\.)?({ADAPTED[name]})",
            modules_to_save=["score" if name == "gpt2" else "classifier"],
            use_dora=adapter == "dora",
            fan_in_fan_out=name == "gpt2",
        )
        model = peft.get_peft_model(model, config).eval()  # type: ignore[arg-type]
    elif adapter == "ia3":
        config = peft.IA3Config(target_modules=["key", "value"], feedforward_modules=[], modules_to_save=["classifier"])
        model = peft.get_peft_model(model, config).eval()  # type: ignore[arg-type]
    model = randomized(model)
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    return (model if double else model.float()), inputs if double else {
        k: v.float() if v.is_floating_point() else v for k, v in inputs.items()
    }


def logits_of(model: nn.Module, inputs: Inputs) -> Tensor:
    output = model(**inputs)
    return output if isinstance(output, Tensor) else output.logits


def expected_by_autograd(
    model: nn.Module, inputs: Inputs, labels_B: Tensor, weight_B: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """e and b from one backward of each loss, where samples depend on each other or draw noise."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = []
    loss_B = F.cross_entropy(logits_of(model, inputs), labels_B, reduction="none")
    for weights in (torch.ones_like(weight_B), weight_B):
        gradients = torch.autograd.grad((weights * loss_B).mean(), list(named.values()), retain_graph=True)
        found.append(dict(zip(named, gradients, strict=True)))
    return found[0], found[1]


def assert_close(ours: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    total = float(torch.stack([g.double().norm() for g in expected.values()]).norm())
    errors = {
        name: reference.relative_error(ours.get(name, torch.zeros_like(g)), g, total) for name, g in expected.items()
    }
    assert {name: error for name, error in errors.items() if not error <= tolerance} == {}


def gradients_in(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def second(engine: WeightedGradients) -> list[str]:
    return [name for name, route in engine.coverage().items() if route != "single backward"]
