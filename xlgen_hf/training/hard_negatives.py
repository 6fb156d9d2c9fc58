"""Hard negatives: label names that an encoder, before its training, finds near to a text that does not have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["draw_negatives", "near_names"]

_TEXTS = 256  # that are compared at once, with the same names
_NONE = -1


def near_names(
    texts: np.ndarray,
    names: np.ndarray,
    label_ids: Sequence[Sequence[int]],
    *,
    number: int = 32,
    compared: int = 20_000,
    seed: int = 0,
) -> np.ndarray:
    """The names nearest to each text, without those of its labels.

    Args:
        texts: their embeddings, `(N, H)`.
        names: embeddings of the label names, `(L, H)`.
        label_ids: label ids of each text.
        number: names of a text, at least 1.
        compared: names that a text is compared with, at least 1; where there are more, so many are drawn for each
            256 texts, so that a million names take no more time.
        seed: of the drawn names.

    Returns:
        Their label ids, `(N, number)`, nearest first, int32; -1 where there are no more.
    """
    found = np.full((len(texts), number), _NONE, dtype=np.int32)
    for start in range(0, len(texts), _TEXTS):
        block = slice(start, start + _TEXTS)
        drawn = _drawn(len(names), compared, np.random.default_rng([seed, start]))
        similarity = torch.from_numpy(texts[block]) @ torch.from_numpy(names[drawn]).T
        for row, labels in enumerate(label_ids[block]):
            place = np.searchsorted(drawn, labels).clip(max=len(drawn) - 1)
            similarity[row, place[drawn[place] == labels]] = -torch.inf
        best = similarity.topk(min(number, len(drawn)), dim=1)
        ids = drawn[best.indices.numpy()]
        ids[~best.values.isfinite().numpy()] = _NONE
        found[block, : ids.shape[1]] = ids
    return found


def _drawn(names: int, number: int, random: np.random.Generator) -> np.ndarray:
    """Numbers of the names that are compared, sorted."""
    return np.arange(names) if names <= number else np.sort(random.choice(names, number, replace=False))


def draw_negatives(near: np.ndarray, number: int, random: np.random.Generator) -> np.ndarray:
    """Some of the near names of each text, of all texts together.

    Args:
        near: see [`near_names`], `(B, K)`.
        number: names of each text, as far as it has them.
        random: what they are drawn with.
    """
    order = random.random(near.shape)
    order[near == _NONE] = 2.0  # last
    taken = np.take_along_axis(near, order.argsort(axis=1)[:, :number], axis=1)
    ids: np.ndarray = taken[taken != _NONE].astype(np.int64)
    return ids
