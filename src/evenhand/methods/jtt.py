"""JTT: train twice, the second time with the samples that the first got wrong weighing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from torch import nn

from evenhand.methods.base import Method, Run
from evenhand.methods.erm import ERM
from evenhand.validation import Range, UserError, count


@dataclass(frozen=True, kw_only=True)
class JTT(Method):
    """Train ERM for T epochs, collect the training samples it gets wrong, retrain with those drawn λ times as often.

    The second model starts from the run's initial weights, as the first did. Batches are drawn with replacement in
    proportion to λ for the error set and 1 for the rest, an epoch being N draws (the released code repeats the samples
    instead, so that its epochs are longer).

    Attributes:
        identification_epochs: T ≥ 1. Released: 1 for CelebA, 60 for Waterbirds, 2 for MultiNLI and CivilComments.
            In the paper T and λ are chosen by worst-group accuracy on a validation set with groups.
        upweight: λ ≥ 1. Released: 50 for CelebA, 100 for Waterbirds, 4 for MultiNLI, 6 for CivilComments.

    Raises:
        UserError: If a value is out of range, or the error set is empty after T epochs.
    """

    identification_epochs: Annotated[int, Range(1)] = 1
    upweight: Annotated[float, Range(1)] = 50.0

    name: ClassVar[str] = "jtt"
    paper: ClassVar[str] = "Liu et al., Just Train Twice, ICML 2021"
    label_access: ClassVar[str] = "none (the paper chooses T and λ with groups of a validation set)"

    def models_trained(self) -> int:
        """The one that errs and the debiased one."""
        return 2

    def fit(self, run: Run) -> nn.Module:
        """Algorithm 1 of the paper."""
        identifying = run.train("identification", ERM(), epochs=self.identification_epochs)
        wrong_N = run.errors(identifying)
        if not wrong_N.any():
            fewer = "fewer identification_epochs, " if self.identification_epochs > 1 else ""
            raise UserError(
                f"JTT's error set is empty: after {count(self.identification_epochs, 'epoch')} every training sample "
                f"is classified correctly, so take {fewer}a smaller learning rate, larger batches or another method."
            )
        return run.train("debiased", ERM(), sampling=np.where(wrong_N, self.upweight, 1.0))
