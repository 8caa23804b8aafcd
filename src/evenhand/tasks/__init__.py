"""Tasks: data whose shortcut is known, or not. One file a family."""

from evenhand.tasks.base import Task, TaskSource
from evenhand.tasks.images.bar import BAR
from evenhand.tasks.images.bffhq import BFFHQ
from evenhand.tasks.images.celeba import CelebA
from evenhand.tasks.images.corrupted_cifar import CorruptedCIFAR10
from evenhand.tasks.images.digits import ColoredDigits
from evenhand.tasks.images.mnist import ColoredMNIST
from evenhand.tasks.images.multi_bias import MultiBiasMNIST
from evenhand.tasks.images.waterbirds import Waterbirds
from evenhand.tasks.own.own_data import OwnData
from evenhand.tasks.text.biased_snli import BiasedSNLI
from evenhand.tasks.text.challenge_nli import MNLIHANS, SNLIHard
from evenhand.tasks.text.challenge_pairs import QQPPAWS, FEVERSymmetric
from evenhand.tasks.text.civilcomments import CivilComments
from evenhand.tasks.text.leaked_snli import LeakedSNLI
from evenhand.tasks.text.multinli import MultiNLI
from evenhand.tasks.text.notes import MarkedNotes

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
]
