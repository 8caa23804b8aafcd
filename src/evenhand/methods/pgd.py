"""PGD: draw samples in proportion to the gradient norm that a biased model gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from torch import nn

from evenhand.gradients import Norm, Source, check_norm, check_source
from evenhand.methods.base import Init, Method, Run
from evenhand.methods.erm import ERM
from evenhand.methods.gce import GCE
from evenhand.validation import UserError, check_choice, check_number


@dataclass(frozen=True, kw_only=True)
class PGD(Method):
    """Train a biased model with GCE, score each sample by s_i = ‖∇l_i‖, retrain with draws of probability s_i / Σ s.

    Attributes:
        q: GCE's exponent in (0, 1]; 0.7 in the paper.
        source: Which parameters' gradient. `head`: the last Linear layer with its bias (the released code takes its
            weight alone). `extractor`: the other trainable parameters. `all`: all trainable ones. Otherwise a name
            pattern with a dot or a wildcard, such as `backbone.*`.
        norm: "l2" in the paper, "l1", "linf", "l2sq", or a power p > 0 (the released code ships 0.7).
        init: What the debiased model starts from: `inherit` the biased weights (the paper), `random` fresh ones,
            `pretrained` the checkpoint that the run started from.
        floor: Lowest sampling probability before normalising; 1e-8 as released.

    Raises:
        UserError: If a value is out of range or a name is unknown.
    """

    q: float = 0.7
    source: Source = "head"
    norm: Norm = "l2"
    init: Init = "inherit"
    floor: float = 1e-8

    name: ClassVar[str] = "pgd"
    paper: ClassVar[str] = "Ahn, Kim & Yun, Mitigating Dataset Bias by Using Per-Sample Gradient, ICLR 2023"

    def __post_init__(self) -> None:
        check_number("PGD", "q", self.q, 0, 1, low_open=True)
        check_source("PGD", self.source)
        check_norm("PGD", self.norm)
        check_choice("PGD", "init", self.init, get_args(Init))
        check_number("PGD", "floor", self.floor, 0, 1)

    def check_start(self, pretrained: bool) -> None:
        """`init="pretrained"` needs a checkpoint."""
        if self.init == "pretrained" and not pretrained:
            raise UserError(
                "The 'init' parameter of PGD can be 'pretrained' only for a model that starts from a checkpoint; "
                "this one is trained from scratch, so use 'inherit' or 'random'."
            )

    def models_trained(self) -> int:
        """The biased one and the debiased one."""
        return 2

    def fit(self, run: Run) -> nn.Module:
        """Algorithm 1 of the paper."""
        biased = run.train("biased", GCE(q=self.q))
        scores = run.gradient_norms(biased, source=self.source, norm=self.norm)
        sampling = (scores / scores.sum()).clip(min=self.floor)
        return run.train("debiased", ERM(), start=run.start_from(self.init, biased), sampling=sampling)
