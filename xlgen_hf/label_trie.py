"""The label trie: every label's token sequence in flat arrays, to tell which token may come next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import LabelSpaceError

__all__ = ["LabelTrie"]


class LabelTrie:
    """A prefix tree over the token sequences of `L` labels, as flat (CSR) arrays.

    Nodes are numbered breadth first, the root is 0, and the children of a node are sorted by token, so that edge `e`
    leads to node `e + 1`. Leaves are numbered in the order of their sequences, so that the labels below a node are an
    interval of leaves.

    Attributes:
        child_start: shape `(nodes + 1,)`; the children of node `n` are the edges `child_start[n]:child_start[n + 1]`.
        edge_token: token of each edge, shape `(nodes - 1,)`.
        leaf_low, leaf_high: the leaves below each node are `leaf_low[n]:leaf_high[n]`, shape `(nodes,)`.
        leaf_label: label id of each leaf, shape `(L,)`.
        label_leaf: leaf of each label id, shape `(L,)`.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        """Build the trie.

        Args:
            sequences: token ids of each label, in the order of the label ids; none empty, none a prefix of another
                (a separator at the end of every sequence sees to that).

        Raises:
            LabelSpaceError: if a sequence is empty, or two labels cannot be told apart.
        """
        tokens, lengths = _pad(sequences)
        order = np.lexsort(tokens.T[::-1])
        tokens, lengths = tokens[order], lengths[order]
        new_prefix = _new_prefixes(tokens)
        _check_prefix_free(new_prefix, lengths, order)
        self.leaf_label = order.astype(np.int64)
        self.label_leaf = np.empty_like(self.leaf_label)
        self.label_leaf[self.leaf_label] = np.arange(len(order))
        self._build_levels(tokens, lengths, new_prefix)

    def _build_levels(self, tokens: np.ndarray, lengths: np.ndarray, new_prefix: np.ndarray) -> None:
        """Number the nodes level by level; `new_prefix[i, d]` tells whether row i opens a prefix of length d + 1."""
        rows, depth = tokens.shape
        low, high, token, parent = [np.zeros(1, np.int64)], [np.full(1, rows)], [], []
        previous = np.zeros(rows, dtype=np.int64)  # node of each row at the level above
        count = 1
        for level in range(depth):
            opens = new_prefix[:, level]
            starts = np.flatnonzero(opens & (lengths > level))
            ends = np.append(np.flatnonzero(opens), rows)
            low.append(starts)
            high.append(ends[np.searchsorted(ends, starts, side="right")])
            token.append(tokens[starts, level])
            parent.append(previous[starts])
            # Rows that ended above keep a number that no later level reads: starts only holds rows that go on.
            previous = count + np.cumsum(opens & (lengths > level)) - 1
            count += len(starts)
        self.leaf_low, self.leaf_high = np.concatenate(low), np.concatenate(high)
        self.edge_token = np.concatenate(token)
        children = np.bincount(np.concatenate(parent), minlength=count)
        self.child_start = np.concatenate([[0], np.cumsum(children)])

    def __len__(self) -> int:
        """The number of labels `L`."""
        return len(self.leaf_label)

    @property
    def num_nodes(self) -> int:
        """Nodes, root and leaves included."""
        return len(self.leaf_low)

    def tokens(self) -> np.ndarray:
        """The tokens that occur in labels, sorted, each once."""
        return np.unique(self.edge_token)

    def children(self, node: int) -> np.ndarray:
        """Tokens that may follow at `node`, sorted."""
        return self.edge_token[self.child_start[node] : self.child_start[node + 1]]

    def walk(self, tokens: Sequence[int], node: int = 0) -> int | None:
        """The node that `tokens` lead to from `node`, or None where no label goes that way."""
        for token in tokens:
            start = int(self.child_start[node])
            found = start + int(np.searchsorted(self.children(node), token))
            if found >= self.child_start[node + 1] or self.edge_token[found] != token:
                return None
            node = found + 1
        return node

    def label_of(self, tokens: Sequence[int]) -> int | None:
        """The label id that `tokens` spell, or None."""
        node = self.walk(tokens)
        if node is None or self.child_start[node] != self.child_start[node + 1]:
            return None
        return int(self.leaf_label[self.leaf_low[node]])


def _pad(sequences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ragged token ids -> (matrix padded with -1, lengths)."""
    lengths = np.fromiter((len(s) for s in sequences), dtype=np.int64, count=len(sequences))
    if not len(lengths) or lengths.min() == 0:
        raise LabelSpaceError("A trie needs at least one label, and each label at least one token.")
    tokens = np.full((len(lengths), int(lengths.max())), -1, dtype=np.int64)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = np.concatenate(
        [np.asarray(s, dtype=np.int64) for s in sequences]
    )
    return tokens, lengths


def _new_prefixes(tokens: np.ndarray) -> np.ndarray:
    """Whether row i differs from the row before within its first d + 1 tokens, shape `(rows, depth)`, bool."""
    changed = np.ones(tokens.shape, dtype=bool)
    changed[1:] = tokens[1:] != tokens[:-1]
    return np.logical_or.accumulate(changed, axis=1)


def _check_prefix_free(new_prefix: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> None:
    """Refuse a sequence that equals, or starts, the sequence of the next row in sorted order."""
    shared = ~new_prefix[np.arange(1, len(lengths)), lengths[:-1] - 1]
    if shared.any():
        row = int(np.flatnonzero(shared)[0])
        raise LabelSpaceError(
            f"Labels {int(order[row])} and {int(order[row + 1])} cannot be told apart: the tokens of the first start "
            "those of the second."
        )
