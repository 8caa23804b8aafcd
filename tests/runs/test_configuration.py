"""What names a run, and what a run is made of, stay as they were: committed results are found by these hashes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from evenhand.data.rows import arrow_table
from evenhand.methods import METHODS
from evenhand.models.adapters import Adapters
from evenhand.runs.configuration import Configuration, shipped_training
from evenhand.tasks import TASKS, ColoredDigits, MarkedNotes, OwnData, Task, TaskSource

PINNED: dict[str, Any] = json.loads((Path(__file__).parent / "unmoved.json").read_text())


def task_of(name: str, table: Path) -> TaskSource:
    """The task with its defaults; own data need a file and columns."""
    return OwnData(data=str(table), text="sentence", label="label") if name == "own-data" else TASKS[name]()


def configuration(method: str, task: TaskSource, **changed: Any) -> Configuration:
    model = task.usual_model
    training = shipped_training(task, model, changed.get("adapters"), changed.get("fresh", False))
    return Configuration(
        method=METHODS[method](), task=task, model=model, training=training, seed=3, data_seed=4, **changed
    )


def hashes() -> dict[str, list[str]]:
    """Run and cell hash of each method on each task, and of the ways to train a checkpoint; files left out."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "my.csv"
        table.write_text("sentence,label\nfine,good\npoor,bad\n")
        found = {f"{m} {t}": configuration(m, task_of(t, table)) for m in METHODS for t in TASKS}
        snli = task_of("biased-snli", table)
        for kind in ("lora", "dora", "ia3", "head"):
            found[f"even biased-snli {kind}"] = configuration("even", snli, adapters=Adapters(kind=kind))
        found["even biased-snli fresh"] = configuration("even", snli, fresh=True)
        return {name: [c.former_run_hash, c.former_cell_hash] for name, c in found.items()}


def splits() -> dict[str, str]:
    """The SHA-256 of all splits of the two tasks that need no files."""
    built = {"colored-digits": ColoredDigits().build(0), "marked-notes": MarkedNotes().build(0)}
    return {name: digest(task) for name, task in built.items()}


def digest(task: Task) -> str:
    found = hashlib.sha256()
    for split in task.splits.values():
        table = arrow_table(split).replace_schema_metadata().combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        found.update(sink.getvalue())
    return found.hexdigest()


def test_configurations_keep_their_hashes() -> None:
    found = hashes()
    assert found.keys() == PINNED["hashes"].keys()
    assert {name: pair for name, pair in found.items() if pair != PINNED["hashes"][name]} == {}


def test_the_splits_without_files_stay_the_same() -> None:
    assert splits() == PINNED["splits"]


if __name__ == "__main__":  # pins what is there now: for a new task or method
    pinned = {"hashes": hashes(), "splits": splits()}
    (Path(__file__).parent / "unmoved.json").write_text(json.dumps(pinned, indent=1) + "\n")
