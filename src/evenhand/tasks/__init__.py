"""Tasks: data whose shortcut is known, or not. One file a family."""

from evenhand.tasks.base import Task, TaskSource, column_values, membership
from evenhand.tasks.challenge_nli import MNLIHANS, SNLIHard
from evenhand.tasks.challenge_pairs import QQPPAWS, FEVERSymmetric
from evenhand.tasks.civilcomments import CivilComments
from evenhand.tasks.digits import ColoredDigits
from evenhand.tasks.leaked import LeakedSNLI
from evenhand.tasks.mnist import ColoredMNIST
from evenhand.tasks.multinli import MultiNLI
from evenhand.tasks.nli import BiasedSNLI

TASKS: dict[str, type[TaskSource]] = {
    "colored-digits": ColoredDigits,
    "colored-mnist": ColoredMNIST,
    "biased-snli": BiasedSNLI,
    "leaked-snli": LeakedSNLI,
    "multinli": MultiNLI,
    "mnli-hans": MNLIHANS,
    "snli-hard": SNLIHard,
    "qqp-paws": QQPPAWS,
    "fever-symmetric": FEVERSymmetric,
    "civilcomments": CivilComments,
}
"""Every task by name."""

__all__ = [
    "MNLIHANS",
    "QQPPAWS",
    "TASKS",
    "BiasedSNLI",
    "CivilComments",
    "ColoredDigits",
    "ColoredMNIST",
    "FEVERSymmetric",
    "LeakedSNLI",
    "MultiNLI",
    "SNLIHard",
    "Task",
    "TaskSource",
    "column_values",
    "membership",
]
