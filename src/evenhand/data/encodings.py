"""How text files are written: their encoding, given or found, and where a file isn't written so."""

from __future__ import annotations

import codecs
import gzip
import re
import string
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from evenhand.validation import UserError

UTF8 = "utf-8"
WESTERN = "cp1252"
"""Windows-1252, which holds every letter of Latin-1."""

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_PIECE = 2**20  # bytes
_ASCII = bytes(range(128))
_LETTERS = string.ascii_letters.encode()
_ENDS = re.compile("\r\n|\r|\n")


def is_packed(path: Path) -> bool:
    """Whether a text file's ending says that it is compressed."""
    return path.suffix.lower() == ".gz"


def open_bytes(path: Path) -> IO[bytes]:
    """The file, unpacked."""
    return cast(IO[bytes], gzip.open(path) if is_packed(path) else path.open("rb"))


def open_text(path: Path, encoding: str, newline: str) -> IO[str]:
    """The file, unpacked, without its byte order mark; its lines end as `open` has it for `newline`."""
    opener: Any = gzip.open if is_packed(path) else Path.open
    file = opener(path, mode="rt", encoding=encoding, newline=newline)
    try:
        if file.read(1) != "\ufeff":
            file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def encoding_name(encoding: str) -> str:
    """An encoding as messages name it."""
    return "Windows-1252 (cp1252)" if encoding == WESTERN else encoding.upper() if encoding[:4] == "utf-" else encoding


def check_encoding(owner: str, name: object) -> str:
    """The encoding's usual name.

    Raises:
        UserError: If there is no encoding of texts of that name.
    """
    try:
        b"a".decode(str(name), "replace")  # it may be one of something else, such as hex
        return codecs.lookup(str(name)).name
    except (LookupError, ValueError) as error:
        raise UserError(
            f"The 'encoding' parameter of {owner} must name an encoding of texts, such as utf-8, cp1252 or utf-16. "
            f"Got {name!r}."
        ) from error


def encoding_of(path: Path) -> str:
    """UTF-8, UTF-16 or UTF-32 by its mark, or Windows-1252; UTF-8 where it is none of them, which its reader finds."""
    state = path.stat()
    return _encoding(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _encoding(path: Path, *_state: int) -> str:
    with open_bytes(path) as file:
        start = file.read(4)
        for mark, encoding in _MARKS.items():
            if start.startswith(mark):
                return encoding
        for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if start[first::2] == b"\0\0" and start.count(0) == 2:
                return encoding
        file.seek(0)
        if _is_utf8(file):
            return UTF8
        file.seek(0)
        return WESTERN if _is_western(file) else UTF8


def _is_utf8(file: IO[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder(UTF8)()
    try:
        while piece := file.read(_PIECE):
            decoder.decode(piece)
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def _is_western(file: IO[bytes]) -> bool:
    """Whether it reads as Windows-1252: not as damaged UTF-8, binary data or another alphabet."""
    decoder = codecs.getincrementaldecoder(UTF8)("replace")
    high = letters = whole = broken = 0
    while piece := file.read(_PIECE):
        try:
            piece.decode(WESTERN)
        except UnicodeDecodeError:
            return False
        if b"\0" in piece:
            return False
        high += len(piece.translate(None, _ASCII))
        letters += len(piece) - len(piece.translate(None, _LETTERS))
        text = decoder.decode(piece)
        lost = text.count("\ufffd")
        broken += lost
        whole += len(text) - len(text.encode("ascii", "ignore")) - lost
    return whole <= broken and high <= letters


def misread(path: Path, encoding: str, own: bool) -> str:
    """One sentence that says where a file isn't written in an encoding; `own` is whether --encoding names another."""
    wanted = "save the file as UTF-8" if encoding == UTF8 else ""
    wanted = " or ".join(filter(None, [wanted, "name its encoding with --encoding" if own else ""]))
    line, what = _first_misread(path, encoding)
    return f"Line {line} of the file '{path}' is not {encoding_name(encoding)} text{what}: {wanted}."


def _first_misread(path: Path, encoding: str) -> tuple[int, str]:
    with open_bytes(path) as file:
        # a line of bytes is a line of text in all encodings that hold ASCII as it is
        by_line = "a\n".encode(encoding, "replace").endswith(b"a\n")
        for number, piece in enumerate(file if by_line else [file.read()]):
            try:
                piece.decode(encoding)
            except UnicodeDecodeError as error:
                before = _ENDS.split(piece[: error.start].decode(encoding, "replace"))
                column = len(before[-1].encode(encoding, "replace")) + 1
                what = f" (byte {column} of the line is {piece[error.start]:#04x})"
                if number == 0 and piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    what = " (it looks like UTF-16)"
                return number + len(before), what
            except UnicodeError:
                break
    return 1, ""  # such as a mark that isn't there
