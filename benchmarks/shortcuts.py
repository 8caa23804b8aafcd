"""Who takes the shortcut: methods × seeds on the colored tasks, as tables in this folder.

python benchmarks/shortcuts.py digits                 10 seeds, about 5 minutes on 2 cores
python benchmarks/shortcuts.py mnist --data-dir DIR   3 seeds × 3 conflict ratios, about 15 minutes on 2 cores

Runs lie under runs/benchmarks/ and are not repeated; each is the same as one `evenhand train` with that seed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

import evenhand as eh
from evenhand.methods import Method
from evenhand.report import write_report
from evenhand.tasks import TaskSource

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs" / "benchmarks"

ERM, OWN, PGD = eh.ERM(), eh.EDGE(), eh.PGD()


def run(name: str, title: str, tasks: list[TaskSource], methods: dict[str, Method], seeds: int) -> None:
    for task in tasks:
        for seed in range(seeds):
            for short, method in methods.items():
                folder = RUNS / name / f"{short}-conflict{getattr(task, 'conflict', '')}-seed{seed}"
                result = eh.fit(method, task, seed=seed, output_dir=folder, device="cpu")
                print(folder.name, {k: v and round(100 * v, 1) for k, v in result.metrics.items() if k != "by_group"})
    files = write_report(RUNS / name, title)
    shutil.copyfile(files.markdown, HERE / f"{name}.md")
    shutil.copyfile(files.runs_csv, HERE / f"{name}-runs.csv")
    print(f"Wrote {name}.md and {name}-runs.csv beside this script.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["digits", "mnist"])
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--seeds", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)  # such small models are as fast, and the table is the same on machines with more cores
    if given.which == "digits":
        biased = eh.EDGE(signal="biased", projection="naive", alpha=1.3)
        methods = {"erm": ERM, "edge-own": OWN, "edge-biased": biased, "pgd": PGD}
        run("colored-digits", "colored-digits, 2 % conflicting", [eh.ColoredDigits()], methods, given.seeds or 10)
    else:
        tasks: list[TaskSource] = [eh.ColoredMNIST(conflict=c, data_dir=given.data_dir) for c in (0.005, 0.01, 0.05)]
        biased = eh.EDGE(signal="biased", projection="naive", alpha=1.4)
        methods = {"erm": ERM, "edge-own": OWN, "edge-biased": biased, "pgd": PGD}
        run("colored-mnist", "colored-mnist, 0.5, 1 and 5 % conflicting", tasks, methods, given.seeds or 3)


if __name__ == "__main__":
    main()
