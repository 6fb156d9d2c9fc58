"""Which label may come next: label sets that grow token by token along the trie, all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..labels.trie import LabelTrie
from ..settings import ModelSettings

__all__ = ["LabelSetConstraint", "SetState"]

_NO_LEAF = -1


@dataclass
class SetState:
    """Where each of `N` growing label sets stands.

    Attributes:
        node: trie node of the label that is being spelled, `(N,)`; 0 between labels.
        used: leaves of the labels given or spelled so far, `(N, U)` with U the maximum number of labels, padded with
            -1; after them those of labels that were closed from the start.
        count: number of labels given or spelled so far, `(N,)`.
    """

    node: torch.Tensor
    used: torch.Tensor
    count: torch.Tensor

    def select(self, rows: torch.Tensor) -> SetState:
        """The states of some rows, as copies."""
        return SetState(self.node[rows], self.used[rows], self.count[rows])


class LabelSetConstraint:
    """Allows just the continuations that lead to a set of labels.

    A child of a row's trie node is open where it leads to at least one label that the row does not hold yet. A row may
    end between labels, from `min_labels` labels on, or where nothing is open; nothing is open after `max_labels`
    labels. So each row ends, and every row that ended is a set. A label that has aliases is held whichever of its
    spellings was generated.

    With ranks, a row's labels rise in rank: each set then has exactly one sequence, whose probability is that of the
    set. A label that leaves too few of later rank to reach the minimum is closed; where fewer labels than the minimum
    are left at all, a set takes all of them.

    Args:
        trie: the labels.
        edge_column: column of the scores that belongs to each edge of the trie, shape `(edges,)`; its token if None.
        min_labels: minimum number of labels of a set.
        max_labels: most labels of a set.
        ranks: rank of each label id, shape `(greatest label id + 1,)`, all different; None leaves the order free.
        reachable: with ranks, the number of labels that each choice must leave within reach; `min_labels` if None. A
            lower one lets a search go on past its end without a say in what comes before.
        device: where the scores are.
    """

    def __init__(
        self,
        trie: LabelTrie,
        edge_column: np.ndarray | torch.Tensor | None = None,
        *,
        min_labels: int = ModelSettings.min_labels,
        max_labels: int = ModelSettings.max_labels,
        ranks: np.ndarray | None = None,
        reachable: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.trie = trie
        self.min_labels = min(min_labels, len(trie))
        self.max_labels = min(max_labels, len(trie))
        self.edge_token = torch.as_tensor(trie.edge_token, device=device)
        self.edge_column = self.edge_token if edge_column is None else torch.as_tensor(edge_column, device=device)
        self._start = torch.as_tensor(trie.child_start, device=device)
        self._low = torch.as_tensor(trie.leaf_low, device=device)
        self._high = torch.as_tensor(trie.leaf_high, device=device)
        roots = int(trie.child_start[1])
        self._root_columns = self.edge_column[:roots].long()
        self._root_edges = torch.arange(roots, device=device)[None]
        leaves = trie.leaf_high[1 : roots + 1] - trie.leaf_low[1 : roots + 1]  # below each child of the root
        self._root_child = torch.as_tensor(np.repeat(np.arange(1, roots + 1, dtype=np.int32), leaves), device=device)
        fans = np.diff(trie.child_start)
        self._widest, self._widest_inside = int(fans.max()), int(fans[1:].max(initial=1))
        self._siblings = torch.as_tensor(trie.siblings, device=device) if trie.has_aliases else None
        self._leaf_rank: torch.Tensor | None = None
        if ranks is not None:
            self._leaf_rank = torch.as_tensor(ranks[trie.leaf_owner], device=device)
            self._greatest_rank = torch.as_tensor(trie.greatest_below(ranks), device=device)
            self._reachable = self.min_labels if reachable is None else min(reachable, len(trie))
            if self._reachable > 1:
                self._rank_last_choices(ranks)

    def _rank_last_choices(self, ranks: np.ndarray) -> None:
        """What [`_close_by_rank`] looks up.

        The nodes that lead to the last `reachable - 1` labels in the order, few, and for each the greatest rank below
        it that leaves at least 0, 1 ... labels of later rank.
        """
        device, rising = self._start.device, np.unique(ranks[self.trie.leaf_owner])
        latest = rising[::-1][: self._reachable]  # rank that leaves 0, 1 ... labels
        nodes = np.flatnonzero(self._greatest_rank.cpu().numpy() > latest[-1])
        greatest = [self.trie.greatest_below(np.where(ranks > most, -1, ranks))[nodes] for most in latest]
        self._rising_ranks = torch.as_tensor(rising, device=device)
        self._latest_rank = torch.as_tensor(latest.copy(), device=device)
        self._late_nodes = torch.as_tensor(nodes, device=device)
        self._late_ranks = torch.as_tensor(np.stack(greatest), device=device)  # (reachable, nodes)

    def start(self, rows: int, closed: Sequence[Sequence[int]] = (), given: Sequence[Sequence[int]] = ()) -> SetState:
        """The state of `rows` sets before the first label is spelled.

        Args:
            rows: their number.
            closed: label ids that each row's set must not hold; none if empty. Not with ranks.
            given: label ids that each row's set holds already, in the order of their ranks if there are some; none if
                empty. They count in the bounds on the number of labels.
        """
        if given:
            held = [self.trie.held(labels) for labels in given]
            more = [labels[self.max_labels :] for labels in held]
            closed = [[*of_row, *rest] for of_row, rest in zip(closed or [()] * rows, more, strict=True)]
        state = self._start_of(rows, closed)
        for row, labels in enumerate(held if given else ()):
            kept = labels[: self.max_labels]
            state.used[row, : len(kept)] = torch.as_tensor(self.trie.label_leaf[kept], device=state.used.device)
            state.count[row] = len(kept)
        return state

    def _start_of(self, rows: int, closed: Sequence[Sequence[int]]) -> SetState:
        device = self._start.device
        zeros = torch.zeros(rows, dtype=torch.long, device=device)
        width = max(map(len, closed), default=0)
        used = np.full((rows, self.max_labels + width), _NO_LEAF, dtype=np.int64)
        for row, labels in enumerate(closed):
            known = self.trie.held(labels)
            used[row, self.max_labels : self.max_labels + len(known)] = self.trie.label_leaf[known]
        return SetState(zeros, torch.as_tensor(used, device=device), zeros.clone())

    def best_children(self, scores: torch.Tensor, state: SetState, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The open children with the highest scores.

        Args:
            scores: scores of the next token, `(N, R)`.
            state: `N` rows.
            k: children of a row.

        Returns:
            Their scores `(N, k)`, highest first, minus infinity where there is no further child, and their trie nodes
            `(N, k)`, int64, 0 where there is none.
        """
        values = scores.new_full((len(scores), k), -torch.inf)
        nodes = torch.zeros((len(scores), k), dtype=torch.long, device=scores.device)
        at_root = state.node == 0
        for is_root, rows in ((True, at_root.nonzero().flatten()), (False, (~at_root).nonzero().flatten())):
            if not len(rows):
                continue
            part = state if len(rows) == len(scores) else state.select(rows)
            given = scores if len(rows) == len(scores) else scores[rows]
            edge, is_open = self.open_edges(part)
            if is_root:
                candidates = given.index_select(1, self._root_columns)
            else:
                candidates = given.gather(1, self.edge_column[edge].long())
            candidates = candidates.masked_fill_(~is_open, -torch.inf)
            best = candidates.topk(min(k, candidates.shape[1]), dim=1)
            child = edge.expand(len(rows), -1).gather(1, best.indices) + 1
            child = child.masked_fill_(best.values == -torch.inf, 0)
            if child.shape == nodes.shape:
                return best.values, child
            values[rows, : best.values.shape[1]] = best.values
            nodes[rows, : child.shape[1]] = child
        return values, nodes

    def open_edges(self, state: SetState) -> tuple[torch.Tensor, torch.Tensor]:
        """The edges that leave the nodes of rows which are all at the root, or all inside a label.

        Returns:
            Edges, `(1, W)` at the root, `(N, W)` inside, and whether each is open, `(N, W)`.
        """
        node = state.node
        first, is_root = self._start[node].long(), not bool(node[0])
        if is_root:
            edge = self._root_edges
            is_open = (state.count < self.max_labels)[:, None].repeat(1, edge.shape[1])
        else:
            fan = self._start[node + 1] - first
            offset = torch.arange(int(fan.max()), device=node.device)
            is_open = offset < fan[:, None]
            edge = (first[:, None] + offset).clamp_(max=len(self.edge_token) - 1)
        if self._leaf_rank is None:
            self._close_used_up(is_open, state, first, is_root=is_root)
        else:
            self._close_by_rank(is_open, state, edge)
        return edge, is_open

    def _close_by_rank(self, is_open: torch.Tensor, state: SetState, edge: torch.Tensor) -> None:
        """Close edges below which no label is of later rank, or each leaves too few of later rank for the minimum."""
        last, greatest = self._last_rank(state), self._greatest_rank[edge + 1]
        is_open &= greatest > last[:, None]
        if self._reachable <= 1:
            return
        left = len(self._rising_ranks) - torch.searchsorted(self._rising_ranks, last, right=True)
        after = (torch.minimum(self._reachable - state.count, left) - 1).clamp(min=0)  # labels to leave, (N,)
        row, column = (is_open & (greatest > self._latest_rank[after][:, None])).nonzero(as_tuple=True)
        child = edge.expand(len(is_open), -1)[row, column] + 1
        rank = self._late_ranks[after[row], torch.searchsorted(self._late_nodes, child)]
        is_open[row, column] = rank > last[row]

    def _last_rank(self, state: SetState) -> torch.Tensor:
        """Rank of the last label of each row, `(N,)`; -1 before the first."""
        assert self._leaf_rank is not None
        leaf = state.used.gather(1, (state.count - 1).clamp(min=0)[:, None])[:, 0]
        return torch.where(state.count > 0, self._leaf_rank[leaf.clamp(min=0)], -1)

    def _close_used_up(self, is_open: torch.Tensor, state: SetState, first: torch.Tensor, *, is_root: bool) -> None:
        """Close edges below which every label is used; only edges on the way to a used label can be such."""
        used = state.used if self._siblings is None else self._siblings[state.used].flatten(1)
        low, high = self._low[state.node][:, None], self._high[state.node][:, None]
        row, column = ((used >= low) & (used < high)).nonzero(as_tuple=True)
        if not len(row):
            return
        leaf = used[row, column]
        child = self._root_child[leaf].long() if is_root else self._child_above(state.node[row], leaf)
        low, high = self._low[child], self._high[child]
        used = used[row]
        used_up = ((used >= low[:, None]) & (used < high[:, None])).sum(1) >= high - low
        row, child = row[used_up], child[used_up]
        is_open[row, child - 1 - first[row]] = False

    def _child_above(self, node: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
        """The child of each inner node above each leaf, the last one whose leaves start at or before it.

        A binary search; the children of the root, by far the most, are looked up instead.
        """
        low, high = self._start[node].long(), self._start[node + 1].long()
        for _ in range(self._widest_inside.bit_length()):
            wide = high - low > 1
            middle = (low + high) // 2
            before = self._low[middle.clamp(max=len(self._low) - 2) + 1] <= leaf
            low, high = torch.where(wide & before, middle, low), torch.where(wide & ~before, middle, high)
        return low + 1

    def find_children(self, node: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """The child of each node `(N,)` by each token `(N,)`, which an open edge must have: binary search."""
        low, high = self._start[node].long(), self._start[node + 1].long()
        for _ in range(self._widest.bit_length()):
            wide = low < high
            middle = (low + high) // 2
            below = self.edge_token[middle.clamp(max=len(self.edge_token) - 1)] < token
            low, high = torch.where(wide & below, middle + 1, low), torch.where(wide & ~below, middle, high)
        return low + 1

    def may_end(self, state: SetState, best: torch.Tensor) -> torch.Tensor:
        """Whether each row may end, `(N,)`; `best` `(N,)` is the score of its best open child."""
        return (state.node == 0) & ((state.count >= self.min_labels) | (best == -torch.inf))

    def advance(self, state: SetState, node: torch.Tensor) -> torch.Tensor:
        """Move each row to a child of its node, in place; 0 stands for a row that ended.

        Returns:
            Whether the row has now spelled a label, `(N,)`.
        """
        finished = (node > 0) & (self._start[node] == self._start[node + 1])
        rows = finished.nonzero().flatten()
        state.used[rows, state.count[rows]] = self._low[node[rows]].long()
        state.count += finished
        state.node = node.masked_fill(finished, 0)
        return finished

    def labels(self, leaves: torch.Tensor) -> np.ndarray:
        """Leaves -> label ids; -1 stays."""
        found = leaves.cpu().numpy()
        return np.where(found >= 0, self.trie.leaf_owner[found.clip(0)], _NO_LEAF)
