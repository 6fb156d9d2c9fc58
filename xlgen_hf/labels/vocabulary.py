"""Vocabularies: concepts with names in several languages, aliases and a hierarchy, and which label each of them is."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TypedDict
from unicodedata import is_normalized, normalize

from ..errors import ConfigurationError, LabelSpaceError, ModelFolderError
from ..files.json_lines import read_jsonl, write_jsonl
from ..files.schema import Fields, integer, named_after, string
from .concepts import CONCEPT_FORM, Concept, ConceptContent, distinct_labels

__all__ = [
    "VOCABULARY_FILE",
    "VOCABULARY_SETTINGS_FILE",
    "Vocabulary",
    "VocabularySettings",
    "read_vocabulary_settings",
    "vocabulary_labels",
]

VOCABULARY_FILE = "vocabulary.jsonl"
VOCABULARY_SETTINGS_FILE = "vocabulary.json"

_SHOWN = 5


class VocabularySettings(TypedDict):
    """What `vocabulary.json` in a model's folder says of its vocabulary.

    Attributes:
        language: language of the labels; "" for none.
        concepts: their number.
    """

    language: str
    concepts: int


_VOCABULARY_FORM = Fields[VocabularySettings](
    {"language": string(), "concepts": integer(minimum=1)}, format_version=1, made_by="xlgen train --vocabulary"
)


class Vocabulary:
    """The concepts that labels stand for.

    A concept is a label under its preferred name in one language; where it has none in that language, under its name
    in another one. Concepts that share a name stay apart: `mercury (planets)`, `mercury (metals)`, see
    [`distinct_labels`].

    Args:
        concepts: the concepts, each with an id of its own and at least one name. Ids of broader and related concepts
            that are not among them are passed over.
        language: language of the labels, a tag such as `de`; the only one that the names have if None.
        labels: id -> label, where the labels are known; made from the names if None.

    Attributes:
        concepts: id -> concept.
        language: language of the labels.
        labels: id -> label.
        ids: label -> id.

    Raises:
        ConfigurationError: if the names have several languages and none was chosen, or not the chosen one.
        LabelSpaceError: if an id is duplicate, a concept has no name, or labels are not different.
    """

    def __init__(
        self, concepts: Iterable[Concept], language: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> None:
        self.concepts: dict[str, Concept] = {}
        self._translated: dict[str, Vocabulary] = {}
        for one in concepts:
            if one.id in self.concepts or not one.names:
                what = "is the id of two concepts" if one.id in self.concepts else "is a concept without a name"
                raise LabelSpaceError(f"{one.id!r} {what}.")
            self.concepts[one.id] = one
        if not self.concepts:
            raise LabelSpaceError("A vocabulary needs at least one concept.")
        self.language = self._checked_language(language)
        self.labels = distinct_labels(self.concepts, self._order) if labels is None else dict(labels)
        self.ids = {label: concept_id for concept_id, label in self.labels.items()}
        if self.labels.keys() != self.concepts.keys() or len(self.ids) < len(self.labels):
            raise LabelSpaceError(
                f"{len(self.concepts)} concepts come with {len(self.ids)} different labels; each needs one of its own."
            )

    def _checked_language(self, language: str | None) -> str:
        known = list(self.languages)
        shown = ", ".join(repr(one) if one else "'' (none)" for one in known)
        if language is None and len(known) > 1:
            example = known[0] or known[1]
            raise ConfigurationError(
                f"The vocabulary has names in several languages: {shown}. Choose that of the labels "
                f"(language={example!r}, --language {example})."
            )
        if language is None:
            return known[0]
        near = [one for one in known if one == language.lower() or one.startswith(f"{language.lower()}-")]
        if not near:
            raise ConfigurationError(
                f"The vocabulary has no name in the language {language!r}; choose one of {shown}."
            )
        return language.lower() if language.lower() in near else near[0]

    @cached_property
    def languages(self) -> dict[str, int]:
        """Language -> number of preferred names in it, the most frequent first."""
        counts = Counter(language for one in self.concepts.values() for language in one.names)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def _order(self) -> list[str]:
        """The languages, that of the labels first, then its other varieties, such as en-gb of en or of en-us."""
        near = sorted(self.languages, key=lambda one: not self._is_near(one))
        return [self.language, *(one for one in near if one != self.language)]

    def _is_near(self, language: str) -> bool:
        """Whether a language is that of the labels, or a variety of the same one (BCP 47)."""
        return language.partition("-")[0] == self.language.partition("-")[0]

    def __len__(self) -> int:
        """The number of concepts."""
        return len(self.concepts)

    def __iter__(self) -> Iterator[Concept]:
        """The concepts in their order."""
        return iter(self.concepts.values())

    def __repr__(self) -> str:
        """Size and languages."""
        return f"Vocabulary({len(self)} concepts, names in {list(self.languages)}, labels in {self.language!r})"

    def in_language(self, language: str) -> Vocabulary:
        """The same concepts with labels in another language; made once for each.

        Raises:
            ConfigurationError: if no concept has a name in it, or in a variety of it.
        """
        language = self._checked_language(language)
        if language == self.language:
            return self
        if language not in self._translated:
            self._translated[language] = Vocabulary(self.concepts.values(), language)
        return self._translated[language]

    def language_of(self, concept_id: str) -> str | None:
        """Language of a concept's label: another one where it has no name in that of the labels; None if unknown.

        Raises:
            LabelSpaceError: if there is no such concept.
        """
        names = self._known(concept_id).names
        spoken = (one for one in self._order if one in names and _is_called(self.labels[concept_id], names[one]))
        return next(spoken, None) or None

    def named_otherwise(self) -> list[str]:
        """Ids of the concepts without a name in the language of the labels."""
        return [one.id for one in self if not any(map(self._is_near, one.names))]

    def same_names(self) -> dict[str, list[str]]:
        """Name -> ids of the concepts that share it, in the language of the labels."""
        groups: dict[str, list[str]] = {}
        for one in self:
            groups.setdefault(one.name(self._order), []).append(one.id)
        return {name: ids for name, ids in groups.items() if len(ids) > 1}

    def further_names(
        self,
        label_ids: Mapping[str, int],
        *,
        names: bool = True,
        other_languages: bool = True,
        definitions: bool = False,
    ) -> list[tuple[int, str]]:
        """What else labels are called, each with the id of its label, by id.

        Args:
            label_ids: label -> label id; concepts whose label is not among them are left out.
            names: aliases, and names other than the label, in the language of the label, or in none.
            other_languages: names and aliases in other languages.
            definitions: the definition of each concept, in the language of the labels if there is one.
        """
        pairs = sorted((label_ids[label], one, label) for one, label in self.labels.items() if label in label_ids)
        found: list[tuple[int, str]] = []
        for label_id, concept_id, label in pairs:
            concept = self.concepts[concept_id]
            called = self._names_of(concept, own=names, other=other_languages)
            if definitions and concept.definition:
                defined = concept.definition
                called = [*called, next(defined[one] for one in (*self._order, *defined) if one in defined)]
            found += [(label_id, text) for text in dict.fromkeys(called) if text != label]
        return found

    def _names_of(self, concept: Concept, *, own: bool, other: bool) -> list[str]:
        """Names and aliases of a concept in the language of its label (or in none), in other ones, or in all."""
        if own == other:
            return concept.all_names() if own else []
        near = {"", self.language, self.language_of(concept.id)}
        return concept.all_names([one for one in (*concept.names, *concept.aliases) if (one in near) == own])

    # ------------------------------------------------------------------------------------------------ finding

    def find(self, name: str) -> tuple[str, ...]:
        """Ids of the concepts that a name may mean: one if it is clear, several if it is ambiguous, none if unknown.

        What is found first counts: a label, an id (also in angle brackets), a preferred name in the language of the
        labels, one in another language, a label in another language, an alias, a notation, what a concept replaces;
        then the same in another Unicode form, since catalogue records often hold accents as characters of their own.
        """
        name = name.strip()
        found = self._keys.get(name) or self._keys.get(normalize("NFC", name))
        if found is None and name.startswith("<") and name.endswith(">"):
            found = self._keys.get(name[1:-1])
        return () if found is None else (found,) if isinstance(found, str) else found

    def labels_of(self, names: Iterable[str], known: Container[str], *, unclear: bool = True) -> list[str]:
        """Names, those that mean one concept replaced by its label; others, and labels, stay as they are.

        Args:
            names: names and ids of concepts, or labels.
            known: the labels of the label space.
            unclear: whether a name that several concepts have stays, too.

        Raises:
            LabelSpaceError: if several concepts have a name, and that is not to stay.
        """
        found = [(name, () if name in known else self.find(name)) for name in names]
        for name, ids in found:
            if len(ids) > 1 and not unclear:
                self.find_one(name)
        return [self.labels[ids[0]] if len(ids) == 1 else name for name, ids in found]

    def find_one(self, name: str) -> str:
        """The id of the concept that a name means.

        Raises:
            LabelSpaceError: if it means none, or several.
        """
        found = self.find(name)
        if len(found) == 1:
            return found[0]
        what = f"may be one of the concepts {list(found[:_SHOWN])}" if found else "names no concept of the vocabulary"
        raise LabelSpaceError(f"{name!r} {what}; give the id of a concept.")

    @cached_property
    def _keys(self) -> dict[str, str | tuple[str, ...]]:
        """Whatever a concept may be called by -> its id, or the ids of several."""
        keys: dict[str, str | tuple[str, ...]] = {**{one: one for one in self.concepts}, **self.ids}
        names = (self._own_names, self._other_names, self._other_labels, self._aliases)
        for level in (*names, self._notations, self._replaced, partial(_composed, keys)):
            new: dict[str, str | tuple[str, ...]] = {}
            for key, concept_id in level():
                if key and key not in keys:
                    before = new.setdefault(key, concept_id)
                    several = (before,) if isinstance(before, str) else before
                    if concept_id not in several:
                        new[key] = (*several, concept_id)
            keys |= new
        return keys

    def _own_names(self) -> Iterator[tuple[str, str]]:
        return ((one.names[self.language], one.id) for one in self if self.language in one.names)

    def _other_names(self) -> Iterator[tuple[str, str]]:
        return ((name, one.id) for one in self for name in one.names.values())

    def _other_labels(self) -> Iterator[tuple[str, str]]:
        """What concepts are called as labels in other languages, see [`in_language`], where that is not a name."""
        for language in self.languages:
            order = [language, *(one for one in self.languages if one != language)]
            with suppress(LabelSpaceError):  # a language in which concepts cannot be told apart has no labels
                labels = {} if language == self.language else distinct_labels(self.concepts, order)
                yield from ((label, one) for one, label in labels.items() if label not in self.ids)

    def _aliases(self) -> Iterator[tuple[str, str]]:
        return ((alias, one.id) for one in self for aliases in one.aliases.values() for alias in aliases)

    def _notations(self) -> Iterator[tuple[str, str]]:
        return ((one.notation, one.id) for one in self)

    def _replaced(self) -> Iterator[tuple[str, str]]:
        return ((gone, one.id) for one in self for gone in one.replaces)

    # ------------------------------------------------------------------------------------------------ hierarchy

    @cached_property
    def _narrower(self) -> dict[str, list[str]]:
        narrower: dict[str, list[str]] = {}
        for one in self:
            for parent in one.broader:
                narrower.setdefault(parent, []).append(one.id)
        return narrower

    def branch(self, concept_id: str) -> set[str]:
        """Ids of a concept and of all below it; a loop in the hierarchy is followed once.

        Raises:
            LabelSpaceError: if there is no such concept.
        """
        self._known(concept_id)
        found, waiting = {concept_id}, deque([concept_id])
        while waiting:
            new = [one for one in self._narrower.get(waiting.popleft(), ()) if one not in found]
            found.update(new)
            waiting.extend(new)
        return found

    def parents(self, concept_id: str) -> list[str]:
        """Ids of the broader concepts of a concept that the vocabulary has, itself left out.

        Raises:
            LabelSpaceError: if there is no such concept.
        """
        return [one for one in self._known(concept_id).broader if one in self.concepts and one != concept_id]

    def _known(self, concept_id: str) -> Concept:
        if concept_id not in self.concepts:
            raise LabelSpaceError(f"{concept_id!r} is not the id of a concept of the vocabulary.")
        return self.concepts[concept_id]

    def broader_labels(self) -> dict[str, list[str]]:
        """Label -> labels of its broader concepts, for those that have some."""
        above = {one.id: self.parents(one.id) for one in self}
        return {self.labels[one]: [self.labels[parent] for parent in found] for one, found in above.items() if found}

    def loops(self) -> list[list[str]]:
        """Groups of concepts that are broader than themselves, by way of each other or directly."""
        import numpy as np
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import connected_components

        place = {concept_id: number for number, concept_id in enumerate(self.concepts)}
        pairs = [(place[one.id], place[parent]) for one in self for parent in one.broader if parent in place]
        itself = {one for one, parent in pairs if one == parent}
        rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        graph = csr_matrix((np.ones(len(pairs), bool), (rows, columns)), (len(self), len(self)))
        _, group = connected_components(graph, connection="strong")
        looped = np.flatnonzero(np.bincount(group)[group] > 1)
        groups: dict[int, list[int]] = {}
        for one in sorted({*looped.tolist(), *itself}):
            groups.setdefault(int(group[one]), []).append(one)
        ids = list(self.concepts)
        return [[ids[one] for one in members] for members in groups.values()]

    # ------------------------------------------------------------------------------------------------ saving

    def lines(self) -> Iterator[ConceptContent]:
        """The concepts with their labels as JSON holds them."""
        return (one.to_dict(self.labels[one.id]) for one in self)

    def save(self, folder: str | Path) -> None:
        """Write `vocabulary.json` and `vocabulary.jsonl` into a model's folder.

        Raises:
            SaveError: if the disk is full, or the folder cannot be written.
        """
        write_jsonl(Path(folder) / VOCABULARY_FILE, self.lines())
        _VOCABULARY_FORM.write(
            Path(folder) / VOCABULARY_SETTINGS_FILE, {"language": self.language, "concepts": len(self.concepts)}
        )

    @classmethod
    def load(cls, folder: str | Path, label_names: Iterable[str]) -> Vocabulary | None:
        """Read and check what [`save`] wrote; None if the folder has no vocabulary.

        Args:
            folder: a model's folder.
            label_names: the names of its label space, which must hold the concepts' labels.

        Raises:
            ModelFolderError: if a file is missing or damaged, or does not fit the others.
        """
        settings, path = Path(folder) / VOCABULARY_SETTINGS_FILE, Path(folder) / VOCABULARY_FILE
        if not settings.exists() and not path.exists():
            return None
        wanted = _VOCABULARY_FORM.read(settings)
        labels: dict[str, str] = {}
        concepts = []
        for number, content in read_jsonl(path):
            checked = CONCEPT_FORM.check(content, f"{path}, line {number}")
            concepts.append(Concept.from_dict(checked))
            labels[checked["id"]] = checked["label"]
        with named_after(path):
            found = cls(concepts, wanted["language"], labels=labels)
        problem = found._problem(wanted["concepts"], set(label_names))
        if problem:
            raise ModelFolderError(f"{path}: {problem}")
        return found

    def _problem(self, number: int, label_names: set[str]) -> str | None:
        """Say what does not fit the other files, if anything."""
        if len(self) != number:
            return f"it has {len(self)} concepts; {VOCABULARY_SETTINGS_FILE} says {number}."
        missing = next((one for one, label in self.labels.items() if label not in label_names), None)
        if missing is not None:
            return f"the concept {missing!r} is called {self.labels[missing]!r}, which is not a label of the model."
        for one in self:
            unknown = next((other for other in (*one.broader, *one.related) if other not in self.concepts), None)
            if unknown is not None:
                return f"the concept {one.id!r} refers to {unknown!r}, which is not a concept of it."
        return None


def _composed(keys: Mapping[str, str | tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """The NFC form of the keys that are in another one, with each of their ids."""
    for key in [key for key in keys if not is_normalized("NFC", key)]:
        found = keys[key]
        for one in (found,) if isinstance(found, str) else found:
            yield normalize("NFC", key), one


def _is_called(label: str, name: str) -> bool:
    """Whether a label is a name, perhaps with what tells it apart from others, see `distinct_labels`."""
    return label == name or label.startswith(f"{name} (")


def vocabulary_labels(vocabulary: Vocabulary | Sequence[str] | None) -> list[str] | None:
    """The labels of a vocabulary, which may be a list of names; None for none."""
    if vocabulary is None:
        return None
    return list(vocabulary.labels.values() if isinstance(vocabulary, Vocabulary) else vocabulary)


def read_vocabulary_settings(folder: str | Path) -> VocabularySettings | None:
    """What a model's folder says of its vocabulary, without reading it; None if it has none.

    Raises:
        ModelFolderError: if the file is damaged.
    """
    path = Path(folder) / VOCABULARY_SETTINGS_FILE
    return _VOCABULARY_FORM.read(path) if path.exists() else None
