"""Methods by name: each one short file, its hyper-parameters the fields of its dataclass."""

from evenhand.methods.base import Init, Method, OneStage, Run
from evenhand.methods.dpr import DPR
from evenhand.methods.edge import EDGE
from evenhand.methods.erm import ERM
from evenhand.methods.even import Even
from evenhand.methods.focal import Focal
from evenhand.methods.gce import GCE
from evenhand.methods.jtt import JTT
from evenhand.methods.lff import LfF
from evenhand.methods.pgd import PGD
from evenhand.methods.reweight import Reweight

METHODS: dict[str, type[Method]] = {
    "erm": ERM,
    "gce": GCE,
    "edge": EDGE,
    "pgd": PGD,
    "even": Even,
    "jtt": JTT,
    "lff": LfF,
    "dpr": DPR,
    "focal": Focal,
    "reweight": Reweight,
}
"""Every method by name."""

__all__ = [
    "DPR",
    "EDGE",
    "ERM",
    "GCE",
    "JTT",
    "METHODS",
    "PGD",
    "Even",
    "Focal",
    "Init",
    "LfF",
    "Method",
    "OneStage",
    "Reweight",
    "Run",
]
