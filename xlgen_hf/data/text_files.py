"""Text files: lines with their numbers, decompressed and decoded, the encoding recognised where it is plain."""

from __future__ import annotations

import codecs
import gzip
import io
import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError

__all__ = ["detect_encoding", "iter_lines", "line_end", "line_list", "open_binary"]

logger = logging.getLogger(__name__)

_HEAD = 1 << 16  # bytes that are looked at for a byte order mark and for zero bytes
_STEP = 1 << 20  # bytes that are searched at once for the first character beyond ASCII
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_NOT_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_WESTERN = 0.3  # fraction of letters beyond ASCII; text with more of them is hardly in a Western language
_FIRST_END = re.compile(r'(?:[^"\r\n]|"[^"]*")*([\r\n]+)')  # of a line of CSV, the first that is not in quotes
_ADVICE = "save it as UTF-8, or, if it holds rows, give its encoding (encoding=..., --encoding)"


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed if its name ends in .gz.

    Raises:
        DataError: if there is no such file, it cannot be opened, or is not a complete gzip file.
    """
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield file  # type: ignore[misc]  # GzipFile has all that is used here
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise DataError(f"The file is not a complete gzip file ({err}).", file=path) from err
    except FileNotFoundError as err:
        raise DataError("There is no such file.", file=path) from err
    except OSError as err:
        raise DataError(f"The file cannot be read: {err.strerror or err}.", file=path) from err


def detect_encoding(path: Path, given: str | None = None, *, guess: bool = False) -> str:
    """The encoding of a text file.

    Args:
        path: the file.
        given: what the user says; taken as it is.
        guess: whether bytes that are not UTF-8 may be taken as cp1252, which is reported in the log. Only where the
            first of them is not part of a UTF-8 character, so that a damaged UTF-8 file stays an error.

    Returns:
        A name that Python knows; `utf-8` unless something speaks for another.
    """
    if given is not None:
        return "utf-8-sig" if codecs.lookup(given).name == "utf-8" else given
    with open_binary(path) as file:
        head = file.read(_HEAD)
        found = next((name for mark, name in _MARKS if head.startswith(mark)), None) or _utf16_without_mark(head)
        if found is not None:
            if found != "utf-8-sig":
                logger.info("%s: read as %s.", path, found.upper())
            return found
        if guess:
            start = _first_beyond_ascii(head, file)
            if start is not None and not _begins_utf8(start):
                return _western(path, start)
    return "utf-8"


def _utf16_without_mark(head: bytes) -> str | None:
    """UTF-16 of mostly Latin letters has a zero in every second byte; UTF-8 text has none."""
    if len(head) < 4:
        return None
    for offset, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, letters = head[offset::2], head[1 - offset :: 2]
        starts = zeros[0] == zeros[1] == 0 and letters[0] != 0 and letters[1] != 0
        if starts and zeros.count(0) > 0.4 * len(zeros) and letters.count(0) == 0:
            return name
    return None


def _first_beyond_ascii(block: bytes, file: BinaryIO) -> bytes | None:
    """The file from its first byte beyond ASCII on, as much as is at hand; None where all is ASCII."""
    while block:
        match = _BEYOND_ASCII.search(block)
        if match:
            return block[match.start() :] + file.read(_HEAD)
        block = file.read(_STEP)
    return None


def _begins_utf8(content: bytes) -> bool:
    length = 2 if content[0] < 0xE0 else 3 if content[0] < 0xF0 else 4
    try:
        content[:length].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _western(path: Path, content: bytes) -> str:
    """`cp1252`, reported with an example; UTF-8 where the bytes do not look like it, which then is an error."""
    beyond = len(_BEYOND_ASCII.findall(content))
    if _NOT_CP1252.search(content) or beyond > _WESTERN * max(len(re.findall(rb"[A-Za-z\x80-\xff]", content)), 4):
        return "utf-8"
    example = content[:20].decode("cp1252").splitlines()[0]
    logger.info(
        "%s: not UTF-8; read as cp1252, where its first character beyond ASCII begins %r. If that is wrong, %s.",
        path,
        example,
        _ADVICE,
    )
    return "cp1252"


def line_end(path: Path, encoding: str) -> str:
    r"""What ends the lines of a table: `\n`, after `\r` or not, or `\r` alone, as old programs for the Mac write.

    Args:
        path: the file, decompressed if its name ends in .gz.
        encoding: its encoding.
    """
    with open_binary(path) as file:
        head = file.read(_HEAD)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    first = _FIRST_END.match(text)
    whole = first is not None and (first.end() < len(text) or len(head) < _HEAD)  # not cut within \r\n
    return "\r" if first is not None and whole and "\n" not in first[1] else "\n"


def iter_lines(
    path: Path, encoding: str | None = None, end: str = "\n", *, guess: bool = False
) -> Iterator[tuple[int, str]]:
    r"""Lines of a text file with their numbers from 1; a byte order mark is dropped, the line's end kept.

    Args:
        path: the file, decompressed if its name ends in .gz.
        encoding: its encoding; by default UTF-8, or UTF-16 where that is plain.
        end: what ends a line, `\n` or `\r`, see `line_end`.
        guess: whether it may be cp1252, see `detect_encoding`; so for what is written with an editor, not for JSON.

    Raises:
        DataError: if a line cannot be decoded; says where.
    """
    encoding = encoding or detect_encoding(path, guess=guess)
    if end != "\n" or codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
        yield from _other_lines(path, encoding, end)
        return
    offset = 0
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as err:
                place = f"byte {offset + err.start} is 0x{line[err.start]:02x}"
                message = f"The file is not UTF-8: {place}; {_ADVICE}, such as cp1252."
                raise DataError(message, file=path, row=number) from err
            offset += len(line)


def _other_lines(path: Path, encoding: str, end: str) -> Iterator[tuple[int, str]]:
    number = 0
    with open_binary(path) as file:
        try:
            for number, line in enumerate(io.TextIOWrapper(file, encoding=encoding, newline=end), 1):
                yield number, line.removeprefix("\ufeff") if number == 1 else line
        except UnicodeError as err:
            raise DataError(f"The file is not {encoding}: {err}.", file=path, row=number + 1) from err


def line_list(path: Path, encoding: str | None = None) -> list[str]:
    """The lines of a text file without their ends, cp1252 if it is not UTF-8; one may be empty."""
    return [line.rstrip("\r\n") for _, line in iter_lines(path, encoding, guess=True)]
