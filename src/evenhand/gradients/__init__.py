"""Reductions of per-sample gradients: weighted sums for EDGE, norms for PGD."""

from evenhand.gradients.capture import Route, WeightedGradients
from evenhand.gradients.norm_sources import Source, check_source
from evenhand.gradients.norms import Norm, check_norm, gradient_norms, norm_power
from evenhand.gradients.patterns import Scope, check_scope, parameters_in_scope
from evenhand.gradients.projection import Projection, ProjectionKind
from evenhand.gradients.statistics import GradientStatistics
from evenhand.gradients.two_backwards import running_statistics_kept

__all__ = [
    "GradientStatistics",
    "Norm",
    "Projection",
    "ProjectionKind",
    "Route",
    "Scope",
    "Source",
    "WeightedGradients",
    "check_norm",
    "check_scope",
    "check_source",
    "gradient_norms",
    "norm_power",
    "parameters_in_scope",
    "running_statistics_kept",
]
