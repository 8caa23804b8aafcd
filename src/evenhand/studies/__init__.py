"""Studies: a grid of cells × seeds from a file; and `debias`: the runs that lead from data to one chosen model."""

from evenhand.studies.debias import Debiased, debias
from evenhand.studies.study import EngineName, Study, Watch, study

__all__ = ["Debiased", "EngineName", "Study", "Watch", "debias", "study"]
