"""Tables of samples as files for other programs."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from evenhand.wording import FORMULA, csv_value

_ESCAPED = re.compile(f"""(?:^|,)"?'[{re.escape("".join(FORMULA))}]""")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, in which no text is a spreadsheet's formula."""
    words = table.select_dtypes(exclude=["number", "bool"])
    written = table.copy(deep=False)
    for name, column in words.items():
        written[name] = column.map(csv_value)
    written.columns = [csv_value(name) for name in written.columns]
    written.to_csv(path, index=False, errors="replace")  # half a surrogate pair is in no UTF-8 file


def has_escaped(path: Path) -> bool:
    """Whether a CSV file holds a text with an apostrophe before what a spreadsheet would compute."""
    with path.open(encoding="utf-8") as file:
        return any(_ESCAPED.search(line) for line in file)
