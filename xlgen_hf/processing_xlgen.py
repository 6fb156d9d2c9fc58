"""The processor: texts to input ids, label sets to target ids and back, and a count of what truncation loses."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase
from transformers.utils import PushToHubMixin

from .configuration_xlgen import NUM_LEVELS
from .encoders.embedding import Encoder
from .errors import ConfigurationError, LabelSpaceError, ModelFolderError
from .files.model_checks import PROCESSOR_FORM, load_tokenizer, local_model, read_processor_settings
from .files.model_folder import HYBRID_FILE, PROCESSOR_FILE, RETRIEVER_FOLDER
from .files.saving import plain_folder, read_folder, replace_files
from .labels.clusters import LabelClusters
from .labels.space import LabelSpace
from .labels.tokens import TruncationReport
from .labels.trie import LABEL_TRIE_FILE, LabelTrie
from .ranking.calibration import CALIBRATION_FILE, ScoreCalibrator
from .ranking.fusion import Hybrid
from .retrieval.candidate_inputs import CandidateInputs
from .retrieval.retriever import DenseRetriever

__all__ = ["XLGenProcessor"]

logger = logging.getLogger(__name__)

_SEPARATOR = "<xlgen:sep>"
_TASKS = {"clusters": "<xlgen:clusters>", "labels": "<xlgen:labels>"}
_LEVEL = "<xlgen:r{}>"
_SHOWN = 5  # names that a report spells out


def _cluster_token(cluster: int) -> str:
    return f"<xlgen:c{cluster}>"


class XLGenProcessor(PushToHubMixin):
    """Tokenizer, label space and clusters of one model, and the way between texts, label sets and token ids.

    Texts and label names are always read as plain text: a name that looks like a special token, or like the separator,
    is spelled out in ordinary pieces. A label's sequence is its pieces and the separator. Where a tokenizer cannot
    tell two names apart (an uncased one "Turkey" and "turkey"), or spells a name with nothing, the rarer name gets a
    number at its end, so that every label can be predicted; such names are counted and reported.

    Args:
        tokenizer: the backbone's tokenizer; the processor adds its separator and, with clusters, the task and cluster
            tokens to it.
        label_space: the labels.
        clusters: their clusters; None for `base` and `rcl`.
        max_source_length: most tokens of an input, special and cluster tokens included.
        max_target_length: most tokens of a target, the end token included.
        candidates: for `rcl`, finds the candidate labels that are put behind each text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        label_space: LabelSpace,
        clusters: LabelClusters | None = None,
        max_source_length: int = 256,
        max_target_length: int = 256,
        candidates: CandidateInputs | None = None,
    ) -> None:
        if clusters is not None and len(clusters.assignment) != len(label_space):
            raise ConfigurationError(
                f"The clusters are for {len(clusters.assignment)} labels, the label space has {len(label_space)}. "
                "Make both from the same data."
            )
        if candidates is not None and len(candidates.retriever) != len(label_space):
            raise ConfigurationError(
                f"The retriever knows {len(candidates.retriever)} labels, the label space has {len(label_space)}. "
                "Make both from the same data."
            )
        self.tokenizer = tokenizer
        self.label_space = label_space
        self.clusters = clusters
        self.candidates = candidates
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self.calibrator: ScoreCalibrator | None = None  # fitted on validation rows after training
        self.hybrid: Hybrid | None = None  # fuses the model's scores with those of retrieval
        self._add_tokens()

    def _add_tokens(self) -> None:
        """Give the separator, the task prefixes, the clusters and the levels of candidates a token each."""
        new = [_SEPARATOR]
        if self.clusters is not None:
            new += [*_TASKS.values(), *map(_cluster_token, range(self.clusters.num_clusters))]
        if self.candidates is not None:
            new += [_LEVEL.format(level) for level in range(NUM_LEVELS)]
        self.tokenizer.add_tokens(new, special_tokens=True)
        self.added_token_ids = self.tokenizer.convert_tokens_to_ids(new)
        first = self.added_token_ids[0]
        if self.added_token_ids != list(range(first, first + len(new))):
            raise ConfigurationError(
                f"The tokenizer already holds some of the tokens {new[:4]} ...; give a fresh one."
            )
        self.separator_token_id = first

    @property
    def retriever(self) -> DenseRetriever | None:
        """What finds candidate labels, for the model's input or for the hybrid; both share one."""
        users = (user for user in (self.candidates, self.hybrid) if user is not None)
        return next((user.retriever for user in users), None)

    @property
    def thresholds(self) -> dict[str, float]:
        """Measure of quality -> score from which on a label is predicted for its sake; as validation rows chose."""
        if self.hybrid is not None:
            return self.hybrid.thresholds
        return {} if self.calibrator is None else self.calibrator.thresholds

    @property
    def pad_token_id(self) -> int:
        """Token that fills batches up."""
        return self.tokenizer.pad_token_id

    @property
    def eos_token_id(self) -> int:
        """Token that ends a target: the end token, or the separator of BERT-like tokenizers."""
        return self.tokenizer.sep_token_id if self.tokenizer.eos_token_id is None else self.tokenizer.eos_token_id

    @property
    def first_cluster_token_id(self) -> int | None:
        """Token of cluster 0; cluster c has the c-th id after it. None without clusters."""
        return None if self.clusters is None else self.separator_token_id + 1 + len(_TASKS)

    @property
    def first_level_token_id(self) -> int | None:
        """Token of the lowest level of candidates; the higher ones follow it. None without candidates."""
        return None if self.candidates is None else self.added_token_ids[-NUM_LEVELS]

    def task_token_id(self, task: str) -> int:
        """Token that opens an input of the task `clusters` or `labels`."""
        return self.separator_token_id + 1 + list(_TASKS).index(task)

    # ------------------------------------------------------------------------------------------------ labels

    @cached_property
    def label_token_ids(self) -> list[list[int]]:
        """Token ids of each label, separator included, in the order of the label ids."""
        if "trie" in self.__dict__:  # it came with the model folder, and spells the labels
            tokens, lengths = self.trie.sequences()
            return [part.tolist() for part in np.split(tokens, np.cumsum(lengths)[:-1])]
        pieces = self._plain_ids(self.label_space.names)
        seen: set[tuple[int, ...]] = set()
        numbered = []
        for label, ids in enumerate(pieces):
            number = 1
            sequence = tuple(ids)
            while not sequence or sequence in seen:
                number += 1
                sequence = (*ids, *self._number_ids(number))
            seen.add(sequence)
            pieces[label] = [*sequence, self.separator_token_id]
            if number > 1:
                numbered.append(self.label_space.names[label])
        if numbered:
            logger.warning(
                "The tokenizer does not tell %d of %d label names from others (or spells them with nothing), e.g. %s; "
                "they get a number at their end. A cased or multilingual checkpoint may know them.",
                len(numbered),
                len(pieces),
                numbered[:_SHOWN],
            )
        return pieces

    def _number_ids(self, number: int) -> list[int]:
        digits = self._digit_ids
        return [digits[int(d)] for d in str(number)] if len(digits) == 10 else digits * number

    @cached_property
    def _digit_ids(self) -> list[int]:
        """Ten different tokens for the digits; a single token where the tokenizer has no ten of them."""
        last = [ids[-1] for ids in self._plain_ids([str(d) for d in range(10)]) if ids]
        if len(set(last)) == 10:
            return last
        if self.tokenizer.unk_token_id is None and not last:
            raise LabelSpaceError(
                "The tokenizer can spell neither digits nor unknown words; choose another checkpoint."
            )
        return [last[0] if last else self.tokenizer.unk_token_id]

    @cached_property
    def trie(self) -> LabelTrie:
        """The trie of `label_token_ids`."""
        return LabelTrie(self.label_token_ids)

    @property
    def _trie_digest(self) -> str:
        """Tells apart what a trie can be built from: the names, and the token that ends them."""
        content = "\0".join([str(self.separator_token_id), *self.label_space.names])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def add_labels(self, names: Iterable[str], encoder: Encoder | None = None) -> list[str]:
        """Let names join the label space, the trie and, placed by their names, the clusters; no training is needed.

        Call `model.widen_output(processor)` afterwards, so that the model can spell them.

        Args:
            names: label names; those that are labels already are left out.
            encoder: what embedded the labels for the clusters; the name that the clusters remember if None.

        Returns:
            The names that were new.

        Raises:
            LabelSpaceError: if a name is empty.
            CheckpointError: if there are clusters, and their encoder cannot be loaded.
        """
        extended = self.label_space.extended(names)
        new = list(extended.names[len(self.label_space) :])
        if not new:
            return []
        if self.clusters is not None:
            self.clusters = self.clusters.extended(new, encoder)
        retriever = None if self.retriever is None else self.retriever.extended(new)
        if self.candidates is not None and retriever is not None:
            self.candidates = replace(self.candidates, retriever=retriever)
        if self.hybrid is not None and retriever is not None:
            self.hybrid = replace(self.hybrid, retriever=retriever)
        self.label_space = extended
        for cached in ("trie", "label_token_ids", "_sub_trie"):
            self.__dict__.pop(cached, None)
        return new

    def sub_trie(self, labels: np.ndarray) -> LabelTrie:
        """The trie of some label ids; the last one is kept."""
        key = np.unique(labels)
        known = self.__dict__.get("_sub_trie")
        if known is None or known[0] is not self.trie or not np.array_equal(known[1], key):
            known = self._sub_trie = (self.trie, key, self.trie.subset(key))
        return known[2]

    @cached_property
    def cluster_trie(self) -> LabelTrie:
        """The trie of the cluster tokens, a token a cluster."""
        count = 0 if self.clusters is None else self.clusters.num_clusters
        return LabelTrie([[token] for token in self.cluster_token_ids(range(count))])

    def output_token_ids(self) -> list[int]:
        """All tokens that a target can hold, sorted: the pieces of labels, separator, end, and the cluster tokens."""
        tokens = {*self.trie.tokens().tolist(), self.eos_token_id}
        if self.clusters is not None:
            tokens.update(self.cluster_token_ids(range(self.clusters.num_clusters)))
        return sorted(tokens)

    def cluster_token_ids(self, clusters: Iterable[int]) -> list[int]:
        """Cluster ids -> token ids."""
        first = self.first_cluster_token_id
        if first is None:
            raise ConfigurationError("This processor has no clusters.")
        return [first + cluster for cluster in clusters]

    # ------------------------------------------------------------------------------------------------ encoding

    def _plain_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize without special tokens; text that looks like one stays text."""
        if not texts:
            return []
        return self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and behind a text."""
        ids = self.tokenizer("", add_special_tokens=True)["input_ids"]
        ends = {self.tokenizer.eos_token_id, self.tokenizer.sep_token_id}
        behind = [ids[-1]] if ids and ids[-1] in ends else []
        return ids[: len(ids) - len(behind)], behind

    def encode_texts(
        self, texts: Sequence[str], report: TruncationReport | None = None, *, training: bool = False
    ) -> list[list[int]]:
        """Texts -> token ids without special tokens, cut so that special, task and cluster tokens still fit.

        With `candidates`, each text's are put behind it, in at most half of the room; in `training` a text does not
        retrieve itself.
        """
        reserve = sum(map(len, self._frame))
        if self.clusters is not None:
            reserve += 1 + min(self.clusters.num_clusters, self.max_source_length // 4)
        room = max(1, self.max_source_length - reserve)
        encoded = self._plain_ids(texts)
        behind = self._candidate_ids(texts, room // 2, report, training=training)
        if report is not None:
            report.texts += len(encoded)
            report.texts_cut += sum(len(ids) > room - len(more) for ids, more in zip(encoded, behind, strict=True))
        return [[*ids[: room - len(more)], *more] for ids, more in zip(encoded, behind, strict=True)]

    def _candidate_ids(
        self, texts: Sequence[str], room: int, report: TruncationReport | None, *, training: bool
    ) -> list[list[int]]:
        if self.candidates is None:
            return [[] for _ in texts]
        first_level = self.added_token_ids[-NUM_LEVELS]
        return self.candidates.ids(texts, self.label_token_ids, first_level, room, report, training=training)

    def input_candidates(self, text_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """Label ids of the candidates that [`encode_texts`] put behind each text, best first; none without them."""
        if self.candidates is None or self.first_level_token_id is None:
            return [[] for _ in text_ids]
        return self.candidates.read(text_ids, self.trie, self.separator_token_id, self.first_level_token_id)

    def build_input(self, text_ids: Sequence[int], clusters: Iterable[int] = (), task: str | None = None) -> list[int]:
        """Token ids of a text -> input ids: special tokens around, task prefix before, clusters behind the text."""
        before, behind = self._frame
        prefix = [] if task is None else [self.task_token_id(task)]
        appended = self.cluster_token_ids(clusters) if clusters else []
        room = self.max_source_length - len(before) - len(behind) - len(prefix) - len(text_ids)
        return [*before, *prefix, *text_ids, *appended[: max(room, 0)], *behind]

    def build_target(self, label_ids: Sequence[int], report: TruncationReport | None = None) -> list[int]:
        """Label ids in decode order -> target ids; labels that do not fit whole are left out and counted."""
        target: list[int] = []
        kept = 0
        for label in label_ids:
            ids = self.label_token_ids[label]
            if len(target) + len(ids) >= self.max_target_length:
                break
            target += ids
            kept += 1
        if report is not None:
            report.labels += len(label_ids)
            report.labels_lost += len(label_ids) - kept
        return [*target, self.eos_token_id]

    def build_cluster_target(self, clusters: Sequence[int]) -> list[int]:
        """Cluster ids -> target ids of the task `clusters`."""
        return [*self.cluster_token_ids(clusters)[: self.max_target_length - 1], self.eos_token_id]

    def __call__(
        self, texts: str | Sequence[str], return_tensors: str | None = None, task: str | None = None
    ) -> BatchEncoding:
        """Texts -> `input_ids` and `attention_mask`, padded.

        Args:
            texts: one text or several.
            return_tensors: `pt` for tensors, None for lists.
            task: `clusters` or `labels` for the task prefix of `mcg`; other variants have none.
        """
        batch = [texts] if isinstance(texts, str) else list(texts)
        return self.pad([self.build_input(ids, task=task) for ids in self.encode_texts(batch)], return_tensors)

    def pad(self, input_ids: Sequence[Sequence[int]], return_tensors: str | None = "pt") -> BatchEncoding:
        """Ragged input ids -> `input_ids` and `attention_mask`, both `(B, S)`, filled up to the longest."""
        longest = max(map(len, input_ids))
        padded = [[*ids, *[self.pad_token_id] * (longest - len(ids))] for ids in input_ids]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in input_ids]
        return BatchEncoding({"input_ids": padded, "attention_mask": mask}, tensor_type=return_tensors)

    # ------------------------------------------------------------------------------------------------ saving

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write tokenizer, label space, clusters and settings into one folder, all of them or nothing.

        Raises:
            SaveError: if the disk is full, or the folder cannot be written.
        """
        if push_to_hub:
            raise ConfigurationError("Push model and processor together; a processor alone is of no use on the Hub.")
        settings = {
            "processor_class": type(self).__name__,
            "max_source_length": self.max_source_length,
            "max_target_length": self.max_target_length,
            "clusters": self.clusters is not None,
            "candidates": None if self.candidates is None else self.candidates.settings(),
        }
        with replace_files(save_directory) as folder:
            self.tokenizer.save_pretrained(folder)
            self.label_space.save(folder)
            if self.clusters is not None:
                self.clusters.save(folder)
            if self.retriever is not None:
                self.retriever.save(folder / RETRIEVER_FOLDER)
            if self.hybrid is not None:
                self.hybrid.save(folder)
            self.trie.save(folder, self._trie_digest)
            if self.calibrator is not None:
                self.calibrator.save(folder)
            PROCESSOR_FORM.write(folder / PROCESSOR_FILE, settings)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **hub_options: Any) -> XLGenProcessor:
        """Load from a folder or, with the options of `huggingface_hub.snapshot_download`, from the Hub.

        Raises:
            ModelFolderError: if the folder is no XLGen model, or its files do not fit each other.
        """
        place = local_model(name_or_path, dict(hub_options), "config", "tokenizer", "processor")
        return read_folder(plain_folder(place), cls._load)

    @classmethod
    def _load(cls, folder: Path) -> XLGenProcessor:
        settings = read_processor_settings(folder, cls.__name__)
        label_space = LabelSpace.load(folder)
        clusters = LabelClusters.load(folder, num_labels=len(label_space)) if settings["clusters"] else None
        candidates, hybrid = _load_retrieval(folder, settings["candidates"], len(label_space))
        tokenizer = load_tokenizer(folder)
        lengths = (settings["max_source_length"], settings["max_target_length"])
        try:
            processor = cls(tokenizer, label_space, clusters, *lengths, candidates)
        except ConfigurationError as err:
            raise ModelFolderError(f"{folder}: {err}") from err
        if (folder / LABEL_TRIE_FILE).exists():
            trie = LabelTrie.load(folder, processor._trie_digest, num_tokens=len(tokenizer))
            if trie is None or len(trie) != len(label_space):
                logger.warning("%s was made for other label names; it is made anew.", folder / LABEL_TRIE_FILE)
            else:
                processor.trie = trie
        if (folder / CALIBRATION_FILE).exists():
            processor.calibrator = ScoreCalibrator.load(folder)
        processor.hybrid = hybrid
        return processor


def _load_retrieval(folder: Path, settings: Any, num_labels: int) -> tuple[CandidateInputs | None, Hybrid | None]:
    """What of a model folder works with a retriever, if anything."""
    has_hybrid = (folder / HYBRID_FILE).exists()
    if settings is None and not has_hybrid:
        return None, None
    retriever = DenseRetriever.load(folder / RETRIEVER_FOLDER, num_labels=num_labels)
    source = str(folder / PROCESSOR_FILE)
    candidates = None if settings is None else CandidateInputs.from_settings(settings, retriever, source)
    return candidates, Hybrid.load(folder, retriever) if has_hybrid else None
