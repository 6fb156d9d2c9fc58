"""What fields and columns with ids, names and more are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..errors import DataError

__all__ = ["ID_FIELDS", "field_of", "names_column", "refuse_header"]

ID_FIELDS = ("id", "uri", "concept", "identifier")
"""What a field with the id may be called."""

_FIELDS = {
    **dict.fromkeys(ID_FIELDS, "id"),
    **dict.fromkeys(("label", "name", "names", "title", "preflabel", "pref_label"), "names"),
    **dict.fromkeys(("alias", "aliases", "alt", "altlabel", "alt_label", "hiddenlabel", "synonyms"), "aliases"),
    **dict.fromkeys(("definition", "description"), "definitions"),
    **dict.fromkeys(("broader", "parent", "parents"), "broader"),
    "related": "related",
    "notation": "notation",
    "replaces": "replaces",
    **dict.fromkeys(("replaced_by", "isreplacedby"), "replaced_by"),
}
_IN_LANGUAGE = re.compile(r"(.+)[_@]([a-z]{2,3}(?:-[a-z0-9]{1,8})*)")

_NO_WORD = re.compile(r"[\d:/<]")  # of an id or a URI, which a column is not called


@cache
def field_of(name: str) -> tuple[str, str] | None:
    """The field of a concept that a name stands for, and its language: `label_en`, `altLabel@de`; None for others."""
    folded = name.strip().lower()
    if folded in _FIELDS:
        return _FIELDS[folded], ""
    match = _IN_LANGUAGE.fullmatch(folded)
    return (_FIELDS[match[1]], match[2]) if match and match[1] in _FIELDS else None


def names_column(names: Sequence[str]) -> int | None:
    """The first of some columns that is called as one of names is; None where there is none."""
    return next((place for place, name in enumerate(names) if (field_of(name) or ("",))[0] == "names"), None)


def refuse_header(cells: Sequence[str], file: Path, row: int) -> None:
    """Check the first row of a table that has no header, as far as its first cell says: an id and a name.

    Raises:
        DataError: if it names a column of names, so that it is a header whose column of ids is called otherwise.
    """
    if names_column(cells) is not None and not _NO_WORD.search(cells[0]):
        raise DataError(
            f"The row looks like a header, {[cell.strip() for cell in cells]}, whose column of ids is not called "
            f"{', '.join(ID_FIELDS[:-1])} or {ID_FIELDS[-1]} (in a table of label ids, it is the first). Rename it; "
            "or, if the row is an id and a name, put the header id, label above it.",
            file=file,
            row=row,
        )
