"""Words of a text, and which of them a similarity comes from."""

from __future__ import annotations

import re
from typing import TypeAlias
from unicodedata import normalize

import numpy as np

__all__ = ["Span", "folded", "strongest_words", "weights_of_words", "word_pattern", "words_of"]

Span: TypeAlias = "tuple[int, int]"
"""Where something begins and ends in a text, in characters."""

# Scripts without spaces between words: each character stands for itself. Marks belong to the letter before them.
_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u200c\u200d"


def folded(text: str) -> str:
    """A text with neither case nor Unicode form; a small letter may be composed where its capital is not, as in ẖ."""
    return normalize("NFC", text.lower())


def word_pattern(shortest: int = 1) -> str:
    """A regular expression of words; characters of scripts that put no space between words are words of their own.

    Args:
        shortest: characters that words of other scripts have at least.
    """
    return rf"[{_ALONE}]|(?:(?![{_ALONE}])[\w{_MARKS}]){{{shortest},}}"


_WORD = re.compile(word_pattern())


def words_of(text: str) -> np.ndarray:
    """Where the words of a text begin and end, `(W, 2)`, int64, in characters.

    Characters of scripts that put no space between words (Chinese, Japanese, Thai ...) are words of their own.

    Args:
        text: the text.
    """
    return np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)


def weights_of_words(spans: np.ndarray, values: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Values of pieces of a text -> values of its words: each counts for a word as far as it lies in the word.

    Args:
        spans: where each piece begins and ends, `(S, 2)`, longer than 0.
        values: of the pieces, `(n, S)`.
        words: where each word begins and ends, `(W, 2)`.

    Returns:
        Shape `(n, W)`.
    """
    begin, end = spans.T
    size = max(int(end.max(initial=0)), int(words.max(initial=0))) + 1
    weights = np.zeros((len(values), len(words)))
    for row, of_row in enumerate(values / (end - begin)):
        steps = np.bincount(begin, of_row, size) - np.bincount(end, of_row, size)
        before = np.concatenate([[0.0], np.cumsum(np.cumsum(steps))])  # what the characters before each one have
        weights[row] = before[words[:, 1]] - before[words[:, 0]]
    return weights


def strongest_words(weights: np.ndarray, words: np.ndarray, text: str, fraction: float) -> list[Span]:
    """The words with most weight, those with nothing but white space between them as one span.

    Args:
        weights: of the words, `(W,)`.
        words: where each begins and ends, `(W, 2)`.
        text: the text.
        fraction: of the greatest weight that the others need.
    """
    best = weights.max(initial=0)
    if best <= 0:
        return []
    found: list[Span] = []
    for begin, end in words[weights >= fraction * best].tolist():
        if found and not text[found[-1][1] : begin].strip():
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found
