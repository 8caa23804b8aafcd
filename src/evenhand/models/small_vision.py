"""Small vision models that train offline in seconds, as transformers' PreTrainedModels.

Legend: B samples, C channels, H height, W width, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from evenhand.validation import UserError


class SmallVisionConfig(PreTrainedConfig):
    """Configuration of a small vision model.

    Args:
        architecture: `mlp`, `pgd-cnn` or `digits-cnn`.
        num_channels: Channels of the images.
        image_height: Height of the images in pixels.
        image_width: Width of the images in pixels.
        dropout: Dropout of `pgd-cnn` (0.5 as released); the others have none.
    """

    model_type = "evenhand-small-vision"

    architecture: str = "mlp"
    num_channels: int = 3
    image_height: int = 28
    image_width: int = 28
    dropout: float = 0.5

    def check_image_size(self) -> None:
        """Raise `UserError` if the architecture can't take images of this size."""
        needed = {"pgd-cnn": 28, "digits-cnn": 4}.get(self.architecture, 1)
        if min(self.image_height, self.image_width) < needed:
            raise UserError(
                f"The model '{self.architecture}' needs images of at least {needed}×{needed} pixels. "
                f"Got {self.image_height}×{self.image_width}."
            )


class SmallVisionModel(PreTrainedModel):
    """An image classifier: a backbone of a few layers and one Linear head, `classifier`."""

    config_class = SmallVisionConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: SmallVisionConfig) -> None:
        super().__init__(config)
        self.backbone, features = BACKBONES[config.architecture](config)
        self.classifier = nn.Linear(features, len(config.id2label or {}))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # PyTorch's own defaults, as in the papers' code, not the normal distribution of transformers.
        reset: Any = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Classify images.

        Args:
            pixel_values: Images of shape (B, C, H, W), uint8 in 0–255 or floats in [0, 1].
            labels: Classes of shape (B,), for the mean cross-entropy.

        Returns:
            `logits` of shape (B, num_labels), and `loss` if labels are given.
        """
        if pixel_values.dtype == torch.uint8:
            pixel_values = pixel_values.to(self.classifier.weight.dtype) / 255
        logits = self.classifier(self.backbone(pixel_values))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)  # type: ignore[arg-type]


def _mlp(config: SmallVisionConfig) -> tuple[nn.Sequential, int]:
    """LfF's three hidden layers of 100 units."""
    inputs = config.num_channels * config.image_height * config.image_width
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in in (inputs, 100, 100):
        layers += [nn.Linear(width_in, 100), nn.ReLU()]
    return nn.Sequential(*layers), 100


def _pgd_cnn(config: SmallVisionConfig) -> tuple[nn.Sequential, int]:
    """PGD's released CNN for Colored MNIST: 28 → 25 → 12 → 9 → 4 → 1 pixels."""

    def block(channels_in: int, channels_out: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels_in, channels_out, kernel_size=4)
        return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(), nn.Dropout(config.dropout), nn.AvgPool2d(2)]

    last = [nn.Conv2d(32, 64, kernel_size=4), nn.ReLU(), nn.BatchNorm2d(64), nn.Dropout(config.dropout)]
    pooling = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*block(config.num_channels, 8), *block(8, 32), *last, *pooling), 64


def _digits_cnn(config: SmallVisionConfig) -> tuple[nn.Sequential, int]:
    """Two convolutions and a hidden layer; 8×8 digits give 64·4·4 = 1024 features before it."""
    flat = 64 * (config.image_height // 2) * (config.image_width // 2)
    return nn.Sequential(
        nn.Conv2d(config.num_channels, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(flat, 64),
        nn.ReLU(),
    ), 64


BACKBONES: dict[str, Callable[[SmallVisionConfig], tuple[nn.Sequential, int]]] = {
    "mlp": _mlp,
    "pgd-cnn": _pgd_cnn,
    "digits-cnn": _digits_cnn,
}
"""The offline models by name; each function gives the backbone and its number of features."""
