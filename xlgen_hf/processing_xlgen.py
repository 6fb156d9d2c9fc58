"""The processor: texts to input ids, label sets to target ids, and what a model's labels and scores are made of."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from transformers import BatchEncoding, PreTrainedTokenizerBase

from .configuration_xlgen import NUM_LEVELS
from .encoders.embedding import Encoder
from .errors import ConfigurationError, ModelFolderError
from .files.model_checks import PROCESSOR_FORM, ProcessorSettings, load_tokenizer, read_processor_settings
from .files.model_folder import PROCESSOR_FILE, SCORE_MODEL_FILE
from .files.saving import local_model, read_folder, replace_files
from .hub.push_mixin import PushProcessorMixin
from .labels.changes import LabelChange
from .labels.clusters import LabelClusters
from .labels.space import LabelSpace
from .labels.spelling import plain_token_ids
from .labels.tokens import LabelTokenizer, TruncationReport, frame_of
from .labels.trie import LABEL_TRIE_FILE, LabelTrie
from .labels.vocabulary import VOCABULARY_FILE, VOCABULARY_SETTINGS_FILE, Vocabulary
from .ranking.score_model import ScoreModel
from .ranking.sources import SavedSource
from .retrieval.candidate_inputs import CandidateInputs, InputCandidates
from .retrieval.model_sources import SOURCE_FOLDERS, load_sources, save_sources
from .retrieval.retriever import LabelRetriever

__all__ = ["EncodedText", "XLGenProcessor"]

logger = logging.getLogger(__name__)

_PADDED_CANDIDATE = -1


@dataclass(frozen=True)
class EncodedText:
    """One text as its model reads it, before special tokens.

    Attributes:
        token_ids: tokens of the text, truncated to what there is room for.
        candidates: retrieved candidates that are read with it (`rcl`).
        is_cut: whether there was no room for some of its tokens.
    """

    token_ids: list[int]
    candidates: InputCandidates = field(default_factory=InputCandidates)
    is_cut: bool = False


class XLGenProcessor(PushProcessorMixin):
    """Tokenizer, label space and clusters of one model, and the way between texts, label sets and token ids.

    Texts and label names are always read as plain text: a name that looks like a special token, or like the separator,
    is spelled out in ordinary subword tokens. How labels are spelled is the matter of its [`LabelTokenizer`].

    Args:
        tokenizer: the backbone's tokenizer; the separator and, with clusters, the task and cluster tokens are added.
        label_space: the labels.
        clusters: their clusters; None for `base` and `rcl`.
        max_source_length: maximum number of tokens of an input, special and cluster tokens included.
        max_target_length: maximum number of tokens of a target, the end token included.
        candidates: for `rcl`, finds the candidate labels that are read with each text.
        score_model: how candidates are scored and decided on; scores as the model gives them if None.
        vocabulary: the concepts that labels stand for, if any.

    Attributes:
        label_tokenizer: spells labels, clusters and levels in tokens.
        cluster_tokens: whether inputs leave room for the tokens of clusters; the model that is made says so.
        reported_cuts: whether a report of a training has counted texts that were cut.

    Raises:
        ConfigurationError: if clusters or candidates are for another number of labels.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        label_space: LabelSpace,
        clusters: LabelClusters | None = None,
        max_source_length: int = 256,
        max_target_length: int = 256,
        candidates: CandidateInputs | None = None,
        score_model: ScoreModel | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        sizes = {
            "clusters are": None if clusters is None else len(clusters.assignment),
            "retriever is": None if candidates is None else len(candidates.retriever),
        }
        for what, size in sizes.items():
            if size is not None and size != len(label_space):
                raise ConfigurationError(
                    f"The {what} for {size} labels, the label space has {len(label_space)}. Make both from the same "
                    "data."
                )
        self.tokenizer = tokenizer
        self.label_space = label_space
        self.clusters = clusters
        self.candidates = candidates
        self.vocabulary = vocabulary
        self.max_source_length = max_source_length
        self.cluster_tokens = clusters is not None
        self.reported_cuts = False
        self._score_model = score_model or ScoreModel()
        self.label_tokenizer = LabelTokenizer(
            tokenizer,
            label_space,
            num_clusters=0 if clusters is None else clusters.num_clusters,
            num_levels=0 if candidates is None else NUM_LEVELS,
            max_length=max_target_length,
        )

    @property
    def max_target_length(self) -> int:
        """Maximum number of tokens of a target, the end token included."""
        return self.label_tokenizer.max_length

    @max_target_length.setter
    def max_target_length(self, length: int) -> None:
        self.label_tokenizer = self.label_tokenizer.with_max_length(length)

    @property
    def score_model(self) -> ScoreModel:
        """How candidates are scored and decided on."""
        return self._score_model

    def with_score_model(self, score_model: ScoreModel) -> XLGenProcessor:
        """The same processor with another score model; all else is shared."""
        twin = copy.copy(self)
        twin._score_model = score_model
        return twin

    @property
    def retriever(self) -> LabelRetriever | None:
        """What finds candidate labels, for the model's input or for the fusion; both share one."""
        if self.candidates is not None:
            return self.candidates.retriever
        found = self._score_model.sources.get("retrieval")
        return found if isinstance(found, LabelRetriever) else None

    @property
    def pad_token_id(self) -> int:
        """Token that pads batches."""
        return self.tokenizer.pad_token_id

    @property
    def eos_token_id(self) -> int:
        """Token that ends a target."""
        return self.label_tokenizer.eos_token_id

    def add_labels(self, names: Iterable[str], encoder: Encoder | None = None) -> list[str]:
        """Let names join the label space, the trie and, placed by their names, the clusters; no training is needed.

        Call `model.fit_output(processor)` afterwards, so that the model can spell them.

        Args:
            names: label names; those that are labels already are left out.
            encoder: what embedded the labels for the clusters; the name that the clusters remember if None.

        Returns:
            The names that were new.

        Raises:
            LabelSpaceError: if a name is empty.
            CheckpointError: if there are clusters, and their encoder cannot be loaded.
        """
        change = LabelChange.with_names(self.label_space, names)
        if not change.is_nothing:
            self.relabel(change, encoder)
        return list(change.after.names[len(change.before) :])

    def relabel(self, change: LabelChange, encoder: Encoder | None = None) -> None:
        """Let all that depends on labels follow a change: trie, clusters, retriever, label trees.

        Call `model.fit_output(processor)` afterwards, so that the model spells these labels.

        Args:
            change: what has become of the labels.
            encoder: what embedded the labels for the clusters; the name that the clusters remember if None.

        Raises:
            CheckpointError: if there are clusters and new labels, and the clusters' encoder cannot be loaded.
        """
        clusters = None if self.clusters is None else self.clusters.relabelled(change, encoder)
        self._take_sources({name: source.relabelled(change) for name, source in self._sources.items()})
        self.clusters, self.label_space = clusters, change.after
        self.label_tokenizer = self.label_tokenizer.relabelled(change)

    def spell_aliases(self) -> None:
        """Let the decoder spell concepts by aliases and names in other languages, too.

        A model that is made for the processor before cannot spell them.
        """
        if self.vocabulary is not None:
            names = self.vocabulary.further_names(self.label_space.index)
            self.label_tokenizer = self.label_tokenizer.with_aliases(names)

    def take_retriever(self, retriever: LabelRetriever) -> None:
        """Use another retriever of the same labels, such as one with further training texts."""
        self._take_sources({**self._sources, "retrieval": retriever})

    def _take_sources(self, sources: Mapping[str, SavedSource]) -> None:
        """Use other sources of the same names; input and fusion share one retriever."""
        retriever = sources.get("retrieval")
        if self.candidates is not None and isinstance(retriever, LabelRetriever):
            self.candidates = self.candidates.with_retriever(retriever)
        self._score_model = self._score_model.with_sources({name: sources[name] for name in self._score_model.sources})

    # ------------------------------------------------------------------------------------------------ encoding

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a text."""
        return frame_of(self.tokenizer)

    def encode_texts(
        self, texts: Sequence[str], report: TruncationReport | None = None, *, training: bool = False
    ) -> list[EncodedText]:
        """Texts -> token ids without special tokens, truncated so that special, task and cluster tokens still fit.

        With `candidates`, each text's are selected too; as tokens they take half of the room, or what the text leaves.
        In `training` a text does not retrieve itself.
        """
        reserve = sum(map(len, self.frame))
        if self.clusters is not None and self.cluster_tokens:
            reserve += 1 + min(self.clusters.num_clusters, self.max_source_length // 4)
        room = max(1, self.max_source_length - reserve)
        token_ids = plain_token_ids(self.tokenizer, list(texts))
        candidates = [InputCandidates()] * len(token_ids)
        if self.candidates is not None:
            lengths = self.label_tokenizer.name_lengths
            left = [max(room // 2, room - len(ids)) for ids in token_ids]
            candidates = self.candidates.select(texts, lengths, left, report, training=training)
        rooms = [room - len(self._candidate_tokens(one)) for one in candidates]
        encoded = [
            EncodedText(ids[:left], found, len(ids) > left)
            for ids, left, found in zip(token_ids, rooms, candidates, strict=True)
        ]
        if report is not None:
            report.texts += len(encoded)
            report.texts_cut += sum(text.is_cut for text in encoded)
            self.reported_cuts |= report.texts_cut > 0
        return encoded

    def _candidate_tokens(self, candidates: InputCandidates) -> list[int]:
        """Candidates as tokens of the input: a level, then the name; none where they are read as vectors."""
        first = self.label_tokenizer.first_level_token_id
        if self.candidates is None or self.candidates.conditioning == "memory" or first is None:
            return []
        spelled = self.label_tokenizer.label_token_ids
        pairs = zip(candidates.labels, candidates.levels, strict=True)
        return [token for label, level in pairs for token in (first + level, *spelled[label][:-1])]

    def build_input(
        self, text: EncodedText | Sequence[int], clusters: Iterable[int] = (), task: str | None = None
    ) -> list[int]:
        """Input ids of a text: special tokens around it, task prefix before, candidates and clusters after the text.

        Args:
            text: an encoded text, or the token ids of one without candidates.
            clusters: cluster ids; as many as there is room for.
            task: `clusters` or `labels` for the task prefix of `mcg`; None for the other variants.
        """
        encoded = text if isinstance(text, EncodedText) else EncodedText(list(text))
        before, after = self.frame
        prefix = [] if task is None else [self.label_tokenizer.task_token_id(task)]
        body = [*encoded.token_ids, *self._candidate_tokens(encoded.candidates)]
        appended = self.label_tokenizer.cluster_token_ids(clusters) if clusters else []
        room = self.max_source_length - len(before) - len(after) - len(prefix) - len(body)
        return [*before, *prefix, *body, *appended[: max(room, 0)], *after]

    def __call__(
        self, texts: str | Sequence[str], return_tensors: str | None = None, task: str | None = None
    ) -> BatchEncoding:
        """Texts -> `input_ids` and `attention_mask`, padded; `candidate_ids` where candidates are read as vectors.

        Args:
            texts: one text or several.
            return_tensors: `pt` for tensors, None for lists.
            task: `clusters` or `labels` for the task prefix of `mcg`; other variants have none.
        """
        encoded = self.encode_texts([texts] if isinstance(texts, str) else list(texts))
        return self.pad(
            [self.build_input(one, task=task) for one in encoded], return_tensors, [one.candidates for one in encoded]
        )

    def pad(
        self,
        input_ids: Sequence[Sequence[int]],
        return_tensors: str | None = "pt",
        candidates: Sequence[InputCandidates] = (),
    ) -> BatchEncoding:
        """Ragged input ids -> `input_ids` and `attention_mask`, both `(B, S)`, padded to the longest.

        Args:
            input_ids: the input ids of each text.
            return_tensors: `pt` for tensors, None for lists.
            candidates: each text's candidates, best first. Where they are read as vectors, `candidate_ids` `(B, K)`
                holds their label ids, padded with -1; as tokens, `candidate_scores` `(B, K, F)` holds what the
                retriever says of them (`SCORES`), padded with 0.
        """
        longest = max(map(len, input_ids), default=0)
        padded = [[*ids, *[self.pad_token_id] * (longest - len(ids))] for ids in input_ids]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in input_ids]
        batch: dict[str, object] = {"input_ids": padded, "attention_mask": mask}
        if candidates and self.candidates is not None:
            width = max(1, *(len(one.labels) for one in candidates))
            if self.candidates.conditioning == "memory":
                batch["candidate_ids"] = [
                    [*one.labels, *[_PADDED_CANDIDATE] * (width - len(one.labels))] for one in candidates
                ]
            else:
                batch["candidate_scores"] = [one.score_rows(width) for one in candidates]
        return BatchEncoding(batch, tensor_type=return_tensors)

    # ------------------------------------------------------------------------------------------------ saving

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """What `AutoProcessor` calls on a class out of a repository; saving copies no code, so nothing is noted."""

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: object) -> None:
        """Write tokenizer, label space, clusters, score model and settings into one folder, all of them or nothing.

        Raises:
            SaveError: if the disk is full, or the folder cannot be written.
        """
        if push_to_hub:
            raise ConfigurationError("Push model and processor together; a processor alone is of no use on the Hub.")
        settings: ProcessorSettings = {
            "processor_class": type(self).__name__,
            "max_source_length": self.max_source_length,
            "max_target_length": self.max_target_length,
            "clusters": self.clusters is not None,
            "candidates": None if self.candidates is None else self.candidates.to_dict(),
            "cluster_tokens": self.cluster_tokens,
        }
        with replace_files(save_directory) as folder:
            self.tokenizer.save_pretrained(folder)
            self.label_space.save(folder)
            if self.clusters is not None:
                self.clusters.save(folder)
            if self.vocabulary is not None:
                self.vocabulary.save(folder)
            save_sources(folder, self._sources)
            self._score_model.save(folder)
            self.label_tokenizer.trie.save(folder, self.label_tokenizer.trie_digest)
            PROCESSOR_FORM.write(folder / PROCESSOR_FILE, settings)

    @property
    def _sources(self) -> dict[str, SavedSource]:
        own: dict[str, SavedSource] = {} if self.retriever is None else {"retrieval": self.retriever}
        return {**self._score_model.sources, **own}

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **hub_options: object) -> XLGenProcessor:
        """Load from a folder or, with the options of `huggingface_hub.snapshot_download`, from the Hub.

        Raises:
            ModelFolderError: if the folder is no XLGen model, or its files do not fit each other.
        """
        place = local_model(name_or_path, dict(hub_options), "config", "tokenizer", "processor", "scores")
        return read_folder(place, cls._load)

    @classmethod
    def _load(cls, folder: Path) -> XLGenProcessor:
        settings = read_processor_settings(folder, cls.__name__)
        label_space = LabelSpace.load(folder)
        clusters = LabelClusters.load(folder, num_labels=len(label_space)) if settings["clusters"] else None
        sources = load_sources(folder, len(label_space))
        given = settings["candidates"]
        candidates = None if given is None else _load_candidates(folder, given, sources)
        score_model = ScoreModel.load(folder, sources) if (folder / SCORE_MODEL_FILE).exists() else ScoreModel()
        has_vocabulary = (folder / VOCABULARY_FILE).exists() or (folder / VOCABULARY_SETTINGS_FILE).exists()
        vocabulary = Vocabulary.load(folder, label_space.names) if has_vocabulary else None
        tokenizer = load_tokenizer(folder)
        lengths = (settings["max_source_length"], settings["max_target_length"])
        try:
            processor = cls(tokenizer, label_space, clusters, *lengths, candidates, score_model, vocabulary)
        except ConfigurationError as err:
            raise ModelFolderError(f"{folder}: {err}") from err
        processor.cluster_tokens = settings.get("cluster_tokens", processor.cluster_tokens)
        if (folder / LABEL_TRIE_FILE).exists():
            processor._take_trie(folder)
        return processor

    def _take_trie(self, folder: Path) -> None:
        """Use the trie of a folder where it spells these labels."""
        trie = LabelTrie.load(folder, self.label_tokenizer.trie_digest, num_tokens=len(self.tokenizer))
        if trie is None or len(trie) != len(self.label_space):
            logger.warning("%s was made for other label names; it is made again.", folder / LABEL_TRIE_FILE)
        else:
            self.label_tokenizer = self.label_tokenizer.for_labels(self.label_space, trie)


def _load_candidates(folder: Path, settings: object, sources: dict[str, SavedSource]) -> CandidateInputs:
    """What reads candidates into the input."""
    retriever = sources.get("retrieval")
    if not isinstance(retriever, LabelRetriever):
        raise ModelFolderError(
            f"{folder / SOURCE_FOLDERS['retrieval']} is missing; the model reads candidates that a retriever finds."
        )
    return CandidateInputs.from_dict(settings, retriever, str(folder / PROCESSOR_FILE))
