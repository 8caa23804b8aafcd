"""How an audit's numbers, names and texts are written, the same on the page and in Markdown."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from evenhand.report.wording import NOTHING, count, listed, percent

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


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals."""
    return NOTHING if value is None else f"{value:.{digits}f}"


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
    return (
        f"{content['samples']:,} training samples, data seed {content['data_seed']}. Scores: "
        f"{visible(content['scored_by'])}, of {seeds_text(content)} ({visible(content['model'])}; "
        f"{visible(content['models'])})."
    )


FINDINGS_NOTE = (
    "A value is a shortcut if samples that have it are of one class more often than all samples are (Fisher’s exact "
    "test, 10 points or more), and if the scores know it: its samples of other classes outscore their classmates "
    "60 % of the time or more, and those of the class it points to are outscored as often (Mann–Whitney tests within "
    "classes). p is the largest of the three, after Holm’s correction for everything tested; level 1 %. “Gain”: the "
    "share of all samples whose class the value tells beyond what the classes’ sizes tell. From a gain of 2 % "
    "on, and where samples against it outscore classmates 75 % of the time, a shortcut is called likely, otherwise "
    "weak. How bright, sharp, large or long inputs are must also be followed: the biased model takes half of the "
    "samples against it, or more, for the class that it points to. A leak tells the class of 95 % of its samples or "
    "more with fewer than 10 against it, so the scores have nothing to go by, and no method has. An association with "
    "a gain of 5 % or more that is right on 80 % stands here too, though the scores don’t show that it is used. "
    "Whether a value is a shortcut or an honest feature of its class is yours to judge: data can’t tell."
)
ASSOCIATIONS_NOTE = (
    "Labels say that these point to a class, but the scores don’t say that the biased models use them, or no sample "
    "goes against them; each tells the class of few samples. The largest gains first; p as above, of all three tests."
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


def is_called(finding: Mapping[str, Any]) -> bool:
    """Whether a finding stands among those to look at first."""
    return finding["verdict"] != "association" or finding["large"]
