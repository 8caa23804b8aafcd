"""Tasks: data whose shortcut is known, or not. One file a family."""

from evenhand.tasks.base import Task, TaskSource, column_values, membership
from evenhand.tasks.digits import ColoredDigits
from evenhand.tasks.mnist import ColoredMNIST
from evenhand.tasks.nli import BiasedSNLI

TASKS: dict[str, type[TaskSource]] = {
    "colored-digits": ColoredDigits,
    "colored-mnist": ColoredMNIST,
    "biased-snli": BiasedSNLI,
}
"""Every task by name."""

__all__ = ["TASKS", "BiasedSNLI", "ColoredDigits", "ColoredMNIST", "Task", "TaskSource", "column_values", "membership"]
