"""From texts to label sets: batching by length, the variants' steps, decoding, and a score for every label."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from .decoding import ClusterSetLogitsProcessor, LabelSetLogitsProcessor, parse_label_sequences
from .outputs import LabelPrediction

if TYPE_CHECKING:
    from .processing_xlgen import XLGenProcessor

__all__ = ["DecodedSet", "LabelPredictionMixin"]

logger = logging.getLogger(__name__)

_SCORED_ROWS = 64  # rows whose output logits are held at once while scoring


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
    """

    labels: list[int]
    log_probs: list[float]
    would_end: list[bool]
    clusters: list[int]
    complete: bool

    def with_min_labels(self, min_labels: int) -> DecodedSet:
        """The set that greedy search finds with another, lower bound on the number of labels.

        Greedy search goes the same way under every bound until it may end, so the set is a prefix of this one.
        """
        ends = (n for n, end in enumerate(self.would_end, start=1) if end and n >= min_labels)
        size = next(ends, len(self.labels))
        return DecodedSet(
            self.labels[:size], self.log_probs[:size], self.would_end[:size], self.clusters, self.complete
        )


class LabelPredictionMixin:
    """Adds label-set decoding to a model that has `encode`, `forward` and `generate` of an XLGen model."""

    # What the model brings.
    config: Any
    device: Any
    encode: Callable[..., Any]
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
        batch_size: int = 64,
        num_beams: int = 1,
        min_labels: int | None = None,
        max_labels: int | None = None,
        progress: bool = False,
    ) -> list[LabelPrediction]:
        """Predict the label sets of texts, in closed vocabulary.

        Args:
            texts: the texts, in any order; they are batched by length and come back in the given order.
            processor: the model's processor.
            batch_size: texts in a batch.
            num_beams: beams of a text; 1 is greedy search.
            min_labels: least labels of a text; the model's own setting if None.
            max_labels: most labels of a text; the model's own setting if None.
            progress: show a progress bar on a terminal.

        Returns:
            A prediction for each text, its labels sorted by score.
        """
        if isinstance(texts, str):
            raise TypeError("predict takes a list of texts; put a single text into a list.")
        text_ids = processor.encode_texts(list(texts))
        order = sorted(range(len(text_ids)), key=lambda i: -len(text_ids[i]))
        predictions: list[LabelPrediction | None] = [None] * len(text_ids)
        cut = 0
        bar = tqdm(total=len(order), unit="text", disable=None if progress else True)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            decoded = self.decode_texts(
                [text_ids[i] for i in rows],
                processor,
                num_beams=num_beams,
                min_labels=min_labels,
                max_labels=max_labels,
            )
            for row, one in zip(rows, decoded, strict=True):
                predictions[row] = _to_prediction(one, processor)
                cut += not one.complete
            bar.update(len(rows))
        bar.close()
        if cut:
            logger.warning(
                "%d of %d label sets were cut at max_target_length; further labels are lost.", cut, len(order)
            )
        return predictions  # type: ignore[return-value]

    @torch.no_grad()
    def decode_texts(
        self,
        text_ids: Sequence[Sequence[int]],
        processor: XLGenProcessor,
        *,
        num_beams: int = 1,
        min_labels: int | None = None,
        max_labels: int | None = None,
    ) -> list[DecodedSet]:
        """Decode the label sets of one batch of tokenized texts, with the one or two steps of the variant.

        Args:
            text_ids: token ids of each text, without special tokens (`processor.encode_texts`).
            processor, num_beams, min_labels, max_labels: see [`predict`].
        """
        inputs, clusters = self._prepare_batch(text_ids, processor)
        memory, mask, logits, bits = self.encode(inputs["input_ids"], inputs["attention_mask"])
        if bits is not None:
            clusters = _active_clusters(logits, bits)
        sequences = self._search(
            memory,
            mask,
            LabelSetLogitsProcessor(
                processor.trie,
                processor.eos_token_id,
                min_labels=self.config.min_labels if min_labels is None else min_labels,
                max_labels=self.config.max_labels if max_labels is None else max_labels,
                num_beams=num_beams,
            ),
            num_beams,
            processor.max_target_length,
        )
        return self._score(sequences, memory, mask, processor, clusters)

    def _prepare_batch(
        self, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor
    ) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
        """Model inputs for label generation; `mcg` generates the clusters for them first."""
        clusters: list[list[int]] = [[] for _ in text_ids]
        task = None
        if self.config.variant == "mcg":
            task = "labels"
            clusters = self._generate_clusters(text_ids, processor)
        rows = [processor.build_input(ids, some, task) for ids, some in zip(text_ids, clusters, strict=True)]
        return processor.pad(rows).to(self.device), clusters

    def _generate_clusters(self, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor) -> list[list[int]]:
        """First step of `mcg`: the clusters of each text, greedily."""
        inputs = processor.pad([processor.build_input(ids, task="clusters") for ids in text_ids]).to(self.device)
        memory, mask, _, _ = self.encode(inputs["input_ids"], inputs["attention_mask"])
        first, count = self.config.first_cluster_token_id, self.config.num_clusters
        constraint = ClusterSetLogitsProcessor(first, count, processor.eos_token_id, self.config.max_clusters)
        sequences = self._search(memory, mask, constraint, 1, self.config.max_clusters + 1).tolist()
        return [[token - first for token in row if first <= token < first + count] for row in sequences]

    def _search(
        self, memory: torch.Tensor, mask: torch.Tensor, constraint: Any, num_beams: int, max_new_tokens: int
    ) -> torch.Tensor:
        """Generate under a constraint; `(B, T)` token ids without the start token."""
        sequences = super().generate(  # type: ignore[misc]
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            attention_mask=mask,
            logits_processor=LogitsProcessorList([constraint]),
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
        return sequences[:, 1:]

    def _score(
        self,
        sequences: torch.Tensor,
        memory: torch.Tensor,
        mask: torch.Tensor,
        processor: XLGenProcessor,
        clusters: list[list[int]],
    ) -> list[DecodedSet]:
        """Split sequences into labels, each with the log-probability of its tokens."""
        cumulative, would_end = (part.cpu().numpy() for part in self._score_tokens(sequences, memory, mask))
        found = parse_label_sequences(sequences.cpu().numpy(), processor.trie, processor.separator_token_id)
        complete = (sequences == self.config.eos_token_id).any(1).tolist()
        decoded = [DecodedSet([], [], [], some, ended) for some, ended in zip(clusters, complete, strict=True)]
        before = np.zeros(len(clusters))
        for row, label, end in zip(*(column.tolist() for column in found), strict=True):
            decoded[row].labels.append(label)
            decoded[row].log_probs.append(float(cumulative[row, end] - before[row]))
            decoded[row].would_end.append(bool(would_end[row, end]))
            before[row] = cumulative[row, end]
        return decoded

    def _score_tokens(
        self, sequences: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each sequence up to each token, and whether the end token beats the next one.

        Both `(B, T)`, from one teacher-forced pass over `sequences` `(B, T)`.
        """
        end = self.config.eos_token_id
        is_end = (sequences == end).long()
        ended = is_end.cumsum(1) - is_end > 0  # behind the end token
        target = sequences.masked_fill(ended, -100)
        end_position = self.piece_positions(torch.tensor(end, device=sequences.device))
        log_probs, end_wins = [], []
        for rows in torch.arange(len(sequences), device=sequences.device).split(_SCORED_ROWS):
            logits = self(
                encoder_outputs=BaseModelOutput(last_hidden_state=memory[rows]),
                attention_mask=mask[rows],
                labels=target[rows],
            ).logits
            position = self.piece_positions(target[rows]).clamp(min=0)[:, :, None]
            chosen = logits.gather(2, position)[:, :, 0].float()
            log_probs.append((chosen - logits.float().logsumexp(2)).masked_fill(ended[rows], 0.0).cumsum(1))
            end_wins.append(logits[:, :, end_position] >= chosen)
        wins = torch.cat(end_wins)
        # The logits at a position choose the token that stands there: what follows a token is one position on.
        return torch.cat(log_probs), torch.cat([wins[:, 1:], torch.ones_like(wins[:, :1])], dim=1)


def _active_clusters(logits: torch.Tensor, bits: torch.Tensor) -> list[list[int]]:
    """Ids of the active clusters of each row, most probable first."""
    order = logits.argsort(dim=1, descending=True).tolist()
    active = (bits > 0).tolist()
    return [[c for c in row if on[c]] for row, on in zip(order, active, strict=True)]


def _to_prediction(decoded: DecodedSet, processor: XLGenProcessor) -> LabelPrediction:
    """Ids to names, labels sorted by score; equal scores keep the order of generation."""
    scores = np.exp(decoded.log_probs).tolist() if decoded.labels else []
    ranked: Iterator[int] = iter(sorted(range(len(scores)), key=lambda i: -scores[i]))
    ids = list(ranked)
    names = processor.clusters.names if processor.clusters is not None else []
    return LabelPrediction(
        labels=processor.label_space.decode(decoded.labels[i] for i in ids),
        scores=[scores[i] for i in ids],
        clusters=[names[c] for c in decoded.clusters],
    )
