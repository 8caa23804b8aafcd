"""Which files of users are tables, and why others are refused."""

from __future__ import annotations

from pathlib import Path

from evenhand.validation import UserError, did_you_mean

READABLE = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
"""Endings of tables; the texts among them may be compressed (.gz)."""

_PACKED = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz", ".joblib")
_SHEETS = (".xlsx", ".xls", ".ods")


def table_format(path: Path) -> str:
    """`csv`, `tsv`, `jsonl` or `parquet`, by the file's ending.

    Raises:
        UserError: If there is no such file, it is empty, or of a kind that isn't read.
    """
    if not path.is_file():
        raise UserError(f"There is no file '{path}'{_did_you_mean_file(path)}.")
    ending = path.suffix.lower()
    if ending == ".gz":
        ending = Path(path.stem).suffix.lower()
        if ending not in READABLE or ending == ".parquet":
            raise UserError(f"The file '{path}' is an archive, which is not opened: unpack it first.")
    if path.name.lower().endswith(_PACKED):
        raise UserError(f"The file '{path}' is an archive, which is not opened: unpack it first.")
    if ending in _PICKLED:
        raise UserError(
            f"The file '{path}' may hold a pickle, which could run any code and is never loaded: save the data as "
            "Parquet, CSV or JSONL."
        )
    if ending in _SHEETS:
        raise UserError(f"The file '{path}' is a spreadsheet: save the sheet as CSV (UTF-8).")
    if ending not in READABLE:
        raise UserError(
            f"The file '{path}' is of no kind that can be read: CSV (.csv), TSV (.tsv), JSONL (.jsonl) or Parquet "
            "(.parquet)."
        )
    if path.stat().st_size == 0:
        raise UserError(f"The file '{path}' is empty (0 bytes).")
    return READABLE[ending]


def is_table(path: Path) -> bool:
    """Whether the file's ending is that of a table."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix in READABLE


def _did_you_mean_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
