"""Studies: a grid of cells × seeds from a file, carried out on one machine or many; nothing planned ever vanishes."""

from evenhand.studies.study import EngineName, Study, Watch, study

__all__ = ["EngineName", "Study", "Watch", "study"]
