"""The generator as a source of candidates: an XLGen model's search for label sets, and its teacher-forced scores."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..decoding.constraints import LabelSetConstraint
from ..decoding.decoded_sets import DecodedSet, DecodingOptions, scored_sets, to_decoded
from ..decoding.memory import XLGenMemory
from ..decoding.search import DecoderRows, LabelSets, SetsBegin, beam_search, greedy_or_sample
from ..decoding.teacher_forcing import score_candidates
from ..errors import ConfigurationError
from ..labels.trie import LabelTrie
from ..processing_xlgen import EncodedText, XLGenProcessor
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import TextBatch
from ..settings import BATCH_SIZE
from .encoding import Encoded, GeneratorModel, ModelSource, length_batches

__all__ = ["Generator"]

logger = logging.getLogger(__name__)

_FLOOR = 1e-7  # teacher-forced probabilities below it are not spelled out to the end


class Generator(ModelSource):
    """Finds and scores labels with an XLGen model; a candidate source and a candidate scorer.

    Args:
        model: the model, in evaluation mode.
        processor: its processor.
        decoding: how to search; the model's own way if None.
    """

    generates = True

    def __init__(
        self, model: GeneratorModel, processor: XLGenProcessor, decoding: DecodingOptions | None = None
    ) -> None:
        super().__init__(model, processor)
        config = model.config
        self.decoding = (decoding or DecodingOptions()).resolved(config.num_beams, config.pool)  # type: ignore[arg-type]

    def searching(self, decoding: DecodingOptions | None) -> Generator:
        """The same generator with another way to search; itself if None."""
        return self if decoding is None else Generator(self.model, self.processor, decoding)

    # ------------------------------------------------------------------------------------------------ source, scorer

    @torch.no_grad()
    def rank(self, texts: Sequence[str], k: int = 0, allowed: np.ndarray | None = None) -> ScoredLabels:
        """What the search finds for each text; see [`CandidateSource`].

        Args:
            texts: `B` texts, one batch.
            k: labels for each text at least, whatever the search; 0 for those that the search holds.
            allowed: ids of the labels to choose from; all if None.

        Returns:
            Candidates with their probabilities, not calibrated; the set that the model generated is chosen.
        """
        return scored_sets(self.decoded(texts, k, allowed))

    def decoded(self, texts: Sequence[str], k: int = 0, allowed: np.ndarray | None = None) -> list[DecodedSet]:
        """The label sets that [`rank`] is made of; their search runs once for a [`TextBatch`], whatever `k`."""
        batch = TextBatch.of(texts)
        key = ("decoded", None if allowed is None else allowed.tobytes())
        given = batch.given
        found = batch.once(self, key, lambda: self.decode(self.encoded(batch), 0, allowed, given))
        if not k:
            return found
        return batch.once(self, (*key, k), lambda: self._filled(found, self.encoded(batch), k, allowed, given))

    @torch.no_grad()
    def features(
        self, texts: Sequence[str], candidates: ScoredLabels, names: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """What the model says of candidates whoever found them, `(M,)` each.

        `teacher_forced` is their probability after the labels that the model generated, `candidate_head` that of the
        head, which has read the text with its candidates already and costs nothing.

        Args:
            texts: `B` texts, one batch.
            candidates: their candidates.
            names: what is wanted of these; all that the model has if None.
        """
        batch, found = TextBatch.of(texts), {}
        if self.model.config.candidate_head and (names is None or "candidate_head" in names):
            found["candidate_head"] = self.encoded(batch).candidate_head_scores(candidates)
        if names is None or "teacher_forced" in names:
            found["teacher_forced"] = self._teacher_forced(batch, candidates)
        return found

    def _teacher_forced(self, batch: TextBatch, candidates: ScoredLabels) -> np.ndarray:
        given = _with_given(self.decoded(batch, 0, batch.allowed), batch.given)
        rows = np.split(candidates.labels, candidates.start[1:-1])
        scores = self.score(self.encoded(batch), [row.tolist() for row in rows], given, floor=_FLOOR)
        return np.array([value for row in scores for value in row], dtype=np.float64)

    # ------------------------------------------------------------------------------------------------ encoder side

    @torch.no_grad()
    def encode(self, texts: Sequence[EncodedText]) -> Encoded:
        """Run the encoder: `mcg` generates the clusters first, `bcl` predicts them, the others have none."""
        if self.model.config.variant == "mcg":
            return self.run_encoder(texts, self._generate_clusters(texts), "labels")
        return super().encode(texts)

    def _generate_clusters(self, texts: Sequence[EncodedText]) -> list[list[int]]:
        """First step of `mcg`: the clusters of each text, greedily."""
        memory = self.run_encoder(texts, [[] for _ in texts], "clusters").memory
        least, most = self.model.config.min_clusters, self.model.config.max_clusters
        trie, start = self.processor.label_tokenizer.cluster_trie, self.model.config.cluster_start_token_id
        constraint = self._constraint(trie, min_labels=min(least, most), max_labels=most)
        sets = self._search(memory, constraint, DecodingOptions(num_beams=1), most + 1, start=start)
        return [[cluster for cluster in row if cluster >= 0] for row in sets.labels[:, 0].tolist()]

    # ------------------------------------------------------------------------------------------------ decoder side

    @torch.no_grad()
    def decode(
        self, encoded: Encoded, k: int = 0, allowed: np.ndarray | None = None, given: Sequence[Sequence[int]] = ()
    ) -> list[DecodedSet]:
        """Search for the label sets of encoded texts.

        Args:
            encoded: what [`encode`] gave for `B` texts.
            k: labels for each text at least, whatever the search, or as many as can be generated; 0 for those that
                the search holds. Further ones are found by greedy search, and are scored at most as high as those
                before them.
            allowed: ids of the labels to choose from; all if None.
            given: label ids that each text has already: sets begin with them, and what comes back are the further
                ones; none if empty.
        """
        options = self.decoding
        decoded = to_decoded(self.search(encoded, options, allowed, given), encoded.clusters, options, given)
        lower, upper = self._bounds(options)
        if _forced_labels(options) > lower:
            decoded = [one.with_bounds(lower, upper) for one in decoded]
        if given:
            decoded = [one.without(labels) for one, labels in zip(decoded, given, strict=True)]
        if options.min_candidates and any(text.candidates.labels for text in encoded.texts):
            self.add_input_candidates(decoded, encoded, allowed, given)
        return self._filled(decoded, encoded, k, allowed, given) if k else decoded

    @torch.no_grad()
    def search(
        self,
        encoded: Encoded,
        options: DecodingOptions | None = None,
        allowed: np.ndarray | None = None,
        given: Sequence[Sequence[int]] = (),
    ) -> LabelSets:
        """All sets that a search finds.

        Args:
            encoded: what [`encode`] gave for `B` texts.
            options: how to search; the generator's own if None.
            allowed: ids of the labels to choose from; all if None.
            given: label ids that each text's sets begin with; none if empty. They count in the bounds.

        Raises:
            ConfigurationError: if the options ask for more labels at least than at most.
        """
        options = (options or self.decoding).resolved(self.model.config.num_beams, self.model.config.pool)  # type: ignore[arg-type]
        lower, upper = self._bounds(options)
        if lower > upper:
            raise ConfigurationError(
                f"min_labels={lower}, max_labels={upper}; 0 <= min_labels <= max_labels is needed."
            )
        trie, forced = self.processor.label_tokenizer.open_trie(allowed), _forced_labels(options)
        ranks = self.processor.label_space.decode_ranks if options.ordered else None
        bounds = {"min_labels": max(lower, forced), "max_labels": max(upper, forced), "reachable": lower}
        constraint = self._constraint(trie, make_ranks=ranks, **bounds)
        begin = self._begin(given)
        draws = self._draws(encoded.texts, options.seed) if options.num_samples else ()
        return self._search(encoded.memory, constraint, options, self.processor.max_target_length, begin, draws=draws)

    def _draws(self, texts: Sequence[EncodedText], seed: int) -> list[torch.Generator]:
        """A source of draws for each text, from the seed and the text: they do not depend on how texts are batched."""
        hashed = (zlib.crc32(f"{seed} {text.token_ids}".encode()) for text in texts)
        return [torch.Generator(self.model.device).manual_seed(one) for one in hashed]

    def _begin(self, given: Sequence[Sequence[int]], closed: Sequence[Sequence[int]] | None = None) -> SetsBegin:
        """How sets begin.

        Args:
            given: label ids of each text; none if empty.
            closed: what its sets must not hold, if the given labels do not count as labels of the sets.
        """
        return self._begin_after(given, closed) if given else SetsBegin(closed or ())

    def _begin_after(self, given: Sequence[Sequence[int]], closed: Sequence[Sequence[int]] | None) -> SetsBegin:
        """[`_begin`] with given labels: the decoder has read them, in decode order, as far as half a target goes."""
        spelled, room = self.processor.label_tokenizer.label_token_ids, self.processor.max_target_length // 2
        ordered = [self.processor.label_space.order(dict.fromkeys(labels)) for labels in given]
        tokens = [[token for label in self._fitting(labels, room) for token in spelled[label]] for labels in ordered]
        return SetsBegin((), ordered, tokens) if closed is None else SetsBegin(closed, (), tokens)

    def _bounds(self, options: DecodingOptions) -> tuple[int, int]:
        """Minimum and maximum number of labels of a set; the model's own bounds give way to one that is asked for."""
        config, lower, upper = self.model.config, options.min_labels, options.max_labels
        if lower is None:
            lower = config.min_labels if upper is None else min(config.min_labels, upper)
        return lower, max(config.max_labels, lower) if upper is None else upper

    def add_input_candidates(
        self,
        decoded: Sequence[DecodedSet],
        encoded: Encoded,
        allowed: np.ndarray | None = None,
        given: Sequence[Sequence[int]] = (),
    ) -> None:
        """Score the candidates in the input of each text (rcl), too, by teacher forcing.

        A candidate of the input gets its probability as the next label at its place among those of the set. One that
        the search found has the greater of both probabilities.

        Args:
            decoded: what was found for the texts; their candidates are changed.
            encoded: the texts.
            allowed: ids of the labels to choose from; all if None.
            given: label ids that each text has already; none if empty.
        """
        candidates = [text.candidates.labels for text in encoded.texts]
        is_open = np.zeros(len(self.processor.label_space), dtype=bool)
        is_open[self.processor.label_tokenizer.open_labels(allowed)] = True
        candidates = [
            [label for label in labels if is_open[label] and label not in held]
            for labels, held in zip(candidates, given or [()] * len(candidates), strict=True)
        ]
        scores = self.score(encoded, candidates, _with_given(decoded, given))
        for one, labels, values in zip(decoded, candidates, scores, strict=True):
            for label, value in zip(labels, values, strict=True):
                one.candidates[label] = max(value, one.candidates.get(label, 0.0))

    def _filled(
        self,
        decoded: Sequence[DecodedSet],
        encoded: Encoded,
        k: int,
        allowed: np.ndarray | None,
        given: Sequence[Sequence[int]],
    ) -> list[DecodedSet]:
        """Sets with at least `k` candidates: further ones come from a greedy search with those at hand closed.

        They come after what the search itself found, in the order in which they are generated, so the score of each
        is at most that of the one before. What a target has no room for is found by the next round.
        """
        filled = [replace(one, candidates=dict(one.candidates)) for one in decoded]
        trie = self.processor.label_tokenizer.open_trie(allowed)
        held, read = [trie.held(labels) for labels in given] or [[]] * len(filled), list(given)
        most = [min(k, len(trie) - len(labels)) for labels in held]
        while lacking := [row for row, one in enumerate(filled) if len(one.candidates) < most[row]]:
            missing = max(most[row] - len(filled[row].candidates) for row in lacking)
            memory = encoded.memory.select(torch.tensor(lacking, device=self.model.device))
            constraint = self._constraint(trie, min_labels=missing, max_labels=missing)
            closed = [[*filled[row].candidates, *held[row]] for row in lacking]
            begin = self._begin([read[row] for row in lacking] if read else (), closed)
            options = DecodingOptions(num_beams=1)
            sets = self._search(memory, constraint, options, self.processor.max_target_length, begin)
            for row, labels, log_probs in zip(lacking, sets.labels[:, 0], sets.log_probs[:, 0], strict=True):
                count = len(filled[row].candidates)
                _add_in_order(filled[row].candidates, labels[labels >= 0], log_probs, most[row])
                if read and len(filled[row].candidates) == count:
                    read[row] = ()  # what is left is too long to come after the labels given
        return filled

    @torch.no_grad()
    def score(
        self,
        encoded: Encoded,
        candidates: Sequence[Sequence[int]],
        given: Sequence[Sequence[int]],
        floor: float = 0.0,
    ) -> list[list[float]]:
        """Probabilities of candidates by teacher forcing, without a search.

        Args:
            encoded: what [`encode`] gave for `B` texts.
            candidates: label ids of each text.
            given: label ids that each text has, in any order; those before a candidate in decode order come before it.
            floor: probabilities below it are not spelled out to the end, which saves time: what comes back for them is
                some number below it.

        Returns:
            Probabilities in the order of the candidates, in [0, 1]; 0 for labels that no target can hold.

        Raises:
            ConfigurationError: if texts, candidates and given labels differ in number.
        """
        if not len(encoded.texts) == len(candidates) == len(given):
            raise ConfigurationError(
                f"{len(encoded.texts)} texts come with candidates for {len(candidates)} and given labels for "
                f"{len(given)}."
            )
        never = set(self.processor.label_tokenizer.oversized_labels.tolist())
        kept = [[label for label in labels if label not in never] for labels in candidates] if never else candidates
        scores = score_candidates(
            self.model.decode_step,
            self._constraint(self.processor.label_tokenizer.trie),
            encoded.memory,
            kept,
            [self._as_far_as_fits(*pair) for pair in zip(given, kept, strict=True)],
            self.processor.label_tokenizer,
            self.model.config.start_token,
            floor,
        )
        if not never:
            return scores
        of_rows = (dict(zip(labels, values, strict=True)) for labels, values in zip(kept, scores, strict=True))
        return [[known.get(label, 0.0) for label in labels] for known, labels in zip(of_rows, candidates, strict=True)]

    def score_texts(
        self,
        texts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        given: Sequence[Sequence[str]] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[list[float]]:
        """Score candidate labels of texts by teacher forcing, without a search.

        A candidate's score is its probability as the next label after those labels that are given for the text and
        come before it in the decode order. The text is encoded once, and what candidates share at their start is run
        once.

        Args:
            texts: the texts.
            candidates: names of labels to score for each text; any number, of the label space.
            given: labels that each text is known, or was predicted, to have; none if None. A model that generates in
                order of frequency gives rare labels little as the first one, so give its own prediction here.
            batch_size: texts in a batch.

        Returns:
            Probabilities in the order of the candidates, in [0, 1].

        Raises:
            ConfigurationError: if texts, candidates and given labels differ in number.
            LabelSpaceError: if a name is not in the label space.
        """
        texts, given = TextBatch.of(texts).texts, [()] * len(texts) if given is None else given
        if not len(texts) == len(candidates) == len(given):
            raise ConfigurationError(
                f"{len(texts)} texts come with candidates for {len(candidates)} and given labels for {len(given)}."
            )
        space = self.processor.label_space
        wanted = [[space.encode([name])[0] for name in names] for names in candidates]
        known = [space.encode(names) for names in given]
        scores: list[list[float]] = [[] for _ in texts]
        for rows in length_batches([len(text) for text in texts], batch_size):
            encoded = self.encode(self.read([texts[row] for row in rows]))
            found = self.score(encoded, [wanted[row] for row in rows], [known[row] for row in rows])
            for row, values in zip(rows, found, strict=True):
                scores[row] = values
        return scores

    def _as_far_as_fits(self, given: Sequence[int], candidates: Sequence[int]) -> list[int]:
        """Labels in decode order that leave room for each candidate: a decoder has only so many positions.

        One that does not fit is left out alone, as in a target.
        """
        spelled = self.processor.label_tokenizer.label_token_ids
        room = self.processor.max_target_length - max((len(spelled[label]) for label in candidates), default=0)
        return self._fitting(self.processor.label_space.order(given), room)

    def _fitting(self, labels: Sequence[int], room: int) -> list[int]:
        """The labels that fit into a number of tokens, one after the other; one that does not is left out alone."""
        spelled = self.processor.label_tokenizer.label_token_ids
        kept = []
        for label in labels:
            if len(spelled[label]) <= room:
                room -= len(spelled[label])
                kept.append(label)
        return kept

    # ------------------------------------------------------------------------------------------------ engine

    def _constraint(
        self, trie: LabelTrie, *, make_ranks: Callable[[], np.ndarray] | None = None, **bounds: int
    ) -> LabelSetConstraint:
        """A constraint over a trie. Making one reads the whole trie, so those of a trie are kept with it."""
        device, width = self.model.device, self.model.config.num_output_tokens

        def columns() -> torch.Tensor:
            return self.model.output_columns(torch.as_tensor(trie.edge_token, device=device)).to(torch.int32)

        def constraint() -> LabelSetConstraint:
            of_edges = trie.kept(("columns", device, width), columns)
            ranks = None if make_ranks is None else make_ranks()
            return LabelSetConstraint(trie, of_edges, ranks=ranks, device=device, **bounds)

        return trie.kept((device, width, make_ranks is None, *sorted(bounds.items())), constraint)

    def _search(
        self,
        memory: XLGenMemory,
        constraint: LabelSetConstraint,
        options: DecodingOptions,
        max_length: int,
        begin: SetsBegin | None = None,
        start: int | None = None,
        draws: Sequence[torch.Generator] = (),
    ) -> LabelSets:
        rows, device = DecoderRows(self.model.decode_step, memory), self.model.device
        start, end = self.model.config.start_token if start is None else start, self.processor.eos_token_id
        end_column = int(self.model.output_columns(torch.tensor(end, device=device)))
        if options.num_beams is not None and options.num_beams > 1:
            return beam_search(rows, constraint, start, end_column, max_length, options.num_beams, begin)
        return greedy_or_sample(
            rows,
            constraint,
            start,
            end_column,
            max_length,
            samples=options.num_samples,
            temperature=options.temperature,
            generators=draws,
            begin=begin,
        )


def _with_given(decoded: Sequence[DecodedSet], given: Sequence[Sequence[int]]) -> list[list[int]]:
    """The labels of each text: those that it has already, and those that were found."""
    return [[*one.labels, *labels] for one, labels in zip(decoded, given or [()] * len(decoded), strict=True)]


def _add_in_order(found: dict[int, float], labels: np.ndarray, log_probs: np.ndarray, k: int) -> None:
    """Add labels up to `k` in all, each scored at most as high as those before it."""
    lowest = min(found.values(), default=1.0)
    for label, score in zip(labels[: k - len(found)].tolist(), np.exp(log_probs).tolist(), strict=False):
        lowest = found[label] = min(lowest, score)


def _forced_labels(options: DecodingOptions) -> int:
    """Labels that greedy search continues to, past its own end; beams and samples bring candidates of their own."""
    return options.min_candidates if options.is_greedy else 0
