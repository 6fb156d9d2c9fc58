"""Search for label sets: greedy, sampling and beams over decoder rows with a cache, and scores of given labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import numpy as np
import torch
from transformers import Cache, EncoderDecoderCache

from .constraints import LabelSetConstraint, SetState
from .memory import XLGenMemory
from .prompt_cache import branched

__all__ = ["DecodeStep", "DecoderRows", "LabelSets", "SetsBegin", "beam_search", "greedy_or_sample"]

# (memory, tokens so far (N, T), cache or None) -> log-probabilities of the next token (N, R), cache
DecodeStep = Callable[[XLGenMemory, torch.Tensor, Cache | None], tuple[torch.Tensor, Cache | None]]

_SEARCHED = -1  # where the next token is searched for, not given
_Part = TypeVar("_Part", SetState, torch.Tensor)


class DecoderRows:
    """Sequences of equal length that a decoder extends by a token at a time; the cache follows their moves.

    Args:
        step: runs the decoder.
        memory: of each row, what the model's `encode` gave.
    """

    def __init__(self, step: DecodeStep, memory: XLGenMemory) -> None:
        self._step = step
        self._memory = memory
        self._tokens = torch.empty(len(memory[0]), 0, dtype=torch.long, device=memory[0].device)
        self._cache: EncoderDecoderCache | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._tokens)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._tokens.device

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append a token to each row `(N,)`; log-probabilities of the token after it, `(N, R)`."""
        self._tokens = torch.cat([self._tokens, tokens[:, None]], dim=1)
        log_probs, self._cache = self._step(self._memory, self._tokens, self._cache)
        return log_probs

    def step_of_beams(self, tokens: torch.Tensor, num_beams: int) -> torch.Tensor:
        """[`step`] of `B` rows, each of which then goes on as `K` equal ones; log-probabilities, `(B * K, R)`.

        What is computed once here, a beam search would compute for each beam.
        """
        log_probs = self.step(tokens)
        beams = torch.arange(len(self), device=self.device).repeat_interleave(num_beams)
        self.select(beams)
        return log_probs[beams]

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these rows, which may repeat."""
        self._memory, self._tokens = self._memory.select(rows), self._tokens[rows]
        if self._cache is not None:
            self._cache.batch_select_indices(rows)

    def branch(self, rows: torch.Tensor) -> DecoderRows:
        """Copies of these rows, which go on by themselves."""
        twin = DecoderRows(self._step, self._memory.select(rows))
        twin._tokens = self._tokens[rows]
        twin._cache = None if self._cache is None else branched(self._cache, rows)
        return twin

    def reorder(self, rows: torch.Tensor) -> None:
        """Go on with these rows, each of the same text as the one whose place it takes: the memory stays."""
        self._tokens = self._tokens[rows]
        if self._cache is not None:
            self._cache.self_attention_cache.reorder_cache(rows)


@dataclass(frozen=True)
class SetsBegin:
    """What the sets of `B` texts begin with, before anything is searched; an empty sequence stands for nothing.

    Attributes:
        closed: label ids that the sets of each text must not hold.
        given: label ids that they hold already, which count in the bounds on their sizes; see
            [`LabelSetConstraint.start`].
        tokens: what the decoder has read of each text's labels, as token ids after the start token.
    """

    closed: Sequence[Sequence[int]] = ()
    given: Sequence[Sequence[int]] = ()
    tokens: Sequence[Sequence[int]] = ()

    def read(self, texts: int, device: torch.device) -> torch.Tensor:
        """The tokens `(B, P)`, padded with -1."""
        width = max(map(len, self.tokens), default=0)
        rows = [[*ids, *[_SEARCHED] * (width - len(ids))] for ids in self.tokens or [()] * texts]
        return torch.tensor(rows, dtype=torch.long, device=device).view(texts, width)


def _repeated(rows: Sequence[Sequence[int]], copies: int) -> list[Sequence[int]]:
    return [row for row in rows for _ in range(copies)]


@dataclass
class LabelSets:
    """Label sets of `B` texts, `K` of each, most probable first.

    Attributes:
        labels: label ids in the order of their generation, `(B, K, U)`, padded with -1.
        log_probs: log-probability of each label given the text and the labels before it, `(B, K, U)`.
        would_end: after each label, whether the end token had more than the token that came next, `(B, K, U)`; where a
            lower bound on the number of labels went against what the model prefers.
        score: log-probability of each set's sequence, `(B, K)`; minus infinity where there is no further set.
        complete: whether a set came to its end, `(B, K)`; if not, it was cut at the greatest length.
        would_be_empty: the same as `would_end` before the first label, `(B, K)`.
        min_labels: minimum number of labels of a set.
    """

    labels: np.ndarray
    log_probs: np.ndarray
    would_end: np.ndarray
    score: np.ndarray
    complete: np.ndarray
    would_be_empty: np.ndarray
    min_labels: int = field(default=0, kw_only=True)

    @property
    def max_labels(self) -> int:
        """Most labels of a set `U`."""
        return self.labels.shape[2]


@dataclass
class _Rows:
    """Growing sets of `N` rows, with what is known about their labels."""

    state: SetState
    log_probs: torch.Tensor  # of the finished labels, (N, U)
    would_end: torch.Tensor  # after each finished label, (N, U)
    spelled: torch.Tensor  # log-probability of the label that is being spelled, (N,)
    score: torch.Tensor  # of the whole sequence, (N,)
    complete: torch.Tensor  # (N,)
    would_be_empty: torch.Tensor  # (N,)

    @classmethod
    def start(cls, constraint: LabelSetConstraint, rows: int, begin: SetsBegin, copies: int = 1) -> _Rows:
        state = constraint.start(rows, _repeated(begin.closed, copies), _repeated(begin.given, copies))
        zeros = torch.zeros(rows, device=state.node.device)
        log_probs = torch.zeros(rows, constraint.max_labels, device=state.node.device)
        return cls(state, log_probs, log_probs.bool(), zeros, zeros.clone(), zeros.bool(), zeros.bool())

    def select(self, rows: torch.Tensor) -> _Rows:
        return _Rows(*(_select(getattr(self, field.name), rows) for field in fields(self)))

    def put(self, rows: torch.Tensor, other: _Rows) -> None:
        """Overwrite some rows."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine[rows] = theirs

    def _tensors(self) -> list[torch.Tensor]:
        return [
            self.state.node,
            self.state.used,
            self.state.count,
            self.log_probs,
            self.would_end,
            self.spelled,
            self.score,
            self.complete,
            self.would_be_empty,
        ]

    def record_end_preference(self, prefers_end: torch.Tensor) -> None:
        """Record, for rows between labels, whether the model prefers to end."""
        between = self.state.node == 0
        rows = (between & (self.state.count > 0)).nonzero().flatten()
        self.would_end[rows, self.state.count[rows] - 1] = prefers_end[rows]
        self.would_be_empty |= between & (self.state.count == 0) & prefers_end

    def advance(self, constraint: LabelSetConstraint, node: torch.Tensor, log_prob: torch.Tensor) -> None:
        """Move to the children that were chosen."""
        self.score = self.score + log_prob
        self.spelled = self.spelled + log_prob
        finished = constraint.advance(self.state, node).nonzero().flatten()
        self.log_probs[finished, self.state.count[finished] - 1] = self.spelled[finished]
        self.spelled[finished] = 0.0


def _select(part: _Part, rows: torch.Tensor) -> _Part:
    return part.select(rows) if isinstance(part, SetState) else part[rows]


def _to_sets(rows: _Rows, constraint: LabelSetConstraint, texts: int) -> LabelSets:
    """Rows `(B * K)` -> sets, the most probable first."""
    labels = constraint.labels(rows.state.used[:, : constraint.max_labels])
    parts = (labels, rows.log_probs, rows.would_end, rows.score, rows.complete, rows.would_be_empty)
    arrays = [part if isinstance(part, np.ndarray) else part.cpu().numpy() for part in parts]
    arrays = [part.reshape(texts, -1, *part.shape[1:]) for part in arrays]
    order = np.argsort(-arrays[3], axis=1, kind="stable")
    sets = LabelSets(*(part[np.arange(texts)[:, None], order] for part in arrays))
    return replace(sets, min_labels=constraint.min_labels)


def greedy_or_sample(
    rows: DecoderRows,
    constraint: LabelSetConstraint,
    start_token: int,
    end_column: int,
    max_length: int,
    *,
    samples: int = 0,
    temperature: float = 1.0,
    generators: Sequence[torch.Generator] = (),
    begin: SetsBegin | None = None,
) -> LabelSets:
    """Find a set for each text greedily, or draw `samples` sets of each from the model's distribution.

    Args:
        rows: one row per text.
        constraint: what may come next.
        start_token: token that opens a sequence.
        end_column: column of the end token in the scores.
        max_length: most tokens of a sequence, end token included.
        samples: sets of each text to draw; 0 for the greedy one.
        temperature: divides the log-probabilities that are drawn from.
        generators: source of each text's draws, of its own, so that they do not depend on the other texts.
        begin: what the sets begin with; nothing if None.
    """
    texts, copies, begin = len(rows), samples or 1, begin or SetsBegin()
    read = begin.read(texts, rows.device).repeat_interleave(copies, dim=0)
    if samples:
        rows.select(torch.arange(texts, device=rows.device).repeat_interleave(samples))
    growing = _Rows.start(constraint, len(rows), begin, copies)
    found = _Rows.start(constraint, len(rows), begin, copies)
    places = torch.arange(len(rows), device=rows.device)
    tokens = torch.full_like(places, start_token)
    for position in range(max_length):
        log_probs = rows.step(tokens)
        is_read = read[places, position] != _SEARCHED if position < read.shape[1] else None
        keys = _perturbed(log_probs / temperature, generators, places // copies) if samples else log_probs
        best, child = (part[:, 0] for part in constraint.best_children(keys, growing.state, 1))
        prefers_end = keys[:, end_column] >= best
        growing.record_end_preference(prefers_end)
        ends = prefers_end & constraint.may_end(growing.state, best)
        if is_read is not None:
            ends &= ~is_read
            child = child.masked_fill(is_read, 0)
        child = child.masked_fill(ends, 0)
        edge = (child - 1).clamp(min=0)
        column = constraint.edge_column[edge].long().masked_fill(ends, end_column)
        gain = log_probs.gather(1, column[:, None])[:, 0]
        tokens = constraint.edge_token[edge].long()
        if is_read is not None:
            gain, tokens = gain.masked_fill(is_read, 0), torch.where(is_read, read[places, position], tokens)
        growing.advance(constraint, child, gain)
        if bool(ends.any()):
            growing.complete |= ends
            found.put(places[ends], growing.select(ends))
            growing, places, tokens = growing.select(~ends), places[~ends], tokens[~ends]
            if not len(places):
                break
            rows.select((~ends).nonzero().flatten())
    else:
        found.put(places, growing)
    return _to_sets(found, constraint, texts)


def _perturbed(log_probs: torch.Tensor, generators: Sequence[torch.Generator], text: torch.Tensor) -> torch.Tensor:
    """Add Gumbel noise: the greatest of the sums is a draw from the distribution, over whichever tokens are open.

    Args:
        log_probs: of the next token, `(N, R)`.
        generators: of each text.
        text: whose row each is, ascending, `(N,)`.
    """
    noise = torch.empty_like(log_probs)
    owners, counts = text.unique_consecutive(return_counts=True)
    for owner, rows in zip(owners.tolist(), noise.split(counts.tolist()), strict=True):
        rows.exponential_(generator=generators[owner])
    return log_probs - noise.log()


def beam_search(
    rows: DecoderRows,
    constraint: LabelSetConstraint,
    start_token: int,
    end_column: int,
    max_length: int,
    num_beams: int,
    begin: SetsBegin | None = None,
) -> LabelSets:
    """Find the `num_beams` most probable sequences of each text that a beam search meets.

    Scores are plain log-probabilities of sequences, so with ranks (see [`LabelSetConstraint`]) those of sets. A text
    is done when none of its beams can still reach one of the sequences that it has found.

    Args:
        rows: one row per text.
        constraint: what may come next.
        start_token: token that opens a sequence.
        end_column: column of the end token in the scores.
        max_length: most tokens of a sequence, end token included.
        num_beams: beams `K` of a text.
        begin: what the sets begin with; nothing if None.
    """
    texts, device, begin = len(rows), rows.device, begin or SetsBegin()
    read, growing = begin.read(texts, device), _Rows.start(constraint, texts * num_beams, begin, num_beams)
    growing.score.view(texts, num_beams)[:, 1:] = -torch.inf  # at first a text's beams are equal: one of them counts
    found = _Rows.start(constraint, texts * num_beams, begin, num_beams)
    found.score.fill_(-torch.inf)
    open_texts = torch.arange(texts, device=device)
    ended = found.select(_rows_of(open_texts, num_beams))
    tokens = torch.full((texts,), start_token, device=device)
    for position in range(max_length):
        log_probs = rows.step(tokens) if position else rows.step_of_beams(tokens, num_beams)
        best, child = constraint.best_children(log_probs, growing.state, num_beams)
        end = log_probs[:, end_column]
        growing.record_end_preference(end >= best[:, 0])
        end = end.masked_fill(~constraint.may_end(growing.state, best[:, 0]), -torch.inf)
        given = read[open_texts, position].repeat_interleave(num_beams) if position < read.shape[1] else None
        if given is not None:
            _hold(given, best, child, end)
        ended = _keep_best(ended, growing, growing.score + end, num_beams)
        parent, child, gain = _best_beams(growing.score[:, None] + best, child, best, num_beams)
        growing = growing.select(parent)
        growing.advance(constraint, child, gain)
        tokens = constraint.edge_token[(child - 1).clamp(min=0)].long()
        if given is not None:
            tokens = torch.where(given != _SEARCHED, given, tokens)
        reach = growing.score.view(-1, num_beams)[:, 0]
        done = ended.score.view(-1, num_beams)[:, -1] >= reach
        if not bool(done.any()):
            rows.reorder(parent)
            continue
        places = _rows_of(open_texts[done], num_beams)
        found.put(places, ended.select(_rows_of(done.nonzero().flatten(), num_beams)))
        open_texts = open_texts[~done]
        if not len(open_texts):
            break
        kept = _rows_of((~done).nonzero().flatten(), num_beams)
        rows.select(parent[kept])
        growing, ended, tokens = growing.select(kept), ended.select(kept), tokens[kept]
    else:
        found.put(_rows_of(open_texts, num_beams), _or_cut(ended, growing, num_beams))
    return _in_one_spelling(_to_sets(found, constraint, texts), constraint)


def _in_one_spelling(sets: LabelSets, constraint: LabelSetConstraint) -> LabelSets:
    """Of the sets of a text with the same labels in other spellings the best one alone; the others are none.

    So a label's score is that of its best spelling, as it is in teacher forcing, and comparable with greedy search.
    """
    if not constraint.trie.has_aliases:
        return sets
    score = sets.score.copy()
    for text, labels in enumerate(sets.labels):
        seen: set[bytes] = set()
        for place, of_set in enumerate(labels):
            key = of_set.tobytes()
            if key in seen:
                score[text, place] = -np.inf
            seen.add(key)
    return replace(sets, score=score)


def _hold(given: torch.Tensor, best: torch.Tensor, child: torch.Tensor, end: torch.Tensor) -> None:
    """Let rows whose next token is given, not -1, go on with it alone, by one of their beams; in place."""
    is_read = given != _SEARCHED
    best[is_read], child[is_read], end[is_read] = -torch.inf, 0, -torch.inf
    best[is_read, 0] = 0.0


def _rows_of(texts: torch.Tensor, num_beams: int) -> torch.Tensor:
    """The rows of some texts."""
    return (texts[:, None] * num_beams + torch.arange(num_beams, device=texts.device)).flatten()


def _keep_best(ended: _Rows, growing: _Rows, score: torch.Tensor, num_beams: int) -> _Rows:
    """The best sequences of each text among those that ended before and those that end now with `score`."""
    both = torch.cat([ended.score.view(-1, num_beams), score.view(-1, num_beams)], dim=1)
    best = both.topk(num_beams, dim=1)
    now = best.indices >= num_beams
    if not bool((now & (best.values > -torch.inf)).any()):
        return ended
    offset = torch.arange(len(both), device=both.device)[:, None] * num_beams
    source = (best.indices % num_beams + offset).flatten()
    kept, new = ended.select(source), growing.select(source)
    rows = now.flatten().nonzero().flatten()
    kept.put(rows, new.select(rows))
    kept.score = best.values.flatten()
    kept.complete = kept.score > -torch.inf
    return kept


def _best_beams(
    total: torch.Tensor, child: torch.Tensor, gain: torch.Tensor, num_beams: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Parent row, child node and log-probability of the `K` best continuations of each text, each `(N,)`."""
    best = total.view(-1, num_beams * num_beams).topk(num_beams, dim=1)
    offset = torch.arange(len(best.indices), device=total.device)[:, None] * num_beams
    parent = (best.indices // num_beams + offset).flatten()
    place = best.indices.flatten() % num_beams
    return parent, child[parent, place], gain[parent, place]


def _or_cut(ended: _Rows, growing: _Rows, num_beams: int) -> _Rows:
    """The sequences that ended; for a text without any, what its beams have spelled so far."""
    none = (ended.score.view(-1, num_beams)[:, 0] == -torch.inf).nonzero().flatten()
    rows = _rows_of(none, num_beams)
    ended.put(rows, growing.select(rows))
    return ended
