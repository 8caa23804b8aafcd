"""What a run predicted for every sample of its primary test set, in a file beside its record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from evenhand.files import whole_file
from evenhand.runs.record import Record
from evenhand.validation import UserError

if TYPE_CHECKING:
    import pandas as pd

Predictions: TypeAlias = dict[str, list[Any]]
"""Column → its value for each sample of the test set, in its order."""

FILE = "predictions.parquet"
_RUN = b"configuration"  # in the file's metadata: the hash of the run that it is of
_NEEDED = ("index", "label", "prediction", "standing")


def write_predictions(folder: Path, configuration: str, found: pd.DataFrame) -> None:
    """Leave a run's predictions in its folder.

    Args:
        folder: The run's folder.
        configuration: The run's hash.
        found: The predictions, as `evaluation.samples.kept_predictions` gives them.
    """
    table = pa.Table.from_pandas(found, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _RUN: configuration.encode()})
    with whole_file(folder / FILE) as partial:
        pq.write_table(table, partial, compression="zstd")


def has_predictions(run: Record) -> bool:
    """Whether the run's predictions lie beside its record."""
    return run.path.with_name(FILE).is_file()


def read_predictions(run: Record) -> Predictions:
    """The predictions beside a run's record.

    Raises:
        UserError: If they can't be read, or are those of another run.
    """
    path = run.path.with_name(FILE)
    try:
        table = pq.read_table(path)
        found: Predictions = table.to_pydict()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(f"The predictions '{path}' can't be read ({reason}); delete them or repeat the run.") from error
    if (table.schema.metadata or {}).get(_RUN) != run.configuration.encode():
        raise UserError(f"The file '{path}' holds the predictions of another run: delete it.")
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise UserError(f"The predictions '{path}' lack the column '{missing[0]}'; delete them or repeat the run.")
    return found
