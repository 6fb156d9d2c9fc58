"""The label trie: every label's token sequence in flat arrays, to tell which token may come next."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from ..errors import LabelSpaceError, ModelFolderError
from ..files.tensor_schema import Tensors, offsets, tensor

__all__ = ["LABEL_TRIE_FILE", "LabelTrie"]

LABEL_TRIE_FILE = "label_trie.safetensors"
_Value = TypeVar("_Value")

_KEPT = 7  # derived values in addition to the newest one
_SAVED = ("child_start", "edge_token", "leaf_low", "leaf_high", "leaf_label")
_TRIE_FORM = Tensors(
    {
        "leaf_low": tensor(np.int32, "nodes", minimum=0),
        "leaf_high": tensor(np.int32, "nodes", maximum="L"),
        "child_start": offsets(np.int32, "nodes", "nodes-1"),
        "edge_token": tensor(np.int32, "nodes-1", minimum=0, maximum="tokens-1"),
        "leaf_label": tensor(np.int32, "L", minimum=0, maximum="L-1"),
        "alias_label": tensor(np.int32, "aliases", minimum=0),
    },
    optional=["alias_label"],
    not_empty=["nodes", "L"],
    format_version=2,
    made_by="xlgen train",
)
_MOST_NODES = np.iinfo(np.int32).max


class LabelTrie:
    """A prefix tree over the token sequences of `L` labels, as flat (CSR) arrays, all int32.

    Labels may have further spellings, aliases, each with a leaf of its own: spelling `L + i` is alias `i`. What is
    asked for by label has the label's own spelling, unless it says otherwise.

    Nodes are numbered breadth first, the root is 0, and the children of a node are sorted by token, so that edge `e`
    leads to node `e + 1`. Leaves are numbered in the order of their sequences, so that the labels below a node are an
    interval of leaves.

    Attributes:
        child_start: shape `(nodes + 1,)`; the children of node `n` are the edges `child_start[n]:child_start[n + 1]`.
        edge_token: token of each edge, shape `(nodes - 1,)`.
        leaf_low, leaf_high: the leaves below each node are `leaf_low[n]:leaf_high[n]`, shape `(nodes,)`.
        leaf_label: label id of each leaf, from `L` on that of an alias, shape `(L + A,)`.
        alias_label: label id of each alias, shape `(A,)`.
    """

    child_start: np.ndarray
    edge_token: np.ndarray
    leaf_low: np.ndarray
    leaf_high: np.ndarray
    leaf_label: np.ndarray
    alias_label: np.ndarray

    def __init__(self, sequences: Sequence[Sequence[int]], alias_label: Sequence[int] = ()) -> None:
        """Build the trie.

        Args:
            sequences: token ids of each label, in the order of the label ids, and then of each alias; none empty, none
                a prefix of another (a separator at the end of every sequence sees to that).
            alias_label: label id of each alias.

        Raises:
            LabelSpaceError: if a sequence is empty, or two labels cannot be told apart.
        """
        lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
        tokens = np.empty(lengths.sum(), dtype=np.int32)
        for sequence, end in zip(sequences, lengths.cumsum(), strict=True):
            tokens[end - len(sequence) : end] = sequence
        self._set(_build(tokens, lengths), np.asarray(alias_label, dtype=np.int32), len(sequences) - len(alias_label))

    @classmethod
    def from_flat(cls, tokens: np.ndarray, lengths: np.ndarray) -> LabelTrie:
        """Build the trie from all sequences in one array.

        Args:
            tokens: the token ids of all labels, one label after the other, shape `(sum of lengths,)`.
            lengths: the number of tokens of each label, shape `(L,)`.

        Raises:
            LabelSpaceError: as for the constructor.
        """
        return cls._from_arrays(_build(np.asarray(tokens), np.asarray(lengths, dtype=np.int64)))

    @classmethod
    def _from_arrays(
        cls, arrays: dict[str, np.ndarray], alias_label: np.ndarray | None = None, first_alias: int | None = None
    ) -> LabelTrie:
        trie = cls.__new__(cls)
        aliases = np.empty(0, dtype=np.int32) if alias_label is None else alias_label
        trie._set(arrays, aliases, len(arrays["leaf_label"]) - len(aliases) if first_alias is None else first_alias)
        return trie

    def _set(self, arrays: dict[str, np.ndarray], alias_label: np.ndarray, first_alias: int) -> None:
        for name in _SAVED:
            setattr(self, name, arrays[name])
        self.alias_label = alias_label
        self._first_alias = first_alias  # `L` of the whole trie, also in a part of it
        self._kept: dict[Hashable, object] = {}

    def kept(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """What `make` gives, kept with the trie for the next calls with this key; the last few are.

        What is derived from a trie takes a pass over all of it. Threads may make it twice, and never see half of it.
        """
        known = self._kept
        if key not in known:
            known = {**dict(list(known.items())[-_KEPT:]), key: make()}
            self._kept = known
        return cast("_Value", known[key])

    # ------------------------------------------------------------------------------------------------ looking up

    def __len__(self) -> int:
        """The number of labels `L`."""
        return self._num_labels

    @cached_property
    def _num_labels(self) -> int:
        return int((self.leaf_label < self._first_alias).sum()) if self.has_aliases else len(self.leaf_label)

    @property
    def has_aliases(self) -> bool:
        """Whether a label has further spellings."""
        return len(self.alias_label) > 0

    @cached_property
    def leaf_owner(self) -> np.ndarray:
        """The label that each leaf stands for, whichever its spelling, shape `(L + A,)`."""
        if not self.has_aliases:
            return self.leaf_label
        alias = self.leaf_label - self._first_alias
        owner = self.leaf_label.copy()
        owner[alias >= 0] = self.alias_label[alias[alias >= 0]]
        return owner

    @property
    def num_nodes(self) -> int:
        """Nodes, root and leaves included."""
        return len(self.leaf_low)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(getattr(self, name).nbytes for name in _SAVED)

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
        return int(self.leaf_owner[self.leaf_low[node]])

    @cached_property
    def label_leaf(self) -> np.ndarray:
        """Leaf of each label id, shape `(greatest label id + 1,)`; -1 for ids that the trie does not hold."""
        return self._spelling_leaf[: self._first_alias]

    @cached_property
    def _spelling_leaf(self) -> np.ndarray:
        """Leaf of each label id and, after them, of each alias, -1 for those that the trie does not hold."""
        leaf = np.full(int(self.leaf_label.max()) + 1, -1, dtype=np.int32)
        leaf[self.leaf_label] = np.arange(len(self.leaf_label), dtype=np.int32)
        return leaf

    @cached_property
    def _by_owner(self) -> np.ndarray:
        """The leaves by label, and each label's own spelling first."""
        return np.lexsort((self.leaf_label, self.leaf_owner))

    @cached_property
    def siblings(self) -> np.ndarray:
        """The leaves of the same label as each leaf, itself included, padded with -1, shape `(L + A + 1, spellings)`.

        The last row, that of leaf -1, has none.
        """
        owner = self.leaf_owner[self._by_owner]
        group = np.cumsum(np.diff(owner, prepend=owner[:1]) != 0)
        size = np.bincount(group)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size)
        of_group = np.full((len(size) + 1, size.max()), -1, dtype=np.int32)
        of_group[group, place] = self._by_owner
        group_of_leaf = np.full(len(owner) + 1, len(size))
        group_of_leaf[self._by_owner] = group
        return of_group[group_of_leaf]

    def spellings(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All spellings of labels that the trie holds.

        Args:
            labels: label ids, shape `(M,)`.

        Returns:
            The spellings, as [`paths`] takes them, and the place of the label of each in `labels`, ascending, `(P,)`.
        """
        leaves = self.siblings[self.label_leaf[labels]]
        place, _ = np.nonzero(leaves >= 0)
        return self.leaf_label[leaves[leaves >= 0]], place

    @cached_property
    def _parent(self) -> np.ndarray:
        """Parent of each node but the root, shape `(nodes - 1,)`."""
        return np.repeat(np.arange(self.num_nodes, dtype=np.int32), np.diff(self.child_start))

    @cached_property
    def _leaf_node(self) -> np.ndarray:
        """Node of each leaf, shape `(L + A,)`."""
        nodes = np.flatnonzero(np.diff(self.child_start) == 0).astype(np.int32)
        found = np.empty(len(self.leaf_label), dtype=np.int32)
        found[self.leaf_low[nodes]] = nodes
        return found

    def held(self, labels: Sequence[int]) -> list[int]:
        """Those of some label ids that the trie holds."""
        ids = np.array([label for label in labels if label < len(self.label_leaf)], dtype=np.int64)
        kept: list[int] = ids[self.label_leaf[ids] >= 0].tolist()
        return kept

    def paths(self, labels: np.ndarray) -> np.ndarray:
        """The nodes that spell each label, from the root's child to the leaf.

        Args:
            labels: label ids that the trie holds, shape `(M,)`; or ids of aliases, see the class.

        Returns:
            Nodes, shape `(M, D)` with D the longest of the labels, padded with -1.
        """
        node = self._leaf_node[self._spelling_leaf[labels]]
        upwards = []
        while (node > 0).any():
            upwards.append(node)
            node = np.where(node > 0, self._parent[node - 1], 0)
        nodes = np.stack(upwards, axis=1) if upwards else np.zeros((0, 0), np.int32)
        length = (nodes > 0).sum(1, keepdims=True)
        position = length - 1 - np.arange(nodes.shape[1])
        return np.where(position >= 0, np.take_along_axis(nodes, position.clip(0), axis=1), -1)

    def sequences(self, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The token sequences of labels, all labels `0 ... L - 1` if None, as [`from_flat`] takes them."""
        paths = self.paths(np.arange(len(self)) if labels is None else labels)
        return self.edge_token[paths[paths > 0] - 1], (paths > 0).sum(1)

    def aliases(self) -> list[tuple[int, list[int]]]:
        """Label id and token sequence of each alias of a whole trie."""
        if not self.has_aliases:
            return []
        tokens, lengths = self.sequences(self._first_alias + np.arange(len(self.alias_label)))
        parts = np.split(tokens, np.cumsum(lengths)[:-1])
        return [(label, part.tolist()) for label, part in zip(self.alias_label.tolist(), parts, strict=True)]

    def subset(self, labels: np.ndarray) -> LabelTrie:
        """The part of the trie that leads to some of the labels, by all their spellings; they keep their ids.

        Args:
            labels: label ids that the trie holds, shape `(M,)`, at least one.

        Raises:
            LabelSpaceError: if there is no label.
        """
        kept_leaf = np.zeros(len(self.leaf_label), dtype=bool)
        kept_leaf[self.label_leaf[labels]] = True
        if self.has_aliases:
            kept_leaf |= np.isin(self.leaf_owner, labels)
        if not kept_leaf.any():
            raise LabelSpaceError("No label is left to choose from; allow at least one.")
        before = np.concatenate([[0], np.cumsum(kept_leaf)]).astype(np.int32)
        low, high = before[self.leaf_low], before[self.leaf_high]
        kept = high > low
        edges = kept[1:]
        # Nodes that go keep no order among those that stay: the numbering stays breadth first.
        new_number = np.cumsum(kept) - 1
        children = np.bincount(new_number[self._parent[edges]], minlength=int(kept.sum()))
        return self._from_arrays(
            {
                "child_start": np.concatenate([[0], np.cumsum(children)]).astype(np.int32),
                "edge_token": self.edge_token[edges],
                "leaf_low": low[kept],
                "leaf_high": high[kept],
                "leaf_label": self.leaf_label[kept_leaf],
            },
            self.alias_label,
            self._first_alias,
        )

    def greatest_below(self, value: np.ndarray) -> np.ndarray:
        """The greatest `value` `(greatest label id + 1,)` among the labels below each node, shape `(nodes,)`."""
        by_leaf = np.append(value[self.leaf_owner], value.min())
        bounds = np.stack([self.leaf_low, self.leaf_high], axis=1).ravel()
        return np.maximum.reduceat(by_leaf, bounds)[::2]

    # ------------------------------------------------------------------------------------------------ saving

    def save(self, folder: str | Path, digest: str = "") -> Path:
        """Write `label_trie.safetensors`, with a digest of what it was built from, into `folder`; return its path."""
        path = Path(folder) / LABEL_TRIE_FILE
        names = (*_SAVED, "alias_label") if self.has_aliases else _SAVED
        _TRIE_FORM.write(path, {name: getattr(self, name) for name in names}, {"digest": digest})
        return path

    @classmethod
    def load(cls, folder: str | Path, digest: str = "", *, num_tokens: int) -> LabelTrie | None:
        """Map `label_trie.safetensors` of `folder` into memory.

        Args:
            folder: a model folder.
            digest: what [`save`] was given.
            num_tokens: size of the vocabulary that the tokens must lie in.

        Returns:
            The trie, or None where the file was built from something else.

        Raises:
            ModelFolderError: if the file is missing, damaged, or no trie.
        """
        path = Path(folder) / LABEL_TRIE_FILE
        arrays, metadata = _TRIE_FORM.read(path, {"tokens": num_tokens}, mapped=True)
        aliases = arrays.get("alias_label")
        problem = _problem(*(arrays[name] for name in _SAVED))
        if problem is None and aliases is not None and not _are_aliases(aliases, len(arrays["leaf_label"])):
            problem = "'alias_label' must name a label of each alias, and leave labels that are none."
        if problem:
            raise ModelFolderError(f"{path}: {problem}")
        return cls._from_arrays(arrays, aliases) if metadata.get("digest") == digest else None


def _are_aliases(aliases: np.ndarray, num_leaves: int) -> bool:
    """Whether aliases are those of labels, which the other leaves stand for."""
    return 0 < len(aliases) < num_leaves and int(aliases.max()) < num_leaves - len(aliases)


def _build(tokens: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Number the nodes level by level: a level has the distinct (parent, token) of the labels that reach it."""
    if not len(lengths) or lengths.min() == 0:
        raise LabelSpaceError("A trie needs at least one label, and each label at least one token.")
    start = np.cumsum(lengths) - lengths
    rows = np.arange(len(lengths))
    parent = np.zeros(len(rows), dtype=np.int64)  # node of each row, counted within the level above
    width = int(tokens.max()) + 1
    leaf_count, edge_token, children = [np.array([len(rows)])], [], []
    leaf_node = np.empty(len(rows), dtype=np.int64)
    above, total = 1, 1
    for level in range(int(lengths.max())):
        nodes, row_node, below = np.unique(
            parent * width + tokens[start[rows] + level], return_inverse=True, return_counts=True
        )
        children.append(np.bincount(nodes // width, minlength=above))
        edge_token.append((nodes % width).astype(np.int32))
        leaf_count.append(below)
        ends = lengths[rows] == level + 1
        _check_alone(rows, ends, row_node, below)
        leaf_node[rows[ends]] = total + row_node[ends]
        above, total = len(nodes), total + len(nodes)
        rows, parent = rows[~ends], row_node[~ends]
    if total > _MOST_NODES:
        raise LabelSpaceError(f"The labels need {total} trie nodes; at most {_MOST_NODES} can be numbered.")
    fan = np.concatenate([*children, np.zeros(above, dtype=np.int64)])
    return _number_leaves(np.concatenate(leaf_count), fan, np.concatenate(edge_token), leaf_node)


def _number_leaves(
    leaf_count: np.ndarray, fan: np.ndarray, edge_token: np.ndarray, leaf_node: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays of the trie, from the labels below each node, its children, and the node of each label."""
    child_start = np.concatenate([[0], np.cumsum(fan)])
    before = np.concatenate([[0], np.cumsum(leaf_count[1:])])  # leaves below all edges before an edge
    low = np.zeros(len(leaf_count), dtype=np.int64)
    first, last = 0, 1  # a level's nodes
    while first < last:
        edges = np.arange(child_start[first], child_start[last])
        parent = np.repeat(np.arange(first, last), fan[first:last])
        low[edges + 1] = low[parent] + before[edges] - before[child_start[parent]]
        first, last = last, last + len(edges)
    leaf_label = np.empty(len(leaf_node), dtype=np.int32)
    leaf_label[low[leaf_node]] = np.arange(len(leaf_node), dtype=np.int32)
    return {
        "child_start": child_start.astype(np.int32),
        "edge_token": edge_token,
        "leaf_low": low.astype(np.int32),
        "leaf_high": (low + leaf_count).astype(np.int32),
        "leaf_label": leaf_label,
    }


def _check_alone(rows: np.ndarray, ends: np.ndarray, row_node: np.ndarray, below: np.ndarray) -> None:
    """Refuse a label that ends at a node which other labels reach too."""
    shared = ends & (below[row_node] > 1)
    if shared.any():
        first = int(np.flatnonzero(shared)[0])
        other = int(np.flatnonzero((row_node == row_node[first]) & (np.arange(len(rows)) != first))[0])
        raise LabelSpaceError(
            f"Labels {int(rows[first])} and {int(rows[other])} cannot be told apart: the tokens of the first start "
            "those of the second."
        )


def _problem(start: np.ndarray, token: np.ndarray, low: np.ndarray, high: np.ndarray, label: np.ndarray) -> str | None:
    """Say what no tree can be, if anything: the offsets, types and bounds of the arrays are right.

    Children must come after their parent, siblings be sorted and share their parent's leaves out among them, and
    leaves be labels.
    """
    fan = np.diff(start)
    if (start[:-1] < np.arange(len(low)))[fan > 0].any():
        return "'child_start' describes no tree."
    parent = np.repeat(np.arange(len(low)), fan)
    siblings = parent[1:] == parent[:-1]
    if (np.diff(token) <= 0)[siblings].any():
        return "'edge_token' is not sorted below each node."
    inner = np.flatnonzero(fan)
    tiled = (
        (low[0], high[0]) == (0, len(label))
        and (low[1 + start[inner]] == low[inner]).all()
        and (high[start[inner + 1]] == high[inner]).all()
        and (low[2:] == high[1:-1])[siblings].all()
        and ((high - low)[fan == 0] == 1).all()
    )
    if not tiled:
        return "'leaf_low' and 'leaf_high' are not the intervals of a tree's leaves."
    if (np.bincount(label, minlength=len(label)) != 1).any():
        return "'leaf_label' does not name each label once."
    return None
