"""What the tests of studies share: a quick study, and its tables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from evenhand.runs.ledger import runs_of_study

QUICK = """
task: colored-digits
model: mlp
training: {epochs: 1}
seeds: SEEDS
cells:
  - method: erm
  - method: gce
  - {method: pgd, grid: {method.source: [head, all]}}
"""


def write_quick(folder: Path, seeds: int | str, extra: str = "") -> Path:
    """A study of four cells; ERM and GCE are stages of none other but PGD's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "quick.yaml"
    path.write_text(QUICK.replace("SEEDS", str(seeds)) + extra, encoding="utf-8")
    return path


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record of a study's folder, in the order of the hashes."""
    return [run.raw for run in runs_of_study(folder)]


def tables(folder: Path) -> dict[str, bytes]:
    """The tables in a folder that are the same whenever a study is run; times are not, and what needs predictions."""
    paths = sorted((folder / "tables").iterdir())
    return {path.name: path.read_bytes() for path in paths if path.name not in ("cost.csv", "changed.csv")}


def start(file: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """`evenhand study` in a process of its own, with one thread, as in the tests: more would round differently."""
    return subprocess.Popen(
        [sys.executable, "-m", "evenhand", "study", str(file), *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # a shell's background job is started with Ctrl-C ignored, which a process hands down to its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def kill_9(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Kill the study alone, as a full memory would; returns the processes that it had."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return children
