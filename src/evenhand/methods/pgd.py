"""PGD: draw samples in proportion to the gradient norm that a biased model gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import nn

from evenhand.data.columns import Inputs
from evenhand.gradients import Norm, Source
from evenhand.methods.base import Exponent, Init, Method, OneStage, Run
from evenhand.methods.erm import ERM
from evenhand.methods.gce import GCE
from evenhand.methods.pgd_joint import JointPGD
from evenhand.methods.weighted import Weighted
from evenhand.sampling import mixture
from evenhand.validation import Range, UserError


@dataclass(frozen=True, kw_only=True)
class PGD(Method):
    """Train a biased model with GCE, score each sample by s_i = ‖∇l_i‖, retrain with draws of probability s_i / Σ s.

    The fields after `q` are the axes of the paper's ablations; `source` and `init` are two more. The released
    Colored-MNIST settings are `augment=True, score_on="augmented", norm=0.7` with the model pgd-cnn (the paper says
    L2); the defaults leave augmentation out, as it is for images only.

    With `stages="single"` both models learn side by side from the same uniform batches. Before each step the biased
    model, as it is then, scores the batch's B samples in eval mode by its head's closed form; with p_i =
    λ·max(s_i / Σ s, floor) + (1 − λ)/B over the batch, normalised, the debiased model takes its step on B·p_i·l_i
    (`reweight`) or on B samples drawn from the batch with p_i (`resample`), and the biased one its own with GCE.

    Attributes:
        q: GCE's exponent in (0, 1]; 0.7 in the paper. `loss="ce"` makes no use of it.
        loss: What the biased model minimises: `gce` (the paper) or `ce`.
        augment: Whether both models are trained on augmented images: the released crop, colour jitter and rotation.
        source: Which parameters' gradient. `head`: the last Linear layer with its bias (the released code takes its
            weight alone). `extractor`: the other trainable parameters. `all`: all trainable ones. Otherwise a name
            pattern with a dot or a wildcard, such as `backbone.*`. A single stage takes the head.
        norm: "l2" in the paper, "l1", "linf", "l2sq", or a power p > 0 (the released code ships 0.7).
        sampling: `resample` (the paper): batches are drawn i.i.d. with the probabilities p_i. `reweight`: batches are
            uniform and the loss of a sample is N·p_i·l_i.
        mix: λ in [0, 1] of p = λ·scores + (1 − λ)·uniform; 1 in the paper. At 0 batches are uniform and without
            replacement.
        stages: `multi` (the paper) or `single`.
        init: What the debiased model starts from: `inherit` the biased weights (the paper), `random` fresh ones,
            `initial` those that the run started from, `pretrained` the same, where they are a checkpoint's. In a single
            stage the weights to inherit are those that the biased model starts from.
        score_on: Whether `clean` images are scored or `augmented` ones (the released code).
        floor: Lowest sampling probability before mixing and normalising; 1e-8 as released.

    Raises:
        UserError: If a value is out of range, a name is unknown, or choices exclude each other.
    """

    q: Exponent = 0.7
    loss: Literal["gce", "ce"] = "gce"
    augment: bool = False
    source: Source = "head"
    norm: Norm = "l2"
    sampling: Literal["resample", "reweight"] = "resample"
    mix: Annotated[float, Range(0, 1)] = 1.0
    stages: Literal["multi", "single"] = "multi"
    init: Init = "inherit"
    score_on: Literal["clean", "augmented"] = "clean"
    floor: Annotated[float, Range(0, 1)] = 1e-8

    name: ClassVar[str] = "pgd"
    paper: ClassVar[str] = "Ahn, Kim & Yun, Mitigating Dataset Bias by Using Per-Sample Gradient, ICLR 2023"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stages == "single" and self.source != "head":
            raise UserError(
                f"PGD with stages='single' scores by the head, so its source must be 'head'. Got {self.source!r}."
            )
        if self.stages == "single" and self.augment != (self.score_on == "augmented"):
            raise UserError(
                "PGD with stages='single' scores the very images it trains on, so score_on must be 'augmented' with "
                f"augment=True and 'clean' without. Got {self.score_on!r}."
            )

    def check_inputs(self, kind: Inputs) -> None:
        """Augmentation needs images."""
        if kind != "image" and (self.augment or self.score_on == "augmented"):
            raise UserError(
                f"PGD's augmentation is made for images of one size, but the task's inputs are {kind}: use "
                "augment=False and score_on='clean'."
            )

    def models_trained(self) -> int:
        """The biased one and the debiased one, unless they share a stage."""
        return 2 if self.stages == "multi" else 1

    def biased(self) -> OneStage:
        """What the biased model is trained with."""
        return GCE(q=self.q) if self.loss == "gce" else ERM()

    def fit(self, run: Run) -> nn.Module:
        """Algorithm 1 of the paper, or its single-stage variant."""
        if self.stages == "single":
            return self._fit_jointly(run)
        biased = run.train("biased", self.biased(), augment=self.augment)
        scores = run.gradient_norms(biased, source=self.source, norm=self.norm, augment=self.score_on == "augmented")
        p = mixture(scores, self.mix, self.floor)
        start = run.start_from(self.init, biased)
        if self.sampling == "reweight" and p is not None:
            p = (p / p.sum()).astype("float32")
            return run.train("debiased", Weighted(samples=len(p)), start=start, signal_probs=p, augment=self.augment)
        return run.train("debiased", ERM(), start=start, sampling=p, augment=self.augment)

    def _fit_jointly(self, run: Run) -> nn.Module:
        joint = JointPGD(biased=self.biased(), norm=self.norm, sampling=self.sampling, mix=self.mix, floor=self.floor)
        biased = run.initial()
        start = run.start_from(self.init, biased)
        return run.train("debiased", joint, start=start, companion=biased, augment=self.augment)
