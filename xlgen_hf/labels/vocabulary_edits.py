"""A vocabulary follows its labels: concepts are renamed, merged and removed with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .changes import LabelEdits
from .concepts import Concept
from .vocabulary import Vocabulary

__all__ = ["edit_vocabulary"]


def edit_vocabulary(vocabulary: Vocabulary, edits: LabelEdits) -> Vocabulary | None:
    """The vocabulary after a change of its labels, in the order of the edits.

    * A renamed concept keeps its id; the new name is its preferred one in the language of the labels.
    * A concept that is merged into another one is gone: its names become aliases of that, its id and notation lead
      there, what it was broader than or related to belongs to that. If the other label has no concept, it gets this
      one.
    * Concepts below a removed one go to those above it.

    Args:
        vocabulary: the vocabulary.
        edits: what was done to the labels; those without a concept change nothing, but for their names as aliases.

    Returns:
        The vocabulary; None if no concept is left.
    """
    draft = _Draft(vocabulary)
    for concept_id, new in [(draft.ids[old], new) for old, new in edits.renamed if old in draft.ids]:
        draft.rename(concept_id, new)
    draft.ids = {label: concept_id for concept_id, label in draft.labels.items()}
    for old, new in edits.merged:
        draft.merge(old, new)
    for label in edits.removed:
        draft.remove(label)
    return draft.finished()


class _Draft:
    """Concepts that are being changed."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.language = vocabulary.language
        self.concepts = dict(vocabulary.concepts)
        self.labels, self.ids = dict(vocabulary.labels), dict(vocabulary.ids)
        self.instead: dict[
            str, tuple[str, ...]
        ] = {}  # id of a concept that is gone -> ids that stand for it as broader
        self.related: dict[str, str] = {}  # the same as related ones

    def rename(self, concept_id: str, name: str) -> None:
        one = self.concepts[concept_id]
        self.concepts[concept_id] = replace(one, names={**one.names, self.language: name})
        self.labels[concept_id] = name

    def merge(self, old: str, new: str) -> None:
        gone, kept = self.ids.pop(old, None), self.ids.get(new)
        if kept is None:
            if gone is not None:
                self.rename(gone, new)
                self.add_names(gone, {self.language: (old,)})
                self.ids[new] = gone
            return
        names: dict[str, tuple[str, ...]] = {self.language: (old,)}
        if gone is not None:
            one = self.concepts.pop(gone)
            del self.labels[gone]
            for of_language in (one.aliases, {language: (name,) for language, name in one.names.items()}):
                names = {key: (*names.get(key, ()), *of_language.get(key, ())) for key in {**names, **of_language}}
            self.instead[gone], self.related[gone] = (kept,), kept
            self._take_place(kept, one)
        self.add_names(kept, names)

    def _take_place(self, concept_id: str, gone: Concept) -> None:
        """Let a concept stand for one that is gone; what was above that is above it, if that was broader than it."""
        one = self.concepts[concept_id]
        keys = filter(None, (*one.replaces, gone.id, gone.notation, *gone.replaces))
        above = [found for parent in one.broader for found in (gone.broader if parent == gone.id else (parent,))]
        broader = tuple(dict.fromkeys(found for found in above if found != concept_id))
        self.concepts[concept_id] = replace(one, broader=broader, replaces=tuple(dict.fromkeys(keys)))

    def add_names(self, concept_id: str, names: Mapping[str, tuple[str, ...]]) -> None:
        """Names by language that a concept gets as aliases, without its preferred ones."""
        one = self.concepts[concept_id]
        merged = {key: (*one.aliases.get(key, ()), *names.get(key, ())) for key in {**one.aliases, **names}}
        found = {
            key: tuple(dict.fromkeys(name for name in of_language if name != one.names.get(key)))
            for key, of_language in merged.items()
        }
        kept = {key: of_language for key, of_language in found.items() if of_language}
        self.concepts[concept_id] = replace(one, aliases=kept)

    def remove(self, label: str) -> None:
        gone = self.ids.pop(label, None)
        if gone is not None:
            self.instead[gone] = self.concepts.pop(gone).broader
            del self.labels[gone]

    def finished(self) -> Vocabulary | None:
        if not self.concepts:
            return None
        if self.instead:
            self.concepts = {one.id: self._without_gone(one) for one in self.concepts.values()}
        # The language may be that of no name any more.
        language = self.language if any(self.language in one.names for one in self.concepts.values()) else None
        return Vocabulary(self.concepts.values(), language or self._first_language(), labels=self.labels)

    def _first_language(self) -> str:
        return next(iter(next(iter(self.concepts.values())).names))

    def _without_gone(self, one: Concept) -> Concept:
        if not {*one.broader, *one.related} & self.instead.keys():
            return one
        broader = dict.fromkeys(found for parent in one.broader for found in self._found(parent, set()))
        related = dict.fromkeys(self._standing(other) for other in one.related)
        for place in (broader, related):
            place.pop(one.id, None)
        known = [other for other in related if other in self.concepts]
        return replace(one, broader=tuple(broader), related=tuple(known))

    def _found(self, concept_id: str, seen: set[str]) -> list[str]:
        """Ids that stand for a broader concept; loops end."""
        if concept_id not in self.instead:
            return [concept_id]
        if concept_id in seen:
            return []
        above = self.instead[concept_id]
        return [found for parent in above for found in self._found(parent, {*seen, concept_id})]

    def _standing(self, concept_id: str) -> str:
        while concept_id in self.related:
            concept_id = self.related[concept_id]
        return concept_id
