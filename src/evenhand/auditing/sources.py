"""What to audit: a run with its biased model, a saved classifier, or data for which biased models are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evenhand.adapters import Adapters
from evenhand.auditing.records import RunRecord, find_runs
from evenhand.auditing.scoring import BiasedModel, Scoring
from evenhand.configuration import Configuration, model_source
from evenhand.methods import GCE
from evenhand.saved_models import load_model
from evenhand.tasks import TASKS, Task, TaskSource
from evenhand.training import ADAPTER_TUNING, FINE_TUNING, Training
from evenhand.validation import UserError, unknown_name

Q = 0.7  # of the biased models that an audit trains, as in the papers


@dataclass(frozen=True)
class Options:
    """What the user asks of the biased models; None leaves it to the run, or to the task."""

    model: str | None
    seeds: tuple[int, ...] | None
    data_seed: int | None
    epochs: int | None
    lr: float | None
    batch_size: int | None
    adapters: Adapters | None


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        task: The task, built.
        configuration: How its biased models are trained.
        models: The biased models, to be taken or trained.
        scoring: Which gradient scores.
        described: Where the biased models come from, in a sentence.
        folder: The audit's folder.
        notes: What a reader must know of the choice.
    """

    task: Task
    configuration: Configuration
    models: list[BiasedModel]
    scoring: Scoring
    described: str
    folder: Path
    notes: tuple[str, ...] = ()


def subject_of_runs(
    folder: Path,
    task: TaskSource | Task | None,
    places: Mapping[str, Any],
    output_dir: Path | None,
    options: Options,
) -> Subject:
    """A run, or runs on the same data whose seeds differ.

    Args:
        folder: The run's folder, or one with several.
        task: The data, if they were the user's own.
        places: Where the task's files lie, by the names of its options (`data_dir`, `data`, …).
        output_dir: Where the audit keeps its files; `audit` in the folder unless given.
        options: What else was asked for.

    Raises:
        UserError: If there is no run, a record can't be read, or the runs are of different tasks.
    """
    given = {"--model": options.model, "--epochs": options.epochs, "--lr": options.lr, "--peft": options.adapters}
    given |= {"--batch-size": options.batch_size, "--data-seed": options.data_seed}
    clash = next((name for name, value in given.items() if value is not None), None)
    if clash is not None:
        raise UserError(f"A run's record says how its models were trained, so {clash} can't be given beside a run.")
    records, notes = _alike(find_runs(folder), folder)
    first = records[0]
    recipe = first.task_source(places) if task is None else task
    built = recipe.build(first.data_seed) if isinstance(recipe, TaskSource) else recipe
    _check_data(first, built)
    configuration = Configuration(
        method=GCE(q=Q),
        task=recipe,
        model=first.raw["model"]["name"],
        training=first.training(),
        seed=first.seed,
        data_seed=first.data_seed,
        adapters=first.adapters(),
        fresh=first.raw["model"].get("fresh", False),
    )
    where = output_dir or folder / "audit"
    with_models = [record for record in records if record.biased_model is not None]
    anew = not with_models or options.seeds is not None
    _check_files(first, configuration, from_checkpoint=anew or configuration.adapters is not None)
    notes = (*notes, *_built_otherwise(first, configuration))
    if anew:
        if with_models:
            notes = (*notes, "Seeds were asked for, so biased models were trained though the run has one.")
        seeds = options.seeds or tuple(record.seed for record in records)
        described = f"trained for this audit with GCE (q = {Q}) and the run's settings"
        trained = _to_train(configuration, seeds, where)
        return Subject(built, configuration, trained, Scoring(), described, where, notes)
    scoring, models = _of_records(with_models, configuration, built, where)
    described = f"the biased model of {'the run' if len(models) == 1 else f'{len(models)} runs'}"
    return Subject(built, configuration, models, scoring, described, where, notes)


def subject_of_data(recipe: str | TaskSource | Task, output_dir: Path | None, options: Options) -> Subject:
    """Data: a saved classifier on them, or biased models to be trained on them.

    Raises:
        UserError: If the task or the model is unknown.
    """
    if isinstance(recipe, str):
        if recipe not in TASKS:
            raise unknown_name("task", recipe, TASKS)
        recipe = TASKS[recipe]()
    seeds = options.seeds or (0,)
    data_seed = seeds[0] if options.data_seed is None else options.data_seed
    built = recipe.build(data_seed) if isinstance(recipe, TaskSource) else recipe
    model = options.model or (recipe.usual_model if isinstance(recipe, TaskSource) else None)
    if model is None:
        raise UserError("The 'model' parameter of audit must be given for a task of your own.")
    if (Path(model) / "record.json").exists() and (Path(model) / "model").is_dir():
        raise UserError(f"The folder '{model}' is a run, not a model: give it without --model, or its 'model' folder.")
    model_source(model, built, options.adapters).config()  # an unknown or unfitting model is refused here
    saved = _classifier(model, built) if options.adapters is None else None
    configuration = Configuration(
        method=GCE(q=Q),
        task=recipe,
        model=model,
        training=_training(recipe, model, options, taken=saved is not None),
        seed=seeds[0],
        data_seed=data_seed,
        adapters=options.adapters,
    )
    where = output_dir or Path("runs") / built.name / f"audit-{configuration.cell_hash[:8]}-data{data_seed}"
    if saved is None:
        described = f"trained for this audit with GCE (q = {Q})"
        return Subject(built, configuration, _to_train(configuration, seeds, where), Scoring(), described, where)
    for name in ("seeds", "epochs", "lr", "batch_size"):
        if getattr(options, name) is not None:
            raise UserError(
                f"The model '{model}' is a trained classifier and is taken as it is, so '{name}' can't be given: name "
                "a checkpoint or an architecture to have biased models trained."
            )
    taken = BiasedModel(
        configuration, where / "models" / "given", None, partial(load_model, saved), origin=_digest(saved)
    )
    described = f"the classifier in '{saved}', taken as the biased model"
    notes = ("The model was taken as it is; how far it relies on a shortcut depends on how it was trained.",)
    return Subject(built, configuration, [taken], Scoring(), described, where, notes)


# ---- runs -----------------------------------------------------------------------------------------------------------


def _alike(records: list[RunRecord], folder: Path) -> tuple[list[RunRecord], tuple[str, ...]]:
    """Runs on the same data with different seeds, those with biased models first; what was left out is said."""
    tasks = sorted({record.data[0] for record in records})
    if len(tasks) > 1:
        raise UserError(
            f"The folder '{folder}' holds runs of several tasks ({', '.join(tasks)}): name the folder of one."
        )
    groups: dict[Any, list[RunRecord]] = {}
    for record in records:
        scored = (record.method["settings"].get("source", "head"), record.method["settings"].get("norm", "l2"))
        key = (record.data, record.raw["model"]["name"], str(record.raw["training"]), str(scored))
        groups.setdefault((key, record.biased_model is not None), []).append(record)
    # most seeds first, those with a biased model before the others
    best = max(groups, key=lambda key: (key[1], len({record.seed for record in groups[key]})))
    chosen = {record.seed: record for record in sorted(groups[best], key=lambda r: r.scores is not None)}
    found = [chosen[seed] for seed in sorted(chosen)]
    notes = []
    datas = {record.data for record in records}
    if len(datas) > 1:
        notes.append(
            f"The folder holds runs on {len(datas)} different data sets (other settings or data seeds); audited are "
            f"those with data seed {found[0].data_seed}. Scores of different data can't be compared sample by sample, "
            "so the agreement across seeds is defined for runs with the same data seed only."
        )
    return found, tuple(notes)


def _check_data(record: RunRecord, task: Task) -> None:
    told = record.raw["data"].get("train")
    n = told.get("n") if isinstance(told, dict) else None
    if n is not None and n != len(task.train):
        raise UserError(
            f"The data don't match the run in '{record.folder}': it was trained on {n:,} samples, the data given have "
            f"{len(task.train):,}."
        )
    if task.name != record.data[0]:
        raise UserError(f"The run in '{record.folder}' is of the task '{record.data[0]}', not of '{task.name}'.")


def _check_files(record: RunRecord, configuration: Configuration, *, from_checkpoint: bool) -> None:
    """The files are those of the run, where its record tells; those of its checkpoint matter if models come of it."""
    for option, told in (record.raw.get("files") or {}).items():
        found = configuration.files.get(option)
        if told is None or found is None or (option == "model" and not from_checkpoint):
            continue
        if told["sha256"] != found.sha256:
            what = "the model's folder" if option == "model" else "the data"
            raise UserError(f"The run in '{record.folder}' was trained on other files than {what} given now.")


def _built_otherwise(record: RunRecord, configuration: Configuration) -> tuple[str, ...]:
    """A note where a task that the user built isn't the one of the record; its training rows may be the same."""
    told = record.raw["task"]["settings"].get("sha256")
    if not isinstance(configuration.task, Task) or told is None or told in configuration.row_digests:
        return ()
    return ("The data given aren't all as they were when the run was trained: rows, classes or test sets differ.",)


def _of_records(
    records: list[RunRecord], configuration: Configuration, task: Task, where: Path
) -> tuple[Scoring, list[BiasedModel]]:
    settings = records[0].method["settings"]
    # scores of augmented images or of a run without any are computed again
    clean = settings.get("score_on", "clean") == "clean"
    scoring = Scoring(settings.get("source", "head"), settings.get("norm", "l2"))
    source = model_source(configuration.model, task, configuration.adapters)
    models = []
    for record in records:
        folder = record.biased_model
        assert folder is not None
        models.append(
            BiasedModel(
                configuration=_seeded(configuration, record.seed),
                folder=where / "models" / f"seed{record.seed}",
                seed=record.seed,
                load=partial(source.load, folder),
                scores=record.scores if clean else None,
                origin=str(record.raw.get("configuration")),
            )
        )
    return scoring, models


def _seeded(configuration: Configuration, seed: int) -> Configuration:
    return replace(configuration, seed=seed)


def _to_train(configuration: Configuration, seeds: Sequence[int], where: Path) -> list[BiasedModel]:
    return [
        BiasedModel(_seeded(configuration, seed), where / "models" / f"seed{seed}", seed)
        for seed in dict.fromkeys(seeds)
    ]


# ---- data -----------------------------------------------------------------------------------------------------------


def _training(recipe: TaskSource | Task, model: str, options: Options, taken: bool) -> Training:
    if taken or isinstance(recipe, Task):
        shipped = FINE_TUNING if options.adapters is None else ADAPTER_TUNING
    else:
        shipped = recipe.training_for(model, options.adapters is not None)
    return shipped.replaced(options.epochs, options.lr, options.batch_size)


def _classifier(model: str, task: Task) -> Path | None:
    """The folder of a saved classifier with the task's classes; None for a name or a checkpoint without such a head."""
    folder = Path(model)
    if not (folder / "config.json").exists():
        return None
    try:
        loaded = load_model(folder)
    except UserError:
        return None  # a checkpoint that is no classifier yet: biased models start from it
    if loaded.config.num_labels != len(task.label_names):
        raise UserError(
            f"The model '{model}' has {loaded.config.num_labels} classes, but the task '{task.name}' has "
            f"{len(task.label_names)}."
        )
    return folder


def _digest(folder: Path) -> str:
    """Names the model by its weights."""
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
