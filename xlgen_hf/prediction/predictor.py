"""From texts to predicted label sets: the one way that model, pipeline, program and experiments go."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ..decoding.decoded_sets import DecodingOptions
from ..errors import ConfigurationError
from ..labels.changes import LabelChange
from ..labels.space import LabelSpace
from ..labels.vocabulary import Vocabulary
from ..ranking.decisions import DecisionRule
from ..ranking.score_model import ScoreModel
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import CandidateSource, SavedSource, TextBatch, check_allowed, rank_further, union
from ..retrieval.retriever import LabelRetriever
from ..settings import BATCH_SIZE
from .encoding import GeneratorModel, ModelSource, length_batches
from .evidence import LabelEvidence, explain_batch, input_candidates
from .kinds import is_generator, name_of_source
from .ranked_texts import Choose, RankedTexts, Ranking
from .results import LabelPrediction, NovelLabel, add_confidence, form_of_answers

if TYPE_CHECKING:
    from ..processing_xlgen import XLGenProcessor
    from .generator import Generator

__all__ = ["RANKED", "Predictor", "candidate_values"]

logger = logging.getLogger(__name__)

RANKED = 50
"""Labels of a text that a retriever or label trees are asked for."""
_UNTUNED = DecisionRule("top_k", 5)  # of a source without label sets of its own and without validation rows


class Predictor:
    """Predicts label sets with any source of candidates: an XLGen model, a retriever, label trees, or their fusion.

    A call embeds, searches and encodes each text once, whoever reads the result: sources rank candidates, scorers
    score those of all, the score model calibrates and fuses, and a decision rule chooses.

    Args:
        label_space: the labels.
        source: the source of candidates whose own set is predicted where it has one.
        score_model: how candidates are scored and decided on; its sources are further ones.
        cluster_names: names of the clusters that may guide the source.
        vocabulary: the concepts that labels stand for; predictions have their ids then.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        source: CandidateSource,
        score_model: ScoreModel | None = None,
        cluster_names: Sequence[str] = (),
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.label_space = label_space
        self.source = source
        self.score_model = score_model or ScoreModel()
        self.cluster_names = list(cluster_names)
        self.vocabulary = vocabulary
        if not is_generator(source) and self.score_model.rule.kind == "own":
            self.score_model = replace(self.score_model, rule=_UNTUNED)

    @classmethod
    def from_model(cls, model: GeneratorModel, processor: XLGenProcessor) -> Predictor:
        """The predictor of an XLGen model and its processor."""
        from .candidate_ranker import model_source  # torch and transformers, which an exported index does without

        names = [] if processor.clusters is None else processor.clusters.names
        source = model_source(model, processor)
        return cls(processor.label_space, source, processor.score_model, names, processor.vocabulary)

    def with_labels(self, names: Iterable[str]) -> Predictor:
        """A predictor of labels with these names as well; no training is needed.

        A generator spells them, a retriever finds them by their names, label trees never rank them. This predictor
        stays as it is; the weights are shared.

        Args:
            names: label names; those that are labels already are left out.

        Raises:
            ConfigurationError: if the source cannot take new labels.
            LabelSpaceError: if a name is empty.
        """
        if isinstance(self.source, ModelSource):
            model, processor = self.source.model, copy.copy(self.source.processor)
            if processor.add_labels(names):
                model = model.sharing_weights()
                model.fit_output(processor)
            return self.from_model(model, processor)
        if not isinstance(self.source, SavedSource):
            raise ConfigurationError(f"{type(self.source).__name__} cannot take new labels.")
        change = LabelChange.with_names(self.label_space, names)
        if change.is_nothing:
            return self
        source, score_model = self.source.relabelled(change), self.score_model.relabelled(change)
        return Predictor(change.after, source, score_model, vocabulary=self.vocabulary)

    @property
    def tokens_read(self) -> int:
        """The number of tokens after which encoders truncate a text, the greatest of its parts; 0 if there is none."""
        parts: list[object] = [self.source, *self.score_model.sources.values()]
        lengths = [0]
        if isinstance(self.source, ModelSource):
            parts.append(self.source.processor.retriever)
            lengths.append(self.source.processor.max_source_length)
        return max([*lengths, *(one.settings.max_length for one in parts if isinstance(one, LabelRetriever))])

    def labels_of_clusters(self, names: Sequence[str]) -> np.ndarray:
        """Label ids of the clusters with these names, sorted.

        Raises:
            ConfigurationError: if the model has no clusters, or none of such a name.
        """
        clusters = self.source.processor.clusters if isinstance(self.source, ModelSource) else None
        if clusters is None:
            raise ConfigurationError(f"The model has no clusters, so none of the names {list(names)}.")
        return clusters.labels_of(names)

    def labels_of_branches(self, concepts: Iterable[str]) -> np.ndarray:
        """Label ids of concepts and of all narrower ones, sorted.

        Args:
            concepts: their ids, or names that mean one concept.

        Raises:
            ConfigurationError: if the model has no vocabulary.
            LabelSpaceError: if one names no concept, or may name several.
        """
        vocabulary = self.vocabulary
        if vocabulary is None:
            raise ConfigurationError("The model has no vocabulary, so no hierarchy; train it with --vocabulary.")
        found = {one for name in concepts for one in vocabulary.branch(vocabulary.find_one(name))}
        return np.sort(self.label_space.encode(vocabulary.labels[one] for one in found)).astype(np.int64)

    def predict(
        self,
        texts: Sequence[str],
        *,
        decoding: DecodingOptions | None = None,
        rule: DecisionRule | None = None,
        allowed: np.ndarray | None = None,
        given: Sequence[Sequence[str]] | None = None,
        open_vocabulary: bool = False,
        evidence: bool = False,
        abstain_below: float | None = None,
        output_language: str | None = None,
        with_parents: bool = False,
        concepts: bool = False,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
    ) -> list[LabelPrediction]:
        """Predict the label sets of texts.

        Args:
            texts: the texts, in any order; they are batched by length and come back in the given order.
            decoding: how a generator searches; its own way if None.
            rule: which of the scored labels are predicted; the model's own rule if None.
            allowed: ids of the labels to choose from; all if None.
            given: names of labels that each text has already, or names and ids of their concepts. Only further ones
                are predicted, going by these: a generator has spelled them first, and training texts that have them
                count more in retrieval. They count in the bounds on the number of labels, and for the number that the
                model's own rule wants.
            open_vocabulary: also look for label names that are not in the label space (`novel_labels`).
            evidence: also say what speaks for each label (`evidence`).
            abstain_below: mark texts whose expected F1 is lower, in [0, 1], for a person (`abstain`); no text if None.
            output_language: language of the labels, one of the vocabulary's; that of the training if None.
            with_parents: also say what is broader than each label (`parents`).
            concepts: also give each label as a concept (`concepts`).
            batch_size: texts in a batch.
            progress: show a progress bar on a terminal.

        Returns:
            A prediction for each text, its labels sorted by score.

        Raises:
            ConfigurationError: if options do not fit the model.
        """
        self._check_abstention(abstain_below)
        answer = None
        if output_language is not None or with_parents or concepts:
            answer = form_of_answers(
                self.vocabulary, output_language=output_language, with_parents=with_parents, concepts=concepts
            )
        is_own = rule is None or rule.kind == "own"
        deciding = self.score_model.rule if rule is None or is_own else rule
        ranking = Ranking(decoding, allowed, given, open_vocabulary, batch_size, progress).for_rule(deciding)
        held = ranking.num_given(len(texts), self.label_space, self.vocabulary)

        def choose(scored: ScoredLabels, rows: np.ndarray) -> ScoredLabels:
            return deciding.apply(scored, None if held is None else held[rows], in_all=is_own)

        asked = self if self.score_model.fusion is None else self.ranking_for(deciding)
        explained = choose if evidence else None
        ranked = asked.rank_texts(texts, deciding.num_labels, ranking, explained)
        chosen = choose(ranked.scored, np.arange(len(texts)))
        predictions = self.to_predictions(chosen, ranked)
        if self.score_model.confidence is not None:
            add_confidence(predictions, self.score_model.confidence.estimate(chosen), abstain_below)
        return predictions if answer is None else [answer(one) for one in predictions]

    def ranking_for(self, rule: DecisionRule) -> Predictor:
        """The same for a rule: one that ranks labels, and compares no scores, asks for the most probable.

        Args:
            rule: what will choose among the labels that [`rank_texts`] scores.
        """
        fusion = self.score_model.fusion
        if fusion is None or rule.kind not in ("top_k", "expected_f1"):
            return self
        other = copy.copy(self)
        other.score_model = replace(self.score_model, fusion=fusion.most_probable())
        return other

    def _check_abstention(self, bound: float | None) -> None:
        if bound is not None and not 0 <= bound <= 1:
            raise ConfigurationError(f"abstain_below={bound!r}; it must be a number from 0 to 1.")
        if bound is not None and self.score_model.confidence is None:
            raise ConfigurationError(
                "The model does not know how far its predictions can be trusted, so none can be marked for a person. "
                "Train it, or make the index, with validation rows."
            )

    def rank(
        self,
        texts: Sequence[str],
        k: int = 0,
        *,
        decoding: DecodingOptions | None = None,
        allowed: np.ndarray | None = None,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
    ) -> ScoredLabels:
        """The candidates of texts with their final scores; see [`predict`] for the arguments.

        Args:
            texts: the texts.
            k: labels for each text at least, or as many as there are; 0 for those that the sources find.
            decoding: how a generator searches.
            allowed: ids of the labels to choose from; all if None.
            batch_size: texts in a batch.
            progress: show a progress bar on a terminal.
        """
        ranking = Ranking(decoding, allowed, batch_size=batch_size, progress=progress)
        return self.rank_texts(texts, k, ranking).scored

    def rank_texts(
        self, texts: Sequence[str], k: int, ranking: Ranking, explained: Choose | None = None
    ) -> RankedTexts:
        """What [`predict`] decides from: the candidates, and what guided the generator.

        Args:
            texts: the texts.
            k: see [`rank`].
            ranking: how candidates are looked for.
            explained: chooses the labels that get evidence; none get it if None.
        """
        if __package__ == "xlgen_hf.prediction":
            check_allowed(ranking.allowed, len(self.label_space))
        texts = TextBatch.of(texts).texts
        held = self._held(ranking, len(texts))
        source = self._searching(ranking.decoding, ranking.open_vocabulary)
        allowed = None if ranking.allowed is None else np.unique(np.asarray(ranking.allowed, dtype=np.int64))
        k = min(k, len(self.label_space) if allowed is None else len(allowed))
        needed = max(k, self._pool_depth) if self._pool_depth else 0  # labels of a text that sources will be asked for
        blocks, order, truncated = list[ScoredLabels](), list[int](), 0
        clusters, inputs = list[list[int]](), list[list[int]]()
        novel, evidence = list[list[NovelLabel]](), list[list[LabelEvidence]]()
        with tqdm(total=len(texts), unit="text", disable=None if ranking.progress else True) as bar:
            for rows in length_batches([len(text) for text in texts], ranking.batch_size):
                of_rows = [held[row] for row in rows] if held else []
                depth, in_batch = needed + max(map(len, of_rows), default=0), [texts[row] for row in rows]
                batch = TextBatch(in_batch, depth, allowed, of_rows, explained=explained is not None)
                blocks.append(self._rank_batch(source, batch, k))
                order += rows
                if is_generator(source):
                    decoded = source.decoded(batch, 0, allowed)
                    clusters += [one.clusters for one in decoded]
                    truncated += sum(not one.complete for one in decoded)
                    novel += _novel_labels(source, batch) if ranking.open_vocabulary else []
                if explained is not None:
                    evidence += self._explain(source, batch, explained(blocks[-1], np.array(rows)))
                    inputs += input_candidates(source, batch)
                bar.update(len(rows))
        if truncated:
            logger.warning(
                "%d of %d label sets were truncated at max_target_length; further labels are lost.",
                *(truncated, len(texts)),
            )
        place = np.argsort(order)
        return RankedTexts(
            ScoredLabels.concatenated(blocks).take(place),
            [clusters[i] for i in place] if clusters else [[] for _ in texts],
            [novel[i] for i in place] if novel else [[] for _ in texts],
            None if explained is None else [evidence[i] for i in place],
            [inputs[i] for i in place] if inputs else None,
        )

    def _held(self, ranking: Ranking, texts: int) -> list[list[int]]:
        """Ids of the labels that each text has already; none if no text has one."""
        if ranking.given is None:
            return []
        found = ranking.given_ids(texts, self.label_space, self.vocabulary, report=True)
        return found if any(found) else []

    def _explain(self, source: CandidateSource, batch: TextBatch, chosen: ScoredLabels) -> list[list[LabelEvidence]]:
        return explain_batch(batch, chosen, source, self.score_model, self.label_space, self._further_names)

    @cached_property
    def _further_names(self) -> list[tuple[int, str]]:
        """Aliases and names in other languages, as an index may hold them, each with its label id."""
        return [] if self.vocabulary is None else self.vocabulary.further_names(self.label_space.index)

    def _searching(self, decoding: DecodingOptions | None, open_vocabulary: bool) -> CandidateSource:
        if is_generator(self.source):
            if decoding is not None and self.score_model.fusion is not None:
                # A fusion brings candidates of its own, and has learned from those that the search ends with.
                decoding = replace(decoding, min_candidates=0)
            return self.source.searching(decoding)
        is_head = isinstance(self.source, ModelSource)
        head = "this model predicts with its candidate head. Load it with predict_with='generator' (--predict-with)"
        why = head if is_head else "this model has none"
        if open_vocabulary:
            raise ConfigurationError(f"Only a generator spells names that are not labels; {why}.")
        unused = {} if decoding is None else decoding.changed()
        if unused:
            named = ", ".join(f"{name}={value!r}" for name, value in unused.items())
            raise ConfigurationError(
                f"{named}: that is for a generator's search; {why}. Leave it out; top_k (--top-k) sets a number of "
                "labels."
            )
        return self.source

    @property
    def _pool_depth(self) -> int:
        """Labels of a text that each source but a model contributes to the pool; 0 where there is no such one."""
        fusion = self.score_model.fusion
        if fusion is not None:
            return fusion.candidates_per_source
        return 0 if isinstance(self.source, ModelSource) else RANKED

    def _rank_batch(self, source: CandidateSource, batch: TextBatch, k: int) -> ScoredLabels:
        """The pool and, where it has fewer than `k` labels of a text, what the sources rank next.

        The pool is the same for every `k`, so the labels for a small `k` are the first ones for a large `k`. Sources
        with an index come before a generator, which has to search again.
        """
        ranked = self._pool(source, batch)
        for further in (*self.score_model.sources.values(), source):
            if (np.diff(ranked.start) >= k).all():
                break
            ranked = ranked.followed_by(rank_further(further, batch, k), k)
        return ranked

    def _pool(self, source: CandidateSource, batch: TextBatch) -> ScoredLabels:
        """Sources, union, features, fusion; or the one source, calibrated."""
        fusion, depth = self.score_model.fusion, 0 if isinstance(source, ModelSource) else self._pool_depth
        own = rank_further(source, batch, depth, in_context=fusion is not None and not is_generator(source))
        own = self.score_model.calibrate(own, self.label_space.counts)
        if fusion is None:
            return own
        sources = self.score_model.sources
        candidates, values = candidate_values(source, own, sources, batch, fusion.candidates_per_source, fusion.inputs)
        fused = fusion.fuse(candidates, values, self.label_space.counts)
        return fused if batch.allowed is None else fused.kept(np.isin(fused.labels, batch.allowed))

    def to_predictions(self, scored: ScoredLabels, ranked: RankedTexts) -> list[LabelPrediction]:
        """Names and scores of the chosen labels, and what guided them.

        Args:
            scored: candidates, the predicted ones chosen.
            ranked: what they were decided from.
        """
        predictions = [
            LabelPrediction(
                self.label_space.decode(labels), scores, [self.cluster_names[one] for one in clusters], names
            )
            for (labels, scores), clusters, names in zip(scored.sets(), ranked.clusters, ranked.novel, strict=True)
        ]
        for one, reasons in zip(predictions, ranked.evidence or (), strict=False):
            one.evidence = reasons
        for one, read in zip(predictions, ranked.inputs or (), strict=False):
            one.candidates = self.label_space.decode(read)
        if self.vocabulary is not None:
            for one in predictions:
                one.ids = [self.vocabulary.ids.get(label) for label in one.labels]
        return predictions


def _novel_labels(generator: Generator, batch: TextBatch) -> list[list[NovelLabel]]:
    from .open_vocabulary import find_novel_labels  # which imports how transformers generates; few ask for it

    return find_novel_labels(generator, batch)


def candidate_values(
    source: CandidateSource,
    own: ScoredLabels,
    others: Mapping[str, CandidateSource],
    batch: TextBatch,
    depth: int,
    features: Collection[str] | None = None,
) -> tuple[ScoredLabels, dict[str, np.ndarray]]:
    """The candidates of a model's own source and of further ones, and what all of them say of each.

    Args:
        source: the model's own source.
        own: what it found, calibrated.
        others: further sources by name.
        batch: the texts.
        depth: labels of a text that each further source contributes.
        features: what the model has to say of all candidates, by name; all that it can if None.
    """
    ranked = {name: rank_further(other, batch, depth, in_context=True) for name, other in others.items()}
    if "retrieval" in ranked:
        own = replace(own, parts={})  # a candidate head's parts are what retrieval says of fewer candidates
    candidates, values = union({**ranked, name_of_source(source): own})
    best = "retrieval" if "retrieval" in values else name_of_source(source)
    for name, one in {**others, name_of_source(source): source}.items():
        # Trees cannot rank a label that came after them, which must not count against it: retrieval's score stands
        # for theirs.
        came_later = np.isin(candidates.labels, getattr(one, "added", ()))
        values[name][came_later] = values[best][came_later]
    if isinstance(source, ModelSource):
        values |= source.features(batch, candidates, features)
    return candidates, values
