"""The worst group and the small ones: read from a record, and told in words.

Groups of fewer than 20 samples are never the worst one; they are told of together, so that none is lost. Records made
before they held this have the groups' accuracies and sizes, from which as much is found as they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.metrics import SMALLEST_COUNTED_GROUP, GroupShare, small_group_names, wilson, worst_group_name
from evenhand.validation import named
from evenhand.wording import clipped, count, one_line, percent

MOST_NAMED = 6  # groups in a sentence; the table of groups has them all

Groups = tuple[GroupShare | None, GroupShare | None]  # the worst one, and the small ones together


def told_groups(
    metrics: Mapping[str, Any],
    sizes: Mapping[str, Any] | None = None,
    samples: Any = None,
    not_counted: Any = (),
) -> Groups:
    """The worst group and the small ones of one test set.

    Args:
        metrics: Its metrics as the record holds them.
        sizes: Samples of each group, where the record has them.
        samples: Samples of the test set: groups whose sizes sum to as many don't overlap.
        not_counted: Names of the groups that are too small to be the worst one.
    """
    if "small_groups" in metrics:
        return _recorded_worst(metrics), _recorded_small(metrics["small_groups"])
    by_group = {name: value for name, value in _mapping(metrics.get("by_group")).items() if _is_share(value)}
    known = {str(name): size for name, size in _mapping(sizes).items() if isinstance(size, int)}
    return _found_worst(metrics.get("worst_group"), by_group, known), _found_small(
        by_group, known, samples, not_counted if isinstance(not_counted, list) else []
    )


def record_groups(record: Mapping[str, Any], test: str | None = None) -> Groups:
    """The same from a whole record, for its primary test set or a named one."""
    name = str(record.get("primary_test")) if test is None else test
    metrics = record.get("metrics") if test is None else _mapping(record.get("tests")).get(test)
    return told_groups(
        _mapping(metrics),
        _mapping(_mapping(record.get("group_sizes")).get(name)),
        _mapping(_mapping(record.get("data")).get(name)).get("n"),
        _mapping(record.get("groups_not_counted")).get(name),
    )


def empty_groups(by_group: Mapping[str, Any]) -> list[str]:
    """Groups without a sample."""
    return [name for name, value in by_group.items() if value is None]


# ---- in words -------------------------------------------------------------------------------------------------------


def worst_text(worst: GroupShare, unit: str = " %", *, brief: bool = False, beside_small: bool = False) -> str:
    """As in "worst group 95.7 %, 95 % interval 92.8 to 97.5 (praise, bowl: 300 samples)"."""
    which = f"worst group of {SMALLEST_COUNTED_GROUP} samples or more" if beside_small and not brief else "worst group"
    text = f"{which} {_accuracy(worst, unit, brief=brief)}"
    if brief and not worst.names:
        return text
    size = count(worst.n, "sample") if worst.n is not None else "size not recorded"
    name = f"{_named(worst.names)}: " if worst.names else ""
    return f"{text} ({name}{size})"


def small_text(small: GroupShare, unit: str = " %", *, brief: bool = False) -> str:
    """As in "31 samples in 4 small groups: 71.0 %", with interval and names unless it is to be brief."""
    size = count(small.n, "sample") if small.n is not None else "an unknown number of samples"
    names = "" if brief else f" ({_named(small.names)})"
    return f"{size} in {count(len(small.names), 'small group')}: {_accuracy(small, unit, brief=brief)}{names}"


def group_texts(groups: Groups, unit: str = " %", *, brief: bool = False) -> list[str]:
    """The worst group and the small ones in words, the lower one first; what there isn't is left out."""
    worst, small = groups
    texts = [] if worst is None else [worst_text(worst, unit, brief=brief, beside_small=small is not None)]
    if small is not None:
        texts.insert(0 if is_lower(groups) else len(texts), small_text(small, unit, brief=brief))
    return texts


def is_lower(groups: Groups) -> bool:
    """Whether the small groups together are worse than the worst one of the others, or there is no other."""
    worst, small = groups
    if small is None or small.accuracy is None:
        return False
    return worst is None or worst.accuracy is None or small.accuracy < worst.accuracy


def weakest(groups: Groups) -> float | None:
    """The lower accuracy of both: what is to be said where one number must do."""
    worst, small = groups
    return small.accuracy if small is not None and is_lower(groups) else worst and worst.accuracy


def _named(names: Sequence[str]) -> str:
    return one_line(named((clipped(name) for name in names), MOST_NAMED))


def _accuracy(share: GroupShare, unit: str, *, brief: bool) -> str:
    if share.accuracy is None:
        return "accuracy not recorded"
    ends = "" if brief or share.interval is None else f", 95{unit} interval {interval_text(share)}"
    return f"{percent(share.accuracy)}{unit}{ends}"


def interval_text(share: GroupShare) -> str:
    """As in "92.8 to 97.5"; nothing where it isn't known."""
    return "" if share.interval is None else " to ".join(percent(end) for end in share.interval)


# ---- from a record --------------------------------------------------------------------------------------------------


def _recorded_worst(metrics: Mapping[str, Any]) -> GroupShare | None:
    value, name = metrics.get("worst_group"), metrics.get("worst_group_name")
    if not _is_share(value):
        return None
    return _share([name] if isinstance(name, str) else [], value, metrics.get("worst_group_n"))


def _recorded_small(small: Any) -> GroupShare | None:
    found = _mapping(small)
    names, value = found.get("groups"), found.get("accuracy")
    if not isinstance(names, list) or not names:
        return None
    return _share([str(name) for name in names], value if _is_share(value) else None, found.get("n"))


def _found_worst(value: Any, by_group: Mapping[str, float], sizes: Mapping[str, int]) -> GroupShare | None:
    """The worst group of an older record; without sizes it has a name only if just one group has its accuracy."""
    if not _is_share(value):
        return None
    name = worst_group_name(by_group, sizes)
    alike = [group for group, share in by_group.items() if share == value]
    if name is None or by_group[name] != value:
        name = alike[0] if len(alike) == 1 else None
    return _share([] if name is None else [name], value, None if name is None else sizes.get(name))


def _found_small(
    by_group: Mapping[str, float], sizes: Mapping[str, int], samples: Any, not_counted: Sequence[Any]
) -> GroupShare | None:
    """The small groups of an older record; without sizes, or where they may overlap, their accuracy isn't known."""
    names = [name for name in small_group_names(sizes) if name in by_group]
    names += [str(name) for name in not_counted if str(name) in by_group and str(name) not in sizes]
    if not names:
        return None
    disjoint = len(names) == 1 or sum(sizes.values()) == samples
    if not disjoint or not all(name in sizes for name in names):
        alone = by_group[names[0]] if len(names) == 1 else None
        return _share(names, alone, None)
    n = sum(sizes[name] for name in names)
    return _share(names, sum(sizes[name] * by_group[name] for name in names) / n, n)


def _share(names: Sequence[str], accuracy: float | None, n: Any) -> GroupShare:
    size = n if isinstance(n, int) and not isinstance(n, bool) and n > 0 else None
    return GroupShare(tuple(names), accuracy, size, None if size is None else wilson(accuracy, size))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
