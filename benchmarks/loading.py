"""What reading and tokenising many texts costs: time and memory, for more and more rows of a CSV.

python benchmarks/loading.py --output benchmarks/loading.md       # about 6 minutes on one core

Each size runs in a process of its own, with an empty cache: a CSV of made-up sentences (8 to 40 words) is read and
split as own data are, its training rows (7 of 10) are tokenised by MiniLM's tokenizer, and 200 batches of 32 rows are
drawn at random. Then the same once more in a new process, which finds both in the cache.

Memory is what the process holds itself: the largest growth, over what it held before, of anonymous memory, looked at
every 50 ms. Pages of the mapped files aren't in it, since the system takes them back when it needs to. Python objects
in place of the mapped file are shown for comparison: the same tokens as lists of integers, at the smallest size only.

Expected before measuring: some 30 bytes a row for labels, indices and where each row's tokens begin, so 15 MB for
500,000 rows, beside 20 to 50 MB for one batch of rows; lists would take 8 bytes a token and 100 a list, 150 MB for the
training rows of 500,000.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SIZES = (100_000, 500_000)
WORDS = [
    first + last for first in ("ba", "do", "li", "mu", "ta", "so") for last in ("ren", "mit", "lo", "ga", "p", "st")
]


def anonymous_mb() -> float:
    """Anonymous memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1e3
    raise SystemExit("This benchmark reads /proc/self/status, which only Linux has.")


class Watch:
    """The largest growth of anonymous memory while it is open, looked at by a thread."""

    def __enter__(self) -> Watch:
        self.before = self.peak = anonymous_mb()
        self.open = True
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        self.clock = time.perf_counter()
        return self

    def _look(self) -> None:
        while self.open:
            self.peak = max(self.peak, anonymous_mb())
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.clock
        self.open = False
        self.thread.join()
        self.growth = max(self.peak, anonymous_mb()) - self.before


def write_csv(path: Path, rows: int) -> None:
    chosen = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "label"])
        for i in range(rows):
            writer.writerow([" ".join(chosen.choices(WORDS, k=chosen.randint(8, 40))), i % 3])


def measure(path: str, cache: str, compare: bool) -> list[tuple[str, float, float]]:
    """(what, seconds, MB) of each step."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from datasets import config

    config.HF_DATASETS_CACHE = Path(cache)
    import numpy as np

    from evenhand.data.inputs import Tokenizing
    from evenhand.data.rows import TokenRows, collator_for
    from evenhand.models.named import model_source
    from evenhand.tasks import OwnData

    source = model_source("MiniLM", "text", ("0", "1", "2"))
    preprocess, _ = source.preprocessor(128)
    assert isinstance(preprocess, Tokenizing)
    preprocess.tokens({"text": ["once, so that what it loads isn't counted"]})
    found = []
    with Watch() as watch:
        task = OwnData(data=path, text="sentence").build(0)
    found.append(("read, check, split", watch.seconds, watch.growth))
    with Watch() as watch:
        rows = TokenRows(task.train, preprocess.tokens, preprocess.key)
        count = int(rows.lengths.sum())
    found.append((f"tokenise ({count / len(rows):.0f} tokens a row)", watch.seconds, watch.growth))
    collate = collator_for(preprocess)
    drawn = np.random.default_rng(0).integers(0, len(rows), (200, 32))
    with Watch() as watch:
        for batch in drawn:
            collate(rows.__getitems__(batch.tolist()))
    found.append(("200 batches of 32", watch.seconds, watch.growth))
    if compare:
        texts = task.train
        with Watch() as watch:
            lists = [
                ids
                for start in range(0, len(texts), 1000)
                for ids in preprocess.tokens({"text": texts[start : start + 1000]["text"]})["input_ids"]
            ]
        found.append(("tokens as lists of Python integers", watch.seconds, watch.growth))
        assert sum(map(len, lists)) == count
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        "# What reading and tokenising many texts costs",
        "",
        f"A CSV of made-up sentences, MiniLM's tokenizer, one thread of {platform.machine()}, Python "
        f"{platform.python_version()}. Memory: the largest growth of the process's anonymous memory. Made by `python "
        "benchmarks/loading.py`, whose head says what is measured.",
        "",
        "| rows | cache | step | time | memory |",
        "| ---: | --- | --- | ---: | ---: |",
    ]
    for number, rows in enumerate(options.rows):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "made-up.csv"
            write_csv(path, rows)
            for cache in ("empty", "filled"):
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    compare = number == 0 and cache == "empty"
                    steps = pool.submit(measure, str(path), f"{folder}/cache", compare).result()
                for what, seconds, megabytes in steps:
                    lines.append(f"| {rows:,} | {cache} | {what} | {seconds:.1f} s | {megabytes:.0f} MB |")
                    print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
