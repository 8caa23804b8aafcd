"""What to train with, given what an audit found: rules of thumb from this project's own studies (docs/audit.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evenhand.auditing.command import in_python
from evenhand.auditing.hints import Hint
from evenhand.methods import ERM, Even, Method
from evenhand.models import Kind

MANY = 0.03
"""From this share of conflicting samples on, plain training is worth a second look."""


@dataclass(frozen=True)
class Advice:
    """What to do next.

    Attributes:
        text: The advice in sentences.
        method: The method's name.
        settings: The method as Python writes it.
        command: The command line, or Python where the data are none that the command line can name.
        compare: The same with ERM, to compare with; None where the advice is ERM.
    """

    text: str
    method: str
    settings: str
    command: str
    compare: str | None


def advise(hint: Hint, command: Callable[[Method], str], kind: Kind) -> Advice:
    """Choose a method by the kind of inputs and the share of samples that go against the shortcut.

    Args:
        hint: What was found.
        command: Gives the command that trains a method on the audited data with the audited model.
        kind: What the inputs are.
    """
    method, text = _choice(hint, kind)
    compare = None if isinstance(method, ERM) else command(ERM())
    return Advice(text, method.name, in_python(method), command(method), compare)


def _choice(hint: Hint, kind: Kind) -> tuple[Method, str]:
    if not hint.strong:
        text = "Train plainly (ERM): there is no strong shortcut to correct for, and correcting costs accuracy."
        if hint.weak:
            text += " If the weak ones matter to you, compare with a method that corrects, seed by seed."
        return ERM(), text
    if kind == "text":
        return Even(), (
            "Train Even: what the biased model gets wrong counts as much as all the rest, and it finds by itself how "
            "far to go for that. Fine-tuning on biased-snli it gained 31 points where the token says nothing, and 5 on "
            "texts without it (three seeds); on MNLI, a hard task with a weaker shortcut, nothing (2 points of average "
            "less), and there Even warns. So compare with ERM before you choose."
        )
    text = (
        "Train Even: it weighs down what the biased model gets right until its errors weigh as much, and finds by "
        "itself how far."
    )
    strongest = hint.strong[0]
    share = strongest.conflicting / max(1, strongest.conflicting + strongest.aligned)
    if share >= MANY:
        text += (
            f" But {100 * share:.1f} % of the samples go against the shortcut, and the more do, the less plain "
            "training loses by it: compare both before you choose."
        )
    return Even(), text
