"""One run of one method on one task: stages on disk, resumed where they ended, and the record.

Legend: N training samples.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from evenhand.evaluation.progress import Progress
from evenhand.files import LOCK, alone_in, check_place
from evenhand.methods.base import Method
from evenhand.metrics import GroupAccuracy
from evenhand.models.adapters import AdapterKind, Adapters, adapters_of
from evenhand.models.inference import Device, check_separate, ready, torch_device
from evenhand.models.saved import load_model
from evenhand.runs.configuration import FILES_UNKNOWN, Configuration
from evenhand.runs.differences import differences_text
from evenhand.runs.finish import finish, is_done
from evenhand.runs.new_data import keep_train_rows
from evenhand.runs.prepared import Asked, Prepared, prepare
from evenhand.runs.record import Record
from evenhand.runs.shared_stages import SharedStages
from evenhand.runs.stored_run import StoredRun
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.several import given_rules
from evenhand.tasks import Task, TaskSource
from evenhand.training.processes import Team, process_of, share_of
from evenhand.training.stage import untouched_surroundings
from evenhand.validation import UserError, check_file_name, check_path


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        model: The debiased model, in eval mode.
        metrics: Metrics of the primary test set: "average", "average_train_weighted", "worst_group", "aligned",
            "conflicting" (fractions of 1, None where undefined) and "by_group"; "worst_group_name", "worst_group_n",
            "worst_group_interval" and "small_groups" (those under 20 samples together), which older runs lack.
        scores: The training samples' gradient norms, shape (N,); None for methods that compute none.
        record: Everything in record.json.
        folder: Where the run lies.
    """

    model: PreTrainedModel
    metrics: dict[str, Any]
    scores: NDArray[np.float64] | None
    record: dict[str, Any]
    folder: Path

    @property
    def groups(self) -> GroupAccuracy:
        """Accuracy by group on the primary test set: `by_group`, `group_min()`, `difference()` as in Fairlearn."""
        return GroupAccuracy(self.metrics["average"], self.metrics["by_group"])


def fit(
    method: Method,
    task: str | TaskSource | Task,
    model: str | None = None,
    *,
    seed: int = 0,
    data_seed: int | None = None,
    output_dir: Path | str | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    bf16: bool = False,
    peft: Adapters | AdapterKind | None = None,
    fresh: bool = False,
    shortcuts: Iterable[Rule | str] | Rule | str = (),
    device: Device = "auto",
    progress: Progress | None = None,
) -> Result:
    """Run a whole method, stage by stage, and evaluate it.

    Every stage is stored as it finishes and is never trained again: a run that was killed goes on from its last
    finished stage, with the same result. A finished run is returned as it is. Launched as several processes (torchrun,
    accelerate launch) it trains each batch on all of them together; every process must call it, and all get the result.

    Args:
        method: The method with its hyper-parameters.
        task: A task by name, with its settings (`ColoredDigits(conflict=0.05)`), or built by yourself.
        model: A model by name (`mlp`, `MiniLM`, …), a folder, or a hub name; the task's own default if None.
        seed: Drives initialisation, order and dropout.
        data_seed: Drives the data's construction; the same as `seed` if None.
        output_dir: The run's folder; runs/<task>/<method>-<cell>-seed<seed> if None.
        epochs: Epochs a stage, in place of those shipped with the task and model.
        lr: Learning rate, likewise.
        batch_size: Samples a step, likewise.
        bf16: Train under autocast to bfloat16; weights and evaluation stay in float32.
        peft: Train adapters and the head on a frozen checkpoint: `lora`, `dora`, `ia3`, or `Adapters` with settings;
            `head` trains the head alone. The final `model/` has adapters merged; `adapter/` holds them alone.
        fresh: Take the checkpoint's architecture only: all weights are random at first.
        shortcuts: Shortcuts that have a name, one or several, by their spellings (`token:nimbus`, `column:product`) or
            from Python: the model is measured by them, and methods that need a name train against them.
        device: `auto` takes a GPU if there is one.
        progress: Receives how far each stage is, and if it has a method `data`, the task before anything is trained.

    Returns:
        The model, its metrics, the scores, and the record.

    Raises:
        UserError: If something given is wrong; nothing has been trained or written then.
        StageError: If a stage diverged; the record says so.
    """
    if output_dir is not None:
        check_path(output_dir)
    place = torch_device(device)
    named = given_rules(shortcuts)
    asked = Asked(model, seed, data_seed, epochs, lr, batch_size, bf16, adapters_of(peft), fresh, named)
    run = prepare("fit", method, task, asked, progress)
    folder = Path(output_dir) if output_dir is not None else default_folder(run.configuration)
    carry_out(run, folder, place, progress)
    with untouched_surroundings():
        return _result(folder, place, run.configuration)


def carry_out(
    prepared: Prepared,
    folder: Path,
    device: torch.device,
    progress: Progress | None = None,
    shared: SharedStages | None = None,
) -> None:
    """Check that a run can be written, then go on with it to its end; its record lies in `folder` then.

    Args:
        prepared: The run.
        folder: Its folder.
        device: Where to train.
        progress: Receives how far each stage is.
        shared: Where stages lie that other runs need too.

    Raises:
        UserError: If the folder is taken or can't hold the run, or weights can't be loaded.
        StageError: If a stage diverged; the record says so.
    """
    configuration, source = prepared.configuration, prepared.source
    rank, processes = process_of(device)
    share_of(configuration.training.batch_size, processes)
    _check_folder(folder, configuration)
    team = Team(rank, processes, folder)
    with untouched_surroundings(), team.own_folder() as own:
        told = progress if rank == 0 else None
        run = StoredRun(configuration, prepared.task, source, own, device, told, shared, team)
        if is_done(run):
            return
        if not source.starts_random:
            # weights that can't be loaded or scored are refused here
            check_separate(source.pretrained(configuration.seed).eval())
        _check_space(own, run)
        with alone_in(own):
            finish(run)
            if rank == 0:
                keep_train_rows(own, configuration, prepared.task)


def _result(folder: Path, device: torch.device, configuration: Configuration) -> Result:
    """A finished run, read back from its folder."""
    scores = folder / "stages" / "scores" / "scores.npy"
    record = Record.load(folder / "record.json").raw
    if configuration.has_unknown_files(record):
        record["notes"] = [*record.get("notes", []), FILES_UNKNOWN]
    return Result(
        model=ready(load_model(model_folder(folder)), device),
        metrics=record["metrics"],
        scores=np.load(scores) if scores.exists() else None,
        record=record,
        folder=folder,
    )


def model_folder(run: Path) -> Path:
    """Where a finished run's model lies.

    Raises:
        UserError: If the model is gone.
    """
    if not (run / "model").is_dir():
        raise UserError(
            f"The run in '{run}' has no folder 'model' (a study keeps models with keep_models: true only): delete "
            "the run's folder and repeat the run."
        )
    return run / "model"


def default_folder(configuration: Configuration) -> Path:
    """runs/<task>/<method>-<cell>-seed<seed>, where a run lies unless told otherwise."""
    seeds = f"seed{configuration.seed}"
    if configuration.data_seed != configuration.seed:
        seeds += f"-data{configuration.data_seed}"
    task, run = configuration.task.name, f"{configuration.method.name}-{configuration.cell_hash[:8]}-{seeds}"
    for what, name in (("the task's", task), ("the run's", run)):
        check_file_name(what, name, "say with output_dir where the run shall lie")
    return Path("runs") / task / run


# ---- checks before anything is written ------------------------------------------------------------------------------


def _check_folder(folder: Path, configuration: Configuration) -> None:
    """The folder is free, or holds this very run."""
    if not os.access(folder, os.F_OK):
        check_place(folder / "record.json")
        return
    if not folder.is_dir():
        raise UserError(f"The output folder '{folder}' is a file.")
    path = folder / "record.json"
    if not path.exists():
        # what a run that was killed before its first record leaves
        if any(entry.name not in (LOCK, ".writable") and entry.suffix != ".partial" for entry in folder.iterdir()):
            raise UserError(f"The output folder '{folder}' is not empty and holds no run: choose another one.")
        return
    try:
        found = Record.load(path)
    except UserError as error:
        told = str(error).rstrip(".")
        raise UserError(f"The file '{path}' is no record of a run ({told}): choose another folder.") from error
    record = found.raw
    same = configuration.is_record(record)
    if same and not found.is_done and configuration.has_unknown_files(record):
        raise UserError(
            f"The output folder '{folder}' holds an unfinished run whose record doesn't say which files it reads, so "
            "it can't go on: choose another one."
        )
    if not same:
        raise UserError(
            f"The output folder '{folder}' holds a run of {_difference(record, configuration)}: choose another one."
        )


def _difference(record: dict[str, Any], configuration: Configuration) -> str:
    """In what a folder's run is another one: in files that are read, or in something else."""
    bare = [{k: v for k, v in found.items() if k != "files"} for found in (record, configuration.as_dict())]
    parts = ("method", "task", "training", "seed", "data_seed")
    if all(bare[0].get(part) == bare[1].get(part) for part in parts) and record.get("files"):
        ours = configuration.files_as_recorded()
        for option, told in record["files"].items():
            if (told or {}).get("sha256") != (ours.get(option) or {}).get("sha256"):
                return f"other files (--{option.replace('_', '-')})"
    told = differences_text(record, configuration.as_dict())
    return f"another configuration ({told or 'other data'}; stored → asked)"


def _check_space(folder: Path, run: StoredRun) -> None:
    """What the run will write must fit on the disk: what each stage trains, the final model twice, some megabytes."""
    stages = run.configuration.method.models_trained() * run.parameters
    needed = 4 * (stages + 2 * run.source.parameter_count(trainable=False)) + 10_000_000
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"The run needs {needed / 1e6:.0f} MB in '{folder}', but only {free / 1e6:.0f} MB are free there."
        )
