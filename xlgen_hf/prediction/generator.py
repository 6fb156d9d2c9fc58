"""From texts to label sets: batching by length, the variants' steps, the search, and a score for every label."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..decoding.constraints import LabelSetConstraint
from ..decoding.decoded_sets import DecodedSet, DecodingOptions, score_decoded, to_decoded, to_predictions
from ..decoding.memory import LastValue, XLGenMemory
from ..decoding.search import DecoderRows, LabelSets, beam_search, walk
from ..decoding.teacher_forcing import score_candidates
from ..errors import ConfigurationError
from ..labels.trie import LabelTrie
from ..ranking.decisions import DecisionRule
from ..ranking.scored_labels import ScoredLabels
from .results import LabelPrediction

if TYPE_CHECKING:
    from ..processing_xlgen import XLGenProcessor

__all__ = ["LabelPredictionMixin"]

logger = logging.getLogger(__name__)


class LabelPredictionMixin:
    """Adds label-set decoding to a model that has `encode`, `decode_step` and `generate` of an XLGen model."""

    # What the model brings.
    config: Any
    device: Any
    encode: Callable[..., Any]
    decode_step: Callable[..., Any]
    piece_positions: Callable[[torch.Tensor], torch.Tensor]
    piece_columns: Callable[[torch.Tensor], torch.Tensor]
    kept_constraints: dict[str, LastValue[LabelSetConstraint]]
    __call__: Callable[..., Any]

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *,
        cluster_bits: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Generate token sequences as any model of transformers does; the text is encoded and conditioned once.

        Args:
            inputs: input ids, `(B, S)`; `input_ids=` serves as well.
            cluster_bits: clusters to condition on, `(B, C)`; `bcl` predicts them if None.
            attention_mask: `(B, S)`.
            options: arguments of `GenerationMixin.generate`.
        """
        if options.get("encoder_outputs") is None:
            ids = inputs if inputs is not None else options.pop("input_ids", None)
            with torch.no_grad():
                memory = self.encode(ids, attention_mask, options.pop("inputs_embeds", None), cluster_bits)
            options["encoder_outputs"], attention_mask, inputs = memory, memory.attention_mask, None
        return super().generate(inputs, attention_mask=attention_mask, **options)  # type: ignore[misc]

    @torch.no_grad()
    def predict(
        self,
        texts: Sequence[str],
        processor: XLGenProcessor,
        *,
        rule: DecisionRule | None = None,
        batch_size: int = 64,
        open_vocabulary: bool = False,
        progress: bool = False,
        **options: Any,
    ) -> list[LabelPrediction]:
        """Predict the label sets of texts.

        Args:
            texts: the texts, in any order; they are batched by length and come back in the given order.
            processor: the model's processor; its calibrator, if any, turns scores into calibrated probabilities.
            rule: which of the scored labels are predicted; the set that the model generated if None.
            batch_size: texts in a batch.
            open_vocabulary: also look for label names that are not in the label space (`novel_labels`).
            progress: show a progress bar on a terminal.
            options: see [`DecodingOptions`].

        Returns:
            A prediction for each text, its labels sorted by score.
        """
        rule = rule or DecisionRule()
        wanted = DecodingOptions(**{"num_candidates": rule.num_candidates, **options})
        text_ids = processor.encode_texts(_listed(texts))
        decoded, scored = self._decode_and_score(texts, text_ids, processor, wanted, batch_size, progress)
        predictions = to_predictions(rule.apply(scored), decoded, processor)
        if open_vocabulary:
            from .open_vocabulary import find_novel_labels

            novel = find_novel_labels(self, text_ids, processor, batch_size=batch_size)
            for prediction, names in zip(predictions, novel, strict=True):
                prediction.novel_labels = names
        return predictions

    def scored_labels(
        self,
        texts: Sequence[str],
        processor: XLGenProcessor,
        options: DecodingOptions | None = None,
        *,
        batch_size: int = 64,
        progress: bool = False,
    ) -> tuple[list[DecodedSet], ScoredLabels]:
        """What the search finds for texts, and the candidates with their scores; see [`predict`].

        The scores are calibrated where the processor has a calibrator, and fused with those of retrieval where it has
        a hybrid.
        """
        text_ids = processor.encode_texts(_listed(texts))
        return self._decode_and_score(texts, text_ids, processor, options, batch_size, progress)

    def _decode_and_score(
        self,
        texts: Sequence[str],
        text_ids: Sequence[Sequence[int]],
        processor: XLGenProcessor,
        options: DecodingOptions | None,
        batch_size: int,
        progress: bool,
    ) -> tuple[list[DecodedSet], ScoredLabels]:
        if processor.hybrid is None:
            decoded = self._decode_ids(text_ids, processor, options, batch_size, progress)
            return decoded, score_decoded(decoded, processor)
        options = replace(options or DecodingOptions(), num_candidates=0)  # the hybrid brings its own candidates
        decoded = self._decode_ids(text_ids, processor, options, batch_size, progress)
        scored = score_decoded(decoded, processor)
        return decoded, processor.hybrid.score(self, processor, texts, text_ids, scored, options.labels, batch_size)

    @torch.no_grad()
    def decode(
        self,
        texts: Sequence[str],
        processor: XLGenProcessor,
        options: DecodingOptions | None = None,
        *,
        batch_size: int = 64,
        progress: bool = False,
    ) -> list[DecodedSet]:
        """Decode the label sets of texts, with the candidates' probabilities; see [`predict`]."""
        return self._decode_ids(processor.encode_texts(_listed(texts)), processor, options, batch_size, progress)

    @torch.no_grad()
    def _decode_ids(
        self,
        text_ids: Sequence[Sequence[int]],
        processor: XLGenProcessor,
        options: DecodingOptions | None,
        batch_size: int,
        progress: bool,
    ) -> list[DecodedSet]:
        decoded: list[DecodedSet | None] = [None] * len(text_ids)
        with tqdm(total=len(text_ids), unit="text", disable=None if progress else True) as bar:
            for rows in _length_batches(text_ids, batch_size):
                sets = self.decode_texts([text_ids[i] for i in rows], processor, options)
                for row, one in zip(rows, sets, strict=True):
                    decoded[row] = one
                bar.update(len(rows))
        cut = sum(not one.complete for one in decoded if one is not None)
        if cut:
            logger.warning(
                "%d of %d label sets were cut at max_target_length; further labels are lost.", cut, len(decoded)
            )
        return decoded  # type: ignore[return-value]

    @torch.no_grad()
    def decode_texts(
        self, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor, options: DecodingOptions | None = None
    ) -> list[DecodedSet]:
        """Decode the label sets of one batch of tokenized texts, with the one or two steps of the variant.

        Args:
            text_ids: token ids of each text, without special tokens (`processor.encode_texts`).
            processor: the model's processor.
            options: how to search; greedily if None.
        """
        options = self.resolve(options)
        memory, clusters = self.encode_batch(text_ids, processor)
        decoded = to_decoded(self._search_sets(memory, processor, options), clusters, options)
        lower = self._least_labels(options)
        if _forced_labels(options) > lower:
            decoded = [one.with_min_labels(lower) for one in decoded]
        if options.num_candidates:
            self._add_input_candidates(decoded, text_ids, memory, processor, options.labels)
        return decoded

    @torch.no_grad()
    def add_input_candidates(
        self, decoded: Sequence[DecodedSet], text_ids: Sequence[Sequence[int]], processor: XLGenProcessor
    ) -> None:
        """Score the candidates in the input of each text of a batch (rcl), too, by teacher forcing.

        A candidate of the input gets its probability as the next label at its place among those of the set. One that
        the search found has the greater of both probabilities.
        """
        if processor.candidates is not None:
            memory, _ = self.encode_batch(text_ids, processor)
            self._add_input_candidates(decoded, text_ids, memory, processor)

    def _add_input_candidates(
        self,
        decoded: Sequence[DecodedSet],
        text_ids: Sequence[Sequence[int]],
        memory: XLGenMemory,
        processor: XLGenProcessor,
        allowed: np.ndarray | None = None,
    ) -> None:
        candidates = processor.input_candidates(text_ids)
        if allowed is not None:
            open_labels = set(allowed.tolist())
            candidates = [[label for label in labels if label in open_labels] for labels in candidates]
        if not any(candidates):
            return
        scores = self._score_in(memory, candidates, [one.labels for one in decoded], processor)
        for one, labels, values in zip(decoded, candidates, scores, strict=True):
            for label, value in zip(labels, values, strict=True):
                one.candidates[label] = max(value, one.candidates.get(label, 0.0))

    def resolve(self, options: DecodingOptions | None) -> DecodingOptions:
        """Options with the model's own search where they name none."""
        return (options or DecodingOptions()).resolved(self.config.num_beams, self.config.pool)

    @torch.no_grad()
    def search_texts(
        self, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor, options: DecodingOptions
    ) -> tuple[LabelSets, list[list[int]]]:
        """All sets that a search finds for one batch of tokenized texts, and the clusters that guided it.

        Args:
            text_ids: see [`decode_texts`].
            processor: the model's processor.
            options: how to search, resolved.
        """
        memory, clusters = self.encode_batch(text_ids, processor)
        return self._search_sets(memory, processor, options), clusters

    def _search_sets(self, memory: XLGenMemory, processor: XLGenProcessor, options: DecodingOptions) -> LabelSets:
        lower = max(self._least_labels(options), _forced_labels(options))
        constraint = self._label_constraint(processor, options, lower)
        return self._search(memory, constraint, options, processor.max_target_length)

    def _least_labels(self, options: DecodingOptions) -> int:
        least: int = self.config.min_labels if options.min_labels is None else options.min_labels
        return least

    def encode_batch(
        self, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor
    ) -> tuple[XLGenMemory, list[list[int]]]:
        """The decoder's memory for label generation, and the clusters that condition it.

        `mcg` generates the clusters first, `bcl` predicts them, `base` has none.
        """
        clusters: list[list[int]] = [[] for _ in text_ids]
        task = None
        if self.config.variant == "mcg":
            task = "labels"
            clusters = self._generate_clusters(text_ids, processor)
        rows = [processor.build_input(ids, some, task) for ids, some in zip(text_ids, clusters, strict=True)]
        inputs = processor.pad(rows).to(self.device)
        memory = self.encode(inputs["input_ids"], inputs["attention_mask"])
        return memory, clusters if memory.cluster_bits is None else _active_clusters(memory)

    def _generate_clusters(self, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor) -> list[list[int]]:
        """First step of `mcg`: the clusters of each text, greedily."""
        inputs = processor.pad([processor.build_input(ids, task="clusters") for ids in text_ids]).to(self.device)
        memory = self.encode(inputs["input_ids"], inputs["attention_mask"])
        constraint = self._constraint("clusters", processor.cluster_trie, max_labels=self.config.max_clusters)
        sets = self._search(memory, constraint, DecodingOptions(num_beams=1), self.config.max_clusters + 1)
        return [[c for c in row if c >= 0] for row in sets.labels[:, 0].tolist()]

    def _label_constraint(self, processor: XLGenProcessor, options: DecodingOptions, lower: int) -> LabelSetConstraint:
        upper = self.config.max_labels if options.max_labels is None else options.max_labels
        upper = max(upper, _forced_labels(options))
        if lower > upper:
            raise ConfigurationError(
                f"min_labels={lower}, max_labels={upper}; 0 <= min_labels <= max_labels is needed."
            )
        trie = processor.trie if options.labels is None else processor.sub_trie(options.labels)
        ranks = processor.label_space.decode_ranks if options.ordered else None
        return self._constraint("labels", trie, min_labels=lower, max_labels=upper, make_ranks=ranks)

    def _constraint(
        self, slot: str, trie: LabelTrie, *, make_ranks: Callable[[], np.ndarray] | None = None, **bounds: int
    ) -> LabelSetConstraint:
        """A constraint over a trie; the last one of each slot is kept, for making it reads the whole trie."""

        def make() -> LabelSetConstraint:
            columns = self.piece_positions(torch.as_tensor(trie.edge_token, device=self.device)).to(torch.int32)
            ranks = None if make_ranks is None else make_ranks()
            return LabelSetConstraint(trie, columns, ranks=ranks, device=self.device, **bounds)

        key = (trie, self.config.num_label_pieces, self.device, make_ranks is None, bounds)
        return self.kept_constraints[slot].get(key, make)

    def _search(
        self,
        memory: XLGenMemory,
        constraint: LabelSetConstraint,
        options: DecodingOptions,
        max_length: int,
    ) -> LabelSets:
        rows = DecoderRows(self.decode_step, memory)
        start, end = self.config.decoder_start_token_id, self.config.eos_token_id
        end_column = int(self.piece_columns(torch.tensor(end, device=self.device)))
        if options.num_beams is not None and options.num_beams > 1:
            return beam_search(rows, constraint, start, end_column, max_length, options.num_beams)
        generator = torch.Generator(self.device).manual_seed(options.seed) if options.num_samples else None
        return walk(
            rows,
            constraint,
            start,
            end_column,
            max_length,
            samples=options.num_samples,
            temperature=options.temperature,
            generator=generator,
        )

    @torch.no_grad()
    def score(
        self,
        texts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        processor: XLGenProcessor,
        *,
        given: Sequence[Sequence[str]] | None = None,
        batch_size: int = 64,
    ) -> list[list[float]]:
        """Score candidate labels of texts by teacher forcing, without a search.

        A candidate's score is its probability as the next label after those labels that are given for the text and
        come before it in the decode order. The text is encoded once, and what candidates share at their start is run
        once.

        Args:
            texts: the texts.
            candidates: names of labels to score for each text; any number, of the label space.
            processor: the model's processor.
            given: labels that each text is known, or was predicted, to have; none if None. A model that generates in
                order of frequency gives rare labels little as the first one, so give its own prediction here.
            batch_size: texts in a batch.

        Returns:
            Probabilities in the order of the candidates, in [0, 1].

        Raises:
            LabelSpaceError: if a name is not in the label space.
        """
        given = [()] * len(texts) if given is None else given
        space = processor.label_space
        wanted = [[space.encode([name])[0] for name in names] for names in candidates]
        known = [space.encode(names) for names in given]
        text_ids = processor.encode_texts(_listed(texts))
        return self.score_ids(text_ids, wanted, processor, given=known, batch_size=batch_size)

    @torch.no_grad()
    def score_ids(
        self,
        text_ids: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[int]],
        processor: XLGenProcessor,
        *,
        given: Sequence[Sequence[int]],
        batch_size: int = 64,
        least: float = 0.0,
    ) -> list[list[float]]:
        """Score candidates and given labels of tokenized texts (`processor.encode_texts`), as [`score`] does.

        Candidates and given labels are label ids. Probabilities below `least` are not spelled out to the end, which
        saves time: what comes back for them is some number below it.
        """
        if len(candidates) != len(text_ids) or len(given) != len(text_ids):
            raise ConfigurationError(
                f"{len(text_ids)} texts come with candidates for {len(candidates)} and given labels for {len(given)}."
            )
        scores: list[list[float]] = [[] for _ in text_ids]
        for rows in _length_batches(text_ids, batch_size):
            memory, _ = self.encode_batch([text_ids[i] for i in rows], processor)
            found = self._score_in(memory, [candidates[i] for i in rows], [given[i] for i in rows], processor, least)
            for row, values in zip(rows, found, strict=True):
                scores[row] = values
        return scores

    def _score_in(
        self,
        memory: XLGenMemory,
        candidates: Sequence[Sequence[int]],
        given: Sequence[Sequence[int]],
        processor: XLGenProcessor,
        least: float = 0.0,
    ) -> list[list[float]]:
        return score_candidates(
            self.decode_step,
            self._constraint("labels", processor.trie),
            memory,
            candidates,
            [_as_far_as_fits(*pair, processor) for pair in zip(given, candidates, strict=True)],
            processor,
            self.config.decoder_start_token_id,
            least,
        )


def _listed(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("predict takes a list of texts; put a single text into a list.")
    return list(texts)


def _length_batches(text_ids: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Numbers of the texts of each batch, longest texts first."""
    order = sorted(range(len(text_ids)), key=lambda i: -len(text_ids[i]))
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def _as_far_as_fits(given: Sequence[int], candidates: Sequence[int], processor: XLGenProcessor) -> list[int]:
    """Labels in decode order, as many as leave room for each candidate: a decoder has only so many positions."""
    spelled = processor.label_token_ids
    ordered = processor.label_space.order(given)
    room = processor.max_target_length - max((len(spelled[label]) for label in candidates), default=0)
    ends = np.cumsum([len(spelled[label]) for label in ordered])
    return ordered[: int(np.searchsorted(ends, room, side="right"))]


def _forced_labels(options: DecodingOptions) -> int:
    """Labels that greedy search goes on to, past its own end; beams and samples bring candidates of their own."""
    return options.num_candidates if options.is_greedy else 0


def _active_clusters(memory: XLGenMemory) -> list[list[int]]:
    """Ids of the active clusters of each row, most probable first."""
    assert memory.cluster_logits is not None and memory.cluster_bits is not None
    order = memory.cluster_logits.argsort(dim=1, descending=True).tolist()
    active = (memory.cluster_bits > 0).tolist()
    return [[c for c in row if on[c]] for row, on in zip(order, active, strict=True)]
