"""Even: EDGE's weights under a biased model's signal, with α from that signal, in the loss or as draws.

Legend: N training samples.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.gradients import Norm, Source
from evenhand.losses import cross_entropy, gce_weights
from evenhand.methods.base import (
    EQUAL_WEIGHTS,
    Exponent,
    Init,
    Method,
    OneStage,
    Run,
    check_unprojected,
    weightless_reason,
)
from evenhand.methods.edge import EDGE, EdgeProjection
from evenhand.methods.folds import biased_folds, check_folds
from evenhand.methods.gce import GCE
from evenhand.sampling import mixture, warn_if_equal
from evenhand.validation import Range, UserError

logger = logging.getLogger(__name__)

FLOOR = 1e-8  # PGD's
UNTRUSTED = 20
"""Samples on the side of the biased model's errors that are taken for chance: a few hard ones must not rule a run."""

UNSURE = "its biased models learnt nothing or are unsure (right about as often as wrong), so its α is 0"
"""Why Even with the balanced α is ERM."""

HARD = 1 / 3
"""Biased models unsure or wrong on more samples than this met hard ones (biased-snli: 17 to 24 %, MNLI: 43 to 48 %)."""


@dataclass(frozen=True, kw_only=True)
class Even(Method):
    """Train a biased model with GCE; weigh samples by 1 − α·q·p_i^q, so that what it gets right weighs as its errors.

    Two biased models, each trained on a random half of the samples and asked about the other half, give the p_i of
    EDGE's e − α·b, b = (1/N) Σ q·p_i^q·g_i, whose gradient is that of the weighted loss. With `alpha="balanced"` the
    run finds α by itself (`balanced_alpha`): the share p_i of each sample that the biased model gets right and the
    share 1 − p_i that it gets wrong weigh the same, but for 20 samples. So there is nothing to tune: few conflicting
    samples give an α near 1/q, wrong labels and a weak shortcut a smaller one.

    The weights stand in the loss where training starts from fresh weights, and are drawn by where it starts from a
    checkpoint: fine-tuning sees a sample two or three times, and on text errors that come by so rarely taught MiniLM
    nothing (`sampling`). Checkpoints of vision models and heads alone weren't measured.

    With `mix` above 0 one biased model gives PGD's scores s_i = ‖∇l_i‖ as well, and batches are drawn from
    λ·scores + (1 − λ)·uniform. At α = 0 that is PGD with that mix, at λ = 0 EDGE with the biased signal, at both ERM
    from the start chosen (with one fold and weights in the loss). Draws by scores help where hundreds of samples
    conflict (Colored MNIST at 1 %, with λ = 0.8, α = 1.4 and `inherit`) and harm where tens do: docs/even.md.

    Attributes:
        mix: λ in [0, 1]; at 0 batches are uniform and without replacement.
        alpha: Strength α ≥ 0 of EDGE, or `balanced`, which goes with `reweight` alone, as the other projections have
            another scale. Balanced weights are divided by their mean, so that learning rate and clipping mean what they
            do in ERM. `naive` and `reweight` need α·q ≤ 1.
        q: GCE's exponent in (0, 1]; 0.7 in both papers.
        projection: As EDGE's: `reweight`, `naive` (e − αb, the same in two gradients), `published`, `row`, `tensor` or
            `global`.
        sampling: Whether the weights 1 − α·q·p_i^q stand in the loss of uniform batches (`reweight`) or batches are
            drawn in proportion to them (`resample`), which needs the projection `reweight` and a mix of 0. `auto`
            draws where those hold and the run starts from a checkpoint.
        folds: Biased models, each trained on all but one of this number of random parts of the samples, at least as
            often on each as the run's epochs say, and asked about that part. At 1 a single model is asked about what
            it was trained on, and so about what it knows by heart. Draws by scores and `inherit` are about one biased
            model, so need 1.
        source: As PGD's: which parameters' gradient scores, where `mix` is above 0.
        norm: As PGD's, likewise.
        init: What the debiased model starts from: `initial`, the weights that the run started from (a checkpoint's, or
            fresh ones); `inherit`, the biased weights; `random`, other fresh ones; `pretrained`, as `initial`, refused
            where there is no checkpoint.

    Raises:
        UserError: If a value is out of range, a name is unknown, α·q > 1 without a projection, or draws by the weights
            are asked for beside draws by scores or a projection.
    """

    mix: Annotated[float, Range(0, 1)] = 0.0
    alpha: Annotated[float, Range(0)] | Literal["balanced"] = "balanced"
    q: Exponent = 0.7
    projection: EdgeProjection = "reweight"
    sampling: Literal["auto", "reweight", "resample"] = "auto"
    folds: Annotated[int, Range(1)] = 2
    source: Source = "head"
    norm: Norm = "l2"
    init: Init = "initial"

    name: ClassVar[str] = "even"
    paper: ClassVar[str] = "this project: EDGE (CCL 2025) and PGD (ICLR 2023) composed"
    spelling: ClassVar[str] = "Even"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == "balanced" and self.projection != "reweight":
            raise UserError(
                "The 'alpha' parameter of Even can be 'balanced' with the projection 'reweight' only: give a number "
                f"with {self.projection!r}."
            )
        if not isinstance(self.alpha, str) and self.projection in ("naive", "reweight"):
            check_unprojected("Even", self.alpha, self.q)
        if self.sampling == "resample" and not self._may_draw:
            raise UserError(
                "The 'sampling' parameter of Even can be 'resample' only with mix=0 and the projection 'reweight', as "
                f"it draws by its weights. Got mix={self.mix!r} and {self.projection!r}."
            )
        if self.folds > 1 and (self.mix > 0 or self.init == "inherit"):
            raise UserError(
                "The 'folds' parameter of Even must be 1 with draws by scores (mix above 0) or init='inherit', which "
                f"are about one biased model. Got {self.folds!r}."
            )

    @property
    def _may_draw(self) -> bool:
        return self.mix == 0 and self.projection == "reweight"

    def models_trained(self) -> int:
        """The debiased one and the biased ones."""
        return 1 + self.folds

    def strength(self, probability_N: NDArray[np.floating]) -> float:
        """α: as given, or as the biased model's probabilities of the true classes, shape (N,), have it."""
        return balanced_alpha(probability_N, self.q) if isinstance(self.alpha, str) else self.alpha

    def weighting(self, probability_N: NDArray[np.floating], sampling: NDArray[np.float64] | None) -> OneStage:
        """What the debiased model is trained with where the weights stand in the loss.

        Args:
            probability_N: The biased model's probabilities of the true classes, shape (N,).
            sampling: Sampling probabilities, shape (N,); None for uniform ones.
        """
        alpha = self.strength(probability_N)
        if not isinstance(self.alpha, str):
            return EDGE(alpha=alpha, q=self.q, projection=self.projection, signal="biased")
        mean = float(np.average(weights(probability_N, alpha, self.q), weights=sampling))
        return Balanced(alpha=alpha, q=self.q, mean=mean)

    def fit(self, run: Run) -> nn.Module:
        """Biased models, their probabilities (and scores, if they draw), one debiased model."""
        biased, probability_N = self._asked(run)
        sampling = None
        if self.mix > 0:
            scores = run.gradient_norms(biased, source=self.source, norm=self.norm)
            sampling = mixture(scores, self.mix, FLOOR)
        warn_if_equal(probability_N, "probability")
        alpha = self.strength(probability_N)
        if alpha > 0:  # at 0 this is ERM
            warn_of_a_hard_task(probability_N)
        start = run.start_from(self.init, biased)
        if self.sampling == "resample" or (self.sampling == "auto" and self._may_draw and run.pretrained):
            # equal weights are the ordinary epoch, without replacement
            drawn_by = weights(probability_N, alpha, self.q) if alpha > 0 else None
            return run.train("debiased", Drawn(alpha=alpha, q=self.q), start=start, sampling=drawn_by)
        stage = self.weighting(probability_N, sampling)
        return run.train("debiased", stage, start=start, sampling=sampling, signal_probs=probability_N)

    def _asked(self, run: Run) -> tuple[nn.Module, NDArray[np.float32]]:
        """A biased model, and for each sample the true class's probability under one that didn't see it, shape (N,)."""
        gce = GCE(q=self.q)
        if self.folds == 1:
            biased = run.train("biased", gce)
            return biased, run.probabilities(biased)
        check_folds("Even", run, self.folds)
        probability_N = np.empty(len(run.parts(self.folds)), dtype=np.float32)
        model = None
        for k, (model, unseen_N) in enumerate(biased_folds(run, gce, self.folds)):
            probability_N[unseen_N] = run.probabilities(model, f"probabilities-{k + 1}")[unseen_N]
        assert model is not None
        return model, probability_N


@dataclass(frozen=True, kw_only=True)
class Balanced(OneStage):
    """Minimise the mean of (1 − α·q·p_i^q)·l_i, divided by the weights' mean: a stage of Even.

    Attributes:
        alpha: α in [0, 1/q].
        q: GCE's exponent.
        mean: The mean weight of what is drawn.
    """

    alpha: float
    q: float
    mean: float

    name: ClassVar[str] = "balanced"
    paper: ClassVar[str] = "this project: EDGE's e − αb in one backward, at the scale of ERM"
    needs_signal: ClassVar[bool] = True

    def idle_reason(self, signal_N: NDArray[np.floating] | None) -> str | None:
        """α = 0, or equal probabilities."""
        return UNSURE if self.alpha == 0 else weightless_reason(self.alpha, signal_N)

    def sample_losses(self, logits_BC: Tensor, labels_B: Tensor, signal_B: Tensor | None = None) -> Tensor:
        """(1 − α·q·p_i^q)·l_i over the mean weight, shape (B,)."""
        assert signal_B is not None
        weight_B = (1 - self.alpha * gce_weights(signal_B, self.q)) / self.mean
        return weight_B * cross_entropy(logits_BC, labels_B)


@dataclass(frozen=True, kw_only=True)
class Drawn(OneStage):
    """Plain cross-entropy over batches drawn in proportion to 1 − α·q·p_i^q: a stage of Even.

    Attributes:
        alpha: α in [0, 1/q].
        q: GCE's exponent.
    """

    alpha: float
    q: float

    name: ClassVar[str] = "drawn"
    paper: ClassVar[str] = "this project: EDGE's e − αb by importance sampling"

    def idle_reason(self, signal_N: NDArray[np.floating] | None) -> str:
        """Uniform batches: α = 0, or equal weights."""
        return UNSURE if self.alpha == 0 else EQUAL_WEIGHTS


def warn_of_a_hard_task(probability_N: NDArray[np.floating]) -> None:
    """Warn where the biased model is unsure or wrong so often that this can't mostly be samples against a shortcut."""
    wrong = float(np.mean(np.asarray(probability_N) < 0.5))
    if wrong > HARD:
        logger.warning(
            "The biased model gives the true class less than 50 %% on %.0f %% of the training samples. Most of these "
            "are probably hard or mislabelled, not against a shortcut, and Even trains on them more: compare with ERM.",
            100 * wrong,
        )


def weights(probability_N: NDArray[np.floating], alpha: float, q: float) -> NDArray[np.float64]:
    """1 − α·q·p_i^q, shape (N,): what EDGE's e − αb leaves of each sample."""
    # α·q may be a rounding above 1, and no sample can be drawn less than never
    return (1 - alpha * q * np.asarray(probability_N, dtype=np.float64) ** q).clip(min=0)


def balanced_alpha(probability_N: NDArray[np.floating], q: float) -> float:
    """The α at which the weights v_i = 1 − α·q·p_i^q give what a biased model gets right the weight of its errors.

    Σ v_i·p_i = Σ v_i·(1 − p_i) + 20 is solved for α:

        α = (Σ (2p_i − 1) − 20) / (q·Σ p_i^q·(2p_i − 1)), kept within [0, 1/q].

    Where the biased model is certain, p_i ∈ {0, 1}, and wrong for n_e of N samples, the errors weigh 1 each and the
    others (n_e + 20) / (N − n_e). The 20 keeps an unbiased task, whose few errors are hard samples, from being trained
    on them alone; where hundreds of samples conflict it hardly matters.

    Args:
        probability_N: The biased model's probability of each sample's true class, shape (N,).
        q: GCE's exponent in (0, 1].

    Returns:
        α; 0, which is ERM, where the biased model is wrong as often as right.
    """
    p_N = np.asarray(probability_N, dtype=np.float64)
    lead_N = 2 * p_N - 1
    surplus = float(lead_N.sum()) - UNTRUSTED
    if surplus <= 0:
        return 0.0
    # positive: p^q is at least 0.5^q where the lead is positive and at most that where it isn't
    return min(surplus / (q * float((p_N**q * lead_N).sum())), 1 / q)
