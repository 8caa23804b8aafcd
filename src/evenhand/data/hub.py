"""Data sets of the Hugging Face hub (their Parquet files; no script is ever run)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from evenhand.validation import UserError


def load_from_hub(refusal: Callable[[str], str], name: str, *subset: str | None, **options: Any) -> Any:
    """A data set, loaded by `datasets`.

    Args:
        refusal: The sentence for the reason why it could not be loaded.
        name: The data set.
        subset: Its configuration, where it has several.
        options: As `datasets.load_dataset` takes them.

    Raises:
        UserError: If it can't be loaded.
    """
    try:
        return datasets.load_dataset(name, *subset, **options)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(refusal(": ".join(filter(None, (type(error).__name__, reason))))) from error
