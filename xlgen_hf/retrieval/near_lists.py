"""Approximate search: vectors in lists around centroids, of which a query looks into the nearest ones alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from scipy.sparse import csr_matrix

from ..encoders.threads import num_threads
from ..errors import ConfigurationError, MissingExtraError
from .search import Found, best_first, nearest, similarity_of_pairs

if TYPE_CHECKING:
    import faiss

__all__ = ["NearFacts", "NearLists", "NearSearch", "fit_lists"]

logger = logging.getLogger(__name__)

_GOAL = 0.98  # recall on the queries that the width is chosen with
_DEPTH = 50  # nearest vectors that recall is about
_FEWEST_COMPARED, _MOST_COMPARED = 10, 160  # times as many as are wanted, of those that look nearest by their codes
_EQUAL = 1e-6  # two similarities
_TRAINED_ON = 32  # vectors for each centroid
_ROUNDS = 8  # of k-means
_BITS = 4  # of the code of a group of numbers, as the registers of a processor look codes up
_TAUGHT = 50_000  # vectors that groups are learned from
_LEAST_RELEASE = (1, 13, 2)  # of faiss
_ROWS_AT_ONCE = 50_000
_COMPARED = 64  # codes that are made again when they are read
_ALIKE = 0.95  # fraction of their bytes that must be the same: machines round differently
_LIST_PARTS: dict[str, type] = {
    "centroids": np.float32, "codebooks": np.float32, "lists": np.int32, "codes": np.uint8,
}  # fmt: skip


class NearFacts(TypedDict):
    """Of [`NearLists`], what a folder keeps besides the arrays."""

    width: int
    compared: int
    recall: float


@dataclass(frozen=True)
class NearLists:
    """Where each of `N` vectors lies, so that few of them have to be looked at.

    All of it is arrays with a row for each vector, or list: vectors are taken out, put into another order and added as
    rows are. The library's index is made of them in memory; no file of the library is read or written.

    Attributes:
        centroids: `(C, H)`, float32.
        codebooks: for each of `G` groups of one or two numbers of what a vector has more than its centroid the 16 that
            stand for all, `(G, 16, H / G)`, float32; `G` is `H / 2`, or `H` where that is odd.
        lists: the centroid of each vector, `(N,)`, int32.
        codes: what the vectors are recognised by: of each group which of the 16 is nearest, two groups a byte,
            `(N, G / 2)`, uint8.
        width: lists that a query looks into, from 1 to `C`.
        compared: a query is compared with 50 times as many vectors, of those that look nearest.
        recall: fraction of the 50 nearest vectors that were found when the lists were made.

    Source: inverted lists with the codes of Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor
    Search", 2011, which are looked up in registers as in André, Kermarrec and Le Scouarnec, "Cache locality is not
    enough", VLDB 2015; both as faiss has them.
    """

    centroids: np.ndarray
    codebooks: np.ndarray
    lists: np.ndarray
    codes: np.ndarray
    width: int
    compared: int
    recall: float

    def __len__(self) -> int:
        """The number of vectors `N`."""
        return len(self.lists)

    @cached_property
    def _index(self) -> faiss.IndexIVFPQFastScan:
        """The library's index of these arrays, their codes side by side as its registers take them."""
        library = _faiss()
        pointer, coarse = library.swig_ptr, _coarse(self.centroids)
        index = _empty_index(coarse, self.codebooks)
        order = np.argsort(self.lists, kind="stable").astype(np.int64)
        codes = np.ascontiguousarray(self.codes[order])
        start = np.searchsorted(self.lists[order], np.arange(len(self.centroids) + 1)).tolist()
        assert index.invlists is not None  # as some releases' types allow
        for number, (first, last) in enumerate(pairwise(start)):
            if last > first:
                index.invlists.add_entries(
                    number, last - first, pointer(order[first:last]), pointer(codes[first:last])
                )
        index.ntotal = len(self)
        packed = library.IndexIVFPQFastScan(index)
        packed.own_fields, packed.referenced_objects = False, [coarse]  # which the library does not keep alive
        return packed

    def candidates(self, queries: np.ndarray, count: int, width: int | None = None) -> np.ndarray:
        """Vectors that look near to queries, `(Q, count)`, int64, -1 where there are no more.

        Args:
            queries: `(Q, H)`, float32.
            count: how many for each.
            width: lists that a query looks into; the own number if None.
        """
        count = min(count, len(self))
        if count < 1 or not len(queries):  # which the library refuses
            return np.empty((len(queries), count), np.int64)
        chosen = _faiss().SearchParametersIVF(nprobe=width or self.width)
        found: np.ndarray = self._index.search(queries, count, params=chosen)[1]
        return found

    @property
    def facts(self) -> NearFacts:
        """What is not in the arrays."""
        return {"width": self.width, "compared": self.compared, "recall": round(self.recall, 4)}

    def take(self, rows: np.ndarray) -> NearLists:
        """The lists of some of the vectors, by their numbers, in this order, `(n,)`."""
        return replace(self, lists=self.lists[rows], codes=self.codes[rows])

    def extended(self, vectors: np.ndarray) -> NearLists:
        """The lists of these vectors, and of further ones, `(n, H)`, which come after them."""
        lists, codes = _encoded(self.centroids, self.codebooks, vectors)
        return replace(self, lists=np.concatenate([self.lists, lists]), codes=np.concatenate([self.codes, codes]))

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """What [`from_tensors`] takes, under names that begin with `name`."""
        return {f"{name}_{part}": getattr(self, part) for part in _LIST_PARTS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], name: str, facts: NearFacts) -> NearLists:
        """Check and take what [`tensors`] gave.

        Args:
            tensors: the tensors of an index, with the vectors themselves under `name`.
            name: what their names begin with.
            facts: what [`facts`] gave.

        Raises:
            MissingExtraError: if faiss is not installed.
            ValueError: if something is missing, or does not fit; the message says what.
        """
        vectors, found = tensors[name], [tensors.get(f"{name}_{part}") for part in _LIST_PARTS]
        for (part, kind), values in zip(_LIST_PARTS.items(), found, strict=True):
            if values is None or values.dtype != kind:
                raise ValueError(f"'{name}_{part}' must be there, as {np.dtype(kind).name}.")
        centroids, codebooks, lists, codes = (np.asarray(values) for values in found)
        (number, size), width, groups = vectors.shape, facts["width"], _groups(vectors.shape[1])
        if centroids.ndim != 2 or centroids.shape[1] != size or not 0 < width <= len(centroids):
            raise ValueError(f"'{name}_centroids' {centroids.shape} must be at least {width} rows of {size} numbers.")
        if codebooks.shape != (groups, 2**_BITS, size // groups):
            raise ValueError(f"'{name}_codebooks' {codebooks.shape} do not fit vectors of {size} numbers.")
        if lists.shape != (number,) or codes.shape != (number, -(-groups * _BITS // 8)):
            raise ValueError(f"'{name}_lists' {lists.shape} and '{name}_codes' {codes.shape} do not fit the vectors.")
        if not (np.isfinite(centroids).all() and np.isfinite(codebooks).all()):
            raise ValueError(f"'{name}_centroids' and '{name}_codebooks' hold NaN or infinity.")
        if number and not 0 <= int(lists.min()) <= int(lists.max()) < len(centroids):
            raise ValueError(f"'{name}_lists' leave the {len(centroids)} lists.")
        more = vectors[:_COMPARED].astype(np.float32) - centroids[lists[:_COMPARED]]
        if number and not _are_codes_of(codebooks, codes[:_COMPARED], more):
            raise ValueError(f"'{name}_codes' are not those of the vectors.")
        return cls(centroids, codebooks, lists, codes, **facts)


class NearSearch:
    """Search with [`NearLists`]: what they say is near is scored again by the vectors themselves.

    Args:
        vectors: `(N, H)`, float16 or float32; may be mapped from a file.
        lists: theirs.
        width, compared: see there; those of `lists` if None.
    """

    def __init__(
        self, vectors: np.ndarray, lists: NearLists, width: int | None = None, compared: int | None = None
    ) -> None:
        self._vectors = vectors
        self._lists = lists
        self._width = width
        self._compared = compared or lists.compared

    def nearest(self, queries: np.ndarray, size: int, hidden: csr_matrix | None = None) -> Found:
        """See `VectorSearch`; of vectors in lists that a query does not look into none is found."""
        more = 0 if hidden is None else int(np.diff(hidden.indptr).max(initial=0))
        near = max(2 * size, self._compared * _DEPTH) + more
        rows = self._lists.candidates(queries, near, self._width)
        query = np.repeat(np.arange(len(queries)), rows.shape[1])
        values = similarity_of_pairs(queries, self._vectors, query, rows.reshape(-1)).reshape(rows.shape)
        values[rows < 0] = -np.inf
        if hidden is not None:
            owner, column = hidden.nonzero()
            keys = np.arange(len(queries))[:, None] * len(self._lists) + rows
            values[np.isin(keys, owner.astype(np.int64) * len(self._lists) + column)] = -np.inf
        columns, best = best_first(rows, values, size)
        room = ((0, 0), (0, size - columns.shape[1]))
        columns, best = np.pad(columns, room), np.pad(best, room, constant_values=-np.inf)
        return np.where(best > -np.inf, columns, 0), best


def fit_lists(
    vectors: np.ndarray, queries: np.ndarray, hidden: csr_matrix | None = None, *, what: str, seed: int = 0
) -> NearLists:
    """Make lists of vectors, and choose how much a query looks at: so that 98 % of the nearest are found.

    What the lists do not hold that a query looks into takes more lists. What they hold, and does not look near by its
    code, takes more vectors to compare: where vectors are much alike, codes of two bits a number tell little.

    Args:
        vectors: `(N, H)`, rows of length 1, float16 or float32, at least 4.
        queries: some that are like those to come, `(Q, H)`, float32.
        hidden: vectors that must not count, `(Q, N)`, sparse: each query itself, if it is one of them; none if None.
        what: what the vectors are of, for the log.
        seed: of the sample and of k-means. The same seed gives the same lists on one machine with as many threads.

    Raises:
        MissingExtraError: if faiss is not installed.
    """
    count = min(2 ** round(np.log2(4 * len(vectors) ** 0.5)), len(vectors) // 4)
    centroids = _centroids(vectors, count, seed)
    size = min(_DEPTH, len(vectors))
    columns, exact = nearest(queries, vectors, size, hidden)
    codebooks = _codebooks(centroids, vectors, seed)
    found = NearLists(centroids, codebooks, *_encoded(centroids, codebooks, vectors), 1, _FEWEST_COMPARED, 0.0)
    ranks = np.take_along_axis(_list_ranks(queries, centroids), found.lists[columns], axis=1)[exact > -np.inf]

    def recall_of(width: int, compared: int) -> float:
        return _recall(NearSearch(vectors, found, width, compared).nearest(queries, size, hidden)[1], exact)

    width, compared, recall = _wide_enough(count, ranks, recall_of)
    found = replace(found, width=width, compared=compared, recall=recall)
    logger.info(
        "Approximate search of %d %s finds %.1f %% of the %d nearest (%d queries), looking into %d of %d lists and "
        "comparing %d of what is there.",
        *(len(vectors), what, 100 * recall, size, len(queries), width, count, compared * size),
    )
    return found


def _wide_enough(count: int, ranks: np.ndarray, recall_of: Callable[[int, int], float]) -> tuple[int, int, float]:
    """Width, number of compared vectors and recall, as small as reach the goal.

    Args:
        count: number of lists.
        ranks: as the how-manieth list a query looks into that of each of its nearest vectors, from 0.
        recall_of: measures the recall of a width and a number.
    """
    width, compared, recall = 1, _FEWEST_COMPARED, 0.0
    while True:
        held = float((ranks < width).mean()) if len(ranks) else 1.0
        if held >= _GOAL:
            recall = recall_of(width, compared)
        more = compared < _MOST_COMPARED
        if recall >= _GOAL or (width == count and not more):
            return width, compared, recall
        if width == count or (held >= _GOAL and held - recall > 1 - held and more):
            compared *= 2
        else:
            width = min(2 * width, count)


def _list_ranks(queries: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Which list a query looks into first, second, ..., as the place of each list in this order, `(Q, C)`."""
    order = np.argsort(-(queries @ centroids.T), axis=1)
    return np.argsort(order, axis=1)


def _recall(found: np.ndarray, exact: np.ndarray) -> float:
    """The fraction of the nearest that were found, `(Q, size)` similarities each; equal ones stand for each other."""
    there = exact > -np.inf
    least = np.where(there, exact, np.inf).min(axis=1, keepdims=True)
    hits = np.minimum((found >= least - _EQUAL).sum(axis=1), there.sum(axis=1))
    return float(hits.sum() / max(int(there.sum()), 1))


def _sample(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Some of the vectors, in their order, float32."""
    rows = np.random.default_rng(seed).choice(len(vectors), min(len(vectors), count), replace=False)
    return vectors[np.sort(rows)].astype(np.float32)


def _centroids(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The middles of lists, by k-means over some of the vectors, `(C, H)`, rows of length 1."""
    bounds = {"min_points_per_centroid": 1, "max_points_per_centroid": _TRAINED_ON}
    options = {"niter": _ROUNDS, "spherical": True, "seed": seed % 2**31}
    training = _faiss().Kmeans(vectors.shape[1], count, **options, **bounds)
    training.train(_sample(vectors, _TRAINED_ON * count, seed))
    found: np.ndarray = training.centroids
    return found


def _groups(size: int) -> int:
    """How many groups with a code of their own vectors of `size` numbers have."""
    return size // 2 if size % 2 == 0 else size


def _quantizer(size: int) -> faiss.ProductQuantizer:
    return _faiss().ProductQuantizer(size, _groups(size), _BITS)


def _codebooks(centroids: np.ndarray, vectors: np.ndarray, seed: int) -> np.ndarray:
    """The values that stand for all of a group of numbers, `(G, 16, H / G)`, by k-means over some of the vectors."""
    library, quantizer = _faiss(), _quantizer(vectors.shape[1])
    quantizer.cp.seed, quantizer.cp.min_points_per_centroid = seed % 2**31, 1
    some = _sample(vectors, _TAUGHT, seed)
    more = some - centroids[_coarse(centroids).search(some, 1)[1][:, 0]]
    quantizer.train(np.resize(more, (max(len(more), quantizer.ksub), more.shape[1])))  # again, where there are few
    found: np.ndarray = library.vector_to_array(quantizer.centroids)
    return found.reshape(quantizer.M, quantizer.ksub, quantizer.dsub)


def _coarse(centroids: np.ndarray) -> faiss.IndexFlatIP:
    """The search of the nearest lists."""
    found = _faiss().IndexFlatIP(centroids.shape[1])
    found.add(np.ascontiguousarray(centroids))
    return found


def _empty_index(coarse: faiss.IndexFlatIP, codebooks: np.ndarray) -> faiss.IndexIVFPQ:
    """An index without vectors; it does not keep `coarse` alive."""
    library = _faiss()
    index = library.IndexIVFPQ(coarse, coarse.d, coarse.ntotal, len(codebooks), _BITS, library.METRIC_INNER_PRODUCT)
    index.own_fields = False
    library.copy_array_to_vector(np.ascontiguousarray(codebooks).reshape(-1), index.pq.centroids)
    index.is_trained, index.by_residual = True, True
    return index


def _encoded(centroids: np.ndarray, codebooks: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List and code of each vector, `(N,)` and `(N, G / 2)`."""
    coarse = _coarse(centroids)
    index = _empty_index(coarse, codebooks)
    lists, codes = np.empty(len(vectors), np.int32), np.empty((len(vectors), index.code_size), np.uint8)
    for first in range(0, len(vectors), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        block = np.ascontiguousarray(vectors[part], dtype=np.float32)
        lists[part] = coarse.search(block, 1)[1][:, 0]
        codes[part] = index.pq.compute_codes(block - centroids[lists[part]])
    return lists, codes


def _are_codes_of(codebooks: np.ndarray, codes: np.ndarray, more: np.ndarray) -> bool:
    """Whether the library would give what vectors have more than their centroids these codes, but for rounding."""
    quantizer = _quantizer(more.shape[1])
    _faiss().copy_array_to_vector(np.ascontiguousarray(codebooks).reshape(-1), quantizer.centroids)
    return bool((codes == quantizer.compute_codes(more)).mean() > _ALIKE)


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as err:
        raise MissingExtraError("faiss-cpu", "faiss") from err
    if tuple(map(int, re.findall(r"\d+", faiss.__version__)[:3])) < _LEAST_RELEASE:
        raise ConfigurationError(
            f"faiss {faiss.__version__} is installed, which finds other vectors in each run in lists that are made "
            "of rows. Approximate search needs 1.13.2: `pip install --upgrade faiss-cpu`."
        )
    faiss.omp_set_num_threads(num_threads())  # it would take all that there are
    return faiss
