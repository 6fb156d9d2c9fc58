"""Retrieval of candidate labels: those of similar training texts, and those whose names resemble the text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from scipy.sparse import csr_matrix

from ..encoders.embedding import embed_texts, recipe_of
from ..encoders.recipe import EmbeddingRecipe, Side
from ..encoders.token_vectors import TokenVectors
from ..errors import ConfigurationError, ModelFolderError
from ..files.serialization import map_tensors, write_tensors
from ..labels.changes import LabelChange
from ..labels.space import LabelSpace
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import TextBatch
from .documents import DocumentNames, PackedStrings
from .index_parts import FURTHER, FURTHER_CALLED, fingerprints_of, label_matrix, tensor_problem
from .lexical import LexicalIndex
from .near_lists import NearLists, NearSearch
from .near_names import nearest_names
from .retriever_encoder import RetrieverEncoder, encoder_of_checkpoint, load_retriever_encoder, width_of
from .search import ExactSearch, Names, VectorSearch
from .spelling import Spelling, encoded_texts, nearest_texts
from .weighing import RetrievalSettings, RetrievedCandidates, read_settings, write_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


__all__ = ["RETRIEVER_SETTINGS_FILE", "LabelRetriever", "RetrievalSettings"]

logger = logging.getLogger(__name__)

RETRIEVER_SETTINGS_FILE = "retriever.json"
_TENSORS_FILE = "retriever.safetensors"
_HELD = (
    "encoder", "documents", "names", "labels", "fingerprints", "settings", "lexical", "recipe", "further",
    "document_names", "further_names", "lists",
)  # fmt: skip
_QUERIES_AT_ONCE = 256
_SAMPLED_NAMES = 1000
_SPELLED_AT_ONCE = 20_000_000  # similarities of names by spelling: 80 MB


class LabelRetriever:
    """Finds candidate labels by search over embeddings of training texts and label names; exact, unless it has lists.

    Args:
        encoder: the encoder and its tokenizer.
        documents: embeddings of the `N` training texts, rows of length 1, `(N, H)`; kept in 16 bits.
        names: embeddings of the label names and, after them, of the further names, rows of length 1, `(L + A, H)`.
        labels: which text has which label, `(N, L)`, sparse, 1 where it has.
        fingerprints: of the training texts, `(N,)`, int64; equal where texts are equal.
        settings: how similarities become scores.
        lexical: texts and the same names by their spelling, which then count too; None leaves them out.
        recipe: how texts become embeddings: pooling, and the prompts of queries (texts to predict labels for) and of
            passages (training texts and label names).
        further: label ids of the `A` further names, ascending, `(A,)`: aliases, and names in other languages. The one
            most like a text counts for its label. None for none.
        document_names: what evidence calls the training texts; by their place in the index, from 1, if None.
        further_names: the `A` further names themselves; None where they are not known.
        lists: of `documents` and `names`, by these names: what is searched approximately. None for exact search.

    Source: the neighbours' part follows Chang et al., "PEFA", WSDM 2024, the names' part zero-shot retrieval by label
    text.
    """

    def __init__(
        self,
        encoder: RetrieverEncoder,
        documents: np.ndarray,
        names: np.ndarray,
        labels: csr_matrix,
        fingerprints: np.ndarray,
        settings: RetrievalSettings | None = None,
        lexical: LexicalIndex | None = None,
        recipe: EmbeddingRecipe | None = None,
        further: np.ndarray | None = None,
        document_names: DocumentNames | None = None,
        further_names: PackedStrings | None = None,
        lists: Mapping[str, NearLists] | None = None,
    ) -> None:
        self.encoder = encoder
        self.documents = np.asarray(documents, dtype=np.float16)
        self.names = np.asarray(names, dtype=np.float16)
        self.labels = labels
        self.fingerprints = np.asarray(fingerprints, dtype=np.int64)
        self.settings = settings or RetrievalSettings()
        self.lexical = lexical
        self.recipe = recipe or EmbeddingRecipe()
        self.further = np.asarray([] if further is None else further, dtype=np.int32)
        self.document_names = document_names
        self.further_names = further_names
        self.names_by_label = Names(self.names, self.further)
        self._reported: set[int] = set()  # lengths at which the log has said that texts are cut
        self.lists = dict(lists or {})

    def __len__(self) -> int:
        """The number of labels `L`."""
        return len(self.names) - len(self.further)

    @property
    def width(self) -> int:
        """Size `H` of an embedding."""
        return int(self.names.shape[1])

    @cached_property
    def mean_name(self) -> np.ndarray:
        """About the mean of the names, `(H,)`, float32: that of some all over the label space."""
        return self.names[:: max(1, len(self.names) // _SAMPLED_NAMES)].mean(axis=0, dtype=np.float32)

    @property
    def named_documents(self) -> DocumentNames:
        """What evidence calls the training texts; their numbers where nothing else was given."""
        known = self.document_names
        return DocumentNames.of(map(str, range(1, len(self.documents) + 1)), []) if known is None else known

    @classmethod
    def fit(
        cls,
        label_space: LabelSpace,
        texts: Sequence[str],
        label_ids: Sequence[Sequence[int]],
        encoder: str | tuple[PreTrainedModel, PreTrainedTokenizerBase],
        *,
        recipe: EmbeddingRecipe | None = None,
        settings: RetrievalSettings | None = None,
        lexical: bool = False,
        further: Sequence[tuple[int, str]] = (),
        document_names: DocumentNames | None = None,
        cache_dir: str | Path | None = None,
        progress: bool = True,
    ) -> LabelRetriever:
        """Embed training texts and label names.

        Args:
            label_space: the labels.
            texts: `N` training texts.
            label_ids: the label ids of each text.
            encoder: checkpoint of an encoder, or an encoder with its tokenizer.
            recipe: how texts become embeddings; see [`recipe_of`] if None.
            settings: how similarities become scores.
            lexical: index texts and names by their spelling, too; it counts as far as the settings, or [`tune`], say.
            further: label ids and further names of theirs, ids ascending; see the class.
            document_names: what evidence calls the texts; see the class.
            cache_dir: where embeddings are kept between runs.
            progress: show progress bars on a terminal.

        Raises:
            CheckpointError: if the encoder cannot be loaded.
            ConfigurationError: if there are no texts, or their number is not that of the label lists.
        """
        if not len(texts) or len(texts) != len(label_ids):
            raise ConfigurationError(f"{len(texts)} texts come with {len(label_ids)} label lists; one for each.")
        settings = settings or RetrievalSettings()
        recipe = recipe_of(encoder) if recipe is None else recipe
        loaded = encoder_of_checkpoint(encoder, recipe) if isinstance(encoder, str) else encoder
        embed = partial(
            embed_texts,
            encoder=loaded,
            recipe=recipe,
            max_length=settings.max_length,
            cache_dir=cache_dir,
            progress=progress,
        )
        all_names = [*label_space.names, *(name for _, name in further)]
        documents, names = (embed(some).astype(np.float16) for some in (texts, all_names))
        matrix, spelled = label_matrix(label_ids, len(label_space)), None
        if lexical:
            spelled = LexicalIndex.fit(texts, all_names)
        ids = np.array([label for label, _ in further], dtype=np.int32)
        known = (documents, names, matrix, fingerprints_of(texts))
        called = PackedStrings.of(name for _, name in further)
        return cls(loaded, *known, settings, spelled, recipe, ids, document_names, called)

    # ------------------------------------------------------------------------------------------------ searching

    def embed(
        self,
        texts: Sequence[str],
        *,
        side: Side = "query",
        progress: bool = False,
        token_vectors: TokenVectors | None = None,
    ) -> np.ndarray:
        """Embeddings of texts, as queries or passages, `(B, H)`, rows of length 1; see [`embed_texts`]."""
        return embed_texts(
            list(texts),
            self.encoder,
            recipe=self.recipe,
            side=side,
            max_length=self.settings.max_length,
            progress=progress,
            token_vectors=token_vectors,
            reported=self._reported,
        )

    def rank(self, texts: Sequence[str], k: int = 50, allowed: np.ndarray | None = None) -> ScoredLabels:
        """The best labels of each text; see [`CandidateSource`].

        A [`TextBatch`] is embedded and searched once, for its own depth and allowed labels, whoever asks.

        Args:
            texts: the texts.
            k: labels for each text, at least 1.
            allowed: ids of the labels to choose from; all if None.

        Returns:
            `k` labels for each text (fewer if there are fewer to choose from), scores in [0, 1], and their parts, see
            [`RetrievalSettings`]; none is chosen.

        Raises:
            ConfigurationError: if `k` is below 1.
        """
        if k < 1:
            raise ConfigurationError(f"k={k}; it must be an integer >= 1.")
        batch = TextBatch.of(texts)
        return self.searched(batch, k, allowed).weigh(self.settings, self.labels, k, allowed, batch.given)

    def searched(self, batch: TextBatch, k: int = 1, allowed: np.ndarray | None = None) -> RetrievedCandidates:
        """What [`rank`] weighs; see there for the arguments."""
        sets = {one.tobytes(): one for one in (batch.allowed, allowed) if one is not None}
        searches: dict[int, RetrievedCandidates] = batch.once(self, ("searches", *sets), dict)
        depth = next((depth for depth in searches if depth >= k), max(k, batch.depth))
        if depth not in searches:
            queries, choices = self.queries(batch), list(sets.values())
            searches[depth] = self.find(queries, depth, allowed=choices, texts=batch, settings=self.settings)
        return searches[depth]

    def queries(self, batch: TextBatch) -> np.ndarray:
        """Embeddings of the texts of a batch, `(B, H)`, made once."""
        vectors = self.token_vectors(batch) if batch.explained else None
        return batch.once(
            self, "queries", lambda: self._embed_new(batch.texts, self.same_texts(batch.texts), token_vectors=vectors)
        )

    def token_vectors(self, batch: TextBatch) -> TokenVectors:
        """Hidden states of the tokens of a batch that is to be explained; there once it has been searched."""
        return batch.once(self, "token vectors", TokenVectors)

    def rank_training_texts(self, texts: Sequence[str], k: int, *, progress: bool = False) -> ScoredLabels:
        """What [`rank`] finds for texts that may be among the indexed ones, with none of them finding itself.

        Args:
            texts: the texts; leave-one-out: for the candidates that a model is trained with.
            k: labels for each text, at least 1.
            progress: show a progress bar on a terminal.
        """
        same = self.same_texts(texts)
        queries = self._embed_new(texts, same, progress=progress)
        found = self.find(queries, k, hidden=same, texts=list(texts), settings=self.settings)
        return found.weigh(self.settings, self.labels, k)

    def _embed_new(
        self,
        texts: Sequence[str],
        same: csr_matrix,
        *,
        progress: bool = False,
        token_vectors: TokenVectors | None = None,
    ) -> np.ndarray:
        """Embeddings of texts, `(Q, H)`; those of the index serve again, where queries have no other prompt."""
        if not self.recipe.is_symmetric:
            return self.embed(texts, progress=progress, token_vectors=token_vectors)
        known = np.diff(same.indptr) > 0
        new = ~known if token_vectors is None else np.ones(len(texts), dtype=bool)  # tokens come from embedding alone
        queries = np.empty((len(texts), self.width), dtype=np.float32)
        to_embed = [texts[i] for i in np.flatnonzero(new).tolist()]
        queries[new] = self.embed(to_embed, progress=progress, token_vectors=token_vectors)
        queries[known] = self.documents[same.indices[same.indptr[:-1][known]]]
        return queries

    @cached_property
    def _by_fingerprint(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the training texts by fingerprint, and the fingerprints in this order, `(N,)` each."""
        order = np.argsort(self.fingerprints, kind="stable")
        return order, self.fingerprints[order]

    def same_texts(self, texts: Sequence[str]) -> csr_matrix:
        """Which training text is which of these texts, `(Q, N)`."""
        given = fingerprints_of(texts)
        order, known = self._by_fingerprint
        first, last = (np.searchsorted(known, given, side) for side in ("left", "right"))
        found = [order[low:high] for low, high in zip(first, last, strict=True)]
        start = np.concatenate([[0], np.cumsum(last - first)])
        columns = np.concatenate([*found, np.empty(0, np.int64)])
        return csr_matrix((np.ones(len(columns), bool), columns, start), shape=(len(given), len(order)))

    def find(
        self,
        queries: np.ndarray,
        k: int,
        *,
        hidden: csr_matrix | None = None,
        allowed: Sequence[np.ndarray] = (),
        texts: Sequence[str] | None = None,
        settings: RetrievalSettings | None = None,
    ) -> RetrievedCandidates:
        """Nearest texts, their labels, and the labels with the nearest names, block by block.

        Without a near text a label has but its name, so the `k` labels with the nearest names and the labels of the
        near texts hold the `k` best: exactly, whatever larger `k` was searched for.

        Args:
            queries: embeddings, `(Q, H)`.
            k: labels of each query that will be asked for.
            hidden: training texts that must not count, `(Q, N)`, sparse; none if None.
            allowed: sets of label ids; `k` labels of each of them are found as well.
            texts: what was embedded; if None, character n-grams do not count.
            settings: how both kinds of nearness of names are weighed. If None, the weights are still to be chosen: the
                nearest names of each kind are found, and a label that is good in the sum and far down in both may be
                missed.
        """
        step = _QUERIES_AT_ONCE
        if self.lexical is not None and texts is not None and (allowed or "names" not in self.lists):
            step = max(1, min(step, _SPELLED_AT_ONCE // len(self.names)))
        choices = [np.arange(len(self)), *map(np.unique, allowed)]
        blocks = []
        for begin in range(0, len(queries), step):
            block = slice(begin, begin + step)
            hidden_here = None if hidden is None else hidden[block]
            spelling = None
            if self.lexical is not None and texts is not None:
                spelling = Spelling(self.lexical, self.names_by_label, encoded_texts(self.lexical, texts, block))
            blocks.append(self._find_block(queries[block], k, choices, hidden_here, spelling, settings))
        return RetrievedCandidates.joined(blocks)

    def _find_block(
        self,
        queries: np.ndarray,
        k: int,
        choices: Sequence[np.ndarray],
        hidden: csr_matrix | None,
        spelling: Spelling | None,
        settings: RetrievalSettings | None,
    ) -> RetrievedCandidates:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        neighbors = min(self.settings.neighbors, len(self.documents))
        in_texts, in_names = self._search("documents"), self._search("names") if "names" in self.lists else None
        near = nearest_texts(in_texts, queries, neighbors, hidden, spelling, approximate="documents" in self.lists)
        keys = [nearest_names(self.names_by_label, queries, k, choices, spelling, settings, in_names)]
        for documents, similarity in near:
            row, place = np.nonzero(similarity > -np.inf)
            of_near = self.labels[documents[row, place]]
            keys.append(np.repeat(row, np.diff(of_near.indptr)) * len(self) + of_near.indices)
        text, labels = np.divmod(np.unique(np.concatenate(keys)), len(self))
        entry, rows = self.names_by_label.rows(labels)
        of_pairs = self.names_by_label.pairs(queries, text[entry], rows)
        of_names = [self.names_by_label.best_of_labels(entry, of_pairs)]
        if spelling is not None:
            of_names.append(spelling.of_pairs(text, labels))
        return RetrievedCandidates(text, labels, of_names, near)

    def _search(self, what: Literal["documents", "names"]) -> VectorSearch:
        """What finds the nearest of the documents, or of the names."""
        vectors = self.documents if what == "documents" else self.names
        return NearSearch(vectors, self.lists[what]) if what in self.lists else ExactSearch(vectors)

    # ------------------------------------------------------------------------------------------------ changes

    def _with(self, **changed: object) -> LabelRetriever:
        """The same index with other parts, by their names in the class."""
        made = LabelRetriever(**{**{name: getattr(self, name) for name in _HELD}, **changed})
        made._reported = self._reported
        return made

    def with_settings(self, settings: RetrievalSettings, *, lexical: bool = True) -> LabelRetriever:
        """The same index with other settings, without its lexical part if that is not wanted."""
        return self._with(settings=settings, lexical=self.lexical if lexical else None)

    def with_lists(self, lists: Mapping[str, NearLists]) -> LabelRetriever:
        """The same index, searched approximately where there are lists; see the class."""
        return self._with(lists=lists)

    def with_encoder(self, encoder: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> LabelRetriever:
        """The same index with another copy of its encoder, such as one that computes in other numbers."""
        return self._with(encoder=encoder)

    def relabelled(self, change: LabelChange) -> LabelRetriever:
        """The same index for a changed label space.

        New names are embedded, names that were merged into another label become further names of it, and training
        texts whose labels were all removed are left out.
        """
        names, old = change.named_before, len(self)
        further = np.concatenate([change.target[self.further], change.target[change.merged]])
        rows = np.concatenate([old + np.arange(len(self.further)), change.merged])
        order = np.argsort(further, kind="stable")
        order = order[further[order] >= 0]
        kept, new = np.concatenate([names, rows[order]]), np.flatnonzero(names < 0)
        new_names = change.after.decode(new.tolist())
        vectors, lists = self.names[kept], dict(self.lists)
        if len(new):
            vectors[new] = self.embed(new_names, side="passage")
        if "names" in lists:
            place = np.where(kept >= 0, kept, len(self.names) + np.cumsum(kept < 0) - 1)
            lists["names"] = lists["names"].extended(vectors[new]).take(place)
        labels = change.columns_of(self.labels)
        called = self.further_names or PackedStrings.of(change.before.decode(self.further.tolist()))
        present = [*change.before.names, *called[:]]
        lexical = None if self.lexical is None else self.lexical.with_names(kept, new_names, present)
        called = (called + PackedStrings.of(change.before.decode(change.merged.tolist()))).take(order)
        further_parts = {"further": further[order], "further_names": called}
        made = self._with(names=vectors, labels=labels, lexical=lexical, lists=lists, **further_parts)
        lost = (np.diff(labels.indptr) == 0) & (np.diff(self.labels.indptr) > 0)
        return made.of_documents(np.flatnonzero(~lost)) if lost.any() else made

    def with_documents(
        self,
        documents: np.ndarray,
        labels: csr_matrix,
        fingerprints: np.ndarray,
        lexical: LexicalIndex | None,
        document_names: DocumentNames,
        lists: Mapping[str, NearLists],
    ) -> LabelRetriever:
        """The same index with other training texts; the arguments are those of the class."""
        texts = {"documents": documents, "labels": labels, "fingerprints": fingerprints}
        return self._with(**texts, lexical=lexical, document_names=document_names, lists=lists)

    def of_documents(self, kept: np.ndarray) -> LabelRetriever:
        """The index of some of its training texts alone, by their numbers, ascending."""
        lexical = None if self.lexical is None else self.lexical.with_documents(kept, [])
        lists = {name: one.take(kept) if name == "documents" else one for name, one in self.lists.items()}
        parts = (self.documents[kept], self.labels[kept], self.fingerprints[kept])
        return self.with_documents(*parts, lexical, self.named_documents.take(kept), lists)

    # ------------------------------------------------------------------------------------------------ saving

    def save(self, folder: str | Path) -> None:
        """Write encoder, tokenizer, embeddings (16 bits) and settings into a folder of its own.

        Raises:
            OSError: if the folder cannot be written.
        """
        folder = Path(folder)
        model, tokenizer = self.encoder
        model.save_pretrained(folder)  # which an exported one refuses
        cast("PreTrainedTokenizerBase", tokenizer).save_pretrained(folder)
        tensors = {
            "documents": self.documents,
            "names": self.names,
            "label_start": self.labels.indptr.astype(np.int64),
            "label_ids": self.labels.indices.astype(np.int32),
            "fingerprints": self.fingerprints,
            **({FURTHER: self.further} if len(self.further) else {}),
            **(self.further_names.tensors(FURTHER_CALLED) if self.further_names else {}),
            **({} if self.lexical is None else self.lexical.tensors()),
            **({} if self.document_names is None else self.document_names.tensors()),
        }
        for name, one in self.lists.items():
            tensors |= one.tensors(name)
        write_tensors(folder / _TENSORS_FILE, tensors)
        approximate = {name: one.facts for name, one in self.lists.items()}
        write_settings(folder / RETRIEVER_SETTINGS_FILE, self.settings, self.recipe, approximate)

    @classmethod
    def load(cls, folder: str | Path, *, num_labels: int) -> LabelRetriever:
        """Read and check what [`save`] wrote.

        Args:
            folder: the folder.
            num_labels: labels of the label space that it must fit.

        Raises:
            ModelFolderError: if a file is missing, damaged, or does not fit the others.
        """
        folder = Path(folder)
        settings, recipe, approximate = read_settings(folder / RETRIEVER_SETTINGS_FILE)
        path = folder / _TENSORS_FILE
        tensors, _ = map_tensors(path)
        problem = tensor_problem(tensors, num_labels)
        if problem:
            raise ModelFolderError(f"{path}: {problem}")
        encoder = load_retriever_encoder(folder, recipe)
        width, own = width_of(encoder[0]), tensors["names"].shape[1]
        if width != own:
            raise ModelFolderError(f"{path}: embeddings of {own} numbers, the encoder's have {width}.")
        start, ids = tensors["label_start"], tensors["label_ids"]
        labels = csr_matrix((np.ones(len(ids), np.float32), ids, start), shape=(len(start) - 1, num_labels))
        try:
            lexical = LexicalIndex.from_tensors(tensors, labels.shape[0], len(tensors["names"]))
            document_names = DocumentNames.from_tensors(tensors, labels.shape[0])
            called = PackedStrings.from_tensors(tensors, FURTHER_CALLED, len(tensors.get(FURTHER, ())))
            lists = {name: NearLists.from_tensors(tensors, name, facts) for name, facts in approximate.items()}
        except ValueError as err:
            raise ModelFolderError(f"{path}: {err}") from err
        known = (tensors["documents"], tensors["names"], labels, tensors["fingerprints"])
        return cls(encoder, *known, settings, lexical, recipe, tensors.get(FURTHER), document_names, called, lists)
