"""Shortcuts that have a name: rules that give every sample a value, and what the training rows say of the values."""

from evenhand.shortcuts.balance import Joint as Joint
from evenhand.shortcuts.fitted import STANDINGS as STANDINGS
from evenhand.shortcuts.fitted import Applied as Applied
from evenhand.shortcuts.fitted import FittedShortcut as FittedShortcut
from evenhand.shortcuts.fitting import fit_shortcut as fit_shortcut
from evenhand.shortcuts.neutral import Neutral as Neutral
from evenhand.shortcuts.neutral import neutralised as neutralised
from evenhand.shortcuts.own import OwnShortcut as OwnShortcut
from evenhand.shortcuts.samples import Samples as Samples
from evenhand.shortcuts.several import fit_shortcuts as fit_shortcuts
from evenhand.shortcuts.several import standing_to_all as standing_to_all
from evenhand.shortcuts.spelling import Shortcut as Shortcut
