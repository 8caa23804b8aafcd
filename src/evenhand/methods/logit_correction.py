"""Logit correction: what a shortcut says of the label is added to the logits in training, so they needn't learn it.

Legend: B samples of a batch, C classes, N training samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.losses import cross_entropy
from evenhand.methods.base import SHORTCUT_NAME, Guidance, Method, OneStage, Run
from evenhand.methods.erm import ERM
from evenhand.methods.folds import biased_folds, check_folds
from evenhand.methods.rule import SignalKind
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.shortcuts.pointing import class_shares
from evenhand.validation import Range, UserError

UNCORRECTED = "what it adds to the logits is the same for every class"
"""Why logit correction is ERM."""


@dataclass(frozen=True, kw_only=True)
class LogitCorrection(OneStage):
    """Minimise the cross-entropy of z_i + log P(·|a_i) − log P(·), a_i the value of the named shortcuts; predict by z.

    A product of experts whose second expert knows the shortcut alone: z needs to learn only what the shortcut doesn't
    say, and keeps the classes' shares. P(·|a) is counted on the training samples, with one pseudo-count a class.

    With `bias="model"` no name is needed: in place of log P(·|a_i) stand the log-probabilities of biased models,
    trained with cross-entropy, each on all but one of `folds` random parts of the samples and asked about that part.
    This is for checkpoints: from fresh weights the biased models learn the very task, and the correction takes the task
    away.

    Attributes:
        bias: What says the shortcut: `shortcut`, its name, or `model`, biased models.
        folds: How many biased models, at least 2, with `bias="model"`.

    Raises:
        UserError: If a value is out of range or a name is unknown.
    """

    bias: Literal["shortcut", "model"] = "shortcut"
    folds: Annotated[int, Range(2)] = 2

    name: ClassVar[str] = "logit-correction"
    paper: ClassVar[str] = (
        "Clark, Yatskar & Zettlemoyer, Don't Take the Easy Way Out, EMNLP 2019; He, Zha & Wang 2019; Liu et al., "
        "Avoiding Spurious Correlations via Logit Correction, ICLR 2023"
    )
    label_access: ClassVar[str] = SHORTCUT_NAME
    spelling: ClassVar[str] = "Logit correction"
    needs_signal: ClassVar[bool] = True
    signal_kind: ClassVar[SignalKind] = "correction"

    @property
    def title(self) -> str:
        """With what says the shortcut, since that decides what it needs."""
        return self.spelling if self.needs_shortcut else f"{self.spelling} (biased models)"

    @property
    def needs_shortcut(self) -> bool:
        """Unless biased models take its place."""
        return self.bias == "shortcut"

    @property
    def labels_needed(self) -> str:
        """None with biased models."""
        return self.label_access if self.needs_shortcut else Method.label_access

    def check_start(self, pretrained: bool) -> None:
        """Biased models are for checkpoints."""
        if not self.needs_shortcut and not pretrained:
            raise UserError(
                "The 'bias' parameter of LogitCorrection can be 'model' only for a model that starts from a "
                "checkpoint: from fresh weights its biased models learn the very task, which the correction takes away."
            )

    def models_trained(self) -> int:
        """The debiased one, and the biased ones."""
        return 1 if self.needs_shortcut else 1 + self.folds

    def idle_reason(self, signal_N: Any) -> str | None:
        """A correction that moves no sample's probabilities by 0.1 %."""
        if signal_N is None:
            return None
        return UNCORRECTED if bool((np.ptp(np.asarray(signal_N), axis=1) <= 1e-3).all()) else None

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """The cross-entropy of the corrected logits, shape (B,)."""
        assert signal_B is not None
        return cross_entropy(logits_BC + signal_B, labels_B)

    def guidance(self, shortcuts: NamedShortcuts) -> Guidance:
        """The log P(y|a) − log P(y) of each sample."""
        return Guidance(signal=shortcuts.log_ratio().astype(np.float32))

    def fit(self, run: Run) -> nn.Module:
        """One training, after those of the biased models if there is no name."""
        return super().fit(run) if self.needs_shortcut else run.train("debiased", self, signal_probs=self._asked(run))

    def _asked(self, run: Run) -> NDArray[np.float32]:
        """The log p_b − log P(y) of each sample under a model that didn't see it, shape (N, C)."""
        check_folds(self.title, run, self.folds)
        prior_C = np.log(class_shares(run.class_counts))
        correction_NC = np.empty((int(run.class_counts.sum()), len(prior_C)), dtype=np.float32)
        for k, (model, unseen_N) in enumerate(biased_folds(run, ERM(), self.folds)):
            log_NC = run.log_probabilities(model, f"log-probabilities-{k + 1}")
            correction_NC[unseen_N] = (log_NC - prior_C)[unseen_N]
        return correction_NC
