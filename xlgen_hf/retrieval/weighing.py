"""What retrieval finds near to texts, and how it becomes scored labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix

from ..encoders.recipe import EmbeddingRecipe
from ..files.schema import Fields, anything, integer, named_after, number, string
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import PARTS
from ..settings import RETRIEVER_LENGTH, check_values, definitions, from_values, setting
from .near_lists import NearFacts

__all__ = [
    "Neighbors",
    "RetrievalSettings",
    "RetrievedCandidates",
    "neighbor_weights",
    "read_settings",
    "write_settings",
]

_GIVEN_STRENGTH = 4.0
"""A near text with all labels that a query has already counts 1 + this times as much as one with none of them."""

Neighbors: TypeAlias = "tuple[np.ndarray, np.ndarray]"
"""Numbers and similarities of the nearest training texts, `(Q, neighbors)` each."""


@dataclass(frozen=True)
class RetrievedCandidates:
    """What is near to `Q` queries, before it is weighed.

    Attributes:
        text, labels: query and label of each of `M` candidates, by query and label, `(M,)` each.
        of_names: similarity of the candidates' names by embedding and, where that counts, by spelling, `(M,)` each.
        near: the nearest training texts, in the same form.
    """

    text: np.ndarray
    labels: np.ndarray
    of_names: list[np.ndarray]
    near: list[Neighbors]

    @property
    def queries(self) -> int:
        """How many queries there are."""
        return len(self.near[0][0])

    @classmethod
    def joined(cls, blocks: list[RetrievedCandidates]) -> RetrievedCandidates:
        """One after the other."""
        if not blocks:
            nothing = np.zeros(0, dtype=np.int64)
            return cls(nothing, nothing, [np.zeros(0)], [(np.zeros((0, 1), dtype=np.int64), np.zeros((0, 1)))])
        before = np.cumsum([0, *(block.queries for block in blocks[:-1])])
        text = np.concatenate([block.text + first for block, first in zip(blocks, before, strict=True)])
        of_names = [np.concatenate(parts) for parts in zip(*(block.of_names for block in blocks), strict=True)]
        near = []
        for parts in zip(*(block.near for block in blocks), strict=True):
            documents, similarity = (np.concatenate(values) for values in zip(*parts, strict=True))
            near.append((documents, similarity))
        return cls(text, np.concatenate([block.labels for block in blocks]), of_names, near)

    def weigh(
        self,
        settings: RetrievalSettings,
        labels: csr_matrix,
        k: int,
        allowed: np.ndarray | None = None,
        given: Sequence[Sequence[int]] = (),
    ) -> ScoredLabels:
        """Scores of the candidates, and the parts that they are made of (`PARTS`).

        Args:
            settings: how similarities become scores.
            labels: which training text has which label, `(N, L)`, sparse, 1 where it has.
            k: labels of a query that are kept, best first.
            allowed: ids of the labels to choose from; all if None.
            given: label ids that each query has already; near texts that have them count more. None if empty.
        """
        parts = self._parts(settings, labels, given)
        added, total = settings.weigh_parts(parts, lexical=len(self.near) > 1)
        scores = (added.sum(axis=0) / total).clip(0, 1)
        order = np.lexsort((self.labels, -scores, self.text))
        if allowed is not None:
            order = order[np.isin(self.labels[order], allowed)]
        text = self.text[order]
        start = np.searchsorted(text, np.arange(self.queries + 1))
        order = order[np.arange(len(order)) - start[text] < k]
        start = np.searchsorted(self.text[order], np.arange(self.queries + 1)).astype(np.int64)
        chosen = np.zeros(len(order), dtype=bool)
        kept = {name: values[order] for name, values in parts.items()}
        return ScoredLabels(start, self.labels[order], scores[order], chosen, kept)

    def _parts(
        self, settings: RetrievalSettings, labels: csr_matrix, given: Sequence[Sequence[int]]
    ) -> dict[str, np.ndarray]:
        """The parts of each candidate's score before they are weighed, `(M,)` each, in [0, 1]."""
        parts = {name: np.zeros(len(self.text)) for name in PARTS}
        for prefix, near, of_names in zip(("", "lexical_"), self.near, self.of_names, strict=False):
            parts[f"{prefix}neighbors"] = self._shares(near, labels, settings.temperature, given)
            parts[f"{prefix}names"] = of_names
        return parts

    def _shares(
        self, near: Neighbors, labels: csr_matrix, temperature: float, given: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """Weight of each candidate among the neighbours, `(M,)`."""
        if not len(self.text):  # scipy gives no array for no entries
            return np.zeros(0)
        documents, weight = near[0], neighbor_weights(near, temperature, labels, given)
        ends = np.arange(len(documents) + 1) * documents.shape[1]
        weights = csr_matrix((weight.reshape(-1), documents.reshape(-1), ends), (len(documents), labels.shape[0]))
        return np.asarray((weights @ labels)[self.text, self.labels]).reshape(-1).clip(0, 1)


def neighbor_weights(
    near: Neighbors, temperature: float, labels: csr_matrix, given: Sequence[Sequence[int]] = ()
) -> np.ndarray:
    """What each near text weighs among those of its query, `(Q, neighbors)`; they add up to 1.

    It is the softmax of similarity / temperature, times more for texts that have what the query has already.

    Args:
        near: the near texts.
        temperature: of the softmax.
        labels: which training text has which label, `(N, L)`, sparse, 1 where it has.
        given: label ids that each query has already; none if empty.
    """
    documents, similarity = near
    top = np.maximum(similarity[:, :1], -1)  # where every text is hidden, none is near
    weight: np.ndarray = np.exp((similarity - top) / temperature)
    if given:
        weight *= 1 + _GIVEN_STRENGTH * _held(documents, labels, given)
    weight /= weight.sum(1, keepdims=True).clip(1e-30)
    return weight


def _held(documents: np.ndarray, labels: csr_matrix, given: Sequence[Sequence[int]]) -> np.ndarray:
    """Which fraction of the labels that its query has already each near text has, `(Q, neighbors)`."""
    start = np.cumsum([0, *map(len, given)])
    ids = np.array([label for row in given for label in row], dtype=np.int64)
    fraction = np.repeat(1 / np.maximum(np.diff(start), 1), np.diff(start))
    wanted = csr_matrix((fraction, ids, start), shape=(len(given), labels.shape[1]))
    of_near = labels[documents.reshape(-1)]
    owner = np.repeat(np.arange(len(given)), documents.shape[1])
    return np.asarray(of_near.multiply(wanted[owner]).sum(axis=1)).reshape(documents.shape)


_LONGEST = 100_000
_LARGEST = 1e6


@dataclass(frozen=True)
class RetrievalSettings:
    """How similarities become the score of a label.

    A score is the weighted mean of four parts, each in [0, 1]:

    * neighbours (weight 1): the weight of the label among the `neighbors` most similar training texts, softmax of
      cosine / `temperature`, summed over those that have the label;
    * names (`name_weight`): the cosine of text and label name to the power of `name_power`;
    * lexical neighbours (`lexical_neighbor_weight`) and lexical names (`lexical_name_weight`): the same by the
      characters that texts and names are spelled with, see [`LexicalIndex`]; left out where that is not indexed.

    Attributes:
        neighbors: training texts that count, at least 1.
        temperature: of the softmax, above 0.
        name_power: above 0; the greater, the more only close names count.
        name_weight: at least 0.
        lexical_neighbor_weight: at least 0.
        lexical_name_weight: at least 0.
        max_length: tokens of a text that the encoder reads; the lexical parts read all of it.
    """

    neighbors: int = setting(30, help="Training texts that count.", minimum=1, maximum=_LONGEST)
    temperature: float = setting(0.1, help="Temperature of the softmax.", minimum=1e-6, maximum=_LARGEST)
    name_power: float = setting(4.0, help="Power of a name's similarity.", minimum=1e-6, maximum=_LARGEST)
    name_weight: float = setting(2.0, help="Weight of names.", minimum=0, maximum=_LARGEST)
    lexical_neighbor_weight: float = setting(
        0.5, help="Weight of neighbours by character n-grams.", minimum=0, maximum=_LARGEST
    )
    lexical_name_weight: float = setting(
        1.0, help="Weight of names by character n-grams.", minimum=0, maximum=_LARGEST
    )
    max_length: int = setting(
        RETRIEVER_LENGTH, help="Tokens of a text that the encoder reads.", minimum=1, maximum=_LONGEST
    )

    def __post_init__(self) -> None:
        """Check the values."""
        check_values(RetrievalSettings, vars(self))

    def weigh_parts(self, parts: Mapping[str, np.ndarray], *, lexical: bool) -> tuple[np.ndarray, float]:
        """What each part adds to the scores of `M` labels, `(4, M)` as in `PARTS`, and what the sums are divided by.

        Args:
            parts: the parts by name, `(M,)` each, in [0, 1].
            lexical: whether character n-grams are indexed.
        """
        of_lexical = (self.lexical_neighbor_weight, self.lexical_name_weight) if lexical else (0.0, 0.0)
        weights = np.array([1.0, self.name_weight, *of_lexical])
        weighed = np.stack([parts[name] ** (self.name_power if name == "names" else 1) for name in PARTS])
        return weighed * weights[:, None], float(weights.sum())

    def weigh_names(self, of_names: Sequence[np.ndarray]) -> np.ndarray:
        """What a label scores by its name alone, up to a constant factor; one kind of similarity ranks as it is.

        Args:
            of_names: similarities by embedding and, where that counts, by character n-grams, of one shape.
        """
        if len(of_names) == 1:
            return of_names[0]
        by_embedding, by_characters = of_names
        with np.errstate(divide="ignore"):  # a power of 0 is 0
            weighed = np.log(by_embedding, dtype=np.float32)  # NumPy may take ten times as long for powers
        weighed *= np.float32(self.name_power)
        np.exp(weighed, out=weighed)
        weighed *= np.float32(self.name_weight)
        weighed += np.float32(self.lexical_name_weight) * by_characters
        return weighed


_RECIPE = Fields[dict[str, str]]({name: string() for name in EmbeddingRecipe.__dataclass_fields__})
_NEAR = Fields[NearFacts](
    {
        "width": integer(minimum=1),
        "compared": integer(minimum=1, maximum=1000),
        "recall": number(minimum=0, maximum=1),
    }
)
_APPROXIMATE = Fields[dict[str, NearFacts]]({"documents": _NEAR, "names": _NEAR}, optional=("documents", "names"))
_RETRIEVER_FORM = Fields[dict[str, Any]](
    {name: anything() for name in definitions(RetrievalSettings)} | {"recipe": _RECIPE, "approximate": _APPROXIMATE},
    optional=["approximate"],
    format_version=3,
    made_by="xlgen index",
)


def write_settings(
    path: Path, settings: RetrievalSettings, recipe: EmbeddingRecipe, approximate: Mapping[str, NearFacts]
) -> None:
    """Write a retriever's settings, how its embeddings are made, and what is known of approximate search in them.

    Raises:
        SaveError: if the file cannot be written.
    """
    further = {"approximate": dict(approximate)} if approximate else {}
    _RETRIEVER_FORM.write(path, {**asdict(settings), "recipe": asdict(recipe), **further})


def read_settings(path: Path) -> tuple[RetrievalSettings, EmbeddingRecipe, dict[str, NearFacts]]:
    """Read and check what [`write_settings`] wrote.

    Raises:
        ModelFolderError: if the file is missing, of another version, or holds other fields or values.
    """
    with named_after(path):
        content = _RETRIEVER_FORM.read(path)
        recipe, approximate = from_values(EmbeddingRecipe, content.pop("recipe")), content.pop("approximate", {})
        return from_values(RetrievalSettings, content), recipe, approximate
