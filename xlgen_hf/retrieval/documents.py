"""What an index keeps of its training texts for people: the id of each, and perhaps its beginning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

__all__ = ["DocumentNames", "PackedStrings"]

_PARTS: dict[str, type] = {"start": np.int64, "bytes": np.uint8}
_NUMBER = re.compile("[0-9]{1,18}")
_FIELDS = ("document_ids", "document_beginnings")


class PackedStrings(Sequence[str]):
    """Strings in two arrays: a million ids take some 16 MB, where a list of them takes 60 and more.

    Args:
        start: string `i` has the bytes `start[i]:start[i + 1]`, `(N + 1,)`, int64.
        content: the strings in UTF-8, one after the other, `(M,)`, uint8.
    """

    def __init__(self, start: np.ndarray, content: np.ndarray) -> None:
        self.start = start
        self.content = content

    @classmethod
    def of(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack strings."""
        encoded = [one.encode() for one in strings]
        start = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(start, np.frombuffer(b"".join(encoded), dtype=np.uint8))

    def __len__(self) -> int:
        """The number of strings `N`."""
        return len(self.start) - 1

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> list[str]: ...

    def __getitem__(self, position: int | slice) -> str | list[str]:
        """The string at a position, or those of a slice."""
        if isinstance(position, slice):
            return [self[place] for place in range(*position.indices(len(self)))]
        place = range(len(self))[position]
        return self.content[self.start[place] : self.start[place + 1]].tobytes().decode()

    def __add__(self, other: PackedStrings) -> PackedStrings:
        """These strings and then others."""
        start = np.concatenate([self.start, other.start[1:] + self.start[-1]])
        return PackedStrings(start, np.concatenate([self.content, other.content]))

    def take(self, rows: np.ndarray) -> PackedStrings:
        """The strings at some positions, in their order, `(n,)`."""
        sizes = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.repeat(self.start[rows] - start[:-1], sizes) + np.arange(start[-1])
        return PackedStrings(start, self.content[places])

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """What [`from_tensors`] takes, under names that begin with `name`."""
        return {f"{name}_{part}": values for part, values in zip(_PARTS, (self.start, self.content), strict=True)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], name: str, number: int) -> PackedStrings | None:
        """Check and take what [`tensors`] gave; None if there is nothing of it.

        Args:
            tensors: the tensors of an index.
            name: what their names begin with.
            number: how many strings there must be.

        Raises:
            ValueError: if something is missing, or does not fit; the message says what.
        """
        found = [tensors.get(f"{name}_{part}") for part in _PARTS]
        if all(values is None for values in found):
            return None
        for (part, kind), values in zip(_PARTS.items(), found, strict=True):
            if values is None or values.dtype != kind or values.ndim != 1:
                raise ValueError(f"'{name}_{part}' must be there, as {np.dtype(kind).name}.")
        start, content = (values for values in found if values is not None)
        if len(start) != number + 1 or start[0] != 0 or start[-1] != len(content) or (np.diff(start) < 0).any():
            raise ValueError(f"'{name}_start' does not say where each of {number} strings begins.")
        strings = cls(start, content)
        try:
            content.tobytes().decode()
        except UnicodeDecodeError as err:
            raise ValueError(f"'{name}_bytes' are not UTF-8.") from err
        if ((content[start[:-1][start[:-1] < len(content)]] & 0xC0) == 0x80).any():  # a character that is cut in two
            raise ValueError(f"'{name}_start' does not say where each of {number} strings begins.")
        return strings


@dataclass(frozen=True)
class DocumentNames:
    """What the evidence for a label calls training texts by.

    Attributes:
        ids: of the `N` training texts, in the order of the index; need not be different.
        beginnings: first characters of each; None where they are not kept, since texts may be private.
    """

    ids: PackedStrings
    beginnings: PackedStrings | None = None

    @classmethod
    def of(cls, ids: Iterable[str], texts: Sequence[str], characters: int = 0) -> DocumentNames:
        """Names of training texts.

        Args:
            ids: an id for each.
            texts: the texts.
            characters: number of characters that are kept of the beginning of each; 0 keeps no text.
        """
        shown = PackedStrings.of(" ".join(text[: 2 * characters].split())[:characters] for text in texts)
        return cls(PackedStrings.of(ids), shown if characters else None)

    def __len__(self) -> int:
        """The number of training texts `N`."""
        return len(self.ids)

    def __add__(self, other: DocumentNames) -> DocumentNames:
        """The names of these texts and then of others; beginnings where both have them."""
        both = None if self.beginnings is None or other.beginnings is None else self.beginnings + other.beginnings
        return DocumentNames(self.ids + other.ids, both)

    def take(self, rows: np.ndarray) -> DocumentNames:
        """The names of some of the texts, by their numbers, `(n,)`."""
        return DocumentNames(self.ids.take(rows), None if self.beginnings is None else self.beginnings.take(rows))

    @property
    def characters(self) -> int:
        """The most characters that are kept of a text; 0 where no text is kept."""
        return 0 if self.beginnings is None else max(map(len, self.beginnings), default=0)

    @property
    def last_number(self) -> int:
        """The greatest id that is a number, or the number of texts if that is greater: numbering goes on from it."""
        return max(len(self), *(int(one) for one in self.ids if _NUMBER.fullmatch(one)), 0)

    def tensors(self) -> dict[str, np.ndarray]:
        """What [`from_tensors`] takes."""
        found = {"document_ids": self.ids}
        if self.beginnings is not None:
            found["document_beginnings"] = self.beginnings
        return {part: values for name, one in found.items() for part, values in one.tensors(name).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], number: int) -> DocumentNames | None:
        """Check and take what [`tensors`] gave; None if there is nothing of it.

        Args:
            tensors: the tensors of an index.
            number: its training texts `N`.

        Raises:
            ValueError: if something is missing, or does not fit; the message says what.
        """
        ids, beginnings = (PackedStrings.from_tensors(tensors, name, number) for name in _FIELDS)
        if ids is None:
            return None
        return cls(ids, beginnings)
