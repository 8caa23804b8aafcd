"""What to train with, given what an audit found: rules of thumb from this project's own studies (docs/audit.md).

And the command that does so, to be copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenhand.auditing.findings import Finding
from evenhand.auditing.hints import Hint
from evenhand.auditing.labels import Opposites
from evenhand.auditing.verdict import named, tested_text
from evenhand.methods import ERM, Balance, Even, Method
from evenhand.models.inference import Device
from evenhand.models.source import Kind
from evenhand.runs.configuration import Configuration
from evenhand.shortcuts import Shortcut
from evenhand.validation import count

MANY = 0.03
"""From this share of conflicting samples on, plain training is worth a second look."""


@dataclass(frozen=True)
class Advice:
    """What to do next.

    Attributes:
        text: The advice in sentences.
        method: The method's name; `none` where nothing can be corrected.
        settings: The method as Python writes it; empty without one.
        command: The command line, or Python where the data are none that the command line can name.
        compare: The same with ERM, to compare with; None where the advice is ERM.
        by_name: The same with a method that is told the shortcut's name; None where there is none to tell.
    """

    text: str
    method: str
    settings: str
    command: str
    compare: str | None
    by_name: str | None = None


def advise(hint: Hint, opposites: Opposites, command: Callable[..., str], kind: Kind) -> Advice:
    """Choose a method by what was found; plain training only where something was tested and nothing speaks against it.

    Args:
        hint: What was found.
        opposites: What nothing found explains.
        command: Gives the command that trains a method on the audited data with the audited model, perhaps with
            shortcuts that have a name.
        kind: What the inputs are.
    """
    method, text = _choice(hint, opposites, kind)
    first = next((finding.shortcut for finding in (*hint.leaks, *hint.strong)), None)
    named = () if first is None else (first,)
    if hint.leaks:  # plain training only shows how far a model relies on it
        return Advice(text, "none", "", command(method, shortcuts=named), None)
    compare = None if isinstance(method, ERM) else command(ERM())
    by_name = command(Balance(), shortcuts=named) if named else None
    return Advice(text, method.name, _in_python(method), command(method), compare, by_name)


def _choice(hint: Hint, opposites: Opposites, kind: Kind) -> tuple[Method, str]:
    if hint.leaks:
        return ERM(), _collect(hint)
    if hint.strong:
        return Even(), _correct(hint.strong[0], kind)
    if opposites.unnamed:
        return Even(), (
            "First look at the highest scores: are their labels right? If they are, the samples go against a shortcut "
            "that no test has a name for: keep every one, since they are the cure, and train Even. If their labels are "
            "wrong, correct them and audit again. Compare with ERM on data from elsewhere before you choose."
        )
    if hint.large:
        return Even(), (
            f"First look at {named(hint.large[0])}: would it tell the class of new data too? If not, other models may "
            "follow it though the biased one doesn't show it: compare Even with ERM on data where it doesn't tell."
        )
    if not hint.tested:
        return Even(), (
            "Nothing could be tested, so there is nothing to say for or against plain training: compare Even with ERM "
            "on data from elsewhere."
        )
    text = (
        f"Train plainly (ERM): nothing tested ({tested_text(hint.tested)}) is a strong shortcut, the scores are those "
        "of an ordinary task, and correcting costs accuracy."
    )
    if hint.weak:
        text += " If the weak ones matter to you, compare with a method that corrects, seed by seed."
    return ERM(), text


def _collect(hint: Hint) -> str:
    first = hint.leaks[0]
    value = first.values[0]
    example = value.name if len(first.values) > 1 else first.name
    few = first.conflicting
    against = "no sample goes" if not few else f"only {count(few, 'sample')} {'goes' if few == 1 else 'go'}"
    return (
        f"Collect samples before you train: {against} against {named(first)}, and no method can correct what no sample "
        f"contradicts. What is needed: samples with “{example}” of other classes than '{value.points_to}', and samples "
        f"of '{value.points_to}' without it, from a hundred on. Or take it out of the inputs, if you can. If it is "
        "what makes the class, and not a habit of these data, nothing needs correcting. How far a plainly trained "
        "model relies on it can be measured now:"
    )


def _correct(strongest: Finding, kind: Kind) -> str:
    if kind == "text":
        return (
            "Train Even: what the biased model gets wrong counts as much as all the rest, and it finds by itself how "
            "far to go for that. Fine-tuning on biased-snli it gained 31 points where the token says nothing, and 5 on "
            "texts without it (three seeds); on MNLI, a hard task with a weaker shortcut, nothing (2 points of average "
            "less), and there Even warns. So compare with ERM before you choose."
        )
    text = (
        "Train Even: it weighs down what the biased model gets right until its errors weigh as much, and finds by "
        "itself how far."
    )
    share = 1 - strongest.right
    if share >= MANY:
        text += (
            f" But {100 * share:.1f} % of the samples go against the shortcut, and the more do, the less plain "
            "training loses by it: compare both before you choose."
        )
    return text


def command(
    method: Method, configuration: Configuration, device: Device = "auto", shortcuts: tuple[Shortcut, ...] = ()
) -> str:
    """A line that trains the method on the audited data with the audited model, from any working folder.

    It is one of the command line; or Python, where the data are none that a command line can name. Every option that
    differs from its default is in it.

    Args:
        method: The method.
        configuration: How the biased models are trained.
        device: What the audit was told to compute on.
        shortcuts: Shortcuts that the method is told, beside those that the audit was told.
    """
    named = configuration.shortcuts
    asked = replace(configuration, method=method, shortcuts=(*named, *(s for s in shortcuts if s not in named)))
    line = asked.command(here=True)
    if line is not None:
        return line if device == "auto" else f"{line} --device {device}"
    return _python_call(asked, device)


def _in_python(method: Method) -> str:
    """The constructor with what differs from the defaults."""
    return _constructor(method, method.settings())


def _constructor(made: Any, settings: dict[str, Any]) -> str:
    defaults = {f.name: f.default for f in type(made).__dataclass_fields__.values()}
    changed = {name: value for name, value in settings.items() if value != defaults.get(name)}
    return f"{type(made).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


def _python_call(asked: Configuration, device: Device) -> str:
    training = asked.training
    model = str(Path(asked.model).absolute()) if Path(asked.model).exists() else asked.model
    words = [f"eh.{_in_python(asked.method)}", "task", f"model={model!r}", f"seed={asked.seed}"]
    words += [f"data_seed={asked.data_seed}", f"epochs={training.epochs}", f"lr={training.lr!r}"]
    words += [f"batch_size={training.batch_size}"]
    words += ["bf16=True"] if training.bf16 else []
    if asked.adapters is not None:
        words += [f"peft=eh.{_constructor(asked.adapters, dict(vars(asked.adapters)))}"]
    words += ["fresh=True"] if asked.fresh else []
    spelled = [rule.spelling for rule in asked.shortcuts if isinstance(rule, Shortcut)]
    words += [f"shortcuts={spelled!r}"] if spelled else []
    words += [] if device == "auto" else [f"device={device!r}"]
    return f"eh.fit({', '.join(words)})"
