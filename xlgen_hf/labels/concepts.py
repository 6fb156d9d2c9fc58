"""Concepts: what a vocabulary says of a thing that texts can be about, and how concepts are told apart by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypedDict

from ..errors import LabelSpaceError
from ..files.schema import Fields, mapping_of, string, strings

__all__ = ["CONCEPT_FORM", "Concept", "ConceptContent", "distinct_labels", "short_id"]

_NO_TEXTS: Mapping[str, str] = MappingProxyType({})  # one for all concepts: a vocabulary may have a million
_NO_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class _Named(TypedDict):
    id: str
    label: str
    names: dict[str, str]


class ConceptContent(_Named, total=False):
    """A concept with its label as JSON holds it."""

    aliases: dict[str, list[str]]
    broader: list[str]
    related: list[str]
    definition: dict[str, str]
    notation: str
    replaces: list[str]


CONCEPT_FORM = Fields[ConceptContent](
    {
        "id": string(visible=True),
        "label": string(visible=True),
        "names": mapping_of(string(visible=True)),
        "aliases": mapping_of(strings(min_length=1, visible=True)),
        "broader": strings(unique=True),
        "related": strings(unique=True),
        "definition": mapping_of(string(visible=True)),
        "notation": string(),
        "replaces": strings(unique=True),
    },
    optional=("aliases", "broader", "related", "definition", "notation", "replaces"),
)
"""A line of a vocabulary that this package has written."""


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept of a vocabulary.

    Languages are tags such as `de` or `pt-br`, in lower case; `""` stands for texts without a language.

    Attributes:
        id: its identifier, most often a URI.
        names: language -> preferred name; at least one.
        aliases: language -> other names.
        broader: ids of its broader concepts.
        related: ids of related concepts.
        definition: language -> what it means.
        notation: its code in the vocabulary, such as a class number; "" if it has none.
        replaces: ids, and notations, of concepts that are gone and that it stands for, such as those merged into it.
    """

    id: str
    names: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_ALIASES)
    broader: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    definition: Mapping[str, str] = field(default_factory=lambda: _NO_TEXTS)
    notation: str = ""
    replaces: tuple[str, ...] = ()

    def name(self, languages: Sequence[str]) -> str:
        """The preferred name in the first of these languages that it has one in, else in any."""
        return next((self.names[one] for one in languages if one in self.names), None) or next(
            iter(self.names.values())
        )

    def all_names(self, languages: Collection[str] | None = None) -> list[str]:
        """Preferred names and aliases in these languages, or in every one, each once."""
        names = [name for language, name in self.names.items() if languages is None or language in languages]
        for language, aliases in self.aliases.items():
            names += aliases if languages is None or language in languages else ()
        return list(dict.fromkeys(names))

    def to_dict(self, label: str) -> ConceptContent:
        """The concept as JSON holds it, without what is empty.

        Args:
            label: what it is called as a label.
        """
        content: ConceptContent = {"id": self.id, "label": label, "names": dict(self.names)}
        if self.aliases:
            content["aliases"] = {language: list(aliases) for language, aliases in self.aliases.items()}
        if self.broader:
            content["broader"] = list(self.broader)
        if self.related:
            content["related"] = list(self.related)
        if self.definition:
            content["definition"] = dict(self.definition)
        if self.notation:
            content["notation"] = self.notation
        if self.replaces:
            content["replaces"] = list(self.replaces)
        return content

    @classmethod
    def from_dict(cls, content: ConceptContent) -> Concept:
        """Make it from what [`to_dict`] gave."""
        aliases = content.get("aliases", {})
        return cls(
            content["id"],
            content["names"],
            _NO_ALIASES
            if not aliases
            else {language: tuple(of_language) for language, of_language in aliases.items()},
            tuple(content.get("broader", ())),
            tuple(content.get("related", ())),
            content.get("definition") or _NO_TEXTS,
            content.get("notation", ""),
            tuple(content.get("replaces", ())),
        )


def short_id(concept_id: str) -> str:
    """The last part of an id that is a URI; any other id as it is."""
    return concept_id.rstrip("/").replace("#", "/").rpartition("/")[2]


def distinct_labels(concepts: Mapping[str, Concept], languages: Sequence[str]) -> dict[str, str]:
    """What each concept is called as a label: its name and, where several share it, what tells them apart.

    That is the name of a broader concept, `mercury (planets)`, else the last part of the id, else the whole id.

    Args:
        concepts: id -> concept.
        languages: languages of the names, the first one preferred.

    Returns:
        Id -> label, all different.

    Raises:
        LabelSpaceError: if a label made so is the name of another concept.
    """
    labels = {one.id: one.name(languages) for one in concepts.values()}
    counts = Counter(labels.values())
    unclear = {concept_id for concept_id, name in labels.items() if counts[name] > 1}
    names, taken = dict(labels), set(counts)
    for qualify in (lambda one: _broader_name(one, names), lambda one: short_id(one.id), lambda one: one.id):
        made = {concept_id: f"{names[concept_id]} ({qualify(concepts[concept_id])})" for concept_id in unclear}
        often = Counter(made.values())
        clear = {
            concept_id: label
            for concept_id, label in made.items()
            if qualify(concepts[concept_id]) and often[label] == 1 and label not in taken
        }
        labels |= clear
        taken |= set(clear.values())
        unclear -= set(clear)
    if unclear:
        example = min(unclear)
        raise LabelSpaceError(
            f"Several concepts are called {names[example]!r}, and {names[example]!r} with the id {example!r} in "
            "parentheses is the name of another one. Give them different names."
        )
    return labels


def _broader_name(concept: Concept, names: Mapping[str, str]) -> str:
    return next((names[one] for one in concept.broader if one in names and one != concept.id), "")
