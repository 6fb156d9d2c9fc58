"""Dense retrieval of candidate labels: those of similar training texts, and those whose names resemble the text."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ._io import read_json, read_tensors, write_json, write_tensors
from .embedding import embed_texts, load_encoder
from .errors import ConfigurationError, ModelFolderError
from .labels import LabelSpace
from .model_files import check_encoder
from .scored_labels import ScoredLabels

__all__ = ["RETRIEVER_FOLDER", "DenseRetriever", "RetrievalSettings"]

logger = logging.getLogger(__name__)

RETRIEVER_FOLDER = "retriever"
_SETTINGS_FILE = "retriever.json"
_TENSORS_FILE = "retriever.safetensors"
_FORMAT_VERSION = 1
_SIMILARITIES_AT_ONCE = 20_000_000
_TUNING_CUTS = (2, 3, 4, 5, 6)
_TEMPERATURES = (0.02, 0.05, 0.1)
_NAME_POWERS = (2.0, 4.0, 8.0)
_NAME_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
_LONGEST = 100_000
_KINDS: dict[str, type] = {
    "documents": np.float16,
    "names": np.float16,
    "label_start": np.int64,
    "label_ids": np.int32,
    "fingerprints": np.int64,
}


@dataclass(frozen=True)
class RetrievalSettings:
    """How similarities become the score of a label.

    The score is the weight of the label among the neighbours (softmax of cosine / `temperature` over the `neighbors`
    most similar training texts, summed over those that have the label), plus `name_weight` times the cosine of text
    and label name to the power of `name_power`, all divided by `1 + name_weight`.

    Attributes:
        neighbors: training texts that count, at least 1.
        temperature: of the softmax, above 0.
        name_power: above 0; the greater, the more only close names count.
        name_weight: at least 0.
        max_length: tokens of a text that the encoder reads.
    """

    neighbors: int = 30
    temperature: float = 0.1
    name_power: float = 4.0
    name_weight: float = 2.0
    max_length: int = 256

    def __post_init__(self) -> None:
        """Check the values."""
        whole = {"neighbors": self.neighbors, "max_length": self.max_length}
        for name, value in whole.items():
            if type(value) is not int or not 1 <= value <= _LONGEST:
                raise ConfigurationError(f"{name}={value!r}; a whole number from 1 to {_LONGEST} is needed.")
        for name in ("temperature", "name_power", "name_weight"):
            number, least = getattr(self, name), 0 if name == "name_weight" else 1e-6
            if type(number) not in (int, float) or not least <= number <= 1e6:
                raise ConfigurationError(f"{name}={number!r}; a number from {least} to 1000000 is needed.")


class DenseRetriever:
    """Finds candidate labels by exact search over embeddings of training texts and label names.

    Args:
        encoder: the encoder and its tokenizer; an embedding is the mean of its last hidden states.
        documents: embeddings of the `N` training texts, rows of length 1, `(N, H)`.
        names: embeddings of the label names, rows of length 1, `(L, H)`.
        labels: which text has which label, `(N, L)`, sparse, 1 where it has.
        fingerprints: of the training texts, `(N,)`, int64; equal where texts are equal.
        settings: how similarities become scores.

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
    ) -> None:
        self.encoder = encoder
        self.documents = np.asarray(documents, dtype=np.float32)
        self.names = np.asarray(names, dtype=np.float32)
        self.labels = labels
        self.fingerprints = np.asarray(fingerprints, dtype=np.int64)
        self.settings = settings or RetrievalSettings()

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
        return cls(
            loaded, documents, names, _label_matrix(label_ids, len(label_space)), _fingerprints(texts), settings
        )

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
        queries = self._embed_new(texts, same, progress=progress)
        return self.search(queries, num_candidates, hidden=same if leave_out else None, allowed=allowed)

    def retrieve_parts(
        self, texts: Sequence[str], num_candidates: int, *, allowed: np.ndarray | None = None
    ) -> tuple[ScoredLabels, np.ndarray, np.ndarray]:
        """What [`retrieve`] finds, with the two parts of each score: weight among neighbours, cosine of the name.

        Returns:
            The labels, and the parts of each entry, `(M,)` each, in [0, 1].
        """
        queries = self._embed_new(texts, self._same_texts(texts), progress=False)
        return self._weigh(self._find(queries, num_candidates, allowed=allowed), num_candidates)

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
    ) -> ScoredLabels:
        """The best scored labels of each embedding `(Q, H)`; see [`retrieve`].

        Args:
            queries: the embeddings.
            num_candidates: labels for each.
            hidden: training texts that must not count, `(Q, N)`, sparse; none if None.
            allowed: ids of the labels to choose from; all if None.
        """
        if num_candidates < 1:
            raise ConfigurationError(f"num_candidates={num_candidates}; at least 1 is needed.")
        return self._weigh(self._find(queries, num_candidates, hidden, allowed), num_candidates)[0]

    def _find(
        self,
        queries: np.ndarray,
        num_candidates: int,
        hidden: csr_matrix | None = None,
        allowed: np.ndarray | None = None,
    ) -> _Found:
        """Nearest texts, their labels, and the labels with the nearest names, block by block.

        No other label can be among the best: without a near text a label has but its name, which is then not among
        the `num_candidates` nearest ones.
        """
        step = max(1, _SIMILARITIES_AT_ONCE // (len(self) + len(self.documents)))
        kept = np.arange(len(self)) if allowed is None else np.unique(allowed)
        blocks = [
            self._find_block(
                queries[i : i + step], num_candidates, None if hidden is None else hidden[i : i + step], kept
            )
            for i in range(0, len(queries), step)
        ]
        return _Found.joined(blocks)

    def _find_block(
        self, queries: np.ndarray, num_candidates: int, hidden: csr_matrix | None, kept: np.ndarray
    ) -> _Found:
        queries = queries.astype(np.float32)
        cosine = queries @ self.documents.T
        if hidden is not None:
            cosine[hidden.nonzero()] = -np.inf
        near, similarity = _best(cosine, min(self.settings.neighbors, cosine.shape[1]))
        of_names = (queries @ self.names.T).clip(0, 1)
        nearest, _ = _best(of_names[:, kept], min(num_candidates, len(kept)))
        row = np.arange(len(queries))
        of_near = self.labels[near.reshape(-1)]
        owner = np.repeat(np.repeat(row, near.shape[1]), np.diff(of_near.indptr))
        by_name = np.repeat(row, nearest.shape[1]) * len(self) + kept[nearest.reshape(-1)]
        is_kept = np.isin(of_near.indices, kept)
        keys = np.unique(np.concatenate([by_name, (owner * len(self) + of_near.indices)[is_kept]]))
        text, labels = keys // len(self), keys % len(self)
        return _Found(text, labels, of_names[text, labels], near, similarity)

    def _weigh(self, found: _Found, num_candidates: int) -> tuple[ScoredLabels, np.ndarray, np.ndarray]:
        """Scores of what was found: the best of it for each query, and the parts of its scores."""
        settings, queries = self.settings, len(found.near)
        top = np.maximum(found.similarity[:, :1], -1)  # where every text is hidden, none is near
        weight = np.exp((found.similarity - top) / settings.temperature)
        weight /= weight.sum(1, keepdims=True).clip(1e-30)
        ends = np.arange(queries + 1) * found.near.shape[1]
        shape = (queries, len(self.documents))
        shares = csr_matrix((weight.reshape(-1), found.near.reshape(-1), ends), shape=shape) @ self.labels
        of_texts = np.asarray(shares[found.text, found.labels]).reshape(-1)
        scores = (of_texts + settings.name_weight * found.cosine**settings.name_power) / (1 + settings.name_weight)
        order = np.lexsort((found.labels, -scores, found.text))
        start = np.searchsorted(found.text, np.arange(queries + 1))
        rank = np.arange(len(order)) - start[found.text[order]]
        kept = order[rank < num_candidates]
        new_start = np.searchsorted(found.text[kept], np.arange(queries + 1)).astype(np.int64)
        flat = scores[kept].astype(np.float64).clip(0, 1)
        scored = ScoredLabels(new_start, found.labels[kept], flat, np.zeros(len(kept), dtype=bool))
        return scored, of_texts[kept].clip(0, 1), found.cosine[kept]

    # ------------------------------------------------------------------------------------------------ settings

    def tune(self, texts: Sequence[str], label_ids: Sequence[Sequence[int]]) -> RetrievalSettings:
        """Choose temperature, power and weight on validation texts, for the best micro F1 of a fixed number of labels.

        Args:
            texts: validation texts.
            label_ids: their label ids.

        Returns:
            The settings, which the retriever has taken over.
        """
        most = max(_TUNING_CUTS)
        found = self._find(self.embed(texts), most)
        gold = sum(map(len, label_ids))
        best = (-1.0, self.settings)
        for temperature, power, weight in product(_TEMPERATURES, _NAME_POWERS, _NAME_WEIGHTS):
            self.settings = replace(self.settings, temperature=temperature, name_power=power, name_weight=weight)
            scored, _, _ = self._weigh(found, most)
            correct, rank = scored.correct(label_ids), scored.rank
            f1 = max(2 * correct[rank < k].sum() / ((rank < k).sum() + gold) for k in _TUNING_CUTS)
            best = max(best, (float(f1), self.settings), key=lambda pair: pair[0])
        self.settings = best[1]
        logger.info("Retrieval has micro F1 %.4f on the validation rows with %s.", *best)
        return self.settings

    def extended(self, names: Iterable[str]) -> DenseRetriever:
        """A retriever that also knows new labels, appended in the given order, by their names."""
        new = embed_texts(list(names), self.encoder, max_length=self.settings.max_length, progress=False)
        labels = csr_matrix((self.labels.data, self.labels.indices, self.labels.indptr),
                            shape=(self.labels.shape[0], len(self) + len(new)))  # fmt: skip
        names = np.concatenate([self.names, new])
        return DenseRetriever(self.encoder, self.documents, names, labels, self.fingerprints, self.settings)

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
        }
        write_tensors(folder / _TENSORS_FILE, tensors)
        write_json(folder / _SETTINGS_FILE, {"format_version": _FORMAT_VERSION, **asdict(self.settings)})

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
        settings = _checked_settings(folder / _SETTINGS_FILE)
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
        return cls(encoder, tensors["documents"], tensors["names"], labels, tensors["fingerprints"], settings)


@dataclass(frozen=True)
class _Found:
    """What is near to `Q` queries, before it is weighed.

    Attributes:
        text, labels, cosine: query, label, and cosine of its name, of each of `M` candidates, by query and label.
        near, similarity: nearest training texts and their cosines, `(Q, neighbors)`.
    """

    text: np.ndarray
    labels: np.ndarray
    cosine: np.ndarray
    near: np.ndarray
    similarity: np.ndarray

    @classmethod
    def joined(cls, blocks: list[_Found]) -> _Found:
        """One behind the other."""
        if not blocks:
            nothing = np.zeros(0, dtype=np.int64)
            return cls(nothing, nothing, np.zeros(0), np.zeros((0, 1), dtype=np.int64), np.zeros((0, 1)))
        before = np.cumsum([0, *(len(block.near) for block in blocks[:-1])])
        text = np.concatenate([block.text + first for block, first in zip(blocks, before, strict=True)])
        others = ("labels", "cosine", "near", "similarity")
        return cls(text, *(np.concatenate([getattr(block, name) for block in blocks]) for name in others))


def _best(values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the `size` greatest values of each row and those values, greatest first, `(Q, size)` each."""
    columns = np.argpartition(-values, size - 1, axis=1)[:, :size] if size < values.shape[1] else None
    columns = np.broadcast_to(np.arange(values.shape[1]), values.shape) if columns is None else columns
    found = np.take_along_axis(values, columns, axis=1)
    order = np.lexsort((columns, -found), axis=1)
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(found, order, axis=1)


def _fingerprints(texts: Sequence[str]) -> np.ndarray:
    """A number of 64 bits for each text, `(N,)`, int64, the same on every machine."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def _label_matrix(label_ids: Sequence[Sequence[int]], num_labels: int) -> csr_matrix:
    """Rows of label ids -> `(N, L)`, 1 where a text has a label."""
    start = np.cumsum([0, *map(len, label_ids)])
    ids = np.fromiter((label for row in label_ids for label in row), dtype=np.int32, count=int(start[-1]))
    return csr_matrix((np.ones(len(ids), np.float32), ids, start), shape=(len(label_ids), num_labels))


def _checked_settings(path: Path) -> RetrievalSettings:
    content = read_json(path)
    known = set(RetrievalSettings.__dataclass_fields__)
    if (
        not isinstance(content, dict)
        or content.pop("format_version", None) != _FORMAT_VERSION
        or set(content) != known
    ):
        raise ModelFolderError(f"{path}: format_version {_FORMAT_VERSION} and the fields {sorted(known)} are needed.")
    try:
        return RetrievalSettings(**content)
    except ConfigurationError as err:
        raise ModelFolderError(f"{path}: {err}") from err


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
