"""An audit without training: of a classifier as it is, or of what any classifier said of the rows.

Legend: N rows, C classes.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evenhand.auditing.arrays import listed
from evenhand.auditing.given import Given, are_numbers, ask, live_classifier, saved_classifier
from evenhand.auditing.predictions import Predictions, as_columns, as_table, lines_of, understood
from evenhand.auditing.request import AuditedRows, Request, WithoutTraining, audited_rows, matched, whole_of
from evenhand.auditing.scoring import Answers, Scored, Scoring
from evenhand.auditing.sources import Subject, folder_of
from evenhand.data.columns import column_values
from evenhand.evaluation.progress import DataProgress
from evenhand.methods import Method
from evenhand.shortcuts import Shortcut
from evenhand.tasks import OwnData, Task
from evenhand.tasks.own.own_data import Whole
from evenhand.validation import UserError, unknown_name

_AS_IT_IS = (
    "The model was taken as it is; how far it relies on a shortcut depends on how it was trained. Whether it was "
    "trained on the rows that it was asked about can't be known: what it knows by heart shows no high score."
)
_CLASSES_ONLY = (
    "Only predicted classes are known, so a row is right or wrong, and none is more so than another. How sure the "
    "classifier is can't be seen, so nothing is said of labels that look wrong or of a shortcut without a name."
)
_NO_CLASSES = (
    "Predicted classes aren't known, so nothing is said of labels that look wrong or of a shortcut without a name, and "
    "what is measured of inputs (length, brightness, …) is never called more than an association."
)
_ALL_RIGHT = "The classifier is right on every row, so no row goes against it: only what tells the class can be seen."


def without_training(request: Request, device: torch.device) -> tuple[Subject, Scored] | None:
    """The audit's subject and its scores where nothing is to be trained; None where something is.

    Raises:
        UserError: If what was given doesn't fit together, or not the data.
    """
    known = WithoutTraining.__annotations__
    unknown = next((name for name in request.given if name not in known), None)
    if unknown is not None:
        raise TypeError(f"audit() got an unexpected keyword argument '{unknown}'")
    given: Any = {name: value for name, value in request.given.items() if value is not None}
    request = replace(request, given=given)
    classifier = _classifier(request)
    if not given and classifier is None and not request.is_plain:
        return None
    _check(request, classifier)
    rows, found = audited_rows(request, classifier)
    if isinstance(request.progress, DataProgress):
        request.progress.data(rows.whole.task)
    return _asked(request, rows, classifier, device) if classifier is not None else _told(request, rows, found)


# ---- what was given -------------------------------------------------------------------------------------------------


def _classifier(request: Request) -> Given | None:
    """The classifier that is given, live or saved; None where none is, or what is named is to be trained."""
    model = request.model
    if isinstance(model, nn.Module):
        return live_classifier(model, request.given.get("tokenizer"), request.given.get("processor"))
    if model is None or not (request.is_task or request.is_plain):
        return None
    if (Path(model) / "record.json").exists() and (Path(model) / "model").is_dir():
        raise UserError(f"The folder '{model}' is a run, not a model: give it without --model, or its 'model' folder.")
    if request.asked.adapters is not None or request.asked.fresh:
        return None
    return saved_classifier(model)


def _check(request: Request, classifier: Given | None) -> None:
    """Refuse what contradicts itself, or asks for training."""
    given, model = request.given, request.model
    answers = [name for name in ("predictions", "scores") if name in given]
    if not (request.is_task or request.is_plain):
        what = answers[0] if answers else next(iter(given), "model")
        raise UserError(
            f"'{what}' goes with data, but '{request.what}' is a run's folder or none: give --task or --data."
        )
    if answers and model is not None:
        raise UserError(f"'{answers[0]}' says what a classifier found, so 'model' can't be given beside it.")
    if not answers and classifier is None:
        if model is not None:
            raise UserError(f"'{model}' is no saved classifier, and plain data are audited without training.")
        raise UserError(
            "An audit of plain data needs what a classifier says of them: give predictions, scores or a model."
        )
    live = classifier is not None and classifier.folder is None
    for name in ("tokenizer", "processor"):
        if name in given and not live:
            raise UserError(f"The parameter '{name}' is of a live model: give 'model', or leave it out.")
    if request.is_plain and "labels" not in given:
        raise UserError("An audit of plain data needs their labels: give 'labels'.")
    for name in ("labels", "classes", "ids", "columns", "text", "image"):
        if name in given and not request.is_plain:
            raise UserError(f"The parameter '{name}' is of plain data from Python, but a task has its own.")
    asked = request.asked
    trained = {"seeds": request.seeds, **request.of_runs} | {f.name: getattr(asked, f.name) for f in fields(asked)}
    default = {f.name: f.default for f in fields(asked)}
    why = (
        f"{classifier.called} is a trained classifier and is taken as it is"
        if classifier
        else "Nothing is trained here"
    )
    for name, value in trained.items():
        if name not in ("model", "seed", "data_seed", "shortcuts") and value != default.get(name):
            raise UserError(
                f"{why}, so '{'peft' if name == 'adapters' else name}' can't be given: name a checkpoint or an "
                "architecture to have biased models trained."
            )


# ---- asked ----------------------------------------------------------------------------------------------------------


def _asked(request: Request, rows: AuditedRows, classifier: Given, device: torch.device) -> tuple[Subject, Scored]:
    """What a classifier says when it is asked."""
    keeps = classifier.folder is not None and (request.folder is not None or not request.is_plain)
    usual = folder_of(rows.configuration, rows.task) if classifier.folder is not None else None
    where = request.folder or usual
    kept = where / "models" / f"given-{rows.split}" if keeps and where is not None else None
    scored = ask(classifier, rows.task, Scoring(), device, kept, rows.configuration.run_hash if kept else "")
    named = classifier.classes is not None or are_numbers(rows.task.label_names)
    by_place = f"{classifier.called} has no names for its classes: they were taken in the order of the data's, "
    notes = (_AS_IT_IS, *rows.notes, *([] if named else [f"{by_place}{', '.join(rows.task.label_names)}."]))
    if classifier.folder is not None:
        described = f"the classifier in '{classifier.folder}', taken as the biased model"
    else:
        described = f"{classifier.called.replace('The', 'the', 1)}, taken as the biased model"
    subject = _subject(request, rows, described, where or _by_scores(rows, scored), notes)
    return replace(subject, model=None if classifier.folder else type(classifier.model).__name__), scored


def _subject(request: Request, rows: AuditedRows, described: str, where: Path, notes: tuple[str, ...]) -> Subject:
    plain = partial(_line, rows.task) if request.is_plain else None
    return Subject(
        rows.task, rows.configuration, [], Scoring(), described, where, notes, split=rows.split, command=plain
    )


def _line(task: Task, method: Method, shortcuts: tuple[Shortcut, ...] = ()) -> str:
    """A line that trains on plain data, once they are a table."""
    words = ["--text text" if task.kind == "text" else "--image image", "--label label"]
    words += [f"--shortcut {shlex.quote(rule.spelling)}" for rule in shortcuts]
    return f"evenhand train {method.name} --data FILE {' '.join(words)}  # your data as a table"


def _by_scores(rows: AuditedRows, scored: Scored) -> Path:
    """Where an audit lies whose scores were given, unless the user says otherwise."""
    digest = hashlib.sha256(column_values(rows.task.train, "labels").tobytes())
    digest.update(scored.train.score_SN.tobytes())
    return Path("runs") / rows.task.name / f"audit-{digest.hexdigest()[:8]}"


# ---- told -----------------------------------------------------------------------------------------------------------


def _told(request: Request, rows: AuditedRows, given: Mapping[str, Any]) -> tuple[Subject, Scored]:
    """What someone says that a classifier says."""
    said, scores = given.get("predictions"), given.get("scores")
    found = None if said is None else _understood(said, rows, given.get("ids"))
    line_N: NDArray[np.int64] | None = None
    elsewhere: dict[str, NDArray[np.int64]] = {}
    if found is not None:
        rows, line_N, elsewhere = _matched(found, rows)
    label_N = column_values(rows.task.train, "labels")
    notes = [_AS_IT_IS.replace("The model", "The classifier"), *rows.notes, *(found.notes if found else ())]
    if scores is not None:
        score_N, told = _given_scores(scores, rows.whole)
        notes += told
    else:
        assert found is not None
        assert line_N is not None
        score_N = found.scores(line_N, label_N)
    total = float(score_N.sum())
    scored = Scored(
        (None,),
        _answers(found, line_N, score_N, total),
        {
            name: _answers(found, lines, found.scores(lines, column_values(rows.task.splits[name], "labels")), total)
            for name, lines in elsewhere.items()
            if found is not None and scores is None
        },
    )
    notes += [_NO_CLASSES] if found is None else [] if found.probability_MC is not None else [_CLASSES_ONLY]
    notes += [_ALL_RIGHT] if total <= 0 else []
    of = f"(of {len(rows.whole.kept):,} of {len(rows.whole.ids):,} rows)"
    described = f"{_origin(said)} {of}"
    subject = _subject(request, rows, described, request.folder or _by_scores(rows, scored), tuple(notes))
    scored_by = "scores as given" if scores is not None or found is None else found.scored_by
    return replace(subject, model="", scored_by=scored_by), scored


def _origin(said: Any) -> str:
    if said is None:
        return "the scores given"
    return f"the predictions in '{Path(said).name}'" if isinstance(said, str | Path) else "the predictions given"


def _understood(said: Any, rows: AuditedRows, ids: str | None) -> Predictions:
    classes = rows.task.label_names
    label = next((name for name, what in rows.task.reserved.items() if what == "the label"), None)
    if isinstance(rows.recipe, OwnData):
        ids = rows.recipe.id
    lines = lines_of(said) if as_table(said) else lines_of(as_columns(said, classes))
    return understood(lines, classes, ids, label)


def _matched(
    found: Predictions, rows: AuditedRows
) -> tuple[AuditedRows, NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """The rows that findings rest on, with the line of each; and by split the lines of rows elsewhere."""
    lines, every = found.lines, np.arange(found.lines.length)
    if not rows.elsewhere or found.split is None:
        what = "the training rows" if rows.elsewhere else "the data"
        return rows, matched(found, rows.whole.ids, rows.whole.kept, every, what), {}
    named = np.array([str(value) for value in lines.columns[found.split]], dtype=object)
    for name in dict.fromkeys(named):
        if name not in rows.task.splits:
            raise unknown_name("split", name, rows.task.splits)
        if tuple(rows.task.splits[name].features["labels"].names) != rows.task.label_names:
            raise UserError(f"The split '{name}' has other classes than the training rows, so it can't be audited.")
    wholes = {name: whole_of(rows.task, name) for name in rows.task.splits if name in named}
    of_split = {
        name: matched(found, whole.ids, whole.kept, np.flatnonzero(named == name), f"the split '{name}'")
        for name, whole in wholes.items()
    }
    first = next(iter(of_split))  # train where it is among them
    return replace(rows, whole=wholes[first], split=first), of_split.pop(first), of_split


def _answers(
    found: Predictions | None, line_N: NDArray[np.int64] | None, score_N: NDArray[np.float64], total: float
) -> Answers:
    share_SN = (score_N / total if total > 0 else np.full(len(score_N), 1 / len(score_N)))[None]
    if found is None or line_N is None:
        return Answers(share_SN, None)
    if found.probability_MC is None:
        return Answers(share_SN, None, found.chosen_M[line_N])
    return Answers(share_SN, found.probability_MC[line_N])


def _given_scores(scores: Any, whole: Whole) -> tuple[NDArray[np.float64], list[str]]:
    """Scores of the rows that are audited, from 0 on."""
    try:
        score_M = np.asarray(listed(scores), dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("The scores must be one number a row, high where a row goes against the classifier.") from None
    if score_M.shape != (len(whole.ids),):
        raise UserError(f"The scores have the shape {score_M.shape}, but the data have {len(whole.ids):,} rows.")
    wrong = np.flatnonzero(~np.isfinite(score_M))
    if len(wrong):
        raise UserError(f"The score of row {wrong[0] + 1} is {score_M[wrong[0]]} ({len(wrong):,} such rows).")
    score_N = score_M[whole.kept]
    if score_N.min() >= 0:
        return score_N, []
    return score_N - score_N.min(), ["Some scores are below 0, so all were raised until the lowest is 0."]
