"""Retrieval of candidate labels: those of similar training texts, and those whose names resemble the text."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..encoders.embedding import embed_texts, load_encoder
from ..errors import ConfigurationError, ModelFolderError
from ..files.model_checks import check_encoder
from ..files.serialization import read_tensors, write_json, write_tensors
from ..labels.space import LabelSpace
from ..ranking.scored_labels import ScoredLabels
from .lexical import LexicalIndex
from .weighing import FORMAT_VERSION, Neighbors, RetrievalSettings, RetrievedCandidates, best_columns, read_settings

__all__ = ["DenseRetriever", "RetrievalSettings"]

logger = logging.getLogger(__name__)

_SETTINGS_FILE = "retriever.json"
_TENSORS_FILE = "retriever.safetensors"
_SIMILARITIES_AT_ONCE = 20_000_000
_TUNING_CUTS = (2, 3, 4, 5, 6)
_NAME_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
_DENSE_CHOICES: dict[str, tuple[float, ...]] = {
    "temperature": (0.02, 0.05, 0.1),
    "name_power": (2.0, 4.0, 8.0),
    "name_weight": _NAME_WEIGHTS,
}
_LEXICAL_CHOICES: tuple[dict[str, tuple[float, ...]], ...] = (  # each round starts from what the one before chose
    {
        "lexical_neighbor_weight": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
        "lexical_name_weight": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    },
    {"temperature": _DENSE_CHOICES["temperature"], "name_weight": (0.0, *_NAME_WEIGHTS)},
)
_KINDS: dict[str, type] = {
    "documents": np.float16,
    "names": np.float16,
    "label_start": np.int64,
    "label_ids": np.int32,
    "fingerprints": np.int64,
}


class DenseRetriever:
    """Finds candidate labels by exact search over embeddings of training texts and label names.

    Args:
        encoder: the encoder and its tokenizer; an embedding is the mean of its last hidden states.
        documents: embeddings of the `N` training texts, rows of length 1, `(N, H)`.
        names: embeddings of the label names, rows of length 1, `(L, H)`.
        labels: which text has which label, `(N, L)`, sparse, 1 where it has.
        fingerprints: of the training texts, `(N,)`, int64; equal where texts are equal.
        settings: how similarities become scores.
        lexical: texts and label names by their spelling, which then count too; None leaves them out.

    Source: the neighbours' part follows Chang et al., "PEFA", WSDM 2024, the names' part zero-shot retrieval by label
    text.
    """

    def __init__(
        self,
        encoder: tuple[PreTrainedModel, PreTrainedTokenizerBase],
        documents: np.ndarray,
        names: np.ndarray,
        labels: csr_matrix,
        fingerprints: np.ndarray,
        settings: RetrievalSettings | None = None,
        lexical: LexicalIndex | None = None,
    ) -> None:
        self.encoder = encoder
        self.documents = np.asarray(documents, dtype=np.float32)
        self.names = np.asarray(names, dtype=np.float32)
        self.labels = labels
        self.fingerprints = np.asarray(fingerprints, dtype=np.int64)
        self.settings = settings or RetrievalSettings()
        self.lexical = lexical

    def __len__(self) -> int:
        """The number of labels `L`."""
        return len(self.names)

    @property
    def width(self) -> int:
        """Size `H` of an embedding."""
        return int(self.names.shape[1])

    @classmethod
    def fit(
        cls,
        label_space: LabelSpace,
        texts: Sequence[str],
        label_ids: Sequence[Sequence[int]],
        encoder: str | tuple[PreTrainedModel, PreTrainedTokenizerBase],
        *,
        settings: RetrievalSettings | None = None,
        lexical: bool = False,
        cache_dir: str | Path | None = None,
        progress: bool = True,
    ) -> DenseRetriever:
        """Embed training texts and label names.

        Args:
            label_space: the labels.
            texts: `N` training texts.
            label_ids: the label ids of each text.
            encoder: checkpoint of an encoder, or an encoder with its tokenizer.
            settings: how similarities become scores.
            lexical: index texts and names by their spelling, too; it counts as far as the settings, or [`tune`], say.
            cache_dir: where embeddings are kept between runs.
            progress: show progress bars on a terminal.

        Raises:
            CheckpointError: if the encoder cannot be loaded.
            ConfigurationError: if there are no texts, or their number is not that of the label lists.
        """
        if not len(texts) or len(texts) != len(label_ids):
            raise ConfigurationError(f"{len(texts)} texts come with {len(label_ids)} label lists; one for each.")
        settings = settings or RetrievalSettings()
        loaded = load_encoder(encoder) if isinstance(encoder, str) else encoder
        options: dict[str, Any] = {"max_length": settings.max_length, "cache_dir": cache_dir, "progress": progress}
        documents = embed_texts(list(texts), loaded, **options)
        names = embed_texts(list(label_space.names), loaded, **options)
        matrix, spelled = _label_matrix(label_ids, len(label_space)), None
        if lexical:
            spelled = LexicalIndex.fit(texts, label_space.names)
        return cls(loaded, documents, names, matrix, _fingerprints(texts), settings, spelled)

    # ------------------------------------------------------------------------------------------------ searching

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Embeddings of texts, `(B, H)`, rows of length 1."""
        return embed_texts(list(texts), self.encoder, max_length=self.settings.max_length, progress=progress)

    def retrieve(
        self,
        texts: Sequence[str],
        num_candidates: int = 50,
        *,
        leave_out: bool = False,
        allowed: np.ndarray | None = None,
        progress: bool = False,
    ) -> ScoredLabels:
        """The best scored labels of each text.

        Args:
            texts: the texts.
            num_candidates: labels for each text, at least 1.
            leave_out: find no training text that is the text itself (leave-one-out); for the candidates that a model
                is trained with.
            allowed: ids of the labels to choose from; all if None.
            progress: show a progress bar on a terminal.

        Returns:
            `num_candidates` labels for each text (fewer if there are fewer to choose from), scores in [0, 1]; none is
            chosen.
        """
        same = self._same_texts(texts)
        queries, hidden = self._embed_new(texts, same, progress=progress), same if leave_out else None
        return self.search(queries, num_candidates, hidden=hidden, allowed=allowed, texts=texts)

    def retrieve_parts(
        self, texts: Sequence[str], num_candidates: int, *, allowed: np.ndarray | None = None
    ) -> tuple[ScoredLabels, dict[str, np.ndarray]]:
        """What [`retrieve`] finds, with the parts of each score, see [`RetrievalSettings`].

        Returns:
            The labels, and by name (`neighbors`, `names`, `lexical_neighbors`, `lexical_names`) the parts of each
            entry before they are weighed, `(M,)` each, in [0, 1].
        """
        queries = self._embed_new(texts, self._same_texts(texts), progress=False)
        found = self._find(queries, num_candidates, allowed=allowed, texts=texts)
        return found.weigh(self.settings, self.labels, num_candidates)

    def _embed_new(self, texts: Sequence[str], same: csr_matrix, *, progress: bool) -> np.ndarray:
        """Embeddings of texts, `(Q, H)`; those of the index serve again."""
        known = np.diff(same.indptr) > 0
        queries = np.empty((len(texts), self.width), dtype=np.float32)
        queries[known] = self.documents[same.indices[same.indptr[:-1][known]]]
        queries[~known] = self.embed([texts[i] for i in np.flatnonzero(~known).tolist()], progress=progress)
        return queries

    def _same_texts(self, texts: Sequence[str]) -> csr_matrix:
        """Which training text is which of these texts, `(Q, N)`."""
        given = _fingerprints(texts)
        order = np.argsort(self.fingerprints, kind="stable")
        first, last = (np.searchsorted(self.fingerprints[order], given, side) for side in ("left", "right"))
        found = [order[low:high] for low, high in zip(first, last, strict=True)]
        start = np.concatenate([[0], np.cumsum(last - first)])
        columns = np.concatenate([*found, np.empty(0, np.int64)])
        return csr_matrix((np.ones(len(columns), bool), columns, start), shape=(len(given), len(order)))

    def search(
        self,
        queries: np.ndarray,
        num_candidates: int = 50,
        *,
        hidden: csr_matrix | None = None,
        allowed: np.ndarray | None = None,
        texts: Sequence[str] | None = None,
    ) -> ScoredLabels:
        """The best scored labels of each embedding `(Q, H)`; see [`retrieve`].

        Args:
            queries: the embeddings.
            num_candidates: labels for each.
            hidden: training texts that must not count, `(Q, N)`, sparse; none if None.
            allowed: ids of the labels to choose from; all if None.
            texts: what was embedded; if None, spelling does not count.
        """
        if num_candidates < 1:
            raise ConfigurationError(f"num_candidates={num_candidates}; at least 1 is needed.")
        found = self._find(queries, num_candidates, hidden, allowed, texts)
        return found.weigh(self.settings, self.labels, num_candidates)[0]

    def _find(
        self,
        queries: np.ndarray,
        num_candidates: int,
        hidden: csr_matrix | None = None,
        allowed: np.ndarray | None = None,
        texts: Sequence[str] | None = None,
    ) -> RetrievedCandidates:
        """Nearest texts, their labels, and the labels with the nearest names, block by block.

        Without a near text a label has but its name. Where names count by embedding alone, none but the
        `num_candidates` nearest can be among the best; with lexical names, so many of each kind of nearness are taken,
        and only one that is good in the sum and far down in both could be missed.
        """
        step = max(1, _SIMILARITIES_AT_ONCE // (len(self) + len(self.documents)))
        kept = np.arange(len(self)) if allowed is None else np.unique(allowed)
        blocks = []
        for begin in range(0, len(queries), step):
            block = slice(begin, begin + step)
            of_block = (None if every is None else every[block] for every in (hidden, texts))
            blocks.append(self._find_block(queries[block], num_candidates, kept, *of_block))
        return RetrievedCandidates.joined(blocks)

    def _find_block(
        self,
        queries: np.ndarray,
        num_candidates: int,
        kept: np.ndarray,
        hidden: csr_matrix | None,
        texts: Sequence[str] | None,
    ) -> RetrievedCandidates:
        queries = queries.astype(np.float32)
        near = [self._nearest(queries @ self.documents.T, hidden)]
        of_names = [(queries @ self.names.T).clip(0, 1)]
        if self.lexical is not None and texts is not None:
            spelled = self.lexical.encode(texts)
            cosine = self.lexical.document_similarity(spelled)
            near.append(self._nearest(np.where(cosine > 0, cosine, -np.inf), hidden))
            of_names.append(self.lexical.name_similarity(spelled))
        row, size = np.arange(len(queries)), min(num_candidates, len(kept))
        keys = []
        for similarity in of_names:
            nearest = kept[best_columns(similarity[:, kept], size)[0].reshape(-1)]
            keys.append(np.repeat(row, size) * len(self) + nearest)
        for documents, _ in near:
            of_near = self.labels[documents.reshape(-1)]
            owner = np.repeat(np.repeat(row, documents.shape[1]), np.diff(of_near.indptr))
            keys.append((owner * len(self) + of_near.indices)[np.isin(of_near.indices, kept)])
        text, labels = np.divmod(np.unique(np.concatenate(keys)), len(self))
        return RetrievedCandidates(text, labels, [one[text, labels] for one in of_names], near)

    def _nearest(self, similarity: np.ndarray, hidden: csr_matrix | None) -> Neighbors:
        """The training texts that count: numbers and similarities, `(Q, neighbors)` each, best first."""
        if hidden is not None:
            similarity[hidden.nonzero()] = -np.inf
        return best_columns(similarity, min(self.settings.neighbors, similarity.shape[1]))

    # ------------------------------------------------------------------------------------------------ settings

    def tune(self, texts: Sequence[str], label_ids: Sequence[Sequence[int]]) -> RetrievalSettings:
        """Choose temperature, power and weights on validation texts: the best micro F1 of a fixed number of labels.

        A lexical index that does not help is given up.

        Args:
            texts: validation texts.
            label_ids: their label ids.

        Returns:
            The settings, which the retriever has taken over.
        """
        found = self._find(self.embed(texts), max(_TUNING_CUTS), texts=texts)
        best = (-1.0, replace(self.settings, lexical_neighbor_weight=0.0, lexical_name_weight=0.0))
        for choices in (_DENSE_CHOICES, *(() if self.lexical is None else _LEXICAL_CHOICES)):
            start = best[1]
            for values in product(*choices.values()):
                self.settings = replace(start, **dict(zip(choices, values, strict=True)))  # type: ignore[arg-type]
                best = max(best, (self._best_f1(found, label_ids), self.settings), key=lambda pair: pair[0])
        self.settings = best[1]
        if not (self.settings.lexical_neighbor_weight or self.settings.lexical_name_weight):
            self.lexical = None
        logger.info("Retrieval has micro F1 %.4f on the validation rows with %s.", *best)
        return self.settings

    def _best_f1(self, found: RetrievedCandidates, label_ids: Sequence[Sequence[int]]) -> float:
        """Micro F1 of the best fixed number of labels."""
        scored, _ = found.weigh(self.settings, self.labels, max(_TUNING_CUTS))
        gold, correct, rank = sum(map(len, label_ids)), scored.correct(label_ids), scored.rank
        return max(float(2 * correct[rank < k].sum() / ((rank < k).sum() + gold)) for k in _TUNING_CUTS)

    def extended(self, names: Iterable[str]) -> DenseRetriever:
        """A retriever that also knows new labels, appended in the given order, by their names."""
        names = list(names)
        new = embed_texts(names, self.encoder, max_length=self.settings.max_length, progress=False)
        labels = csr_matrix((self.labels.data, self.labels.indices, self.labels.indptr),
                            shape=(self.labels.shape[0], len(self) + len(new)))  # fmt: skip
        lexical = None if self.lexical is None else self.lexical.extended(names)
        known = np.concatenate([self.names, new])
        return DenseRetriever(self.encoder, self.documents, known, labels, self.fingerprints, self.settings, lexical)

    # ------------------------------------------------------------------------------------------------ saving

    def save(self, folder: str | Path) -> None:
        """Write encoder, tokenizer, embeddings (16 bits) and settings into a folder of its own.

        Raises:
            OSError: if the folder cannot be written.
        """
        folder = Path(folder)
        model, tokenizer = self.encoder
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        tensors = {
            "documents": self.documents.astype(np.float16),
            "names": self.names.astype(np.float16),
            "label_start": self.labels.indptr.astype(np.int64),
            "label_ids": self.labels.indices.astype(np.int32),
            "fingerprints": self.fingerprints,
            **({} if self.lexical is None else self.lexical.tensors()),
        }
        write_tensors(folder / _TENSORS_FILE, tensors)
        write_json(folder / _SETTINGS_FILE, {"format_version": FORMAT_VERSION, **asdict(self.settings)})

    @staticmethod
    def remove(folder: str | Path) -> None:
        """Remove what [`save`] wrote, if there is something."""
        if (Path(folder) / _SETTINGS_FILE).is_file():
            shutil.rmtree(folder)

    @classmethod
    def load_index(cls, folder: str | Path, label_space: LabelSpace) -> DenseRetriever:
        """Load what `xlgen index` wrote, for the labels that it was made for.

        Raises:
            ConfigurationError: if it was made for other labels.
            ModelFolderError: if a file is missing, damaged, or does not fit the others.
        """
        indexed = LabelSpace.load(folder)
        if indexed.names != label_space.names:
            raise ConfigurationError(
                f"The retriever in {folder} is for other labels ({len(indexed)}) than the model's "
                f"({len(label_space)}). Make it from the same training rows and vocabulary."
            )
        return cls.load(folder, num_labels=len(label_space))

    @classmethod
    def load(cls, folder: str | Path, *, num_labels: int) -> DenseRetriever:
        """Read and check what [`save`] wrote.

        Args:
            folder: the folder.
            num_labels: labels of the label space that it must fit.

        Raises:
            ModelFolderError: if a file is missing, damaged, or does not fit the others.
        """
        folder = Path(folder)
        settings = read_settings(folder / _SETTINGS_FILE)
        path = folder / _TENSORS_FILE
        tensors = read_tensors(path)
        problem = _tensor_problem(tensors, num_labels)
        if problem:
            raise ModelFolderError(f"{path}: {problem}")
        check_encoder(folder)
        encoder = load_encoder(str(folder))
        width = getattr(encoder[0].config, "hidden_size", None)
        if width != tensors["names"].shape[1]:
            raise ModelFolderError(
                f"{path}: embeddings of {tensors['names'].shape[1]} numbers, the encoder's have {width}."
            )
        start, ids = tensors["label_start"], tensors["label_ids"]
        labels = csr_matrix((np.ones(len(ids), np.float32), ids, start), shape=(len(start) - 1, num_labels))
        try:
            lexical = LexicalIndex.from_tensors(tensors, len(labels.indptr) - 1, num_labels)
        except ValueError as err:
            raise ModelFolderError(f"{path}: {err}") from err
        return cls(encoder, tensors["documents"], tensors["names"], labels, tensors["fingerprints"], settings, lexical)


def _fingerprints(texts: Sequence[str]) -> np.ndarray:
    """A number of 64 bits for each text, `(N,)`, int64, the same on every machine."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def _label_matrix(label_ids: Sequence[Sequence[int]], num_labels: int) -> csr_matrix:
    """Rows of label ids -> `(N, L)`, 1 where a text has a label."""
    start = np.cumsum([0, *map(len, label_ids)])
    ids = np.fromiter((label for row in label_ids for label in row), dtype=np.int32, count=int(start[-1]))
    return csr_matrix((np.ones(len(ids), np.float32), ids, start), shape=(len(label_ids), num_labels))


def _tensor_problem(tensors: dict[str, np.ndarray], num_labels: int) -> str | None:
    """Say what does not fit, if anything."""
    for name, kind in _KINDS.items():
        if name not in tensors or tensors[name].dtype != kind:
            return f"{name!r} must be there, as {np.dtype(kind).name}."
    documents, names, start, ids, fingerprints = (tensors[name] for name in _KINDS)
    if documents.ndim != 2 or names.ndim != 2 or documents.shape[1] != names.shape[1]:
        return f"'documents' {documents.shape} and 'names' {names.shape} must be matrices of one width."
    if len(names) != num_labels:
        return f"{len(names)} label names are indexed, the label space has {num_labels} labels."
    if not (np.isfinite(documents).all() and np.isfinite(names).all()):
        return "embeddings hold NaN or infinity."
    if fingerprints.shape != (len(documents),):
        return f"{len(documents)} texts come with 'fingerprints' {fingerprints.shape}."
    if start.shape != (len(documents) + 1,) or start[0] != 0 or start[-1] != len(ids) or (np.diff(start) < 0).any():
        return "'label_start' does not say where each text's labels begin."
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < num_labels:
        return f"'label_ids' leave the label space of {num_labels} labels."
    return None
