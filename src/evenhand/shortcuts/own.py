"""Shortcuts that come from Python: a function of a row, a function of a batch of rows, or an array for each split.

Legend: N rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from evenhand.shortcuts.samples import NotToldError, Samples
from evenhand.validation import UserError, count


@dataclass(frozen=True, eq=False)
class OwnShortcut:
    """A rule of the user's own, which has a name but no spelling.

    Attributes:
        name: What tables and sentences call it.
        values: Either split → the value of each row (words, numbers, True or False, None where it is missing), or a
            function of a row, a mapping from columns to entries, that returns its value.
        batched: Whether the function takes a batch, a mapping from columns to lists or arrays, and returns as many
            values as it has rows.
    """

    name: str
    values: Mapping[str, Any] | Callable[[dict[str, Any]], Any]
    batched: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise UserError(f"A shortcut that comes from Python needs a name. Got {self.name!r}.")
        if not callable(self.values) and not isinstance(self.values, Mapping):
            raise UserError(
                f"The shortcut '{self.name}' must be a function, or a mapping from splits to arrays. "
                f"Got {type(self.values).__name__}."
            )
        if self.batched and not callable(self.values):
            raise UserError(f"The shortcut '{self.name}' is given as arrays, so `batched` has no meaning.")

    def __str__(self) -> str:
        return self.name

    @cached_property
    def sha256(self) -> str:
        """Digest of the values of each split, of a shortcut that is given as arrays."""
        assert isinstance(self.values, Mapping)
        plain = {name: [_plain(value) for value in _iterated(self.name, of)] for name, of in self.values.items()}
        return hashlib.sha256(json.dumps([self.name, plain], sort_keys=True).encode()).hexdigest()

    @property
    def kind(self) -> str:
        """As of a shortcut that has a spelling."""
        return "python"

    @property
    def spelling(self) -> str:
        """There is none: a command, a file or a record can't hold a rule that is a piece of Python."""
        raise UserError(
            f"The shortcut '{self.name}' comes from Python, so it has no spelling; give it in Python again."
        )

    def read(self, samples: Samples) -> pa.ChunkedArray:
        """The value of each row of a split.

        Raises:
            UserError: If the split has no array, lengths differ, the function fails, or values are of other types.
        """
        found = self._called(samples) if callable(self.values) else self._given(self.values, samples)
        if len(found) != len(samples):
            raise UserError(
                f"The shortcut '{self.name}' needs a value for each row of the split '{samples.name}': "
                f"{count(len(samples), 'row')}. Got {count(len(found), 'value')}."
            )
        for row, value in enumerate(found):
            if value is not None and not isinstance(value, (str, bool, int, float)):
                raise UserError(
                    f"The values of the shortcut '{self.name}' must be words, numbers, True, False or None. "
                    f"Got {type(value).__name__} for row {row} of the split '{samples.name}'."
                )
        return pa.chunked_array([_array(found)])

    def _given(self, arrays: Mapping[str, Any], samples: Samples) -> list[Any]:
        if samples.name not in arrays:
            raise NotToldError(
                f"The shortcut '{self.name}' is given for {', '.join(map(str, arrays)) or 'no split'}, but not for the "
                f"split '{samples.name}'."
            )
        return [_plain(value) for value in _iterated(self.name, arrays[samples.name])]

    def _called(self, samples: Samples) -> list[Any]:
        function: Any = self.values
        found: list[Any] = []
        for batch in samples.batches():
            rows = len(next(iter(batch.values()), []))
            steps = [batch] if self.batched else [{c: v[row] for c, v in batch.items()} for row in range(rows)]
            for step in steps:
                where = f"from row {len(found)} on" if self.batched else f"on row {len(found)}"
                try:
                    result = function(step)
                except Exception as error:
                    raise UserError(
                        f"The function of the shortcut '{self.name}' failed {where} of the split '{samples.name}': "
                        f"{type(error).__name__}: {error}."
                    ) from error
                values = _iterated(self.name, result) if self.batched else [result]
                if self.batched and len(values) != rows:
                    raise UserError(
                        f"The function of the shortcut '{self.name}' must return a value for each of {rows:,} rows "
                        f"{where} of the split '{samples.name}'. Got {len(values):,}."
                    )
                found += [_plain(value) for value in values]
        return found


def _iterated(name: str, values: Any) -> list[Any]:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.to_pylist()
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise UserError(f"The values of the shortcut '{name}' must be a list or an array. Got {type(values).__name__}.")
    return list(values)


def _plain(value: Any) -> Any:
    """NumPy's and torch's scalars as Python's; NaN is a missing value."""
    if hasattr(value, "item") and not isinstance(value, (str, bool, int, float)) and np.ndim(value) == 0:
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def _array(values: list[Any]) -> pa.Array:
    """Values of one type as they are, of several types by their words."""
    types = {type(value) for value in values if value is not None}
    if len(types) > 1 and types & {bool, str}:
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    if types <= {int, float} and float in types:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, OverflowError):  # integers beyond 64 bits
        return pa.array([None if value is None else str(value) for value in values], pa.string())
