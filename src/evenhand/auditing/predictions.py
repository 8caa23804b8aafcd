"""What any classifier said of rows, from a file or from Python: read, checked, and matched to the rows.

Legend: N rows that are audited, M lines that tell of rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from evenhand.data.cached_tables import column_names, named_columns
from evenhand.models.fitting import class_numbers
from evenhand.tasks.own.cells import cell_text
from evenhand.tasks.own.parts import Beside
from evenhand.validation import UserError, count, did_you_mean

_IDS = ("id", "row", "row_id", "row number", "row_number", "file_name", "file")
_CHOSEN = ("prediction", "predicted", "predicted_class", "predicted_label", "pred", "class", "label")
_CONFIDENCE = ("confidence", "probability", "score", "prob", "p")
_OF_CLASS = ("{}", "p({})", "probability of {}", "probability_of_{}", "probability_{}", "prob_{}", "p_{}")
_LEAST_OFF, _OFF_A_CLASS = 0.01, 0.005  # how far from 1 a row's probabilities may sum: they may be rounded

BY_PROBABILITY = "distance ‖p − y‖ of the probabilities to the label, the gradient’s norm at the last layer’s bias"
BY_CLASS = "whether the predicted class is another than the label"


@dataclass(frozen=True)
class Lines:
    """Columns as they were given, without any meaning yet.

    Attributes:
        origin: What messages call them.
        columns: Name → its cells; those of a file as it was read.
        length: How many lines there are.
    """

    origin: str
    columns: Mapping[str, list[Any]]
    length: int

    @property
    def start(self) -> str:
        """What they are called, as the beginning of a sentence."""
        return f"The file {self.origin}" if self.origin.startswith("'") else f"T{self.origin[1:]}"

    def place(self, line: int) -> str:
        """Where a line is, as the beginning of a sentence."""
        return f"Row {line + 1} of {self.origin}"

    def first(self, names: Sequence[str]) -> str | None:
        """The first of some names that a column has, however it is written."""
        found = {name.strip().casefold(): name for name in reversed(list(self.columns))}
        return next((found[name.casefold()] for name in names if name.casefold() in found), None)


@dataclass(frozen=True)
class Predictions:
    """What a classifier said, line by line.

    Attributes:
        lines: The lines.
        ids: The column that names the rows; None where they stand in the data's order.
        split: The column that names their splits, if there is one.
        chosen_M: The predicted classes, shape (M,).
        probability_MC: The probabilities, shape (M, C); None where only the classes are known.
        notes: What a reader must know of them.
    """

    lines: Lines
    ids: str | None
    split: str | None
    chosen_M: NDArray[np.int64]
    probability_MC: NDArray[np.float64] | None
    notes: tuple[str, ...] = ()

    def scores(self, line_N: NDArray[np.int64], label_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far each row goes against what the classifier says, shape (N,)."""
        if self.probability_MC is None:
            return (self.chosen_M[line_N] != label_N).astype(np.float64)
        return distances(self.probability_MC[line_N], label_N)

    @property
    def scored_by(self) -> str:
        """What scores a row."""
        return BY_CLASS if self.probability_MC is None else BY_PROBABILITY


def distances(probability_NC: NDArray[np.float64], label_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """‖p − e_y‖ of each row, shape (N,): the norm of cross-entropy's gradient at the last layer's bias."""
    return np.linalg.norm(probability_NC - np.eye(probability_NC.shape[1])[label_N], axis=1)


# ---- read -----------------------------------------------------------------------------------------------------------


def lines_of(given: Any) -> Lines:
    """A file, by its path, or columns from Python by their names.

    Raises:
        UserError: If the file can't be read, or columns differ in length.
    """
    if isinstance(given, (str, Path)):
        return _of_file(Path(given).expanduser())
    if isinstance(given, datasets.Dataset):
        given = given.to_dict()
    columns = {str(name): _listed(values) for name, values in given.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{number:,} of '{name}'" for name, number in lengths.items())
        raise UserError(f"The predictions' columns differ in length: {told}.")
    if not sum(lengths.values()):
        raise UserError("The predictions have no rows.")
    return Lines("the table of predictions", columns, next(iter(lengths.values())))


def as_columns(predictions: Any, classes: Sequence[str]) -> dict[str, list[Any]]:
    """Classes of shape (N,) or probabilities of shape (N, C) as columns.

    Raises:
        UserError: If they are of another shape, or a number is that of no class.
    """
    values = predictions.detach().cpu().numpy() if isinstance(predictions, Tensor) else np.asarray(predictions)
    if values.ndim == 2 and values.shape[1] == len(classes):
        return {f"p({name})": values[:, c].tolist() for c, name in enumerate(classes)}
    if values.ndim != 1:
        raise UserError(
            f"Predictions must be classes, one a row, or probabilities of shape (rows, {len(classes)}). Got an array "
            f"of shape {values.shape}."
        )
    named = values.tolist()
    if np.issubdtype(values.dtype, np.integer) and not {str(value) for value in named} & set(classes):
        wrong = next((n for n, number in enumerate(named) if not 0 <= number < len(classes)), None)
        if wrong is not None:
            raise UserError(
                f"Row {wrong + 1} of the predictions is the class {named[wrong]}, but the data have {len(classes)}, "
                "counted from 0."
            )
        named = [classes[number] for number in named]
    return {"prediction": named}


def _of_file(path: Path) -> Lines:
    names = column_names(path, all_lines=True)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"The file '{path}' has {names.count(twice)} columns '{twice}': rename one.")
    table, _ = Beside(path, ()).read()
    if table is None:
        raise UserError(f"The file '{path}' has no column of one value a row; its columns are {named_columns(names)}.")
    return Lines(f"'{path}'", {name: table[name][:] for name in table.column_names}, len(table))


def _listed(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


# ---- understood -----------------------------------------------------------------------------------------------------


def understood(lines: Lines, classes: Sequence[str], ids: str | None = None, label: str | None = None) -> Predictions:
    """Which columns are ids, predicted classes and probabilities, and what they hold.

    Args:
        lines: The lines.
        classes: The data's classes.
        ids: The user's column of ids, if there is one.
        label: The data's own column of labels, which is no prediction.

    Raises:
        UserError: One sentence for the first thing that is wrong.
    """
    if ids is not None and ids not in lines.columns:
        named = lines.first(("id",))
        if named is None:
            raise UserError(
                f"{lines.start} has no column '{ids}', which names the rows of the data"
                f"{did_you_mean(ids, lines.columns)}; its columns are {named_columns(list(lines.columns))}."
            )
        ids = named
    column = ids if ids is not None else lines.first(_IDS)
    split = lines.first(("split",))
    found = _class_columns(lines, classes, {column, split})
    if found:
        probability_MC = _probabilities(lines, found, classes)
        return Predictions(lines, column, split, probability_MC.argmax(axis=1), probability_MC)
    names = [name for name in _CHOSEN if name != (label or "").casefold()] + ([label] if label else [])
    chosen = lines.first([name for name in names if name != column])
    if chosen is None:
        raise UserError(
            f"{lines.start} has no column of predicted classes ('prediction') and none of probabilities for each "
            f"class ('{classes[0]}', …); its columns are {named_columns(list(lines.columns))}."
        )
    chosen_M = _classes(lines, chosen, classes)
    as_label = (
        [f"The column '{chosen}' of {lines.origin} was taken as what the classifier predicts."]
        if chosen.casefold() == "label" or chosen == label
        else []
    )
    confidence = lines.first([name for name in _CONFIDENCE if name not in (column, chosen)])
    if confidence is None:
        return Predictions(lines, column, split, chosen_M, None, tuple(as_label))
    value_M = _numbers(lines, confidence)
    spread_MC = _spread(lines, confidence, value_M, chosen_M, len(classes))
    told = [] if len(classes) == 2 else [_SPREAD]
    return Predictions(lines, column, split, chosen_M, spread_MC, (*as_label, *told))


_SPREAD = (
    "Of each row the probability of the predicted class alone is known; what is left was shared evenly among the other "
    "classes."
)


def _class_columns(lines: Lines, classes: Sequence[str], others: set[str | None]) -> dict[int, str]:
    """Class → its column of probabilities; of two classes one column is enough. Empty where there are none."""
    columns = [name for name in lines.columns if name not in others]
    best: dict[int, str] = {}
    for form in _OF_CLASS:
        found: dict[int, str] = {}
        for name in columns:
            inside = _inside(name, form)
            number = class_numbers([inside], classes)[0] if inside is not None else None
            if number is not None and number not in found:
                found[number] = name
        # a column may be called as a class by chance
        if len(found) == len(classes) or (form != "{}" and len(found) > len(best)):
            best = found
        if len(best) == len(classes):
            break
    if best and len(best) < len(classes) - (len(classes) == 2):
        missing = next(name for i, name in enumerate(classes) if i not in best)
        raise UserError(f"{lines.start} has probabilities of {', '.join(best.values())}, but none of '{missing}'.")
    unknown = [name for name in columns if _names_class(name) and name not in best.values()]
    if unknown:
        inside = _inside(unknown[0], "p({})") or ""
        raise UserError(
            f"{lines.start} has the column '{unknown[0]}', but '{inside}' is no class of the data"
            f"{did_you_mean(inside, classes)}; the classes are {', '.join(classes)}."
        )
    return best


def _inside(name: str, form: str) -> str | None:
    """What stands in a column's name in the place of a class; None where it is of another form."""
    before, after = form.split("{}")
    text = name.strip()
    fits = text.casefold().startswith(before) and text.endswith(after) and len(text) > len(form) - 2
    return (text[len(before) :].removesuffix(after) if after else text[len(before) :]) if fits else None


def _names_class(name: str) -> bool:
    return _inside(name, "p({})") is not None


# ---- checked --------------------------------------------------------------------------------------------------------


def _classes(lines: Lines, column: str, classes: Sequence[str]) -> NDArray[np.int64]:
    """A column of classes by their numbers, shape (M,)."""
    text_M = [cell_text(value) for value in lines.columns[column]]
    missing = next((m for m, text in enumerate(text_M) if text is None), None)
    if missing is not None:
        raise UserError(
            f"{lines.place(missing)} has no class in '{column}' ({text_M.count(None):,} such rows): a row that the "
            "classifier didn't answer can't be audited, so leave it out of the data too."
        )
    known = {text: text for text in dict.fromkeys(text_M) if text is not None}
    number_of = dict(zip(known, class_numbers(list(known), classes), strict=True))
    wrong = next((m for m, text in enumerate(text_M) if text is None or number_of[text] is None), None)
    if wrong is not None:
        text = text_M[wrong] or ""
        raise UserError(
            f"{lines.place(wrong)} has the class '{text[:60]}' in '{column}', which the data don't have"
            f"{did_you_mean(text, classes)}; the classes are {', '.join(classes[:20])}."
        )
    return np.array([number_of[text] for text in text_M if text is not None], dtype=np.int64)


def _numbers(lines: Lines, column: str) -> NDArray[np.float64]:
    """A column of probabilities, shape (M,)."""
    value_M = np.full(lines.length, np.nan)
    for m, value in enumerate(lines.columns[column]):
        try:
            value_M[m] = float(value)
        except (TypeError, ValueError):
            raise UserError(
                f"{lines.place(m)} has {str(value)[:60]!r} in '{column}', which is no probability."
            ) from None
    wrong = np.flatnonzero(~((value_M >= -1e-6) & (value_M <= 1 + 1e-6)))
    if len(wrong):
        raise UserError(
            f"{lines.place(int(wrong[0]))} has {value_M[wrong[0]]:g} in '{column}', which is no probability from 0 to "
            f"1 ({count(len(wrong), 'such row')})."
        )
    return value_M.clip(0, 1)


def _probabilities(lines: Lines, found: dict[int, str], classes: Sequence[str]) -> NDArray[np.float64]:
    value_MC = np.zeros((lines.length, len(classes)))
    for number, column in found.items():
        value_MC[:, number] = _numbers(lines, column)
    if len(found) == 1 < len(classes):
        value_MC[:, 1 - next(iter(found))] = 1 - value_MC[:, next(iter(found))]
    return summed_to_one(value_MC, lines.place)


def summed_to_one(value_MC: NDArray[np.float64], place: Any) -> NDArray[np.float64]:
    """Probabilities that sum to 1 up to rounding, made to sum to 1.

    Args:
        value_MC: The probabilities, each from 0 to 1, shape (M, C).
        place: Says where a line is, as the beginning of a sentence.

    Raises:
        UserError: If a row's sum is further off.
    """
    sum_M = value_MC.sum(axis=1)
    off = max(_LEAST_OFF, _OFF_A_CLASS * value_MC.shape[1])
    wrong = np.flatnonzero((abs(sum_M - 1) > off) | (sum_M <= 0))
    if len(wrong):
        raise UserError(
            f"{place(int(wrong[0]))} has probabilities that sum to {sum_M[wrong[0]]:.4g}, not to 1 "
            f"({count(len(wrong), 'such row')})."
        )
    return value_MC / sum_M[:, None]


def _spread(
    lines: Lines, column: str, value_M: NDArray[np.float64], chosen_M: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """The predicted class's probability, and what is left of 1 shared among the others."""
    low = np.flatnonzero(value_M < 1 / classes - 1e-3)
    if len(low):
        raise UserError(
            f"{lines.place(int(low[0]))} has {value_M[low[0]]:g} in '{column}', less than a predicted class of "
            f"{classes} can have ({count(len(low), 'such row')})."
        )
    spread_MC = np.repeat((1 - value_M)[:, None] / (classes - 1), classes, axis=1)
    spread_MC[np.arange(len(value_M)), chosen_M] = value_M
    return spread_MC


def as_table(predictions: Any) -> bool:
    """Whether predictions are columns by name, or a file of them."""
    return isinstance(predictions, (str, Path, Mapping, pd.DataFrame, datasets.Dataset))
