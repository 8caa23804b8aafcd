"""Several shortcuts of the same rows, and how a row stands to all of them together.

Legend: N rows, S shortcuts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.fitted import ALIGNED, CONFLICTING, INDEPENDENT, FittedShortcut
from evenhand.shortcuts.fitting import fit_shortcut
from evenhand.shortcuts.own import OwnShortcut
from evenhand.shortcuts.samples import Samples
from evenhand.shortcuts.spelling import Shortcut
from evenhand.validation import UserError


def parse_all(given: Sequence[Rule | str]) -> list[Rule]:
    """The shortcuts, each by itself or by its spelling.

    Raises:
        UserError: If one is spelled wrongly, or two are the same or have the same name.
    """
    rules = [Shortcut.parse(rule) if isinstance(rule, str) else rule for rule in given]
    for rule in rules:
        if not isinstance(rule, (Shortcut, OwnShortcut)):
            raise UserError(f"A shortcut is a spelling such as 'token:nimbus', or a Shortcut. Got {rule!r}.")
    for name, times in Counter(map(str, rules)).items():
        if times > 1:
            raise UserError(f"The shortcut '{name}' is given {times} times; give it once.")
    return rules


def fit_shortcuts(
    given: Sequence[Rule | str], samples: Samples, label_N: NDArray[Any], classes: Sequence[str]
) -> list[FittedShortcut]:
    """Fit several shortcuts on the training rows.

    Raises:
        UserError: As `fit_shortcut`, and if two are one rule by two names: of one kind, with the same parts of rows.
    """
    fitted: list[FittedShortcut] = []
    seen: list[tuple[str, FittedShortcut, NDArray[np.int64]]] = []
    for rule in parse_all(given):
        found = fit_shortcut(rule, samples, label_N, classes)
        value_N = found.apply(samples).value_N
        for kind, other, other_N in seen:
            if kind == rule.kind and _same_parts(value_N, other_N):
                raise UserError(
                    f"The shortcuts '{other.name}' and '{found.name}' are one rule by two names: no training row tells "
                    "them apart; give one of them."
                )
        fitted.append(found)
        seen.append((rule.kind, found, value_N))
    return fitted


def _same_parts(first_N: NDArray[np.int64], second_N: NDArray[np.int64]) -> bool:
    """Whether two numberings divide the rows into the same parts."""
    pairs = len(np.unique(np.stack([first_N, second_N]), axis=1).T)
    return pairs == len(np.unique(first_N)) == len(np.unique(second_N))


def standing_to_all(standings: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """How each row stands to several shortcuts together, as its place in `STANDINGS`, shape (N,).

    A row that conflicts with any is conflicting; else one that is aligned with any is aligned; else it is independent.

    Args:
        standings: For each shortcut how the rows stand to it, from `Applied.standing`.
    """
    if not standings:
        raise UserError("No shortcut is given, so no row is aligned with any or conflicts with it.")
    standing_SN = np.stack(standings)
    aligned_N, conflicting_N = ((standing_SN == side).any(axis=0) for side in (ALIGNED, CONFLICTING))
    return np.where(conflicting_N, CONFLICTING, np.where(aligned_N, ALIGNED, INDEPENDENT))
