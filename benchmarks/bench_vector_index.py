"""Approximate search with several libraries beside the exact one: bench_vector_index.py [--like REAL.npz] [--json F].

Vectors are mixtures of real embeddings (`--like`: the folder of an index, or a file of numpy with `documents` and
`names`), half precision, 384 numbers each. Each kind of index is built by one thread; all have their best rows scored
again by the exact vectors, as the package does. Prints a line of JSON for each: CPU seconds to build, bytes a vector,
and for each width of the search recall of the 50 nearest and CPU milliseconds a query, which come one at a time.
Needs faiss-cpu and, for its lines, usearch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bench_index import real_vectors, vectors_like

from xlgen_hf.retrieval.search import nearest

_DEPTH = 50
_SCORED_AGAIN = 10  # times the depth

Search = Callable[[np.ndarray, int], np.ndarray]
"""Some queries, and how wide to search -> rows that are scored again, `(Q, R)`; -1 for none."""


def ivf(codes: str, vectors: np.ndarray, centroids: np.ndarray) -> tuple[Search, int, list[int]]:
    """Lists of faiss around centroids, with codes of a kind that it names."""
    import faiss

    width, count = vectors.shape[1], len(centroids)
    coarse = faiss.IndexFlatIP(width)
    coarse.add(centroids)
    inner = faiss.METRIC_INNER_PRODUCT
    if codes == "RaBitQ":
        index = faiss.IndexIVFRaBitQ(coarse, width, count, inner)
    elif codes == "RaBitQ for registers":
        index = faiss.IndexIVFRaBitQFastScan(coarse, width, count, inner)
    elif codes == "PQ for registers":  # what the package has
        index = faiss.IndexIVFPQFastScan(coarse, width, count, width // 2, 4, inner)
        index.by_residual = True
    elif codes.startswith("PQ"):
        index = faiss.IndexIVFPQ(coarse, width, count, int(codes[2:]), 8, inner)
    else:
        index = faiss.IndexIVFScalarQuantizer(coarse, width, count, getattr(faiss.ScalarQuantizer, codes), inner)
    index.own_fields = False
    index.train(sampled(vectors, 20_000))
    for first in range(0, len(vectors), 50_000):
        index.add(vectors[first : first + 50_000].astype(np.float32))

    def search(queries: np.ndarray, width: int, kept: object = coarse) -> np.ndarray:
        index.nprobe = width
        return index.search(queries, _DEPTH * _SCORED_AGAIN)[1]

    return search, len(faiss.serialize_index(index)), [16, 32, 64, 128, 256]


def sampled(vectors: np.ndarray, size: int) -> np.ndarray:
    rows = np.random.default_rng(0).choice(len(vectors), min(len(vectors), size), replace=False)
    return vectors[np.sort(rows)].astype(np.float32)


def trained_centroids(vectors: np.ndarray) -> np.ndarray:
    import faiss

    count = 2 ** round(np.log2(4 * len(vectors) ** 0.5))
    training = faiss.Kmeans(
        vectors.shape[1], count, niter=8, seed=0, spherical=True, max_points_per_centroid=32, min_points_per_centroid=1
    )
    training.train(sampled(vectors, 32 * count))
    return training.centroids


def hnsw(links: int, vectors: np.ndarray) -> tuple[Search, int, list[int]]:
    """The graph of faiss over half-precision vectors."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexHNSWSQ(vectors.shape[1], kind, links, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:1000].astype(np.float32))
    for first in range(0, len(vectors), 50_000):
        index.add(vectors[first : first + 50_000].astype(np.float32))

    def search(queries: np.ndarray, width: int) -> np.ndarray:
        index.hnsw.efSearch = width
        return index.search(queries, _DEPTH)[1]

    return search, len(faiss.serialize_index(index)), [64, 128, 256, 512]


def usearch(links: int, vectors: np.ndarray) -> tuple[Search, int, list[int]]:
    """The graph of usearch over half-precision vectors."""
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=links)
    index.add(np.arange(len(vectors)), vectors, threads=1)

    def search(queries: np.ndarray, width: int) -> np.ndarray:
        index.expansion_search = width
        return np.atleast_2d(index.search(queries, _DEPTH, threads=1).keys).astype(np.int64)

    return search, len(index.save()), [64, 128, 256, 512]


def kinds(centroids: np.ndarray) -> Iterator[tuple[str, Callable[[np.ndarray], tuple[Search, int, list[int]]]]]:
    for codes in ("PQ48", "QT_8bit", "RaBitQ", "RaBitQ for registers", "PQ for registers"):
        yield f"faiss IVF{len(centroids)} {codes}", lambda vectors, codes=codes: ivf(codes, vectors, centroids)
    yield "usearch HNSW16 f16", lambda vectors: usearch(16, vectors)
    yield "faiss HNSW32 f16", lambda vectors: hnsw(32, vectors)


def best_rows(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The nearest of some rows, by the vectors themselves, `(Q, 50)`."""
    found = []
    for query, own in zip(queries, rows, strict=True):
        own = own[own >= 0]
        order = np.argsort(-(vectors[own].astype(np.float32) @ query), kind="stable")[:_DEPTH]
        found.append(np.pad(own[order], (0, _DEPTH - len(order)), constant_values=-1))
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--like", type=Path, required=True, help="real embeddings")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    of_texts, of_names = real_vectors(options.like)
    random = np.random.default_rng(1)
    queries = vectors_like(of_texts, options.queries, random).astype(np.float32)
    lines = []
    for what, like, count in (("documents", of_texts, options.documents), ("names", of_names, options.labels)):
        vectors = vectors_like(like, count, random)
        start = time.process_time()
        exact = nearest(queries, vectors, _DEPTH)[0]
        lines.append({"what": what, "kind": "exact", "ms": (time.process_time() - start) / len(queries) * 1000})
        print(json.dumps(lines[-1]), flush=True)
        start = time.process_time()
        centroids = trained_centroids(vectors)
        lines.append({"what": what, "kind": "centroids, for all IVF", "build_s": time.process_time() - start})
        print(json.dumps(lines[-1]), flush=True)
        for name, make in kinds(centroids):
            if options.only not in name:
                continue
            start = time.process_time()
            search, size, widths = make(vectors)
            line = {"what": what, "kind": name, "build_s": time.process_time() - start, "bytes": size / count}
            for width in widths:
                start = time.process_time()
                found = [best_rows(vectors, query[None], search(query[None], width)) for query in queries]
                ms = (time.process_time() - start) / len(queries) * 1000
                same = [
                    len(np.intersect1d(one, other)) for one, other in zip(np.concatenate(found), exact, strict=True)
                ]
                line[f"width {width}"] = [round(float(np.mean(same)) / _DEPTH, 4), round(ms, 3)]
            lines.append(line)
            print(json.dumps(line), flush=True)
    if options.json is not None:
        options.json.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
