"""How an audit's numbers, names and texts are written, the same on the page and in Markdown."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from evenhand.wording import NOTHING, count, listed, percent

LEVELS = {
    "leak": "leak: (nearly) nothing goes against it",
    "strong": "likely shortcut",
    "weak": "weak shortcut",
    "association": "association only",
}
_SMALLEST_P = 1e-300
_NAMED = 5  # of what goes with a finding


def times(value: float | None) -> str:
    """A multiple: "1,234", "12.3", "0.012"."""
    if value is None:
        return NOTHING
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"


def share(value: float | None) -> str:
    """A fraction in percent, with its sign: "12.3 %"; at least two digits that count."""
    if value is None:
        return NOTHING
    return f"{percent(value)} %" if value == 0 or value >= 0.01 else f"{100 * value:.2g} %"


def number(value: float | None) -> str:
    """A number with three decimals."""
    return NOTHING if value is None else f"{value:.3f}"


def probability(value: float) -> str:
    """A p: "0.0012", "3e-17", "< 1e-300"."""
    return f"< {_SMALLEST_P:g}" if value < _SMALLEST_P else f"{value:.2g}"


def visible(text: Any) -> str:
    """A text of the user's as it can be shown: signs that have no look of their own are named, ␀ and ⟨U+202E⟩."""
    shown = []
    for sign in str(text):
        if sign in "\n\t":
            shown.append(" ")
        elif sign == "\0":
            shown.append("␀")
        elif unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and sign not in "\u200d\u200c":
            shown.append(f"⟨U+{ord(sign):04X}⟩")
        else:
            shown.append(sign)
    return "".join(shown)


def finding_name(finding: Mapping[str, Any]) -> str:
    """As in "token “!!” in text", "colour", "length of text", "column source", with what goes with it."""
    name = _thing(finding["kind"], finding["name"], finding["place"])
    if not finding["also"]:
        return name
    others = [_thing(*also) for also in finding["also"][:_NAMED]]
    left = len(finding["also"]) - len(others)
    return f"{name}, with {listed([*others, *([f'{left} more'] if left else [])])}"


def _thing(kind: str, name: str, place: str | None) -> str:
    name, place = visible(name), None if place is None else visible(place)
    if kind == "token":
        return f"token “{name}”" + (f" in {place}" if place else "")
    if kind == "column":
        return f"column {name}"
    return f"{name} of {place}" if place else name


def points_to(finding: Mapping[str, Any]) -> str:
    """As in "neutral", or "10 values, each to a class"."""
    values = finding["values"]
    if len(values) == 1:
        return visible(values[0]["points_to"])
    return f"{len(values)} values, each to a class"


def seeds_text(content: Mapping[str, Any]) -> str:
    """As in "5 models, seeds 0, 1, 2, 3 and 4"."""
    seeds = content["seeds"]
    if seeds == [None]:
        return "1 model"
    return f"{count(len(seeds), 'model')}, seed{'s' if len(seeds) > 1 else ''} {listed(str(seed) for seed in seeds)}"


def source_text(content: Mapping[str, Any]) -> str:
    """Where the scores come from."""
    split = content.get("split", "train")
    rows = {"train": "training samples", "all": "rows"}.get(split, f"rows of {visible(split)}")
    what = f"{content['samples']:,} {rows}"
    if not content["model"]:  # predictions, of whatever model
        return f"{what}. Scores: {visible(content['scored_by'])}, of {visible(content['models'])}."
    return (
        f"{what}, data seed {content['data_seed']}. Scores: {visible(content['scored_by'])}, of {seeds_text(content)} "
        f"({visible(content['model'])}; {visible(content['models'])})."
    )


WRONG_LABELS_NOTE = (
    "High scores also mark wrong labels: whatever goes against what is easy to learn scores high. Below are samples "
    "among the highest scores that the biased models take, with a probability of 90 % or more, for another class, "
    "and where they are right on 90 % or more of the samples that they predict so; the least likely labels first. "
    "A sample that goes against a leak or a shortcut is none, nor one whose prediction an association explains. This "
    "is a suspicion, not a finding: a model errs too, so look at them. Training that draws by scores draws wrong "
    "labels often too."
)
AGAINST_THE_REST_NOTE = (
    "These samples go against what the biased models are sure of, and nothing tested explains why: either their labels "
    "are wrong, or the rest follows a shortcut that no test has a name for. In that case they are right, and they are "
    "what a method learns the task from: deleting them removes the cure. So look for what the rest has in common "
    "before you delete or relabel any. The least likely labels first."
)
SCORES_NOTE = "A score is the norm of a sample’s gradient under the biased model, here as a multiple of the mean."
LIMITS_NOTE = (
    "The audit tests tokens, how long texts are, the mean colour of a picture, how bright, sharp, large, rich in "
    "contrast and wide it is, and other columns of the data. A shortcut that is none of these, such as a watermark, a "
    "background’s texture or word order, can only be seen in the samples themselves."
)


def wrong_labels(unnamed: bool) -> tuple[str, str]:
    """The heading and the note of the samples whose labels look wrong."""
    if unnamed:
        return "Against the rest, or wrong", AGAINST_THE_REST_NOTE
    return "Labels that look wrong", WRONG_LABELS_NOTE


def suspects_text(suspects: Mapping[str, Any]) -> str:
    """How many samples look so, how many are explained, and how often confident predictions are right."""
    n, shown = suspects["count"], len(suspects["shown"])
    few = f" Shown are the first {shown}." if n > shown else ""
    return (
        f"{count(n, 'sample')} of the {suspects['looked_at']:,} highest scores {'looks' if n == 1 else 'look'} so; "
        f"{suspects['explained']:,} more are explained by what was found. Over all samples, confident predictions are "
        f"right on {share(suspects['right_when_confident'])}.{few}"
    )


def is_called(finding: Mapping[str, Any]) -> bool:
    """Whether a finding stands among those to look at first."""
    return finding["verdict"] != "association" or finding["large"]
