"""What an audit says in sentences: the verdict, and a line a finding."""

from __future__ import annotations

from collections.abc import Mapping

from evenhand.auditing.findings import Finding, Kind
from evenhand.auditing.hints import Hint
from evenhand.auditing.labels import Opposites
from evenhand.wording import count, listed

NOT_TESTED: dict[str, str] = {
    "text": "the order of words, style, and what several words say together",
    "image": "what stands where in a picture, such as a watermark, a background or a texture",
}
"""Kind of inputs → what no audit tests."""


def verdict(hint: Hint, opposites: Opposites, kind: str, samples: int) -> str:
    """The findings in a few sentences, after "The audit …": what can't be mended first, what is unknown last."""
    parts = []
    if hint.leaks:
        parts.append(_leaks(hint.leaks))
    if hint.strong:
        start = "found a likely shortcut" if not parts else "It found a likely shortcut too"
        parts.append(f"{start}: {named(hint.strong[0])}{_more(hint.strong)}.")
    if opposites.unnamed:
        start = "finds" if not parts else "Besides, there is"
        rows = len(opposites.rows)
        parts.append(
            f"{start} a shortcut without a name, or wrong labels: the biased model surely takes "
            f"{count(rows, 'sample')} ({100 * rows / samples:.1f} % of all) for another class than the label says, and "
            "nothing that was tested explains them. Look at these."
        )
    if parts:
        return " ".join(parts)
    if not hint.tested:
        return f"tested nothing, so it can't say whether there is a shortcut. Not tested either: {NOT_TESTED[kind]}."
    tested = tested_text(hint.tested)
    if hint.large:
        first = hint.large[0]
        return (
            f"finds no shortcut that the biased model follows, but {named(first)}{_more(hint.large)} tells the class: "
            f"it is right on {first.aligned:,} of {first.aligned + first.conflicting:,} samples. Look at it. Tested: "
            f"{tested}."
        )
    if hint.weak:
        return f"finds no strong shortcut among {tested}; weak ones are {listed(named(f) for f in hint.weak[:3])}."
    return f"finds no shortcut among what it tested: {tested}. Not tested: {NOT_TESTED[kind]}."


def _leaks(leaks: list[Finding]) -> str:
    first = leaks[0]
    total = first.aligned + first.conflicting
    n = first.conflicting
    against = "none goes" if n == 0 else "only 1 goes" if n == 1 else f"only {n} go"
    return (
        f"found a leak: {named(first)}{_more(leaks)} tells the class of {first.aligned:,} of {total:,} samples, and "
        f"{against} against it. No method can correct what no sample contradicts."
    )


def _more(findings: list[Finding]) -> str:
    return f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""


def named(finding: Finding) -> str:
    """As in "the token “!!”", "the colour", "the column 'site'", with what is on the same samples."""
    name = _named(finding.kind, finding.name, finding.place)
    if not finding.also:
        return name
    others = [_named(*also) for also in finding.also[:3]]
    left = len(finding.also) - len(others)
    return f"{name} (and what goes with it: {listed([*others, *([f'{left} more'] if left else [])])})"


def _named(kind: Kind, name: str, place: str | None) -> str:
    if kind == "token":
        return f"the token “{name}”"
    if kind == "column":
        return f"the column '{name}'"
    return f"the {name}" if place is None else f"the {name} of '{place}'"


def tested_text(tested: Mapping[str, int]) -> str:
    """As in "688 tokens, the length and 3 columns"."""
    return listed(count(n, kind) if kind in ("token", "column") else f"the {kind}" for kind, n in tested.items())


def line(finding: Finding) -> str:
    """A finding in a line."""
    where = f" in '{finding.place}'" if finding.kind == "token" and finding.place else ""
    points = finding.values[0]
    to = (
        f"points to '{points.points_to}' ({100 * points.share:.1f} % of its samples; {100 * points.base:.1f} % of all)"
        if len(finding.values) == 1
        else f"has {len(finding.values)} values that point to a class each"
    )
    against = (
        ""
        if finding.auroc_conflicting is None
        else f" outscore their classmates {100 * finding.auroc_conflicting:.1f} % of the time"
    )
    return (
        f"{finding.verdict}: {named(finding)}{where} {to}; it is on {100 * finding.covered:.1f} % of the samples, and "
        f"the {finding.conflicting:,} that go against it{against} ({_p(finding.p)} after correction)."
    )


def _p(p: float) -> str:
    return "p < 1e-300" if p < 1e-300 else f"p = {p:.2g}"
