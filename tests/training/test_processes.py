"""One run on two processes, started as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evenhand.training.processes import share_of
from evenhand.validation import UserError

# 1,100 training images in batches of 50: no process is given an image twice to fill its last batch
OPTIONS = [
    "--task",
    "colored-digits",
    "--epochs",
    "1",
    "--batch-size",
    "50",
    "--device",
    "cpu",
    "--quiet",
    "--output-dir",
]
METHODS = {
    "pgd": ["pgd", "--source", "all"],
    "edge": ["edge", "--signal", "biased", "--projection", "tensor", "--alpha", "8"],
}


def launched(words: list[str], folder: Path, processes: int) -> subprocess.CompletedProcess[str]:
    launcher = [] if processes == 1 else ["torch.distributed.run", "--nproc-per-node", str(processes), "-m", "--"]
    command = [sys.executable, "-m", *launcher, "evenhand", "train", *words, *OPTIONS, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_leave_what_one_leaves(name: str, tmp_path: Path) -> None:
    for folder, processes in (("one", 1), ("two", 2)):
        done = launched(METHODS[name], tmp_path / folder, processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Result: ") == 1
    one, two = (json.loads((tmp_path / name / "record.json").read_text()) for name in ("one", "two"))
    assert two["status"] == "done"
    assert two["configuration"] == one["configuration"]
    assert [stage["steps"] for stage in two["stages"] if "steps" in stage] == [22, 22]
    files = sorted(str(p.relative_to(tmp_path / "one")) for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert sorted(str(p.relative_to(tmp_path / "two")) for p in (tmp_path / "two").rglob("*") if p.is_file()) == files
    weights = [load_file(tmp_path / folder / "model" / "model.safetensors") for folder in ("one", "two")]
    for key, expected in weights[0].items():
        torch.testing.assert_close(weights[1][key], expected, rtol=1e-3, atol=1e-4)
    if name != "pgd":
        return
    # what is done isn't done again, and what is missing is
    written = (tmp_path / "two" / "record.json").stat().st_mtime_ns
    assert launched(METHODS[name], tmp_path / "two", 2).returncode == 0
    assert (tmp_path / "two" / "record.json").stat().st_mtime_ns == written
    record = two | {"status": "running"}
    (tmp_path / "two" / "record.json").write_text(json.dumps(record))
    first = (tmp_path / "two" / "stages" / "biased" / "stage.json").stat().st_mtime_ns
    assert launched(METHODS[name], tmp_path / "two", 2).returncode == 0
    again = json.loads((tmp_path / "two" / "record.json").read_text())
    assert again["metrics"] == two["metrics"]
    assert (tmp_path / "two" / "stages" / "biased" / "stage.json").stat().st_mtime_ns == first


def test_a_batch_must_be_shared_evenly() -> None:
    assert share_of(64, 4) == 16
    with pytest.raises(UserError, match=r"a multiple of the 3 processes\. Got 64"):
        share_of(64, 3)
