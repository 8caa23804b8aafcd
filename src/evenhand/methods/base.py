"""What a method is: hyper-parameters, and a `fit` that reads like its paper.

Legend: B samples of a batch, C classes, N training samples, G groups.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.data.columns import Inputs
from evenhand.gradients import Norm, Source
from evenhand.losses import cross_entropy
from evenhand.methods.attached import Attached
from evenhand.methods.objective import Objective, Setting
from evenhand.methods.rule import GradientRule, SignalKind
from evenhand.sampling import all_equal
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.validation import Range, UserError, check_fields, plain_fields

Init = Literal["inherit", "random", "pretrained", "initial"]
Exponent = Annotated[float, Range(0, 1, low_open=True)]
"""GCE's q."""

Signal = NDArray[Any]
"""What a stage is told of each training sample, shape (N,), or (N, C) where that is one value for each class."""

SHORTCUT_NAME = "the shortcut's name"
"""The label access of methods that train against a named shortcut."""

EQUAL_WEIGHTS = "every training sample weighs the same"
"""Why a method is ERM whose biased model tells no sample from another, or which has nothing to weigh by."""


@dataclass(frozen=True)
class Guidance:
    """What named shortcuts make of a one-stage method's training.

    Attributes:
        signal: What the method is told of each training sample, shape (N,) or (N, C).
        sampling: The weight that each sample is drawn by, shape (N,); None for uniform batches.
        told: What the record says of the stage.
    """

    signal: Signal | None = None
    sampling: NDArray[np.float64] | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


class Run(Protocol):
    """What a method's `fit` may ask of a run; `evenhand.runs.fit` keeps each stage on disk as it finishes."""

    @property
    def epochs(self) -> int:
        """Epochs of a stage, unless it asks for others."""
        ...

    @property
    def pretrained(self) -> bool:
        """Whether the run starts from a checkpoint, not from fresh weights."""
        ...

    @property
    def shortcuts(self) -> NamedShortcuts | None:
        """The shortcuts that have a name, on the training rows; None where none has."""
        ...

    def train(
        self,
        name: str,
        method: OneStage,
        *,
        start: nn.Module | None = None,
        sampling: NDArray[np.float64] | None = None,
        signal_probs: Signal | None = None,
        companion: nn.Module | None = None,
        augment: bool = False,
        epochs: int | None = None,
        only: NDArray[np.bool_] | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> nn.Module:
        """Train a stage with a one-stage method, from `start` (a copy) or from the run's initial weights.

        Args:
            name: The stage's name.
            method: What is trained with.
            start: Where the weights start.
            sampling: Sampling weight of each sample, shape (N,); None for uniform batches without replacement.
            signal_probs: The method's signal, shape (N,) or (N, C).
            companion: Where the companion model's weights start, for methods with one; as the model's own if None.
            augment: Whether training images are augmented.
            epochs: Epochs, in place of the run's.
            only: Which training samples to train on, shape (N,); all if None. They are drawn uniformly with
                replacement, N times an epoch, in place of `sampling`.
            told: What the record says of the stage beside what every stage has.
        """
        ...

    def gradient_norms(
        self, model: nn.Module, source: Source, norm: Norm, *, augment: bool = False
    ) -> NDArray[np.float64]:
        """Norm of each training sample's cross-entropy gradient, shape (N,); of augmented images if asked."""
        ...

    def errors(self, model: nn.Module) -> NDArray[np.bool_]:
        """Whether the model classifies each training sample wrongly, shape (N,)."""
        ...

    def initial(self, draw: int = 0) -> nn.Module:
        """The weights that a run starts from; other draws of the same seed differ in what is drawn (a new head)."""
        ...

    def probabilities(self, model: nn.Module, name: str = "probabilities") -> NDArray[np.float32]:
        """Probability of each training sample's true class, shape (N,); the stage of each model needs a `name`."""
        ...

    def log_probabilities(self, model: nn.Module, name: str) -> NDArray[np.float32]:
        """The log-probability of every class, shape (N, C); the stage of each model needs a `name`."""
        ...

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Training samples of each class, shape (C,)."""
        ...

    def parts(self, count: int) -> NDArray[np.int64]:
        """Which of `count` random parts, of equal size to one, each training sample belongs to, shape (N,)."""
        ...

    def start_from(self, init: Init, biased: nn.Module) -> nn.Module:
        """The weights that a debiased model starts from."""
        ...


class Method(ABC):
    """A method: a frozen dataclass of its hyper-parameters.

    Attributes:
        name: Its name on the command line.
        paper: Where it comes from.
        label_access: Which labels beyond the class it needs, with its defaults.
        spelling: How reports call it, unless by its name in capitals.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    label_access: ClassVar[str] = "none (groups are used for evaluation only)"
    spelling: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_fields(type(self).__name__, self)

    @property
    def title(self) -> str:
        """How reports call it."""
        return self.spelling or self.name.upper()

    def settings(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return plain_fields(self)

    def check_start(self, pretrained: bool) -> None:
        """Raise `UserError` if its `init` is "pretrained" where the model doesn't start from a checkpoint."""
        if getattr(self, "init", None) == "pretrained" and not pretrained:
            raise UserError(
                f"The 'init' parameter of {type(self).__name__} can be 'pretrained' only for a model that starts from "
                "a checkpoint; this one is trained from scratch, so use 'inherit' or 'random'."
            )

    @property
    def needs_shortcut(self) -> bool:
        """Whether it needs a shortcut's name."""
        return False

    @property
    def labels_needed(self) -> str:
        """Which labels beyond the class it needs as it is set."""
        return SHORTCUT_NAME if self.needs_shortcut else self.label_access

    def check_shortcuts(self, shortcuts: NamedShortcuts | None) -> None:
        """Raise `UserError` if the method needs a shortcut's name and there is none, or none that it can work with."""
        if not self.needs_shortcut:
            return
        if shortcuts is None:
            raise UserError(
                f"{self.title} needs a shortcut's name: give one with --shortcut, such as --shortcut token:nimbus "
                "(in Python: shortcuts=[...]); `evenhand audit` finds shortcuts."
            )
        pointing = [one for one in shortcuts.fitted if one.points_anywhere]
        if not pointing:
            raise UserError(
                f"No value of {', '.join(map(repr, shortcuts.names))} points to a class, so there is nothing for "
                f"{self.title} to train against: name another shortcut."
            )
        if not any(one.conflicting for one in pointing):
            raise UserError(
                f"No training row goes against {', '.join(map(repr, shortcuts.names))}, so {self.title} has nothing to "
                "learn from: collect rows that go against it."
            )

    def check_inputs(self, kind: Inputs) -> None:  # noqa: B027
        """Raise `UserError` if the method can't be used on this kind of inputs."""

    def models_trained(self) -> int:
        """How many stages of a run train a model; one that learns beside another within a stage isn't counted."""
        return 1

    @abstractmethod
    def fit(self, run: Run) -> nn.Module:
        """Train, stage by stage, and return the debiased model."""

    def attach(self, model: nn.Module, *, scaler: torch.amp.GradScaler | None = None, verify: bool = True) -> Attached:
        """Refused: only one-stage methods have a place in a loop."""
        raise UserError(f"{self.title} trains in several stages, so it can't be attached to a loop: use evenhand.fit.")


class OneStage(Method):
    """A method that trains one model in one go, so that `evenhand.Trainer` can run it.

    It has a loss for each sample and, for gradient methods, a rule that makes the update of two gradients. Or it has a
    loss whose weights depend on more than the batch: an objective.

    Attributes:
        needs_signal: Whether the loss or the weights need to be told something of each sample.
        signal_kind: What that is: another model's `probability` of the true class, a `weight`, a `correction` of each
            class's logit, or the sample's `group`, from 0.
        needs_objective: Whether its loss is an objective.
        needs_index: Whether its objective looks samples up by their index.
        needs_companion: Whether its objective trains a second model beside the first.
    """

    needs_signal: ClassVar[bool] = False
    signal_kind: ClassVar[SignalKind] = "probability"
    needs_objective: ClassVar[bool] = False
    needs_index: ClassVar[bool] = False
    needs_companion: ClassVar[bool] = False

    def guidance(self, shortcuts: NamedShortcuts) -> Guidance:
        """What it is trained with against named shortcuts. Only asked for with `needs_shortcut`."""
        raise AssertionError(f"{self.name} needs a shortcut but makes nothing of it")

    def sampling_by(self, signal_N: Signal) -> NDArray[np.float64] | None:
        """The weights that batches are drawn by where the signal is given, shape (N,); None for uniform batches."""
        return None

    def idle_reason(self, signal_N: Any) -> str | None:
        """Why training with it on uniform batches is plain ERM, as in "its α is 0"; None where it isn't.

        Args:
            signal_N: The signal of each training sample, shape (N,) or (N, C), for methods with one.
        """
        return None

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """The loss of each sample, shape (B,); their mean is minimised. Plain cross-entropy unless overridden.

        Args:
            logits_BC: The model's output, shape (B, C).
            labels_B: True classes, shape (B,).
            signal_B: The samples' signal, of the method's kind, shape (B,) or (B, C), for methods with one.
        """
        return cross_entropy(logits_BC, labels_B)

    def gradient_rule(self, step: int = 0) -> GradientRule:
        """How its losses become the gradient of an optimizer step, counted from 0: the mean's, unless overridden."""
        return GradientRule(self.sample_losses)

    def objective(self, setting: Setting) -> Objective:
        """The loss of one training, in place of `sample_losses`. Only asked for with `needs_objective`."""
        raise AssertionError(f"{self.name} needs an objective but has none")

    def attach(self, model: nn.Module, *, scaler: torch.amp.GradScaler | None = None, verify: bool = True) -> Attached:
        """Use the method in a loop of your own: its `backward(logits, labels)` takes the place of `loss.backward()`.

        Args:
            model: The model; its trainable parameters are those that require gradients now.
            scaler: The loop's `torch.amp.GradScaler`, if it has one.
            verify: Check the single-backward route against plain autograd, on the first batches and now and then.
        """
        if self.needs_companion:
            raise UserError(
                f"{self.title} trains a second model beside yours, so it can't be attached to a loop: use "
                "evenhand.Trainer or evenhand.fit."
            )
        if self.needs_objective:
            raise UserError(
                f"{self.title} has a loss that is made over a whole training, so it can't be attached to a loop: use "
                "evenhand.Trainer or evenhand.fit."
            )
        return Attached(self, model, scaler=scaler, verify=verify)

    def fit(self, run: Run) -> nn.Module:
        """Train one model, against the named shortcuts if it needs them."""
        if not self.needs_shortcut:
            return run.train(self.name, self)
        assert run.shortcuts is not None  # checked before
        found = self.guidance(run.shortcuts)
        return run.train("debiased", self, sampling=found.sampling, signal_probs=found.signal, told=found.told)


def nothing_done(title: str, reason: str) -> str:
    """What is said of a run whose method became ERM, in the same words everywhere."""
    return f"{title} did nothing here, so it trained as ERM does: {reason}"


def weightless_reason(alpha: float, signal_N: NDArray[np.floating] | None) -> str | None:
    """Why a method that weighs by α and by a biased model's probabilities, shape (N,), is ERM; None where it isn't."""
    if alpha == 0:
        return "its α is 0"
    return EQUAL_WEIGHTS if signal_N is not None and all_equal(signal_N) else None


def check_unprojected(owner: str, alpha: float, q: float) -> None:
    """Raise `UserError` unless α ≤ 1/q, where the weight 1 − α·q·p^q of no sample is negative."""
    if alpha * q > 1 + 1e-12:  # 1/q times q may be a rounding above 1
        raise UserError(
            f"The 'alpha' parameter of {owner} must be at most 1/q = {1 / q:.4g} without a projection: beyond it the "
            f"weight 1 − α·q·p^q of samples with p near 1 is negative, so their loss is maximised and training "
            f"diverges. Got {alpha!r}."
        )
