"""Columns of a split as Arrow arrays with their features, and the dataset made of them.

Legend: N rows, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evenhand.data.rows import arrow_table
from evenhand.metrics import SplitGroups, group_shares

Column = tuple[Any, pa.Array | pa.ChunkedArray]
"""A feature of `datasets` and the values stored under it, perhaps in chunks."""

ALIGNMENTS = ("aligned", "conflicting")
TEXT_COLUMNS = ("text", "text_pair")
PICTURE_COLUMNS = ("image", "pixel_values")


def split_of(columns: dict[str, Column]) -> datasets.Dataset:
    """The split that consists of these columns and `index`, the number of each row."""
    length = len(next(iter(columns.values()))[1])
    return dataset_of({**columns, "index": (datasets.Value("int64"), pa.array(np.arange(length)))})


def dataset_of(columns: dict[str, Column]) -> datasets.Dataset:
    """The dataset of these columns alone."""
    features = datasets.Features({name: feature for name, (feature, _) in columns.items()})
    return datasets.Dataset(
        pa.Table.from_arrays([array for _, array in columns.values()], schema=features.arrow_schema)
    )


def class_column(value_N: NDArray[Any], names: Sequence[str]) -> Column:
    """Numbers that stand for names; a negative one for none."""
    return datasets.ClassLabel(names=list(names)), pa.array(value_N.astype(np.int64), mask=value_N < 0)


def member_column(member_NK: NDArray[np.bool_], names: Sequence[str]) -> Column:
    """Overlapping groups: for each row the numbers of those that it is in."""
    rows, values = np.nonzero(member_NK)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(member_NK)))]).astype(np.int32)
    feature = datasets.List(datasets.ClassLabel(names=list(names)))
    return feature, pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(np.int64)))


def pixel_column(image_NCHW: NDArray[np.uint8]) -> Column:
    """Images of one size as datasets' Array3D, sharing the memory (its own encoder takes seconds for 60,000)."""
    feature = datasets.Array3D(shape=image_NCHW.shape[1:], dtype="uint8")
    nested: pa.Array = pa.array(image_NCHW.reshape(-1))
    for axis in (3, 2, 1):
        length = image_NCHW.shape[axis]
        count = int(np.prod(image_NCHW.shape[:axis]))
        nested = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * length), nested)
    arrow_type: Any = datasets.Features({"pixels": feature}).arrow_schema.field("pixels").type
    return feature, pa.ExtensionArray.from_storage(arrow_type, nested)


def picture_column(paths: Iterable[str]) -> Column:
    """Picture files of any size, which are opened when a row is read."""
    names = pa.array(list(paths), pa.string())
    empty = pa.nulls(len(names), pa.binary())
    return datasets.Image(), pa.StructArray.from_arrays([empty, names], ["bytes", "path"])


def text_column(values: Sequence[str]) -> Column:
    """Texts, such as the user's own names of the rows."""
    return datasets.Value("string"), pa.array(list(values), pa.string())


def leaking_columns(
    label_N: NDArray[np.int64], attribute_N: NDArray[np.int64], labels: Sequence[str], attributes: Sequence[str]
) -> dict[str, Column]:
    """Labels and an attribute of which each label has its own; groups are label × {aligned, conflicting}."""
    alignment_N = (attribute_N != label_N).astype(np.int64)
    groups = [f"{label} {alignment}" for label in labels for alignment in ALIGNMENTS]
    return {
        "labels": class_column(label_N, labels),
        "attribute": class_column(attribute_N, attributes),
        "alignment": class_column(alignment_N, ALIGNMENTS),
        "group": class_column(2 * label_N + alignment_N, groups),
    }


def crossed_columns(
    label_N: NDArray[np.int64],
    attribute_N: NDArray[np.int64],
    labels: Sequence[str],
    attributes: Sequence[str],
    home: Sequence[int] | None = None,
) -> dict[str, Column]:
    """Labels and an attribute that they lean to; groups are label × attribute, as "label, attribute".

    Args:
        label_N: The classes, shape (N,).
        attribute_N: The attributes, shape (N,).
        labels: Names of the classes.
        attributes: Names of the attributes.
        home: The attribute that each class leans to; None: that of its own number.
    """
    groups = [f"{label}, {attribute}" for label in labels for attribute in attributes]
    expected_N = label_N if home is None else np.asarray(home)[label_N]
    return {
        "labels": class_column(label_N, labels),
        "attribute": class_column(attribute_N, attributes),
        "alignment": class_column(attribute_N != expected_N, ALIGNMENTS),
        "group": class_column(len(attributes) * label_N + attribute_N, groups),
    }


Inputs = Literal["text", "image", "pictures"]


def membership(split: datasets.Dataset, column: str) -> dict[str, NDArray[np.bool_]]:
    """Name → which rows carry it, each of shape (n,); empty if the split has no such column."""
    if column not in split.column_names:
        return {}
    feature: Any = split.features[column]
    if isinstance(feature, datasets.List):
        return _overlapping(split, column, feature.feature.names)
    value_N = column_values(split, column)
    return {name: value_N == i for i, name in enumerate(feature.names)}


def split_groups(split: Any, train: Any = None) -> SplitGroups:
    """What is known of a split's rows, and of the groups in the training split.

    Nothing is known where a split is no `datasets.Dataset`, or a column has no names.
    """
    return SplitGroups(_known(split, "group"), _known(split, "alignment"), group_shares(_known(train, "group")))


def _known(split: Any, column: str) -> dict[str, NDArray[np.bool_]]:
    if not isinstance(split, datasets.Dataset) or column not in split.column_names:
        return {}
    feature = split.features[column]
    named = feature.feature if isinstance(feature, datasets.List) else feature
    return membership(split, column) if isinstance(named, datasets.ClassLabel) else {}


def _overlapping(split: datasets.Dataset, column: str, names: list[str]) -> dict[str, NDArray[np.bool_]]:
    lists: Any = arrow_table(split.select_columns(column)).column(column).combine_chunks()
    compute: Any = pc  # its functions are made at run time
    rows = compute.list_parent_indices(lists).to_numpy()  # of each entry of each row's list
    values = compute.list_flatten(lists).to_numpy()
    members = {name: np.zeros(len(split), dtype=bool) for name in names}
    for i, name in enumerate(names):
        members[name][rows[values == i]] = True
    return members


def entries(split: datasets.Dataset, column: str) -> pa.ChunkedArray:
    """A column as Arrow has it; numbers that stand for names as these names."""
    found: Any = arrow_table(split.select_columns(column)).column(column)
    feature: Any = split.features[column]
    if not isinstance(feature, datasets.ClassLabel):
        return found
    names = [None if code is None or code < 0 else feature.names[code] for code in found.to_pylist()]
    return pa.chunked_array([pa.array(names, pa.string())])


def column_values(split: datasets.Dataset, column: str) -> NDArray[Any]:
    """A column of numbers as an array of shape (n,)."""
    return arrow_table(split.select_columns(column)).column(column).to_numpy()
