"""What weighted draws cost: set-up, time a draw and memory, for 10 million probabilities.

python benchmarks/sampling.py --output benchmarks/sampling.md       # about 2 minutes on one core

Each side runs in a process of its own: it is made from 10 million probabilities (1 % of the samples hold 99 % of the
mass, as PGD's scores do on biased data; and uniform ones), then makes 4 million draws. Memory is the growth of
the process's peak beyond the probabilities themselves.

Sides: ours (binary search by sorted chunks, draws handed out by the chunk); the same search for all draws at once; an
alias table (Vose's, filled by a plain loop, since NumPy has no form of it; its draws are vectorised); NumPy's
`Generator.choice`; `torch.multinomial`, which torch's WeightedRandomSampler calls (it makes all draws in `__iter__`).

Expected before measuring: searching at once 500–800 ns a draw, since every step of the search misses the cache; ours a
fifth of that; the alias table 30–100 ns, after a set-up of 5–15 s and two tables instead of one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evenhand.sampling import ImportanceSampler

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Draw = Callable[[int], Iterator[Ints]]


def ours(p: Floats) -> Draw:
    sampler = ImportanceSampler(p)

    def draw(count: int) -> Iterator[Ints]:
        sampler.num_draws = count
        return sampler.chunks()

    return draw


def search_at_once(p: Floats) -> Draw:
    cumulative = np.cumsum(p)

    def draw(count: int) -> Iterator[Ints]:
        wanted = np.random.default_rng(0).random(count) * cumulative[-1]
        yield np.searchsorted(cumulative, wanted, side="right")

    return draw


def alias_table(p: Floats) -> Draw:
    n = len(p)
    left = (p * (n / p.sum())).tolist()
    alias = list(range(n))
    small = [i for i, value in enumerate(left) if value < 1]
    large = [i for i, value in enumerate(left) if value >= 1]
    while small and large:
        less, more = small.pop(), large[-1]
        alias[less] = more
        left[more] -= 1 - left[less]
        if left[more] < 1:
            small.append(large.pop())
    for i in small + large:  # what rounding left over
        left[i] = 1.0
    keep, other = np.array(left), np.array(alias)

    def draw(count: int) -> Iterator[Ints]:
        generator = np.random.default_rng(0)
        for start in range(0, count, 65_536):
            size = min(65_536, count - start)
            column = generator.integers(0, n, size)
            yield np.where(generator.random(size) < keep[column], column, other[column])

    return draw


def numpy_choice(p: Floats) -> Draw:
    def draw(count: int) -> Iterator[Ints]:
        yield np.random.default_rng(0).choice(len(p), count, p=p)

    return draw


def torch_multinomial(p: Floats) -> Draw:
    weights = torch.from_numpy(p)

    def draw(count: int) -> Iterator[Ints]:
        yield torch.multinomial(weights, count, replacement=True).numpy()

    return draw


SIDES: dict[str, Callable[[Floats], Draw]] = {
    "evenhand.sampling.ImportanceSampler": ours,
    "one search for all draws": search_at_once,
    "alias table": alias_table,
    "numpy Generator.choice": numpy_choice,
    "torch.multinomial": torch_multinomial,
}


def probabilities(kind: str, n: int) -> Floats:
    generator = np.random.default_rng(0)
    p = generator.random(n)
    if kind == "biased":
        p *= np.where(generator.random(n) < 0.01, 99.0 * 99.0, 1.0)
    p /= p.sum()
    return p


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def measure(name: str, kind: str, n: int, draws: int) -> tuple[float, float, float, float]:
    """Seconds of set-up, nanoseconds a draw, MB, and the share of draws from the first half of the samples less p's."""
    torch.set_num_threads(1)
    p = probabilities(kind, n)
    before = peak_mb()
    clock = time.perf_counter()
    draw = SIDES[name](p)
    set_up = time.perf_counter() - clock
    clock = time.perf_counter()
    half = sum(int((chunk < n // 2).sum()) for chunk in draw(draws))
    seconds = time.perf_counter() - clock
    return set_up, seconds / draws * 1e9, peak_mb() - before, half / draws - float(p[: n // 2].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--draws", type=int, default=4_000_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    n = options.samples
    lines = [
        "# What weighted draws cost",
        "",
        f"{n:,} probabilities, {options.draws:,} draws; one thread of {platform.machine()}, "
        f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}. "
        "Memory: growth of the process's peak beyond the "
        "probabilities. Made by `python benchmarks/sampling.py`, whose head says what is compared.",
        "",
        "| probabilities | side | set-up | a draw | 10 million draws | memory |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in ("biased", "uniform"):
        for name in SIDES:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                set_up, nanoseconds, memory, error = pool.submit(measure, name, kind, n, options.draws).result()
            if abs(error) > 5 / options.draws**0.5:
                raise SystemExit(f"{name} draws with other probabilities: its first half is off by {error:.1e}.")
            lines.append(
                f"| {kind} | {name} | {set_up:.2f} s | {nanoseconds:.0f} ns | {nanoseconds / 100:.1f} s | "
                f"{memory:.0f} MB |"
            )
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
