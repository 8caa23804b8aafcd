"""Methods by name: each one short file, its hyper-parameters the fields of its dataclass."""

from evenhand.methods.balance import Balance as Balance
from evenhand.methods.base import Init as Init, Method as Method, OneStage as OneStage, Run as Run
from evenhand.methods.dpr import DPR as DPR
from evenhand.methods.edge import EDGE as EDGE
from evenhand.methods.erm import ERM as ERM
from evenhand.methods.even import Even as Even
from evenhand.methods.focal import Focal as Focal
from evenhand.methods.gce import GCE as GCE
from evenhand.methods.group_dro import GroupDRO as GroupDRO
from evenhand.methods.jtt import JTT as JTT
from evenhand.methods.lff import LfF as LfF
from evenhand.methods.logit_correction import LogitCorrection as LogitCorrection
from evenhand.methods.pgd import PGD as PGD
from evenhand.methods.reweight import Reweight as Reweight

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (ERM, GCE, EDGE, PGD, Even, JTT, LfF, DPR, Focal, Reweight, Balance, GroupDRO, LogitCorrection)
}
"""Every method by name."""
