"""What lies in a folder of the user's, hidden files left out and links followed, the same for tables and pictures."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from evenhand.validation import UserError, count

_HIDDEN = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir"}
)  # what systems leave in folders without a dot before it


def is_hidden(name: str) -> bool:
    """Whether a file or folder is of the system or a tool, not of the data: `.git`, `._1.png`, `Thumbs.db`."""
    return name.startswith(".") or name.lower() in _HIDDEN


def is_file(path: Path) -> bool:
    """Whether there is such a file; not where no file can be called so, as by a name of 300 letters."""
    try:
        return path.is_file()
    except OSError:
        return False


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, but what is hidden.

    Raises:
        UserError: If it can't be read, or holds a link that leads nowhere.
    """
    return [Path(entry.path) for entry in _entries(folder)]


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, in the order of paths, but what is hidden.

    A link back to a folder around it is given as if it were a file.
    """
    yield from _below(folder, (folder.resolve(),))


def _below(folder: Path, around: tuple[Path, ...]) -> Iterator[Path]:
    for entry in _entries(folder):
        path = Path(entry.path)
        if not entry.is_dir():
            yield path
            continue
        real = path.resolve() if entry.is_symlink() else around[-1] / entry.name
        if real in around:
            yield path
        else:
            yield from _below(path, (*around, real))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """As `visible`; an entry knows its kind without another look at the disk, which counts where pictures are many."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"The folder '{folder}' can't be read ({error.strerror}).") from error
    for entry in found:
        if entry.is_symlink() and not Path(entry.path).exists():
            target = Path(entry.path).readlink()
            raise UserError(f"The link '{entry.path}' leads to '{target}', which is not there.")
    return found


def passed_over(folder: Path, files: Iterable[Path], what: str) -> list[str]:
    """A note on files that are not read: how many of each ending, with an example; none where there are none.

    Args:
        folder: Where they lie.
        files: The files.
        what: What they are no …, such as `pictures`.
    """
    by_ending: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_ending["links back" if path.is_dir() else path.suffix.lower() or "without an ending"].append(path)
    if not by_ending:
        return []
    kinds = [
        f"{len(found):,} {ending} (such as {found[0].relative_to(folder).as_posix()})"
        for ending, found in sorted(by_ending.items(), key=lambda kind: -len(kind[1]))
    ]
    total = sum(map(len, by_ending.values()))
    verb = "is" if total == 1 else "are"
    return [
        f"{count(total, 'file')} of '{folder.name}' {verb} left out as no {what} that can be read: {', '.join(kinds)}."
    ]
