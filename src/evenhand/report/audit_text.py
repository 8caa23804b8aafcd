"""An audit as Markdown: all that the page has but its pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.report import audit_wording as wording
from evenhand.wording import count

_LONGEST = 120  # characters of a text in a table
_SPECIAL = re.compile(r"([\\`*_\[\]|])")


def audit_markdown(content: Mapping[str, Any]) -> str:
    """The audit as Markdown.

    Args:
        content: What `Audit.as_dict()` gives, or `audit.json` holds.
    """
    suspects = content["suspects"]
    wrong = wording.wrong_labels(content["unnamed"])
    parts = [
        f"# Audit of {_plain(content['task'])}",
        f"The audit {_plain(content['verdict'])}",
        _plain(wording.source_text(content)),
        "## What to do",
        _plain(content["advice"]["text"]),
        _code(content["advice"]["command"]),
        *([] if content["advice"]["compare"] is None else ["To compare:", _code(content["advice"]["compare"])]),
        "## What looks like a shortcut",
        f"Tested: {_plain(content['tested'])}. {wording.LIMITS_NOTE}",
        *_findings(content),
        "## Scores",
        wording.SCORES_NOTE,
        _table(
            ("tenth of the samples", "share of the sampling mass"),
            [(str(i), wording.share(mass)) for i, mass in enumerate(content["decile_masses"], 1)],
        ),
        "## Highest scores: what goes against the easy way",
        _samples(content, content["highest"]),
        f"## {wrong[0]}",
        wrong[1],
        f"{count(suspects['count'], 'sample')} of the {suspects['looked_at']:,} highest scores; "
        f"{suspects['explained']:,} more are explained by what was found. Over all samples, confident predictions "
        f"are right on {wording.share(suspects['right_when_confident'])}.",
        _samples(content, suspects["shown"]),
        "## Lowest scores: what goes with it",
        _samples(content, content["lowest"]),
        *_measures(content),
        "## Classes",
        _table(
            ("class", "samples", "sampling mass", "mean score", "in the first tenth", "biased model right"),
            [
                (
                    _plain(view["name"]),
                    f"{view['samples']:,}",
                    wording.share(view["mass"]),
                    f"{wording.times(view['mean_score'])}×",
                    wording.share(view["in_first_tenth"]),
                    wording.share(view["predicted_right"]),
                )
                for view in content["classes"]
            ],
        ),
        *(f"- {_plain(note)}" for note in content["notes"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _findings(content: Mapping[str, Any]) -> list[str]:
    if not content["findings"]:
        said = (
            "Nothing could be tested."
            if content["tested"] == "nothing"
            else "Nothing that was tested points to a class."
        )
        return [said]
    rows = [
        (
            _plain(wording.finding_name(finding)),
            wording.LEVELS[finding["verdict"]],
            _plain(wording.points_to(finding)),
            wording.share(finding["covered"]),
            wording.share(finding["gain"]),
            f"{finding['aligned']:,}",
            f"{finding['conflicting']:,}",
            wording.share(finding["auroc_conflicting"]),
            wording.share(finding["auroc_aligned"]),
            wording.probability(finding["p"]),
        )
        for finding in content["findings"]
    ]
    head = ("what", "verdict", "points to", "on samples", "gain", "with it", "against it")
    parts = [
        _table((*head, "against it: outscore classmates", "with it: outscore classmates", "p"), rows),
        wording.FINDINGS_NOTE,
    ]
    for finding in content["findings"]:
        if len(finding["values"]) > 1:
            values = [
                (
                    _plain(value["name"]),
                    _plain(value["points_to"]),
                    f"{value['count']:,}",
                    wording.share(value["share"]),
                    wording.share(value["base"]),
                    f"{value['conflicting']:,}",
                )
                for value in finding["values"]
            ]
            parts.append(f"Values of {_plain(wording.finding_name(finding))}:")
            parts.append(
                _table(("value", "points to", "samples", "of this class", "of all samples", "against it"), values)
            )
    return parts


def _samples(content: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return "None."
    text = content["inputs"] != "image"
    rows = [
        (
            _plain(sample["id"]),
            *([_cut(" / ".join(sample["texts"].values()))] if text else []),
            _plain(sample["label"]),
            f"{_plain(sample['prediction'])} ({wording.share(sample['confidence'])})",
            f"{wording.times(sample['times_uniform'])}×",
            "" if sample["shortcut_points_to"] is None else _plain(sample["shortcut_points_to"]),
        )
        for sample in samples
    ]
    return _table(("id", *(["text"] if text else []), "label", "model", "score", "shortcut points to"), rows)


def _measures(content: Mapping[str, Any]) -> list[str]:
    parts = []
    agreement, detection = content["agreement"], content["detection"]
    if agreement is not None:
        parts += [
            "## Agreement across seeds",
            _table(
                ("models", "rank correlation, mean", "lowest", f"overlap of the first {agreement['first']:,}"),
                [
                    (
                        str(agreement["seeds"]),
                        wording.number(agreement["rank_correlation"]),
                        wording.number(agreement["lowest_rank_correlation"]),
                        wording.share(agreement["overlap"]),
                    )
                ],
            ),
        ]
    if detection is not None:
        parts += [
            "## Against what is known",
            _table(
                (
                    *("conflicting", "samples", "AUROC", "average precision", "mass"),
                    *(f"among the first {k:,}" for k, _ in detection["precision"]),
                ),
                [
                    (
                        f"{detection['conflicting']:,}",
                        f"{detection['samples']:,}",
                        wording.number(detection["auroc"]),
                        wording.number(detection["average_precision"]),
                        wording.share(detection["sampling_mass"]),
                        *(wording.share(precision) for _, precision in detection["precision"]),
                    )
                ],
            ),
        ]
    return parts


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: Any) -> str:
    """A text of the user's in Markdown: no sign of it means anything."""
    return html.escape(_SPECIAL.sub(r"\\\1", wording.visible(text)), quote=False)


def _cut(text: str) -> str:
    return _plain(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")


def _code(line: str) -> str:
    return "\n".join("    " + part for part in wording.visible(line).splitlines())
