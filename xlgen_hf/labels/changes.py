"""Changes of a label space: labels renamed, merged, removed and added, and which label each one has become."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from ..errors import LabelSpaceError
from .space import LabelSpace

__all__ = ["LabelChange", "LabelEdits", "split_pair"]

_NONE = -1


@dataclass(frozen=True)
class LabelChange:
    """Which label each label of a space has become.

    Ids are frequency ranks, so that even new counts alone give labels other ids.

    Attributes:
        before, after: the label spaces, of `L` and `L2` labels.
        target: id after the change of each label before it, `(L,)`, int64; -1 for labels that were removed.
        origin: id before the change of the label that each one continues, perhaps under another name, `(L2,)`, int64;
            -1 for labels that are new. A label that others were merged into continues itself.
    """

    before: LabelSpace
    after: LabelSpace
    target: np.ndarray
    origin: np.ndarray

    @classmethod
    def by_counts(
        cls, before: LabelSpace, names: Sequence[str], counts: np.ndarray, target: np.ndarray, origin: np.ndarray
    ) -> LabelChange:
        """The change to these names, which get their ids by their counts; of equal counts the first name comes first.

        Args:
            before: the label space before.
            names: names of the `L2` labels after, in any order.
            counts: training documents of each of them, `(L2,)`.
            target, origin: see the class; by the places of the names.
        """
        order = np.argsort(-counts, kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        after = LabelSpace([names[i] for i in order.tolist()], counts[order], before.decode_order, before.seed)
        return cls(before, after, np.where(target >= 0, rank[target], _NONE), origin[order])

    @classmethod
    def with_names(cls, space: LabelSpace, names: Iterable[str]) -> LabelChange:
        """Further names, which no training document has, after the present ones; those that are labels count once."""
        after = space.extended(names)
        after.report_ambiguous_names(after.names[len(space) :])
        new = np.full(len(after) - len(space), _NONE, dtype=np.int64)
        return cls(space, after, np.arange(len(space)), np.concatenate([np.arange(len(space)), new]))

    @classmethod
    def with_counts(cls, space: LabelSpace, more: np.ndarray) -> LabelChange:
        """The same labels with more, or fewer, training documents each, `(L,)`."""
        same = np.arange(len(space))
        return cls.by_counts(space, space.names, (space.counts + more).clip(0), same, same)

    @property
    def is_nothing(self) -> bool:
        """Whether names, ids and counts stay as they are."""
        same = self.before.names == self.after.names and np.array_equal(self.before.counts, self.after.counts)
        return same and np.array_equal(self.target, np.arange(len(self.before)))

    def report_ambiguous_names(self) -> None:
        """Log new names, also of renamed labels, from which only case or white space tells another label apart."""
        new = [name for name, before in zip(self.after.names, self.named_before.tolist(), strict=True) if before < 0]
        self.after.report_ambiguous_names(new)

    @cached_property
    def merged(self) -> np.ndarray:
        """Ids before the change of labels that were merged into others, sorted."""
        kept = np.flatnonzero(self.target >= 0)
        return kept[self.origin[self.target[kept]] != kept]

    @cached_property
    def named_before(self) -> np.ndarray:
        """Id before the change of the label that each one continues under its name, `(L2,)`; -1 for new names."""
        names = self.before.names
        pairs = zip(self.after.names, self.origin.tolist(), strict=True)
        return np.array([i if i >= 0 and names[i] == name else _NONE for name, i in pairs], dtype=np.int64)

    def columns_of(self, labels: csr_matrix) -> csr_matrix:
        """Which text has which label, `(N, L)`, sparse -> the same after the change, `(N, L2)`, 1 where it has."""
        return _columns_of(labels, self.target, len(self.after))


@dataclass(frozen=True)
class LabelEdits:
    """What is to be done to labels, in this order.

    Attributes:
        renamed: pairs of a label and its new name. All are renamed at one time, so that two may swap their names.
        merged: pairs of a label and the one that it becomes, one after the other.
        removed: labels that are no longer predicted.
        added: new labels; names that are labels already are left out.
    """

    renamed: Sequence[tuple[str, str]] = ()
    merged: Sequence[tuple[str, str]] = ()
    removed: Sequence[str] = ()
    added: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.renamed or self.merged or self.removed or self.added)

    def change(self, space: LabelSpace, labels: csr_matrix | None = None) -> LabelChange:
        """The change of a label space.

        Args:
            space: the label space.
            labels: which training text has which label, `(N, L)`, sparse, so that a text with both of two merged
                labels counts once; where it is None, or lacks such texts, their counts add up.

        Raises:
            LabelSpaceError: if there is no such label, a new name is a label already or makes no sense, a label is
                merged into itself, or none would be left.
        """
        names, target = list(space.names), np.arange(len(space), dtype=np.int64)
        renamed = self._rename(space, names)
        ids = renamed.index if renamed is not space else space.index
        for old, new in self.merged:
            gone, stays = (_alive(renamed, ids, target, name) for name in (old, new))
            if gone == stays:
                raise LabelSpaceError(f"{old!r} cannot be merged into itself; give two labels.")
            target[target == gone] = stays
        removed = [_alive(renamed, ids, target, name) for name in dict.fromkeys(self.removed)]
        target[np.isin(target, removed)] = _NONE
        kept = np.flatnonzero(target == np.arange(len(space)))
        new_names = [names[i] for i in kept.tolist()]
        known = set(new_names)
        added = [name for name in dict.fromkeys(self.added) if name not in known]
        if not new_names and not added:
            raise LabelSpaceError(f"All {len(space)} labels would be removed; at least one must stay.")
        place = np.full(len(space), _NONE, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        target = np.where(target >= 0, place[target], _NONE)
        counts = np.zeros(len(new_names) + len(added), dtype=np.int64)
        np.add.at(counts, target[target >= 0], space.counts[target >= 0])
        origin = np.concatenate([kept, np.full(len(added), _NONE, dtype=np.int64)])
        counts -= _counted_twice(target, counts, labels)
        return LabelChange.by_counts(space, [*new_names, *added], counts, target, origin)

    def _rename(self, space: LabelSpace, names: list[str]) -> LabelSpace:
        """Put the new names into the list; the label space with them."""
        if not self.renamed:
            return space
        gone = Counter(old for old, _ in self.renamed)
        twice = [old for old, times in gone.items() if times > 1]
        if twice:
            raise LabelSpaceError(f"{min(twice)!r} gets several new names; one is allowed.")
        for old, new in self.renamed:
            (label,) = space.encode([old])
            if new in space and new not in gone:
                raise LabelSpaceError(
                    f"{old!r} cannot be called {new!r}: that is another label. Merge them (--merge) to make them one."
                )
            names[label] = new
        return LabelSpace(names, space.counts, space.decode_order, space.seed)


def _alive(space: LabelSpace, ids: dict[str, int], target: np.ndarray, name: str) -> int:
    """The id of a label that has been neither merged nor removed."""
    (label,) = [ids[name]] if name in ids else space.encode([name])
    if target[label] != label:
        raise LabelSpaceError(f"{name!r} is not a label any more: an earlier merge or removal has taken it away.")
    return label


def _columns_of(labels: csr_matrix, target: np.ndarray, size: int) -> csr_matrix:
    """Which text has which label, `(N, L)`, sparse -> the same with other label ids, `(N, size)`, 1 where it has."""
    shape, columns = (labels.shape[0], size), target[labels.indices]
    kept = columns >= 0
    if kept.all() and np.bincount(target[target >= 0], minlength=size).max() < 2:
        return csr_matrix((labels.data, columns.astype(np.int32), labels.indptr), shape=shape)
    row = np.repeat(np.arange(labels.shape[0]), np.diff(labels.indptr))
    found = csr_matrix((np.ones(int(kept.sum()), np.float32), (row[kept], columns[kept])), shape=shape)
    found.data[:] = 1  # a text that had both of two merged labels
    return found


def _counted_twice(target: np.ndarray, counts: np.ndarray, labels: csr_matrix | None) -> np.ndarray:
    """Texts that more than one of the labels had which are now one, `(L2,)`."""
    often = np.zeros_like(counts)
    if labels is None or (np.bincount(target[target >= 0], minlength=len(counts)) < 2).all():
        return often
    before, after = _column_sums(labels), _column_sums(_columns_of(labels, target, len(counts)))
    np.add.at(often, target[target >= 0], before[target >= 0])
    return np.minimum(often - after, counts)


def _column_sums(labels: csr_matrix) -> np.ndarray:
    return np.bincount(labels.indices, minlength=labels.shape[1]).astype(np.int64)


def split_pair(text: str, option: str, is_known: Callable[[str], bool], *, both_known: bool) -> tuple[str, str]:
    """`OLD=NEW`, or a JSON list of both, -> both.

    Names and ids may hold the sign themselves: of several ways to read the text, the one in which OLD is known counts.
    White space around a name goes, unless a label is called so; that of a JSON list stays.

    Args:
        text: what was given.
        option: what it was given for, for the message.
        is_known: whether a name or an id means a label.
        both_known: whether NEW must be known as well.

    Raises:
        LabelSpaceError: if there is no sign, or of several ways to read the text none fits, or more than one.
    """
    pair = _json_pair(text)
    if pair is not None:
        return pair
    parts = text.split("=")
    splits = [("=".join(parts[:place]), "=".join(parts[place:])) for place in range(1, len(parts))]
    pairs = [(old, new) for old, new in splits if old.strip() and new.strip()]
    if not pairs:
        raise LabelSpaceError(f"{option} {text!r}: give a label, the sign = and a name, such as 'cats=cat'.")
    pairs = [(_without_space(old, is_known), _without_space(new, is_known)) for old, new in pairs]
    if len(pairs) == 1:
        return pairs[0]
    fitting = [(old, new) for old, new in pairs if is_known(old) and (not both_known or is_known(new))]
    if len(fitting) == 1:
        return fitting[0]
    read = " or ".join(f"{old!r} and {new!r}" for old, new in fitting or pairs)
    why = f"several ways to read it fit: {read}" if fitting else f"the model has no such label, read as {read}"
    example = json.dumps((fitting or pairs)[0], ensure_ascii=False)
    raise LabelSpaceError(f"{option} {text!r}: {why}. Write both as a JSON list to be clear: {option} '{example}'.")


def _without_space(name: str, is_known: Callable[[str], bool]) -> str:
    return name if is_known(name) else name.strip()


def _json_pair(text: str) -> tuple[str, str] | None:
    """Both names of a JSON list of two; None for anything else."""
    try:
        found = json.loads(text) if text.startswith("[") else None
    except ValueError:
        return None
    if (
        not isinstance(found, list)
        or len(found) != 2
        or not all(isinstance(one, str) and one.strip() for one in found)
    ):
        return None
    return found[0], found[1]
