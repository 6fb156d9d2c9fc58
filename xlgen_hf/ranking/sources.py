"""What gives candidate labels with scores, and what scores candidates of others: the two protocols of a prediction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from ..errors import ConfigurationError, DataError
from ..labels.changes import LabelChange
from .scored_labels import ScoredLabels

__all__ = [
    "PARTS",
    "SCORES",
    "CandidateScorer",
    "CandidateSource",
    "SavedSource",
    "TextBatch",
    "check_allowed",
    "rank_further",
    "union",
]

PARTS = ("neighbors", "names", "lexical_neighbors", "lexical_names")  # of a retriever's score
SCORES = ("retrieval", *PARTS)
_Value = TypeVar("_Value")


class TextBatch(Sequence[str]):
    """Texts of one batch, with what has been computed of them: a text is embedded, searched and encoded once.

    Sources and scorers that share work (a generator that reads retrieved candidates, and the fusion that weighs them)
    keep it here by [`once`].

    Args:
        texts: the texts.
        depth: labels of a text that anybody will ask a source for; a search that is shared is made that deep.
        allowed: ids of the labels to choose from, sorted; all if None.
        given: label ids that each text has already; none if empty. Sources may go by them.
        explained: whether evidence will be asked for; what it needs of intermediate results is kept then.
    """

    def __init__(
        self,
        texts: Sequence[str],
        depth: int = 0,
        allowed: np.ndarray | None = None,
        given: Sequence[Sequence[int]] = (),
        *,
        explained: bool = False,
    ) -> None:
        self.texts = list(texts)
        self.depth = depth
        self.allowed = allowed
        self.given = [list(labels) for labels in given]
        self.explained = explained
        self._computed: dict[tuple[int, Hashable], object] = {}
        self._owners: list[object] = []  # kept alive, so that no other object gets the id of one

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextBatch:
        """The batch itself, or one of plain texts.

        Raises:
            TypeError: if a single string is given, or one of the texts is none.
            DataError: if a text holds halves of characters.
        """
        # By its name: of code in a folder, transformers loads that of a processor apart from that of its model.
        if type(texts).__name__ == TextBatch.__name__:
            return cast("TextBatch", texts)
        if isinstance(texts, (str, Mapping, Set)) or hasattr(texts, "columns") or not hasattr(texts, "__len__"):
            raise TypeError(
                f"A list of texts is needed, not a {type(texts).__name__}; put a single text, or what a generator "
                "yields, into a list, and take the column of texts of a table."
            )
        for row, text in enumerate(texts, 1):
            if not isinstance(text, str):
                raise TypeError(f"Text {row} is {text!r}; a string is needed.")
            _check_characters(text, row)
        return cls(texts)

    def __len__(self) -> int:
        """The number of texts `B`."""
        return len(self.texts)

    def __getitem__(self, position: int) -> str:  # type: ignore[override]
        """The text at a position."""
        return self.texts[position]

    def once(self, owner: object, what: Hashable, make: Callable[[], _Value]) -> _Value:
        """What `make` gives, made at the first call for this owner and this name and kept with the batch."""
        key = (id(owner), what)
        if key not in self._computed:
            self._computed[key] = make()
            self._owners.append(owner)
        return cast("_Value", self._computed[key])


def _check_characters(text: str, number: int) -> None:
    """Refuse what no tokenizer and no file can hold: what is left of bytes that are not in the expected encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise DataError(
            f"Text {number} holds {text[err.start]!r} at position {err.start}, which is half of a character. Was it "
            "read in another encoding than its own? Give it in UTF-8."
        ) from err


def check_allowed(allowed: np.ndarray | None, labels: int) -> None:
    """Check ids of labels to choose from.

    Args:
        allowed: the ids; nothing is checked if None.
        labels: the number of labels.

    Raises:
        ConfigurationError: if these are no ids, or none.
    """
    if allowed is None:
        return
    ids = np.asarray(allowed)
    if not ids.size or not np.issubdtype(ids.dtype, np.integer):
        given = "no label" if not ids.size else f"{ids.dtype} values"
        raise ConfigurationError(f"allowed holds {given}; give ids of labels, or None for all.")
    if ids.min() < 0 or ids.max() >= labels:
        wrong = int(ids.min() if ids.min() < 0 else ids.max())
        raise ConfigurationError(f"allowed holds {wrong}; the ids of the {labels:,} labels are 0 to {labels - 1}.")


def rank_further(source: CandidateSource, batch: TextBatch, k: int, *, in_context: bool = False) -> ScoredLabels:
    """The best labels of each text out of those that are allowed and that it does not have already.

    Args:
        source: the source.
        batch: the texts.
        k: labels for each text; 0 for what a generator's own search finds.
        in_context: give the best of all labels, too, for who compares a score with the others of its text.
    """
    given = max(map(len, batch.given), default=0) if k else 0
    found, wide = source.rank(batch, k + given, batch.allowed), in_context and batch.allowed is not None
    if wide:
        found = source.rank(batch, k + given, None).followed_by(found, 2 * (k + given))
    if not batch.given:
        return found
    found = found.without(batch.given)
    return found if wide or not k else found.first(k)


class CandidateSource(Protocol):
    """Gives candidate labels with scores: a generator, a retriever, label trees."""

    def rank(self, texts: Sequence[str], k: int, allowed: np.ndarray | None = None) -> ScoredLabels:
        """The best labels of each text.

        Args:
            texts: `B` texts; a [`TextBatch`] where work is shared.
            k: labels for each text, or as many as the source has to choose from; a generator also takes 0, for the
                labels of its own search.
            allowed: ids of the labels to choose from; all if None.

        Returns:
            Candidates with scores in [0, 1] and their parts. `chosen` marks the source's own set, where it has one.
        """


@runtime_checkable
class SavedSource(CandidateSource, Protocol):
    """A source that is a part of a model folder."""

    def save(self, folder: str | Path) -> None:
        """Write all that ranking needs into a folder of its own."""

    def relabelled(self, change: LabelChange) -> SavedSource:
        """The same source for a changed label space; labels that are new to it are found as far as it can."""


class CandidateScorer(Protocol):
    """Scores candidate labels whoever found them."""

    def features(
        self, texts: Sequence[str], candidates: ScoredLabels, names: Collection[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """Scores of the candidates by name, `(M,)` each, in their order.

        Args:
            texts: `B` texts; a [`TextBatch`] where work is shared.
            candidates: their candidates, in any order within a text; scores do not count.
            names: scores that are wanted, which saves the work of the others; all if None.
        """


def union(ranked: Mapping[str, ScoredLabels]) -> tuple[ScoredLabels, dict[str, np.ndarray]]:
    """The candidates of all sources, and what each source says of them.

    Args:
        ranked: the candidates of each source, by its name; all for the same texts, at least one source.

    Returns:
        The candidates, by label id within a text, with scores 0; and by name, `(M,)` each and 0 where a source lacks
        the candidate: each source's score, its parts, and `NAME_rank`, 1 / (1 + place among its candidates).
    """
    texts = len(next(iter(ranked.values())))
    span = max(int(one.labels.max(initial=0)) for one in ranked.values()) + 1
    keys = np.unique(np.concatenate([one.text * span + one.labels for one in ranked.values()]))
    values: dict[str, np.ndarray] = {}
    for source, one in ranked.items():
        place = np.searchsorted(keys, one.text * span + one.labels)
        for name, of_one in {source: one.scores, **one.parts, f"{source}_rank": 1 / (1 + one.rank)}.items():
            values[name] = np.zeros(len(keys))
            values[name][place] = of_one
    text, labels = keys // span, keys % span
    start = np.searchsorted(text, np.arange(texts + 1)).astype(np.int64)
    return ScoredLabels(start, labels, np.zeros(len(keys)), np.ones(len(keys), dtype=bool)), values
