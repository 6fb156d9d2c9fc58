"""Files of RDF as UTF-8, a line at a time, and on which line a concept is described."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urljoin

from ..errors import DataError
from .text_files import detect_encoding, iter_lines, open_binary

__all__ = ["RdfLines", "json_ld_lines"]

_HEAD = 1000  # bytes in which XML says its encoding
_ENCODING = re.compile(r"""(<\?xml[^>]*?encoding\s*=\s*["'])([\w.:-]+)""")

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}]')  # of JSON, as far as it says where objects and their keys are
_ID_KEY = re.compile(r'"([^"\\@]+)"\s*:\s*(?:\{\s*"@id"\s*:\s*)?"@id"')  # another name of `@id` in a context


class RdfLines:
    """A file as its parser reads it: whatever its encoding, in UTF-8, and at most one line per read.

    So `number` is the line that a statement ends on when the parser has just given it.

    Args:
        path: the file, decompressed if its name ends in .gz.
        is_xml: whether it is XML, which may name its encoding and define entities.

    Attributes:
        number: lines that were read.
    """

    def __init__(self, path: Path, *, is_xml: bool = False) -> None:
        self.path, self.is_xml = path, is_xml
        self.number = 0
        self._lines = iter_lines(path, self._encoding())
        self._waiting = b""
        self._in_doctype = False

    def _encoding(self) -> str | None:
        """What XML says; None where the bytes have to say it."""
        if not self.is_xml or detect_encoding(self.path) != "utf-8":
            return None
        with open_binary(self.path) as file:
            said = _ENCODING.match(file.read(_HEAD).lstrip().decode("latin-1"))
        if said is None:
            return None
        try:
            return codecs.lookup(said[2]).name
        except LookupError as err:
            raise DataError(
                f"{said[2]!r}, which the file names as its encoding, is not known. Save it as UTF-8.",
                file=self.path,
                row=1,
            ) from err

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size` of them (all of a line if it is negative); none at the end of the file."""
        if not self._waiting:
            number, line = next(self._lines, (self.number, ""))
            self.number = number
            self._waiting = (self._as_utf8(line) if self.is_xml else line).encode("utf-8", "surrogatepass")
        size = len(self._waiting) if size < 0 else size
        given, self._waiting = self._waiting[:size], self._waiting[size:]
        return given

    def _as_utf8(self, line: str) -> str:
        """A line of XML that names the encoding which it is given in.

        Raises:
            DataError: if an entity is made of others: some lines of these can stand for any amount of text.
        """
        if self.number == 1:
            line = _ENCODING.sub(r"\1UTF-8", line)
        self._in_doctype |= "<!DOCTYPE" in line
        if self._in_doctype:
            definitions, end, _ = line.partition("]>")
            if "&" in definitions:
                raise DataError(
                    "An entity is defined by another one, which is not read. Write out what it stands for.",
                    file=self.path,
                    row=self.number,
                )
            self._in_doctype = not end
        return line


def json_ld_lines(text: str, prefixes: Mapping[str, str], base: str) -> dict[str, int]:
    """URI -> the line, from 1, of the `@id` with which JSON-LD begins to describe it.

    An object that has nothing but its id only refers to something.

    Args:
        text: the file.
        prefixes: what its context abbreviates URIs by.
        base: what relative ids begin with.
    """
    id_keys = {"@id", *_ID_KEY.findall(text)}
    found: dict[str, int] = {}
    objects: list[tuple[str, int, int]] = []  # of each open object: its id, the line of that, number of its keys
    is_id, number, at = False, 1, 0
    for token in _TOKEN.finditer(text):
        value, is_key = token.groups()
        if token[0] == "{":
            objects.append(("", 0, 0))
        elif value is None:
            name, line, keys = objects.pop() if objects else ("", 0, 0)
            if name and keys > 1:
                found.setdefault(_expanded(name, prefixes, base), line)
        elif objects and is_key:
            name, line, keys = objects[-1]
            objects[-1] = name, line, keys + 1
            is_id = value in id_keys
        elif objects and is_id:
            number, at = number + text.count("\n", at, token.start()), token.start()
            objects[-1] = json.loads(f'"{value}"', strict=False), number, objects[-1][2]
            is_id = False
    return found


def _expanded(name: str, prefixes: Mapping[str, str], base: str) -> str:
    prefix, colon, rest = name.partition(":")
    if not colon:
        return urljoin(base, name)
    return prefixes[prefix] + rest if prefix in prefixes and not rest.startswith("//") else name
