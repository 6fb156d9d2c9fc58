"""Decoding of label *sets*: only valid labels, none twice, no way into a branch whose labels are all used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import LogitsProcessor

from .label_trie import LabelTrie

__all__ = ["ClusterSetLogitsProcessor", "LabelSetLogitsProcessor", "parse_label_sequences"]

_NO_LEAF = -1


def _mask_out(scores: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(~allowed, -torch.inf)


@dataclass
class _SetState:
    """Where each of `N` growing sequences stands.

    Attributes:
        tokens: the sequences so far, `(N, T)`; their first token is the start token.
        node: trie node of the label that is being spelled, `(N,)`; 0 between labels.
        used: leaves of the labels spelled so far, `(N, U)`, filled up with -1.
        count: number of labels spelled so far, `(N,)`.
        ended: whether the sequence has its end token, `(N,)`.
    """

    tokens: torch.Tensor
    node: torch.Tensor
    used: torch.Tensor
    count: torch.Tensor
    ended: torch.Tensor

    @classmethod
    def start(cls, tokens: torch.Tensor) -> _SetState:
        """The state before the first label."""
        rows, device = tokens.shape[0], tokens.device
        zeros = torch.zeros(rows, dtype=torch.long, device=device)
        used = torch.empty(rows, 0, dtype=torch.long, device=device)
        return cls(tokens, zeros, used, zeros.clone(), torch.zeros(rows, dtype=torch.bool, device=device))

    def parents(self, tokens: torch.Tensor, beams: int) -> torch.Tensor:
        """The row that each row of `tokens`, one step longer, goes on from, `(N,)`; beams stay in their text."""
        rows = torch.arange(tokens.shape[0], device=tokens.device)
        if beams == 1:
            return rows
        old = self.tokens.view(-1, 1, beams, self.tokens.shape[1])
        new = tokens[:, :-1].reshape(-1, beams, 1, self.tokens.shape[1])
        parent = (old == new).all(-1).int().argmax(-1)  # (texts, beams)
        return (parent + torch.arange(parent.shape[0], device=parent.device)[:, None] * beams).flatten()


class LabelSetLogitsProcessor(LogitsProcessor):
    """Allow just the tokens that lead to a set of labels.

    A token is allowed where it leads to at least one label that the sequence does not hold yet. The end token is
    allowed between labels, from `min_labels` labels on; it alone is allowed after `max_labels` labels, or when no
    label is left. So each sequence ends, and every sequence that ended is a valid set. Works with greedy search, beam
    search and sampling; it follows the rows of one `generate` call, so make a new one for each call.

    Args:
        trie: the labels.
        eos_token_id: the end token.
        min_labels: least labels of a set.
        max_labels: most labels of a set.
        num_beams: rows of a text that `generate` keeps beside each other.
    """

    def __init__(
        self, trie: LabelTrie, eos_token_id: int, *, min_labels: int = 1, max_labels: int = 30, num_beams: int = 1
    ) -> None:
        self.eos_token_id = eos_token_id
        self.min_labels = min(min_labels, len(trie))
        self.max_labels = min(max_labels, len(trie))
        self.num_beams = num_beams
        self._trie = trie
        self._state: _SetState | None = None
        self._arrays: dict[str, torch.Tensor] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the scores of the next token.

        Args:
            input_ids: the sequences so far, start token included, `(N, T)`.
            scores: scores of the next token, `(N, V)`.

        Returns:
            The scores, minus infinity where a token is not allowed, `(N, V)`.
        """
        if not self._arrays:
            self._load_arrays(scores)
        if self._state is None:
            self._state = _SetState.start(input_ids)
        else:
            self._advance(self._state, input_ids)
        return _mask_out(scores, self._allowed(self._state, scores.shape[1]))

    def _load_arrays(self, scores: torch.Tensor) -> None:
        trie, device = self._trie, scores.device
        for name in ("child_start", "edge_token", "leaf_low", "leaf_high"):
            self._arrays[name] = torch.as_tensor(getattr(trie, name), device=device)
        root = torch.zeros(scores.shape[1], dtype=torch.bool, device=device)
        root[torch.as_tensor(trie.children(0), device=device)] = True
        self._arrays["root"] = root

    def _advance(self, state: _SetState, tokens: torch.Tensor) -> None:
        """Take in the last token of each row."""
        parent = state.parents(tokens, self.num_beams)
        last = tokens[:, -1]
        ended = state.ended[parent] | (last == self.eos_token_id)
        node = torch.where(ended, 0, self._step(state.node[parent], last))
        start = self._arrays["child_start"]
        finished = ~ended & (start[node] == start[node + 1])  # a leaf: the separator has been read
        leaf = torch.where(finished, self._arrays["leaf_low"][node], _NO_LEAF)
        used = state.used[parent]
        if bool(finished.any()):
            used = torch.cat([used, leaf[:, None]], dim=1)
        state.tokens, state.used, state.ended = tokens, used, ended
        state.count = state.count[parent] + finished
        state.node = torch.where(finished, 0, node)

    def _step(self, node: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """The child of each node by each token: binary search among the node's sorted edges, all rows at once."""
        start, edges = self._arrays["child_start"], self._arrays["edge_token"]
        low, high = start[node], start[node + 1]
        last_edge = len(edges) - 1
        while bool((low < high).any()):
            middle = (low + high) // 2
            below = edges[middle.clamp(max=last_edge)] < token
            go_up = (low < high) & below
            high = torch.where((low < high) & ~below, middle, high)
            low = torch.where(go_up, middle + 1, low)
        return low + 1  # edge e leads to node e + 1

    def _allowed(self, state: _SetState, vocab_size: int) -> torch.Tensor:
        """Tokens that may come next, `(N, V)`, bool."""
        rows = state.node.shape[0]
        between = (state.node == 0) & ~state.ended
        stop = state.ended | (between & (state.count >= self.max_labels))
        allowed = torch.zeros(rows, vocab_size, dtype=torch.bool, device=state.node.device)
        allowed[between & ~stop] = self._arrays["root"]
        inside = torch.nonzero(state.node > 0).flatten()
        row, token = self._edges_of(state.node, inside)
        allowed[row, token] = True
        self._forbid_exhausted(allowed, state)
        allowed[:, self.eos_token_id] = stop | (between & (state.count >= self.min_labels))
        return allowed

    def _edges_of(self, node: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(row, token) of every edge that leaves the nodes of `rows`."""
        start = self._arrays["child_start"]
        first = start[node[rows]]
        count = start[node[rows] + 1] - first
        row = torch.repeat_interleave(rows, count)
        offset = torch.arange(len(row), device=row.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
        return row, self._arrays["edge_token"][torch.repeat_interleave(first, count) + offset]

    def _forbid_exhausted(self, allowed: torch.Tensor, state: _SetState) -> None:
        """Forbid edges below which every label is used; only edges on the way to a used label can be such."""
        used, node = state.used, state.node
        if used.shape[1] == 0:
            return
        low, high = self._arrays["leaf_low"], self._arrays["leaf_high"]
        below = (used >= low[node][:, None]) & (used < high[node][:, None])  # used labels below the node, (N, U)
        row, column = torch.nonzero(below, as_tuple=True)
        child = self._child_with_leaf(node[row], used[row, column])
        same = (used[row] >= low[child][:, None]) & (used[row] < high[child][:, None])
        exhausted = same.sum(1) >= high[child] - low[child]
        allowed[row[exhausted], self._arrays["edge_token"][child[exhausted] - 1]] = False

    def _child_with_leaf(self, node: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
        """The child of each node above each leaf: the last one whose leaves start at or before it."""
        start, leaf_low = self._arrays["child_start"], self._arrays["leaf_low"]
        low, high = start[node], start[node + 1]
        while bool((high - low > 1).any()):
            middle = (low + high) // 2
            before = leaf_low[middle + 1] <= leaf
            wide = high - low > 1
            low, high = torch.where(wide & before, middle, low), torch.where(wide & ~before, middle, high)
        return low + 1


class ClusterSetLogitsProcessor(LogitsProcessor):
    """Allow just sets of cluster tokens: at least one, none twice, then the end token.

    Args:
        first_token_id: token of cluster 0.
        num_clusters: number of clusters `C`.
        eos_token_id: the end token.
        max_clusters: most clusters of a set.
    """

    def __init__(self, first_token_id: int, num_clusters: int, eos_token_id: int, max_clusters: int) -> None:
        self.first, self.count = first_token_id, num_clusters
        self.eos_token_id = eos_token_id
        self.max_clusters = min(max_clusters, num_clusters)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the scores `(N, V)` of the token that follows `input_ids` `(N, T)`."""
        generated = input_ids[:, 1:]
        ended = (generated == self.eos_token_id).any(1)
        full = torch.full_like(ended, generated.shape[1] >= self.max_clusters)
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        allowed[:, self.first : self.first + self.count] = ~(ended | full)[:, None]
        row, column = torch.nonzero((generated >= self.first) & (generated < self.first + self.count), as_tuple=True)
        allowed[row, generated[row, column]] = False
        allowed[:, self.eos_token_id] = generated.shape[1] > 0
        return _mask_out(scores, allowed)


def parse_label_sequences(
    sequences: np.ndarray, trie: LabelTrie, separator_token_id: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the labels in generated sequences.

    Args:
        sequences: token ids without the start token, `(N, T)`.
        trie: the labels.
        separator_token_id: token that ends each label.

    Returns:
        Three arrays with an entry a label: its row, its label id, and the position of its separator in the row. What
        spells no label, an unfinished one at the end of a cut sequence included, has no entry.
    """
    rows: list[int] = []
    labels: list[int] = []
    ends: list[int] = []
    for row, position in np.argwhere(sequences == separator_token_id).tolist():
        start = ends[-1] + 1 if rows and rows[-1] == row else 0
        label = trie.label_of(sequences[row, start : position + 1].tolist())
        rows.append(row)
        ends.append(position)
        labels.append(-1 if label is None else label)
    found = np.asarray(labels, dtype=np.int64) >= 0
    columns = (np.asarray(column, dtype=np.int64)[found] for column in (rows, labels, ends))
    return tuple(columns)  # type: ignore[return-value]
