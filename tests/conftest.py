"""What several test files share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from evenhand.tasks.base import Task
from evenhand.tasks.images.coloring import PGD_PALETTE, colored_dataset, paint

# A busy machine must not fail a test: no example has a deadline, and drawing one may take its time.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # Tiny models gain nothing from more, and on a busy machine threads that wait for each other cost minutes.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make_task(train: int = 96, validation: int = 24, test: int = 60, seed: int = 0) -> Task:
    """Random 8×8 images in leaking colours: nothing to learn but the colour, and quick."""
    rng = np.random.default_rng(seed)

    def split(n: int, conflict: float) -> Any:
        label_N = np.arange(n) % 10
        attribute_N = np.where(rng.random(n) < conflict, (label_N + rng.integers(1, 10, n)) % 10, label_N)
        gray = rng.integers(0, 256, (n, 8, 8)).astype(np.uint8)
        return colored_dataset(paint(gray, attribute_N, PGD_PALETTE, 0.0, rng), label_N, attribute_N, PGD_PALETTE)

    return Task(
        name="noise",
        kind="image",
        train=split(train, 0.1),
        validation=split(validation, 0.1),
        tests={"test": split(test, 0.9)},
        primary_test="test",
    )


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    """A task whose runs take a fraction of a second."""
    return make_task()
