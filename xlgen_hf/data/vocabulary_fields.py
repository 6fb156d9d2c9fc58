"""Concepts from fields with the names that people give them, in objects of JSON Lines and in columns of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import DataError
from .field_names import field_of
from .raw_concepts import ConceptReader, RawConcept, Tagged
from .values import shown

__all__ = ["FieldReader"]


class FieldReader:
    """Makes raw concepts of objects; fields that mean nothing to it are reported once.

    Args:
        path: the file, for messages.
        reader: where they are reported.
    """

    def __init__(self, path: Path, reader: ConceptReader) -> None:
        self._path = path
        self._reader = reader
        self._seen: set[str] = set()

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
            self._note(name, known, row)
            if known is None:
                continue
            if known[0] in texts:
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

    def _note(self, name: str, known: tuple[str, str] | None, row: int) -> None:
        """Report a field that is not read, or whose end may mean something else; each once."""
        if name in self._seen:
            return
        self._seen.add(name)
        if known is None:
            self._reader.note("fields that are not read", repr(name), row)
        elif known[1] == "id" and "@" not in name:
            what = "fields that are read as Indonesian (@id says so, too); rename them if they hold ids"
            self._reader.note(what, repr(name), row)

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
