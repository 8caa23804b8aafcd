"""Reductions of per-sample gradients: weighted sums for EDGE, norms for PGD."""

from evenhand.gradients.combination import GradientStatistics as GradientStatistics
from evenhand.gradients.norms import Norm as Norm, gradient_norms as gradient_norms, norm_power as norm_power
from evenhand.gradients.parameters import Scope as Scope, Source as Source, parameters_in_scope as parameters_in_scope
from evenhand.gradients.projection import Projection as Projection, ProjectionKind as ProjectionKind
from evenhand.gradients.second_backward import running_statistics_kept as running_statistics_kept
from evenhand.gradients.weighted import Route as Route, WeightedGradients as WeightedGradients
