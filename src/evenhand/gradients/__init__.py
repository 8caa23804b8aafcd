"""Reductions of per-sample gradients: weighted sums for EDGE, norms for PGD."""

from evenhand.gradients.capture import Route, WeightedGradients
from evenhand.gradients.norm_sources import Source, check_source
from evenhand.gradients.norms import Norm, check_norm, gradient_norms, norm_power
from evenhand.gradients.projection import Projection, ProjectionKind

__all__ = [
    "Norm",
    "Projection",
    "ProjectionKind",
    "Route",
    "Source",
    "WeightedGradients",
    "check_norm",
    "check_source",
    "gradient_norms",
    "norm_power",
]
