"""Names in the tokens of a tokenizer, each label's unlike those of all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from ..errors import LabelSpaceError

__all__ = ["plain_token_ids", "spell_labels"]

_DIGITS = 10


def plain_token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Tokenize without special tokens; text that looks like one stays text."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )["input_ids"]
    return ids


def spell_labels(
    tokenizer: PreTrainedTokenizerBase, names: Sequence[str], known: Mapping[int, Sequence[int]] | None = None
) -> tuple[list[list[int]], list[str]]:
    """Token ids of each label's name, no two alike.

    Where a tokenizer cannot tell two names apart (an uncased one "Turkey" and "turkey"), or spells a name with
    nothing, the later name gets a number at its end.

    Args:
        tokenizer: the tokenizer.
        names: the labels.
        known: positions of names that keep a spelling -> token ids, no two alike; a model has learned them.

    Returns:
        Token ids of each name, without separator, and the names that got a number now.

    Raises:
        LabelSpaceError: if the tokenizer has no token to number names with.
    """
    kept = {place: list(ids) for place, ids in (known or {}).items()}
    new = iter(plain_token_ids(tokenizer, [name for place, name in enumerate(names) if place not in kept]))
    spelled = [kept[place] if place in kept else next(new) for place in range(len(names))]
    seen: set[tuple[int, ...]] = set(map(tuple, kept.values()))
    last: Counter[tuple[int, ...]] = Counter()  # numbers that names of a spelling have, the smaller ones being taken
    numbered = []
    digits: list[int] = []
    for label, ids in enumerate(spelled):
        if label in kept:
            continue
        sequence = own = tuple(ids)
        number = max(last[own], 1)
        while not sequence or sequence in seen:
            number += 1
            digits = digits or _digit_ids(tokenizer)
            sequence = (*ids, *_number_ids(number, digits))
            last[own] = number
        seen.add(sequence)
        spelled[label] = list(sequence)
        if number > 1:
            numbered.append(names[label])
    return spelled, numbered


def _number_ids(number: int, digits: list[int]) -> list[int]:
    return [digits[int(sign)] for sign in str(number)] if len(digits) == _DIGITS else digits * number


def _digit_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ten different tokens for the digits; a single token where the tokenizer has no ten of them."""
    last = [ids[-1] for ids in plain_token_ids(tokenizer, [str(digit) for digit in range(_DIGITS)]) if ids]
    if len(set(last)) == _DIGITS:
        return last
    if tokenizer.unk_token_id is None and not last:
        raise LabelSpaceError("The tokenizer can spell neither digits nor unknown words; choose another checkpoint.")
    return [last[0] if last else tokenizer.unk_token_id]
