"""What a run tells while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from evenhand.metrics import GroupShare
from evenhand.tasks.base import Task


@dataclass(frozen=True)
class Measurement:
    """The model after one epoch; fractions of 1 on the validation rows, None where undefined.

    Attributes:
        stage: The stage's name.
        epoch: Epochs done, from 1.
        epochs: All epochs of the stage.
        train_loss: Mean training loss of the epoch, by the method's own loss.
        values: `average`, `worst_group`, `small_groups`, `aligned`, `conflicting` and `loss`; empty where this epoch
            isn't measured.
        by_group: Accuracy by group; empty with many groups.
        worst: The group that `worst_group` is the accuracy of.
        small: The groups of fewer than 20 rows, taken together.
    """

    stage: str
    epoch: int
    epochs: int
    train_loss: float
    values: dict[str, float | None]
    by_group: dict[str, float | None]
    worst: GroupShare | None = None
    small: GroupShare | None = None


class Progress(Protocol):
    """Receives how a run goes on."""

    def stage(self, name: str, done: int, total: int) -> None:
        """A stage has done `done` of its `total` steps."""
        ...

    def measured(self, measurement: Measurement) -> None:
        """A stage has ended an epoch."""
        ...


@runtime_checkable
class DataProgress(Progress, Protocol):
    """A progress that receives the data too."""

    def data(self, task: Task) -> None:
        """The task is built; nothing has been trained or written yet."""
        ...
