"""Why a label was predicted: what sources say of it, names that match the text, training texts like it, clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np

from ..labels.space import LabelSpace
from ..ranking.score_model import ScoreModel
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import CandidateSource, TextBatch
from ..retrieval.evidence import DocumentEvidence, NameEvidence, RetrievalEvidence, retrieval_evidence
from ..retrieval.retriever import LabelRetriever
from .encoding import ModelSource
from .kinds import is_generator, name_of_source

__all__ = ["SCORE_NAMES", "LabelEvidence", "explain_batch", "input_candidates"]

SCORE_NAMES = {
    "names": "name",
    "lexical_names": "name by n-grams",
    "neighbors": "similar texts",
    "lexical_neighbors": "similar texts by n-grams",
    "label_trees": "label trees",
    "candidate_head": "candidate head",
    "teacher_forced": "generator",
}
"""What people read of the scores of [`LabelEvidence`]; what is left out is the sum of others."""

_DIGITS = 4  # of numbers in JSON
_TINY = 1e-9


@dataclass(frozen=True)
class LabelEvidence:
    """What speaks for a predicted label.

    Attributes:
        label: the label.
        score: its final score: that of the one source, calibrated, or the fused one.
        scores: what each source says of it, by name, in [0, 1]; of one source alone the final score. With retrieval
            `retrieval` is its score and `neighbors`, `names`, `lexical_neighbors` and `lexical_names` are the parts of
            that, see [`RetrievalSettings`]. Fused models also have `label_trees`, `generated` (what the model itself
            found), `teacher_forced` and `candidate_head`.
        places: its place among the candidates of each source that found it, from 1; as `input` among the candidates
            that the model read.
        names: names of it that resemble words of the text, those that count most first.
        documents: training texts with the label that are near to the text and count most, at most 3.
        clusters: names of the clusters that guided the generation and hold the label.
        training_rows: training rows with the label.
    """

    label: str
    score: float
    scores: dict[str, float]
    places: dict[str, int]
    names: list[NameEvidence] = field(default_factory=list)
    documents: list[DocumentEvidence] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    training_rows: int = 0

    def to_dict(self) -> dict[str, object]:
        """As JSON holds it, numbers with 4 digits."""
        return {
            "label": self.label,
            "score": round(self.score, _DIGITS),
            "scores": _rounded(self.scores),
            "places": self.places,
            "names": [
                {
                    "name": one.name,
                    "by": one.by,
                    "similarity": round(one.similarity, _DIGITS),
                    "share": round(one.share, _DIGITS),
                    "spans": [list(span) for span in one.spans],
                    "words": one.words,
                }
                for one in self.names
            ],
            "documents": [
                {
                    "id": one.id,
                    "similarity": _rounded(one.similarity),
                    "share": round(one.share, _DIGITS),
                    **({} if one.beginning is None else {"beginning": one.beginning}),
                }
                for one in self.documents
            ],
            "clusters": self.clusters,
            "training_rows": self.training_rows,
        }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, _DIGITS) for name, value in values.items()}


def explain_batch(
    batch: TextBatch,
    scored: ScoredLabels,
    source: CandidateSource,
    score_model: ScoreModel,
    label_space: LabelSpace,
    further_names: Sequence[tuple[int, str]] = (),
) -> list[list[LabelEvidence]]:
    """What speaks for the chosen labels of each text of a batch, out of what predicting them has left in the batch.

    Args:
        batch: the texts, to be explained.
        scored: their candidates, the predicted ones chosen.
        source: the source of candidates whose own set is predicted where it has one.
        score_model: its sources are further ones.
        label_space: the labels.
        further_names: aliases and names in other languages, as `Vocabulary.further_names` gives them.
    """
    entries = np.flatnonzero(scored.chosen)
    text, labels = scored.text[entries], scored.labels[entries]
    retriever = _retriever_of(source, score_model)
    found = None
    if retriever is not None:
        name_of = partial(_indexed_name, retriever, label_space, further_names)
        found = retrieval_evidence(retriever, batch, text, labels, name_of)
    parts = {name: values[entries] for name, values in scored.parts.items()}
    places = _places(source, scored.rank[entries], parts)
    inputs, guiding = _input_places(source, batch), _guiding_clusters(source, batch, text, labels)
    evidence: list[list[LabelEvidence]] = [[] for _ in batch]
    for number, (owner, label) in enumerate(zip(text.tolist(), labels.tolist(), strict=True)):
        of_retrieval = RetrievalEvidence({}, [], []) if found is None else found[number]
        score = float(scored.scores[entries[number]])
        own = {name: float(values[number]) for name, values in parts.items() if not name.endswith("_rank")}
        # Retrieval itself knows its score of a label that came from another source; the parts hold 0 for such.
        of_sources = {**own, **of_retrieval.scores}
        ranks = {name: int(values[number]) for name, values in places.items() if values[number]}
        evidence[owner].append(
            LabelEvidence(
                label_space.names[label],
                score,
                of_sources if score_model.fusion else {name_of_source(source): score, **of_sources},
                {**ranks, **({"input": inputs[owner][label]} if label in inputs[owner] else {})},
                of_retrieval.names,
                of_retrieval.documents,
                guiding[number],
                int(label_space.counts[label]),
            )
        )
    return evidence


def _indexed_name(
    retriever: LabelRetriever, label_space: LabelSpace, further: Sequence[tuple[int, str]], row: int
) -> str:
    """What a row of a retriever's names is called: a label, or after those a further name of one."""
    place = row - len(retriever)
    if place < 0:
        return label_space.names[row]
    if retriever.further_names is not None:
        return retriever.further_names[place]
    label = int(retriever.further[place])
    is_known = place < len(further) and further[place][0] == label  # not where the vocabulary is another one
    return further[place][1] if is_known else label_space.names[label]


def _retriever_of(source: CandidateSource, score_model: ScoreModel) -> LabelRetriever | None:
    """The retriever that had a part in a prediction: the source itself, one of the fusion, that of the input."""
    if isinstance(source, LabelRetriever):
        return source
    found = score_model.sources.get("retrieval")
    if found is None and isinstance(source, ModelSource):
        found = source.processor.retriever
    # Not by its class: of code in a folder, transformers loads that of a processor apart from that of its model.
    return cast("LabelRetriever | None", found)


def _places(source: CandidateSource, rank: np.ndarray, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Place of each label among the candidates of each source, from 1; 0 where a source lacks it."""
    by_rank = {name.removesuffix("_rank"): values for name, values in parts.items() if name.endswith("_rank")}
    if not by_rank:
        return {name_of_source(source): rank + 1}
    return {
        name: np.where(values > 0, np.rint(1 / np.maximum(values, _TINY)), 0).astype(np.int64)
        for name, values in by_rank.items()
    }


def input_candidates(source: CandidateSource, batch: TextBatch) -> list[list[int]]:
    """Ids of the candidates that the model read with each text, in this order; empty if it reads none.

    Args:
        source: the source of candidates whose own set is predicted where it has one.
        batch: the texts.
    """
    if not isinstance(source, ModelSource) or source.processor.candidates is None:
        return []
    return [list(text.candidates.labels) for text in source.encoded(batch).texts]


def _input_places(source: CandidateSource, batch: TextBatch) -> list[dict[int, int]]:
    """Place of each candidate that the model read with a text, from 1, by label id."""
    read = input_candidates(source, batch) or [[] for _ in batch]
    return [{label: place for place, label in enumerate(labels, 1)} for labels in read]


def _guiding_clusters(
    source: CandidateSource, batch: TextBatch, text: np.ndarray, labels: np.ndarray
) -> list[list[str]]:
    """Names of the clusters that guided the generation of a label's text and hold the label, for each label."""
    clusters = source.processor.clusters if is_generator(source) else None
    if clusters is None or not is_generator(source):
        return [[] for _ in labels]
    guiding = source.encoded(batch).clusters
    own = clusters.assignment[labels].tolist()
    return [[clusters.names[one]] if one in guiding[of_text] else [] for of_text, one in zip(text, own, strict=True)]
