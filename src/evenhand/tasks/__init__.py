"""Tasks: data whose shortcut is known, or not. One file a family."""

from evenhand.tasks.base import Task as Task, TaskSource as TaskSource
from evenhand.tasks.images.bar import BAR as BAR
from evenhand.tasks.images.bffhq import BFFHQ as BFFHQ
from evenhand.tasks.images.corrupted_cifar import CorruptedCIFAR10 as CorruptedCIFAR10
from evenhand.tasks.images.digits import ColoredDigits as ColoredDigits
from evenhand.tasks.images.group_pictures import CelebA as CelebA, Waterbirds as Waterbirds
from evenhand.tasks.images.mnist import ColoredMNIST as ColoredMNIST
from evenhand.tasks.images.multi_bias import MultiBiasMNIST as MultiBiasMNIST
from evenhand.tasks.own.own_data import OwnData as OwnData
from evenhand.tasks.text.biased_snli import BiasedSNLI as BiasedSNLI
from evenhand.tasks.text.challenge_sets import (
    MNLIHANS as MNLIHANS,
    QQPPAWS as QQPPAWS,
    FEVERSymmetric as FEVERSymmetric,
    SNLIHard as SNLIHard,
)
from evenhand.tasks.text.civilcomments import CivilComments as CivilComments
from evenhand.tasks.text.leaked_snli import LeakedSNLI as LeakedSNLI
from evenhand.tasks.text.multinli import MultiNLI as MultiNLI
from evenhand.tasks.text.notes import MarkedNotes as MarkedNotes

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
