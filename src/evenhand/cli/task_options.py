"""The task as the command line sees it: `--task`, and the fields of every task as options of their own.

Tasks declare their settings once, as fields of their dataclass, explained in its docstring; the options are made of
these when a command line is parsed.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import docstring_parser
import tyro

from evenhand.tasks import TASKS, OwnData, TaskSource
from evenhand.validation import UserError, unknown_name

OWN_DATA = OwnData.name  # what --data stands for
_DEFAULT_TASK = "colored-digits"
_ELSEWHERE = ("shortcuts",)  # an option of every task
_SHOWN = 2  # where more tasks explain an option each in its own way, the help doesn't repeat them


@dataclass(frozen=True, kw_only=True)
class TaskChoice:
    """What a verb that works on a task shares with the others.

    Attributes:
        task: The task; `evenhand tasks` lists them. With --data it is own-data.
    """

    task: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=f"(default: {_DEFAULT_TASK}, or your --data)")
    ] = None

    def task_given(self) -> bool:
        """Whether the command line names a task, or data."""
        return self.task is not None or getattr(self, "data", None) is not None

    def settings_given(self) -> dict[str, Any]:
        """The settings of tasks that the command line gives, by name."""
        given = {name: getattr(self, name, None) for name in task_fields()}
        return {name: value for name, value in given.items() if value is not None and value is not False}

    def task_source(self) -> TaskSource:
        """The task with the settings given here.

        Raises:
            UserError: If the task is unknown or has no such setting.
        """
        settings = self.settings_given()
        name = self.task or (OWN_DATA if "data" in settings else _DEFAULT_TASK)
        if name not in TASKS:
            raise unknown_name("task", name, TASKS)
        source = TASKS[name]
        known = {f.name for f in dataclasses.fields(source)}  # type: ignore[arg-type]
        own = {f.name for f in dataclasses.fields(TASKS[OWN_DATA])}  # type: ignore[arg-type]
        for setting in settings:
            if setting not in known:
                hint = "; with --data the task is own-data" if setting in own else ""
                raise UserError(f"The task '{name}' has no option '--{setting.replace('_', '-')}'{hint}.")
        return source(**settings)


def task_fields() -> dict[str, Any]:
    """Every field of some task as (type, default) of an option that is left to the task unless given."""
    hints: dict[str, list[Any]] = {}
    helps: dict[str, dict[str, list[str]]] = {}
    for name, source in TASKS.items():
        types_of = typing.get_type_hints(source)
        explained = {p.arg_name: p.description for p in docstring_parser.parse(inspect.getdoc(source) or "").params}
        for field in dataclasses.fields(source):  # type: ignore[arg-type]
            if field.name in _ELSEWHERE:
                continue
            hints.setdefault(field.name, []).append(types_of[field.name])
            text = " ".join((explained.get(field.name) or "").split())
            helps.setdefault(field.name, {}).setdefault(text, []).append(name)
    return {name: _option(hints[name], helps[name]) for name in hints}


def with_task_fields(verb: type[Any]) -> type[Any]:
    """The verb's dataclass with the fields of all tasks, which it declares nowhere itself."""
    own = {f.name for f in dataclasses.fields(verb)}
    fields = [(name, hint, default) for name, (hint, default) in task_fields().items() if name not in own]
    joined = dataclasses.make_dataclass(verb.__name__, fields, bases=(verb,), frozen=True, kw_only=True)
    joined.__doc__ = verb.__doc__
    return joined


def _option(hints: list[Any], helps: dict[str, list[str]]) -> tuple[Any, Any]:
    choices = list(dict.fromkeys(part for hint in hints for part in _alternatives(hint)))
    owners = [name for names in helps.values() for name in names]
    if len(helps) > _SHOWN:
        text = f"Of {', '.join(owners)}: `evenhand tasks NAME` explains it."
    else:
        text = " ".join(f"{' / '.join(names)}: {text}" for text, names in helps.items())
    if choices == [bool]:
        return Annotated[bool, tyro.conf.arg(help=text)], False
    described = tyro.conf.arg(help=text, metavar=_metavar(choices), help_behavior_hint="(default: the task's)")
    return Annotated[Union[(*choices, None)], described], None


def _alternatives(hint: Any) -> list[Any]:
    """The types that a field takes, without None; where a text stands for a path or a single name, without the text."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return [hint]
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    longer = any(part is Path or typing.get_origin(part) is tuple for part in parts)
    return [part for part in parts if not (part is str and longer)]


def _metavar(choices: list[Any]) -> str:
    if all(typing.get_origin(choice) is Literal for choice in choices):
        return "{" + ",".join(dict.fromkeys(str(v) for choice in choices for v in typing.get_args(choice))) + "}"
    names = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
    first = choices[0]
    if typing.get_origin(first) is tuple:
        return f"{names.get(typing.get_args(first)[0], 'VALUE')} [...]"
    return names.get(first, "VALUE")
