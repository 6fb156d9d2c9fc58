"""Hashed character n-grams of texts, as scikit-learn's `HashingVectorizer` counts them, without importing it.

Predicting with an index would else spend a second of CPU time on that import, most of it on SciPy's statistics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from unicodedata import combining, normalize

import numpy as np
from scipy.sparse import csr_matrix, vstack

from ..ranking.words import folded

__all__ = ["CHARACTERS_AT_ONCE", "HashedTexts", "count_runs"]

CHARACTERS_AT_ONCE = 250_000
"""Characters of the texts that are hashed together: about 100 MB of intermediate values."""

_WORD = re.compile(r"\S+")


def count_runs(texts: Sequence[str], lengths: tuple[int, int], buckets: int) -> csr_matrix:
    """How often each hashed n-gram of characters is in each text; n-grams lie within words, with a space around each.

    The same as `HashingVectorizer(analyzer="char_wb", ngram_range=lengths, n_features=buckets, alternate_sign=False,
    norm=None, dtype=np.float32)` gives for texts in NFC; of many texts in half the time or less. A text in
    another Unicode form, as in catalogue records or PDF files, has the n-grams of its NFC form.

    Args:
        texts: `Q` texts.
        lengths: the least and the greatest length of an n-gram, in characters; the least at most 3.
        buckets: the number of hash values.

    Returns:
        Counts, `(Q, buckets)`, float32, columns in order.
    """
    blocks = [_HashedBlock(block, lengths, buckets).counts() for block in _blocks(texts)]
    return vstack(blocks, format="csr") if blocks else csr_matrix((0, buckets), dtype=np.float32)


class HashedTexts:
    """Texts whose n-grams are hashed once, for who counts them and for who asks where they stand.

    Args:
        texts, lengths, buckets: see [`count_runs`]; at least one text.
    """

    def __init__(self, texts: Sequence[str], lengths: tuple[int, int], buckets: int) -> None:
        blocks = [_HashedBlock(block, lengths, buckets) for block in _blocks(texts)]
        self._places = [(block, place) for block in blocks for place in range(len(block.texts))]

    def counts(self) -> csr_matrix:
        """What [`count_runs`] gives."""
        return vstack([block.counts() for block, place in self._places if place == 0], format="csr")

    def runs(self, text: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams of a text, and where they stand.

        Args:
            text: its number.
            most: characters of it; of a word that begins within them all n-grams are given.

        Returns:
            The hashed n-grams, short ones first, `(G,)`, and where each begins and ends, `(G, 2)`, in characters.
        """
        block, place = self._places[text]
        return block.runs(place, most)


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in blocks of a bounded number of characters."""
    first = size = 0
    for number, text in enumerate(texts):
        if size and size + len(text) > CHARACTERS_AT_ONCE:
            yield texts[first:number]
            first, size = number, 0
        size += len(text)
    if first < len(texts):
        yield texts[first:]


class _HashedBlock:
    """Texts that are hashed together.

    Args:
        texts: `Q` of them.
        lengths, buckets: see [`count_runs`].
    """

    def __init__(self, texts: Sequence[str], lengths: tuple[int, int], buckets: int) -> None:
        self.texts, self._buckets = texts, buckets
        words = [[f" {word} " for word in folded(text).split()] for text in texts]
        sizes = [sum(map(len, of_text)) for of_text in words]
        self._start = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])  # of each text, in characters of words
        self._runs = list(_runs_of_words([word for of_text in words for word in of_text], lengths, buckets))

    def counts(self) -> csr_matrix:
        """How often each n-gram is in each text, `(Q, buckets)`."""
        owner = np.repeat(np.arange(len(self.texts)), np.diff(self._start))
        keys = [owner[place] * self._buckets + columns for _, place, columns in self._runs]
        found, counts = np.unique(np.concatenate(keys), return_counts=True)
        start = np.searchsorted(found, np.arange(len(self.texts) + 1, dtype=np.int64) * self._buckets)
        columns, shape = (found % self._buckets).astype(np.int32), (len(self.texts), self._buckets)
        return csr_matrix((counts.astype(np.float32), columns, start.astype(np.int32)), shape)

    def runs(self, text: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams of a text, and where they stand; see [`HashedTexts.runs`]."""
        words = [word for word in _WORD.finditer(self.texts[text]) if word.start() < most]
        bounds = np.array([word.span() for word in words], dtype=np.int64).reshape(-1, 2)
        places = [[0, *_places(word[0]), *[len(word[0])] * 2] for word in words]  # with a space on both sides
        flat = np.fromiter(chain.from_iterable(places), dtype=np.int64)
        word = np.repeat(np.arange(len(words)), [len(of_word) - 1 for of_word in places])
        hashed, spans = [], []
        for length, place, values in self._runs:
            own = slice(*np.searchsorted(place, self._start[text] + np.array([0, len(word)])))
            here = place[own] - self._start[text]
            begin, end = bounds[word[here]].T
            first = begin + flat[here + word[here]]
            last = begin + flat[here + word[here] + length]  # where the next character begins
            first = np.minimum(first, end - 1)
            hashed.append(values[own])
            spans.append(np.stack([first, np.maximum(first + 1, last)], axis=1))
        return np.concatenate(hashed), np.concatenate(spans)


def _places(word: str) -> Sequence[int]:
    """Where each character of a folded word comes from, in characters of the word."""
    if len(folded(word)) == len(word):
        return range(len(word))
    letters: list[str] = []  # with their marks; composed of several letters in Korean, and in scripts of India
    for sign in word:
        if letters and (combining(sign) or len(normalize("NFC", letters[-1] + sign)) == 1):
            letters[-1] += sign
        else:
            letters.append(sign)
    starts = chain([0], accumulate(map(len, letters)))
    return [start for start, letter in zip(starts, letters, strict=False) for _ in folded(letter)]


def _runs_of_words(
    words: Sequence[str], lengths: tuple[int, int], buckets: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The hashed n-grams of words, see [`count_runs`].

    Args:
        words: in lower case, each with a space on both sides.
        lengths: the least and the greatest length of an n-gram, in characters.
        buckets: the number of hash values.

    Yields:
        A length; where its n-grams begin, in characters of all words one after the other, and their hash values,
        `(G,)` each.
    """
    sizes = np.array(list(map(len, words)), dtype=np.int64)
    data = np.frombuffer("".join(words).encode(), dtype=np.uint8)
    begins = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))  # where each character begins, in bytes
    ends = np.repeat(np.cumsum(sizes), sizes)  # of the word that each character is in
    for length in range(lengths[0], lengths[1] + 1):
        place = np.flatnonzero(np.arange(len(ends)) + length <= ends)
        yield length, place, _slots_of(data, begins[place], begins[place + length] - begins[place], buckets)


def _slots_of(data: np.ndarray, begins: np.ndarray, sizes: np.ndarray, buckets: int) -> np.ndarray:
    """Hash values of some spans of bytes: the absolute of a signed MurmurHash3, modulo `buckets`, `(G,)`, int64."""
    hashed = np.empty(len(begins), dtype=np.uint32)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        span = np.zeros((len(rows), -(-size // 4) * 4), dtype=np.uint8)
        span[:, :size] = data[begins[rows][:, None] + np.arange(size)]
        hashed[rows] = _murmur3(span.view("<u4"), size)
    return np.abs(hashed.view(np.int32).astype(np.int64)) % buckets


def _murmur3(blocks: np.ndarray, size: int) -> np.ndarray:
    """MurmurHash3 (x86, 32 bits, seed 0) of byte strings of one length.

    Args:
        blocks: their bytes as little-endian numbers of 32 bits, padded with zeros, `(G, ceil(size / 4))`.
        size: bytes of each.

    Returns:
        `(G,)`, uint32.

    Source: Austin Appleby's MurmurHash3, in the public domain.
    """
    value = np.zeros(len(blocks), dtype=np.uint32)
    for number, block in enumerate(blocks.T):
        value ^= _rotated(block * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
        if 4 * (number + 1) <= size:  # a last block that is not full is only mixed in
            value = _rotated(value, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    value ^= np.uint32(size)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = (value ^ (value >> np.uint32(shift))) * np.uint32(factor)
    return value ^ (value >> np.uint32(16))


def _rotated(value: np.ndarray, bits: int) -> np.ndarray:
    return (value << np.uint32(bits)) | (value >> np.uint32(32 - bits))
