"""Labels that look alike and count as different ones: only case, Unicode form or invisible characters differ."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

__all__ = ["look_alikes", "warn_of_look_alikes"]

logger = logging.getLogger(__name__)

_SHOWN = 3


def warn_of_look_alikes(predictions: Any, references: Any) -> None:
    """Warn of predicted labels that look like a true label and are not: they count as wrong.

    Args:
        predictions: labels of each document: label lists, or a pyarrow column of them.
        references: true labels of each document, likewise.
    """
    pairs = look_alikes(_names(predictions), _names(references))
    if pairs:
        shown = ", ".join(f"{one!a} and {other!a}" for one, other in pairs[:_SHOWN])
        logger.warning(
            "%d predicted labels look like a true label, differ from it in case, Unicode form, white space or "
            "invisible characters, and count as wrong: %s. Write each label in one way.",
            len(pairs),
            shown,
        )


def look_alikes(names: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of a name that is not among the others, and one of the others that looks the same.

    Args:
        names: labels.
        others: labels that the first ones are compared with.
    """
    there = dict.fromkeys(others)
    new = [name for name in dict.fromkeys(names) if name not in there]
    if not new:
        return []
    folded = {_fold(name): name for name in there}
    return [(name, folded[_fold(name)]) for name in new if _fold(name) in folded]


def _fold(name: str) -> str:
    """A name without what a reader cannot tell apart: Unicode form (NFKC), case, white space, invisible characters."""
    if name.isascii():
        return " ".join(name.casefold().split())
    visible = "".join(sign for sign in name if not _is_invisible(sign))
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold()).split())


def _is_invisible(sign: str) -> bool:
    return unicodedata.category(sign) == "Cf" or "\ufe00" <= sign <= "\ufe0f"


def _names(label_lists: Any) -> Iterable[str]:
    if hasattr(label_lists, "chunks"):  # a column of pyarrow, of which only the distinct labels become strings
        names: Sequence[str] = label_lists.combine_chunks().flatten().unique().to_pylist()
        return names
    return chain.from_iterable(label_lists)
