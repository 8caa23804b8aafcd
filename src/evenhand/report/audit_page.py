"""An audit's page, one HTML file without scripts, and the same as Markdown, from the audit's plain data alone."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evenhand.data.origins import where_text
from evenhand.report.audit_wording import (
    LEVELS,
    LIMITS_NOTE,
    SCORES_NOTE,
    finding_name,
    is_called,
    number,
    points_to,
    probability,
    share,
    source_text,
    suspects_text,
    times,
    visible,
    wrong_labels,
)
from evenhand.report.page import render
from evenhand.report.table import Column, Table, Value, table_of
from evenhand.wording import clipped, count

_Data: TypeAlias = Mapping[str, Any]

_COLOUR = re.compile(r"#[0-9a-f]{6}")

_FINDINGS_NOTE = (
    "A value is a shortcut if samples that have it are of one class more often than all samples are (Fisher’s exact "
    "test, 10 points or more), and if the scores know it: its samples of other classes outscore their classmates "
    "60 % of the time or more, and those of the class it points to are outscored as often (Mann–Whitney tests within "
    "classes). p is the largest of the three, after Holm’s correction for everything tested; level 1 %. “Gain”: the "
    "share of all samples whose class the value tells beyond what the classes’ sizes tell. From a gain of 2 % "
    "on, and where samples against it outscore classmates 75 % of the time, a shortcut is called likely, otherwise "
    "weak. How bright, sharp, large or long inputs are must also be followed: the biased model takes half of the "
    "samples against it, or more, for the class that it points to. A leak tells the class of 95 % of its samples or "
    "more with fewer than 10 against it, so the scores have nothing to go by, and no method has. An association with a "
    "gain of 5 % or more that is right on 80 % stands here too, though the scores don’t show that it is used. Whether "
    "a value is a shortcut or an honest feature of its class is yours to judge: data can’t tell."
)
_ASSOCIATIONS_NOTE = (
    "Labels say that these point to a class, but the scores don’t say that the biased models use them, or no sample "
    "goes against them; each tells the class of few samples. The largest gains first; p as above, of all three tests."
)


@dataclass(frozen=True)
class Bar:
    """A bar of the distribution: where it stands in percent of the width, how high in percent, and what it says."""

    left: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Tick:
    """A label below the distribution; `left` is in percent of the width."""

    left: float
    text: str


def render_audit_page(content: _Data) -> str:
    """The page as one HTML text.

    Args:
        content: What `Audit.as_dict()` gives, or `audit.json` holds.
    """
    return render("audit.html.j2", visible, **_view(content))


def audit_markdown(content: _Data) -> str:
    """The same as Markdown: all that the page has but its pictures."""
    return render("audit.md.j2", visible, **_view(content))


def _view(content: _Data) -> dict[str, Any]:
    """An audit as both templates take it."""
    bars, ticks = _distribution(content["histogram"])
    tables = _tables(content)
    tested = content["tested"] != "nothing"
    left = content["findings_in_all"] - len(tables["called"].rows)
    return {
        "content": content,
        "tables": tables,
        "title": f"Audit of {content['task']}",
        "lede": f"The audit {content['verdict']}",
        "source": source_text(content),
        "bars": bars,
        "ticks": ticks,
        "is_png": _is_png,
        "times": times,
        "lies": _lies,
        "share": share,
        "nothing": "Nothing that was tested points to a class in labels and scores."
        if tested
        else "Nothing could be tested.",
        "others": f"{count(left, 'association')} that the scores don’t show to be used",
        "wrong": wrong_labels(content["unnamed"]),
        "suspects": suspects_text(content["suspects"]),
        "scores_note": SCORES_NOTE,
        "limits_note": LIMITS_NOTE,
    }


def _distribution(histogram: _Data) -> tuple[list[Bar], list[Tick]]:
    """The bars of the scores' distribution, on a logarithmic axis with a tick at each power of ten."""
    edges, counts = histogram["edges"], histogram["counts"]
    low, high = math.log10(edges[0]), math.log10(edges[-1])

    def place(value: float) -> float:
        return 100 * (math.log10(value) - low) / (high - low)

    tallest = max(max(counts), 1)
    bars = [
        Bar(
            left=place(left),
            width=place(right) - place(left),
            height=100 * n / tallest,
            title=f"{count(n, 'sample')} at {times(left)} to {times(right)} times the mean",
        )
        for left, right, n in zip(edges, edges[1:], counts, strict=False)
    ]
    powers = range(math.ceil(low), math.floor(high) + 1)
    step = max(1, math.ceil(len(powers) / 6))  # no more than six, that they stand apart on a telephone
    ticks = [Tick(place(10.0**power), f"{10.0**power:g}") for power in powers if power % step == 0]
    return bars, ticks


def _is_png(encoded: object) -> bool:
    if not isinstance(encoded, str):
        return False
    try:
        return base64.b64decode(encoded, validate=True).startswith(b"\x89PNG\r\n\x1a\n")
    except (binascii.Error, ValueError):
        return False


# ---- tables --------------------------------------------------------------------------------------------------------


def _tables(content: _Data) -> dict[str, Any]:
    """All tables by name; `values` are several, `agreement` and `known` are None where nothing is known."""
    called = [finding for finding in content["findings"] if is_called(finding)]
    others = [finding for finding in content["findings"] if not is_called(finding)]
    return {
        "called": _findings(called, _FINDINGS_NOTE),
        "others": _findings(others, _ASSOCIATIONS_NOTE),
        "values": [_values(finding) for finding in called if len(finding["values"]) > 1],
        "tenths": _tenths(content["decile_masses"]),
        "highest": _samples(content, content["highest"]),
        "suspects": _samples(content, content["suspects"]["shown"]),
        "lowest": _samples(content, content["lowest"]),
        "agreement": content["agreement"] and _agreement(content["agreement"]),
        "known": content["detection"] and _known(content["detection"]),
        "classes": _classes(content["classes"]),
    }


def _findings(findings: Sequence[_Data], note: str) -> Table:
    return table_of(
        "Table of findings",
        findings,
        [
            (Column("What", "label"), finding_name),
            (Column("Spelling", "foreign"), lambda found: visible(found.get("shortcut") or "")),
            (Column("Verdict", "level"), lambda found: LEVELS[found["verdict"]]),
            (Column("Points to", "foreign"), points_to),
            ("On samples", lambda found: share(found["covered"])),
            ("Gain", lambda found: share(found["gain"])),
            ("With it", lambda found: f"{found['aligned']:,}"),
            ("Against it", lambda found: f"{found['conflicting']:,}"),
            ("Against it: outscore classmates", lambda found: share(found["auroc_conflicting"])),
            ("With it: outscore classmates", lambda found: share(found["auroc_aligned"])),
            ("p", lambda found: probability(found["p"])),
        ],
        row_kind=lambda found: f"level-{found['verdict']}",
        note=note,
        kind="findings",
    )


def _values(finding: _Data) -> Table:
    name, is_colour = finding_name(finding), finding["kind"] == "colour"
    how = " (mean colours, told apart by hue and saturation)" if is_colour else ""

    def named(value: _Data) -> Value:
        colour = is_colour and _COLOUR.fullmatch(value["name"])
        return Value(visible(value["name"]), style=f"background: {value['name']}" if colour else "")

    return table_of(
        f"Values of {name}",
        finding["values"],
        [
            (Column("Value", "label"), named),
            (Column("Points to", "foreign"), lambda value: visible(value["points_to"])),
            ("Samples", lambda value: f"{value['count']:,}"),
            ("Of this class", lambda value: share(value["share"])),
            ("Of all samples", lambda value: share(value["base"])),
            ("Against it", lambda value: f"{value['conflicting']:,}"),
        ],
        note=f"The values of {name}{how}, and the class that each points to.",
    )


def _tenths(masses: Sequence[float]) -> Table:
    ends, most = {1: " (highest)", len(masses): " (lowest)"}, max(masses)
    return table_of(
        "Sampling mass by tenth",
        enumerate(masses, 1),
        [
            (Column("Tenth", "label"), lambda tenth: f"{tenth[0]}{ends.get(tenth[0], '')}"),
            ("Mass", lambda tenth: share(tenth[1])),
            (Column("", "bar", only="page"), lambda tenth: Value("", style=f"width: {100 * tenth[1] / most:.2f}%")),
        ],
        note="Share of the sampling mass of each tenth of the samples, if they were drawn in proportion to their "
        "scores. Drawn uniformly, each has 10 %.",
        kind="tenths",
    )


def _samples(content: _Data, samples: Sequence[_Data]) -> Table:
    """Samples as a table, which only `audit.md` shows: the page has them as cards."""
    texts = [(Column("Text", ""), lambda sample: clipped(visible(" / ".join(sample["texts"].values()))))]
    return table_of(
        "Table of samples",
        samples,
        [
            (Column("Id", "label"), lambda sample: visible(sample["id"])),
            *([(Column("Lies in", ""), _lies)] if any(sample.get("file") for sample in samples) else []),
            *(texts if content["inputs"] != "image" else []),
            (Column("Label", ""), lambda sample: visible(sample["label"])),
            (Column("Model", ""), lambda sample: f"{visible(sample['prediction'])} ({share(sample['confidence'])})"),
            ("Score", lambda sample: f"{times(sample['times_uniform'])}×"),
            (Column("Shortcut points to", ""), lambda sample: visible(sample["shortcut_points_to"] or "")),
        ],
    )


def _lies(sample: _Data) -> str:
    """Where a row of the user's own data lies; empty for others."""
    file = sample.get("file")
    return clipped(visible(where_text(file, sample.get("row"), sample.get("line")))) if file else ""


def _agreement(found: _Data) -> Table:
    first = f"{found['first']:,}"
    return table_of(
        "Table of agreement",
        [found],
        [
            (Column("Models", "label"), lambda found: str(found["seeds"])),
            ("Rank correlation, mean", lambda found: number(found["rank_correlation"])),
            ("lowest", lambda found: number(found["lowest_rank_correlation"])),
            (f"Overlap of the first {first}", lambda found: share(found["overlap"])),
        ],
        note=f"Over all pairs of the {found['seeds']} biased models, which differ in initialisation and order of the "
        f"same data. Spearman’s correlation compares the whole order, the overlap the first {first} samples of each; "
        f"unrelated scores would share {share(found['chance_overlap'])}.",
    )


def _known(found: _Data) -> Table:
    conflicting = f"{found['conflicting']:,}"
    first = [
        (f"Among the first {k:,}", lambda _, precision=precision: share(precision))
        for k, precision in found["precision"]
    ]
    return table_of(
        "Table of detection",
        [found],
        [
            (Column("Conflicting samples", "label"), lambda _: conflicting),
            ("AUROC", lambda found: number(found["auroc"])),
            ("Average precision", lambda found: number(found["average_precision"])),
            ("Mass", lambda found: share(found["sampling_mass"])),
            *first,
        ],
        note=f"The data say which samples conflict: {conflicting} of {found['samples']:,}. The scores don’t know it. "
        "“Mass”: the conflicting samples’ share of the scores’ sum.",
    )


def _classes(classes: Sequence[_Data]) -> Table:
    return table_of(
        "Table of classes",
        classes,
        [
            (Column("Class", "label"), lambda found: visible(found["name"])),
            ("Samples", lambda found: f"{found['samples']:,}"),
            ("Sampling mass", lambda found: share(found["mass"])),
            ("Mean score", lambda found: f"{times(found['mean_score'])}×"),
            ("In the first tenth", lambda found: share(found["in_first_tenth"])),
            ("Biased model right", lambda found: share(found["predicted_right"])),
        ],
        note="“Mean score” is a multiple of the mean over all samples. “In the first tenth”: how many of the class are "
        "among the tenth of all samples with the highest scores.",
    )
