"""Open vocabulary: names that the model spells freely, and the known labels nearest to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import LogitsProcessorList

from ..decoding.logits_process import LabelNamesLogitsProcessor, split_labels
from ..decoding.memory import XLGenMemory
from ..labels.space import normalize_name
from .results import NovelLabel

if TYPE_CHECKING:
    from ..processing_xlgen import XLGenProcessor

__all__ = ["find_novel_labels", "nearest_names"]

_NAMES_AT_ONCE = 1024  # rows of the similarity matrix


@torch.no_grad()
def find_novel_labels(
    model: Any, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor, *, batch_size: int = 64
) -> list[list[NovelLabel]]:
    """Generate label names freely, greedily, and keep those that no label has.

    With an output layer that is restricted to the pieces of labels, names are new combinations of these pieces.

    Args:
        model: an XLGen model.
        text_ids: token ids of each text (`processor.encode_texts`).
        processor: the model's processor.
        batch_size: texts in a batch.

    Returns:
        The novel labels of each text, each once, most probable first.
    """
    known = {normalize_name(name) for name in processor.label_space.names}  # however a tokenizer spells them
    order = sorted(range(len(text_ids)), key=lambda i: -len(text_ids[i]))
    found: list[dict[str, float]] = [{} for _ in text_ids]
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        for row, names in zip(rows, _spell(model, [text_ids[i] for i in rows], processor), strict=True):
            for name, score in names:
                if normalize_name(name) not in known and score > found[row].get(name, 0.0):
                    found[row][name] = score
    nearest = nearest_names(sorted({name for names in found for name in names}), processor.label_space.names)
    return [
        sorted((NovelLabel(name, score, nearest[name]) for name, score in names.items()), key=lambda one: -one.score)
        for names in found
    ]


def _spell(model: Any, text_ids: Sequence[Sequence[int]], processor: XLGenProcessor) -> list[list[tuple[str, float]]]:
    """Names of each text that spell no label, with their probabilities."""
    memory, _ = model.encode_batch(text_ids, processor)
    separator, end = processor.separator_token_id, processor.eos_token_id
    sequences = model.generate(
        encoder_outputs=memory,
        attention_mask=memory.attention_mask,
        logits_processor=LogitsProcessorList(
            [
                LabelNamesLogitsProcessor(
                    separator, end, _piece_ids(model, processor), min_labels=model.config.min_labels
                )
            ]
        ),
        num_beams=1,
        do_sample=False,
        max_new_tokens=processor.max_target_length,
    )[:, 1:]
    log_probs = _token_log_probs(model, sequences, memory).cumsum(1).cpu().numpy()
    tokens = sequences.cpu().numpy()
    names: list[list[tuple[str, float]]] = []
    for row, spans in enumerate(split_labels(tokens, separator)):
        names.append([])
        for first, last in spans:
            if processor.trie.label_of(tokens[row, first : last + 1].tolist()) is not None:
                continue
            name = processor.tokenizer.decode(tokens[row, first:last].tolist(), skip_special_tokens=True).strip()
            before = log_probs[row, first - 1] if first else 0.0
            if name:
                names[row].append((name, float(np.exp(log_probs[row, last] - before))))
    return names


def _piece_ids(model: Any, processor: XLGenProcessor) -> torch.Tensor:
    """Tokens that names are made of: those of the output layer, without the special ones."""
    if model.config.num_label_pieces is None:
        pieces = torch.arange(len(processor.tokenizer), device=model.device)
    else:
        pieces = model.label_pieces
    special = [*processor.added_token_ids, *processor.tokenizer.all_special_ids, processor.eos_token_id]
    return pieces[~torch.isin(pieces, torch.tensor(special, device=pieces.device))]


def _token_log_probs(model: Any, sequences: torch.Tensor, memory: XLGenMemory) -> torch.Tensor:
    """Log-probability of each generated token, 0 behind the end token, `(B, T)`; one teacher-forced pass."""
    is_end = (sequences == model.config.eos_token_id).long()
    behind = is_end.cumsum(1) - is_end > 0
    target = sequences.masked_fill(behind, -100)
    logits = model(encoder_outputs=memory, labels=target).logits.float()
    columns = model.piece_positions(target).clamp(min=0)
    return logits.log_softmax(-1).gather(2, columns[:, :, None])[:, :, 0].masked_fill(behind, 0.0)


def nearest_names(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """The known name most like each name, by the cosine of their character n-grams (1 to 3, weighted by TF-IDF)."""
    if not names:
        return {}
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32)
    columns = vectorizer.fit_transform([normalize_name(name) for name in known]).T.tocsr()
    rows = vectorizer.transform([normalize_name(name) for name in names])
    best: list[int] = []
    for start in range(0, len(names), _NAMES_AT_ONCE):
        similarity = rows[start : start + _NAMES_AT_ONCE] @ columns
        best += np.asarray(similarity.argmax(axis=1)).ravel().tolist()
    return {name: known[i] for name, i in zip(names, best, strict=True)}
