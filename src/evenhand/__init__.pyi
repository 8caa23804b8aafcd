"""The public names, each with its home; `__init__.py` imports a name when it is first used."""

from .auditing import (
    Audit as Audit,
    audit as audit,
)
from .gradients import (
    gradient_norms as gradient_norms,
)
from .methods import (
    DPR as DPR,
    EDGE as EDGE,
    ERM as ERM,
    GCE as GCE,
    JTT as JTT,
    METHODS as METHODS,
    PGD as PGD,
    Balance as Balance,
    Even as Even,
    Focal as Focal,
    GroupDRO as GroupDRO,
    LfF as LfF,
    LogitCorrection as LogitCorrection,
    Reweight as Reweight,
)
from .models.adapters import (
    Adapters as Adapters,
)
from .report import (
    report as report,
)
from .runs.evaluate import (
    evaluate as evaluate,
)
from .runs.fit import (
    Result as Result,
    fit as fit,
)
from .shortcuts import (
    OwnShortcut as OwnShortcut,
    Shortcut as Shortcut,
)
from .studies import (
    Debiased as Debiased,
    debias as debias,
    study as study,
)
from .tasks import (
    BAR as BAR,
    BFFHQ as BFFHQ,
    MNLIHANS as MNLIHANS,
    QQPPAWS as QQPPAWS,
    TASKS as TASKS,
    BiasedSNLI as BiasedSNLI,
    CelebA as CelebA,
    CivilComments as CivilComments,
    ColoredDigits as ColoredDigits,
    ColoredMNIST as ColoredMNIST,
    CorruptedCIFAR10 as CorruptedCIFAR10,
    FEVERSymmetric as FEVERSymmetric,
    LeakedSNLI as LeakedSNLI,
    MarkedNotes as MarkedNotes,
    MultiBiasMNIST as MultiBiasMNIST,
    MultiNLI as MultiNLI,
    OwnData as OwnData,
    SNLIHard as SNLIHard,
    Task as Task,
    Waterbirds as Waterbirds,
)
from .training.trainer import (
    Trainer as Trainer,
)
from .validation import (
    UserError as UserError,
)
from .version import __version__ as __version__
