"""Which rows an audit without training is of, and which line of someone's predictions tells of which row.

Legend: N rows that are audited, M lines that tell of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from evenhand.auditing.arrays import Arrays, coded, listed
from evenhand.auditing.given import Given, are_numbers
from evenhand.auditing.predictions import Predictions, as_table
from evenhand.auditing.sources import Q
from evenhand.data.rows import arrow_table
from evenhand.evaluation.progress import Progress
from evenhand.methods import GCE
from evenhand.models.fitting import class_numbers
from evenhand.runs.configuration import Configuration, shipped_training
from evenhand.runs.prepared import Asked, parted
from evenhand.tasks import TASKS, OwnData, Task, TaskSource
from evenhand.tasks.own.cells import cell_text
from evenhand.tasks.own.own_data import Whole
from evenhand.tasks.shortcuts import with_shortcuts
from evenhand.validation import UserError, check_seed, count, did_you_mean

_TOGETHER = "All rows of the data were audited together, whatever split they are of."
_MOST_COMPARED = 5_000  # names that are searched for one like it


class WithoutTraining(TypedDict, total=False):
    """What `audit` takes for an audit without training, beside data and `model`.

    Attributes:
        labels: The classes of plain data, by name or number; of a table their column.
        predictions: What a classifier says of the rows: a file or table with one column a class, or with the predicted
            class and perhaps its probability, and the rows' ids; or an array of classes (N,) or probabilities (N, C).
        scores: How far each row goes against what the classifier says, shape (N,), high where it goes against it.
        classes: The classes' names in the order of their numbers.
        ids: The rows' own names; of a table their column.
        columns: Further columns by name, which may hold the shortcut.
        text: Of a table: its column of texts, or two.
        image: Of a table: its column of pictures' paths.
        tokenizer: That of a live model.
        processor: The image processor of a live model.
    """

    labels: Any
    predictions: Any
    scores: Any
    classes: Sequence[Any] | None
    ids: Any
    columns: Mapping[str, Any] | None
    text: str | Sequence[str] | None
    image: str | None
    tokenizer: Any
    processor: Any


@dataclass(frozen=True)
class Request:
    """What `audit` was asked for.

    Attributes:
        what: The data.
        model: A model's name or folder, a live one, or None.
        given: What belongs to an audit without training.
        asked: What belongs to training.
        seeds: Seeds of biased models.
        of_runs: What belongs to a run, by name.
        folder: The audit's folder; None for the usual one.
        progress: Receives the data.
    """

    what: Any
    model: Any
    given: WithoutTraining
    asked: Asked
    seeds: tuple[int, ...] | None
    of_runs: Mapping[str, Any]
    folder: Path | None
    progress: Progress | None = None

    @property
    def is_task(self) -> bool:
        """Whether the data are a task, by name, with its settings, or built."""
        what = self.what
        return isinstance(what, TaskSource | Task) or (
            isinstance(what, str) and what in TASKS and not Path(what).exists()
        )

    @property
    def is_plain(self) -> bool:
        """Whether the data are arrays, lists or a table from Python."""
        return not isinstance(self.what, str | Path | TaskSource | Task)


@dataclass(frozen=True)
class AuditedRows:
    """The rows that are audited.

    Attributes:
        whole: The task, the names of all rows, and which of them are audited.
        recipe: What the user named.
        configuration: How a model is trained on the data, for the advice.
        split: What the rows are.
        elsewhere: Whether the task has splits beside that may be scored too.
    """

    whole: Whole
    recipe: TaskSource | Task
    configuration: Configuration
    split: str = "all"
    elsewhere: bool = False

    @property
    def task(self) -> Task:
        """The rows as a task."""
        return self.whole.task

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of them."""
        return () if self.elsewhere or isinstance(self.recipe, Task) else (_TOGETHER,)


def audited_rows(request: Request, classifier: Given | None) -> tuple[AuditedRows, dict[str, Any]]:
    """The rows, and what is said of them: `predictions` and `scores`, of a table its columns."""
    given: dict[str, Any] = dict(request.given)
    asked = request.asked
    data_seed = asked.seed if asked.data_seed is None else asked.data_seed
    check_seed("audit", "data_seed", data_seed)
    recipe: Any = TASKS[request.what]() if isinstance(request.what, str) else request.what
    named = asked.shortcuts
    if request.is_plain:
        whole, given = _plain(request, classifier)
        recipe, split, elsewhere = whole.task, "all", False
    elif isinstance(recipe, OwnData):
        recipe, named = parted(recipe, asked.shortcuts)
        whole, split, elsewhere = _own(recipe, classifier), "all", False
    else:
        built = recipe.build(data_seed) if isinstance(recipe, TaskSource) else recipe
        whole, split, elsewhere = whole_of(built, "train"), "train", True
    if named:
        whole = replace(whole, task=with_shortcuts(whole.task, named))
    kind = OwnData.default_model if whole.task.kind == "text" else OwnData.picture_model
    usual = recipe.usual_model if isinstance(recipe, TaskSource) else kind
    name = usual if classifier is None or classifier.folder is None else str(classifier.folder)
    configuration = Configuration(
        method=GCE(q=Q),
        task=recipe,
        model=name,
        training=shipped_training(recipe, name, None, False),
        seed=0,
        data_seed=data_seed,
    )
    return AuditedRows(whole, recipe, configuration, split, elsewhere), given


def whole_of(task: Task, split: str) -> Whole:
    """A split of a built task as the rows that are audited."""
    rows, beside = task.splits[split], task.beside
    moved = replace(task, train=rows, beside=None if beside is None else lambda _: beside(split))
    name = "id" if "id" in rows.column_names else "index"
    ids = arrow_table(rows.select_columns(name)).column(name).to_pylist()
    return Whole(moved, tuple(map(str, ids)), np.arange(len(rows)))


def _own(recipe: OwnData, classifier: Given | None) -> Whole:
    """All rows of own data, with a classifier's classes where these have more."""
    whole = recipe.whole()
    names, own = classifier.classes if classifier else None, whole.task.label_names
    if names is None or are_numbers(own):
        return whole
    if len(names) == len(own) and None not in class_numbers(own, names):
        return whole
    spelt = class_numbers(names, own)  # as the data write them
    return recipe.whole([name if i is None else own[i] for name, i in zip(names, spelt, strict=True)])


def _plain(request: Request, classifier: Given | None) -> tuple[Whole, dict[str, Any]]:
    given: Any = dict(request.given)
    arrays = Arrays(request.what, given.get("text"), given.get("image"))
    labels, ids, scores = (arrays.column(name, given.get(name)) for name in ("labels", "ids", "scores"))
    said = given.get("predictions")
    if isinstance(said, str) and said in (arrays.table or {}):
        said = arrays.column("predictions", said)
    width = classifier.width if classifier else None
    if said is not None and not as_table(said) and np.ndim(listed(said)[:1]) == 2:
        width = len(listed(said)[0])
    label_N, names = coded(labels, given.get("classes"), classifier.classes if classifier else None, width)
    whole = arrays.whole(label_N, names, ids, given.get("columns"))
    named = given.get("ids") if isinstance(given.get("ids"), str) else None
    return whole, {"predictions": said, "scores": scores, "ids": named}


# ---- matched --------------------------------------------------------------------------------------------------------


def matched(
    found: Predictions, ids: Sequence[str], kept: NDArray[np.int64], line_M: NDArray[np.int64], what: str
) -> NDArray[np.int64]:
    """The line that tells of each row that is audited, shape (N,).

    Args:
        found: The predictions.
        ids: The names of all rows, those that aren't audited too.
        kept: Which of these are audited, shape (N,).
        line_M: The lines that tell of these rows.
        what: What the rows are, as in "the data".

    Raises:
        UserError: If a row has no line, or a line is of no row, or of one that another line tells of.
    """
    lines = found.lines
    if found.ids is None:
        if len(line_M) != len(ids):
            raise UserError(
                f"{lines.start} has {count(len(line_M), 'row')}, but {what} have {len(ids):,}, and no column 'id' "
                "says which row is which."
            )
        return line_M[kept]
    row_of = {name: row for row, name in enumerate(ids)}
    plain = {cell_text(name): row for row, name in reversed(list(enumerate(ids)))}
    told = np.full(len(ids), -1, dtype=np.int64)
    for line in line_M:
        value = lines.columns[found.ids][line]
        text = cell_text(value)
        if text is None:
            raise UserError(f"{lines.place(line)} has no id in '{found.ids}'.")
        row = row_of.get(str(value), row_of.get(str(value).strip(), plain.get(text)))
        if row is None:
            raise UserError(
                f"{lines.place(line)} tells of the row '{text[:60]}' ('{found.ids}'), which {what} don't have"
                f"{did_you_mean(text, ids) if len(ids) <= _MOST_COMPARED else ''}; the first row is '{ids[0][:60]}'."
            )
        if told[row] >= 0:
            raise UserError(
                f"{lines.place(line)} tells of the row '{text[:60]}' ('{found.ids}'), as row {told[row] + 1} does: "
                "each row needs one prediction."
            )
        told[row] = line
    missing = kept[told[kept] < 0]
    if len(missing):
        raise UserError(
            f"{lines.start} has no prediction for the row '{ids[missing[0]][:60]}' of {what} "
            f"({count(len(missing), 'such row')} of {len(kept):,}): add them, or leave these rows out of the data."
        )
    return told[kept]
