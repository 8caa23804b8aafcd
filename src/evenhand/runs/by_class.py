"""Accuracy by class where no groups are known, and whether validation and test are further apart than chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.metrics import GroupShare, wilson
from evenhand.runs.worst_groups import interval_text
from evenhand.validation import count
from evenhand.wording import clipped, one_line, percent

APART = 0.05
"""Validation and test are told apart where even the nearer ends of both 95 % intervals are further apart than this."""


def class_shares(metrics: Mapping[str, Any]) -> dict[str, GroupShare]:
    """Accuracy of each class (its recall) on one test set; empty where groups are known, or the record is older."""
    found = metrics.get("by_class")
    shares = {}
    for name, told in found.items() if isinstance(found, dict) else ():
        value, n = (told.get("accuracy"), told.get("n")) if isinstance(told, dict) else (None, None)
        if isinstance(value, int | float) and 0 <= value <= 1 and isinstance(n, int) and n > 0:
            shares[str(name)] = GroupShare((str(name),), value, n, wilson(value, n))
    return shares


def share_text(share: GroupShare) -> str:
    """As in "73.0 % of 120 samples, 95 % interval 64.4 to 80.2"."""
    size = count(share.n or 0, "sample")
    return f"{percent(share.accuracy)} % of {size}, 95 % interval {interval_text(share)}"


def apart_text(record: Mapping[str, Any]) -> str | None:
    """What is said where validation and the primary test set are far apart and no groups are known that tell why.

    The rule minds the sampling error: both sets' 95 % intervals (Wilson's) must leave more than 5 points between them.
    """
    names = ("validation", str(record.get("primary_test")))
    tests, data = record.get("tests"), record.get("data")
    if not isinstance(tests, dict) or not isinstance(data, dict):
        return None
    found = []
    for name in names:
        metrics, n = tests.get(name), (data.get(name) or {}).get("n")
        if not isinstance(metrics, dict) or metrics.get("by_group") or not isinstance(n, int) or n < 1:
            return None
        value = metrics.get("average")
        if not isinstance(value, int | float) or metrics.get("conflicting") is not None:
            return None
        found.append(GroupShare((name,), value, n, wilson(value, n)))
    return apart(*found)


def apart(validation: GroupShare, test: GroupShare) -> str | None:
    """The sentence on two accuracies that are far apart; None where chance may be behind it."""
    if validation.interval is None or test.interval is None:
        return None
    low, high = sorted((validation.interval, test.interval))
    if high[0] - low[1] <= APART:
        return None
    return (
        f"Validation and test are further apart than chance: accuracy {share_text(validation)} ({_named(validation)}), "
        f"but {share_text(test)} ({_named(test)}); the two hold different data, or one of them copies of training rows."
    )


def _named(share: GroupShare) -> str:
    return one_line(clipped(share.names[0]))
