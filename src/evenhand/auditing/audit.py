"""`evenhand.audit`: does my data hold a shortcut, which samples go against it, what to do.

Legend: N training samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evenhand.adapters import AdapterKind, Adapters, adapters_of
from evenhand.auditing.advice import advise
from evenhand.auditing.detection import agreement, class_views, detection, order
from evenhand.auditing.hints import Hint, find_hints
from evenhand.auditing.labels import find_suspects
from evenhand.auditing.result import Audit
from evenhand.auditing.scoring import Scored, score_all
from evenhand.auditing.sources import Options, Subject, subject_of_data, subject_of_runs
from evenhand.batches import arrow_table
from evenhand.record import now
from evenhand.run import Device, torch_device
from evenhand.stored_run import Progress
from evenhand.tasks import TASKS, Task, TaskSource
from evenhand.tasks.base import column_values, membership
from evenhand.validation import UserError, check_integer


def audit(
    what: Path | str | TaskSource | Task,
    model: str | Path | None = None,
    *,
    task: TaskSource | Task | None = None,
    places: Mapping[str, Path | str] | None = None,
    seeds: int | Sequence[int] | None = None,
    data_seed: int | None = None,
    output_dir: Path | str | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    peft: Adapters | AdapterKind | None = None,
    device: Device = "auto",
    progress: Progress | None = None,
) -> Audit:
    """Score training samples by a biased model's gradient norms and look for what they have in common.

    The biased models are those of a run (PGD, Even, …), a saved classifier (`model`), or trained here with GCE. What
    was trained and computed is kept in the audit's folder, so that an audit that was stopped goes on where it was.

    Args:
        what: A run's folder, a folder of runs on the same data with different seeds, a task by name, a task with
            settings, or a task built by yourself.
        model: For a task: a saved classifier's folder, taken as the biased model, or what biased models start from;
            the task's default if None.
        task: For a run on data of your own: these data.
        places: For a run: where its task's files lie, which no record says, by the task's own option:
            `{"data_dir": folder}`, or `{"data": file}` for own data.
        seeds: How many biased models are trained (seeds 0, 1, …), or their seeds; one by default. All see the same
            data, so that their scores can be compared.
        data_seed: Drives the data's construction; the first seed if None.
        output_dir: The audit's folder; `audit` in the run's, or runs/<task>/audit-… .
        epochs: Epochs of a biased model, in place of those shipped with the task and model.
        lr: Learning rate, likewise.
        batch_size: Samples a step, likewise.
        peft: Train adapters and the head on a frozen checkpoint.
        device: `auto` takes a GPU if there is one.
        progress: Is told how far each training is.

    Returns:
        The audit; `summary()` has it in words, `to_frame()` by sample, and `evenhand.report(audit, path)` as a page.

    Raises:
        UserError: If something given is wrong, or scores don't belong to the data.
        StageError: If a training diverged.
    """
    place = torch_device(device)
    options = Options(
        model=None if model is None else str(model),
        seeds=_seeds(seeds),
        data_seed=data_seed,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        adapters=adapters_of(peft),
    )
    if data_seed is not None:
        check_integer("audit", "data_seed", data_seed, 0)
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"The output folder '{folder}' is a file.")
    if isinstance(what, TaskSource | Task) or (isinstance(what, str) and what in TASKS and not Path(what).exists()):
        if task is not None or places is not None:
            raise UserError("The 'task' and 'places' parameters of audit go with a run: give a task its own settings.")
        subject = subject_of_data(what, folder, options)
    else:
        subject = subject_of_runs(Path(what), task, places or {}, folder, options)
    return audited(subject, score_all(subject.models, subject.task, subject.scoring, place, progress))


def audited(subject: Subject, scored: Scored) -> Audit:
    """Everything that follows from the scores."""
    task = subject.task
    score_N = scored.mean
    label_N = column_values(task.train, "labels")
    hint = find_hints(task, score_N)
    suspects = find_suspects(score_N, scored.probability_NC, label_N, hint)
    frame, id_notes = _frame(task, scored, label_N, hint, suspects.rows)
    conflicting_N = membership(task.train, "alignment").get("conflicting")
    return Audit(
        task=task,
        model=subject.configuration.model,
        described=subject.described,
        seeds=scored.seeds,
        data_seed=subject.configuration.data_seed,
        scored_by=f"{subject.scoring.norm} norm of the gradient, source {subject.scoring.source}",
        frame=frame,
        hint=hint,
        agreement=agreement(scored.score_SN),
        detection=None if conflicting_N is None else detection(score_N, conflicting_N),
        classes=class_views(score_N, label_N, scored.probability_NC.argmax(axis=1), task.label_names),
        suspects=suspects,
        advice=advise(hint, subject.configuration, task.kind),
        notes=(*task.notes, *subject.notes, *id_notes),
        folder=subject.folder,
        made=now(),
    )


def _frame(
    task: Task, scored: Scored, label_N: NDArray[np.int64], hint: Hint, suspect_rows: NDArray[np.int64]
) -> tuple[pd.DataFrame, list[str]]:
    rows = np.arange(len(label_N))
    score_N, probability_NC = scored.mean, scored.probability_NC
    predicted_N = probability_NC.argmax(axis=1)
    names = np.array(task.label_names, dtype=object)
    rank_N = np.empty(len(rows), dtype=np.int64)
    rank_N[order(score_N)] = rows + 1
    pointed_N = hint.pointed(len(rows))
    identity, notes = _ids(task.train)
    columns: dict[str, Any] = {
        "id": identity,
        "index": column_values(task.train, "index"),
        "label": names[label_N],
        "prediction": names[predicted_N],
        "confidence": probability_NC.max(axis=1),
        "probability_of_label": probability_NC[rows, label_N],
        "score": score_N,
        "times_uniform": score_N * len(rows),
        "rank": rank_N,
        "shortcut_points_to": [names[label] if label >= 0 else None for label in pointed_N],
        "suspect_label": np.isin(rows, suspect_rows),
    }
    if len(scored.seeds) > 1:
        columns |= {f"score_seed{s}": of_N for s, of_N in zip(scored.seeds, scored.score_SN, strict=True)}
    for column in ("group", "attribute", "alignment"):
        known = membership(task.train, column)
        if known:
            columns[column] = _joined(known, len(rows))
    return pd.DataFrame(columns), notes


def _ids(split: datasets.Dataset) -> tuple[Any, list[str]]:
    """The data's own ids, or each row's index."""
    if "id" not in split.column_names:
        return column_values(split, "index"), [
            "The data have no column 'id', so samples are named by their index in the training split."
        ]
    ids = arrow_table(split).column("id").to_pandas()
    twice = int(ids.duplicated().sum())
    return ids, [f"Ids are not unique: {twice:,} of them stand on an earlier sample too."] if twice else []


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
        check_integer("audit", "seeds", seeds, 1)
        return tuple(range(seeds))
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        raise UserError(f"The 'seeds' parameter of audit must be how many, or a list of seeds. Got {seeds!r}.")
    for seed in seeds:
        check_integer("audit", "seeds", seed, 0)
    return tuple(int(seed) for seed in seeds)
