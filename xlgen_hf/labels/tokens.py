"""The way between labels and token ids, and a count of what truncation loses."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import ConfigurationError
from .changes import LabelChange
from .space import LabelSpace
from .spelling import plain_token_ids, spell_labels
from .trie import LabelTrie

__all__ = ["MAX_ALIASES", "LabelTokenizer", "TruncationReport", "frame_of", "language_token_id"]

logger = logging.getLogger(__name__)

_SEPARATOR = "<xlgen:sep>"
_TASKS = {"clusters": "<xlgen:clusters>", "labels": "<xlgen:labels>"}
_LEVEL = "<xlgen:r{}>"
_CLUSTER = "<xlgen:c{}>"
_SHOWN = 5  # names that a report spells out
_SEVERAL = -1  # in place of a label
MAX_ALIASES = 7
"""Aliases of a label that the decoder can spell, the first ones: each step of a search closes the spellings of what a
set holds already."""
_PROBES = ("a", "1", ".", "\u4e00", "\u0430")  # of these, every tokenizer can spell some


def frame_of(tokenizer: PreTrainedTokenizerBase, *, target: bool = False) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text, e.g. `[], [</s>, en_XX]` for mBART.

    Args:
        tokenizer: the tokenizer.
        target: ask for a target, which some frame with another language.

    Raises:
        ConfigurationError: if it does not put them around the text.
    """
    plain: list[int] = []
    for probe in _PROBES:
        (plain,) = plain_token_ids(tokenizer, [probe])
        given = {"text_target": probe} if target else {"text": probe}
        ids: list[int] = tokenizer(**given)["input_ids"]
        for start in range(len(ids) - len(plain) + 1 if plain else 0):
            if ids[start : start + len(plain)] == plain:
                return ids[:start], ids[start + len(plain) :]
    raise ConfigurationError(
        f"The {type(tokenizer).__name__} does not put its special tokens around a text: {_PROBES[-1]!r} is {plain} "
        "without them, and with them no text that was tried holds its own tokens. Choose another checkpoint."
    )


def language_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token of the language that targets are in, for tokenizers that mark languages (mBART, NLLB); else None.

    It is the tokenizer's `tgt_lang` or, where that is not set, its `src_lang`.

    Args:
        tokenizer: the tokenizer.
    """
    if not hasattr(tokenizer, "src_lang"):
        return None
    before, after = frame_of(tokenizer, target=getattr(tokenizer, "tgt_lang", None) is not None)
    common = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id,
              tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id}  # fmt: skip
    return next((token for token in (*before, *after) if token not in common), None)


class LabelTokenizer:
    """Spells labels, clusters and the levels of candidates in tokens, and knows the trie of all labels.

    A label's sequence is its subword tokens and the separator. Where a tokenizer cannot tell two names apart (an
    uncased one "Turkey" and "turkey"), or spells a name with nothing, the rarer name gets a number at its end, so that
    every label can be predicted; such names are counted and reported.

    Args:
        tokenizer: the backbone's tokenizer; the separator and, where there are some, tokens of tasks, clusters and
            levels are added to it.
        label_space: the labels.
        num_clusters: clusters that get a token each; with any, the two tasks of `mcg` get one as well.
        num_levels: levels of candidates that get a token each.
        max_length: maximum number of tokens of a target, the end token included.
        trie: how the labels are spelled, where that is known; from the names if None.

    Raises:
        ConfigurationError: if the tokenizer holds some of the tokens already.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        label_space: LabelSpace,
        *,
        num_clusters: int = 0,
        num_levels: int = 0,
        max_length: int = 256,
        trie: LabelTrie | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.label_space = label_space
        self.num_clusters = num_clusters
        self.num_levels = num_levels
        self.max_length = max_length
        self._given_trie = trie
        self._latest_sub_trie: tuple[np.ndarray, LabelTrie] | None = None
        self.added_token_ids = self._add_tokens()

    def _add_tokens(self) -> list[int]:
        tokens = [_SEPARATOR]
        if self.num_clusters:
            tokens += [*_TASKS.values(), *map(_CLUSTER.format, range(self.num_clusters))]
        tokens += [_LEVEL.format(level) for level in range(self.num_levels)]
        if self.tokenizer.pad_token_id is None:  # of many language models; nothing reads what is padding
            self.tokenizer.pad_token_id = self.eos_token_id
        self.tokenizer.add_tokens(tokens, special_tokens=True)
        ids: list[int] = self.tokenizer.convert_tokens_to_ids(tokens)
        if ids != list(range(ids[0], ids[0] + len(ids))):  # those of an earlier call are taken again
            raise ConfigurationError(
                f"The tokenizer already holds some of the tokens {tokens[:4]} ...; load it again from its checkpoint."
            )
        return ids

    def for_labels(self, label_space: LabelSpace, trie: LabelTrie | None = None) -> LabelTokenizer:
        """The same for another label space, or with a trie that spells the labels."""
        return self._changed(label_space, trie, self.max_length)

    def with_max_length(self, max_length: int) -> LabelTokenizer:
        """The same with another maximum number of tokens per target."""
        return self._changed(self.label_space, self.trie, max_length)

    def with_aliases(self, names: Iterable[tuple[int, str]]) -> LabelTokenizer:
        """The same with further spellings of labels, which decode to these.

        Args:
            names: label ids and further names of theirs; see [`MAX_ALIASES`].
        """
        labels, texts = zip(*names, strict=True) if (names := list(names)) else ((), ())
        spelled = [[*ids, self.separator_token_id] for ids in plain_token_ids(self.tokenizer, texts)]
        return self._with_spellings(list(zip(labels, spelled, strict=True)))

    def relabelled(self, change: LabelChange) -> LabelTokenizer:
        """The same for a changed label space; labels keep their aliases, and those that keep their name its spelling.

        Which of two names that are spelled alike has the number depends on the order of the labels, which changes.
        """
        known = [] if self._given_trie is None else self._given_trie.aliases()
        moved = [(int(change.target[label]), tokens) for label, tokens in known]
        before = enumerate(change.named_before.tolist())
        kept = {label: self.label_token_ids[former][:-1] for label, former in before if former >= 0}
        trie = LabelTrie(self.for_labels(change.after)._spelled(kept))
        return self.for_labels(change.after, trie)._with_spellings([pair for pair in moved if pair[0] >= 0])

    def _with_spellings(self, aliases: Sequence[tuple[int, list[int]]]) -> LabelTokenizer:
        """With those of some spellings that mean one label, and fit into a target; the others are counted."""
        own = set(map(tuple, self.label_token_ids))
        owners: dict[tuple[int, ...], int] = {}
        for label, tokens in aliases:
            key = tuple(tokens)
            if 1 < len(key) < self.max_length and key not in own:
                owners[key] = label if owners.get(key, label) == label else _SEVERAL
        count: Counter[int] = Counter({_SEVERAL: MAX_ALIASES})
        kept: dict[tuple[int, ...], int] = {}
        for key, label in owners.items():
            if count[label] < MAX_ALIASES:
                count[label] += 1
                kept[key] = label
        if aliases:
            logger.info(
                "Aliases that the decoder can spell: %d of %d. The others mean several labels, are spelled like a "
                "label, are longer than a target, or are more than %d of a label.",
                len(kept), len(aliases), MAX_ALIASES,
            )  # fmt: skip
        if not kept:
            return self
        trie = LabelTrie([*self.label_token_ids, *map(list, kept)], list(kept.values()))
        return self._changed(self.label_space, trie, self.max_length)

    def _changed(self, label_space: LabelSpace, trie: LabelTrie | None, max_length: int) -> LabelTokenizer:
        return LabelTokenizer(
            self.tokenizer,
            label_space,
            num_clusters=self.num_clusters,
            num_levels=self.num_levels,
            max_length=max_length,
            trie=trie,
        )

    # ------------------------------------------------------------------------------------------------ tokens

    @property
    def separator_token_id(self) -> int:
        """Token that ends each label."""
        return self.added_token_ids[0]

    @property
    def eos_token_id(self) -> int:
        """Token that ends a target: the end token, or the separator of BERT-like tokenizers."""
        ids: tuple[int, int] = (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id)
        return ids[1] if ids[0] is None else ids[0]

    @property
    def first_cluster_token_id(self) -> int | None:
        """Token of cluster 0; cluster c has the c-th id after it. None without clusters."""
        return self.separator_token_id + 1 + len(_TASKS) if self.num_clusters else None

    @property
    def first_level_token_id(self) -> int | None:
        """Token of the lowest level of candidates; the higher ones follow it. None without candidates."""
        return self.added_token_ids[-self.num_levels] if self.num_levels else None

    def task_token_id(self, task: str) -> int:
        """Token that opens an input of the task `clusters` or `labels`."""
        return self.separator_token_id + 1 + list(_TASKS).index(task)

    def cluster_token_ids(self, clusters: Iterable[int]) -> list[int]:
        """Cluster ids -> token ids.

        Raises:
            ConfigurationError: if there are no clusters.
        """
        first = self.first_cluster_token_id
        if first is None:
            raise ConfigurationError("This processor has no clusters.")
        return [first + cluster for cluster in clusters]

    # ------------------------------------------------------------------------------------------------ labels

    @cached_property
    def label_token_ids(self) -> list[list[int]]:
        """Token ids of each label, separator included, in the order of the label ids."""
        if self._given_trie is None:
            return self._spelled()
        tokens, lengths = self._given_trie.sequences()
        return [part.tolist() for part in np.split(tokens, np.cumsum(lengths)[:-1])]

    def _spelled(self, known: Mapping[int, Sequence[int]] | None = None) -> list[list[int]]:
        spelled, numbered = spell_labels(self.tokenizer, self.label_space.names, known)
        if numbered:
            logger.warning(
                "The tokenizer does not tell %d of %d label names from others (or spells them with nothing), e.g. %s; "
                "they get a number at their end. A cased or multilingual checkpoint may tell them apart.",
                len(numbered), len(spelled), numbered[:_SHOWN],
            )  # fmt: skip
        return [[*ids, self.separator_token_id] for ids in spelled]

    @cached_property
    def name_lengths(self) -> list[int]:
        """Tokens of each label's name, without the separator."""
        return [len(ids) - 1 for ids in self.label_token_ids]

    @cached_property
    def trie(self) -> LabelTrie:
        """The trie of `label_token_ids`."""
        return LabelTrie(self.label_token_ids) if self._given_trie is None else self._given_trie

    @cached_property
    def oversized_labels(self) -> np.ndarray:
        """Ids of the labels that no target can hold, sorted: they and the end token exceed `max_length`."""
        _, lengths = self.trie.sequences()
        return np.flatnonzero(np.asarray(lengths) >= self.max_length)

    def open_labels(self, labels: np.ndarray | None = None) -> np.ndarray:
        """Ids of the labels that can be generated, sorted, out of the given ones; out of all if None."""
        wanted = np.arange(len(self.label_space)) if labels is None else np.unique(labels)
        return np.setdiff1d(wanted, self.oversized_labels, assume_unique=True)

    def open_trie(self, labels: np.ndarray | None = None) -> LabelTrie:
        """The trie of the labels that can be generated.

        Args:
            labels: ids of the labels to choose from; all if None. The trie of the last choice is kept.

        Raises:
            ConfigurationError: if none of them can be generated.
        """
        if labels is None and not self.oversized_labels.size:
            return self.trie
        key = self.open_labels(labels)
        if not key.size:
            wanted = np.arange(len(self.label_space)) if labels is None else labels
            raise ConfigurationError(
                f"None of the {len(wanted)} labels to choose from fits into a target of max_target_length="
                f"{self.max_length} tokens, e.g. {self.label_space.names[int(wanted[0])]!r}."
            )
        latest = self._latest_sub_trie
        if latest is None or not np.array_equal(latest[0], key):
            latest = (key, self.trie.subset(key))
            self._latest_sub_trie = latest
        return latest[1]

    @property
    def trie_digest(self) -> str:
        """Tells apart what a trie can be built from: the names, and the token that ends them."""
        content = "\0".join([str(self.separator_token_id), *self.label_space.names])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    @cached_property
    def cluster_trie(self) -> LabelTrie:
        """The trie of the cluster tokens, one token per cluster."""
        return LabelTrie([[token] for token in self.cluster_token_ids(range(self.num_clusters))])

    def output_token_ids(self) -> list[int]:
        """All tokens that a target can hold, sorted: those of labels, separator, end, and the cluster tokens."""
        tokens = {*self.trie.tokens().tolist(), self.eos_token_id}
        if self.num_clusters:
            tokens.update(self.cluster_token_ids(range(self.num_clusters)))
        return sorted(tokens)

    # ------------------------------------------------------------------------------------------------ targets

    def build_target(self, label_ids: Sequence[int], report: TruncationReport | None = None) -> list[int]:
        """Label ids in decode order -> target ids; labels that do not fit are left out one by one and counted."""
        target: list[int] = []
        kept = 0
        for label in label_ids:
            ids = self.label_token_ids[label]
            if len(target) + len(ids) >= self.max_length:
                if report is not None and len(ids) >= self.max_length:
                    report.never_fit.setdefault(self.label_space.names[label], len(ids))
                continue
            target += ids
            kept += 1
        if report is not None:
            report.labels += len(label_ids)
            report.labels_lost += len(label_ids) - kept
        return [*target, self.eos_token_id]

    def report_oversized(self, report: TruncationReport) -> None:
        """Name the labels that no target can hold, whether rows have them or not."""
        for label in self.oversized_labels.tolist():
            report.never_fit.setdefault(self.label_space.names[label], len(self.label_token_ids[label]))

    def build_cluster_target(self, clusters: Sequence[int]) -> list[int]:
        """Cluster ids -> target ids of the task `clusters`."""
        return [*self.cluster_token_ids(clusters)[: self.max_length - 1], self.eos_token_id]


@dataclass
class TruncationReport:
    """What cutting inputs and targets to their longest length has lost so far."""

    texts: int = 0
    texts_cut: int = 0
    labels: int = 0
    labels_lost: int = 0
    candidates: int = 0
    candidates_lost: int = 0
    rows_lost: int = 0  # training rows whose labels were all lost
    never_fit: dict[str, int] = field(default_factory=dict)  # name of a label that no target can hold -> its tokens

    def log(self, what: str) -> None:
        """Warn about losses in `what`; says nothing where nothing was lost."""
        if self.texts_cut:
            fraction = self.texts_cut / max(self.texts, 1)
            logger.warning(
                "%s: %d of %d texts (%.2f %%) were truncated.", what, self.texts_cut, self.texts, 100 * fraction
            )
        if self.labels_lost:
            fraction = self.labels_lost / max(self.labels, 1)
            logger.warning(
                "%s: %d of %d labels (%.2f %%) did not fit into the target; raise max_target_length to keep them.",
                what,
                self.labels_lost,
                self.labels,
                100 * fraction,
            )
        if self.never_fit:
            examples = [f"{name[:60]!r} ({size} tokens)" for name, size in list(self.never_fit.items())[:_SHOWN]]
            logger.warning(
                "%s: %d labels are longer than any target and cannot be predicted: %s.",
                what,
                len(self.never_fit),
                ", ".join(examples),
            )
        if self.rows_lost:
            logger.warning("%s: %d rows have no label that fits and are left out.", what, self.rows_lost)
        if self.candidates_lost:
            fraction = self.candidates_lost / max(self.candidates, 1)
            logger.warning(
                "%s: %d of %d retrieved candidates (%.2f %%) did not fit after their texts; raise max_source_length "
                "or lower num_input_candidates.",
                what,
                self.candidates_lost,
                self.candidates,
                100 * fraction,
            )
