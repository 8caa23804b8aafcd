"""evenhand trains and fine-tunes classifiers that don't take shortcuts, with no bias labels.

Names are imported when they are first used, so that `import evenhand` and `evenhand --help` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evenhand.version import __version__

if TYPE_CHECKING:
    from evenhand.adapters import Adapters
    from evenhand.evaluating import evaluate
    from evenhand.gradients import gradient_norms
    from evenhand.methods import DPR, EDGE, ERM, GCE, JTT, METHODS, PGD, Even, Focal, LfF, Reweight
    from evenhand.run import Result, fit
    from evenhand.studies import study
    from evenhand.tasks import TASKS, BiasedSNLI, ColoredDigits, ColoredMNIST, MarkedNotes, Task
    from evenhand.trainer import Trainer
    from evenhand.validation import UserError

_HOMES = {
    "Adapters": "evenhand.adapters",
    "evaluate": "evenhand.evaluating",
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
    "Result": "evenhand.run",
    "fit": "evenhand.run",
    "study": "evenhand.studies",
    "TASKS": "evenhand.tasks",
    "BiasedSNLI": "evenhand.tasks",
    "ColoredDigits": "evenhand.tasks",
    "ColoredMNIST": "evenhand.tasks",
    "MarkedNotes": "evenhand.tasks",
    "Task": "evenhand.tasks",
    "Trainer": "evenhand.trainer",
    "UserError": "evenhand.validation",
}

__all__ = [
    "DPR",
    "EDGE",
    "ERM",
    "GCE",
    "JTT",
    "METHODS",
    "PGD",
    "TASKS",
    "Adapters",
    "BiasedSNLI",
    "ColoredDigits",
    "ColoredMNIST",
    "Even",
    "Focal",
    "LfF",
    "MarkedNotes",
    "Result",
    "Reweight",
    "Task",
    "Trainer",
    "UserError",
    "__version__",
    "evaluate",
    "fit",
    "gradient_norms",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evenhand' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
