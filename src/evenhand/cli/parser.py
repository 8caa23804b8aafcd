"""The command line: `evenhand demo`, `train`, `audit`, `evaluate`, `study`, `report`, `methods`, `tasks`.

tyro makes the parser and the help of the verbs' dataclasses (verbs.py) and of the methods themselves.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import CascadeSubcommandArgs, FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes

from evenhand.cli import verbs
from evenhand.cli.audit import AuditVerb
from evenhand.cli.task_options import TaskChoice, task_fields, with_task_fields
from evenhand.cli.verbs import Train
from evenhand.methods import METHODS, Method
from evenhand.tasks import TASKS
from evenhand.training.stage import StageError
from evenhand.validation import Range, UserError, nearest_names, range_of, unknown_name
from evenhand.version import __version__

VERBS: dict[str, type[Any]] = {"demo": verbs.Demo, "train": Train, "audit": AuditVerb, **verbs.VERBS}

DESCRIPTION = """Train classifiers that don't take shortcuts, with no bias labels.

Start with `evenhand demo`: it trains four methods on digits whose colour leaks the label and shows who took the
shortcut (`evenhand demo --text`: on sentences whose last word leaks it). Then: `evenhand train pgd --help`,
`evenhand audit --help`, `evenhand study --help`, `evenhand methods`, `evenhand tasks`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 0 done, 1 a run failed, 2 a mistake in what was asked for."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["--version"], ["-V"]):
        print(f"evenhand {__version__}")
        return 0
    try:
        _check_words(words)
        verb, method = _parse(words)
        return verb.run(method) if method is not None else verb.run()
    except UserError as error:
        print(f"evenhand: error: {error}", file=sys.stderr)
        return 2
    except StageError as error:
        print(f"evenhand: the run failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evenhand: interrupted; the same command goes on from the last finished stage.", file=sys.stderr)
        return 130


def _parse(words: list[str]) -> tuple[Any, Method | None]:
    """The verb with its options, and for `train` the method with its own."""
    settings = (CascadeSubcommandArgs, OmitArgPrefixes, OmitSubcommandPrefixes, FlagCreatePairsOff)
    verbs = {name: with_task_fields(cls) if issubclass(cls, TaskChoice) else cls for name, cls in VERBS.items()}
    unions: Any = tuple(
        Annotated[_with_method(cls) if VERBS[name] is Train else cls, tyro.conf.subcommand(name)]
        for name, cls in verbs.items()
    )
    parse: Any = tyro.cli  # its overloads don't know types that are made at run time
    chosen: Any = parse(
        typing.Union[unions],  # noqa: UP007
        prog="evenhand",
        description=DESCRIPTION,
        args=words or ["--help"],
        config=settings,
    )
    options: Any = getattr(chosen, "method", None)
    if options is None:
        return chosen, None
    # tyro would put a box around what a method's own checks say, so they run here
    method = METHODS[options.method_name](**dataclasses.asdict(options))
    return chosen, method


def _with_method(train: type[Train]) -> type[Any]:
    """`Train` with the method as its subcommand: one mirror of each method's fields, without its checks."""
    mirrors = []
    for name, method in METHODS.items():
        hints, declared = typing.get_type_hints(method), typing.get_type_hints(method, include_extras=True)
        fields = [
            (f.name, _described(hints[f.name], f.default, range_of(declared[f.name])), f.default)
            for f in dataclasses.fields(method)  # type: ignore[arg-type]
        ]
        mirror = dataclasses.make_dataclass(
            method.__name__, fields, frozen=True, kw_only=True, namespace={"method_name": name}
        )
        mirror.__doc__ = method.__doc__
        mirrors.append(Annotated[mirror, tyro.conf.subcommand(name)])
    union: Any = typing.Union[tuple(mirrors)]  # noqa: UP007
    joined = dataclasses.make_dataclass("Train", [("method", union)], bases=(train,), frozen=True, kw_only=True)
    joined.__doc__ = train.__doc__
    return joined


def _described(hint: Any, default: Any, interval: Range | None) -> Any:
    """A field of a method as an option, whose help ends with its default and its range."""
    if default is not None and interval is None:
        return hint
    usual = "by the signal and projection" if default is None else default
    ends = f", range: {interval}" if interval else ""
    shown = tyro.conf.arg(help_behavior_hint=f"(default: {usual}{ends})")
    return Annotated[hint | None if default is None else hint, shown]


def _check_words(words: list[str]) -> None:
    """Answer a misspelt verb, method or option with the one meant; the rest is tyro's."""
    if not words or words[0].startswith("-"):
        return
    if words[0] not in VERBS:
        raise unknown_name("command", words[0], VERBS)
    known = {_flag(f.name) for f in dataclasses.fields(VERBS[words[0]])} | {"--help"}
    if issubclass(VERBS[words[0]], TaskChoice):
        known |= {_flag(name) for name in task_fields()}
    lists_them = f"`evenhand {words[0]} --help`"
    if words[0] == "train":
        names = _positionals(words[1:])
        chosen = [name for name in names if name in METHODS]
        if not chosen:
            if {"-h", "--help"} & set(words):
                return
            near = next((name for name in names if nearest_names(name, METHODS)), None)
            if near is None:
                raise UserError(f"`evenhand train` needs a method: one of {', '.join(METHODS)}.")
            raise unknown_name("method", near, METHODS)
        known |= {_flag(f.name) for f in dataclasses.fields(METHODS[chosen[0]])}  # type: ignore[arg-type]
        lists_them = f"`evenhand train {chosen[0]} --help`"
    for word in words:
        option = word.split("=")[0].replace("_", "-")
        if option.startswith("--") and option not in known:
            near = nearest_names(option, known if option.startswith("--h") else known - {"--help"})
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"Unknown option {option}{meant}; {lists_them} lists them.")
    if words[0] in ("train", "audit"):
        for name in _positionals(words[1:]):
            if name in TASKS:
                raise UserError(f"The task is an option of `evenhand {words[0]}`: write --task {name}.")


def _positionals(words: list[str]) -> list[str]:
    """The words that are neither options nor an option's value; switches take none."""
    switches = {"--lora", "--head-only", "--fresh", "--quiet", "--help", "-h"} | {
        _flag(f.name)
        for method in METHODS.values()
        for f in dataclasses.fields(method)  # type: ignore[arg-type]
        if f.default is False
    }
    switches |= {_flag(name) for name, (_, default) in task_fields().items() if default is False}
    found, value_expected = [], False
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():  # -1 is a value
            value_expected = "=" not in word and word not in switches
        elif value_expected:
            value_expected = False
        else:
            found.append(word)
    return found


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
