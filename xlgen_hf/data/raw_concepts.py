"""From what a vocabulary file says of concepts to concepts that can be used, with a report of repairs."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from ..errors import DataError
from ..labels.concepts import Concept
from ..labels.vocabulary import Vocabulary
from .label_ids import clean_id

__all__ = ["ConceptReader", "RawConcept", "Tagged"]

logger = logging.getLogger(__name__)

Tagged: TypeAlias = "tuple[str, str]"
"""A language, "" for none, and a text in it."""

_TAG = re.compile(r"[a-z]{1,8}(-[a-z0-9]{1,8})*")
_SHOWN = 5  # concepts of a loop that a report spells out

_DEPRECATED = "concepts that are marked as deprecated, and are left out"
_NO_NAME = "concepts without a preferred name, which are left out"
_SEVERAL = "concepts with several preferred names in one language, of which the first counts, the others as aliases"
_UNKNOWN = "references to concepts that the vocabulary does not have, which are left out"


@dataclass(slots=True)
class RawConcept:
    """A concept as a file has it.

    Attributes:
        id: its identifier.
        row: line or record that it comes from, from 1; None where that is not known.
        names, aliases, definitions: texts with their languages.
        broader, related: ids.
        notation: its code.
        label: what it is called as a label, where the file says so.
        deprecated: whether it is marked as no longer in use.
    """

    id: str
    row: int | None = None
    names: Sequence[Tagged] = ()
    aliases: Sequence[Tagged] = ()
    definitions: Sequence[Tagged] = ()
    broader: Sequence[str] = ()
    related: Sequence[str] = ()
    notation: str = ""
    label: str | None = None
    deprecated: bool = False


@dataclass
class _Finding:
    """Something that was repaired or left out: how often, and the first concept of it."""

    example: str
    count: int = 0


@dataclass
class ConceptReader:
    """Makes concepts of raw ones, and counts what it had to repair.

    Attributes:
        path: the file, for messages.
        labels: id -> label, where the file has them.
    """

    path: Path
    labels: dict[str, str] = field(default_factory=dict)
    _rows: dict[str, int | None] = field(default_factory=dict)
    _findings: dict[str, _Finding] = field(default_factory=dict)
    _successors: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, example: str, row: int | None = None) -> None:
        """Count something for the report.

        Args:
            what: what it is, as the report calls it.
            example: the concept.
            row: its line or record.
        """
        place = f"{example} (row {row})" if row is not None else example
        self._findings.setdefault(what, _Finding(place)).count += 1

    def note_replaced(self, gone: str, instead: str) -> None:
        """Note that a concept stands for another one, if that is not a concept of the vocabulary.

        Args:
            gone: id (or notation) of the other one.
            instead: id of the concept.
        """
        self._successors.setdefault(clean_id(gone), []).append(clean_id(instead))

    def concepts(self, raw: Iterable[RawConcept]) -> Iterator[Concept]:
        """The concepts that can be used, without references to others that cannot.

        Raises:
            DataError: if an id is missing or duplicate, or there is no concept.
        """
        kept = [one for one in map(self._checked, raw) if one is not None]
        if not kept:
            raise DataError("There is no concept with a preferred name in the file.", file=self.path)
        known = {one.id for one in kept}
        replaced = self._replaced(known)
        for one in kept:
            one = replace(one, replaces=tuple(replaced[one.id])) if one.id in replaced else one
            if known.issuperset(one.broader) and known.issuperset(one.related):
                yield one
                continue
            for other in (*one.broader, *one.related):
                if other not in known:
                    self.note(_UNKNOWN, f"{other} in {one.id}", self._rows[one.id])
            broader = tuple(other for other in one.broader if other in known)
            related = tuple(other for other in one.related if other in known)
            yield replace(one, broader=broader, related=related)

    def _replaced(self, known: Collection[str]) -> dict[str, list[str]]:
        """What each concept stands for, also by way of others that are gone, by its id."""
        found: dict[str, list[str]] = {}
        for gone in self._successors.keys() - known:
            seen, waiting = {gone}, [gone]
            while waiting:
                for one in self._successors.get(waiting.pop(), ()):
                    if one in known and one not in seen:
                        found.setdefault(one, []).append(gone)
                    elif one not in seen:
                        waiting.append(one)
                    seen.add(one)
        return {one: sorted(gone) for one, gone in found.items()}

    def _checked(self, raw: RawConcept) -> Concept | None:
        concept_id = clean_id(raw.id)
        if not concept_id:
            raise DataError("A concept has no id.", file=self.path, row=raw.row)
        if concept_id in self._rows:
            before = self._rows[concept_id]
            where = "" if before is None else f"; the first is in row {before}"
            raise DataError(f"Duplicate id {concept_id!r}{where}. Each concept is described once.",
                            file=self.path, row=raw.row)  # fmt: skip
        self._rows[concept_id] = raw.row
        names, others = self._names(raw, concept_id)
        if raw.deprecated or not names:
            self.note(_DEPRECATED if raw.deprecated else _NO_NAME, concept_id, raw.row)
            return None
        if raw.label is not None:
            self.labels[concept_id] = raw.label
        return Concept(
            concept_id,
            names,
            {language: tuple(found) for language, found in self._aliases(raw, others).items()},
            tuple(dict.fromkeys(map(clean_id, raw.broader))),
            tuple(dict.fromkeys(map(clean_id, raw.related))),
            {language: " ".join(found) for language, found in self._by_language(raw.definitions, raw).items()},
            raw.notation.strip(),
        )

    def _names(self, raw: RawConcept, concept_id: str) -> tuple[dict[str, str], list[Tagged]]:
        """The preferred name in each language, and the further ones."""
        found = self._by_language(raw.names, raw)
        others = [(language, name) for language, names in found.items() for name in names[1:]]
        if others:
            self.note(_SEVERAL, concept_id, raw.row)
        return {language: names[0] for language, names in found.items()}, others

    def _aliases(self, raw: RawConcept, others: list[Tagged]) -> dict[str, list[str]]:
        """The aliases of each language; none of them is the preferred name in it."""
        found = self._by_language([*others, *raw.aliases], raw)
        names = {(language.lower(), name.strip()) for language, name in raw.names} - set(others)
        kept = {language: [one for one in texts if (language, one) not in names] for language, texts in found.items()}
        return {language: texts for language, texts in kept.items() if texts}

    def _by_language(self, texts: Sequence[Tagged], raw: RawConcept) -> dict[str, list[str]]:
        """The texts of each language without white space around them, each once."""
        found: dict[str, list[str]] = {}
        for language, text in texts:
            tag, text = sys.intern(language.strip().lower()), text.strip()
            if tag and not _TAG.fullmatch(tag):
                raise DataError(
                    f"{language!r} of the concept {raw.id!r} is not the tag of a language, such as en or pt-BR.",
                    file=self.path,
                    row=raw.row,
                )
            if text and text not in found.setdefault(tag, []):
                found[tag].append(text)
        return {language: texts for language, texts in found.items() if texts}

    def language_of_labels(self, concepts: Sequence[Concept], labels: Mapping[str, str] | None) -> str | None:
        """The language that labels which the file has are in; None if it has none.

        Args:
            concepts: the concepts.
            labels: their labels, None where they follow from the names.
        """
        if labels is None:
            return None
        named = (language for one in concepts for language, name in one.names.items() if name == labels[one.id])
        counts = Counter(named) or Counter(language for one in concepts for language in one.names)
        return min(counts, key=lambda language: (-counts[language], language))

    def report(self, vocabulary: Vocabulary) -> None:
        """Log what was repaired or left out, and loops in the hierarchy."""
        for loop in vocabulary.loops():
            shown = ", ".join(self._place(one) for one in loop[:_SHOWN])
            self.note("loops of broader concepts, each of which is followed once", shown)
        for what, finding in self._findings.items():
            logger.warning("%s: %s: %d, e.g. %s.", self.path, what, finding.count, finding.example)

    def _place(self, concept_id: str) -> str:
        row = self._rows.get(concept_id)
        return concept_id if row is None else f"{concept_id} (row {row})"
