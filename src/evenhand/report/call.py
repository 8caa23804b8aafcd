"""`evenhand.report`: one call that renders whatever has a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jinja2 import UndefinedError

from evenhand.report.audit_page import audit_markdown, render_audit_page
from evenhand.report.write import replace_file, report_page, write_report
from evenhand.validation import UserError

AUDIT_FORMAT = 2  # of audit.json, as this room reads it


class HasFolder(Protocol):
    """What lies in a folder, such as a finished run."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        ...


@runtime_checkable
class AnyAudit(HasFolder, Protocol):
    """An audit, of which this room needs the plain data only."""

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write the data and the scores into a folder."""
        ...


def report(result_or_folder: HasFolder | Path | str, path: Path | str | None = None) -> Path:
    """Render a result as one HTML file that needs no network.

    Args:
        result_or_folder: An audit, a finished run, a folder of runs, or a folder that an audit was saved in.
        path: Where to: a file ending in .html, or a folder, where it is called report.html or audit.html. None writes
            beside what is rendered.

    Returns:
        The page's path.

    Raises:
        UserError: If there is nothing to render, something can't be read, or the page can't be written.
    """
    what = result_or_folder
    if isinstance(what, AnyAudit):
        return _write(render_audit_page(what.as_dict()), path, what.folder / "audit.html")
    folder = Path(what) if isinstance(what, (Path, str)) else what.folder
    if (folder / "audit.json").exists() and not (folder / "record.json").exists():
        return _write(_page_of(folder / "audit.json"), path, folder / "audit.html")
    if path is None:
        return write_report(folder).html
    return _write(report_page(folder), path, folder / "report.html")


def write_audit(audit: AnyAudit, folder: Path | str | None = None) -> list[Path]:
    """Write an audit's page, `audit.md`, `audit.json` and the scores into a folder; its own unless given."""
    folder = audit.folder if folder is None else Path(folder)
    content = audit.as_dict()
    # all is computed before anything is written
    page, text = render_audit_page(content), audit_markdown(content)
    data = audit.save(folder)
    for name, written in (("audit.html", page), ("audit.md", text)):
        replace_file(folder / name, written)
    return [folder / "audit.html", folder / "audit.md", *data]


def _page_of(path: Path) -> str:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The audit '{path}' can't be read ({error}): repeat the audit.") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != AUDIT_FORMAT:
        raise UserError(
            f"The audit '{path}' has format {found!r}, but this version of evenhand reads format {AUDIT_FORMAT}: "
            "repeat the audit."
        )
    try:
        return render_audit_page(content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, UndefinedError) as error:
        raise UserError(
            f"The audit '{path}' isn't whole ({type(error).__name__}: {error}): repeat the audit."
        ) from error


def _write(page: str, path: Path | str | None, default: Path) -> Path:
    target = default if path is None else Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        target = target / default.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, page)
    except OSError as error:
        raise UserError(f"The page can't be written to '{target}' ({error.strerror}).") from error
    return target
