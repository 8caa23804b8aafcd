"""What records tell of shortcuts that have a name: measures by shortcut, as numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from evenhand.metrics import GroupShare, wilson
from evenhand.runs.schema import Shown, ShownEntries, Stored
from evenhand.runs.told import RelianceTold, ShareTold, ShortcutTold
from evenhand.runs.worst_groups import interval_text
from evenhand.shortcuts.fitted import FittedShortcut
from evenhand.wording import clipped, count, distinct, one_line, percent, points

TOGETHER = "all together"
"""What several shortcuts are called that are measured as one; among names it is None."""


class _Told(Stored):
    by_shortcut: ShownEntries[ShortcutTold] = {}  # noqa: RUF012
    all_shortcuts: Shown[ShortcutTold] = None


def by_shortcut(metrics: Mapping[str, Any] | None) -> dict[str | None, ShortcutTold]:
    """Each named shortcut's measures on one test set, and under None those of all together; damaged ones left out."""
    told = _Told.model_validate(dict(metrics or {}))
    return {**told.by_shortcut, **({} if told.all_shortcuts is None else {None: told.all_shortcuts})}


def overall_measures(metrics: Mapping[str, Any] | None) -> ShortcutTold | None:
    """The measures of the only shortcut, or of all together; None where no shortcut is named."""
    found = by_shortcut(metrics)
    return found.get(None, next(iter(found.values())) if len(found) == 1 else None)


def share_of(told: ShareTold | RelianceTold | None) -> GroupShare | None:
    """A share of samples with its interval; None where there is no sample, or the record doesn't tell."""
    value = told.share if isinstance(told, RelianceTold) else told and told.accuracy
    n = told and told.n
    return None if value is None or n is None or n < 1 else GroupShare((), value, n, wilson(value, n))


def shortcut_names(record: Mapping[str, Any]) -> list[str]:
    """What the shortcuts of a run are called, whether it has begun or not."""
    told = record.get("shortcuts")
    names = [one.get("name") if isinstance(one, dict) else one for one in told] if isinstance(told, list) else []
    return distinct(name for name in names if isinstance(name, str))


def fitted_shortcuts(record: Mapping[str, Any]) -> list[FittedShortcut]:
    """The named shortcuts as the training rows know them; damaged ones are left out."""
    told = record.get("shortcuts_fitted")
    found: list[FittedShortcut] = []
    for one in told if isinstance(told, list) else ():
        with suppress(ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            fitted = FittedShortcut.from_dict(one)
            assert fitted.conflicting >= 0  # counts and classes fit each other, or this raises
            found.append(fitted)
    return found


def quoted(name: str) -> str:
    """A shortcut's name as sentences have it."""
    return f"'{one_line(clipped(name))}'"


def shortcut_lines(metrics: Mapping[str, Any] | None) -> list[str]:
    """One or two lines on each shortcut: who goes along and who against, and how much the model relies on it."""
    lines: list[str] = []
    for name, told in by_shortcut(metrics).items():
        which, it = ("All shortcuts together", "them") if name is None else (f"Shortcut {quoted(name)}", "it")
        aligned = _share(told.aligned, "aligned", f"no sample goes along with {it}", "95 % interval ")
        conflicting = _share(told.conflicting, "conflicting", f"no sample goes against {it}")
        lines.append(f"{which}: {aligned}, {conflicting}{_gap(told)}.")
        second = "; ".join(part for part in (_taken(told, it), _reliance(told, it)) if part)
        lines += [f"{second[:1].upper()}{second[1:]}."] if second else []
    return lines


def _share(told: ShareTold, what: str, none: str, interval: str = "") -> str:
    share = share_of(told)
    if share is None:
        return none if told.n == 0 else f"{what} not recorded"
    size = count(share.n or 0, "sample")
    return f"{what} {percent(share.accuracy)} % of {size} ({interval}{interval_text(share)})"


def _gap(told: ShortcutTold) -> str:
    if told.gap.value is None:
        return ""
    ends = told.gap.interval
    return f", gap {points(told.gap.value)} points" + (f" ({points(ends[0])} to {points(ends[1])})" if ends else "")


def _taken(told: ShortcutTold, it: str) -> str:
    share = share_of(told.taken)
    if share is None:
        return ""
    follow = f"get the class that {'it points' if it == 'it' else 'one of them points'} to"
    return f"{percent(share.accuracy)} % of the conflicting samples ({interval_text(share)}) {follow}"


def _reliance(told: ShortcutTold, it: str) -> str:
    share = share_of(told.reliance)
    if share is not None:
        changed = f"{percent(share.accuracy)} % of {count(share.n or 0, 'answer')} change ({interval_text(share)})"
        return f"without {it} {changed}"
    if told.reliance is not None:
        return f"no input is another one without {it}" if told.reliance.n == 0 else ""
    why = told.why_no_reliance
    return f"how far the model relies on {it} isn't measured: {one_line(clipped(why)).rstrip('.')}" if why else ""
