"""Open vocabulary: names that the model spells freely, and the known labels nearest to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import numpy as np
import torch
from transformers import LogitsProcessorList
from transformers.modeling_outputs import Seq2SeqLMOutput

from ..decoding.logits_process import LabelNamesLogitsProcessor, split_labels
from ..decoding.memory import XLGenMemory
from ..labels.space import normalize_name
from ..processing_xlgen import XLGenProcessor
from ..ranking.sources import TextBatch
from .encoding import GeneratorModel
from .generator import Generator
from .results import NovelLabel

__all__ = ["NearestNames", "find_novel_labels"]

_NAMES_AT_ONCE = 1024  # rows of the similarity matrix


class _SpellingModel(GeneratorModel, Protocol):
    """A model that generates freely."""

    output_token_ids: torch.Tensor
    generate: Callable[..., torch.Tensor]
    __call__: Callable[..., Seq2SeqLMOutput]


@torch.no_grad()
def find_novel_labels(generator: Generator, batch: TextBatch) -> list[list[NovelLabel]]:
    """Generate label names freely, greedily, and keep those that no label has.

    With an output layer that is restricted to the tokens of labels, names are new combinations of these.

    Args:
        generator: the generator.
        batch: the texts; what was encoded of them is used again.

    Returns:
        The novel labels of each text with the known labels nearest to them, most probable first.
    """
    known = _known_names(generator.processor)
    found: list[dict[str, float]] = [{} for _ in batch]
    for row, names in enumerate(_spell(generator, batch)):
        for name, score in names:
            if normalize_name(name) not in known and score > found[row].get(name, 0.0):
                found[row][name] = score
    nearest = _nearest_names(generator.processor, sorted({name for names in found for name in names}))
    return [
        sorted((NovelLabel(name, score, nearest[name]) for name, score in names.items()), key=lambda one: -one.score)
        for names in found
    ]


def _known_names(processor: XLGenProcessor) -> frozenset[str]:
    """All names, however a tokenizer spells them."""
    names = processor.label_space.names
    return processor.label_tokenizer.trie.kept(
        ("names", names[-1], len(names)), lambda: frozenset(map(normalize_name, names))
    )


def _nearest_names(processor: XLGenProcessor, names: Sequence[str]) -> dict[str, str]:
    """The label nearest to each name; the n-grams of labels are counted once for all calls."""
    if not names:
        return {}
    known = processor.label_space.names
    return processor.label_tokenizer.trie.kept(
        ("nearest names", known[-1], len(known)), lambda: NearestNames(known)
    ).of(names)


def _spell(generator: Generator, batch: TextBatch) -> list[list[tuple[str, float]]]:
    """Names of each text that spell no label, with their probabilities."""
    model, processor = cast("_SpellingModel", generator.model), generator.processor
    memory = generator.encoded(batch).memory
    separator, end = processor.label_tokenizer.separator_token_id, processor.eos_token_id
    only_names = LabelNamesLogitsProcessor(
        separator, end, _spelling_tokens(model, processor), min_labels=model.config.min_labels
    )
    sequences = model.generate(
        encoder_outputs=memory,
        attention_mask=memory.attention_mask,
        logits_processor=LogitsProcessorList([only_names]),
        num_beams=1,
        do_sample=False,
        max_new_tokens=processor.max_target_length,
    )[:, 1:]
    log_probs = _token_log_probs(model, sequences, memory, end).cumsum(1).cpu().numpy()
    tokens = sequences.cpu().numpy()
    names: list[list[tuple[str, float]]] = []
    for row, spans in enumerate(split_labels(tokens, separator)):
        names.append([])
        for first, last in spans:
            if processor.label_tokenizer.trie.label_of(tokens[row, first : last + 1].tolist()) is not None:
                continue
            name = processor.tokenizer.decode(tokens[row, first:last].tolist(), skip_special_tokens=True).strip()
            before = log_probs[row, first - 1] if first else 0.0
            if name:
                names[row].append((name, float(np.exp(log_probs[row, last] - before))))
    return names


def _spelling_tokens(model: _SpellingModel, processor: XLGenProcessor) -> torch.Tensor:
    """Tokens that names are made of: those of the output layer, without the special ones."""
    if model.config.num_output_tokens is None:
        tokens = torch.arange(len(processor.tokenizer), device=model.device)
    else:
        tokens = model.output_token_ids
    added = processor.label_tokenizer.added_token_ids
    special = [*added, *processor.tokenizer.all_special_ids, processor.eos_token_id]
    return tokens[~torch.isin(tokens, torch.tensor(special, device=tokens.device))]


def _token_log_probs(model: _SpellingModel, sequences: torch.Tensor, memory: XLGenMemory, end: int) -> torch.Tensor:
    """Log-probability of each generated token, 0 after the end token, `(B, T)`; one teacher-forced pass."""
    is_end = torch.eq(sequences, end).long()
    after = is_end.cumsum(1) - is_end > 0
    target = sequences.masked_fill(after, -100)
    logits = model(encoder_outputs=memory, labels=target).logits.float()
    columns = model.output_columns(target.clamp(min=0))
    return logits.log_softmax(-1).gather(2, columns[:, :, None])[:, :, 0].masked_fill(after, 0.0)


class NearestNames:
    """The known name most like a name, by the cosine of their character n-grams (1 to 3, weighted by TF-IDF).

    Args:
        known: the names, at least one; `L`.
    """

    def __init__(self, known: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # only open vocabulary needs it

        self._known = known
        self._vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32)
        self._columns = self._vectorizer.fit_transform(map(normalize_name, known)).T.tocsr()  # (N, L)

    def of(self, names: Sequence[str]) -> dict[str, str]:
        """The known name most like each of the names, of which there is at least one."""
        rows = self._vectorizer.transform(map(normalize_name, names))
        best: list[int] = []
        for start in range(0, len(names), _NAMES_AT_ONCE):
            similarity = rows[start : start + _NAMES_AT_ONCE] @ self._columns
            best += np.asarray(similarity.argmax(axis=1)).ravel().tolist()
        return {name: self._known[i] for name, i in zip(names, best, strict=True)}
