"""Tasks: data whose shortcut is known, or not. One file a family."""

from evenhand.tasks.base import Task, TaskSource, column_values, membership
from evenhand.tasks.digits import ColoredDigits
from evenhand.tasks.mnist import ColoredMNIST

TASKS: dict[str, type[TaskSource]] = {
    "colored-digits": ColoredDigits,
    "colored-mnist": ColoredMNIST,
}
"""Every task by name."""

__all__ = ["TASKS", "ColoredDigits", "ColoredMNIST", "Task", "TaskSource", "column_values", "membership"]
