"""Scores of given labels by teacher forcing: candidates are grouped by what is generated before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from ..labels.tokens import LabelTokenizer
from .constraints import LabelSetConstraint
from .memory import XLGenMemory
from .search import DecoderRows, DecodeStep

__all__ = ["score_candidates", "score_continuations"]

_CANDIDATES_AT_ONCE = 1024


@dataclass
class _Context:
    """What is generated before some candidates of a text.

    Attributes:
        text: the text.
        length: tokens before the candidates, start token included.
        places: places of the candidates among those of the text.
    """

    text: int
    length: int
    places: list[int] = field(default_factory=list)


def score_candidates(
    step: DecodeStep,
    constraint: LabelSetConstraint,
    memory: XLGenMemory,
    candidates: Sequence[Sequence[int]],
    given: Sequence[Sequence[int]],
    labels: LabelTokenizer,
    start_token: int,
    floor: float = 0.0,
) -> list[list[float]]:
    """Probability of each candidate as the next label, at its place among the labels that are given.

    The given labels of each text are run once; at the places of its candidates, copies of its row branch off.

    Args:
        step: runs the decoder, see `search.py`.
        constraint: gives the trie and its columns.
        memory: what the model's `encode` gave for `B` texts.
        candidates: label ids of each text.
        given: label ids that each text has, in decode order.
        labels: gives the label space and how labels are spelled.
        start_token: token that opens a sequence.
        floor: probabilities below it need not be exact: what is returned for them is some number below it.
    """
    scores = [[0.0] * len(of_text) for of_text in candidates]
    contexts = sorted(_contexts(candidates, given, labels), key=lambda one: one.length)
    rows_of_given = _GivenLabels(step, memory, [[start_token, *_spelled(known, labels)] for known in given], contexts)
    for length, same_length in groupby(contexts, key=lambda one: one.length):
        rows_of_given.advance(length)
        for part in _parts(same_length):
            rows, log_probs = rows_of_given.branch([one.text for one in part])
            pairs = [(row, one.text, place) for row, one in enumerate(part) for place in one.places]
            ids = np.array([candidates[text][place] for _, text, place in pairs])
            owner = np.array([row for row, _, _ in pairs])
            found = score_continuations(rows, log_probs, constraint, ids, owner, floor)
            for (_, text, place), score in zip(pairs, np.exp(found).tolist(), strict=True):
                scores[text][place] = score
    return scores


class _GivenLabels:
    """Decoder rows that spell the given labels of the texts, each as far as its candidates need.

    Args:
        step, memory: see [`score_candidates`].
        tokens: what the given labels of each text are spelled with, start token first.
        contexts: shortest first.
    """

    def __init__(
        self, step: DecodeStep, memory: XLGenMemory, tokens: list[list[int]], contexts: list[_Context]
    ) -> None:
        self._tokens = tokens
        self._end = {one.text: one.length for one in contexts}  # the longest of each text comes last
        self._texts = sorted(self._end, key=lambda text: -self._end[text])
        device = memory[0].device
        self._rows = DecoderRows(step, memory.select(torch.tensor(self._texts, dtype=torch.long, device=device)))
        self._length = 0
        self._log_probs = torch.empty(0, device=device)

    def advance(self, length: int) -> None:
        """Spell on to a length; texts that need no more are dropped."""
        self._texts = [text for text in self._texts if self._end[text] >= length]
        if len(self._texts) < len(self._rows):
            self._rows.select(torch.arange(len(self._texts), device=self._rows.device))
        for position in range(self._length, length):
            tokens = [self._tokens[text][position] for text in self._texts]
            self._log_probs = self._rows.step(torch.tensor(tokens, device=self._rows.device))
        self._length = length

    def branch(self, texts: list[int]) -> tuple[DecoderRows, torch.Tensor]:
        """Copies of some texts' rows, and the log-probabilities of what comes next."""
        row = {text: number for number, text in enumerate(self._texts)}
        rows = torch.tensor([row[text] for text in texts], device=self._rows.device)
        return self._rows.branch(rows), self._log_probs[rows]


def _spelled(known: Sequence[int], labels: LabelTokenizer) -> list[int]:
    return [token for label in known for token in labels.label_token_ids[label]]


def _contexts(
    candidates: Sequence[Sequence[int]], given: Sequence[Sequence[int]], labels: LabelTokenizer
) -> list[_Context]:
    """One context for each text and number of given labels that come before a candidate."""
    found: dict[tuple[int, int], _Context] = {}
    for text, of_text in enumerate(candidates):
        for place, label in enumerate(of_text):
            before = labels.label_space.labels_before(label, given[text])
            if (text, before) not in found:
                found[text, before] = _Context(text, 1 + len(_spelled(given[text][:before], labels)))
            found[text, before].places.append(place)
    return list(found.values())


def _parts(contexts: Iterator[_Context]) -> Iterator[list[_Context]]:
    """Contexts with at most about so many candidates together."""
    part: list[_Context] = []
    count = 0
    for context in contexts:
        if part and count + len(context.places) > _CANDIDATES_AT_ONCE:
            yield part
            part, count = [], 0
        part.append(context)
        count += len(context.places)
    if part:
        yield part


def score_continuations(
    rows: DecoderRows,
    log_probs: torch.Tensor,
    constraint: LabelSetConstraint,
    labels: np.ndarray,
    owner: np.ndarray,
    floor: float = 0.0,
) -> np.ndarray:
    """Log-probability of labels as what rows go on with, by teacher forcing along the trie.

    What labels share at their start is run once. A label with aliases has the log-probability of its most probable
    spelling.

    Args:
        rows: `N` rows.
        log_probs: of the next token of each row, `(N, R)`.
        constraint: gives the trie and its columns.
        labels: label ids, `(M,)`.
        owner: row of each label, `(M,)`.
        floor: a label whose first tokens have a probability below it goes no further, and has theirs.

    Returns:
        Log-probabilities, `(M,)`, float32.
    """
    if not constraint.trie.has_aliases:
        return _score_spellings(rows, log_probs, constraint, labels, np.asarray(owner), floor)
    spelled, place = constraint.trie.spellings(labels)
    found = _score_spellings(rows, log_probs, constraint, spelled, np.asarray(owner)[place], floor)
    return np.maximum.reduceat(found, np.searchsorted(place, np.arange(len(labels)))) if len(labels) else found


def _score_spellings(
    rows: DecoderRows,
    log_probs: torch.Tensor,
    constraint: LabelSetConstraint,
    labels: np.ndarray,
    row: np.ndarray,
    floor: float,
) -> np.ndarray:
    """[`score_continuations`] of labels, or aliases, in one spelling each; `row` is where each is spelled."""
    paths = constraint.trie.paths(labels)
    result = np.zeros(len(labels), dtype=np.float32)
    active = np.arange(len(labels))
    log_floor = np.log(floor) if floor > 0 else -np.inf
    for depth in range(paths.shape[1]):
        nodes = paths[active, depth]
        edge = torch.as_tensor(nodes - 1, device=rows.device)
        column = constraint.edge_column[edge].long()
        result[active] += log_probs[torch.as_tensor(row, device=rows.device), column].cpu().numpy()
        goes_on = paths[active, depth + 1] > 0 if depth + 1 < paths.shape[1] else np.zeros(len(active), bool)
        goes_on &= result[active] >= log_floor
        active, nodes, row = active[goes_on], nodes[goes_on], row[goes_on]
        if not len(active):
            break
        _, first, next_row = np.unique(
            row.astype(np.int64) * constraint.trie.num_nodes + nodes, return_index=True, return_inverse=True
        )
        rows.select(torch.as_tensor(row[first], device=rows.device))
        tokens = torch.as_tensor(constraint.trie.edge_token[nodes[first] - 1], device=rows.device).long()
        log_probs = rows.step(tokens)
        row = next_row
    return result
