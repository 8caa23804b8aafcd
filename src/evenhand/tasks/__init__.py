"""Tasks: data whose shortcut is known, or not. One file a family."""

from evenhand.tasks.base import Task, TaskSource, column_values, membership
from evenhand.tasks.digits import ColoredDigits
from evenhand.tasks.mnist import ColoredMNIST
from evenhand.tasks.nli import BiasedSNLI
from evenhand.tasks.notes import MarkedNotes

TASKS: dict[str, type[TaskSource]] = {
    "colored-digits": ColoredDigits,
    "marked-notes": MarkedNotes,
    "colored-mnist": ColoredMNIST,
    "biased-snli": BiasedSNLI,
}
"""Every task by name."""

__all__ = [
    "TASKS",
    "BiasedSNLI",
    "ColoredDigits",
    "ColoredMNIST",
    "MarkedNotes",
    "Task",
    "TaskSource",
    "column_values",
    "membership",
]
