"""Constraints for transformers' own `generate`: label sets of a closed, label names of an open vocabulary."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LogitsProcessor

from ..errors import ConfigurationError
from ..labels.trie import LabelTrie
from ..settings import ModelSettings
from .constraints import LabelSetConstraint, SetState

__all__ = ["LabelNamesLogitsProcessor", "LabelSetLogitsProcessor", "split_labels"]


class LabelSetLogitsProcessor(LogitsProcessor):
    """Lets transformers' own `generate` generate label sets: see [`LabelSetConstraint`] for what is allowed.

    Works with greedy search, beam search and sampling. It follows the rows of one `generate` call, so make a new one
    for each call. `model.predict` has a faster search of its own, with scores.

    Raises, when called:
        ConfigurationError: if another constraint of the same call (`min_new_tokens`, `no_repeat_ngram_size`,
            `bad_words_ids` ...) excludes every token that a label set could go on with, or forces another one.

    Args:
        trie: the labels.
        eos_token_id: the end token.
        min_labels: minimum number of labels of a set.
        max_labels: most labels of a set.
        num_beams: rows of a text that `generate` keeps in parallel.
        ranks: see [`LabelSetConstraint`].
    """

    def __init__(
        self,
        trie: LabelTrie,
        eos_token_id: int,
        *,
        min_labels: int = ModelSettings.min_labels,
        max_labels: int = ModelSettings.max_labels,
        num_beams: int = 1,
        ranks: np.ndarray | None = None,
    ) -> None:
        self.eos_token_id = eos_token_id
        self.num_beams = num_beams
        self._make = lambda device: LabelSetConstraint(
            trie, min_labels=min_labels, max_labels=max_labels, ranks=ranks, device=device
        )
        self._constraint: LabelSetConstraint | None = None
        self._closed_at_root: torch.Tensor | None = None
        self._state: SetState
        self._tokens: torch.Tensor
        self._ended: torch.Tensor  # whether each row came to its end, after which generate pads it, (N,)
        self._lost: torch.Tensor  # whether a row holds a token that was not allowed: a beam that nothing was left for
        self._allowed: torch.Tensor  # which tokens were allowed last, (N, V)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the scores of the next token.

        Args:
            input_ids: the sequences so far, start token included, `(N, T)`.
            scores: scores of the next token, `(N, V)`.

        Returns:
            The scores, minus infinity where a token is not allowed, `(N, V)`.
        """
        if self._constraint is None:
            self._constraint = self._make(scores.device)
            self._state = self._constraint.start(len(input_ids))
            self._ended = torch.zeros(len(input_ids), dtype=torch.bool, device=scores.device)
            self._lost = self._ended.clone()
        else:
            self._follow(input_ids)
        self._tokens = input_ids
        masked = self._masked(scores)
        self._allowed = masked > -torch.inf
        self._refuse_stuck()
        # A row that ended is padded whatever comes here, and a lost one is never the best: both go on with the end.
        over = self._ended | self._lost
        masked[over] = -torch.inf
        masked[over, self.eos_token_id] = 0.0
        return masked

    def _follow(self, tokens: torch.Tensor) -> None:
        """Take in the last token of each row, after the beams of a text may have changed places."""
        assert self._constraint is not None
        parent = self._parents(tokens)
        state, last = self._state.select(parent), tokens[:, -1]
        ended = self._ended[parent]
        allowed = self._allowed[parent].gather(1, last[:, None])[:, 0]
        self._lost = self._lost[parent] | ~(allowed | ended)
        if self.num_beams == 1 and bool(self._lost.any()):
            row = int(self._lost.nonzero()[0])
            raise ConfigurationError(
                f"Row {row} goes on with token {int(last[row])}, which no label set allows there. Leave out what "
                "forces tokens in this call of generate (forced_eos_token_id, other logits processors)."
            )
        over = ended | self._lost | (last == self.eos_token_id)
        child = self._constraint.find_children(state.node, last)
        self._constraint.advance(state, child.masked_fill(over, 0))
        self._state, self._ended = state, ended | (last == self.eos_token_id)

    def _parents(self, tokens: torch.Tensor) -> torch.Tensor:
        """The row of the step before that each row continues, `(N,)`."""
        if self.num_beams == 1:
            return torch.arange(len(tokens), device=tokens.device)
        old = self._tokens.view(-1, 1, self.num_beams, self._tokens.shape[1])
        new = tokens[:, :-1].reshape(-1, self.num_beams, 1, self._tokens.shape[1])
        parent = (old == new).all(-1).int().argmax(-1)  # (texts, beams)
        return (parent + torch.arange(len(parent), device=tokens.device)[:, None] * self.num_beams).flatten()

    def _refuse_stuck(self) -> None:
        """Refuse scores that leave no beam of a text anything to go on with."""
        growing = ~(self._ended | self._lost)
        stuck = growing & ~self._allowed.any(1)
        alive = growing & ~stuck
        texts = stuck.view(-1, self.num_beams).any(1) & ~alive.view(-1, self.num_beams).any(1)
        if bool(texts.any()):
            row, length = int(texts.nonzero()[0]) * self.num_beams, self._tokens.shape[1] - 1
            raise ConfigurationError(
                f"Row {row} cannot go on: after {length} tokens, other constraints of this call of generate "
                "(min_new_tokens, min_length, no_repeat_ngram_size, bad_words_ids, suppress_tokens ...) exclude every "
                "token that a label set allows. Leave them out; min_labels and max_labels say how many labels there "
                "are, and no label comes twice."
            )

    def _masked(self, scores: torch.Tensor) -> torch.Tensor:
        assert self._constraint is not None
        masked = torch.full_like(scores, -torch.inf)
        best = torch.full_like(scores[:, 0], -torch.inf)
        at_root = self._state.node == 0
        for is_root, rows in ((True, at_root.nonzero().flatten()), (False, (~at_root).nonzero().flatten())):
            if not len(rows):
                continue
            edge, is_open = self._constraint.open_edges(self._state.select(rows))
            if is_root:  # nearly all tokens may open a label: close the others
                part = scores[rows].masked_fill_(self._no_first_token(edge[0], scores), -torch.inf)
                row, column = (~is_open).nonzero(as_tuple=True)
                part[row, self._constraint.edge_token[column].long()] = -torch.inf
            else:
                token = self._constraint.edge_token[edge].long()
                given = scores[rows].gather(1, token).masked_fill_(~is_open, -torch.inf)
                # Edges that only fill a row up are closed, and may name the token of an open one: the greater stays.
                part = masked[rows].scatter_reduce_(1, token, given, "amax")
            masked[rows] = part
            best[rows] = part.amax(1)
        end = self._constraint.may_end(self._state, best)
        masked[end, self.eos_token_id] = scores[end, self.eos_token_id]
        return masked

    def _no_first_token(self, edge: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Columns of tokens that open no label, `(V,)`."""
        assert self._constraint is not None
        if self._closed_at_root is None:
            self._closed_at_root = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
            self._closed_at_root[self._constraint.edge_token[edge].long()] = False
        return self._closed_at_root


class LabelNamesLogitsProcessor(LogitsProcessor):
    """Lets `generate` spell any label names: none empty, each closed by a separator, the end token between them.

    Args:
        separator_token_id: token that ends each label.
        eos_token_id: the end token.
        name_token_ids: tokens that names are made of, separator and end token left out.
        min_labels: minimum number of labels of a sequence.
    """

    def __init__(
        self,
        separator_token_id: int,
        eos_token_id: int,
        name_token_ids: torch.Tensor,
        *,
        min_labels: int = ModelSettings.min_labels,
    ) -> None:
        self.separator, self.end = separator_token_id, eos_token_id
        self.name_token_ids = name_token_ids
        self.min_labels = min_labels

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the scores `(N, V)` of the token that follows `input_ids` `(N, T)`."""
        generated = input_ids[:, 1:]
        ended = (generated == self.end).any(1)
        between = torch.ones_like(ended) if not generated.shape[1] else generated[:, -1] == self.separator
        masked = torch.full_like(scores, -torch.inf)
        masked[:, self.name_token_ids] = scores[:, self.name_token_ids].masked_fill(ended[:, None], -torch.inf)
        masked[:, self.separator] = scores[:, self.separator].masked_fill(between | ended, -torch.inf)
        enough = (generated == self.separator).sum(1) >= self.min_labels
        may_end = ended | (between & enough)
        masked[:, self.end] = torch.where(ended, 0.0, scores[:, self.end]).masked_fill(~may_end, -torch.inf)
        return masked


def split_labels(sequences: np.ndarray, separator_token_id: int) -> list[list[tuple[int, int]]]:
    """Find the labels in generated sequences.

    Args:
        sequences: token ids without the start token, `(N, T)`.
        separator_token_id: token that ends each label.

    Returns:
        For each row, the first position and the separator's position of each label; an unfinished one at the end is
        left out.
    """
    found: list[list[tuple[int, int]]] = [[] for _ in sequences]
    for row, position in np.argwhere(sequences == separator_token_id).tolist():
        start = found[row][-1][1] + 1 if found[row] else 0
        found[row].append((start, position))
    return found
