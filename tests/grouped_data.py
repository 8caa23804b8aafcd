"""Data with groups, and what is measured on them, for several tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np

import evenhand as eh
from trainer_models import arguments, text_data, text_model

GROUPS = ["0 aligned", "1 conflicting", "rare"]


def grouped(n: int = 53, seed: int = 1, overlapping: bool = False) -> datasets.Dataset:
    rng = np.random.default_rng(seed)
    label: Any = datasets.ClassLabel(names=GROUPS)
    groups: Any = rng.choice(3, n, p=[0.48, 0.48, 0.04])
    if overlapping:
        label, groups = datasets.List(label), [list(range(i)) for i in groups + 1]
    alignment = datasets.ClassLabel(names=["aligned", "conflicting"])
    data = text_data(n).add_column("group", groups if overlapping else groups.tolist(), feature=label)  # type: ignore[call-arg]
    return data.add_column("alignment", rng.integers(0, 2, n).tolist(), feature=alignment)  # type: ignore[call-arg]


def by_group(metrics: dict[str, float], prefix: str = "eval") -> dict[str, float]:
    """The numbers; the groups' names are left out."""
    known = ("accuracy", "worst", "small", "aligned", "conflicting", "average")
    found = {name.removeprefix(f"{prefix}_"): v for name, v in metrics.items() if "_name" not in name}
    return {f"{prefix}_{name}": v for name, v in found.items() if name.startswith(known)}


def trainer_of(folder: Path, model: Any = None, *, args: dict[str, Any] | None = None, **options: Any) -> eh.Trainer:
    return eh.Trainer(model or text_model(), arguments(folder, **(args or {})), **options)
