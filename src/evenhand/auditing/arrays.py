"""Arrays, lists and tables from Python as a task all of whose rows are audited.

Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from evenhand.data.cached_tables import named_columns
from evenhand.data.columns import PICTURE_COLUMNS, TEXT_COLUMNS, Column, class_column, dataset_of, text_column
from evenhand.data.rows import arrow_table
from evenhand.models.fitting import class_numbers
from evenhand.shortcuts import Samples
from evenhand.tasks import Task
from evenhand.tasks.base import BesideColumns
from evenhand.tasks.own.cells import cell_text, is_whole, sorted_names
from evenhand.tasks.own.own_data import Whole
from evenhand.tasks.own.parts import is_nested
from evenhand.validation import UserError, did_you_mean

NAME = "own-arrays"
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class Arrays:
    """The rows of a user's own, without their labels.

    Args:
        data: Texts, pixels of shape (N, C, H, W), paths of pictures, or a table.
        text: Of a table: its column of texts, or two.
        image: Of a table: its column of pictures' paths.

    Attributes:
        inputs: The texts or pictures.
        further: What a table holds beside them; what is read of it as something else is taken out.

    Raises:
        UserError: If the data are of no such kind.
    """

    def __init__(self, data: Any, text: str | Sequence[str] | None = None, image: str | None = None) -> None:
        self.table = _table(data)
        self.further = dict(self.table or {})
        if text is not None and image is not None:
            raise UserError("The data are texts or pictures: give 'text' or 'image', not both.")
        if self.table is None:
            for option, value in (("text", text), ("image", image)):
                if value is not None:
                    raise UserError(f"The parameter '{option}' names a column of a table, and the data are none.")
            self.inputs = Samples.of(**_inputs(data))
            return
        texts = [text] if isinstance(text, str) else list(text or ())
        if not texts and image is None:
            texts = [name for name in TEXT_COLUMNS if name in self.table]
            image = None if texts else next((name for name in PICTURE_COLUMNS if name in self.table), None)
        if not texts and image is None:
            raise UserError(
                f"Say which column holds the texts ('text') or pictures ('image'); the data have "
                f"{named_columns(list(self.table))}."
            )
        if image is not None:
            self.inputs = Samples.of(images=_pictures(self.column("image", image)))
        else:
            self.inputs = Samples.of(texts={name: _texts(self.column("text", name)) for name in texts})

    def __len__(self) -> int:
        return len(self.inputs)

    def column(self, option: str, value: Any) -> Any:
        """What an option was given: values, or a table's column by its name, which is then no further column."""
        if not isinstance(value, str) or self.table is None:
            return value
        if value not in self.table:
            raise UserError(
                f"The data have no column '{value}', given as '{option}'{did_you_mean(value, self.table)}; they have "
                f"{named_columns(list(self.table))}."
            )
        self.further.pop(value, None)
        return self.table[value]

    def whole(self, label_N: Any, names: Sequence[str], ids: Any, columns: Mapping[str, Any] | None) -> Whole:
        """The rows as a task whose every split is all of them.

        Args:
            label_N: The number of each row's class.
            names: The classes.
            ids: The rows' own names; their numbers, counted from 1, if None.
            columns: Further columns by name.

        Raises:
            UserError: If something differs in length, or an id is missing or repeated.
        """
        further = self.further | dict(columns or {})
        for what, values in (("labels", label_N), *((f"the column '{n}'", v) for n, v in further.items())):
            if len(values) != len(self):
                raise UserError(f"The data have {len(self):,} rows, but {what} {len(values):,}.")
        named = [str(row + 1) for row in range(len(self))] if ids is None else _ids(ids, len(self))
        arrays = {name: _arrow(values) for name, values in further.items()}
        nested = tuple(name for name, array in arrays.items() if is_nested(array.type))
        beside = BesideColumns(
            tuple(name for name in arrays if name not in nested), lambda n: pa.chunked_array([arrays[n]]), nested
        )
        made: dict[str, Column] = {"labels": class_column(label_N, names), "id": text_column(named)}
        made["index"] = (datasets.Value("int64"), pa.array(np.arange(len(self))))
        split = datasets.concatenate_datasets([self.inputs.split, dataset_of(made)], axis=1)
        task = Task(
            name=NAME,
            kind="image" if self.inputs.picture else "text",
            train=split,
            validation=split,
            tests={"all": split},
            primary_test="all",
            beside=lambda _: beside,
            called=self.inputs.called,
        )
        return Whole(task, tuple(named), np.arange(len(self)))


# ---- labels ---------------------------------------------------------------------------------------------------------


def coded(values: Any, classes: Sequence[Any] | None, known: Sequence[str] | None, width: int | None) -> Any:
    """Labels as numbers of classes.

    Args:
        values: The labels, by name or number.
        classes: The classes' names in the order of their numbers, where the user gives them.
        known: The classifier's names of them.
        width: How many classes the classifier tells apart.

    Returns:
        The number of each label's class, shape (N,), and the classes' names.

    Raises:
        UserError: If a label is missing, or none of the classes, or there are more or fewer classes than there must be.
    """
    text_N = [cell_text(value) for value in listed(values)]
    if None in text_N:
        raise UserError(f"The label of row {text_N.index(None) + 1} is missing ({text_N.count(None):,} such rows).")
    different = list(dict.fromkeys(text for text in text_N if text is not None))
    numbers = all(map(is_whole, different))
    given = None if classes is None else [cell_text(name) or "" for name in classes]
    if given is not None and len(set(given)) < len(given):
        raise UserError("The parameter 'classes' names a class twice.")
    names = given if given is not None else list(known) if known is not None else None
    if names is None:
        names = sorted_names(different)
        if numbers and width is not None and all(0 <= int(text) < width for text in different):
            names = [str(i) for i in range(width)]
    if width is not None and len(names) != width:
        raise UserError(
            f"The labels are of {len(names)} classes, but the classifier tells {width} apart: give 'classes'."
        )
    if len(names) < 2:
        raise UserError("All labels are of one class, so there is nothing that a shortcut could tell.")
    number_of = dict(zip(different, class_numbers(different, names), strict=True))
    if numbers and not set(different) & set(names):
        number_of = {text: int(text) if 0 <= int(text) < len(names) else None for text in different}
    wrong = next((n for n, text in enumerate(text_N) if text is None or number_of[text] is None), None)
    if wrong is not None:
        text = text_N[wrong] or ""
        raise UserError(
            f"The label of row {wrong + 1} is '{text[:60]}', which is no class{did_you_mean(text, names)}; the classes "
            f"are {', '.join(names[:20])}."
        )
    return np.array([number_of[text] for text in text_N if text is not None], dtype=np.int64), names


# ---- kinds of data --------------------------------------------------------------------------------------------------


def listed(values: Any) -> list[Any]:
    """An array, tensor, series or list as a list.

    Raises:
        UserError: If it is none.
    """
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise UserError(f"An array or a list with one entry a row is needed. Got {values!r:.60}.")
    return list(values)


def _table(data: Any) -> dict[str, Any] | None:
    """Columns by name; None for data that are no table."""
    if isinstance(data, pd.DataFrame):
        return {str(name): data[name] for name in data.columns}
    if isinstance(data, datasets.Dataset):
        table = arrow_table(data)
        return {name: table.column(name).combine_chunks() for name in table.column_names}
    return {str(name): values for name, values in data.items()} if isinstance(data, Mapping) else None


def _inputs(data: Any) -> dict[str, Any]:
    """Texts or images, by what `Samples.of` calls them."""
    if hasattr(data, "ndim") and getattr(data, "ndim", 1) > 1:
        return {"images": np.asarray(data)}
    values = listed(data)
    if values and isinstance(values[0], np.ndarray):
        return {"images": np.stack(values) if len({np.shape(value) for value in values}) == 1 else values}
    if values and (isinstance(values[0], Path) or _are_files(values)):
        return {"images": _pictures(values)}
    return {"texts": _texts(values)}


def _are_files(values: list[Any]) -> bool:
    """Whether texts name pictures."""
    return all(isinstance(v, (str, Path)) and str(v).lower().endswith(_PICTURES) and Path(v).is_file() for v in values)


def _pictures(values: Any) -> list[str]:
    paths = listed(values)
    for row, path in enumerate(paths):
        if not isinstance(path, (str, Path)):
            raise UserError(f"Row {row + 1} of the data holds no picture's path. Got {path!r:.60}.")
        if not Path(path).is_file():
            raise UserError(f"There is no picture '{path}' (row {row + 1} of the data).")
    return [str(Path(path).absolute()) for path in paths]


def _texts(values: Any) -> list[str]:
    texts = listed(values)
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"Row {row + 1} of the data holds no text. Got {text!r:.60}.")
    return texts


def _ids(ids: Any, rows: int) -> list[str]:
    found = [cell_text(value) for value in listed(ids)]
    if len(found) != rows:
        raise UserError(f"The data have {rows:,} rows, but there are {len(found):,} ids.")
    if None in found:
        raise UserError(f"The id of row {found.index(None) + 1} is missing.")
    again = pd.Series(found).duplicated().to_numpy()
    if again.any():
        raise UserError(f"The id '{found[int(again.argmax())]}' stands twice: ids must all be different.")
    return [str(name) for name in found]


def _arrow(values: Any) -> pa.Array:
    """A further column; mixed entries as texts."""
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.Array.from_pandas(values) if isinstance(values, pd.Series) else pa.array(listed(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in listed(values)], pa.string())
