"""One run of one method on one task: stages on disk, resumed where they ended, and the record.

Legend: N training samples.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from evenhand.evaluation.progress import Progress
from evenhand.methods.base import Method
from evenhand.metrics import GroupAccuracy
from evenhand.models.adapters import AdapterKind, Adapters, adapters_of
from evenhand.models.inference import ready
from evenhand.models.saved import load_model
from evenhand.models.source import ModelSource
from evenhand.runs.configuration import FILES_UNKNOWN, Configuration
from evenhand.runs.differences import differences_text
from evenhand.runs.new_data import keep_train_rows
from evenhand.runs.prepared import Asked, prepare
from evenhand.runs.record import read_json
from evenhand.runs.shared_stages import SharedStages
from evenhand.runs.stored_run import StoredRun
from evenhand.tasks import Task, TaskSource
from evenhand.training.processes import Team, process_of, share_of
from evenhand.training.stage import untouched_surroundings
from evenhand.validation import UserError, check_file_name, check_path, check_seed

Device = Literal["auto", "cpu", "cuda"]


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
    device: Device = "auto",
    progress: Progress | None = None,
) -> Result:
    """Run a whole method, stage by stage, and evaluate it.

    Launched as several processes (torchrun, accelerate launch) it trains each batch on all of them together; every
    process must call it, and all get the result.

    Every stage is stored as it finishes and is never trained again: a run that was killed goes on from its last
    finished stage, with the same result. A finished run is returned as it is.

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
            `head` trains the head alone. The final `model/` has adapters merged into its weights; `adapter/` holds
            them alone.
        fresh: Take the checkpoint's architecture only: all weights are random at first.
        device: `auto` takes a GPU if there is one.
        progress: Is told how far each stage is, and if it has a method `data`, the task before anything is trained.

    Returns:
        The model, its metrics, the scores, and the record.

    Raises:
        UserError: If something given is wrong; nothing has been trained or written then.
        StageError: If a stage diverged; the record says so.
    """
    if not isinstance(method, Method):
        raise UserError(f"The 'method' parameter of fit must be a method such as evenhand.PGD(). Got {method!r}.")
    check_seed("fit", "seed", seed)
    if data_seed is not None:
        check_seed("fit", "data_seed", data_seed)
    if output_dir is not None:
        check_path(output_dir)
    place = torch_device(device)
    asked = Asked(
        model=model,
        seed=seed,
        data_seed=data_seed,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        bf16=bf16,
        adapters=adapters_of(peft),
        fresh=fresh,
    )
    prepared = prepare("fit", method, task, asked, progress)
    folder = Path(output_dir) if output_dir is not None else default_folder(prepared.configuration)
    carry_out(prepared.configuration, prepared.task, prepared.source, folder, place, progress)
    with untouched_surroundings():
        return _result(folder, place, prepared.configuration)


def carry_out(
    configuration: Configuration,
    task: Task,
    source: ModelSource,
    folder: Path,
    device: torch.device,
    progress: Progress | None = None,
    shared: SharedStages | None = None,
) -> None:
    """Check that a run can be written, then go on with it to its end; its record lies in `folder` then.

    Args:
        configuration: What is run.
        task: The task, built.
        source: Where models come from.
        folder: The run's folder.
        device: Where to train.
        progress: Is told how far each stage is.
        shared: Where stages lie that other runs need too.

    Raises:
        UserError: If the folder is taken or can't hold the run, or weights can't be loaded.
        StageError: If a stage diverged; the record says so.
    """
    rank, processes = process_of(device)
    share_of(configuration.training.batch_size, processes)
    _check_folder(folder, configuration)
    team = Team(rank, processes, folder)
    with untouched_surroundings(), team.own_folder() as own:
        run = StoredRun(configuration, task, source, own, device, progress if rank == 0 else None, shared, team)
        if not run.is_done:
            if not source.starts_random:
                source.pretrained(configuration.seed)  # weights that can't be loaded are refused here
            _check_space(own, run)
            _make_folder(own)
            run.finish()
            if rank == 0:
                keep_train_rows(own, configuration, task)


def _result(folder: Path, device: torch.device, configuration: Configuration) -> Result:
    """A finished run, read back from its folder."""
    scores = folder / "stages" / "scores" / "scores.npy"
    record = read_json(folder / "record.json")
    if configuration.has_unknown_files(record):
        record["notes"] = [*record.get("notes", []), FILES_UNKNOWN]
    return Result(
        model=ready(load_model(folder / "model"), device),
        metrics=record["metrics"],
        scores=np.load(scores) if scores.exists() else None,
        record=record,
        folder=folder,
    )


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


def torch_device(device: Device) -> torch.device:
    """The device that a run is trained on.

    Raises:
        UserError: If it is unknown, or a GPU is asked for and there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"The 'device' parameter of fit must be one of auto, cpu, cuda. Got {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("The device 'cuda' was asked for, but torch sees no GPU: use 'cpu' or 'auto'.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _check_folder(folder: Path, configuration: Configuration) -> None:
    """The folder is free, or holds this very run."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"The output folder '{folder}' is a file.")
    path = folder / "record.json"
    if not path.exists():
        # what a run that was killed before its first record leaves
        if {entry.name for entry in folder.iterdir()} - {".writable", ".record.json.partial"}:
            raise UserError(f"The output folder '{folder}' is not empty and holds no run: choose another one.")
        return
    try:
        record = read_json(path)
        same, done = configuration.is_record(record), record["status"] == "done"
        unknown = same and configuration.has_unknown_files(record)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"The file '{path}' is no record of a run ({error}): choose another folder.") from error
    if unknown and not done:
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"The output folder '{folder}' can't be written to ({error.strerror}).") from error
