"""Several shortcuts of the same rows, and how a row stands to all of them together.

Legend: N rows, S shortcuts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.fitted import ALIGNED, CONFLICTING, INDEPENDENT, FittedShortcut
from evenhand.shortcuts.fitting import fitted_values
from evenhand.shortcuts.own import OwnShortcut
from evenhand.shortcuts.samples import Samples
from evenhand.shortcuts.spelling import Shortcut
from evenhand.validation import UserError


def given_rules(given: Any) -> tuple[Rule | str, ...]:
    """Whatever names shortcuts, as a tuple: one of them or several, fitted or not; fitted ones are fitted again."""
    if given is None:
        return ()
    if isinstance(given, (str, Shortcut, OwnShortcut, FittedShortcut)):
        given = (given,)
    given = getattr(given, "fitted", given)  # of `NamedShortcuts`
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Iterable):
        raise UserError(f"Shortcuts are a list of spellings such as 'token:nimbus'. Got {given!r}.")
    return tuple(one.rule if isinstance(one, FittedShortcut) else one for one in given)


def parse_all(given: Any) -> list[Rule]:
    """The shortcuts, each by itself or by its spelling.

    Raises:
        UserError: If one is spelled wrongly, or two are the same, have the same name or contradict each other.
    """
    rules = [Shortcut.parse(rule) if isinstance(rule, str) else rule for rule in given_rules(given)]
    for rule in rules:
        if not isinstance(rule, (Shortcut, OwnShortcut)):
            raise UserError(f"A shortcut is a spelling such as 'token:nimbus', or a Shortcut. Got {rule!r}.")
    for name, times in Counter(map(str, rules)).items():
        if times > 1:
            raise UserError(f"The shortcut '{name}' is given {times} times; give it once.")
    spelled = [rule for rule in rules if isinstance(rule, Shortcut)]
    for first, second in combinations(spelled, 2):
        _check_apart(first, second)
    return rules


def _check_apart(first: Shortcut, second: Shortcut) -> None:
    """Raise `UserError` if two shortcuts look at the same thing, so that a sample could stand to it in two ways."""
    if first.kind != second.kind or first.field != second.field:
        return
    if first.kind == "colour":
        raise UserError(
            f"The hue is a part of the colour, so '{first}' and '{second}' contradict each other: give one."
        )
    if first.kind == "token" and set(first.values) == set(second.values):
        raise UserError(f"'{first}' and '{second}' are one shortcut: their tokens have no order; give it once.")
    both = [word for word in first.values if word in second.values] if first.kind == "token" else []
    if both:
        raise UserError(
            f"The token '{both[0]}' is in '{first}' and in '{second}', which contradict each other: name it in one."
        )


def identities(told: Iterable[Any]) -> list[Any]:
    """What tells shortcuts from others: their spellings, in no order, nor are tokens of one in any; as plain data.

    Args:
        told: Spellings, and what else a record tells of shortcuts that have none.
    """
    found: list[Any] = []
    for one in told:
        with suppress(UserError):  # a damaged record
            rule = Shortcut.parse(one) if isinstance(one, str) else None
            one = one if rule is None or rule.kind != "token" else str(replace(rule, values=tuple(sorted(rule.values))))
        found.append(one)
    return sorted(found, key=lambda one: json.dumps(one, sort_keys=True))


def shortcuts_text(told: Iterable[Any]) -> str:
    """As in "column:product + token:nimbus", or "none"; those without a spelling by name and digest, as in a record."""
    texts = [
        f"{one.get('name')} ({str(one.get('sha256'))[:8]})" if isinstance(one, Mapping) else str(one)
        for one in identities(told)
    ]
    return " + ".join(texts) or "none"


def fit_shortcuts(
    given: Sequence[Rule | str], samples: Samples, label_N: NDArray[Any], classes: Sequence[str]
) -> list[FittedShortcut]:
    """Fit several shortcuts on the training rows.

    Raises:
        UserError: As `fit_shortcut`, and if two are one rule by two names: of one kind, with the same parts of rows.
    """
    return [fitted for fitted, _ in fitted_all(given, samples, label_N, classes)]


def fitted_all(
    given: Sequence[Rule | str], samples: Samples, label_N: NDArray[Any], classes: Sequence[str]
) -> list[tuple[FittedShortcut, NDArray[np.int64]]]:
    """As `fit_shortcuts`, each with the training rows' values, shape (N,)."""
    found: list[tuple[FittedShortcut, NDArray[np.int64]]] = []
    for rule in parse_all(given):
        fitted, value_N = fitted_values(rule, samples, label_N, classes)
        for other, other_N in found:
            if other.rule.kind == rule.kind and _same_parts(value_N, other_N):
                raise UserError(
                    f"The shortcuts '{other.name}' and '{fitted.name}' are one rule by two names: no training row "
                    "tells them apart; give one of them."
                )
        found.append((fitted, value_N))
    return found


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
