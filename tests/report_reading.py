"""Reading a report's pages and tables in tests."""

from __future__ import annotations

from html.parser import HTMLParser


class Cells(HTMLParser):
    """The texts of the cells of every table, [table][row][cell], and of other elements by tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page.split("<footer>")[0])  # what follows is plotly

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in ("br", "img", "meta"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.texts[tag][-1] += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data


def lede(cells: Cells) -> str:
    """The headline: the paragraph after the page's heading."""
    return cells.texts["p"][0]
