"""What to audit: a run, or data for which biased models are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from evenhand.auditing.records import RunRecord, find_runs
from evenhand.auditing.scoring import BiasedModels, Scoring
from evenhand.evaluation.progress import Progress
from evenhand.methods import GCE, Method
from evenhand.models.inference import Device
from evenhand.runs.configuration import Configuration
from evenhand.runs.prepared import Asked, Prepared, prepare
from evenhand.runs.recorded import recorded_adapters, recorded_task, recorded_training
from evenhand.runs.shared_stages import SharedStages
from evenhand.tasks import Task, TaskSource
from evenhand.validation import UserError

Q = 0.7  # of the biased models that an audit trains, as in the papers


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        task: The task, built.
        configuration: How its biased models are trained.
        models: The biased models of each seed, to be taken or trained.
        scoring: Which gradient scores.
        described: Where the biased models come from, in a sentence.
        folder: The audit's folder.
        notes: What a reader must know of the choice.
        device: What the user said of it.
        split: What the rows are that findings rest on: train, unless nothing was trained.
        model: What scored, where the configuration's model didn't.
        scored_by: What a score is, where it is no gradient's norm.
        command: Gives the line that trains a method, where the configuration has none.
    """

    task: Task
    configuration: Configuration
    models: list[BiasedModels]
    scoring: Scoring
    described: str
    folder: Path
    notes: tuple[str, ...] = ()
    device: Device = "auto"
    split: str = "train"
    model: str | None = None
    scored_by: str | None = None
    command: Callable[[Method], str] | None = None


def subject_of_runs(
    folder: Path,
    task: TaskSource | Task | None,
    places: Mapping[str, Any],
    output_dir: Path | None,
    asked: Asked,
    seeds: tuple[int, ...] | None,
) -> Subject:
    """A run, or runs on the same data whose seeds differ.

    Args:
        folder: The run's folder, or one with several.
        task: The data, if they were the user's own.
        places: Where the task's files lie, by the names of its options (`data_dir`, `data`, …).
        output_dir: Where the audit keeps its files; `audit` in the folder unless given.
        asked: What else was asked for.
        seeds: Seeds of biased models to train.

    Raises:
        UserError: If there is no run, a record can't be read, or the runs are of different tasks.
    """
    _check_asked(asked)
    records, notes = _alike(find_runs(folder), folder)
    first = records[0]
    recipe = recorded_task(first.record, places) if task is None else task
    built = recipe.build(first.record.data_seed) if isinstance(recipe, TaskSource) else recipe
    configuration = Configuration(
        method=GCE(q=first.biased_q or Q),
        task=recipe,
        model=first.record.model["name"],
        training=recorded_training(first.record),
        seed=first.seed,
        data_seed=first.record.data_seed,
        adapters=recorded_adapters(first.record),
        fresh=bool(first.record.model.get("fresh", False)),
    )
    _check_data(first, built, configuration)
    where = output_dir or folder / "audit"
    anew = not first.folds or seeds is not None
    _check_files(first, configuration, from_checkpoint=anew or configuration.adapters is not None)
    scoring = Scoring(first.asked.source, first.asked.norm)
    if not anew:
        taken = [_of_record(record, configuration, where) for record in records]
        each = "each asked about the part that it wasn't trained on"
        described = f"those of {'the run' if len(records) == 1 else f'{len(records)} runs'}, {each}"
        return Subject(built, configuration, taken, scoring, described, where, notes)
    if first.folds:
        notes = (*notes, "Seeds were asked for, so biased models were trained though the run has some.")
    elif first.biased_q is not None:
        notes = (
            *notes,
            "The run's own biased model was trained on every training row and may know some by heart, so it was not "
            "asked about them.",
        )
    trained = _to_train(
        configuration, seeds or tuple(record.seed for record in records), where, augment=first.asked.augment
    )
    described = _described(configuration, " and the run's settings")
    return Subject(built, configuration, trained, scoring, described, where, notes)


def subject_to_train(
    prepared: Prepared, seeds: Sequence[int], folder: Path, device: Device = "auto", shared: SharedStages | None = None
) -> Subject:
    """Data for which biased models are trained.

    Args:
        prepared: The task, and how models are trained on it.
        seeds: The biased models' seeds.
        folder: The audit's folder.
        device: What the user said of it.
        shared: Where stages lie that runs need too.
    """
    configuration = replace(prepared.configuration, method=GCE(q=Q))
    models = [replace(models, shared=shared) for models in _to_train(configuration, seeds, folder)]
    return Subject(prepared.task, configuration, models, Scoring(), _described(configuration), folder, device=device)


def subject_of_data(
    recipe: str | TaskSource | Task,
    output_dir: Path | None,
    asked: Asked,
    seeds: tuple[int, ...] | None,
    progress: Progress | None = None,
) -> Subject:
    """Data on which biased models are trained.

    Raises:
        UserError: If the task or the model is unknown.
    """
    seeds_or_one = seeds or (0,)
    prepared = prepare("audit", GCE(q=Q), recipe, replace(asked, seed=seeds_or_one[0]), progress)
    configuration, built = prepared.configuration, prepared.task
    where = output_dir or folder_of(configuration, built)
    return subject_to_train(prepared, seeds_or_one, where)


def folder_of(configuration: Configuration, task: Task) -> Path:
    """Where an audit of data lies unless the user says otherwise."""
    return Path("runs") / task.name / f"audit-{configuration.cell_hash[:8]}-data{configuration.data_seed}"


def _described(configuration: Configuration, settings: str = "") -> str:
    assert isinstance(configuration.method, GCE)
    return (
        f"trained for this audit with GCE (q = {configuration.method.q}){settings}, two for each seed: each on one "
        "half of the training rows, and asked about the other half"
    )


# ---- runs -----------------------------------------------------------------------------------------------------------


def _check_asked(asked: Asked) -> None:
    default = Asked()
    for field in fields(asked):
        if getattr(asked, field.name) != getattr(default, field.name):
            option = {"adapters": "peft", "shortcuts": "shortcut"}.get(field.name, field.name.replace("_", "-"))
            raise UserError(
                f"A run's record says how its models were trained, so --{option} can't be given beside a run."
            )


def _alike(records: list[RunRecord], folder: Path) -> tuple[list[RunRecord], tuple[str, ...]]:
    """Runs on the same data with different seeds, those with models to take first; what was left out is said."""
    tasks = sorted({record.data[0] for record in records})
    if len(tasks) > 1:
        raise UserError(
            f"The folder '{folder}' holds runs of several tasks ({', '.join(tasks)}): name the folder of one."
        )
    groups: dict[Any, list[RunRecord]] = {}
    for record in records:
        told, asked = record.record, record.asked
        model = {name: value for name, value in told.model.items() if name != "parameters"}
        scoring = str((asked.source, asked.norm))
        trained = (str(model), str(told.training), scoring, record.biased_q, asked.augment)
        groups.setdefault((record.folds, record.biased_q is not None, record.data, trained), []).append(record)
    # models to take first, then biased models of some kind, then the most seeds
    best = max(groups, key=lambda key: (key[0] > 0, key[1], len({record.seed for record in groups[key]})))
    chosen = {record.seed: record for record in groups[best]}
    found = [chosen[seed] for seed in sorted(chosen)]
    notes = []
    datas = {record.data for record in records}
    if len(datas) > 1:
        notes.append(
            f"The folder holds runs on {len(datas)} different data sets (other settings or data seeds); audited are "
            f"those with data seed {found[0].record.data_seed}. Scores of different data can't be compared sample by "
            "sample, so the agreement across seeds is defined for runs with the same data seed only."
        )
    return found, tuple(notes)


def _check_data(record: RunRecord, task: Task, configuration: Configuration) -> None:
    if task.name != record.data[0]:
        raise UserError(f"The run in '{record.folder}' is of the task '{record.data[0]}', not of '{task.name}'.")
    n = record.record.split("train").n
    if n is not None and n != len(task.train):
        raise UserError(
            f"The data don't match the run in '{record.folder}': it was trained on {n:,} samples, the data given have "
            f"{len(task.train):,}."
        )
    digest = record.record.task.settings.get("sha256")
    if isinstance(configuration.task, Task) and isinstance(digest, str) and digest not in configuration.row_digests:
        raise UserError(
            f"The data don't match the run in '{record.folder}': they hold other rows than those that it was trained "
            "and tested on, or in another order."
        )


def _check_files(record: RunRecord, configuration: Configuration, *, from_checkpoint: bool) -> None:
    """The files are those of the run, where its record tells; those of its checkpoint matter if models come of it."""
    for option, digest in record.record.digests.items():
        found = configuration.files.get(option)
        if found is None or (option == "model" and not from_checkpoint):
            continue
        if digest != found.sha256:
            what = "the model's folder" if option == "model" else "the data"
            raise UserError(f"The run in '{record.folder}' was trained on other files than {what} given now.")


def _of_record(record: RunRecord, configuration: Configuration, where: Path) -> BiasedModels:
    return BiasedModels(
        configuration=replace(configuration, seed=record.seed),
        folder=where / "models" / f"folds-seed{record.seed}",
        seed=record.seed,
        folds=record.folds,
        stages=record.folder / "stages",
        origin=record.record.configuration,
    )


def _to_train(
    configuration: Configuration, seeds: Sequence[int], where: Path, augment: bool = False
) -> list[BiasedModels]:
    return [
        BiasedModels(replace(configuration, seed=seed), where / "models" / f"folds-seed{seed}", seed, augment=augment)
        for seed in dict.fromkeys(seeds)
    ]
