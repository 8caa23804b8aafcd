"""Files in the form of SNLI's."""

from __future__ import annotations

from pathlib import Path

from evenhand.tasks.text.nli_files import LABELS


def write_pairs(path: Path, labels: list[str], words: str = "premise") -> None:
    lines = [f"a {words} {i}\ta hypothesis {i}\t{label}" for i, label in enumerate(labels)]
    path.write_text("\n".join(["premise\thypothesis\tlabel", *lines]) + "\n", encoding="utf-8")


def write_snli(folder: Path, train: int = 600, dev: int = 300, holdout: int | None = 60) -> Path:
    folder.mkdir(exist_ok=True)
    for name, count in (("train", train), ("dev", dev), ("train_holdout", holdout)):
        if count is not None:
            write_pairs(folder / f"{name}.tsv", [LABELS[i % 3] for i in range(count)], name)
    return folder
