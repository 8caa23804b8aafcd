"""Where the rows of a split lie in the user's files, so that each can be found again.

Legend: N rows of a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Origins:
    """Where each row of a split lies.

    Attributes:
        file_N: Name of the file, or path of a picture below its folder, shape (N,).
        row_N: The row's number in its file, from 1 without a header; 0 where the whole file is the row, shape (N,).
        line_N: The line on which it begins; 0 where the file has no lines, shape (N,).
    """

    file_N: NDArray[Any]
    row_N: NDArray[np.int64]
    line_N: NDArray[np.int64]

    def where(self, i: int) -> str:
        """Where a row lies, as in "tickets.csv row 118 (line 131)"."""
        return where_text(str(self.file_N[i]), int(self.row_N[i]), int(self.line_N[i]))

    def columns(self) -> dict[str, Any]:
        """The same as columns of a table: `file`, and where there are any `row` and `line`."""
        import pandas as pd  # a second to import, and pages only write where a row lies

        found: dict[str, Any] = {"file": self.file_N}
        for name, number_N in (("row", self.row_N), ("line", self.line_N)):
            if number_N.any():
                found[name] = pd.arrays.IntegerArray(number_N.astype(np.int64), number_N == 0)
        return found

    def are_names(self, ids: Sequence[str | None]) -> bool:
        """Whether ids say no more than where the rows lie: the rows' numbers, FILE:ROW, or the files' names."""
        places = zip(ids, self.file_N, self.row_N, strict=True)
        return all(
            name is not None and (name.rpartition(":")[2] == str(row) if row else file.endswith(name))
            for name, file, row in places
        )


def where_text(file: str, row: int | None = None, line: int | None = None) -> str:
    """As in "tickets.csv row 118 (line 131)"; the file alone where it is the row."""
    numbered = f"{file} row {row}" if row else file
    return f"{numbered} (line {line})" if line else numbered
