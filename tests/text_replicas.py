"""Made-up files in the layouts that the text benchmarks are published in."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from evenhand.data.columns import membership
from evenhand.tasks import Task, TaskSource
from evenhand.validation import UserError

NLI = ("entailment", "neutral", "contradiction")
IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")

MULTINLI_COLUMNS = [
    "gold_label",
    "sentence1_binary_parse",
    "sentence2_binary_parse",
    "sentence1_parse",
    "sentence2_parse",
    "sentence1",
    "sentence2",
    "promptID",
    "pairID",
    "genre",
    "label1",
    "label2",
    "label3",
    "label4",
    "label5",
]
SNLI_COLUMNS = [
    "gold_label",
    "sentence1_binary_parse",
    "sentence2_binary_parse",
    "sentence1_parse",
    "sentence2_parse",
    "sentence1",
    "sentence2",
    "captionID",
    "pairID",
    "label1",
    "label2",
    "label3",
    "label4",
    "label5",
]
GLUE_MNLI_COLUMNS = [
    "index",
    "promptID",
    "pairID",
    "genre",
    "sentence1_binary_parse",
    "sentence2_binary_parse",
    "sentence1_parse",
    "sentence2_parse",
    "sentence1",
    "sentence2",
    "label1",
    "gold_label",
]
HANS_COLUMNS = [
    "gold_label",
    "sentence1_binary_parse",
    "sentence2_binary_parse",
    "sentence1_parse",
    "sentence2_parse",
    "sentence1",
    "sentence2",
    "pairID",
    "heuristic",
    "subcase",
    "template",
]


def tabs(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """A tab-separated table; cells that a row doesn't name are filled with the column's name."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(str(row.get(column, column)) for column in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def nli_rows(labels: Sequence[str], words: str = "pair") -> list[dict[str, Any]]:
    """Every other hypothesis has a negation word; quotes stand for themselves."""
    return [
        {
            "gold_label": label,
            "sentence1": f'A "{words} {i}',
            "sentence2": f"There is {'no,' if i % 2 else 'some'} hypothesis {i}",
            "pairID": f"{words}{i}",
            "genre": "fiction",
        }
        for i, label in enumerate(labels)
    ]


def cycle(count: int, start: int = 0) -> list[str]:
    return [NLI[(i + start) % 3] for i in range(count)]


def write_multinli(folder: Path, train: int = 60, matched: int = 12, mismatched: int | None = 9) -> Path:
    """The .txt of multinli_1.0; its development parts have pairs without a label."""
    folder.mkdir(exist_ok=True)
    tabs(folder / "multinli_1.0_train.txt", MULTINLI_COLUMNS, nli_rows(cycle(train), "t"))
    tabs(folder / "multinli_1.0_dev_matched.txt", MULTINLI_COLUMNS, nli_rows([*cycle(matched), "-"], "m"))
    if mismatched is not None:
        tabs(folder / "multinli_1.0_dev_mismatched.txt", MULTINLI_COLUMNS, nli_rows(["-", *cycle(mismatched)], "mm"))
    return folder


def write_hans(folder: Path, each: int = 2) -> None:
    rows = [
        {"gold_label": label, "sentence1": f"the {h} {i}", "sentence2": "the x", "pairID": f"ex{h}{label}{i}"}
        | {"heuristic": h}
        for h in ("lexical_overlap", "subsequence", "constituent")
        for label in ("entailment", "non-entailment")
        for i in range(each)
    ]
    tabs(folder / "heuristics_evaluation_set.txt", HANS_COLUMNS, rows)


def hans_beside_multinli(folder: Path) -> Path:
    write_hans(write_multinli(folder))
    return folder


def write_snli(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for part, count in (("train", 60), ("test", 12)):
        jsonl(folder / f"snli_1.0_{part}.jsonl", nli_rows([*cycle(count), "-"], part))
    tabs(folder / "snli_1.0_dev.txt", SNLI_COLUMNS, nli_rows([*cycle(12), "-"], "dev"))
    jsonl(folder / "snli_1.0_test_hard.jsonl", nli_rows(cycle(12), "test")[3:7])
    return folder


def write_qqp(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    columns = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
    for name, count in (("train", 20), ("dev", 8)):
        rows = [
            {"id": i, "question1": f'"{name} {i}', "question2": "what?", "is_duplicate": i % 2} for i in range(count)
        ]
        tabs(folder / f"{name}.tsv", columns, rows)
    with (folder / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("99\t1\t2\ta question with\n a line break\tanother\t0\n")
    paws = [{"id": i, "sentence1": f"a {i} b", "sentence2": f"b {i} a", "label": int(i < 2)} for i in range(6)]
    tabs(folder / "dev_and_test.tsv", ["id", "sentence1", "sentence2", "label"], paws)
    return folder


def write_fever(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    labels = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
    for name, count in (("train", 30), ("dev", 9)):
        rows = [
            {"id": i // 2, "claim": f"claim {i}", "evidence": f"evidence {i} .", "gold_label": labels[i % 3]}
            for i in range(count)
        ]
        jsonl(folder / f"fever.{name}.jsonl", rows)
    symmetric = [
        {"id": f"{i}0000002", "label": labels[i % 2], "claim": f"claim {i}", "evidence_sentence": "evidence"}
        for i in range(6)
    ]
    jsonl(folder / "fever_symmetric_generated.jsonl", symmetric)
    second = [
        {"id": row["id"], "claim": row["claim"], "evidence": "e", "sentence1": "e", "sentence2": row["claim"]}
        | {"gold_label": row["label"], "label": row["label"], "evid": [["e", 1.0]]}
        for row in symmetric
    ]
    jsonl(folder / "fever_symmetric_test.jsonl", second)
    return folder


def civil_rows() -> list[dict[str, Any]]:
    splits = ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    return [
        {
            "": i,
            "id": 5000 + i,
            "comment_text": f'He said, "line {i}\nand more"',
            "split": split,
            "created_date": "2017-01-01",
            "toxicity": (0.5, 0.49, 0.0, 0.9)[i % 4],
            **dict.fromkeys(IDENTITIES, 0.0),
            "male": (1.0, 0.5, 0.4, 0.0)[i % 4],
            "white": (0.6, 0.0, 0.0, 0.0)[i % 4],
            "identity_any": 1.0,
        }
        for i, split in enumerate(splits)
    ]


def write_civil(folder: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    rows = civil_rows() if rows is None else rows
    with (folder / "all_data_with_identities.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def refusal(source: TaskSource) -> str:
    with pytest.raises(UserError) as caught:
        source.build(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sizes(task: Task) -> dict[str, int]:
    return {name: len(split) for name, split in task.splits.items()}


def members(split: datasets.Dataset, column: str = "group") -> dict[str, int]:
    return {name: int(member_N.sum()) for name, member_N in membership(split, column).items()}
