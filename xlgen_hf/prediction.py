"""From texts to label sets: batching by length, the variants' steps, the search, and a score for every label."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.modeling_outputs import BaseModelOutput

from .decisions import DecisionRule
from .errors import ConfigurationError
from .label_sets import LabelSetConstraint
from .label_trie import LabelTrie
from .outputs import LabelPrediction
from .scored_labels import ScoredLabels
from .search import DecoderRows, LabelSets, beam_search, score_continuations, walk

if TYPE_CHECKING:
    from .processing_xlgen import XLGenProcessor

__all__ = ["DecodedSet", "DecodingOptions", "LabelPredictionMixin", "score_decoded", "to_predictions"]

logger = logging.getLogger(__name__)

_SCORED_AT_ONCE = 1024  # decoder rows of given labels that are scored together


@dataclass(frozen=True)
class DecodingOptions:
    """How label sets are searched for.

    Attributes:
        num_beams: beams of a text; 1 is greedy search.
        num_samples: sets to draw from the model's distribution instead of searching; 0 searches.
        temperature: divides the log-probabilities that samples are drawn from, above 0.
        seed: of the samples.
        min_labels: least labels of a text; the model's own setting if None.
        max_labels: most labels of a text; the model's own setting if None.
        num_candidates: labels to score for each text, where its set holds fewer; greedy search alone goes on for them.
        ordered: generate labels in the order of training alone, so that a set has just one sequence. Cannot be used
            with the order `shuffle`.
        labels: ids of the labels to choose from; all if None.

    Raises:
        ConfigurationError: if a value is out of range, or options exclude each other.
    """

    num_beams: int = 1
    num_samples: int = 0
    temperature: float = 1.0
    seed: int = 0
    min_labels: int | None = None
    max_labels: int | None = None
    num_candidates: int = 0
    ordered: bool = False
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.num_beams < 1 or self.num_samples < 0 or self.num_candidates < 0:
            raise ConfigurationError(
                f"num_beams={self.num_beams}, num_samples={self.num_samples}, num_candidates={self.num_candidates}; "
                "at least 1, 0 and 0 are needed."
            )
        if self.num_beams > 1 and self.num_samples:
            raise ConfigurationError(f"num_beams={self.num_beams} and num_samples={self.num_samples}; choose one.")
        if self.temperature <= 0:
            raise ConfigurationError(f"temperature={self.temperature}; it must be above 0.")


@dataclass
class DecodedSet:
    """The label set of one text, in ids.

    Attributes:
        labels: label ids in the order of their generation.
        log_probs: log-probability of each label given the text and the labels before it.
        would_end: after each label, whether the model gave the end token more than the token that came next; where a
            lower bound on the number of labels went against the model's own wish to end.
        clusters: ids of the clusters that guided the generation, most probable first.
        complete: whether the sequence came to its end; if not, it was cut at the greatest length.
        candidates: label id -> probability, for these labels and those of the text's other beams or samples.
    """

    labels: list[int]
    log_probs: list[float]
    would_end: list[bool]
    clusters: list[int]
    complete: bool
    candidates: dict[int, float] = field(default_factory=dict)

    def with_min_labels(self, min_labels: int) -> DecodedSet:
        """The set that greedy search finds with another, lower bound on the number of labels.

        Greedy search goes the same way under every bound until it may end, so the set is a prefix of this one.
        """
        ends = (n for n, end in enumerate(self.would_end, start=1) if end and n >= min_labels)
        size = next(ends, len(self.labels))
        return DecodedSet(
            self.labels[:size],
            self.log_probs[:size],
            self.would_end[:size],
            self.clusters,
            self.complete or size < len(self.labels),
            self.candidates,
        )


class LabelPredictionMixin:
    """Adds label-set decoding to a model that has `encode`, `decode_step` and `generate` of an XLGen model."""

    # What the model brings.
    config: Any
    device: Any
    encode: Callable[..., Any]
    decode_step: Callable[..., Any]
    piece_positions: Callable[[torch.Tensor], torch.Tensor]
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
                memory, attention_mask, _, _ = self.encode(
                    ids, attention_mask, options.pop("inputs_embeds", None), cluster_bits
                )
            options["encoder_outputs"], inputs = BaseModelOutput(last_hidden_state=memory), None
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
        decoded = self.decode(texts, processor, wanted, batch_size=batch_size, progress=progress)
        predictions = to_predictions(rule.apply(score_decoded(decoded, processor)), decoded, processor)
        if open_vocabulary:
            from .open_vocabulary import find_novel_labels

            novel = find_novel_labels(self, processor.encode_texts(texts), processor, batch_size=batch_size)
            for prediction, names in zip(predictions, novel, strict=True):
                prediction.novel_labels = names
        return predictions

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
        text_ids = processor.encode_texts(_listed(texts))
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
        options = options or DecodingOptions()
        memory, mask, clusters = self.encode_batch(text_ids, processor)
        lower = self.config.min_labels if options.min_labels is None else options.min_labels
        constraint = self._label_constraint(processor, options, max(lower, _forced_labels(options)))
        sets = self._search(memory, mask, constraint, options, processor.max_target_length)
        decoded = _to_decoded(sets, clusters, sampled=options.num_samples > 0)
        return [one.with_min_labels(lower) for one in decoded] if _forced_labels(options) > lower else decoded

    def encode_batch(
        self, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor
    ) -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
        """The decoder's memory for label generation, its mask, and the clusters that condition it.

        `mcg` generates the clusters first, `bcl` predicts them, `base` has none.
        """
        clusters: list[list[int]] = [[] for _ in text_ids]
        task = None
        if self.config.variant == "mcg":
            task = "labels"
            clusters = self._generate_clusters(text_ids, processor)
        rows = [processor.build_input(ids, some, task) for ids, some in zip(text_ids, clusters, strict=True)]
        inputs = processor.pad(rows).to(self.device)
        memory, mask, logits, bits = self.encode(inputs["input_ids"], inputs["attention_mask"])
        return memory, mask, clusters if bits is None else _active_clusters(logits, bits)

    def _generate_clusters(self, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor) -> list[list[int]]:
        """First step of `mcg`: the clusters of each text, greedily."""
        inputs = processor.pad([processor.build_input(ids, task="clusters") for ids in text_ids]).to(self.device)
        memory, mask, _, _ = self.encode(inputs["input_ids"], inputs["attention_mask"])
        constraint = self._constraint("clusters", processor.cluster_trie, max_labels=self.config.max_clusters)
        sets = self._search(memory, mask, constraint, DecodingOptions(), self.config.max_clusters + 1)
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
        key = (trie, self.config.num_label_pieces, self.device, make_ranks is None, bounds)
        kept: dict[str, tuple[tuple, LabelSetConstraint]] = self.__dict__.setdefault("_constraints", {})
        if slot not in kept or kept[slot][0] != key:
            columns = self.piece_positions(torch.as_tensor(trie.edge_token, device=self.device)).to(torch.int32)
            ranks = None if make_ranks is None else make_ranks()
            kept[slot] = key, LabelSetConstraint(trie, columns, ranks=ranks, device=self.device, **bounds)
        return kept[slot][1]

    def _search(
        self,
        memory: torch.Tensor,
        mask: torch.Tensor,
        constraint: LabelSetConstraint,
        options: DecodingOptions,
        max_length: int,
    ) -> LabelSets:
        rows = DecoderRows(self.decode_step, memory, mask)
        start, end = self.config.decoder_start_token_id, self.config.eos_token_id
        end_column = int(self.piece_positions(torch.tensor(end, device=self.device)))
        if options.num_beams > 1:
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
        text_ids = processor.encode_texts(_listed(texts))
        given = [()] * len(text_ids) if given is None else given
        if len(candidates) != len(text_ids) or len(given) != len(text_ids):
            raise ConfigurationError(
                f"{len(text_ids)} texts come with candidates for {len(candidates)} and given labels for {len(given)}."
            )
        space = processor.label_space
        wanted = [[space.encode([name])[0] for name in names] for names in candidates]
        known = [space.order(space.encode(names)) for names in given]
        scores: list[list[float]] = [[] for _ in text_ids]
        for rows in _length_batches(text_ids, batch_size):
            memory, mask, _ = self.encode_batch([text_ids[i] for i in rows], processor)
            found = self._score_batch(memory, mask, processor, [wanted[i] for i in rows], [known[i] for i in rows])
            for row, values in zip(rows, found, strict=True):
                scores[row] = values
        return scores

    def _score_batch(
        self,
        memory: torch.Tensor,
        mask: torch.Tensor,
        processor: XLGenProcessor,
        wanted: list[list[int]],
        known: list[list[int]],
    ) -> list[list[float]]:
        """Group candidates by the prefix that they follow, prefixes by their length, and score group by group."""
        contexts: dict[
            tuple[int, int], list[int]
        ] = {}  # (text, given labels before) -> positions among its candidates
        space = processor.label_space
        for text, labels in enumerate(wanted):
            for position, label in enumerate(labels):
                before = space.labels_before(label, known[text])
                contexts.setdefault((text, before), []).append(position)
        by_length: dict[int, list[tuple[int, int, list[int]]]] = {}
        for (text, before), positions in contexts.items():
            tokens = [token for label in known[text][:before] for token in processor.label_token_ids[label]]
            by_length.setdefault(len(tokens), []).append((text, before, positions))
        constraint = self._constraint("labels", processor.trie)
        result = [[0.0] * len(labels) for labels in wanted]
        for group in by_length.values():
            for part in _chunks(group, _SCORED_AT_ONCE):
                texts = torch.tensor([text for text, _, _ in part], device=self.device)
                prefixes = [self._prefix(processor, known[text][:before]) for text, before, _ in part]
                pairs = [(row, text, at) for row, (text, _, positions) in enumerate(part) for at in positions]
                log_probs = score_continuations(
                    DecoderRows(self.decode_step, memory[texts], mask[texts]),
                    constraint,
                    torch.tensor(prefixes, device=self.device),
                    np.array([wanted[text][at] for _, text, at in pairs]),
                    np.array([row for row, _, _ in pairs]),
                )
                for (_, text, at), value in zip(pairs, np.exp(log_probs).tolist(), strict=True):
                    result[text][at] = value
        return result

    def _prefix(self, processor: XLGenProcessor, labels: list[int]) -> list[int]:
        tokens = [token for label in labels for token in processor.label_token_ids[label]]
        return [self.config.decoder_start_token_id, *tokens]


def _listed(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("predict takes a list of texts; put a single text into a list.")
    return list(texts)


def _length_batches(text_ids: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Numbers of the texts of each batch, longest texts first."""
    order = sorted(range(len(text_ids)), key=lambda i: -len(text_ids[i]))
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def _chunks(group: list[tuple[int, int, list[int]]], size: int) -> Iterator[list[tuple[int, int, list[int]]]]:
    """Cut contexts into parts of at most about `size` candidates."""
    part: list[tuple[int, int, list[int]]] = []
    count = 0
    for context in group:
        if part and count + len(context[2]) > size:
            yield part
            part, count = [], 0
        part.append(context)
        count += len(context[2])
    if part:
        yield part


def _forced_labels(options: DecodingOptions) -> int:
    """Labels that greedy search goes on to, past its own end; beams and samples bring candidates of their own."""
    return 0 if options.num_beams > 1 or options.num_samples else options.num_candidates


def _active_clusters(logits: torch.Tensor, bits: torch.Tensor) -> list[list[int]]:
    """Ids of the active clusters of each row, most probable first."""
    order = logits.argsort(dim=1, descending=True).tolist()
    active = (bits > 0).tolist()
    return [[c for c in row if on[c]] for row, on in zip(order, active, strict=True)]


def _to_decoded(sets: LabelSets, clusters: list[list[int]], *, sampled: bool) -> list[DecodedSet]:
    """The most probable set of each text, with the candidates of all of them."""
    candidates = _candidates(sets, sampled=sampled)
    sizes = (sets.labels[:, 0] >= 0).sum(1).tolist()
    first = (part[:, 0].tolist() for part in (sets.labels, sets.log_probs, sets.would_end, sets.complete))
    return [
        DecodedSet(labels[:size], log_probs[:size], ends[:size], some, complete, found)
        for size, labels, log_probs, ends, complete, some, found in zip(
            sizes, *first, clusters, candidates, strict=True
        )
    ]


def _candidates(sets: LabelSets, *, sampled: bool) -> list[dict[int, float]]:
    """Probability of each label that a text's sets hold, `B` dictionaries.

    The mean, over the sets, of the probability with which the label was generated; weighted by the sets' own
    probabilities, samples alike (they come as often as they are probable).
    """
    finite = np.isfinite(sets.score)
    weight = finite.astype(np.float64) if sampled else np.exp(sets.score - sets.score[:, :1]) * finite
    weight /= weight.sum(1, keepdims=True).clip(1e-12)
    text, member, place = np.nonzero((sets.labels >= 0) & finite[:, :, None])
    label = sets.labels[text, member, place].astype(np.int64)
    share = weight[text, member] * np.exp(sets.log_probs[text, member, place].astype(np.float64))
    span = int(sets.labels.max(initial=0)) + 1
    keys, inverse = np.unique(text * span + label, return_inverse=True)
    probability = np.bincount(inverse, weights=share, minlength=len(keys)).clip(0.0, 1.0)
    found: list[dict[int, float]] = [{} for _ in range(len(sets.labels))]
    for key, value in zip(keys.tolist(), probability.tolist(), strict=True):
        found[key // span][key % span] = value
    return found


def score_decoded(decoded: Sequence[DecodedSet], processor: XLGenProcessor) -> ScoredLabels:
    """The candidates of decoded texts, calibrated where the processor has a calibrator."""
    scored = ScoredLabels.from_rows(
        (list(one.candidates), list(one.candidates.values()), [label in one.labels for label in one.candidates])
        for one in decoded
    )
    if processor.calibrator is None:
        return scored
    return processor.calibrator.transform(scored, processor.label_space.counts)


def to_predictions(
    scored: ScoredLabels, decoded: Sequence[DecodedSet], processor: XLGenProcessor
) -> list[LabelPrediction]:
    """Names and scores of the chosen labels, and the names of the clusters that guided their generation."""
    names = processor.clusters.names if processor.clusters is not None else []
    return [
        LabelPrediction(processor.label_space.decode(labels), scores, [names[c] for c in one.clusters])
        for (labels, scores), one in zip(scored.sets(), decoded, strict=True)
    ]
