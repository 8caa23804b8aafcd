"""What a record tells of, built again: the task, the training's settings, the adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from evenhand.models.adapters import Adapters
from evenhand.runs.record import Record
from evenhand.tasks import TASKS, TaskSource
from evenhand.training.settings import Training
from evenhand.validation import UserError


def recorded_task(record: Record, given: Mapping[str, Any]) -> TaskSource:
    """The run's task.

    Args:
        record: The run's record.
        given: Where its files lie, and settings in place of the run's.

    Raises:
        UserError: If the task isn't one of those by name, its files aren't given, or a setting is wrong.
    """
    name = record.task.name
    if name not in TASKS:
        raise UserError(
            f"The run in '{record.path.parent}' is of the task '{name}', whose data its record doesn't hold: give the "
            "data it was trained on beside it."
        )
    with usable(record, "task.settings"):
        return TASKS[name].from_settings(record.task.settings, given, record.raw.get("files"))


def recorded_training(record: Record) -> Training:
    """The settings that the run's stages were trained with."""
    with usable(record, "training", also=UserError):
        return Training(**record.training)


def recorded_adapters(record: Record) -> Adapters | None:
    """What the run trained beside the head, None for the whole model."""
    if "peft" not in record.model:
        return None
    told = {name: record.model.get(f"peft_{name}") for name in ("r", "alpha", "dropout", "targets")}
    with usable(record, "model", also=UserError):
        return Adapters(kind=record.model["peft"], **{name: value for name, value in told.items() if value is not None})


@contextmanager
def usable(record: Record, key: str, also: type[Exception] = TypeError) -> Iterator[None]:
    """Say which file and field it was where a value in it can't be used; what else the user is told stays as it is."""
    try:
        yield
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        if isinstance(error, UserError) and not isinstance(error, also):
            raise
        raise UserError(
            f"'{key}' in {record.source} can't be used ({str(error).rstrip('.')}); delete it or repeat its run."
        ) from error
