"""The tables of an audit, from its plain data alone; the page and `audit.md` are both made from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.report.audit_wording import (
    LEVELS,
    finding_name,
    is_called,
    number,
    points_to,
    probability,
    share,
    times,
    visible,
)
from evenhand.report.table import Column, Table, Value, numbers, row

_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LONGEST = 120  # characters of a sample's text

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


def audit_tables(content: Mapping[str, Any]) -> dict[str, Any]:
    """All tables by name; `values` are several, `agreement` and `known` are None where nothing is known.

    Args:
        content: What `Audit.as_dict()` gives, or `audit.json` holds.
    """
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


def _findings(findings: Sequence[Mapping[str, Any]], note: str) -> Table:
    against, along = "Against it: outscore classmates", "With it: outscore classmates"
    return Table(
        name="Table of findings",
        head=(
            *(Column("What", "label"), Column("Verdict", "level"), Column("Points to", "foreign")),
            *numbers("On samples", "Gain", "With it", "Against it", against, along, "p"),
        ),
        rows=tuple(
            row(
                finding_name(finding),
                LEVELS[finding["verdict"]],
                points_to(finding),
                share(finding["covered"]),
                share(finding["gain"]),
                f"{finding['aligned']:,}",
                f"{finding['conflicting']:,}",
                share(finding["auroc_conflicting"]),
                share(finding["auroc_aligned"]),
                probability(finding["p"]),
                kind=f"level-{finding['verdict']}",
            )
            for finding in findings
        ),
        note=note,
        kind="findings",
    )


def _values(finding: Mapping[str, Any]) -> Table:
    name, is_colour = finding_name(finding), finding["kind"] == "colour"
    how = " (mean colours, told apart by hue and saturation)" if is_colour else ""
    return Table(
        name=f"Values of {name}",
        head=(
            *(Column("Value", "label"), Column("Points to", "foreign")),
            *numbers("Samples", "Of this class", "Of all samples", "Against it"),
        ),
        rows=tuple(
            row(
                Value(visible(value["name"]), style=_swatch(value["name"]) if is_colour else ""),
                visible(value["points_to"]),
                f"{value['count']:,}",
                share(value["share"]),
                share(value["base"]),
                f"{value['conflicting']:,}",
            )
            for value in finding["values"]
        ),
        note=f"The values of {name}{how}, and the class that each points to.",
    )


def _swatch(name: str) -> str:
    return f"background: {name}" if _COLOUR.fullmatch(name) else ""


def _tenths(masses: Sequence[float]) -> Table:
    ends = {0: " (highest)", len(masses) - 1: " (lowest)"}
    return Table(
        name="Sampling mass by tenth",
        head=(Column("Tenth", "label"), Column("Mass"), Column("", "bar", only="page")),
        rows=tuple(
            row(f"{i + 1}{ends.get(i, '')}", share(mass), Value("", style=f"width: {100 * mass / max(masses):.2f}%"))
            for i, mass in enumerate(masses)
        ),
        note="Share of the sampling mass of each tenth of the samples, if they were drawn in proportion to their "
        "scores. Drawn uniformly, each has 10 %.",
        kind="tenths",
    )


def _samples(content: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Table:
    """Samples as a table, which only `audit.md` shows: the page has them as cards."""
    place = "no place" if content["inputs"] == "image" else ""
    return Table(
        name="Table of samples",
        head=(
            *(Column("Id", "label"), Column("Text", "foreign", only=place), Column("Label", ""), Column("Model", "")),
            *(Column("Score"), Column("Shortcut points to", "")),
        ),
        rows=tuple(
            row(
                visible(sample["id"]),
                _cut(visible(" / ".join(sample["texts"].values()))) if place == "" else "",
                visible(sample["label"]),
                f"{visible(sample['prediction'])} ({share(sample['confidence'])})",
                f"{times(sample['times_uniform'])}×",
                "" if sample["shortcut_points_to"] is None else visible(sample["shortcut_points_to"]),
            )
            for sample in samples
        ),
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _agreement(found: Mapping[str, Any]) -> Table:
    first = f"{found['first']:,}"
    return Table(
        name="Table of agreement",
        head=(Column("Models", "label"), *numbers("Rank correlation, mean", "lowest", f"Overlap of the first {first}")),
        rows=(
            row(
                str(found["seeds"]),
                number(found["rank_correlation"]),
                number(found["lowest_rank_correlation"]),
                share(found["overlap"]),
            ),
        ),
        note=f"Over all pairs of the {found['seeds']} biased models, which differ in initialisation and order of the "
        f"same data. Spearman’s correlation compares the whole order, the overlap the first {first} samples of each; "
        f"unrelated scores would share {share(found['chance_overlap'])}.",
    )


def _known(found: Mapping[str, Any]) -> Table:
    conflicting = f"{found['conflicting']:,}"
    first = [(f"Among the first {k:,}", share(precision)) for k, precision in found["precision"]]
    return Table(
        name="Table of detection",
        head=(
            Column("Conflicting samples", "label"),
            *numbers("AUROC", "Average precision", "Mass", *(name for name, _ in first)),
        ),
        rows=(
            row(
                conflicting,
                number(found["auroc"]),
                number(found["average_precision"]),
                share(found["sampling_mass"]),
                *(text for _, text in first),
            ),
        ),
        note=f"The data say which samples conflict: {conflicting} of {found['samples']:,}. The scores don’t know it. "
        "“Mass”: the conflicting samples’ share of the scores’ sum.",
    )


def _classes(classes: Sequence[Mapping[str, Any]]) -> Table:
    names = ("Samples", "Sampling mass", "Mean score", "In the first tenth", "Biased model right")
    return Table(
        name="Table of classes",
        head=(Column("Class", "label"), *numbers(*names)),
        rows=tuple(
            row(
                visible(found["name"]),
                f"{found['samples']:,}",
                share(found["mass"]),
                f"{times(found['mean_score'])}×",
                share(found["in_first_tenth"]),
                share(found["predicted_right"]),
            )
            for found in classes
        ),
        note="“Mean score” is a multiple of the mean over all samples. “In the first tenth”: how many of the class are "
        "among the tenth of all samples with the highest scores.",
    )
