"""Reductions of per-sample gradients: weighted sums for EDGE, norms for PGD."""

from evenhand.gradients.norms import Norm, Source, check_norm, gradient_norms
from evenhand.gradients.projection import Projection, ProjectionKind
from evenhand.gradients.two_backwards import BiasGradients

__all__ = ["BiasGradients", "Norm", "Projection", "ProjectionKind", "Source", "check_norm", "gradient_norms"]
