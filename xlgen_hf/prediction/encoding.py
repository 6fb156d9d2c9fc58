"""The encoder side of a prediction: texts encoded once, whatever reads the result; what the candidate head says."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from ..encoders.cut_texts import cut_texts_together
from ..errors import ConfigurationError
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import SCORES, TextBatch

if TYPE_CHECKING:  # an index has no model, and starts in a third of the time without these
    import torch
    from transformers import Cache

    from ..configuration_xlgen import XLGenConfig
    from ..decoding.memory import XLGenMemory
    from ..processing_xlgen import EncodedText, XLGenProcessor

__all__ = ["Encoded", "GeneratorModel", "ModelSource", "length_batches", "one_report_of_cuts"]

logger = logging.getLogger(__name__)


class GeneratorModel(Protocol):
    """What label-set decoding needs of a model."""

    config: XLGenConfig
    training: bool

    def modules(self) -> Iterator[torch.nn.Module]:
        """The model and all that it is made of."""

    def eval(self) -> torch.nn.Module:
        """Switch dropout off."""

    def sharing_weights(self) -> GeneratorModel:
        """The same model, whose output layer may follow other labels."""

    def fit_output(self, processor: XLGenProcessor) -> None:
        """Follow the labels of a processor that changed."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def encode(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None = None,
        *,
        candidate_ids: torch.Tensor | None = None,
        candidate_scores: torch.Tensor | None = None,
    ) -> XLGenMemory:
        """Inputs `(B, S)` -> the decoder's memory."""

    def decode_step(
        self, memory: XLGenMemory, tokens: torch.Tensor, cache: Cache | None = None
    ) -> tuple[torch.Tensor, Cache | None]:
        """Log-probabilities of the next token of each decoder row, and the cache."""

    def output_columns(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids of labels -> their columns in the log-probabilities."""


@dataclass(frozen=True)
class Encoded:
    """Texts as the decoder sees them.

    Attributes:
        texts: the encoded texts.
        memory: the decoder's memory, a row for each text.
        clusters: ids of the clusters that condition it, most probable first; none for `base` and `rcl`.
    """

    texts: list[EncodedText]
    memory: XLGenMemory
    clusters: list[list[int]]

    def ranked_candidates(self, allowed: np.ndarray | None = None) -> ScoredLabels:
        """The candidates in the inputs, by the probabilities of the model's candidate head; none is chosen.

        Their parts are what retrieval says of them: `SCORES`, and `retrieval_rank`, 1 / (1 + place).

        Args:
            allowed: ids of the labels to choose from; all if None.
        """
        assert self.memory.candidate_logits is not None
        probabilities = self.memory.candidate_logits.float().sigmoid().double().cpu().numpy()  # (B, K)
        sizes = [len(text.candidates.labels) for text in self.texts]
        labels = np.array([label for text in self.texts for label in text.candidates.labels], dtype=np.int64)
        text = np.repeat(np.arange(len(sizes)), sizes)
        place = np.arange(len(labels)) - np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
        scores = probabilities[text, place]
        rows = (one for row, size in zip(self.texts, sizes, strict=True) for one in row.candidates.score_rows(size))
        known = np.array(list(rows), dtype=np.float64).reshape(-1, len(SCORES))
        parts = {**dict(zip(SCORES, known.T, strict=True)), "retrieval_rank": 1 / (1 + place)}
        kept = np.ones(len(labels), dtype=bool) if allowed is None else np.isin(labels, allowed)
        nothing = np.zeros(int(kept.sum()), dtype=bool)
        parts = {name: values[kept] for name, values in parts.items()}
        return ScoredLabels.from_entries(text[kept], labels[kept], scores[kept], nothing, len(sizes), parts)

    def candidate_head_scores(self, candidates: ScoredLabels) -> np.ndarray:
        """The head's probabilities of any candidates, `(M,)`; of one that is not in the input the text's lowest.

        Args:
            candidates: candidates of the texts.
        """
        known = self.ranked_candidates()
        lowest = np.zeros(len(known))
        filled = np.diff(known.start) > 0
        lowest[filled] = known.scores[known.start[1:][filled] - 1]
        span = int(max(known.labels.max(initial=0), candidates.labels.max(initial=0))) + 1
        order = np.argsort(known.text * span + known.labels)
        keys, wanted = (known.text * span + known.labels)[order], candidates.text * span + candidates.labels
        scores = lowest[candidates.text]
        place = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
        if len(keys):
            found = keys[place] == wanted
            scores[found] = known.scores[order][place[found]]
        return scores


class ModelSource(ABC):
    """A source of candidates that is an XLGen model: its generator, or its candidate head.

    Args:
        model: the model, in evaluation mode.
        processor: its processor.

    Attributes:
        generates: whether it searches for label sets.
    """

    generates: ClassVar[bool] = False

    def __init__(self, model: GeneratorModel, processor: XLGenProcessor) -> None:
        self.model = model
        self.processor = processor

    @abstractmethod
    def rank(self, texts: Sequence[str], k: int = 0, allowed: np.ndarray | None = None) -> ScoredLabels:
        """The best labels of each text; see [`CandidateSource`]."""

    @abstractmethod
    def features(
        self, texts: Sequence[str], candidates: ScoredLabels, names: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """What the model says of candidates whoever found them; see [`CandidateScorer`]."""

    def encoded(self, batch: TextBatch) -> Encoded:
        """The encoded texts of a batch; encoded once."""
        return batch.once(self, "encoded", lambda: self.encode(self.read(batch)))

    def read(self, texts: Sequence[str]) -> list[EncodedText]:
        """Texts as the model reads them; the run of [`length_batches`] that they belong to counts those that are cut.

        Those of a processor whose training has reported that it cuts texts are not counted again.
        """
        encoded, run = self.processor.encode_texts(texts), _RUN.get()
        if run is not None and not self.processor.reported_cuts:
            run.cut += sum(text.is_cut for text in encoded)
            run.reader = self.processor
        return encoded

    def encode(self, texts: Sequence[EncodedText]) -> Encoded:
        """Run the encoder; `bcl` predicts clusters, the others have none."""
        return self.run_encoder(texts, [[] for _ in texts], None)

    def run_encoder(self, texts: Sequence[EncodedText], clusters: Sequence[list[int]], task: str | None) -> Encoded:
        """Encode texts with clusters, and the task prefix of `mcg`.

        Args:
            texts: the texts.
            clusters: ids of the clusters in each one's input.
            task: see [`XLGenProcessor.build_input`].
        """
        rows = [self.processor.build_input(text, of_text, task) for text, of_text in zip(texts, clusters, strict=True)]
        inputs = self.processor.pad(rows, candidates=[text.candidates for text in texts]).to(self.model.device)
        import torch  # not above; see there

        with torch.no_grad():
            memory = self.model.encode(**inputs)
        active = list(clusters) if memory.cluster_bits is None else _active_clusters(memory)
        return Encoded(list(texts), memory, active)


@dataclass
class _Run:
    """Texts that go through a model batch by batch."""

    texts: int = 0
    cut: int = 0  # those that did not fit into the model's input, so far
    reader: XLGenProcessor | None = None  # what made the model's input of them, if it was a model

    def end(self, outer: _Run | None) -> None:
        """Add to a run of which this was a part, or say what was cut."""
        if outer is not None and self.reader is not None:
            outer.texts, outer.cut, outer.reader = outer.texts + self.texts, outer.cut + self.cut, self.reader
        elif self.cut and self.reader is not None:
            logger.warning(
                "%d of %d texts do not fit into max_source_length=%d tokens and were cut there.",
                *(self.cut, self.texts, self.reader.max_source_length),
            )


_RUN: ContextVar[_Run | None] = ContextVar("_RUN", default=None)  # the run that this thread is in


def length_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Numbers of the texts of each batch, longest texts first.

    Going through the batches is a run: after the last one, the texts that a model has cut meanwhile are logged.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size}; it must be an integer >= 1.")
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return _in_run((order[start : start + batch_size] for start in range(0, len(order), batch_size)), len(order))


def _in_run(batches: Iterator[list[int]], texts: int) -> Iterator[list[int]]:
    run, outer = _Run(texts), _RUN.get()
    _RUN.set(run)
    try:
        with cut_texts_together():  # by an encoder of retrieval
            yield from batches
    finally:
        _RUN.set(outer)
    run.end(outer)


@contextmanager
def one_report_of_cuts(*, once: bool = False) -> Iterator[None]:
    """Several predictions as one: the texts that a model cuts in all of them are logged together, at the end.

    Args:
        once: say nothing about this model again.
    """
    run, outer = _Run(), _RUN.get()
    _RUN.set(run)
    try:
        with cut_texts_together():
            yield
    finally:
        _RUN.set(outer)
    run.end(outer)
    if once and run.cut and run.reader is not None:
        run.reader.reported_cuts = True


def _active_clusters(memory: XLGenMemory) -> list[list[int]]:
    """Ids of the active clusters of each row, most probable first."""
    assert memory.cluster_logits is not None and memory.cluster_bits is not None
    order = memory.cluster_logits.argsort(dim=1, descending=True).tolist()
    active = (memory.cluster_bits > 0).tolist()
    return [[cluster for cluster in row if on[cluster]] for row, on in zip(order, active, strict=True)]
