"""In which values two runs' configurations differ, told as "training.epochs 1 → 2"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evenhand.shortcuts.several import shortcuts_text
from evenhand.wording import one_line, setting_value

_PARTS = ("method", "task", "model", "training", "seed", "data_seed")
_NOT_ASKED = ("method.title", "model.parameters")  # follow from the rest
_SHOWN = 3
_NONE = object()


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Each field in which what is asked for is another than what was stored, with both values."""
    ours, theirs = dict(_flat(stored)), dict(_flat(asked))
    return [
        one_line(f"{name} {_shown(ours.get(name, _NONE))} → {_shown(theirs.get(name, _NONE))}")
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name, _NONE) != theirs.get(name, _NONE)
    ]


def differences_text(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The first of them, as in "training.epochs 1 → 2, seed 0 → 1 and 4 more"."""
    found = differences(stored, asked)
    rest = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + rest


def _flat(described: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Method, task, model, training, seeds and shortcuts by dotted name; a part's own name is that of the part."""
    for part in _PARTS:
        value = described.get(part, _NONE)
        inner = value if isinstance(value, Mapping) else {}
        if not inner and value is not _NONE:
            yield part, value
        for name, setting in inner.items():
            if name == "settings" and isinstance(setting, Mapping):
                yield from ((f"{part}.{key}", one) for key, one in setting.items())
            elif f"{part}.{name}" not in _NOT_ASKED:
                yield part if name == "name" else f"{part}.{name}", setting
    if described.get("shortcuts"):
        yield "shortcuts", shortcuts_text(described["shortcuts"])


def _shown(value: Any) -> str:
    return "none" if value is _NONE else setting_value(value)
