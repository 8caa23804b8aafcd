"""Where SNLI, MultiNLI and their challenge sets come from: files as published, GLUE's, plain tables, or the hub."""

from __future__ import annotations

from typing import Literal, get_args

from evenhand.data.tables import Columns
from evenhand.tasks.text.sources import HubPart, Part

NLILabel = Literal["entailment", "neutral", "contradiction"]
LABELS: tuple[NLILabel, ...] = get_args(NLILabel)  # in the order of SNLI's numbers

SNLI_HUB = "stanfordnlp/snli"
"""SNLI's parquet copy on the Hugging Face hub (untried: the project's tests have no network)."""

SNLI_HARD_HUB = "au123/snli-hard"
"""A copy of snli_1.0_test_hard.jsonl on the hub (untried)."""

MNLI_HUB = "nyu-mll/multi_nli"
"""MultiNLI's parquet copy on the hub (untried)."""

HANS_HUB = "tasksource/hans"
"""A parquet copy of HANS on the hub (untried; jhu-cogsci/hans needs a script, which datasets no longer runs)."""

NLI_NUMBERS = {name: i for i, name in enumerate(LABELS)} | {str(i): i for i in range(len(LABELS))}
"""What stands for each class: its name, or its number in SNLI and MultiNLI."""

HANS_LABELS = ("entailment", "non-entailment")

_PAIR = {
    "premise": ("sentence1", "premise"),
    "hypothesis": ("sentence2", "hypothesis"),
    "label": ("gold_label", "label"),
}
_PAIRS = Columns(_PAIR, {"id": ("pairID", "id"), "genre": ("genre",)})

_SNLI_ADVICE = (
    "take snli_1.0.zip from nlp.stanford.edu/projects/snli (CC BY-SA 4.0), unpack it, and give its folder "
    "with --data-dir"
)
_MNLI_ADVICE = (
    "take multinli_1.0.zip from cims.nyu.edu/~sbowman/multinli, or GLUE's MNLI.zip, unpack it, and give its folder "
    "with --data-dir"
)


def _nli(title: str, hub: HubPart | None, advice: str, *files: str) -> Part:
    return Part(title=title, files=files, columns=_PAIRS, labels=NLI_NUMBERS, hub=hub, advice=advice)


def _snli(part: str, split: str) -> Part:
    files = (f"snli_1.0_{part}.jsonl", f"snli_1.0_{part}.txt", f"{part}.tsv")
    return _nli(f"SNLI's {part} part", HubPart(SNLI_HUB, split), _SNLI_ADVICE, *files)


def _mnli(title: str, part: str, split: str, *plain: str) -> Part:
    files = (f"multinli_1.0_{part}.jsonl", f"multinli_1.0_{part}.txt", f"{part}.tsv", *plain)
    return _nli(f"MultiNLI's {title} part", HubPart(MNLI_HUB, split), _MNLI_ADVICE, *files)


SNLI_TRAIN = _snli("train", "train")
SNLI_DEV = _snli("dev", "validation")
SNLI_TEST = _snli("test", "test")
SNLI_HOLDOUT = _nli(
    "SNLI's held-out part", None, "leave it out: a tenth of the training part validates then", "train_holdout.tsv"
)
SNLI_HARD = _nli(
    "SNLI's hard test pairs",
    HubPart(SNLI_HARD_HUB, "train"),
    "take snli_1.0_test_hard.jsonl from nlp.stanford.edu/projects/snli (CC BY-SA 4.0) into the folder given with "
    "--data-dir",
    "snli_1.0_test_hard.jsonl",
)

MNLI_TRAIN = _mnli("training", "train", "train", "train_*.tsv")
MNLI_MATCHED = _mnli("matched development", "dev_matched", "validation_matched")
MNLI_MISMATCHED = _mnli("mismatched development", "dev_mismatched", "validation_mismatched")

HANS = Part(
    title="HANS's evaluation set",
    files=("heuristics_evaluation_set.jsonl", "heuristics_evaluation_set.txt"),
    columns=Columns({**_PAIR, "heuristic": ("heuristic",)}, {"id": ("pairID",)}),
    labels={name: i for i, name in enumerate(HANS_LABELS)} | {"0": 0, "1": 1},
    hub=HubPart(HANS_HUB, "validation"),
    advice=(
        "take heuristics_evaluation_set.txt from github.com/tommccoy1/hans (MIT) into the folder given with --data-dir"
    ),
)
