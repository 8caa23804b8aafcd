from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from evenhand.models.small_vision import BACKBONES, SmallVisionConfig, SmallVisionModel
from evenhand.models.source import load_model
from evenhand.validation import UserError


def make(architecture: str, channels: int = 3, height: int = 28, width: int = 28, classes: int = 10) -> Any:
    names = [f"class {i}" for i in range(classes)]
    return SmallVisionModel(
        SmallVisionConfig(
            architecture=architecture,
            num_channels=channels,
            image_height=height,
            image_width=width,
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )
    )


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


LAYERS = {
    "mlp": "Flatten Linear ReLU Linear ReLU Linear ReLU",
    "pgd-cnn": (
        "Conv2d BatchNorm2d ReLU Dropout AvgPool2d Conv2d BatchNorm2d ReLU Dropout AvgPool2d "
        "Conv2d ReLU BatchNorm2d Dropout AdaptiveAvgPool2d Flatten"
    ),
    "digits-cnn": "Conv2d ReLU MaxPool2d Conv2d ReLU Flatten Linear ReLU",
}


@pytest.mark.parametrize("architecture", list(BACKBONES))
def test_layers_are_the_papers(architecture: str) -> None:
    model = make(architecture)
    assert [type(layer).__name__ for layer in model.backbone] == LAYERS[architecture].split()
    assert isinstance(model.classifier, nn.Linear)


def test_convolutions_have_the_papers_kernels() -> None:
    assert [
        (c.in_channels, c.out_channels, c.kernel_size, c.padding)
        for name in ("pgd-cnn", "digits-cnn")
        for c in make(name).backbone
        if isinstance(c, nn.Conv2d)
    ] == [
        (3, 8, (4, 4), (0, 0)),
        (8, 32, (4, 4), (0, 0)),
        (32, 64, (4, 4), (0, 0)),
        (3, 32, (3, 3), (1, 1)),
        (32, 64, (3, 3), (1, 1)),
    ]
    assert {layer.p for layer in make("pgd-cnn").backbone if isinstance(layer, nn.Dropout)} == {0.5}


def test_parameter_counts_by_hand() -> None:
    # weights + biases of each layer; 3·28·28 = 2352 inputs
    mlp = (2352 * 100 + 100) + 2 * (100 * 100 + 100) + (100 * 10 + 10)
    assert parameters(make("mlp")) == mlp == 256_510
    # convolutions 4×4, batch norms with scale and shift
    pgd = (3 * 8 * 16 + 8) + 16 + (8 * 32 * 16 + 32) + 64 + (32 * 64 * 16 + 64) + 128 + (64 * 10 + 10)
    assert parameters(make("pgd-cnn")) == pgd == 38_210
    # convolutions 3×3; 8×8 pixels leave 64·4·4 = 1024 features
    digits = (3 * 32 * 9 + 32) + (32 * 64 * 9 + 64) + (1024 * 64 + 64) + (64 * 10 + 10)
    assert parameters(make("digits-cnn", height=8, width=8)) == digits == 85_642


@given(
    architecture=st.sampled_from(["mlp", "digits-cnn"]),
    channels=st.integers(1, 4),
    height=st.integers(4, 15),
    width=st.integers(4, 15),
    classes=st.integers(2, 12),
    batch=st.integers(1, 3),
)
@settings(max_examples=25)
def test_output_is_one_row_of_classes_a_sample(
    architecture: str, channels: int, height: int, width: int, classes: int, batch: int
) -> None:
    model = make(architecture, channels, height, width, classes)
    assert model(torch.rand(batch, channels, height, width)).logits.shape == (batch, classes)
    assert model.config.num_labels == classes


@pytest.mark.parametrize(("height", "width"), [(28, 28), (30, 41)])
def test_pgd_cnn_takes_any_image_from_28_pixels_on(height: int, width: int) -> None:
    assert make("pgd-cnn", 1, height, width)(torch.rand(2, 1, height, width)).logits.shape == (2, 10)


@pytest.mark.parametrize("architecture", list(BACKBONES))
def test_bytes_are_floats_over_255(architecture: str) -> None:
    model = make(architecture).eval()
    image = torch.randint(0, 256, (4, 3, 28, 28), dtype=torch.uint8)
    assert torch.equal(model(image).logits, model(image.float() / 255).logits)


def test_the_loss_is_the_mean_cross_entropy() -> None:
    model, image, labels = make("mlp"), torch.rand(5, 3, 28, 28), torch.tensor([1, 0, 9, 3, 3])
    with torch.no_grad():
        output = model(image, labels)
    by_hand = -sum(math.log(output.logits[i].softmax(0)[label]) for i, label in enumerate(labels.tolist())) / 5
    assert output.loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert model(image).loss is None


@pytest.mark.parametrize("architecture", list(BACKBONES))
def test_initial_weights_are_pytorchs_defaults(architecture: str) -> None:
    for module in make(architecture).modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            bound = 1 / math.sqrt(module.weight[0].numel())  # uniform in ±1/√fan_in, weights and biases
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
            assert module.bias.abs().max() <= bound
            assert module.bias.abs().max() > 0
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


@pytest.mark.parametrize("architecture", list(BACKBONES))
def test_a_saved_model_comes_back_bit_for_bit(architecture: str, tmp_path: Path) -> None:
    model = make(architecture, classes=4)
    image = torch.rand(8, 3, 28, 28)
    model.train()(image)  # moves the running statistics of batch norms away from their initial values
    model.eval().save_pretrained(tmp_path)
    loaded = load_model(tmp_path).eval()
    assert isinstance(loaded, SmallVisionModel)
    assert loaded.config.id2label == {0: "class 0", 1: "class 1", 2: "class 2", 3: "class 3"}
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert torch.equal(loaded(image).logits, model(image).logits)


@pytest.mark.parametrize(
    ("architecture", "height", "width", "needed"), [("pgd-cnn", 27, 28, 28), ("digits-cnn", 8, 3, 4), ("mlp", 0, 8, 1)]
)
def test_too_small_images_are_refused(architecture: str, height: int, width: int, needed: int) -> None:
    with pytest.raises(UserError) as caught:
        SmallVisionConfig(architecture=architecture, image_height=height, image_width=width).check_image_size()
    assert str(caught.value) == (
        f"The model '{architecture}' needs images of at least {needed}×{needed} pixels. Got {height}×{width}."
    )


@pytest.mark.parametrize(("architecture", "size"), [("pgd-cnn", 28), ("digits-cnn", 4), ("mlp", 1)])
def test_the_smallest_image_works(architecture: str, size: int) -> None:
    SmallVisionConfig(architecture=architecture, image_height=size, image_width=size).check_image_size()
    assert make(architecture, height=size, width=size)(torch.rand(2, 3, size, size)).logits.shape == (2, 10)
