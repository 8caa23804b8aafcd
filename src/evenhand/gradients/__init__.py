"""Reductions of per-sample gradients: weighted sums for EDGE, norms for PGD."""

from evenhand.gradients.capture import Route as Route, WeightedGradients as WeightedGradients
from evenhand.gradients.norms import Norm as Norm, gradient_norms as gradient_norms, norm_power as norm_power
from evenhand.gradients.parameters import (
    Scope as Scope,
    Source as Source,
    parameters_in_scope as parameters_in_scope,
)
from evenhand.gradients.projection import Projection as Projection, ProjectionKind as ProjectionKind
from evenhand.gradients.statistics import GradientStatistics as GradientStatistics
from evenhand.gradients.two_backwards import running_statistics_kept as running_statistics_kept
