"""Files: those that decide a result are told apart by content; those of ours appear whole or not at all.

What is written has reached the disk before it gets its name. A lock keeps a second process from the same place.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from filelock import FileLock, Timeout

from evenhand.validation import UserError

PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".png", ".apng", ".bmp", ".dib", ".gif", ".ico", ".webp", ".avif", ".avifs", ".tif", ".tiff", ".qoi"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
"""Endings of files of which a folder may hold very many."""

READ_WHOLE = 2**30
"""Bytes of pictures whose content is looked at; of larger sets only names and sizes count."""

LISTED = 20
"""Files that a description names one by one; of more, it counts the pictures of each folder together."""

_Content = TypeVar("_Content")

LOCK = ".lock"
"""The file by which a process keeps others out of a folder."""

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


def content_digest(path: Path) -> str:
    """SHA-256 of a file's content, looked at once while the file stays as it is."""
    return _content(str(path), *_version(path.stat()))[1]


def found_below(folder: Path, name: str) -> list[Path]:
    """The files of a name at or below a folder; other processes may make and remove folders meanwhile."""
    return sorted(Path(place, name) for place, _, names in os.walk(folder) if name in names)


def if_there(read: Callable[[Path], _Content], path: Path) -> _Content | None:
    """What is read of a file; None if the file is gone, as where another process removes runs meanwhile.

    Raises:
        UserError: If the file is there and can't be read.
    """
    try:
        return read(path)
    except UserError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return None
        raise


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


# ---- writing --------------------------------------------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to; what was written there takes the place of `path` at the end, whole or not at all.

    Raises:
        UserError: If no file can be written there.
    """
    partial = _beside(path)
    try:
        with _told("file", path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _told("file", path, within=partial):
            yield partial
        with _told("file", path):
            _sync(partial)
            partial.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all; half a surrogate pair, which UTF-8 has no form for, becomes "?".

    Raises:
        UserError: If no file can be written there.
    """
    with whole_file(path) as partial:
        partial.write_bytes(text.encode("utf-8", "replace"))


def settle(partial: Path, final: Path) -> None:
    """A filled folder takes the place of another, once all that it holds has reached the disk.

    Of several that race for a place, each is there whole for a while and one stays.
    """
    _sync_tree(partial)
    settled = False
    while not settled:
        old = _beside(final)
        if final.is_dir():
            with suppress(FileNotFoundError):  # another process was quicker to take it away
                final.rename(old)
        try:
            partial.rename(final)
            settled = True
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another came there meanwhile
                with suppress(OSError):
                    old.rename(final)
                raise
        shutil.rmtree(old, ignore_errors=True)
    _sync_folder(final.parent)


def settle_if_first(partial: Path, final: Path) -> None:
    """A filled folder takes a place that is free; nothing happens to one that is there already."""
    _sync_tree(partial)
    try:
        partial.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(partial, ignore_errors=True)
    _sync_folder(final.parent)


@contextmanager
def whole_folder(path: Path, settle: Callable[[Path, Path], None] = settle) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `path` at the end, whole or not at all.

    Args:
        path: The folder.
        settle: Puts the first folder in the place of the second.

    Raises:
        UserError: If it can't be written there.
    """
    partial = _beside(path)
    try:
        with _told("folder", path):
            partial.mkdir(parents=True)
        with _told("folder", path, within=partial):
            yield partial
        with _told("folder", path):
            settle(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_place(path: Path) -> None:
    """Refuse a path that no file can be written to, before the work whose result it is to hold; nothing is written.

    Raises:
        UserError: If it is a folder, its name is too long, or its folder can't be made or written to.
    """
    with _told("file", path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """One process at a time goes on; a killed process gives the lock back.

    Args:
        path: The lock's file.
        busy: What another process is told; None makes it wait.

    Raises:
        UserError: With `busy`, if a process is inside.
    """
    lock = FileLock(path, timeout=-1 if busy is None else 0)
    with _told("folder", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(busy) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Work in a folder that no other process works in; what a killed one left half-written goes.

    Raises:
        UserError: If another process is at work there, or the folder can't be written to.
    """
    busy = f"Another process is at work in the folder '{folder}': wait for its end, or choose another folder."
    with locked(folder / LOCK, busy):
        for left in (*folder.glob(".*.partial"), *folder.glob("*/.*.partial")):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # a finished folder holds no lock; who opened it sees that it is gone
                (folder / LOCK).unlink()


@contextmanager
def _told(kind: str, path: Path, within: Path | None = None) -> Iterator[None]:
    """What keeps a file or folder from being written, in one sentence.

    With `within`, work goes on inside that has errors of its own: only a full disk and what befalls files in that
    folder are told.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        where, reason = str(getattr(error, "filename", "")), getattr(error, "strerror", None)
        # NumPy and safetensors have words of their own for a disk that fills
        full = re.search(r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written", str(error))
        inside = within is None or where.startswith(str(within))
        if not full and not (isinstance(error, OSError) and inside):
            raise
        reason = reason or (os.strerror(errno.ENOSPC) if full else error)
        raise UserError(f"The {kind} '{path}' can't be written to ({reason}).") from error


def _beside(path: Path) -> Path:
    """A name of its own for what isn't whole yet; `path` may have the longest name that there can be."""
    return path.with_name(f".{uuid.uuid4().hex[:8]}.partial")


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_tree(top: Path) -> None:
    for folder, _, names in os.walk(top, topdown=False):
        for name in names:
            _sync(Path(folder, name))
        _sync_folder(Path(folder))


def _sync_folder(path: Path) -> None:
    """The names in a folder reach the disk, where the file system has that."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
