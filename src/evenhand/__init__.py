"""evenhand trains and fine-tunes classifiers that don't take shortcuts, with no bias labels.

Names are imported when they are first used, so that `import evenhand` and `evenhand --help` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evenhand.version import __version__

if TYPE_CHECKING:
    from evenhand.auditing import Audit, audit
    from evenhand.gradients import gradient_norms
    from evenhand.methods import DPR, EDGE, ERM, GCE, JTT, METHODS, PGD, Even, Focal, LfF, Reweight
    from evenhand.models.adapters import Adapters
    from evenhand.report import report
    from evenhand.runs.evaluate import evaluate
    from evenhand.runs.fit import Result, fit
    from evenhand.studies import study
    from evenhand.tasks import (
        BAR,
        BFFHQ,
        MNLIHANS,
        QQPPAWS,
        TASKS,
        BiasedSNLI,
        CelebA,
        CivilComments,
        ColoredDigits,
        ColoredMNIST,
        CorruptedCIFAR10,
        FEVERSymmetric,
        LeakedSNLI,
        MarkedNotes,
        MultiBiasMNIST,
        MultiNLI,
        OwnData,
        SNLIHard,
        Task,
        Waterbirds,
    )
    from evenhand.training.trainer import Trainer
    from evenhand.validation import UserError

_HOMES = {
    "Adapters": "evenhand.models.adapters",
    "Audit": "evenhand.auditing",
    "audit": "evenhand.auditing",
    "evaluate": "evenhand.runs.evaluate",
    "gradient_norms": "evenhand.gradients",
    "EDGE": "evenhand.methods",
    "ERM": "evenhand.methods",
    "GCE": "evenhand.methods",
    "METHODS": "evenhand.methods",
    "PGD": "evenhand.methods",
    "DPR": "evenhand.methods",
    "Even": "evenhand.methods",
    "Focal": "evenhand.methods",
    "JTT": "evenhand.methods",
    "LfF": "evenhand.methods",
    "Reweight": "evenhand.methods",
    "report": "evenhand.report",
    "Result": "evenhand.runs.fit",
    "fit": "evenhand.runs.fit",
    "study": "evenhand.studies",
    "TASKS": "evenhand.tasks",
    "BAR": "evenhand.tasks",
    "BFFHQ": "evenhand.tasks",
    "BiasedSNLI": "evenhand.tasks",
    "CelebA": "evenhand.tasks",
    "CorruptedCIFAR10": "evenhand.tasks",
    "MultiBiasMNIST": "evenhand.tasks",
    "Waterbirds": "evenhand.tasks",
    "ColoredDigits": "evenhand.tasks",
    "ColoredMNIST": "evenhand.tasks",
    "OwnData": "evenhand.tasks",
    "CivilComments": "evenhand.tasks",
    "FEVERSymmetric": "evenhand.tasks",
    "LeakedSNLI": "evenhand.tasks",
    "MNLIHANS": "evenhand.tasks",
    "MultiNLI": "evenhand.tasks",
    "QQPPAWS": "evenhand.tasks",
    "SNLIHard": "evenhand.tasks",
    "MarkedNotes": "evenhand.tasks",
    "Task": "evenhand.tasks",
    "Trainer": "evenhand.training.trainer",
    "UserError": "evenhand.validation",
}

__all__ = [
    "BAR",
    "BFFHQ",
    "DPR",
    "EDGE",
    "ERM",
    "GCE",
    "JTT",
    "METHODS",
    "MNLIHANS",
    "PGD",
    "QQPPAWS",
    "TASKS",
    "Adapters",
    "Audit",
    "BiasedSNLI",
    "CelebA",
    "CivilComments",
    "ColoredDigits",
    "ColoredMNIST",
    "CorruptedCIFAR10",
    "Even",
    "FEVERSymmetric",
    "Focal",
    "LeakedSNLI",
    "LfF",
    "MarkedNotes",
    "MultiBiasMNIST",
    "MultiNLI",
    "OwnData",
    "Result",
    "Reweight",
    "SNLIHard",
    "Task",
    "Trainer",
    "UserError",
    "Waterbirds",
    "__version__",
    "audit",
    "evaluate",
    "fit",
    "gradient_norms",
    "report",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evenhand' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
