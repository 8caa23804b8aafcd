"""Methods by name: each one short file, its hyper-parameters the fields of its dataclass."""

from evenhand.methods.base import Init, Method, OneStage, Run
from evenhand.methods.edge import EDGE
from evenhand.methods.erm import ERM
from evenhand.methods.gce import GCE
from evenhand.methods.pgd import PGD

METHODS: dict[str, type[Method]] = {
    "erm": ERM,
    "gce": GCE,
    "edge": EDGE,
    "pgd": PGD,
}
"""Every method by name."""

__all__ = ["EDGE", "ERM", "GCE", "METHODS", "PGD", "Init", "Method", "OneStage", "Run"]
