"""Balance: training batches in which a named shortcut says nothing of the label.

Legend: B samples of a batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from evenhand.losses import cross_entropy
from evenhand.methods.base import EQUAL_WEIGHTS, SHORTCUT_NAME, Guidance, OneStage
from evenhand.methods.rule import SignalKind
from evenhand.sampling import all_equal
from evenhand.shortcuts.balance import CAP
from evenhand.shortcuts.named import NamedShortcuts


@dataclass(frozen=True, kw_only=True)
class Balance(OneStage):
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
    label_access: ClassVar[str] = SHORTCUT_NAME
    spelling: ClassVar[str] = "Balance"
    signal_kind: ClassVar[SignalKind] = "weight"

    @property
    def needs_signal(self) -> bool:  # type: ignore[override]
        """Where the weights stand in the loss."""
        return self.sampling == "reweight"

    @property
    def needs_shortcut(self) -> bool:
        """Always."""
        return True

    def guidance(self, shortcuts: NamedShortcuts) -> Guidance:
        """The weights, with mean 1, to draw by or for the loss."""
        weight_N = shortcuts.balancing_weights(groups_alike=self.groups == "alike")
        told = {"empty_groups": list(shortcuts.joint.empty), "capped": int((weight_N > 0.999 * CAP).sum())}
        if self.needs_signal:
            return Guidance(signal=weight_N.astype("float32"), told=told)
        return Guidance(sampling=weight_N, told=told)

    def idle_reason(self, signal_N: Any) -> str | None:
        """Equal weights; and uniform batches where it draws."""
        return EQUAL_WEIGHTS if signal_N is None or all_equal(signal_N) else None

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """The weight of each sample times l_i, or l_i of batches that are drawn; shape (B,)."""
        loss_B = cross_entropy(logits_BC, labels_B)
        return loss_B if signal_B is None else signal_B * loss_B
