"""Files that decide a result, told apart by name, size and content, so that no run is taken for one on other files."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any, cast

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings of files of which a folder may hold very many."""

READ_WHOLE = 2**30
"""Bytes of pictures whose content is looked at; of larger sets only names and sizes count."""

LISTED = 20
"""Files that a description names one by one; of more, it counts the pictures of each folder together."""

_PIECE = 2**20  # bytes


@dataclass(frozen=True)
class File:
    """A file, unpacked: `x` and `x.gz` of the same content are the same.

    Attributes:
        name: Its path below the folder of all files, with slashes, without the ending .gz.
        size: Bytes of its content.
        sha256: Digest of its content; None where only name and size were looked at.
    """

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Files:
    """All files that one option leads to, in the order of their names."""

    files: tuple[File, ...]

    @cached_property
    def sha256(self) -> str:
        """Digest of names, sizes and contents."""
        return _digest(self.files)

    def as_dict(self) -> dict[str, Any]:
        """The files as a record has them; where they are many, the pictures of a folder are one entry."""
        shown = self.files if len(self.files) <= LISTED else _by_folder(self.files)
        return {
            "sha256": self.sha256,
            "count": len(self.files),
            "bytes": sum(file.size for file in self.files),
            "listed": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in shown],
        }


def read_files(paths: Iterable[Path], root: Path | None = None) -> Files:
    """Look at files.

    Args:
        paths: The files.
        root: What their names are relative to; the innermost folder that holds all of them if None.

    Raises:
        OSError: If one can't be read.
    """
    found = sorted({path.absolute() for path in paths})
    if not found:
        raise FileNotFoundError("there is no file")
    base = root.absolute() if root is not None else os.path.commonpath([path.parent for path in found])
    states = [path.stat() for path in found]
    whole = sum(s.st_size for p, s in zip(found, states, strict=True) if _is_picture(p.name)) <= READ_WHOLE
    files = []
    for path, state in zip(found, states, strict=True):
        name = os.path.relpath(path, base).replace(os.sep, "/")
        if whole or not _is_picture(name):
            size, content = _content(str(path), *_version(state))
            files.append(File(plain_name(name), size, content))
        else:
            files.append(File(name, state.st_size, None))
    return Files(tuple(sorted(files, key=lambda file: file.name)))


def is_missing_path(name: str) -> bool:
    """Whether a name can only be a path, and nothing is there: the hub's names are NAME or OWNER/NAME."""
    first = name.partition("/")[0]
    looks = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/") or "\\" in name
    return (looks or ("/" in name and Path(first).is_dir())) and not Path(name).expanduser().exists()


def plain_name(name: str) -> str:
    """A file's name without the ending of a compressed one."""
    return name[: -len(".gz")] if name.lower().endswith(".gz") else name


def _version(state: os.stat_result) -> tuple[int, int, int, int]:
    """What changes whenever a file's content does, also where its time is put back."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


@lru_cache(maxsize=2**17)
def _content(path: str, *_state: int) -> tuple[int, str]:
    """Size and digest of a file's content, unpacked; looked at once while the file stays as it is."""
    if path.lower().endswith(".gz"):
        try:
            with gzip.open(path) as file:
                return _sized(cast(IO[bytes], file))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            pass  # whoever reads it will say so
    with Path(path).open("rb") as file:
        return _sized(file)


def _sized(file: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _digest(files: Iterable[File]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.size}\0{file.sha256}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _by_folder(files: tuple[File, ...]) -> list[File]:
    """The pictures of each top folder as one entry; what isn't a picture stays."""
    shown = [file for file in files if not _is_picture(file.name)]
    folders: dict[str, list[File]] = {}
    for file in files:
        if _is_picture(file.name):
            folders.setdefault(file.name.rpartition("/")[0].partition("/")[0], []).append(file)
    for folder, inner in folders.items():
        name = f"{folder}/* ({len(inner):,} pictures)" if folder else f"{len(inner):,} pictures"
        shown.append(File(name, sum(file.size for file in inner), _digest(inner)))
    return shown


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)
