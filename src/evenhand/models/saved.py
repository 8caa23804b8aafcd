"""Trained models in their folders, or on the hub: reading them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from evenhand.files import is_missing_path
from evenhand.models.small_vision import SmallVisionConfig, SmallVisionModel
from evenhand.validation import UserError


def load_model(folder: Path | str) -> PreTrainedModel:
    """Load a trained model: one of our small ones, or an image or sequence classifier of transformers.

    Args:
        folder: The model's folder, or its name on the hub.

    Raises:
        UserError: If there is no such model.
    """
    config = _classifier_config(folder)
    try:
        if config.get("model_type") == SmallVisionConfig.model_type:
            return cast(PreTrainedModel, SmallVisionModel.from_pretrained(folder))
        for auto_class in (AutoModelForSequenceClassification, AutoModelForImageClassification):
            if any(n.endswith(auto_class.__name__[len("AutoModel") :]) for n in config.get("architectures") or []):
                return auto_class.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"The model in '{folder}' could not be loaded ({first_line(error)}).") from error
    raise UserError(f"The model in '{folder}' is no image or sequence classifier ({config.get('architectures')}).")


def _classifier_config(folder: Path | str) -> dict[str, Any]:
    config_file = Path(folder) / "config.json"
    if config_file.exists():
        return read_config(config_file)
    if (Path(folder) / "adapter_config.json").exists():
        raise UserError(f"The folder '{folder}' holds adapters only: give the model that they were merged into.")
    if Path(folder).exists():
        raise UserError(f"The folder '{folder}' holds no model (config.json is missing).")
    if is_missing_path(str(folder)):
        raise UserError(f"There is no folder '{folder}'.")
    try:
        return AutoConfig.from_pretrained(folder).to_dict()
    except (OSError, ValueError) as error:
        raise UserError(
            f"There is no folder '{folder}', and no model of that name could be loaded from the hub "
            f"({first_line(error)})."
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """What a saved model's config.json holds.

    Raises:
        UserError: If it can't be read, or holds something else than an object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The model in '{path.parent}' could not be loaded ({first_line(error)}).") from error
    if not isinstance(config, dict):
        raise UserError(f"The model in '{path.parent}' could not be loaded (config.json holds no object).")
    return config


def first_line(error: Exception) -> str:
    """What an error of a library says, without its further lines."""
    return str(error).strip().split("\n")[0].rstrip(".")
