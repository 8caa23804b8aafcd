"""Tasks: data whose shortcut is known, or not. One file a family."""

from evenhand.tasks.bar import BAR
from evenhand.tasks.base import Task, TaskSource, column_values, membership
from evenhand.tasks.bffhq import BFFHQ
from evenhand.tasks.celeba import CelebA
from evenhand.tasks.challenge_nli import MNLIHANS, SNLIHard
from evenhand.tasks.challenge_pairs import QQPPAWS, FEVERSymmetric
from evenhand.tasks.civilcomments import CivilComments
from evenhand.tasks.corrupted_cifar import CorruptedCIFAR10
from evenhand.tasks.digits import ColoredDigits
from evenhand.tasks.leaked import LeakedSNLI
from evenhand.tasks.mnist import ColoredMNIST
from evenhand.tasks.multi_bias import MultiBiasMNIST
from evenhand.tasks.multinli import MultiNLI
from evenhand.tasks.nli import BiasedSNLI
from evenhand.tasks.notes import MarkedNotes
from evenhand.tasks.own import OwnData
from evenhand.tasks.waterbirds import Waterbirds

TASKS: dict[str, type[TaskSource]] = {
    "own-data": OwnData,
    "colored-digits": ColoredDigits,
    "marked-notes": MarkedNotes,
    "colored-mnist": ColoredMNIST,
    "multi-bias-mnist": MultiBiasMNIST,
    "corrupted-cifar10": CorruptedCIFAR10,
    "bar": BAR,
    "bffhq": BFFHQ,
    "waterbirds": Waterbirds,
    "celeba": CelebA,
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
    "BAR",
    "BFFHQ",
    "MNLIHANS",
    "QQPPAWS",
    "TASKS",
    "BiasedSNLI",
    "CelebA",
    "CivilComments",
    "ColoredDigits",
    "ColoredMNIST",
    "CorruptedCIFAR10",
    "FEVERSymmetric",
    "LeakedSNLI",
    "MarkedNotes",
    "MultiBiasMNIST",
    "MultiNLI",
    "OwnData",
    "SNLIHard",
    "Task",
    "TaskSource",
    "Waterbirds",
    "column_values",
    "membership",
]
