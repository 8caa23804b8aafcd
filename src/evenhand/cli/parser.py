"""The command line: the verbs, each of which is a dataclass whose fields are its options.

tyro makes parser and help of these dataclasses and of the methods themselves.
"""

from __future__ import annotations

import dataclasses
import errno
import sys
import typing
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import tyro
from tyro.conf import CascadeSubcommandArgs, FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes

from evenhand.cli.audit import AuditVerb
from evenhand.cli.console import discard, write_any_text
from evenhand.cli.debias import Debias
from evenhand.cli.evaluate import EvaluateVerb
from evenhand.cli.refusals import OptionError, in_sentences
from evenhand.cli.study import StudyVerb
from evenhand.cli.task_options import TaskChoice, with_task_fields
from evenhand.cli.tasks import Tasks
from evenhand.cli.verbs import Demo, Methods, Report, Train
from evenhand.methods import METHODS, Method
from evenhand.tasks import TASKS
from evenhand.training.stage import StageError
from evenhand.validation import Range, UserError, nearest_names, range_of, unknown_name
from evenhand.version import __version__
from evenhand.wording import one_line

VERBS: dict[str, type[Any]] = {
    "demo": Demo,
    "train": Train,
    "audit": AuditVerb,
    "debias": Debias,
    "evaluate": EvaluateVerb,
    "study": StudyVerb,
    "report": Report,
    "methods": Methods,
    "tasks": Tasks,
}

DESCRIPTION = """Train classifiers that don't take shortcuts, with no bias labels.

Start with `evenhand demo`: it trains five methods on digits whose colour leaks the label and shows who took the
shortcut (`evenhand demo --text`: on sentences whose last word leaks it). `evenhand VERB --help` explains a verb, and
`evenhand train METHOD --help` a method with its options.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 0 done, 1 a run failed, 2 a mistake in what was asked for.

    It is 141 where nobody reads standard output any more, as behind `| head`.
    """
    write_any_text()
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
        return 141  # as of any program that SIGPIPE ends


def _run(words: list[str]) -> int:
    if words in (["--version"], ["-V"]):
        print(f"evenhand {__version__}")
        return 0
    try:
        verb, method = _parse(words)
        return verb.run(method) if method is not None else verb.run()
    except OptionError as error:
        raise SystemExit(_said(f"error: {error}", 2)) from None
    except UserError as error:
        return _said(f"error: {error}", 2)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return _said(f"error: The path '{str(error.filename)[:60]}…' is longer than a file's may be.", 2)
    except StageError as error:
        return _said(f"the run failed: {error}", 1)
    except KeyboardInterrupt:
        return _said("interrupted; the same command goes on from the last finished stage.", 130)


def _said(sentence: str, code: int) -> int:
    print(f"evenhand: {one_line(sentence)}", file=sys.stderr)
    return code


def _parse(words: list[str]) -> tuple[Any, Method | None]:
    """The verb with its options, and for `train` the method with its own."""
    parse: Any = tyro.cli  # its overloads don't know types that are made at run time
    settings = (CascadeSubcommandArgs, OmitArgPrefixes, OmitSubcommandPrefixes, FlagCreatePairsOff)
    if not words or words[0].startswith("-"):
        verbs: Any = tuple(Annotated[cls, tyro.conf.subcommand(name)] for name, cls in VERBS.items())
        union: Any = typing.Union[verbs]  # noqa: UP007
        return parse(union, prog="evenhand", description=DESCRIPTION, args=words or ["--help"], config=settings), None
    _check_words(words)
    verb = VERBS[words[0]]
    if issubclass(verb, TaskChoice):
        verb = with_task_fields(verb)
    if issubclass(verb, Train):
        verb = _with_method(verb)
    with in_sentences(words):
        chosen: Any = parse(verb, prog=f"evenhand {words[0]}", args=words[1:], config=settings)
    options: Any = getattr(chosen, "method", None)
    # tyro would put a box around what a method's own checks say, so they run here
    return chosen, options and METHODS[options.method_name](**dataclasses.asdict(options))


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
    """Answer a misspelt verb or method, and a task that stands alone; options are tyro's to check."""
    verb = words[0]
    if verb not in VERBS:
        raise unknown_name("command", verb, VERBS)
    alone = [word for before, word in pairwise(words) if not before.startswith("-") and not word.startswith("-")]
    if verb == "train" and not {"-h", "--help", *METHODS} & set(words):
        near = next((word for word in alone if nearest_names(word, METHODS)), None)
        if near is None:
            raise UserError(f"`evenhand train` needs a method: one of {', '.join(METHODS)}.")
        raise unknown_name("method", near, METHODS)
    task = next((word for word in alone if word in TASKS), None)
    if task is not None and verb in ("train", "audit", "debias"):
        raise UserError(f"The task is an option of `evenhand {verb}`: write --task {task}.")
