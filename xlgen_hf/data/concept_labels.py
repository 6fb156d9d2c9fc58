"""From what rows call concepts, ids and names of any kind, to the vocabulary's labels; all of it counted."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..labels.vocabulary import Vocabulary
from .blocks import Block
from .label_ids import clean_id
from .label_lists import LabelLists
from .values import fail, shown

__all__ = ["ConceptLabels", "IdForm"]

logger = logging.getLogger(__name__)

_SHOWN = 3


@dataclass
class _Count:
    """Labels of one kind: how many, how many different ones, and the first of them."""

    labels: int = 0
    different: int = 0
    example: str = ""


class IdForm:
    """Tells what looks like an id: with the scheme of one, without white space; a number where all ids are numbers.

    Args:
        vocabulary: the concepts.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._schemes = {one.partition(":")[0] for one in vocabulary.concepts if ":" in one} | {"http", "https", "urn"}
        self._numbered = all(one.isdigit() for one in vocabulary.concepts)

    def __call__(self, name: str) -> bool:
        """Whether a name that is unknown looks like an id."""
        scheme, colon, rest = clean_id(name).partition(":")
        return bool(colon and rest and scheme in self._schemes and not any(map(str.isspace, rest))) or (
            self._numbered and name.isdigit()
        )


class ConceptLabels:
    """Makes labels of what rows call concepts.

    A name that may mean several concepts, and an id that the vocabulary does not have, are left out: neither says
    which label is meant. A name that is unknown stays a label, without a concept.

    Args:
        vocabulary: the concepts.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._known: dict[str, str | None] = {}
        self._counts = {kind: _Count() for kind in ("labels", "other", "ambiguous", "unknown_id", "unknown_name")}
        self._is_id = IdForm(vocabulary)

    def resolved(self, block: Block, lists: LabelLists) -> LabelLists:
        """The labels of a block's rows with each name replaced by the label that it means, or left out."""
        import pyarrow as pa

        coded = lists.names.dictionary_encode()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        names = coded.dictionary.to_pylist()
        occurrences = np.bincount(codes, minlength=len(names)).tolist()
        labels = []
        for number, name in enumerate(names):
            if name not in self._known:
                self._known[name] = self._resolve(name, block, lists, int((codes == number).argmax()))
            kind, label = self._kind(name)
            self._counts[kind].labels += occurrences[number]
            labels.append(label)
        kept = np.array([label is not None for label in labels], dtype=bool)[codes]
        found = lists._replace(names=pa.array(labels, pa.string()).take(coded.indices))
        return found if kept.all() else found.select(kept)

    def _resolve(self, name: str, block: Block, lists: LabelLists, entry: int) -> str | None:
        """The label that a name means, None for none; its first occurrence is `entry`."""
        found = self.vocabulary.find(name)
        label = self.vocabulary.labels[found[0]] if len(found) == 1 else None
        if not found and not self._is_id(name):
            self._refuse_joined_ids(name, block, lists.row_of(entry))
            label = name
        self._known[name] = label
        count = self._counts[self._kind(name)[0]]
        count.different += 1
        if not count.example:
            options = f" may be {', '.join(found[:_SHOWN])}" if len(found) > 1 else ""
            count.example = f"{name!r}{options} (row {block.numbers[lists.row_of(entry)]})"
        return label

    def _refuse_joined_ids(self, name: str, block: Block, row: int) -> None:
        """Refuse a label that is several ids with white space between them, as Annif's tables have them.

        Ids that are words, such as `art`, also stand next to each other in new names.
        """
        parts = name.split()
        if len(parts) > 1 and all(":" in part and clean_id(part) in self.vocabulary.concepts for part in parts):
            fail(block, row, f"The label {shown(name)} is {len(parts)} ids of concepts. Give --label-separator ' ' "
                             "(label_separator=... in Python).")  # fmt: skip

    def _kind(self, name: str) -> tuple[str, str | None]:
        """What a name turned out to be, and the label that it means."""
        label = self._known[name]
        if label is None:
            return ("ambiguous" if self.vocabulary.find(name) else "unknown_id"), None
        if label not in self.vocabulary.ids:
            return "unknown_name", label
        return ("labels" if label == name else "other"), label

    def report(self, source: str) -> None:
        """Log how rows called the concepts.

        Raises:
            DataError: if they called none, so that the vocabulary cannot be theirs.
        """
        counts = self._counts
        total = sum(one.labels for one in counts.values())
        named = counts["labels"].labels + counts["other"].labels
        if total and not named:
            example = next(one.example for one in counts.values() if one.example)
            raise DataError(
                f"None of the {total:,} labels names one of the {len(self.vocabulary):,} concepts of the vocabulary, "
                f"e.g. {example}. Is it the vocabulary of these rows?",
                file=source,
            )
        logger.info(
            "%s: labels that name a concept: %d of %d; by an id or another name than the label: %d.",
            source, named, total, counts["other"].labels,
        )  # fmt: skip
        for kind, message in (
            ("ambiguous", "names that several concepts have, and that are left out; ids tell the concepts apart"),
            ("unknown_id", "ids that the vocabulary does not have, and that are left out"),
            ("unknown_name", "names that no concept has, which become labels without a concept"),
        ):
            one = counts[kind]
            if one.labels:
                logger.warning(
                    "%s: %s: %d (different ones: %d), e.g. %s.",
                    source, message, one.labels, one.different, one.example,
                )  # fmt: skip
