"""Fields of concepts by the names that people give them, in objects of JSON Lines and in columns of tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from ..errors import DataError
from .raw_concepts import ConceptReader, RawConcept, Tagged
from .values import shown

__all__ = ["ID_FIELDS", "FieldReader", "field_of"]

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


@cache
def field_of(name: str) -> tuple[str, str] | None:
    """The field of a concept that a name stands for, and its language: `label_en`, `altLabel@de`; None for others."""
    folded = name.strip().lower()
    if folded in _FIELDS:
        return _FIELDS[folded], ""
    match = _IN_LANGUAGE.fullmatch(folded)
    return (_FIELDS[match[1]], match[2]) if match and match[1] in _FIELDS else None


class FieldReader:
    """Makes raw concepts of objects; fields that mean nothing to it are reported once.

    Args:
        path: the file, for messages.
        reader: where they are reported.
    """

    def __init__(self, path: Path, reader: ConceptReader) -> None:
        self._path = path
        self._reader = reader
        self._unread: set[str] = set()

    def concept(self, content: Mapping[str, object], row: int) -> RawConcept:
        """The concept that an object describes.

        Args:
            content: values by name: a text, a list of texts or, by language, one of the two; None for nothing.
            row: line or record that it comes from.

        Raises:
            DataError: if a value is of another kind.
        """
        texts: dict[str, list[Tagged]] = {"names": [], "aliases": [], "definitions": []}
        fields = ("id", "broader", "related", "notation", "replaces", "replaced_by")
        plain: dict[str, list[str]] = {name: [] for name in fields}
        for name, value in content.items():
            known = field_of(name)
            if known is None:
                if name not in self._unread:
                    self._unread.add(name)
                    self._reader.note("fields that are not read", repr(name), row)
            elif known[0] in texts:
                texts[known[0]] += self._tagged(value, known[1], name, row)
            else:
                plain[known[0]] += [text for _, text in self._tagged(value, "", name, row)]
        concept_id = "".join(plain["id"][:1])
        for gone in plain["replaces"]:
            self._reader.note_replaced(gone, concept_id)
        for instead in plain["replaced_by"]:
            self._reader.note_replaced(concept_id, instead)
        label = content.get("label")
        own = isinstance(label, str) and "names" in content  # what this package writes: the label beside the names
        if own:
            texts["names"].remove(("", str(label)))
        return RawConcept(
            concept_id,
            row,
            texts["names"],
            texts["aliases"],
            texts["definitions"],
            plain["broader"],
            plain["related"],
            "".join(plain["notation"][:1]),
            str(label).strip() if own else None,
        )

    def _tagged(self, value: object, language: str, name: str, row: int) -> Iterator[Tagged]:
        """The texts of a value with their languages."""
        if isinstance(value, str):
            yield language, value
        elif isinstance(value, list):
            for one in value:
                yield language, self._text(one, name, row)
        elif isinstance(value, dict):
            for tag, texts in value.items():
                for one in texts if isinstance(texts, list) else [texts]:
                    yield tag, self._text(one, name, row)
        elif value is not None:
            yield language, self._text(value, name, row)

    def _text(self, value: object, name: str, row: int) -> str:
        if isinstance(value, str):
            return value
        if type(value) is int:
            return str(value)
        raise DataError(
            f"{name!r} is {shown(value)}; a text, a list of texts, or an object of these by language is expected.",
            file=self._path,
            row=row,
        )
