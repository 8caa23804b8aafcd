"""Trained models in their folders, or on the hub: reading them back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from evenhand.models.small_vision import SmallVisionConfig, SmallVisionModel
from evenhand.validation import UserError

UNREADABLE = (OSError, ValueError, RuntimeError, SafetensorError)
"""What is raised where the files of a model are missing, truncated or of another kind."""


def load_model(folder: Path | str) -> PreTrainedModel:
    """Load a trained model: one of our small ones, or an image or sequence classifier of transformers, in float32.

    Args:
        folder: The model's folder, or its name on the hub.

    Raises:
        UserError: If there is no such model.
    """
    config = _classifier_config(folder)
    try:
        if config.get("model_type") == SmallVisionConfig.model_type:
            return cast(PreTrainedModel, SmallVisionModel.from_pretrained(folder, dtype=torch.float32))
        for auto_class in (AutoModelForSequenceClassification, AutoModelForImageClassification):
            if any(n.endswith(auto_class.__name__[len("AutoModel") :]) for n in config.get("architectures") or []):
                return auto_class.from_pretrained(folder, dtype=torch.float32)
    except UNREADABLE as error:
        raise UserError(f"The model in '{folder}' could not be loaded ({first_line(error)}).") from error
    raise UserError(f"The model in '{folder}' is no image or sequence classifier ({config.get('architectures')}).")


def _classifier_config(folder: Path | str) -> dict[str, Any]:
    check_location(folder)
    config_file = Path(folder) / "config.json"
    if config_file.exists():
        return read_config(config_file)
    try:
        return AutoConfig.from_pretrained(folder).to_dict()
    except (OSError, ValueError) as error:
        raise UserError(
            f"There is no folder '{folder}', and no model of that name could be loaded from the hub "
            f"({first_line(error)})."
        ) from error


def check_location(name: Path | str) -> None:
    """Refuse a folder that holds no model or isn't there: it is never taken for a name on the hub.

    Args:
        name: A folder, or a name that may be one on the hub, whose first part is no folder here.

    Raises:
        UserError: If it names a place on this machine where no model is.
    """
    folder, text = Path(name), str(name)

    def is_there(path: Path) -> bool:
        return os.access(path, os.F_OK)  # False, where Path.exists raises: for names that are too long

    if not text or is_there(folder / "config.json"):
        return
    if is_there(folder / "adapter_config.json"):
        raise UserError(f"The folder '{name}' holds adapters only: give the model that they were merged into.")
    if is_there(folder / "record.json"):
        raise UserError(f"The folder '{name}' is a run, not a model: give its folder 'model'.")
    if is_there(folder):
        raise UserError(f"The folder '{name}' holds no model (config.json is missing).")
    is_path = (
        isinstance(name, Path)
        or text.startswith((".", "/", "~"))
        or text.endswith("/")
        or text.count("/") > 1
        or "\\" in text
    )
    if is_path or ("/" in text and is_there(Path(folder.parts[0]))):
        raise UserError(f"There is no folder '{name}'.")


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
