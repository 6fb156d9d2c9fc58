"""What looks wrong in rows, though each of them can be read: said with an example and with what to do about it."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..labels.space import name_difference, normalize_name
from .label_cells import COMMAS, SEMICOLONS, recognise_separator
from .label_lists import column_batches

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Suspicion",
    "fold_text",
    "id_suspicions",
    "label_counts",
    "log_split_suspicions",
    "log_suspicions",
    "look_alike_suspicions",
    "look_alikes",
    "row_suspicions",
    "shared_texts",
    "split_suspicions",
    "text_keys",
    "token_lengths",
    "truncation_suspicions",
]

logger = logging.getLogger(__name__)

_FEW = 50  # rows or labels below which fractions say nothing
_SINGLE = 1.02  # labels of a row on average, at most, where one label a row is suspected
_UNIQUE = 0.9  # different labels, as a fraction of all occurrences
_COMMAS = 0.5  # different labels with a comma, of those in cells that were not split
_ENDING = 0.05  # rows with a label that ends in a separator, of those with labels
_BRACKETED = 0.5  # different labels in square brackets
_IDS = 0.9  # labels that are numbers or URIs, as a fraction of the different ones
_REPEATED = 0.05  # texts that an earlier row of the split has; a few are in most data, such as editions of a book
_SAMPLE = 20_000  # different labels that are searched for separators
_SHOWN = 3
_TEXT_SHOWN = 60
_URI = re.compile(r"<?https?://\S+")
_ID_FORM = re.compile(r"\d+|https?://\S+|<https?://[^>\s]+>")
_ENDS = re.compile(rf".[{''.join((*COMMAS, *SEMICOLONS))}]", re.DOTALL)
_ENTITY = re.compile(r"&#?\w+;")
_WORD = re.compile(r"\w+")


class Suspicion(NamedTuple):
    """Something that looks wrong.

    Attributes:
        kind: `unsplit`, `bracketed`, `single_label`, `unique_labels`, `label_ids`, `look_alikes`, `no_labels`,
            `shared_texts`, `repeated_texts` or `truncated`.
        message: what was seen, with numbers and an example.
        advice: what to do.
        number: how many labels, rows or texts it is about.
    """

    kind: str
    message: str
    advice: str
    number: int

    def of(self, split: str) -> Suspicion:
        """The suspicion with the split that it is about."""
        return self._replace(message=f"{split}: {self.message}")


def log_suspicions(suspicions: Iterable[Suspicion], source: str) -> None:
    """Log each as a warning, with the name of what it is about."""
    for one in suspicions:
        logger.warning("%s: %s %s", source, one.message, one.advice)


def label_counts(rows: Dataset) -> Counter[str]:
    """The number of rows that each label of the rows occurs in; a row has a label once."""
    counts: Counter[str] = Counter()
    for (labels,) in column_batches(rows, "labels"):
        values, occurrences = labels.flatten().value_counts().flatten()
        counts.update(dict(zip(values.to_pylist(), occurrences.to_pylist(), strict=True)))
    return counts


def log_split_suspicions(
    splits: Mapping[str, Dataset],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    sample: int | None = 2000,
) -> None:
    """Log what looks wrong between splits and in the lengths of texts, before a training; rows are seen as read.

    Args:
        splits: rows by split; the first is the one that is learned from.
        tokenizer: the model's tokenizer; without it lengths are not looked at.
        max_length: tokens that the model reads.
        sample: texts of the first split whose tokens are counted; None for all.
    """
    log_suspicions(split_suspicions(splits), "The data")
    if tokenizer is not None and max_length is not None:
        first = next(iter(splits))
        lengths = token_lengths(splits[first], tokenizer, sample)
        log_suspicions(truncation_suspicions(lengths, max_length), f"The texts of {first}")


# ---------------------------------------------------------------------------------------------------- labels of rows


def row_suspicions(rows: Dataset, *, guessed_separator: bool = False) -> list[Suspicion]:
    """What looks wrong in the labels of rows.

    Args:
        rows: rows with `text` and `labels`, as `load_rows` returns them.
        guessed_separator: whether the labels came from cells that hold all labels of a row, and nobody said what
            separates them; commas in them are suspicious then.
    """
    counts = label_counts(rows)
    if not counts:
        return []
    unsplit = _ending(rows, counts) or _unsplit(rows, counts, guessed_separator)
    found = [unsplit, _bracketed(rows, counts), _label_ids(rows, counts)]
    if counts.total() >= _FEW:
        found += [_single_label(rows, counts, guessed_separator), _unique_labels(rows, counts)]
    return [one for one in found if one is not None]


def _unsplit(rows: Dataset, counts: Counter[str], guessed_separator: bool) -> Suspicion | None:
    names = list(islice(counts, _SAMPLE))
    separator = recognise_separator(names)
    if separator is None and guessed_separator:
        commas = {sign: sum(sign in name for name in names) for sign in COMMAS}
        often = max(commas, key=commas.__getitem__)
        separator = often if commas[often] >= _COMMAS * len(names) else None
    if separator is None:
        return None
    holding = [name for name in counts if separator in name]
    row = _row_with(rows, holding[0])
    return Suspicion(
        "unsplit",
        f"{len(holding):,} of {len(counts):,} labels hold {separator!r}, as if several were written in one, e.g. "
        f"{holding[0]!r} in row {row}.",
        f"Split them with label_separator={separator!r} (--label-separator) if they are several labels.",
        len(holding),
    )


def _ending(rows: Dataset, counts: Counter[str]) -> Suspicion | None:
    """Labels that end in a sign that stands between labels elsewhere, as where they were split at white space."""
    names = [name for name in counts if _ENDS.fullmatch(name[-2:]) and _ENTITY.split(name)[-1]]
    if not names:
        return None
    separator = Counter(name[-1] for name in names).most_common(1)[0][0]
    found = {name for name in names if name.endswith(separator)}
    ending = labelled = 0
    for (part,) in column_batches(rows, "labels"):
        lists = part.to_pylist()
        labelled += sum(map(bool, lists))
        ending += sum(not found.isdisjoint(labels) for labels in lists)
    if ending < _ENDING * labelled:
        return None
    example = next(name for name in names if name in found)
    return Suspicion(
        "unsplit",
        f"{ending:,} of {labelled:,} rows with labels have one that ends in {separator!r}, as if it stood between "
        f"labels, e.g. {example!r} in row {_row_with(rows, example)}.",
        f"Give label_separator={separator!r} (--label-separator) if it separates labels.",
        ending,
    )


def _bracketed(rows: Dataset, counts: Counter[str]) -> Suspicion | None:
    found = [name for name in counts if name.startswith("[") and name.endswith("]")]
    if not found or len(found) < _BRACKETED * len(counts):
        return None
    return Suspicion(
        "bracketed",
        f"{len(found):,} of {len(counts):,} labels stand in square brackets, as if they were lists without quotes, "
        f"e.g. {found[0]!r} in row {_row_with(rows, found[0])}.",
        'Write lists as ["a", "b"] if they are; a name in brackets stays as it is.',
        len(found),
    )


def _label_ids(rows: Dataset, counts: Counter[str]) -> Suspicion | None:
    ids = [name for name in counts if _ID_FORM.fullmatch(name)]
    if len(ids) < _IDS * len(counts):
        return None
    return Suspicion(
        "label_ids",
        f"{len(ids):,} of {len(counts):,} labels are numbers or URIs, which say nothing to a language model, e.g. "
        f"{ids[0]!r} in row {_row_with(rows, ids[0])}.",
        "Give a file with the names of the ids (label_names=..., --label-names).",
        len(ids),
    )


def _single_label(rows: Dataset, counts: Counter[str], guessed: bool) -> Suspicion | None:
    labelled = sum(int((part.value_lengths().to_numpy() > 0).sum()) for (part,) in column_batches(rows, "labels"))
    if counts.total() > _SINGLE * labelled:
        return None
    first = next(row for (part,) in column_batches(rows, "labels") for row in part.to_pylist() if row)
    advice = "If a cell holds several labels, give what separates them (--label-separator). " if guessed else ""
    advice += "If a text has several rows, give --layout long; if not, this is not a multi-label problem."
    return Suspicion(
        "single_label",
        f"{labelled:,} rows have {counts.total() / labelled:.2f} labels on average, e.g. {first!r}.",
        advice,
        labelled,
    )


def _unique_labels(rows: Dataset, counts: Counter[str]) -> Suspicion | None:
    if len(counts) < _UNIQUE * counts.total():
        return None
    once = [name for name, count in counts.items() if count == 1]
    return Suspicion(
        "unique_labels",
        f"{len(once):,} of {len(counts):,} labels occur in one row only, e.g. {once[0]!r} in row "
        f"{_row_with(rows, once[0])}.",
        "Hardly anything can be learned from that; check that the right column is read and that its cells are split.",
        len(once),
    )


def _row_with(rows: Dataset, label: str) -> int:
    """The number of the first row, from 1, that has a label."""
    import pyarrow.compute as pc

    start = 1
    for (labels,) in column_batches(rows, "labels"):
        place = pc.index(labels.flatten(), label).as_py()
        if place >= 0:
            ends = np.cumsum(labels.value_lengths().to_numpy(zero_copy_only=False))
            return start + int(np.searchsorted(ends, place, side="right"))
        start += len(labels)
    return 0


# ---------------------------------------------------------------------------------------------------- look-alikes


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different names that look the same, in the order of the names."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(normalize_name(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def look_alike_suspicions(
    names: Iterable[str], others: Iterable[str] | None = None, *, what: str = "label names"
) -> list[Suspicion]:
    """Names that look the same and are different labels all the same.

    Args:
        names: label names.
        others: where given, only names that are not among these, and look like one of them, are found.
        what: what to call the names.
    """
    if others is None:
        groups = look_alikes(names)
    else:
        there = dict.fromkeys(others)
        folded = {normalize_name(name): name for name in there}
        new = (name for name in dict.fromkeys(names) if name not in there)
        groups = [(name, folded[normalize_name(name)]) for name in new if normalize_name(name) in folded]
    if not groups:
        return []
    shown = ", ".join(f"{group[0]!a} and {group[1]!a}" for group in groups[:_SHOWN])
    kinds = ", ".join(dict.fromkeys(name_difference(*group[:2]) for group in groups[:1000]))
    return [
        Suspicion(
            "look_alikes",
            f"{len(groups):,} groups of {what} look the same and count as different labels, e.g. {shown}; they differ "
            f"in {kinds}.",
            "Write each label in one way, in all files.",
            len(groups),
        )
    ]


def id_suspicions(predicted: Iterable[str], true: Iterable[str]) -> list[Suspicion]:
    """True labels that are ids of concepts, where no predicted label is one.

    Args:
        predicted: names of predicted labels.
        true: names of true labels.
    """
    ids = [name for name in dict.fromkeys(true) if _URI.fullmatch(name)]
    if not ids or any(map(_URI.fullmatch, predicted)):
        return []
    return [
        Suspicion(
            "label_ids",
            f"{len(ids):,} true labels are ids, e.g. {ids[0]!r}, and no predicted label is one: they count as missed.",
            "Give the vocabulary (--vocabulary), which says what they are called.",
            len(ids),
        )
    ]


# ---------------------------------------------------------------------------------------------------- texts


def fold_text(text: str) -> str:
    """A text without case, punctuation and differences of white space."""
    return " ".join(_WORD.findall(text.casefold()))


def text_keys(rows: Dataset, *, fold: bool = True) -> np.ndarray:
    """A key for each text, equal texts alike, shape `(N,)`, uint64; 0 for an empty text.

    Args:
        rows: rows with `text`.
        fold: whether case and punctuation do not count.
    """
    keys = np.zeros(len(rows), dtype=np.uint64)
    row = 0
    for (texts,) in column_batches(rows, "text"):
        for text in texts.to_pylist():
            content = fold_text(text) if fold else text
            if content:
                digest = hashlib.blake2b(content.encode("utf-8"), digest_size=8).digest()
                keys[row] = int.from_bytes(digest, "little") | 1
            row += 1
    return keys


def shared_texts(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Rows of `keys`, from 0, whose text is among `others`; empty texts are not shared."""
    return np.flatnonzero((keys != 0) & np.isin(keys, others))


def split_suspicions(splits: Mapping[str, Dataset], keys: Mapping[str, np.ndarray] | None = None) -> list[Suspicion]:
    """Splits without labels, splits that repeat texts, and texts of validation and test rows that are training rows.

    Scores on such rows say little.

    Args:
        splits: rows by split; the first is the one that is learned from.
        keys: the keys of the texts of each split, as `text_keys` makes them; by default they are made here.
    """
    first, *others = splits
    if keys is None:
        keys = {name: text_keys(rows) for name, rows in splits.items()}
    found = [
        Suspicion(
            "no_labels",
            f"None of the {len(rows):,} rows of {name} has a label.",
            "Check the column and the separator of the labels; nothing can be learned or measured on these rows.",
            len(rows),
        )
        for name, rows in splits.items()
        if len(rows) and "labels" in rows.column_names and not label_counts(rows)
    ]
    found += _repeated_texts(splits, keys)
    for name in others:
        rows = shared_texts(keys[name], keys[first])
        if len(rows):
            text = splits[name][int(rows[0])]["text"]
            found.append(
                Suspicion(
                    "shared_texts",
                    f"{len(rows):,} of {len(splits[name]):,} texts of {name} are texts of {first}, too (case and "
                    f"punctuation aside), e.g. row {rows[0] + 1}: {text[:_TEXT_SHOWN]!r}.",
                    f"Remove them from {first}; scores on {name} are too high otherwise.",
                    len(rows),
                )
            )
    return found


def _repeated_texts(splits: Mapping[str, Dataset], keys: Mapping[str, np.ndarray]) -> list[Suspicion]:
    """Splits in which many rows have the text of an earlier row, as one suspicion."""
    repeated: dict[str, int] = {}
    example = ""
    for name, rows in splits.items():
        _, first, counts = np.unique(keys[name][keys[name] != 0], return_index=True, return_counts=True)
        number = int((counts - 1).sum())
        if len(rows) >= _FEW and number >= _REPEATED * len(rows):
            often = counts.argmax()
            text = rows[int(np.flatnonzero(keys[name])[first[often]])]["text"]
            example = example or f"{text[:_TEXT_SHOWN]!r} in {counts[often]:,} rows of {name}"
            repeated[name] = number
    if not repeated:
        return []
    where = ", ".join(f"{number:,} of {len(splits[name]):,} in {name}" for name, number in repeated.items())
    return [
        Suspicion(
            "repeated_texts",
            f"Texts that an earlier row has, too (case and punctuation aside): {where}, e.g. {example}.",
            "Keep one row of each text, with all its labels; training and scores count each row.",
            sum(repeated.values()),
        )
    ]


def token_lengths(rows: Dataset, tokenizer: PreTrainedTokenizerBase, sample: int | None = None) -> np.ndarray:
    """Tokens of each text with the special tokens, not truncated, shape `(N,)`.

    Args:
        rows: rows with `text`.
        tokenizer: the tokenizer.
        sample: number of texts to take, at equal distances; None for all.
    """
    rows = rows.select_columns(["text"])
    if sample is not None and sample < len(rows):
        rows = rows.select(np.linspace(0, len(rows) - 1, sample).astype(int))
    lengths: list[int] = []
    for (texts,) in column_batches(rows, "text", size=1000):
        lengths += map(len, tokenizer(texts.to_pylist(), truncation=False, verbose=False)["input_ids"])
    return np.array(lengths, dtype=np.int64)


def truncation_suspicions(lengths: np.ndarray, max_length: int) -> list[Suspicion]:
    """Texts that are longer than a model reads.

    Args:
        lengths: tokens of the texts, shape `(N,)`, as `token_lengths` counts them.
        max_length: tokens that the model reads.
    """
    long = lengths > max_length
    if not long.any():
        return []
    return [
        Suspicion(
            "truncated",
            f"{long.mean():.1%} of {len(lengths):,} texts have more than {max_length} tokens and lose their end, the "
            f"longest (text {lengths.argmax() + 1}) {int(lengths.max()) - max_length:,} tokens of "
            f"{int(lengths.max()):,}; 95 % of the texts have at most {int(np.quantile(lengths, 0.95)):,}.",
            "Raise the maximum length, or put what matters first.",
            int(long.sum()),
        )
    ]
