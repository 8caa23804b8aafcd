"""`evenhand.audit`: does my data hold a shortcut, which samples go against it, what to do.

Legend: N training samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from evenhand.auditing.advice import advise, command
from evenhand.auditing.confirmed import data_identity
from evenhand.auditing.detection import agreement, class_views, detection, order
from evenhand.auditing.hints import Hint, find_hints
from evenhand.auditing.labels import NO_OPPOSITES, NO_SUSPECTS, find_opposites, find_suspects
from evenhand.auditing.result import Audit
from evenhand.auditing.scoring import Answers, Scored, score_all
from evenhand.auditing.sources import Subject, subject_of_data, subject_of_runs
from evenhand.auditing.untrained import Request, WithoutTraining, without_training
from evenhand.data.columns import column_values, membership
from evenhand.data.rows import arrow_table
from evenhand.evaluation.progress import Progress
from evenhand.files import check_place
from evenhand.models.adapters import AdapterKind, Adapters, adapters_of
from evenhand.models.inference import Device, torch_device
from evenhand.runs.prepared import Asked
from evenhand.runs.record import now
from evenhand.shortcuts.coding import Rule
from evenhand.shortcuts.several import given_rules
from evenhand.tasks import Task, TaskSource
from evenhand.validation import MOST_SEEDS, UserError, check_seed, check_within
from evenhand.wording import listed


def audit(
    what: Any,
    model: str | Path | nn.Module | None = None,
    *,
    task: TaskSource | Task | None = None,
    places: Mapping[str, Path | str] | None = None,
    seeds: int | Sequence[int] | None = None,
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
    **given: Unpack[WithoutTraining],
) -> Audit:
    """Score rows by how far they go against biased models, and look for what those with high scores have in common.

    Biased models are those of a run of Even, or trained here with GCE, and each is asked about the half that it wasn't
    trained on. A classifier (`model`), its `predictions` or `scores` are taken as they are, and nothing is trained.
    What was trained or computed stays in the audit's folder: an audit that was stopped goes on.

    Args:
        what: A run's folder, or one of runs on the same data; a task by name, with its settings, or built by yourself;
            or plain data with `labels`: texts, pixels (N, C, H, W) as uint8, pictures' paths, or a table.
        model: For a task or plain data: a classifier, saved or live. For a task also what biased models start from.
        task: For a run on data of your own: these data.
        places: For a run: where its task's files lie, by the task's own options, as `{"data_dir": folder}`.
        seeds: How many pairs of biased models are trained on the same data, or their seeds; one by default.
        data_seed: Drives the data's construction; the first seed if None.
        output_dir: The audit's folder; `audit` in the run's, or runs/<task>/audit-… .
        epochs: Epochs of a biased model, as of `fit`.
        lr: Learning rate, likewise.
        batch_size: Samples a step, likewise.
        bf16: Train under autocast to bfloat16.
        peft: Train adapters and the head on a frozen checkpoint.
        fresh: Take the checkpoint's architecture only.
        shortcuts: For a task: shortcuts that have a name; how the samples stand to them is told, found or not.
        device: `auto` takes a GPU if there is one.
        progress: Receives how far each training is.
        given: What an audit without training takes: `predictions`, `scores`, `labels`, … (`WithoutTraining`).

    Raises:
        UserError: If something given is wrong, or scores don't belong to the data.
    """
    place, of_runs, named = torch_device(device), {"task": task, "places": places}, given_rules(shortcuts)
    name = str(model) if isinstance(model, str | Path) else None
    asked = Asked(name, 0, data_seed, epochs, lr, batch_size, bf16, adapters_of(peft), fresh, named)
    folder = _checked_folder(output_dir)
    request = Request(what, model, given, asked, _seeds(seeds), of_runs, folder, progress)
    found = without_training(request, place)
    subject = replace(_subject(request, task, places) if found is None else found[0], device=device)
    check_place(subject.folder / "audit.json")
    scored = score_all(subject.models, subject.task, subject.scoring, place, progress) if found is None else found[1]
    return audited(subject, scored)


def _checked_folder(output_dir: Path | str | None) -> Path | None:
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None and os.access(folder, os.F_OK) and not folder.is_dir():
        raise UserError(f"The output folder '{folder}' is a file.")
    return folder


def _subject(request: Request, task: TaskSource | Task | None, places: Mapping[str, Path | str] | None) -> Subject:
    """What is audited with biased models: a task, or else runs."""
    if request.is_task:
        if task is not None or places is not None:
            raise UserError("The 'task' and 'places' parameters of audit go with a run: give a task its own settings.")
        return subject_of_data(request.what, request.folder, request.asked, request.seeds, request.progress)
    return subject_of_runs(Path(request.what), task, places or {}, request.folder, request.asked, request.seeds)


def audited(subject: Subject, scored: Scored) -> Audit:
    """Everything that follows from the scores."""
    task, answers = subject.task, scored.train
    score_N, predicted_N = answers.mean, answers.predicted
    label_N = column_values(task.train, "labels")
    hint = find_hints(task, score_N, np.full(len(label_N), -1) if predicted_N is None else predicted_N)
    opposites, suspects = NO_OPPOSITES, NO_SUSPECTS
    if answers.probability_NC is not None:
        opposites = find_opposites(score_N, answers.probability_NC, label_N, hint)
        suspects = find_suspects(score_N, answers.probability_NC, label_N, hint)
    commanded = subject.command or partial(command, configuration=subject.configuration, device=subject.device)
    conflicting_N = membership(task.train, "alignment").get("conflicting")
    scoring = f"{subject.scoring.norm} norm of the gradient, source {subject.scoring.source}"
    return Audit(
        task=task,
        model=subject.configuration.model if subject.model is None else subject.model,
        described=subject.described,
        seeds=scored.seeds,
        data_seed=subject.configuration.data_seed,
        scored_by=subject.scored_by or scoring,
        frame=_frame(subject, scored, label_N, hint, suspects.rows),
        hint=hint,
        agreement=agreement(answers.score_SN),
        detection=None if conflicting_N is None else detection(score_N, conflicting_N),
        classes=class_views(score_N, label_N, predicted_N, task.label_names),
        opposites=opposites,
        suspects=suspects,
        advice=advise(hint, opposites, commanded, task.kind),
        notes=(*task.notes, *_named_notes(task), *subject.notes, *_id_notes(task.train), *_elsewhere_notes(scored)),
        folder=subject.folder,
        made=now(),
        data=data_identity(subject.configuration.as_dict()["task"]["settings"], subject.configuration.files),
    )


def _frame(
    subject: Subject, scored: Scored, label_N: NDArray[np.int64], hint: Hint, suspect_rows: NDArray[np.int64]
) -> pd.DataFrame:
    """The training samples, and after them the rows of the other splits; what is tested and found is of the first."""
    task, samples = subject.task, len(label_N)
    train = _of_split(task, subject.split, task.train, scored.train, scored.seeds, samples)
    pointed = [task.label_names[label] if label >= 0 else None for label in hint.pointed(samples)]
    place = list(train.columns).index("rank") + 1
    train.insert(place, "shortcut_points_to", np.array(pointed, dtype=object))
    train.insert(place + 1, "suspect_label", pd.array(np.isin(np.arange(samples), suspect_rows), dtype="boolean"))
    splits, seeds = task.splits, scored.seeds
    others = [_of_split(task, name, splits[name], of, seeds, samples) for name, of in scored.elsewhere.items()]
    return pd.concat([train, *others], ignore_index=True)


def _of_split(
    task: Task, name: str, split: datasets.Dataset, answers: Answers, seeds: tuple[int | None, ...], samples: int
) -> pd.DataFrame:
    """The rows of a split; `samples` are those of the training split, whose mean score is the unit."""
    label_N, rows = column_values(split, "labels"), np.arange(len(split))
    score_N, predicted_N, probability_NC = answers.mean, answers.predicted, answers.probability_NC
    names, unknown_N = np.array(task.label_names, dtype=object), np.full(len(rows), np.nan)
    rank_N = np.empty(len(rows), dtype=np.int64)
    rank_N[order(score_N)] = rows + 1
    columns: dict[str, Any] = {
        "id": _ids(split),
        "split": name,
        "index": column_values(split, "index"),
        **({} if task.origins is None else task.origins(name).columns()),
        "label": names[label_N],
        "prediction": np.full(len(rows), None, dtype=object) if predicted_N is None else names[predicted_N],
        "confidence": unknown_N if probability_NC is None else probability_NC.max(axis=1),
        "probability_of_label": unknown_N if probability_NC is None else probability_NC[rows, label_N],
        "score": score_N,
        "times_uniform": score_N * samples,
        "rank": rank_N,
    }
    if len(seeds) > 1:
        columns |= {f"score_seed{s}": of_N for s, of_N in zip(seeds, answers.score_SN, strict=True)}
    for column in ("group", "attribute", "alignment"):
        known = membership(split, column)
        if known:
            columns[column] = _joined(known, len(rows))
    return pd.DataFrame(columns)


def _ids(split: datasets.Dataset) -> Any:
    """The data's own ids, or each row's index."""
    return arrow_table(split).column("id").to_pandas() if "id" in split.column_names else column_values(split, "index")


def _named_notes(task: Task) -> list[str]:
    """How the training samples stand to shortcuts that have a name."""
    if task.shortcuts is None:
        return []
    told = {
        name: listed(f"{n:,} {side}" for side, n in of.items()) for name, of in task.shortcuts.sizes("train").items()
    }
    return [f"Training samples by the shortcut '{name}', which has a name: {sides}." for name, sides in told.items()]


def _id_notes(split: datasets.Dataset) -> list[str]:
    if "id" not in split.column_names:
        return ["The data have no column 'id', so samples are named by their index in their split."]
    twice = int(_ids(split).duplicated().sum())
    return [f"Ids are not unique: {twice:,} of them stand on an earlier sample too."] if twice else []


def _elsewhere_notes(scored: Scored) -> list[str]:
    """What was scored beside the training samples."""
    if not scored.elsewhere:
        return []
    told = ", ".join(f"{name} ({len(of.mean):,} rows)" for name, of in scored.elsewhere.items())
    return [
        f"Scored too, and apart: {told}; they stand in the tables of scores by their split, and no test, finding or "
        "suspicion rests on them."
    ]


def _joined(known: dict[str, NDArray[np.bool_]], samples: int) -> NDArray[Any]:
    """Names of what each sample is a member of, by commas; None where it is of none."""
    joined = np.empty(samples, dtype=object)  # of None
    named_N = np.zeros(samples, dtype=np.int64)
    for name, member_N in known.items():
        again_N = member_N & (named_N > 0)
        joined[again_N] += f", {name}"
        joined[member_N & ~again_N] = name
        named_N += member_N
    return joined


def _seeds(seeds: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if seeds is None:
        return None
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        check_within("audit", "seeds", seeds, 1, MOST_SEEDS)
        return tuple(range(seeds))
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        raise UserError(f"The 'seeds' parameter of audit must be how many, or a list of seeds. Got {seeds!r}.")
    for seed in seeds:
        check_seed("audit", "seeds", seed)
    return tuple(int(seed) for seed in seeds)
