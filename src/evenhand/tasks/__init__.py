"""Tasks: data whose shortcut is known, or not. One file a family."""

from evenhand.tasks.base import Task, TaskSource, column_values, membership
from evenhand.tasks.digits import ColoredDigits
from evenhand.tasks.mnist import ColoredMNIST
from evenhand.tasks.nli import BiasedSNLI
from evenhand.tasks.own import OwnData

TASKS: dict[str, type[TaskSource]] = {
    "own-data": OwnData,
    "colored-digits": ColoredDigits,
    "colored-mnist": ColoredMNIST,
    "biased-snli": BiasedSNLI,
}
"""Every task by name."""

__all__ = [
    "TASKS",
    "BiasedSNLI",
    "ColoredDigits",
    "ColoredMNIST",
    "OwnData",
    "Task",
    "TaskSource",
    "column_values",
    "membership",
]
