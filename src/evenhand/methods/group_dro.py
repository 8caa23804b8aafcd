"""Group DRO: the groups that the model does worst on weigh the most, by weights that are learnt along with it.

Legend: B samples of a batch, C classes, N training samples, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from evenhand.losses import IGNORED, cross_entropy
from evenhand.methods.base import EQUAL_WEIGHTS, SHORTCUT_NAME, Guidance, OneStage
from evenhand.methods.objective import Objective, Setting, TrainingBatch, WeightRange
from evenhand.methods.rule import SignalKind
from evenhand.shortcuts.named import NamedShortcuts
from evenhand.validation import Range


@dataclass(frozen=True, kw_only=True)
class GroupDRO(OneStage):
    """Minimise Σ q_g·L_g over groups, label × value of the named shortcuts; with each batch q_g ← q_g·exp(η·L_g) / Σ.

    L_g is the batch's mean cross-entropy of group g, 0 for a group that the batch lacks; q is uniform at first and has
    learnt from a batch before that batch is weighed by it, as in the released code. With `adjustment` C > 0 the L_g in
    the exponent is L_g + C/√n_g, n_g training samples. Under gradient accumulation each micro-batch is a batch with its
    share of η; several processes make up a batch together.

    Attributes:
        eta: Step size η ≥ 0 of the weights; 0.01 as released.
        adjustment: C ≥ 0; 0 as released. The paper tries 0 to 5.
        sampling: `balanced`: batches are drawn with every group alike, as released where groups are reweighted.
            `uniform`: ordinary batches.

    Raises:
        UserError: If a value is out of range or a name is unknown.
    """

    eta: Annotated[float, Range(0)] = 0.01
    adjustment: Annotated[float, Range(0)] = 0.0
    sampling: Literal["balanced", "uniform"] = "balanced"

    name: ClassVar[str] = "group-dro"
    paper: ClassVar[str] = "Sagawa, Koh, Hashimoto & Liang, Distributionally Robust Neural Networks, ICLR 2020"
    label_access: ClassVar[str] = SHORTCUT_NAME
    spelling: ClassVar[str] = "Group DRO"
    needs_signal: ClassVar[bool] = True
    signal_kind: ClassVar[SignalKind] = "group"
    needs_objective: ClassVar[bool] = True

    @property
    def needs_shortcut(self) -> bool:
        """Always."""
        return True

    def guidance(self, shortcuts: NamedShortcuts) -> Guidance:
        """The samples' groups, and every group drawn alike unless batches are uniform."""
        group_N, names = groups_of(shortcuts)
        told = {"groups": names, "empty_groups": list(shortcuts.joint.empty)}
        return Guidance(signal=group_N, sampling=self.sampling_by(group_N), told=told)

    def sampling_by(self, signal_N: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Every group alike, unless batches are uniform."""
        return alike(signal_N) if self.sampling == "balanced" else None

    def objective(self, setting: Setting) -> Objective:
        """The groups' weights."""
        assert setting.signal_N is not None
        return GroupWeights(self, setting.signal_N)


def groups_of(shortcuts: NamedShortcuts) -> tuple[NDArray[np.int64], list[str]]:
    """Each training sample's group, from 0, shape (N,), and the groups' names; groups without a sample are left out."""
    kept_G, group_N = np.unique(shortcuts.groups(), return_inverse=True)
    return group_N, [shortcuts.joint.group_names[place] for place in kept_G]


def alike(group_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sampling weights by which every group is drawn alike, shape (N,): 1/n_g, with mean 1 over the samples."""
    size_G = np.bincount(group_N)
    return len(group_N) / np.count_nonzero(size_G) / size_G[group_N]


class GroupWeights(Objective):
    """The q of one training.

    Args:
        method: Group DRO.
        group_N: Each training sample's group, from 0, shape (N,); groups without a sample have no weight.
    """

    def __init__(self, method: GroupDRO, group_N: Tensor) -> None:
        self.method = method
        self.size_G = torch.bincount(group_N[group_N >= 0])
        self.weight_G = self.size_G.ne(0).double()
        self.weight_G /= self.weight_G.sum()
        self.range = WeightRange()

    def sample_losses(self, logits_BC: Tensor, batch: TrainingBatch) -> Tensor:
        """l_i·q_g·M/m_g of the batch's M samples, m_g of them in i's group, shape (B,): their mean is Σ q_g·L_g."""
        assert batch.signal_B is not None
        group_B = batch.signal_B.to(logits_BC.device)
        loss_B = cross_entropy(logits_BC, batch.label_B)
        counts_B = batch.label_B.ne(IGNORED).double()
        # how many samples of each group count, and the sum of their losses: a product, whose order is always the same
        sums_2G = torch.stack([counts_B, loss_B.detach().double()]) @ one_hot(group_B, len(self.size_G)).double()
        met_G, total_G = batch.over_processes(sums_2G)
        self._learn(total_G / met_G.clamp(min=1), float(batch.mean(counts_B)))
        weight_B = (self.weight_G * met_G.sum() / met_G.clamp(min=1))[group_B]
        self.range.see(weight_B)
        return weight_B.to(loss_B) * loss_B

    def _learn(self, loss_G: Tensor, share: float) -> None:
        """Take in a batch's mean losses, of which the batch's share of the optimizer step counts."""
        self.weight_G, self.size_G = self.weight_G.to(loss_G), self.size_G.to(loss_G.device)
        gain_G = loss_G + self.method.adjustment / self.size_G.clamp(min=1).sqrt()
        gain_G = self.method.eta * share * gain_G
        # the largest is taken off, so that no exponential overflows; an empty group's weight is 0 and stays so
        self.weight_G = self.weight_G * torch.exp(gain_G - gain_G.max())
        self.weight_G = self.weight_G / self.weight_G.sum()

    def idle_reason(self) -> str | None:
        """Equal weights throughout."""
        return EQUAL_WEIGHTS if self.range.is_point else None

    def outcome(self) -> dict[str, Any]:
        """The weights at the end, and what they are of."""
        return {"group_sizes": self.size_G.tolist(), "group_weights": self.weight_G.tolist()}

    def state(self) -> dict[str, Tensor]:
        """The weights."""
        return {"weight_G": self.weight_G.cpu()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on with them."""
        self.weight_G = state["weight_G"]
