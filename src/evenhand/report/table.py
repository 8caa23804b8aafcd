"""A table, built once: the page, Markdown, LaTeX, CSV and JSON are all made from it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from evenhand.wording import csv_value, markdown_table, visible

Item = TypeVar("Item")

_ESCAPES = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "|": r"\textbar{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {sign: f"${name}$" for sign, name in {"±": r"\pm", "−": "-", "<": "<", ">": ">", "×": r"\times"}.items()}
    | {"α": r"$\alpha$", "λ": r"$\lambda$", "–": "--", "“": "``", "”": "''"}
)


@dataclass(frozen=True)
class Column:
    """A heading.

    Attributes:
        name: Its text; the page shows no headings where the first one is empty.
        kind: "number"; "" for words; "method" and "label" for what a row is named by; "foreign" for words of the user's
            data; "level" and "bar" as the audit's page draws them.
        only: "page" or "text" if the other one leaves it out.
        small: What the page writes below the name.
        starred: Whether a star stands behind the name.
    """

    name: str
    kind: str = "number"
    only: str = ""
    small: str = ""
    starred: bool = False


@dataclass(frozen=True)
class Value:
    """What stands in one place of a table.

    Attributes:
        text: As it is printed.
        data: The numbers behind it at full precision, by their names in CSV and JSON.
        sort: What the page sorts by where the text doesn't tell.
        style: On the page: of the place, of the bar in it, or of the swatch before a label.
        aside: What the page adds in small letters and brackets.
        below: What the page adds in small letters on another line.
        lines: Several texts instead of one, each on a line of its own.
    """

    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    sort: float | None = None
    style: str = ""
    aside: str = ""
    below: str = ""
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """A row; `notes`: what isn't finished of it, `done`: whether anything is, `kind`: its class on the page."""

    values: tuple[Value, ...]
    notes: tuple[str, ...] = ()
    done: bool = True
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Headings, rows, and what a reader must know of them.

    Attributes:
        name: What the page calls it for those who can't see it.
        head: The columns.
        rows: A value for each column.
        note: Its caption.
        more: What the page adds to the caption.
        title: What the page begins the caption with.
        kind: Its class on the page.
        sortable: Whether the page sorts it by a click.
        is_long: Whether CSV and JSON have a row for each value behind the first, or for each row.
    """

    name: str
    head: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    more: str = ""
    title: str = ""
    kind: str = ""
    sortable: bool = False
    is_long: bool = False

    def shown(self, place: str) -> Table:
        """The table with the columns of one place, "page" or "text"."""
        kept = [i for i, column in enumerate(self.head) if column.only in ("", place)]
        rows = (replace(row, values=tuple(row.values[i] for i in kept)) for row in self.rows)
        return replace(self, head=tuple(self.head[i] for i in kept), rows=tuple(rows))

    @property
    def data(self) -> list[dict[str, Any]]:
        """The rows as CSV and JSON have them."""
        if self.is_long:
            return [{**row.values[0].data, **value.data} for row in self.rows for value in row.values[1:]]
        return [{name: found for value in row.values for name, found in value.data.items()} for row in self.rows]

    def markdown(self) -> list[str]:
        """The table's lines, with its note above it."""
        head, rows, left, last = self._texts()
        return markdown_table(self.note, head, rows, left, last)

    def latex(self, caption: str) -> str:
        """The table with the rules of booktabs, as a `table` of its own."""
        import pandas as pd  # a second to import

        head, rows, left, last = self._texts()
        frame = pd.DataFrame([[_escaped(text) for text in row] for row in rows], columns=[_escaped(n) for n in head])
        return frame.style.hide(axis="index").to_latex(
            column_format="l" * left + "r" * (len(head) - left - last) + "l" * last,
            caption=_escaped(caption),
            position_float="centering",
            hrules=True,
        )

    def _texts(self) -> tuple[list[str], list[list[str]], int, int]:
        """Headings and rows as text, and how many columns of words are on the left and, behind numbers, at the end."""
        table = self.shown("text")
        head = [column.name + " *" * column.starred for column in table.head]
        numbers = [i for i, column in enumerate(table.head) if column.kind == "number"]
        left, end = (numbers[0], numbers[-1] + 1) if numbers else (len(head), len(head))
        return head, [[value.text for value in row.values] for row in table.rows], left, len(head) - end


METHOD = Column("Method", "method")


def table_of(
    name: str,
    items: Iterable[Item],
    columns: Sequence[tuple[Column | str, Callable[[Item], Value | str]]],
    row_kind: Callable[[Item], str] = lambda _: "",
    **looks: Any,
) -> Table:
    """A table with a row for each item.

    Args:
        name: As of the table.
        items: What the rows are of.
        columns: A heading, or the text of one above numbers, and what to read under it.
        row_kind: A row's class on the page.
        looks: All else of the table.
    """
    return Table(
        name,
        tuple(Column(head) if isinstance(head, str) else head for head, _ in columns),
        tuple(row(*(read(item) for _, read in columns), kind=row_kind(item)) for item in items),
        **looks,
    )


def row(*places: Value | str, kind: str = "") -> Row:
    """A row of values, or of texts alone."""
    return Row(tuple(Value(place) if isinstance(place, str) else place for place in places), kind=kind)


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV, numbers at full precision; every key of any row is a column, and no text is a formula."""
    rows = list(rows)
    stream = io.StringIO()
    # not pandas, whose columns can't be named by every text that JSON can hold
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(stream)
    writer.writerow(map(csv_value, columns))
    writer.writerows([csv_value(row.get(name)) for name in columns] for row in rows)
    return stream.getvalue().replace("\r\n", "\n")  # written as \r\n, or a \r within a text would not be quoted


def _escaped(text: str) -> str:
    return " ".join(visible(text).split()).translate(_ESCAPES)
