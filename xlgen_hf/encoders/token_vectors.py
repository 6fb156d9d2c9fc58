"""Hidden states of the tokens of texts, kept while the texts are embedded, and where in the text each token stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .text_encoder import TextTokenizer

__all__ = ["TokenVectors"]


class TokenVectors:
    """Last hidden states of the tokens of texts; give an empty one to [`embed_texts`], which fills it.

    An embedding that is the mean of a text's tokens is near to another one as far as its tokens are: the products of
    token and other embedding add up to the product of both embeddings. For other ways of pooling they still say which
    tokens are near.
    """

    def __init__(self) -> None:
        self._states: dict[int, tuple[np.ndarray, int]] = {}  # text -> states of its batch, (B, S, H), and its row
        self._spans: list[np.ndarray] = []

    def add(self, rows: np.ndarray, hidden: np.ndarray) -> None:
        """Keep the states of a batch.

        Args:
            rows: numbers of its texts, `(B,)`.
            hidden: their last hidden states, padded on the right, `(B, S, H)`.
        """
        self._states |= {text: (hidden, row) for row, text in enumerate(rows.tolist())}

    def locate(self, texts: Sequence[str], tokenizer: TextTokenizer, prompt: str, lengths: np.ndarray) -> None:
        """Find the characters that tokens stand for; a tokenizer that does not say so leaves all texts without.

        Args:
            texts: `N` texts.
            tokenizer: the encoder's tokenizer.
            prompt: what stands before each text; its tokens are left out.
            lengths: tokens of each that are read, `(N,)`.
        """
        # Without truncation, which is a setting of the tokenizer that other threads would see.
        found = tokenizer.spans([prompt + text for text in texts]) if texts else None
        for spans, length in zip(found, lengths.tolist(), strict=True) if found else ():
            after = next((place for place, (begin, end) in enumerate(reversed(spans)) if end > begin), 0)
            kept = spans if len(spans) <= length else spans[: length - after]  # the special tokens at the end stay
            self._spans.append((np.array(kept, dtype=np.int64).reshape(-1, 2) - len(prompt)).clip(min=0))

    def products(self, text: int, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How near each token of a text is to some vectors.

        Args:
            text: number of the text.
            vectors: `(n, H)`.

        Returns:
            The products of vectors and hidden states, `(n, S)`, and where each token begins and ends in the text,
            `(S, 2)`, in characters; special tokens and prompts are not among them. Where that is not known, no tokens.
        """
        if text not in self._states or not self._spans:
            return np.zeros((len(vectors), 0)), np.zeros((0, 2), dtype=np.int64)
        hidden, row = self._states[text]
        spans = self._spans[text]
        inside = spans[:, 1] > spans[:, 0]
        states = hidden[row, : len(spans)][inside]
        return vectors @ states.T, spans[inside]
