"""Balance: training batches in which a named shortcut says nothing of the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from evenhand.methods.base import Method, Run
from evenhand.methods.erm import ERM
from evenhand.methods.pgd import Weighted


@dataclass(frozen=True, kw_only=True)
class Balance(Method):
    """Draw or weigh each sample by P(y)·P(a) / P(y,a), where a is its value of the named shortcuts.

    Label and shortcut become independent, and both keep their shares. With `groups="alike"` the weight is 1 / P(y,a):
    every group, label × value, counts alike (RWG, SUBG's relative). The absence of a token is a value; no weight is
    more than 100 times the mean.

    Attributes:
        groups: `independent`: P(y)·P(a) / P(y,a). `alike`: 1 / P(y,a), as RWG of Idrissi et al. (2022).
        sampling: `resample`: batches are drawn i.i.d. with these weights. `reweight`: batches are uniform and the loss
            of a sample is its weight times l_i.

    Raises:
        UserError: If a choice is unknown.
    """

    groups: Literal["independent", "alike"] = "independent"
    sampling: Literal["resample", "reweight"] = "resample"

    name: ClassVar[str] = "balance"
    paper: ClassVar[str] = (
        "standard; with groups alike RWG of Idrissi et al., Simple Data Balancing Achieves Competitive "
        "Worst-Group-Accuracy, CLeaR 2022"
    )
    label_access: ClassVar[str] = "the shortcut's name"
    spelling: ClassVar[str] = "Balance"

    @property
    def needs_shortcut(self) -> bool:
        """Always."""
        return True

    def fit(self, run: Run) -> nn.Module:
        """One training on balanced batches."""
        assert run.shortcuts is not None  # checked before
        weight_N = run.shortcuts.balancing_weights(groups_alike=self.groups == "alike")
        if self.sampling == "resample":
            return run.train("debiased", ERM(), sampling=weight_N)
        p_N = (weight_N / weight_N.sum()).astype("float32")
        return run.train("debiased", Weighted(samples=len(p_N)), signal_probs=p_N)
