"""The label space: the names that can be predicted, how often training used them, and their order in a target."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TypedDict, get_args

import numpy as np

from ..errors import LabelSpaceError
from ..files.schema import Fields, choice, integer, list_of, named_after, strings
from ..settings import DecodeOrder, LabelSettings

__all__ = ["LABEL_SPACE_FILE", "DecodeOrder", "LabelSpace", "is_invisible", "name_difference", "normalize_name"]

logger = logging.getLogger(__name__)

LABEL_SPACE_FILE = "label_space.json"
_SHOWN = 5  # names that a report spells out

_INT64_MAX = 2**63 - 1


class _SpaceContent(TypedDict):
    decode_order: DecodeOrder
    seed: int
    names: list[str]
    counts: list[int]


_SPACE_FORM = Fields[_SpaceContent](
    {
        "decode_order": choice(*get_args(DecodeOrder)),
        "seed": integer(minimum=0, maximum=_INT64_MAX),
        "names": strings(min_length=1, unique=True, visible=True),
        "counts": list_of(integer(minimum=0, maximum=_INT64_MAX), min_length=1),
    },
    format_version=2,
    made_by="xlgen train",
)


_DOTTED = "i\u0307"  # what case folding makes of the Turkish capital


def normalize_name(name: str) -> str:
    """Fold what a reader cannot tell apart: Unicode form (NFKC), case, white space, invisible characters."""
    if name.isascii():
        return " ".join(name.casefold().split())
    visible = "".join(sign for sign in name if not is_invisible(sign))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    return " ".join(folded.replace(_DOTTED, "i").split())


def name_difference(one: str, other: str) -> str:
    """How two names that `normalize_name` folds into one differ, in words."""
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return "Unicode normal form (NFC, NFD)"
    seen = ["".join(sign for sign in name if not is_invisible(sign)) for name in (one, other)]
    if seen[0] == seen[1]:
        return "invisible characters (zero-width)"
    if one.casefold() == other.casefold():
        return "case"
    return "white space" if one.split() == other.split() else "case, width, white space or Unicode form"


def is_invisible(sign: str) -> bool:
    """Whether a character shows nothing: zero-width spaces and joiners, direction marks, variation selectors."""
    return unicodedata.category(sign) == "Cf" or "\ufe00" <= sign <= "\ufe0f"


class LabelSpace:
    """Names, training counts and decode order of the `L` labels that a model can predict.

    A label's id is its frequency rank: 0 is the label with most training documents; ties are in the order of the
    names. Labels of the vocabulary that training never saw have a count of 0 and the highest ids.

    Args:
        names: the `L` label names in the order of their ids.
        counts: training documents of each label, shape `(L,)`, int64, not increasing.
        decode_order: order in which a text's labels are generated. `freq_forward` (the paper's choice) puts the most
            frequent label first, `freq_backward` (the default: it finds more rare labels) last,
            `alphabet` sorts by name, `shuffle` draws a new seeded order for each epoch and text.
        seed: seed of `shuffle`.

    Raises:
        LabelSpaceError: if a name is empty or duplicate, or names and counts do not fit.

    Source: Jung et al., "Cluster-Guided Label Generation in Extreme Multi-Label Classification", EACL 2023.
    """

    def __init__(
        self,
        names: Sequence[str],
        counts: Sequence[int] | np.ndarray,
        decode_order: DecodeOrder = LabelSettings.decode_order,
        seed: int = 0,
    ) -> None:
        self.names = tuple(names)
        self.counts = np.asarray(counts, dtype=np.int64)
        self.decode_order = decode_order
        self.seed = int(seed)
        if __package__ == "xlgen_hf.labels":  # a copy of the code reads what this has checked
            self._validate()

    @classmethod
    def from_label_lists(
        cls,
        label_lists: Iterable[Sequence[str]],
        vocabulary: Iterable[str] | None = None,
        decode_order: DecodeOrder = LabelSettings.decode_order,
        seed: int = 0,
    ) -> LabelSpace:
        """Count the labels of the training documents.

        Args:
            label_lists: each training document's labels; a label counts once a document.
            vocabulary: further names, which may occur in no training document.
            decode_order: see the class.
            seed: see the class.

        Raises:
            LabelSpaceError: if there is no label at all, a name is empty, or a row has no list of names.
        """
        counter: Counter[str] = Counter()
        for row, labels in enumerate(label_lists, 1):
            if labels is None or isinstance(labels, str):
                raise LabelSpaceError(f"The labels of row {row} are {labels!r}; a list of names is needed.")
            counter.update(set(labels))
        if isinstance(vocabulary, str):
            raise LabelSpaceError(f"The vocabulary is {vocabulary!r}; a list of names is needed.")
        for name in vocabulary or ():
            counter.setdefault(name, 0)
        if not counter:
            raise LabelSpaceError("There is no label in the training data. Give rows with labels, or a vocabulary.")
        ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
        space = cls([name for name, _ in ranked], [count for _, count in ranked], decode_order, seed)
        space.report_ambiguous_names()
        return space

    def extended(self, names: Iterable[str]) -> LabelSpace:
        """A label space with further names, which no training document has, after the present ones."""
        added = [name for name in dict.fromkeys(names) if name not in self.index]
        counts = np.concatenate([self.counts, np.zeros(len(added), dtype=np.int64)])
        return LabelSpace([*self.names, *added], counts, self.decode_order, self.seed)

    def _validate(self) -> None:
        if self.decode_order not in get_args(DecodeOrder):
            raise LabelSpaceError(
                f"decode_order={self.decode_order!r} is unknown; choose one of {sorted(get_args(DecodeOrder))}."
            )
        if self.counts.shape != (len(self.names),):
            raise LabelSpaceError(f"{len(self.names)} names come with counts of shape {self.counts.shape}.")
        if not self.names:
            raise LabelSpaceError("A label space needs at least one label.")
        for position, name in enumerate(self.names):
            if not isinstance(name, str) or not name.strip():
                raise LabelSpaceError(f"Label {position} is {name!r}; a label name is a string with visible text.")
        _check_unicode(self.names)
        if len(self.index) != len(self.names):
            twice = [name for name, n in Counter(self.names).items() if n > 1][:_SHOWN]
            raise LabelSpaceError(f"Duplicate label names: {twice}.")
        if (self.counts < 0).any() or (np.diff(self.counts) > 0).any():
            raise LabelSpaceError("Label counts must not be negative and must not increase: ids are frequency ranks.")

    @cached_property
    def index(self) -> dict[str, int]:
        """Label name -> label id."""
        return {name: position for position, name in enumerate(self.names)}

    @cached_property
    def _alphabet_rank(self) -> np.ndarray:
        """Rank of each label id in the order of the names, shape `(L,)`."""
        rank = np.empty(len(self), dtype=np.int64)
        rank[sorted(range(len(self)), key=self.names.__getitem__)] = np.arange(len(self))
        return rank

    def __len__(self) -> int:
        """The number of labels `L`."""
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        """Whether `name` is a label, spelled exactly so."""
        return name in self.index

    def __repr__(self) -> str:
        """Size, share of unseen labels and decode order."""
        unseen = int((self.counts == 0).sum())
        return (
            f"LabelSpace({len(self)} labels, {unseen} of them unseen in training, decode_order={self.decode_order!r})"
        )

    def encode(self, labels: Iterable[str]) -> list[int]:
        """Label names -> label ids, in the given order, each once.

        Raises:
            LabelSpaceError: if a name is not in the label space; names close matches.
        """
        ids: dict[int, None] = {}
        for name in labels:
            position = self.index.get(name)
            if position is None:
                raise LabelSpaceError(self._unknown_message(name))
            ids[position] = None
        return list(ids)

    def encode_known(self, labels: Iterable[str]) -> tuple[list[int], list[str]]:
        """Label names -> (ids of the known ones, names of the unknown ones)."""
        known, unknown = [], []
        for name in dict.fromkeys(labels):
            position = self.index.get(name)
            if position is None:
                unknown.append(name)
            else:
                known.append(position)
        return known, unknown

    def _unknown_message(self, name: str) -> str:
        folded = normalize_name(name)
        same = next((known for known in self.names if normalize_name(known) == folded), None)
        near = get_close_matches(name, self.names, n=3, cutoff=0.8) if len(self) <= 50_000 and same is None else []
        hint = f" Close names: {near}." if near else ""
        if same is not None:  # as ASCII, since they may look the same
            hint = f" There is {same!a}, which differs from {name!a} in {name_difference(name, same)}."
        return f"{name!r} is none of the {len(self)} labels.{hint} Correct it, leave it out, or add it to the labels."

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Label ids -> label names."""
        return [self.names[i] for i in ids]

    def order(self, ids: Iterable[int], *, epoch: int = 0, row: int = 0) -> list[int]:
        """Sort one text's label ids into decode order.

        Args:
            ids: label ids of one text.
            epoch: training epoch; only `shuffle` uses it.
            row: number of the text in its data set; only `shuffle` uses it.
        """
        ranked = sorted(ids)
        if self.decode_order == "freq_backward":
            ranked.reverse()
        elif self.decode_order == "alphabet":
            ranked.sort(key=self._alphabet_rank.__getitem__)
        elif self.decode_order == "shuffle":
            np.random.default_rng([self.seed, epoch, row]).shuffle(ranked)
        return ranked

    def decode_ranks(self) -> np.ndarray:
        """Rank of each label id in the decode order, shape `(L,)`.

        Raises:
            LabelSpaceError: if the order is `shuffle`, which ranks no label.
        """
        if self.decode_order == "shuffle":
            raise LabelSpaceError("Labels were trained in the order 'shuffle': there is no order to keep to.")
        if self.decode_order == "alphabet":
            return self._alphabet_rank
        ranks = np.arange(len(self), dtype=np.int64)
        return ranks[::-1].copy() if self.decode_order == "freq_backward" else ranks

    def labels_before(self, label: int, ordered: Sequence[int]) -> int:
        """How many of `ordered`, label ids in decode order, come before `label`; all others under `shuffle`."""
        if label in ordered:
            return ordered.index(label)
        if self.decode_order == "shuffle":
            return len(ordered)
        return self.order([*ordered, label]).index(label)

    def train_label_counts(self) -> dict[str, int]:
        """Label name -> training documents, for labels that training saw."""
        return {name: int(count) for name, count in zip(self.names, self.counts, strict=True) if count}

    def ambiguous_names(self) -> list[tuple[str, ...]]:
        """Groups of names that are equal after `normalize_name`, each a label of its own all the same."""
        groups: dict[str, list[str]] = {}
        for name in self.names:
            groups.setdefault(normalize_name(name), []).append(name)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def report_ambiguous_names(self, new: Collection[str] | None = None) -> None:
        """Log names that only case, width or white space tells apart: most often one label spelled in two ways.

        Args:
            new: the names that are looked at, each with those like it; all if None.
        """
        groups = self.ambiguous_names() if new is None or len(new) else []
        if new is not None:
            groups = [group for group in groups if not set(new).isdisjoint(group)]
        if groups:
            logger.warning(
                "Label names that differ only in case, Unicode form, white space or invisible characters stay "
                "separate labels. Groups of them: %d, e.g. %s.",
                len(groups),
                ", ".join(ascii(group) for group in groups[:_SHOWN]),
            )

    def save(self, folder: str | Path) -> Path:
        """Write `label_space.json` into `folder` and return its path."""
        path = Path(folder) / LABEL_SPACE_FILE
        content: _SpaceContent = {
            "decode_order": self.decode_order,
            "seed": self.seed,
            "names": list(self.names),
            "counts": self.counts.tolist(),
        }
        _SPACE_FORM.write(path, content)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> LabelSpace:
        """Read `label_space.json` from `folder`.

        Raises:
            ModelFolderError: if the file is missing, or is not a consistent label space.
        """
        path = Path(folder) / LABEL_SPACE_FILE
        content = _SPACE_FORM.read(path)
        with named_after(path):
            return cls(content["names"], content["counts"], content["decode_order"], content["seed"])


def _check_unicode(names: tuple[str, ...]) -> None:
    """Refuse halves of characters, which JSON can hold and neither a tokenizer nor a UTF-8 file can."""
    try:
        "\n".join(names).encode("utf-8")
    except UnicodeEncodeError as err:
        raise LabelSpaceError(
            f"A label name holds {err.object[err.start]!r}, half a character. Read the data as UTF-8."
        ) from err
