"""Reading rows by the batch, and collation that keeps each sample's index.

Legend: B rows of a batch.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets.fingerprint import Hasher
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from evenhand.data.cached_tables import is_whole
from evenhand.data.decoding import decoded, undecoded
from evenhand.data.inputs import Preprocess, Tokenizing
from evenhand.losses import IGNORED, as_classes
from evenhand.validation import UserError

Collator = Callable[[Any], dict[str, Any]]


def arrow_table(dataset: datasets.Dataset) -> pa.Table:
    """All rows as Arrow has them: a view of its memory unless the rows were selected or shuffled."""
    chosen = dataset._indices
    if chosen is None:
        return cast(pa.Table, dataset.with_format("arrow")[:])
    # `datasets` would make a slice of each row and join them: some 500 bytes a row, and slow
    return dataset.data.table.take(chosen.column(0))


@contextmanager
def silent_datasets() -> Iterator[None]:
    """No progress bars of `datasets` inside; its switch is global, so it is set back afterwards."""
    shown = not datasets.are_progress_bars_disabled()
    if shown:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


class Rows(TorchDataset[Any]):
    """Some columns of a `datasets.Dataset`, read a whole batch at a time.

    Row-by-row reading costs more than training a small model on the row. Columns of numbers and of images with a
    fixed shape are read straight from Arrow's memory (a view: nothing is copied until a batch is), the others through
    `datasets`, pictures through `evenhand.data.decoding`. A batch is a dict of arrays, so it needs `collate` below or
    another collator that knows it.

    Args:
        dataset: The rows.
        columns: Columns to read, in this order.
    """

    def __init__(self, dataset: datasets.Dataset, columns: Sequence[str]) -> None:
        self.views: dict[str, NDArray[Any]] = {}
        for name in columns:
            # asked for one by one: where rows were selected, every column that is asked for is copied
            if _holds_numbers(dataset.features[name]):
                view = _numpy_view(arrow_table(dataset.select_columns(name)).column(name))
                if view is not None:
                    self.views[name] = view
        others = [name for name in columns if name not in self.views]
        self.others = undecoded(dataset.select_columns(others)) if others else None
        self.pictures = [name for name in others if isinstance(dataset.features[name], datasets.Image)]
        self.length = len(dataset)

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Any]:
        batch: dict[str, Any] = {name: view[rows] for name, view in self.views.items()}
        if self.others is not None:
            batch |= dict(self.others[list(rows)])
            batch |= {name: [decoded(stored) for stored in batch[name]] for name in self.pictures}
        return batch

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: values[0] for name, values in self.__getitems__([row]).items()}


class TokenRows(TorchDataset[Any]):
    """Texts of a `datasets.Dataset` as tokens, made once, when first asked for; `labels` and `index` beside them.

    The tokens lie in an Arrow file and are read from its memory map, so any number of texts takes little memory. It is
    in the cache folder of `datasets` where the texts are too and the `key` says what made the tokens (a later process
    finds them there), and a temporary one otherwise.

    A batch is a dict: the tokens as a list of arrays (`evenhand.data.inputs.Tokenizing` pads them), the rest as arrays.
    A row is a dict too, so that lengths can be seen (`gradient_norms` batches texts of like length).

    Args:
        dataset: The rows, with `text` and perhaps `text_pair`.
        tokenize: Makes lists of tokens of a dict of columns (`evenhand.data.inputs.Tokenizing.tokens`).
        key: Names what `tokenize` does (`evenhand.data.inputs.Tokenizing.key`); None if that isn't known.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        tokenize: Callable[[dict[str, Any]], dict[str, list[list[int]]]],
        key: str | None = None,
    ) -> None:
        names = dataset.column_names
        self.texts = dataset.select_columns([name for name in ("text", "text_pair") if name in names])
        self.views = Rows(dataset, [name for name in ("labels", "index") if name in names]).views
        self.tokenize = tokenize
        self.key = key

    @cached_property
    def tokens(self) -> dict[str, RaggedColumn]:
        """Each input's tokens."""
        table = arrow_table(self._tokenized())
        return {name: RaggedColumn(table.column(name)) for name in table.column_names}

    def _tokenized(self) -> datasets.Dataset:
        def as_table(rows: Any) -> pa.Table:
            return pa.table({n: pa.array(v, pa.list_(pa.int32())) for n, v in self.tokenize(dict(rows)).items()})

        place: dict[str, Any] = {}
        folder = _cache_folder(self.texts)
        if self.key is not None and folder is not None:
            fingerprint = Hasher.hash([self.texts._fingerprint, self.key])
            cached = folder / f"cache-{fingerprint}.arrow"
            place = {"cache_file_name": str(cached), "new_fingerprint": fingerprint}
            place["load_from_cache_file"] = is_whole(cached)
        else:
            scratch = tempfile.mkdtemp(prefix="evenhand-tokens-")
            weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
            # a fingerprint of its own, so that the function isn't pickled to make one
            place = {"cache_file_name": str(Path(scratch) / "tokens.arrow"), "new_fingerprint": "tokens"}
        with silent_datasets():
            return self.texts.map(as_table, batched=True, remove_columns=self.texts.column_names, **place)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, shape (n,)."""
        return self.tokens["input_ids"].lengths

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Any]:
        batch: dict[str, Any] = {name: column.take(rows) for name, column in self.tokens.items()}
        return batch | {name: view[rows] for name, view in self.views.items()}

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: values[0] for name, values in self.__getitems__([row]).items()}


AnyRows = Rows | TokenRows


class RaggedColumn:
    """A column of lists of integers, each read from Arrow's memory where it lies.

    Args:
        column: The column; nothing in it is missing.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks: list[Any] = [chunk for chunk in column.chunks if len(chunk)]
        self.values = [chunk.values.to_numpy() for chunk in chunks]
        self.bounds = [chunk.offsets.to_numpy() for chunk in chunks]  # where each row starts, and the end
        self.first = np.cumsum([0, *map(len, chunks)])  # row of each chunk

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Entries of each row, shape (n,)."""
        return np.concatenate([np.diff(bounds) for bounds in self.bounds]).astype(np.int64)

    def take(self, rows: Sequence[int]) -> list[NDArray[np.int32]]:
        """Some rows' entries: views, no copies."""
        row_B = np.asarray(rows)
        chunk_B = np.searchsorted(self.first, row_B, side="right") - 1
        found = []
        for chunk, row in zip(chunk_B, row_B - self.first[chunk_B], strict=True):
            bounds = self.bounds[chunk]
            found.append(self.values[chunk][bounds[row] : bounds[row + 1]])
        return found


def _cache_folder(dataset: datasets.Dataset) -> Path | None:
    """The folder of the files that the rows lie in, if there are any and `datasets` may write beside them."""
    folders = [Path(file["filename"]).parent for file in dataset.cache_files[:1]]
    return next((folder for folder in folders if os.access(folder, os.W_OK)), None)


def _holds_numbers(feature: Any) -> bool:
    if isinstance(feature, datasets.Value):
        return "string" not in feature.dtype and "binary" not in feature.dtype
    return isinstance(
        feature, (datasets.ClassLabel, datasets.Array2D, datasets.Array3D, datasets.Array4D, datasets.Array5D)
    )


def model_rows(split: datasets.Dataset, preprocess: Preprocess) -> AnyRows:
    """A split as a model reads it: texts as tokens, images as they are."""
    if isinstance(preprocess, Tokenizing):
        return TokenRows(split, preprocess.tokens, preprocess.key)
    return Rows(split, [c for c in ("pixel_values", "image", "labels", "index") if c in split.column_names])


def _numpy_view(column: pa.ChunkedArray) -> NDArray[Any] | None:
    """The column's memory as an array of shape (n,) or (n, *fixed shape); None if it holds anything else."""
    if column.null_count:
        return None
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    shape: tuple[int, ...] = ()
    if isinstance(array.type, datasets.features.features._ArrayXDExtensionType):
        shape = tuple(array.type.shape)
        if None in shape:
            return None
        array = array.storage
        while pa.types.is_list(array.type):
            array = array.flatten()  # respects the offset of a slice
    if array.null_count or not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return None
    return array.to_numpy(zero_copy_only=True).reshape(-1, *shape)


def collator_for(preprocess: Callable[[dict[str, Any]], dict[str, Tensor]]) -> Collator:
    """Turn a batch of `Rows` into a model's inputs with `labels` and `index`.

    Args:
        preprocess: Makes the model's inputs of the other columns (`evenhand.models.source.ModelSource.preprocessor`).
    """

    def collate(rows: dict[str, Any]) -> dict[str, Tensor]:
        batch = preprocess(rows)
        for name in ("labels", "index"):
            if name in rows:
                batch[name] = torch.from_numpy(np.ascontiguousarray(rows[name]))
        return batch

    return collate


def parted(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor, Tensor | None]:
    """The model's inputs of a batch, its labels, and its samples' indices if it has them."""
    inputs = dict(batch)
    if "labels" not in inputs:
        raise UserError("The batches hold no 'labels', so there is nothing to learn.")
    return inputs, inputs.pop("labels"), inputs.pop("index", None)


class IndexedDataset(TorchDataset[Any]):
    """Any map-style dataset of dicts, each with its row number as `index`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._indexed(self.dataset[row], row)

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        read = getattr(self.dataset, "__getitems__", None)
        many = [self.dataset[row] for row in rows] if read is None else read(rows)
        return [self._indexed(features, row) for row, features in zip(rows, many, strict=True)]

    @staticmethod
    def _indexed(features: Any, row: int) -> dict[str, Any]:
        if not isinstance(features, Mapping):
            raise UserError(
                f"The samples' bias signal is found by their index, for which each sample must be a dict. "
                f"Got {type(features).__name__}."
            )
        return {**features, "index": row}


class IndexKeeping:
    """A collator that carries `index` around another one that needn't know it.

    Args:
        collator: Any collator of transformers or of the user.
    """

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, features: Any) -> dict[str, Any]:
        """Collate a list of feature dicts, or a batch of `Rows`, and add `index` of shape (B,) if they have it."""
        if isinstance(features, Mapping):  # a batch of Rows: its collator keeps the index itself
            return self.collator(features)
        if not features or not isinstance(features[0], Mapping) or "index" not in features[0]:
            return self.collator(features)
        index_B = torch.tensor([int(f["index"]) for f in features])
        batch = self.collator([{k: v for k, v in f.items() if k != "index"} for f in features])
        if "labels" in batch and len(batch["labels"]) != len(index_B):
            raise UserError(
                f"The data collator turned {len(index_B)} samples into {len(batch['labels'])} labels, "
                "so samples and their indices can't be matched."
            )
        return {**batch, "index": index_B}


class LabelChecking:
    """A collator around another one, after which labels are integers; one that is no class is an error that names it.

    On the device the loss would only fail there. Here the labels are on the CPU. −100 is the label of a sample that
    doesn't count.

    Args:
        collator: Any collator of transformers or of the user.
        num_labels: C; None if the model doesn't say.
        kind: What the batches are for: training or evaluation.
    """

    def __init__(self, collator: Collator, num_labels: int | None, kind: str = "training") -> None:
        self.collator = collator
        self.num_labels = num_labels
        self.kind = kind

    def __call__(self, features: Any) -> dict[str, Any]:
        """Collate, and look at the labels."""
        batch = self.collator(features)
        label_B = batch.get("labels")
        where = f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind} batch"
        if not isinstance(label_B, torch.Tensor):
            return batch
        batch["labels"] = label_B = as_classes(label_B)
        if label_B.is_floating_point():
            raise UserError(
                "evenhand trains single-label classifiers, whose labels are integers, one a sample; regression and "
                f"multi-label data are refused. Got {label_B.dtype} in {where}."
            )
        if self.num_labels is None or label_B.ndim != 1:
            return batch
        outside = torch.nonzero(((label_B < 0) & (label_B != IGNORED)) | (label_B >= self.num_labels)).flatten()
        if len(outside):
            raise UserError(
                f"Labels must lie in 0…{self.num_labels - 1} for this model, or be {IGNORED} for a sample that doesn't "
                f"count. Got {label_B[outside[0]].item()} in {where}."
            )
        return batch
