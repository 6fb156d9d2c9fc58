"""Label trees of Omikuji over TF-IDF features: how they rank labels, and how a model folder keeps them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from ..errors import MissingExtraError, ModelFolderError, XLGenError
from ..files.schema import Fields, boolean, integer, strings
from ..files.tensor_schema import Tensors, tensor
from ..labels.changes import LabelChange
from .scored_labels import Row, ScoredLabels
from .words import folded, word_pattern

__all__ = ["LabelTrees", "Ranked", "TfidfSettings", "TreeModel", "load_trees", "quiet_omikuji", "rank_by_trees"]

_SETTINGS_FILE = "label_trees.json"
_TENSORS_FILE = "label_trees.safetensors"
_TREES_FOLDER = "trees"
_LARGEST_BEAM = 10_000
_WIDER = 4  # times the beam, where it ends in too few labels


class _Settings(TypedDict):
    longest_ngram: int
    min_df: int
    sublinear: bool
    beam_size: int
    n_trees: int


class _TreesContent(TypedDict):
    settings: _Settings
    terms: list[str]


_SETTINGS = Fields[_Settings](
    {
        "longest_ngram": integer(minimum=1, maximum=10),
        "min_df": integer(minimum=1),
        "sublinear": boolean(),
        "beam_size": integer(minimum=1, maximum=_LARGEST_BEAM),
        "n_trees": integer(),
    }
)
_TREES_FORM = Fields[_TreesContent](
    {"settings": _SETTINGS, "terms": strings(min_length=1, unique=True)}, format_version=1, made_by="xlgen index"
)
_TENSORS = Tensors(
    {
        "idf": tensor(np.float32, "F"),
        "labels": tensor(np.int64, "C", minimum=-1, maximum="L-1"),
        "added": tensor(np.int64, "A", minimum=0, maximum="L-1"),
    },
    optional=["added"],
    not_empty=["C"],
    made_by="xlgen index",
)
_NOTHING: Row = ((), (), ())
_NO_LABEL = -1
# Characters of a word, as in scikit-learn; its own words end at marks, and are whole sentences in Japanese.
_SHORTEST = 2

Ranked = list[tuple[list[int], list[float]]]
"""Column numbers, or ids, of the best labels of each text, none twice, and their scores."""


class TreeModel(Protocol):
    """What is used of Omikuji's `Model`."""

    n_features: int
    n_trees: int

    def predict(self, features: list[tuple[int, float]], *, beam_size: int, top_k: int) -> list[tuple[int, float]]:
        """Best columns of a text with these feature numbers and values, and their scores."""

    def save(self, path: str) -> None:
        """Write the trees into a folder."""


@dataclass(frozen=True)
class TfidfSettings:
    """How texts become features: TF-IDF of words and runs of words, each text's vector of length 1.

    Attributes:
        longest_ngram: words that a feature spans at most, from 1.
        min_df: training texts that a feature needs, from 1.
        sublinear: whether a feature that a text holds `n` times counts `1 + log(n)` times.
    """

    longest_ngram: int = 2
    min_df: int = 1
    sublinear: bool = True

    def vectorizer(self, terms: list[str] | None = None) -> TfidfVectorizer:
        """A vectorizer that is not fitted; it keeps to the terms, if there are some."""
        return TfidfVectorizer(
            ngram_range=(1, self.longest_ngram),
            min_df=self.min_df,
            sublinear_tf=self.sublinear,
            dtype=np.float32,
            vocabulary=terms,
            preprocessor=folded,
            token_pattern=word_pattern(_SHORTEST),
        )


@dataclass
class LabelTrees:
    """Ranks labels by a trained Parabel or Bonsai; only labels that training rows had are ever ranked.

    Attributes:
        settings: how texts become features.
        vectorizer: a fitted one with these settings.
        labels: label id of each column of the trees, `(C,)`; -1 where the label was removed. Columns of labels that
            were merged have the same one.
        trees: the model of Omikuji.
        beam_size: nodes per level from which prediction continues, at least 1.
        added: ids of labels that came after the training: that they are not ranked says nothing, `(A,)`.
    """

    settings: TfidfSettings
    vectorizer: TfidfVectorizer
    labels: np.ndarray
    trees: TreeModel
    beam_size: int = 10
    added: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @cached_property
    def _one_each(self) -> bool:
        """Whether no two columns are of one label, or of removed ones; of many columns it takes as long as a batch."""
        return len(np.unique(self.labels)) == len(self.labels)

    def rank(self, texts: Sequence[str], k: int = 50, allowed: np.ndarray | None = None) -> ScoredLabels:
        """The best labels of each text, at most `k`; see [`CandidateSource`].

        Args:
            texts: the texts.
            k: labels for each text, at least 1; fewer where training rows had fewer of those to choose from. For texts
                where the beam ends in fewer it is widened, and what it finds then comes after the others.
            allowed: ids of the labels to choose from; all if None.

        Returns:
            Candidates with scores clipped into [0, 1]; none is chosen.
        """
        is_open = self.labels >= 0 if allowed is None else np.isin(self.labels, allowed)
        k = min(k, int(is_open.sum()) if self._one_each else len(np.unique(self.labels[is_open])))
        found = ScoredLabels.from_rows([_NOTHING] * len(texts))
        if not k or not len(texts):
            return found
        features, beam_size = csr_matrix(self.vectorizer.transform(list(texts))), self.beam_size
        while len(lacking := np.flatnonzero(np.diff(found.start) < k)):
            rows: list[Row] = [_NOTHING] * len(texts)
            for row, of_text in zip(lacking, self._rows(features[lacking], k, beam_size, is_open), strict=True):
                rows[row] = of_text
            found = found.followed_by(ScoredLabels.from_rows(rows), k)
            if beam_size >= len(self.labels):  # no level has more nodes
                break
            beam_size *= _WIDER
        return found

    def _rows(self, features: csr_matrix, k: int, beam_size: int, is_open: np.ndarray) -> Iterator[Row]:
        """The `k` best open columns of each text that a beam of this size finds."""
        at_once = k if is_open.all() and self._one_each else len(is_open)
        for columns, scores in rank_by_trees(self.trees, features, at_once, beam_size):
            kept, labels = np.flatnonzero(is_open[columns]), self.labels[columns]
            if not self._one_each:
                kept = kept[np.sort(np.unique(labels[kept], return_index=True)[1])]
            kept = kept[:k]
            yield labels[kept], np.clip(scores, 0.0, 1.0)[kept], np.zeros(len(kept), dtype=bool)

    def save(self, folder: str | Path) -> None:
        """Write features, labels and trees (Omikuji's own files, CBOR) into a folder of its own."""
        folder = Path(folder)
        terms = self.vectorizer.get_feature_names_out().tolist()
        settings: _Settings = {
            "longest_ngram": self.settings.longest_ngram,
            "min_df": self.settings.min_df,
            "sublinear": self.settings.sublinear,
            "beam_size": self.beam_size,
            "n_trees": self.trees.n_trees,
        }
        _TREES_FORM.write(folder / _SETTINGS_FILE, {"settings": settings, "terms": terms})
        idf = np.asarray(self.vectorizer.idf_, dtype=np.float32)
        arrays: dict[str, np.ndarray] = {"idf": idf, "labels": self.labels.astype(np.int64), "added": self.added}
        _TENSORS.write(folder / _TENSORS_FILE, arrays)
        with quiet_omikuji(f"Omikuji cannot write to {folder}", ModelFolderError):
            self.trees.save(str(folder / _TREES_FOLDER))

    def relabelled(self, change: LabelChange) -> LabelTrees:
        """The same trees for a changed label space.

        Of merged labels the best column counts; columns of removed labels are passed over; a label that no training
        text had is never among what they rank.
        """
        labels = np.where(self.labels >= 0, change.target[self.labels], _NO_LABEL)
        added = np.union1d(change.target[self.added], np.flatnonzero(change.origin < 0))
        added = np.setdiff1d(added, [_NO_LABEL, *labels])  # a label that was merged with a trained one has a column
        return replace(self, labels=labels, added=added.astype(np.int64))

    @classmethod
    def load(cls, folder: str | Path, *, num_labels: int) -> LabelTrees:
        """Read and check what [`save`] wrote.

        Args:
            folder: the folder.
            num_labels: labels of the label space that it must fit.

        Raises:
            MissingExtraError: if Omikuji is not installed.
            ModelFolderError: if a file is missing, damaged, or does not fit the others.
        """
        folder = Path(folder)
        content = _TREES_FORM.read(folder / _SETTINGS_FILE)
        given, terms = content["settings"], content["terms"]
        settings = TfidfSettings(given["longest_ngram"], given["min_df"], given["sublinear"])
        tensors, _ = _TENSORS.read(folder / _TENSORS_FILE, {"F": len(terms), "L": num_labels})
        vectorizer = settings.vectorizer(terms)
        vectorizer.idf_ = tensors["idf"]
        trees = load_trees(folder / _TREES_FOLDER, threads=1)
        if trees.n_features != len(terms):
            raise ModelFolderError(f"{folder}: trees of {trees.n_features} features come with {len(terms)} terms.")
        if trees.n_trees != given["n_trees"]:
            raise ModelFolderError(
                f"{folder / _TREES_FOLDER} holds {trees.n_trees} trees where {given['n_trees']} were saved."
            )
        # A text without terms reaches every column; more of them than labels show themselves by their numbers.
        ranked = rank_by_trees(trees, csr_matrix((1, len(terms)), dtype=np.float32), num_labels + 1, _LARGEST_BEAM)
        if max(ranked[0][0], default=0) >= len(tensors["labels"]):
            raise ModelFolderError(
                f"{folder}: the trees rank more columns than the {len(tensors['labels'])} labels in {_TENSORS_FILE}; "
                "they are of different trainings. Make them again."
            )
        # An earlier version counted a new label as one that came later after it was merged with a trained one, too.
        added = np.setdiff1d(tensors.get("added", np.zeros(0, dtype=np.int64)), tensors["labels"])
        return cls(settings, vectorizer, tensors["labels"], trees, given["beam_size"], added)


def load_trees(folder: Path, threads: int) -> TreeModel:
    """Omikuji's model of a folder.

    Args:
        folder: the folder.
        threads: of prediction.

    Raises:
        MissingExtraError: if Omikuji is not installed.
        ModelFolderError: if it cannot be read.
    """
    if find_spec("omikuji") is None:
        raise MissingExtraError("omikuji", "baselines")
    from omikuji import Model

    with quiet_omikuji(f"Omikuji cannot read the model in {folder}", ModelFolderError):
        model = Model.load(str(folder))
    model.init_prediction_thread_pool(threads)
    trees: TreeModel = model
    return trees


def rank_by_trees(model: TreeModel, features: csr_matrix, top_k: int, beam_size: int) -> Ranked:
    """Best columns of features `(texts, F)`, at most `top_k` each."""
    features.sort_indices()
    ranked: Ranked = []
    for begin, end in zip(features.indptr[:-1], features.indptr[1:], strict=True):
        pairs = zip(features.indices[begin:end].tolist(), features.data[begin:end].tolist(), strict=True)
        found = model.predict(list(pairs), beam_size=beam_size, top_k=top_k)
        ranked.append(([column for column, _ in found], [score for _, score in found]))
    return ranked


@contextmanager
def quiet_omikuji(problem: str, error: type[XLGenError]) -> Iterator[None]:
    """Keep what Omikuji writes to the process's output, results being there, and tell it where something fails.

    It writes from Rust, past `sys.stdout`, so the file descriptors themselves lead elsewhere for the time being.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        kept = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in kept:
                os.dup2(log.fileno(), number)
            yield
        except RuntimeError as err:
            log.seek(max(log.tell() - 2000, 0))
            said = log.read().decode(errors="replace").replace("\r", "\n").strip().splitlines()[-3:]
            raise error(f"{problem}: {err} It said: {' / '.join(said)}") from err
        finally:
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
